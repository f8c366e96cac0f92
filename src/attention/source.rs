//! Where a block of queries finds a run of keys and values in f32: where they lie, or in scratch that they were widened
//! into.

use super::block::{Input, Place};
use super::reach::Run;
use super::slots::Sequence;
use super::Shape;
use crate::error::Error;
use crate::kernels;
use crate::scratch::{Need, Scratch};
use crate::simd::Isa;
use crate::view::{MatRef, RowsMat, TensorRef};
use core::ops::Range;

/// Keys or values, as blocks read them.
pub(super) trait Source: Copy {
    /// Whether rows may have to be turned into f32 first.
    const WIDENS: bool;
    /// Memory for the rows of a run: none where nothing is widened.
    type Room<'s>;
    /// Room for `rows` rows.
    fn take<'s>(scratch: &mut Scratch<'s>, rows: usize, cols: usize) -> Result<Self::Room<'s>, Error>;
    /// Forgets what is in a room; rows from `start` on are next, no more than there is room for.
    fn empty(room: &mut Self::Room<'_>, start: usize);
    /// Rows `keys` of a head. What a room has of them already is that head's.
    fn rows<'r>(&self, isa: Isa, head: [usize; 2], keys: Range<usize>, room: &'r mut Self::Room<'_>) -> MatRef<'r, f32>
    where
        Self: 'r;
}

impl Source for TensorRef<'_, f32> {
    const WIDENS: bool = false;
    type Room<'s> = ();

    fn take<'s>(_: &mut Scratch<'s>, _: usize, _: usize) -> Result<(), Error> {
        Ok(())
    }

    #[inline(always)]
    fn empty((): &mut (), _: usize) {}

    #[inline(always)]
    fn rows<'r>(&self, _: Isa, [batch, head]: [usize; 2], keys: Range<usize>, (): &'r mut ()) -> MatRef<'r, f32>
    where
        Self: 'r,
    {
        self.matrix(batch, head).row_range(keys)
    }
}

/// Rows `first..end`, widened, one after the other.
pub(super) struct Widened<'s> {
    numbers: &'s mut [f32],
    cols: usize,
    first: usize,
    end: usize,
}

impl Source for Sequence<'_> {
    const WIDENS: bool = true;
    type Room<'s> = Widened<'s>;

    fn take<'s>(scratch: &mut Scratch<'s>, rows: usize, cols: usize) -> Result<Widened<'s>, Error> {
        Ok(Widened {
            numbers: scratch.take(rows.saturating_mul(cols))?,
            cols,
            first: 0,
            end: 0,
        })
    }

    fn empty(room: &mut Widened<'_>, start: usize) {
        (room.first, room.end) = (start, start);
    }

    fn rows<'r>(
        &self,
        isa: Isa,
        [batch, head]: [usize; 2],
        keys: Range<usize>,
        room: &'r mut Widened<'_>,
    ) -> MatRef<'r, f32>
    where
        Self: 'r,
    {
        if let RowsMat::F32(rows) = self.piece(batch, head, keys.clone()) {
            if rows.rows() == keys.len() {
                return rows;
            }
        }
        // Panels have most of a run in common. What none of them reads, in between, only costs time.
        let Widened {
            numbers,
            cols,
            first,
            end,
        } = room;
        self.pieces(batch, head, *end..keys.end, |rows, key| {
            let at = (key - *first).saturating_mul(*cols);
            kernels::widen(isa, rows, numbers.get_mut(at..).unwrap_or(&mut []));
        });
        *end = keys.end.max(*end);
        // Errors are impossible: a run is not longer than the room.
        let all = MatRef::new(numbers, *end - *first, *cols).unwrap_or(MatRef::EMPTY);
        all.row_range(keys.start - *first..keys.end - *first)
    }
}

/// Memory for a run of keys and values.
pub(super) struct Rooms<'s, K: Source> {
    keys: K::Room<'s>,
    values: K::Room<'s>,
}

impl<'s, K: Source> Rooms<'s, K> {
    /// The scratch of a block, and of these.
    pub(super) const fn need(block: Need, shape: &Shape, run: usize) -> Need {
        if !K::WIDENS {
            return block;
        }
        block
            .and::<f32>(run.saturating_mul(shape.dim))
            .and::<f32>(run.saturating_mul(shape.value_dim))
    }

    #[inline(always)]
    pub(super) fn take(scratch: &mut Scratch<'s>, shape: &Shape, run: usize) -> Result<Self, Error> {
        Ok(Rooms {
            keys: K::take(scratch, run, shape.dim)?,
            values: K::take(scratch, run, shape.value_dim)?,
        })
    }

    /// Runs from key `start` on are next.
    #[inline(always)]
    pub(super) fn empty(&mut self, start: usize) {
        K::empty(&mut self.keys, start);
        K::empty(&mut self.values, start);
    }

    /// Keys and values of a run.
    #[inline(always)]
    pub(super) fn rows<'r>(
        &'r mut self,
        input: &'r Input<'_, K>,
        place: &Place,
        run: Run,
    ) -> (MatRef<'r, f32>, MatRef<'r, f32>) {
        let (head, keys) = ([place.batch, place.kv_head], run.start..run.end);
        (
            input.k.rows(input.isa, head, keys.clone(), &mut self.keys),
            input.v.rows(input.isa, head, keys, &mut self.values),
        )
    }
}

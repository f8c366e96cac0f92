//! Where the keys of a sequence lie: one after the other, in a ring, in pages.

use super::block::Input;
use crate::view::{RowsMat, RowsRef};
use core::ops::Range;

/// From the number of a key to its place in memory.
///
/// The first `kept` keys are the first rows; key `j` beyond them is row `kept + (turn + j - kept) % ring`. With pages,
/// row `r` is row `r % block` of batch entry `table[r / block]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slots<'a> {
    pub(super) kept: usize,
    pub(super) turn: usize,
    pub(super) ring: usize,
    pub(super) pages: Option<Pages<'a>>,
}

/// Rows in blocks of equal length, in the order of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pages<'a> {
    pub(super) table: &'a [u32],
    pub(super) block: usize,
}

impl Slots<'_> {
    /// Key `j` is row `j`.
    pub(super) const STRAIGHT: Slots<'static> = Slots {
        kept: usize::MAX,
        turn: 0,
        ring: 0,
        pages: None,
    };

    /// The batch entry and the rows that the first of the keys are in, as many as lie together.
    pub(super) fn piece(&self, batch: usize, keys: Range<usize>) -> (usize, Range<usize>) {
        let wanted = keys.end.saturating_sub(keys.start);
        let (row, length) = if keys.start < self.kept {
            (keys.start, self.kept - keys.start)
        } else {
            let turned = (self.turn + (keys.start - self.kept))
                .checked_rem(self.ring)
                .unwrap_or(0);
            (self.kept + turned, self.ring.saturating_sub(turned))
        };
        let length = wanted.min(length);
        match self.pages {
            None => (batch, row..row + length),
            Some(Pages { table, block }) => {
                let block = block.max(1);
                let page = table.get(row / block).map_or(usize::MAX, |&page| page as usize);
                let row = row % block;
                (page, row..row + length.min(block - row))
            }
        }
    }
}

/// Keys or values: rows, and which of them is which key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sequence<'a> {
    pub(super) rows: RowsRef<'a>,
    pub(super) slots: Slots<'a>,
}

impl<'a> Sequence<'a> {
    /// The rows in their own order.
    pub(super) const fn straight(rows: RowsRef<'a>) -> Self {
        Sequence {
            rows,
            slots: Slots::STRAIGHT,
        }
    }

    /// The piece that the first of the keys are in: as many as lie together.
    #[inline]
    pub(super) fn piece(&self, batch: usize, head: usize, keys: Range<usize>) -> RowsMat<'a> {
        let (batch, rows) = self.slots.piece(batch, keys);
        self.rows.part(batch, head, rows)
    }

    /// Calls `f` with each piece of the keys that lies together, in order, and the number of its first key.
    #[inline]
    pub(super) fn pieces(&self, batch: usize, head: usize, keys: Range<usize>, mut f: impl FnMut(RowsMat<'a>, usize)) {
        let mut next = keys.start;
        while next < keys.end {
            let piece = self.piece(batch, head, next..keys.end);
            if piece.rows() == 0 {
                return;
            }
            f(piece, next);
            next += piece.rows();
        }
    }
}

/// What reads keys and values in any form.
pub(super) type Keys<'a> = Input<'a, Sequence<'a>>;

impl<'a> Input<'a> {
    /// The same, for what reads keys and values in any form.
    pub(super) fn stored(&self) -> Keys<'a> {
        let Input {
            shape,
            rules,
            isa,
            q,
            k,
            v,
        } = *self;
        Input {
            shape,
            rules,
            isa,
            q,
            k: Sequence::straight(k.into()),
            v: Sequence::straight(v.into()),
        }
    }
}

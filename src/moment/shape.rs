//! The sizes of a moment state, checked once.

use super::features::count;
use crate::error::Error;
use crate::kernels::{block_lanes, by_values, SPARE};
use crate::scratch::Need;
use crate::simd::Isa;

/// The sizes of a [`State`](super::State).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Columns of keys, d.
    pub dim: usize,
    /// Columns of values, dv.
    pub value_dim: usize,
    /// Highest power of a score, g.
    pub degree: usize,
    /// Tokens that are summed at once, a multiple of 16: until there are so many they wait in the state's memory.
    pub block: usize,
    /// Whether what additions round off is kept beside the sums (Kahan's summation): their error does not grow with tokens
    /// then, for `t (dv + 1)` numbers more.
    pub compensated: bool,
}

/// The pieces of a state's memory, in numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pieces {
    /// Centre; lowest and highest value of every column; the largest squared norm; sums of even powers of the norms.
    pub head: usize,
    /// Keys that wait.
    pub keys: usize,
    /// Values that wait.
    pub values: usize,
    /// Sums.
    pub sums: usize,
    /// What they have lost.
    pub lost: usize,
}

impl Shape {
    /// The block that is fastest where the caches are large. Small machines take 16 or 32, see [`need`](Shape::need).
    pub const BLOCK: usize = 256;

    /// Blocks of [`BLOCK`](Shape::BLOCK) tokens.
    #[must_use]
    pub const fn new(dim: usize, value_dim: usize, degree: usize) -> Shape {
        Shape {
            dim,
            value_dim,
            degree,
            block: Shape::BLOCK,
            compensated: false,
        }
    }

    /// The same, [compensated](Shape::compensated).
    #[must_use]
    pub const fn with_compensation(mut self) -> Shape {
        self.compensated = true;
        self
    }

    /// Monomials, `t = C(d + g, g)`; `None` where that does not fit.
    #[must_use]
    pub const fn features(&self) -> Option<usize> {
        count(self.dim, self.degree)
    }

    /// Monomials below the highest degree; 1 where that is 0.
    pub(super) const fn parents(&self) -> Option<usize> {
        count(self.dim, self.degree.saturating_sub(1))
    }

    /// Columns of the sums: the values, then the count.
    pub(super) const fn columns(&self) -> Option<usize> {
        self.value_dim.checked_add(1)
    }

    /// Numbers of a [`Frozen`](super::Frozen): `t (dv + 1) + ceil(g / 2)`. `None` where that does not fit.
    #[must_use]
    pub const fn frozen_len(&self) -> Option<usize> {
        match self.sums() {
            Some(sums) => sums.checked_add(self.powers()),
            None => None,
        }
    }

    /// Sums: `t (dv + 1)`. `None` where that does not fit.
    #[must_use]
    pub const fn sums(&self) -> Option<usize> {
        match (self.features(), self.columns()) {
            (Some(t), Some(columns)) => t.checked_mul(columns),
            _ => None,
        }
    }

    /// Numbers of a state: `t (dv + 1)` sums, `block (d + dv + 1)` for the tokens that wait (`block (d + dv)` where dv is a
    /// multiple of 16), and `d + 2 dv + ceil(g / 2) + 1`. Twice the sums where they are [compensated](Shape::compensated).
    ///
    /// [`Error::Parameter`] unless the block is a multiple of 16 and not 0, [`Error::Overflow`] where no memory is so large.
    pub const fn state_len(&self) -> Result<usize, Error> {
        match self.pieces() {
            Err(e) => Err(e),
            Ok(p) => Ok(p.head + p.keys + p.values + p.sums + p.lost),
        }
    }

    /// Scratch of [`push`](super::State::push), [`merge`](super::State::merge) and [`freeze`](super::State::freeze):
    /// `block (C(d + g - 1, g - 1) + 12)` numbers, or t if that is more.
    #[must_use]
    pub const fn need(&self) -> Need {
        // What does not fit is never there.
        let push = Need::NONE.and::<f32>(self.parent_room());
        push.or(Need::NONE.and::<f32>(or_most(self.features())))
    }

    /// Numbers for the monomials of a block that others are made of.
    pub(super) const fn parent_room(&self) -> usize {
        or_most(match self.parents() {
            Some(parents) => parents.saturating_add(SPARE).checked_mul(self.block),
            None => None,
        })
    }

    /// Scratch of a [`Work`](super::Work) on this back end: `lanes (d + C(d + g - 1, g - 1))` numbers.
    #[must_use]
    pub const fn work_need(&self, isa: Isa) -> Need {
        self.work_need_of(block_lanes(isa))
    }

    /// As [`work_need`](Shape::work_need), for so many lanes.
    pub(crate) const fn work_need_of(&self, lanes: usize) -> Need {
        let parents = match self.parents() {
            Some(parents) => parents.checked_mul(lanes),
            None => None,
        };
        Need::NONE
            .and::<f32>(or_most(self.dim.checked_mul(lanes)))
            .and::<f32>(or_most(parents))
    }

    pub(super) const fn pieces(&self) -> Result<Pieces, Error> {
        if self.block == 0 || !self.block.is_multiple_of(16) {
            return Err(Error::Parameter);
        }
        let one = !by_values(self.value_dim);
        let (Some(sums), Some(keys), Some(values)) = (
            self.sums(),
            self.dim.checked_mul(self.block),
            self.value_dim.saturating_add(one as usize).checked_mul(self.block),
        ) else {
            return Err(Error::Overflow);
        };
        // A quarter of the address space for each: then no sum of four overflows.
        let head = self.dim.saturating_add(self.value_dim.saturating_mul(2));
        let head = head.saturating_add(self.powers()).saturating_add(1);
        let most = usize::MAX / 8 / size_of::<f32>();
        if sums > most || keys > most || values > most || head > most {
            return Err(Error::Overflow);
        }
        Ok(Pieces {
            head,
            keys,
            values,
            sums,
            lost: if self.compensated { sums } else { 0 },
        })
    }

    /// Even powers of the norms that are summed: 2, 4, ... up to the degree, or one more.
    pub(super) const fn powers(&self) -> usize {
        self.degree.div_ceil(2)
    }
}

const fn or_most(len: Option<usize>) -> usize {
    match len {
        Some(len) => len,
        None => usize::MAX,
    }
}

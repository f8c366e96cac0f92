//! Sums of monomials in the caller's memory.

use super::features::weights;
use super::frozen::Frozen;
use super::summary::Summary;
use super::waiting::{Frame, Waiting};
use super::Shape;
use crate::bound::sum_up;
use crate::error::Error;
use crate::kernels::{add_to, all_finite, widen_ranges};
use crate::math;
use crate::scratch::Scratch;
use crate::simd::Isa;
use crate::view::MatRef;

/// How far a state has come: all that is not in its memory, so that a host can keep it as plain numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Tokens in it.
    pub count: u64,
    /// Those of them that wait for their block to be full.
    pub waiting: usize,
    /// Additions that a sum has seen: one per block, and one per merge. It decides the rounding error.
    pub additions: u64,
}

/// `Z[alpha] = sum over tokens of x^alpha [v, 1]`, `x = (k - c) / rho`, for all monomials of degree up to g.
///
/// Tokens are summed in blocks of [`Shape::block`], and wait in the state's memory until there are so many. So the bits
/// depend on the sequence of tokens only, not on how it was cut into calls; what waits is part of every answer. The
/// count is exact; a sum of n ones has an error of about `n / block` roundings.
///
/// c should be near the middle of the keys. `radius` is how far from it they may be: [`push`](State::push) refuses those
/// that are farther, as the polynomial that is asked for later is good for small scores only. [`leading`](State::leading)
/// finds them beforehand, for the caller to keep elsewhere.
///
/// ```
/// use subquad::moment::{lanes, Answer, Shape, State, Work};
/// use subquad::{Isa, MatRef, Scratch};
/// # fn main() -> Result<(), subquad::Error> {
/// let shape = Shape { block: 16, ..Shape::new(2, 1, 2) };
/// let mut memory = vec![0.0; shape.state_len()?];
/// let mut bytes = vec![core::mem::MaybeUninit::uninit(); shape.need().bytes()];
/// let mut state = State::new(shape, &[0.0, 0.0], 2.0, &mut memory)?;
/// state.push(MatRef::new(&[1.0, 0.0, 0.0, -1.0], 2, 2)?, MatRef::new(&[10.0, 20.0], 2, 1)?, &mut Scratch::new(&mut bytes))?;
///
/// let mut weighted = vec![0.0; shape.frozen_len().unwrap()];
/// let frozen = state.freeze(&mut weighted, &mut Scratch::new(&mut bytes))?;
/// let (isa, lanes) = (Isa::best(), lanes(Isa::best()));
/// let mut bytes = vec![core::mem::MaybeUninit::uninit(); shape.work_need(isa).bytes()];
/// let mut work = Work::new(shape, isa, &mut Scratch::new(&mut bytes))?;
/// let mut moments = vec![0.0; 3 * 2 * lanes];
/// frozen.query(MatRef::new(&[3.0, 5.0], 1, 2)?, 1.0, &mut work, Answer { moments: &mut moments, magnitudes: None })?;
/// let n = |degree: usize, column: usize| moments[(degree * 2 + column) * lanes];
/// // The scores are 3 and -5: their zeroth, first and second powers, times the values, and alone.
/// assert_eq!([n(0, 0), n(1, 0), n(2, 0)], [30.0, 30.0 - 100.0, 90.0 + 500.0]);
/// assert_eq!([n(0, 1), n(1, 1), n(2, 1)], [2.0, -2.0, 34.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct State<'a> {
    isa: Isa,
    shape: Shape,
    radius: f32,
    scale: f32,
    centre: &'a mut [f32],
    low: &'a mut [f32],
    high: &'a mut [f32],
    /// The largest square of a norm, as far as settled.
    square: &'a mut f32,
    /// Sums of powers 1, 2, ... of the squares, as far as settled.
    powers: &'a mut [f32],
    sums: &'a mut [f32],
    /// By how much they are too large, if that is kept.
    lost: &'a mut [f32],
    waiting: Waiting<'a>,
    count: u64,
    additions: u64,
}

/// Radii from 2^-60 to 2^60: their squares, and inverses of both, are normal numbers.
const RADII: core::ops::RangeInclusive<f32> = f32::from_bits((127 - 60) << 23)..=f32::from_bits((127 + 60) << 23);

impl<'a> State<'a> {
    /// An empty state in the first [`Shape::state_len`] numbers of `memory`.
    ///
    /// Errors, with nothing written: those of [`Shape::state_len`], [`Error::Short`], [`Error::Shape`] if the centre has not one
    /// number per column of the keys, [`Error::NonFinite`] for the centre, [`Error::Parameter`] unless the radius is from
    /// 2^-60 to 2^60.
    pub fn new(shape: Shape, centre: &[f32], radius: f32, memory: &'a mut [f32]) -> Result<Self, Error> {
        if centre.len() != shape.dim {
            return Err(Error::Shape);
        }
        if !centre.iter().all(|c| c.is_finite()) {
            return Err(Error::NonFinite);
        }
        let mut state = Self::open(shape, radius, Progress::default(), memory)?;
        state.reset();
        state.centre.iter_mut().zip(centre).for_each(|(to, &c)| *to = c);
        Ok(state)
    }

    /// The state whose memory this is, and whose progress was that. Nothing is written.
    ///
    /// Errors as for [`new`](State::new), and [`Error::Mismatch`] if no state of this shape comes there.
    pub fn open(shape: Shape, radius: f32, progress: Progress, memory: &'a mut [f32]) -> Result<Self, Error> {
        let pieces = shape.pieces()?;
        if !RADII.contains(&radius) {
            return Err(Error::Parameter);
        }
        let Progress {
            count,
            waiting,
            additions,
        } = progress;
        if waiting >= shape.block || waiting as u64 > count {
            return Err(Error::Mismatch);
        }
        let mut rest = memory;
        let mut next = |len: usize| {
            let (piece, tail) = core::mem::take(&mut rest)
                .split_at_mut_checked(len)
                .ok_or(Error::Short)?;
            rest = tail;
            Ok(piece)
        };
        Ok(State {
            isa: Isa::best(),
            shape,
            radius,
            scale: power_of_two_from(radius),
            centre: next(shape.dim)?,
            low: next(shape.value_dim)?,
            high: next(shape.value_dim)?,
            square: next(1)?.first_mut().ok_or(Error::Short)?,
            powers: next(shape.powers())?,
            sums: next(pieces.sums)?,
            lost: next(pieces.lost)?,
            waiting: Waiting::new(shape, pieces, waiting, next)?,
            count,
            additions,
        })
    }

    /// The same state on another back end.
    #[must_use]
    pub const fn with_isa(mut self, isa: Isa) -> Self {
        self.isa = isa;
        self
    }

    /// How far it has come.
    #[must_use]
    pub const fn progress(&self) -> Progress {
        Progress {
            count: self.count,
            waiting: self.waiting.len,
            additions: self.additions,
        }
    }

    /// How far from the centre a key may be.
    #[must_use]
    pub const fn radius(&self) -> f32 {
        self.radius
    }

    /// The sums, `[monomial][value, then the count]`, without the tokens that wait.
    #[must_use]
    pub const fn sums(&self) -> &[f32] {
        self.sums
    }

    /// Forgets all tokens.
    pub fn reset(&mut self) {
        (self.count, self.additions, *self.square) = (0, 0, 0.0);
        self.waiting.clear();
        for piece in [&mut *self.low, self.high, self.powers, self.sums, self.lost] {
            piece.fill(0.0);
        }
    }

    /// How many of the first rows are near enough to be pushed; what is not finite is not.
    #[must_use]
    pub fn leading(&self, k: MatRef<'_, f32>) -> usize {
        let (frame, limit) = (self.frame(), self.limit());
        if k.cols() != self.shape.dim {
            return 0;
        }
        for first in (0..k.rows()).step_by(16) {
            let near = k.row_range(first..first + 16);
            let squares = frame.squares(self.isa, near);
            let near = squares.iter().take(near.rows()).take_while(|&&square| square <= limit);
            let near = near.count();
            if near < 16 {
                return first + near;
            }
        }
        k.rows()
    }

    fn frame(&self) -> Frame<'_> {
        Frame {
            centre: self.centre,
            inverse: 1.0 / self.scale,
        }
    }

    /// The largest square of the norm of an x.
    fn limit(&self) -> f32 {
        let radius = self.radius / self.scale;
        radius * radius
    }

    /// Adds n tokens, `(n, dim)` keys and `(n, value_dim)` values. Cost: `2 t (dv + 1)` flops each.
    ///
    /// Errors, with nothing written: [`Error::Shape`], [`Error::NonFinite`], [`Error::Range`] if a key is farther from the
    /// centre than the radius, [`Error::Short`] for less scratch than [`Shape::need`], [`Error::Overflow`] for more than
    /// 2^64 tokens. Sums of values that f32 does not hold become infinite, and so do the bounds.
    pub fn push(&mut self, k: MatRef<'_, f32>, v: MatRef<'_, f32>, scratch: &mut Scratch<'_>) -> Result<(), Error> {
        if k.cols() != self.shape.dim || v.cols() != self.shape.value_dim || k.rows() != v.rows() {
            return Err(Error::Shape);
        }
        scratch.check(self.shape.need())?;
        let count = self.count.checked_add(k.rows() as u64).ok_or(Error::Overflow)?;
        if self.leading(k) < k.rows() {
            let finite = all_finite(self.isa, k);
            return Err(if finite { Error::Range } else { Error::NonFinite });
        }
        if !all_finite(self.isa, v) {
            return Err(Error::NonFinite);
        }
        if self.count == 0 && v.rows() > 0 {
            self.start_ranges(v.row(0), v.row(0));
        }
        widen_ranges(self.isa, v, self.low, self.high);
        let mut parents: &mut [f32] = &mut [];
        let mut done = 0;
        while done < k.rows() {
            let rest = done..k.rows();
            let (k, v) = (k.row_range(rest.clone()), v.row_range(rest));
            let frame = Frame {
                centre: self.centre,
                inverse: 1.0 / self.scale,
            };
            done += self.waiting.add_rows(k, v, frame);
            self.settle_if_full(&mut parents, scratch)?;
        }
        self.count = count;
        Ok(())
    }

    /// Adds the tokens of another state to these. Cost: one pass over the sums, and the push of what waits there.
    ///
    /// The bits depend on both states, in this order. Errors, with nothing written: [`Error::Mismatch`] unless shape,
    /// radius and centre are equal, [`Error::Short`] and [`Error::Overflow`] as for [`push`](State::push).
    pub fn merge(&mut self, other: &State<'_>, scratch: &mut Scratch<'_>) -> Result<(), Error> {
        let bits = |x: &[f32], y: &[f32]| x.iter().map(|x| x.to_bits()).eq(y.iter().map(|y| y.to_bits()));
        if self.shape != other.shape || self.radius != other.radius || !bits(self.centre, other.centre) {
            return Err(Error::Mismatch);
        }
        scratch.check(self.shape.need())?;
        let count = self.count.checked_add(other.count).ok_or(Error::Overflow)?;
        if self.count == 0 {
            self.start_ranges(other.low, other.high);
        } else if other.count > 0 {
            for row in [&*other.low, other.high] {
                let row = MatRef::spanning(row, 1, self.shape.value_dim, self.shape.value_dim);
                widen_ranges(self.isa, row, self.low, self.high);
            }
        }
        for (i, &sum) in other.sums.iter().enumerate() {
            add_to(self.sums, self.lost, i, sum);
        }
        for (i, &lost) in other.lost.iter().enumerate() {
            add_to(self.sums, self.lost, i, -lost);
        }
        for (to, &sum) in self.powers.iter_mut().zip(other.powers.iter()) {
            *to = sum_up(*to, sum);
        }
        *self.square = self.square.max(*other.square);
        self.additions = self.additions.max(other.additions).saturating_add(2);
        self.count = count;
        let mut parents: &mut [f32] = &mut [];
        for i in 0..other.waiting.len {
            self.waiting.add_token(&other.waiting, i);
            self.settle_if_full(&mut parents, scratch)?;
        }
        Ok(())
    }

    /// Into the sums with a full block. `parents` is taken with the first.
    fn settle_if_full<'s>(&mut self, parents: &mut &'s mut [f32], scratch: &mut Scratch<'s>) -> Result<(), Error> {
        if self.waiting.len < self.shape.block {
            return Ok(());
        }
        if parents.is_empty() {
            *parents = scratch.take(self.shape.parent_room())?;
        }
        let square = self.waiting.sum_powers(self.isa, parents, self.powers);
        *self.square = self.square.max(square);
        self.waiting.sum(self.isa, parents, self.sums, self.lost);
        self.additions = self.additions.saturating_add(1);
        self.waiting.clear();
        Ok(())
    }

    /// The first ranges of the values.
    fn start_ranges(&mut self, low: &[f32], high: &[f32]) {
        self.low.iter_mut().zip(low).for_each(|(to, &x)| *to = x);
        self.high.iter_mut().zip(high).for_each(|(to, &x)| *to = x);
    }

    /// What queries read, in the first [`Shape::frozen_len`] numbers of `memory`; what waits is summed for it once more.
    ///
    /// Cost: a pass over the sums, and the push of up to one block: a stream that asks after every token takes a small one.
    /// Errors, with nothing written: [`Error::Short`] for memory or scratch.
    pub fn freeze<'m>(&'m self, memory: &'m mut [f32], scratch: &mut Scratch<'_>) -> Result<Frozen<'m>, Error> {
        scratch.check(self.shape.need())?;
        let memory = memory.split_at_mut_checked(self.sums.len());
        let (sums, rest) = memory.ok_or(Error::Short)?;
        let powers = rest.get_mut(..self.powers.len()).ok_or(Error::Short)?;
        sums.iter_mut().zip(self.sums.iter()).for_each(|(to, &sum)| *to = sum);
        sums.iter_mut().zip(self.lost.iter()).for_each(|(to, lost)| *to -= lost);
        powers
            .iter_mut()
            .zip(self.powers.iter())
            .for_each(|(to, &sum)| *to = sum);
        let (mut square, mut additions) = (*self.square, self.additions);
        if self.waiting.len > 0 {
            let mut scratch = scratch.scope();
            let parents = scratch.take(self.shape.parent_room())?;
            square = square.max(self.waiting.sum_powers(self.isa, parents, powers));
            self.waiting.sum(self.isa, parents, sums, &mut []);
            additions = additions.saturating_add(1);
        }
        // A sum of ones stops at 2^24 times the block; the count does not.
        let count = sums.get_mut(self.shape.value_dim);
        count.into_iter().for_each(|to| *to = math::nearest(self.count));
        let mut scratch = scratch.scope();
        let factors = scratch.take(self.shape.features().ok_or(Error::Overflow)?)?;
        weights(self.shape.dim, self.shape.degree, factors)?;
        let columns = self.shape.columns().unwrap_or(1).max(1);
        for (row, &weight) in sums.chunks_exact_mut(columns).zip(factors.iter()) {
            row.iter_mut().for_each(|z| *z *= weight);
        }
        let summary = Summary {
            shape: self.shape,
            scale: self.scale,
            count: self.count,
            additions,
            centre: self.centre,
            low: self.low,
            high: self.high,
            square,
            powers,
        };
        Ok(Frozen {
            summary,
            weighted: sums,
        })
    }
}

/// The smallest power of two that is not less, for a normal number.
fn power_of_two_from(x: f32) -> f32 {
    const MANTISSA: u32 = (1 << 23) - 1;
    f32::from_bits((x.to_bits() + MANTISSA) & !MANTISSA)
}

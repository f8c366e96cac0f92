//! Unfinished rows, and how they become one.

use crate::bound::{gamma, up, Bound};
use crate::error::Error;
use crate::kernels;
use crate::math::{
    self,
    poly::{LN2_HIGH, LN2_LOW},
};

/// One output row over some of the keys, as plain numbers: `[max, sum, e_lse, e_out, out...]`.
///
/// Partials over disjoint keys merge, together with what is promised about them, so any engine that can add up rows can
/// be the cluster. `max` is an integer, in base 2: the row's weights sum to `sum * 2^max`. The identity is what
/// [`Partial::EMPTY_HEAD`] starts with and zeros.
#[derive(Debug)]
pub struct Partial<'a> {
    head: &'a mut [f32; 4],
    out: &'a mut [f32],
}

impl<'a> Partial<'a> {
    /// Numbers before the output row.
    pub const HEAD: usize = 4;

    /// What precedes the (zero) output of a row that saw no key: reference, sum, and two errors of 0.
    pub const EMPTY_HEAD: [f32; 4] = [kernels::NOTHING, 0.0, 0.0, 0.0];

    /// Numbers of a partial with `value_dim` output columns.
    #[must_use]
    pub const fn width(value_dim: usize) -> usize {
        value_dim.saturating_add(Self::HEAD)
    }

    /// Reads `row` as a partial. [`Error::Short`] if it has no room for the head.
    pub fn from_row(row: &'a mut [f32]) -> Result<Self, Error> {
        match row.split_first_chunk_mut::<4>() {
            Some((head, out)) => Ok(Partial { head, out }),
            None => Err(Error::Short),
        }
    }

    /// Log of the sum of the exponentiated scores; minus infinity where no key was seen.
    #[must_use]
    pub fn lse(&self) -> f32 {
        let [max, sum, ..] = *self.head;
        lse(max, sum)
    }

    /// The promise about `lse`.
    pub fn lse_bound(&self) -> Bound {
        let [_, _, e, _] = *self.head;
        Bound::certain(e)
    }

    /// The promise about every entry of `out`.
    pub fn out_bound(&self) -> Bound {
        let [.., e] = *self.head;
        Bound::certain(e)
    }

    /// The weighted mean of the values.
    #[must_use]
    pub fn out(&self) -> &[f32] {
        self.out
    }

    /// Takes in another partial over other keys. `range` bounds, per column, how far any two values of the union of the
    /// keys are apart (lemma L6); infinity if unknown. [`Error::Mismatch`] if the widths differ, [`Error::Parameter`] if
    /// `range` is negative or NaN.
    ///
    /// Errors: `e_out <= range * tanh(max e_lse / 2) + weighted mean of e_out + rounding`.
    pub fn merge(&mut self, other: &Partial<'_>, range: f32) -> Result<(), Error> {
        self.merge_parts(other.head, other.out, range)
    }

    /// As [`merge`](Partial::merge), from a row that is only read.
    pub fn merge_row(&mut self, other: &[f32], range: f32) -> Result<(), Error> {
        let (head, out) = other.split_first_chunk::<4>().ok_or(Error::Short)?;
        self.merge_parts(head, out, range)
    }

    fn merge_parts(&mut self, other: &[f32; 4], out: &[f32], range: f32) -> Result<(), Error> {
        if self.out.len() != out.len() {
            return Err(Error::Mismatch);
        }
        if range.is_nan() || range < 0.0 {
            return Err(Error::Parameter);
        }
        let ([m1, s1, l1, e1], [m2, s2, l2, e2]) = (*self.head, *other);
        if s2 == 0.0 {
            return Ok(());
        }
        if s1 == 0.0 {
            *self.head = *other;
            self.out.copy_from_slice(out);
            return Ok(());
        }
        let max = if m1 > m2 { m1 } else { m2 };
        let (w1, w2) = (s1 * kernels::weight_of(m1, max), s2 * kernels::weight_of(m2, max));
        let sum = w1 + w2;
        let (f1, f2) = (w1 / sum, w2 / sum);
        let mut largest = 0.0f32;
        for (a, &b) in self.out.iter_mut().zip(out) {
            largest = largest.max(a.abs()).max(b.abs());
            *a = *a * f1 + b * f2;
        }
        let e_lse = if l1 > l2 { l1 } else { l2 };
        // tanh(x) <= min(x, 1); f1 and f2 are off by three roundings each, the sum by three more.
        let shift = (e_lse / 2.0).min(1.0);
        let mix = if shift == 0.0 { 0.0 } else { up(range * shift) };
        let rounding = up(gamma(8) * largest);
        *self.head = [
            max,
            sum,
            up(e_lse + gamma(3)),
            up(up(up(e1 * f1) + up(e2 * f2)) + up(mix + rounding)),
        ];
        Ok(())
    }
}

/// `max ln 2 + ln sum`, the product in two pieces.
pub(super) fn lse(max: f32, sum: f32) -> f32 {
    if sum == 0.0 {
        return f32::NEG_INFINITY;
    }
    // max * LN2_HIGH is exact for |max| < 2^9, where a rounding would hurt most.
    max * LN2_HIGH + (max * LN2_LOW + math::ln(sum))
}

//! Unfinished rows, and how they become one.

use crate::bound::{gamma, product_up, sum_up, up, Bound, UNIT};
use crate::error::Error;
use crate::kernels;
use crate::math::{
    self,
    poly::{LN2_HIGH, LN2_LOW},
};

/// One output row over some of the keys, as plain numbers: `[max, sum, e_lse, e_out, out...]`.
///
/// Partials over disjoint keys merge, together with what is promised about them, so any engine that can add up rows can
/// be the cluster. `max` is an integer, in base 2: the row's weights sum to `sum * 2^max`. `e_lse` bounds the error of
/// the log of that number (the relative error of the sum, so to speak), `e_out` that of every entry of `out`. The
/// identity is what [`Partial::EMPTY_HEAD`] starts with and zeros.
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

    /// The promise about [`lse`](Partial::lse), its own roundings included.
    pub fn lse_bound(&self) -> Bound {
        let [max, sum, e, _] = *self.head;
        if sum == 0.0 {
            return Bound::certain(e);
        }
        Bound::certain(sum_up(e, lse_rounding(max.abs(), math::ln(sum).abs())))
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

    /// Takes in `other`, the row of a partial over other keys. `range` bounds, per column, how far any two values of the
    /// union of the keys are apart (a learned sink is a key of value 0); infinity if unknown. [`Error::Mismatch`] if the
    /// widths differ, [`Error::Parameter`] if `range` is negative or NaN.
    ///
    /// Errors (lemma L6), with f the computed shares of the parts and d the share that underflow can hide, 0 but for parts
    /// more than a hundred powers of two apart:
    ///
    /// ```text
    /// e_out <= f1 e_out1 + f2 e_out2              errors of the parts, averaged as they are
    ///        + range * tanh((e_lse1 + e_lse2) / 4)  their weights against each other: odds off by exp(e_lse1 + e_lse2)
    ///        + gamma(4) max |out1|, |out2|        sum, quotient, product, sum: four roundings of each term
    ///        + 4 d max |out1|, |out2|
    /// e_lse <= max(e_lse1, e_lse2) + gamma(1) + 2 d  one rounding of the sum (the weights are exact: max is an integer)
    /// ```
    pub fn merge(&mut self, other: &[f32], range: f32) -> Result<(), Error> {
        let Some((other_head, other_out)) = other.split_first_chunk::<4>() else {
            return Err(Error::Short);
        };
        if self.out.len() != other_out.len() {
            return Err(Error::Mismatch);
        }
        if range.is_nan() || range < 0.0 {
            return Err(Error::Parameter);
        }
        let ([m1, s1, l1, e1], [m2, s2, l2, e2]) = (*self.head, *other_head);
        if s2 == 0.0 {
            return Ok(());
        }
        if s1 == 0.0 {
            *self.head = *other_head;
            self.out.iter_mut().zip(other_out).for_each(|(to, &x)| *to = x);
            return Ok(());
        }
        let max = if m1 > m2 { m1 } else { m2 };
        let (w1, w2) = (s1 * kernels::weight_of(m1, max), s2 * kernels::weight_of(m2, max));
        let sum = w1 + w2;
        let (f1, f2) = (w1 / sum, w2 / sum);
        let mut largest = 0.0f32;
        for (a, &b) in self.out.iter_mut().zip(other_out) {
            largest = largest.max(a.abs()).max(b.abs());
            *a = *a * f1 + b * f2;
        }
        let hidden = hidden_share(s1, s2, sum);
        // The shares are off by two roundings themselves.
        let averaged = sum_up(product_up(f1, e1), product_up(f2, e2));
        let averaged = product_up(averaged, 1.0 + 8.0 * UNIT);
        let odds = product_up(sum_up(l1, l2), 0.25);
        let mixed = if l1 == 0.0 && l2 == 0.0 {
            0.0
        } else {
            product_up(range, if odds < 1.0 { odds } else { 1.0 })
        };
        let rounding = product_up(sum_up(gamma(4), product_up(4.0, hidden)), largest);
        let e_lse = sum_up(if l1 > l2 { l1 } else { l2 }, sum_up(gamma(1), product_up(2.0, hidden)));
        let e_out = sum_up(averaged, sum_up(mixed, rounding));
        *self.head = [max, sum, Bound::certain(e_lse).value, Bound::certain(e_out).value];
        Ok(())
    }
}

/// How much of the merged weight may be cut: a weight more than 100 powers of two below the larger reference becomes 0. Infinite where that is no small share.
fn hidden_share(s1: f32, s2: f32, sum: f32) -> f32 {
    const CUT: f32 = f32::from_bits((127 - 100) << 23);
    let cut = product_up(sum_up(s1, s2), CUT);
    let share = up(cut / sum);
    if share < 0.5 {
        share
    } else {
        f32::INFINITY
    }
}

/// A row's sums with a learned sink, the partial (logit, 1, 0), merged in: reference, sum, and what that multiplies the
/// weights by.
pub(super) fn with_sink([max, sum]: [f32; 2], logit: f32) -> [f32; 3] {
    let reference = kernels::ceil_of(logit);
    let reference = if max > reference { max } else { reference };
    let factor = kernels::weight_of(max, reference);
    [reference, sum * factor + kernels::weight_of(logit, reference), factor]
}

/// `max ln 2 + ln sum`, the product in two pieces.
pub(super) fn lse(max: f32, sum: f32) -> f32 {
    if sum == 0.0 {
        return f32::NEG_INFINITY;
    }
    // max * LN2_HIGH is exact for |max| < 2^9, where a rounding would hurt most.
    max * LN2_HIGH + (max * LN2_LOW + math::ln(sum))
}

/// By how much [`lse`] is off from `max ln 2 + ln sum`, from bounds on the size of `max` and of `ln sum`.
///
/// `max * LN2_HIGH` is exact below 2^9. `max * LN2_LOW` and its roundings are below 2^-16 of a rounding of `max ln 2`.
/// `ln` is off by 0.84 ULP, at most 1.7 u relative; the inner sum and the outer sum round once each.
pub(super) fn lse_rounding(max: f32, log_sum: f32) -> f32 {
    const LN2_UP: f32 = 0.693_147_6;
    let whole = product_up(max, LN2_UP);
    let product = if max < 512.0 { 0.0 } else { whole };
    let outer = product_up(whole, 1.0 + f32::EPSILON * 256.0);
    product_up(sum_up(sum_up(product, outer), product_up(4.0, log_sum)), UNIT)
}

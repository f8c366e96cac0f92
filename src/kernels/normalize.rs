//! Softmax of one row that lies in memory.

use super::elementary::exp;
use crate::simd::Simd;

/// `row[i] = exp(row[i]) / sum of exp(row[j])`, in place; sixteen running sums, then halves added to halves.
///
/// A row with a NaN or plus infinity becomes canonical NaN, one that is minus infinity throughout becomes zeros (as a
/// query without keys), and an empty one stays. Relative error of an entry, to first order:
/// `(|x - max| + ln n + ceil(n / 16) + 10) 2^-24`, and 2^-149 absolutely: rounding `x - max` shifts an entry by
/// `|x - max|` units and the sum by their weighted mean, which is at most the entropy, `ln n`; exp counts twice 1.6,
/// the sum `ceil(n / 16) + 4`, inverse and product one each.
#[inline(always)]
pub fn softmax<S: Simd<f32>>(s: S, row: &mut [f32]) {
    let max = s.splat(maximum(s, row));
    let mut sums = s.splat16(0.0);
    let mut blocks = row.chunks_exact_mut(16);
    for block in blocks.by_ref() {
        weigh(s, block, max, &mut sums);
    }
    let rest = blocks.into_remainder();
    if !rest.is_empty() {
        let mut block = [f32::NEG_INFINITY; 16];
        block.iter_mut().zip(rest.iter()).for_each(|(b, &x)| *b = x);
        weigh(s, &mut block, max, &mut sums);
        rest.iter_mut().zip(&block).for_each(|(x, &b)| *x = b);
    }
    let sum = s.sum16(sums);
    if sum > 0.0 {
        scale(s, row, 1.0 / sum);
    } else {
        row.fill(if sum == 0.0 { 0.0 } else { f32::NAN });
    }
}

/// The largest number, at least the lowest finite one, so that minus infinity minus it is not NaN. What a NaN hides here
/// the sum shows.
#[inline(always)]
fn maximum<S: Simd<f32>>(s: S, row: &[f32]) -> f32 {
    let mut high = s.splat(-f32::MAX);
    let parts = row.chunks_exact(S::LANES);
    let rest = parts.remainder();
    for part in parts {
        high = s.max(s.load(part), high);
    }
    high = s.max(s.load_part(rest, -f32::MAX), high);
    let mut lanes = [-f32::MAX; 16];
    s.store(high, &mut lanes);
    lanes.iter().fold(-f32::MAX, |max, &x| if x > max { x } else { max })
}

/// Sixteen numbers into weights, added to their sums.
#[inline(always)]
fn weigh<S: Simd<f32>>(s: S, block: &mut [f32], max: S::V, sums: &mut S::V16) {
    for (sum, part) in sums.as_mut().iter_mut().zip(block.chunks_exact_mut(S::LANES)) {
        let p = exp(s, s.sub(s.load(part), max));
        *sum = s.add(*sum, p);
        s.store(p, part);
    }
}

#[inline(always)]
fn scale<S: Simd<f32>>(s: S, row: &mut [f32], factor: f32) {
    let factor = s.splat(factor);
    let mut parts = row.chunks_exact_mut(S::LANES);
    for part in parts.by_ref() {
        s.store(s.mul(s.load(part), factor), part);
    }
    let rest = parts.into_remainder();
    let last = s.mul(s.load_part(rest, 0.0), factor);
    s.store_part(last, rest);
}

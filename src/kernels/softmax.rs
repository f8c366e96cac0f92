//! Softmax, one run of scores after the other, with an integer reference.
//!
//! Scores are in base 2 (log2 e is folded into the query scale). The reference is `M = max(M, ceil(max s))`, an integer,
//! so that every rescale is a power of two and exact: the bits do not depend on how keys are cut into runs. What could
//! still depend on it is what falls below the smallest normal number. `weigh` says when that is possible, and the
//! caller then runs the keys again with the final reference known from the start.

// As in `tile`: index loops over a few vectors read better than zips of zips.
#![allow(clippy::needless_range_loop)]

use super::elementary::{power, tanh};
use super::tile::{get, put, query_vectors};
use crate::real::Real;
use crate::simd::Simd;

/// The reference before any key: the lowest finite number, so that no difference of references is NaN.
pub const NOTHING: f32 = -f32::MAX;

/// A weight more than this many powers of two below the reference is 0. Nothing that small shows beside a weight of one
/// half, and its products with values would be subnormal numbers, which cost a hundred cycles each.
///
/// Weights above are multiples of 2^-123. Times values that are multiples of 2^-26 they add up without rounding below
/// 2^-126, so scaling them is exact whatever cancels; each power of two less here allows one more in the values.
const CUT: f32 = 100.0;

/// Beyond this reference the rounding constant has no room for it, and differences are taken first.
const LARGE: f32 = 2_097_152.0;

/// The running softmax of a block of queries, one number per lane.
pub struct Lanes<'a> {
    /// The reference M, an integer (or [`NOTHING`]).
    pub max: &'a mut [f32],
    /// Sum of the weights relative to it.
    pub sum: &'a mut [f32],
    /// Lowest live score so far.
    pub low: &'a mut [f32],
    /// Power of two by which the last run scaled what came before.
    pub factor: &'a mut [f32],
}

/// `2^(x - m)` for an integer `m >= x`: exact 0 more than [`CUT`] below, NaN for NaN.
#[inline(always)]
pub fn weight<S: Simd<f32>>(s: S, x: S::V, m: S::V) -> S::V {
    // Where m is large, x - m is exact (or far below the clamp); where it is not, m goes into the rounding constant.
    let large = s.less(s.splat(LARGE), s.abs(m));
    let x = s.select(large, s.sub(x, m), x);
    let m = s.select(large, s.splat(0.0), m);
    let cut = s.sub(m, s.splat(CUT));
    let w = near_weight(s, s.max(cut, x), s.sub(s.splat(f32::MAGIC), m));
    s.select(s.less(x, cut), s.splat(0.0), w)
}

/// `2^(x - m)` given `magic - m`, for `x` between `m - 126` and `m`.
///
/// `t` is `x - m` rounded to an integer, with the exponent bias in its low bits; `r` is exact.
#[inline(always)]
fn near_weight<S: Simd<f32>>(s: S, x: S::V, c: S::V) -> S::V {
    let t = s.add(x, c);
    let r = s.sub(x, s.sub(t, c));
    s.mul(power(s, r), s.exponent(t))
}

/// The smallest integer not below `x`; numbers without a fraction, infinities and NaN as they are.
#[inline(always)]
pub fn ceil<S: Simd<f32>>(s: S, x: S::V) -> S::V {
    // From 2^23 on there are no fractions. Below, adding 2^23 away from zero pushes them out.
    let whole = s.splat(8_388_608.0);
    let below = s.add(s.sub(x, whole), whole);
    let near = s.select(s.less(x, s.splat(0.0)), below, s.sub(s.add(x, whole), whole));
    let up = s.select(s.less(near, x), s.add(near, s.splat(1.0)), near);
    s.select(s.less(s.abs(x), whole), up, x)
}

/// Soft-cap: `cap * tanh(x / cap)`, in whatever base `x` and `cap` are.
#[inline(always)]
pub fn cap<S: Simd<f32>>(s: S, tile: &mut [f32], cap: f32) {
    let (cap, inverse) = (s.splat(cap), s.splat(1.0 / cap));
    for part in tile.chunks_exact_mut(S::LANES) {
        let x = s.load(part);
        s.store(s.mul(tanh(s, s.mul(x, inverse)), cap), part);
    }
}

/// Adds the bias. Where it is minus infinity the score becomes minus infinity, "masked"; a score that is minus infinity
/// by itself becomes NaN, so that the two are not confused.
#[inline(always)]
pub fn add_bias<S: Simd<f32>>(s: S, tile: &mut [f32], bias: &[f32]) {
    let masked = s.splat(f32::NEG_INFINITY);
    for (part, bias) in tile.chunks_exact_mut(S::LANES).zip(bias.chunks_exact(S::LANES)) {
        let b = s.load(bias);
        let x = s.add(s.load(part), b);
        let x = s.select(s.equal(x, masked), s.splat(f32::NAN), x);
        s.store(s.select(s.equal(b, masked), masked, x), part);
    }
}

/// Scores in base 2, minus infinity where masked, into `weight(score, max) * inverse`.
#[inline(always)]
pub fn probabilities<S: Simd<f32>>(s: S, row: &mut [f32], max: f32, inverse: f32) {
    let (max, inverse) = (s.splat(max), s.splat(inverse));
    let mut whole = row.chunks_exact_mut(S::LANES);
    for part in whole.by_ref() {
        s.store(probability(s, s.load(part), max, inverse), part);
    }
    let rest = whole.into_remainder();
    if !rest.is_empty() {
        s.store_part(probability(s, s.load_part(rest, 0.0), max, inverse), rest);
    }
}

/// One vector of [`probabilities`].
#[inline(always)]
fn probability<S: Simd<f32>>(s: S, x: S::V, max: S::V, inverse: S::V) -> S::V {
    let p = s.mul(weight(s, x, max), inverse);
    s.select(s.equal(x, s.splat(f32::NEG_INFINITY)), s.splat(0.0), p)
}

/// Highest and lowest score of a run per lane; what is masked counts for neither.
#[inline(always)]
fn extremes<S: Simd<f32>, const NQ: usize>(s: S, tile: &[f32], masked: bool) -> ([S::V; NQ], [S::V; NQ]) {
    let (mut high, mut low) = ([s.splat(f32::NEG_INFINITY); NQ], [s.splat(f32::INFINITY); NQ]);
    let lanes = NQ * S::LANES;
    // Four keys at a time, so that the chain of maxima does not wait for itself, where there are registers for it.
    let whole = if S::REGISTERS < 16 {
        0
    } else {
        tile.len() - tile.len() % (4 * lanes)
    };
    let (fours, rest) = (tile.get(..whole).unwrap_or(&[]), tile.get(whole..).unwrap_or(&[]));
    for four in fours.chunks_exact(4 * lanes) {
        let (mut h, mut l) = ([[s.splat(0.0); NQ]; 4], [[s.splat(0.0); NQ]; 4]);
        for (row, (h, l)) in four.chunks_exact(lanes).zip(h.iter_mut().zip(&mut l)) {
            *h = get::<S, NQ>(s, row);
            *l = live_or_infinity(s, *h, masked);
        }
        let ([h0, h1, h2, h3], [l0, l1, l2, l3]) = (h, l);
        for n in 0..NQ {
            high[n] = s.max(s.max(s.max(h0[n], h1[n]), s.max(h2[n], h3[n])), high[n]);
            low[n] = s.min(s.min(s.min(l0[n], l1[n]), s.min(l2[n], l3[n])), low[n]);
        }
    }
    for row in rest.chunks_exact(lanes) {
        let h = get::<S, NQ>(s, row);
        let l = live_or_infinity(s, h, masked);
        for n in 0..NQ {
            high[n] = s.max(h[n], high[n]);
            low[n] = s.min(l[n], low[n]);
        }
    }
    (high, low)
}

#[inline(always)]
fn live_or_infinity<S: Simd<f32>, const NQ: usize>(s: S, x: [S::V; NQ], masked: bool) -> [S::V; NQ] {
    let mut out = x;
    if masked {
        for x in &mut out {
            *x = s.select(s.equal(*x, s.splat(f32::NEG_INFINITY)), s.splat(f32::INFINITY), *x);
        }
    }
    out
}

/// Turns a run of scores into weights and takes them into the running sums.
///
/// `tile` is `[key][lane]`. With `masked`, a score of minus infinity is a masked key and becomes the weight -1. Returns
/// whether some lane's result may depend on how the keys were cut into runs.
#[inline(always)]
pub fn weigh<S: Simd<f32>>(s: S, tile: &mut [f32], lanes: Lanes<'_>, masked: bool) -> bool {
    match query_vectors(S::REGISTERS) {
        2 => weigh_of::<S, 2, false>(s, tile, lanes, masked),
        _ => weigh_of::<S, 1, false>(s, tile, lanes, masked),
    }
}

/// As [`weigh`], for one query whose keys are the lanes, sixteen at a time: the reference is common to all lanes, the
/// sum of lane `l` is that of keys `l`, `l + 16`, ...
#[inline(always)]
pub fn weigh_row<S: Simd<f32>>(s: S, row: &mut [f32], lanes: Lanes<'_>, masked: bool) -> bool {
    match S::LANES {
        16 => weigh_of::<S, 1, true>(s, row, lanes, masked),
        8 => weigh_of::<S, 2, true>(s, row, lanes, masked),
        4 => weigh_of::<S, 4, true>(s, row, lanes, masked),
        _ => weigh_of::<S, 16, true>(s, row, lanes, masked),
    }
}

/// All lanes of all vectors become the one that `best` prefers.
#[inline(always)]
fn common<S: Simd<f32>, const NQ: usize>(s: S, v: [S::V; NQ], best: impl Fn(f32, f32) -> f32) -> [S::V; NQ] {
    let mut x = [0.0; 16];
    put(s, &v, &mut x);
    let [first, rest @ ..] = x;
    [s.splat(rest.into_iter().fold(first, best)); NQ]
}

#[inline(always)]
fn weigh_of<S: Simd<f32>, const NQ: usize, const ACROSS: bool>(
    s: S,
    tile: &mut [f32],
    lanes: Lanes<'_>,
    masked: bool,
) -> bool {
    let (mut high, mut run_low) = extremes::<S, NQ>(s, tile, masked);
    if ACROSS {
        high = common::<S, NQ>(s, high, |a, b| if a > b { a } else { b });
        run_low = common::<S, NQ>(s, run_low, |a, b| if a < b { a } else { b });
    }
    let (old, mut max) = (get::<S, NQ>(s, lanes.max), high);
    for n in 0..NQ {
        max[n] = s.max(old[n], ceil(s, high[n]));
    }
    put(s, &max, lanes.max);
    let (mut sum, mut low) = (get::<S, NQ>(s, lanes.sum), get::<S, NQ>(s, lanes.low));
    // Two forms of one result: the near one is shorter, the other one always right. One lane is for size.
    let (mut safe, mut near) = (true, !masked && S::LANES > 1);
    for n in 0..NQ {
        low[n] = s.min(run_low[n], low[n]);
        // A reference that stays, or that nothing was summed under, cannot have cut anything.
        let raised = s.select(s.equal(old[n], max[n]), s.splat(0.0), sum[n]);
        let cut = s.sub(max[n], s.splat(CUT));
        let floor = s.select(s.equal(raised, s.splat(0.0)), s.splat(f32::NEG_INFINITY), cut);
        safe &= s.all(s.less(floor, low[n]));
        near &= s.all(s.less(cut, run_low[n])) && s.all(s.less(s.abs(max[n]), s.splat(LARGE)));
    }
    put(s, &low, lanes.low);
    let mut factor = old;
    for n in 0..NQ {
        factor[n] = weight(s, old[n], max[n]);
        sum[n] = s.mul(sum[n], factor[n]);
    }
    put(s, &factor, lanes.factor);
    if near {
        for max in &mut max {
            *max = s.sub(s.splat(f32::MAGIC), *max);
        }
        for row in tile.chunks_exact_mut(NQ * S::LANES) {
            for ((part, &c), sum) in row.chunks_exact_mut(S::LANES).zip(&max).zip(&mut sum) {
                let p = near_weight(s, s.load(part), c);
                *sum = s.add(*sum, p);
                s.store(p, part);
            }
        }
    } else {
        let (hide, zero) = (s.splat(if masked { f32::NEG_INFINITY } else { f32::NAN }), s.splat(0.0));
        for row in tile.chunks_exact_mut(NQ * S::LANES) {
            for ((part, &max), sum) in row.chunks_exact_mut(S::LANES).zip(&max).zip(&mut sum) {
                let x = s.load(part);
                let (hidden, p) = (s.equal(x, hide), weight(s, x, max));
                *sum = s.add(*sum, s.select(hidden, zero, p));
                s.store(s.select(hidden, s.splat(-1.0), p), part);
            }
        }
    }
    put(s, &sum, lanes.sum);
    !safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Emu;

    #[test]
    fn references_are_integers_up_to_the_last_fraction() {
        // Every exponent, both signs, mantissas that round down, up and to even.
        for bits in (0..0x7f80_0000u32).step_by(4093) {
            for x in [f32::from_bits(bits), -f32::from_bits(bits)] {
                let [c] = ceil(Emu::<1>, [x]);
                assert_eq!(c, x.ceil(), "{x:e}");
            }
        }
        // 2^21 to 2^23 still has halves: a reference there would make rescaling inexact.
        for x in [2_097_152.5f32, 4_194_304.5, -2_097_152.5, -4_194_304.5, 8_388_607.5] {
            assert_eq!(ceil(Emu::<1>, [x]), [x.ceil()]);
        }
    }
}

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
use super::weight::{ceil, weight, CUT, LARGE, NEAR, NEAR_BITS};
use crate::real::Real;
use crate::simd::Simd;

/// The running softmax of a block of queries, one number per lane.
pub struct Lanes<'a> {
    /// The reference M, an integer (or [`NOTHING`]).
    pub max: &'a mut [f32],
    /// Sum of the weights relative to it.
    pub sum: &'a mut [f32],
    /// What no live score so far is below.
    pub low: &'a mut [f32],
    /// Power of two by which the last run scaled what came before.
    pub factor: &'a mut [f32],
}

impl Lanes<'_> {
    /// The same lanes, for a call that may have to be made again.
    pub fn again(&mut self) -> Lanes<'_> {
        Lanes {
            max: self.max,
            sum: self.sum,
            low: self.low,
            factor: self.factor,
        }
    }
}

/// `x`, or NaN where it is infinite.
#[inline(always)]
pub fn finite_or_nan<S: Simd<f32>>(s: S, x: S::V) -> S::V {
    s.mul_add(x, s.splat(0.0), x)
}

/// Soft-cap: `cap * tanh(x / cap)`, in whatever base `x` and `cap` are; NaN where the score is not finite, which a tanh of 1
/// would hide.
#[inline(always)]
pub fn cap<S: Simd<f32>>(s: S, tile: &mut [f32], cap: f32) {
    let (cap, inverse) = (s.splat(cap), s.splat(1.0 / cap));
    for part in tile.chunks_exact_mut(S::LANES) {
        let x = finite_or_nan(s, s.load(part));
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

/// Keys to be taken four at a time, so that a chain of maxima does not wait for itself, where there are registers for
/// it; and the rest.
#[inline(always)]
fn fours<S: Simd<f32>>(tile: &[f32], lanes: usize) -> (&[f32], &[f32]) {
    let whole = if S::REGISTERS < 16 {
        0
    } else {
        tile.len() - tile.len() % (4 * lanes)
    };
    (tile.get(..whole).unwrap_or(&[]), tile.get(whole..).unwrap_or(&[]))
}

/// Highest and lowest score of a run per lane; what is masked counts for neither.
#[inline(always)]
fn extremes<S: Simd<f32>, const NQ: usize>(s: S, tile: &[f32], masked: bool) -> ([S::V; NQ], [S::V; NQ]) {
    let (mut high, mut low) = ([s.splat(f32::NEG_INFINITY); NQ], [s.splat(f32::INFINITY); NQ]);
    let lanes = NQ * S::LANES;
    let (fours, rest) = fours::<S>(tile, lanes);
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

/// Highest score of a run per lane.
#[inline(always)]
fn maxima<S: Simd<f32>, const NQ: usize>(s: S, tile: &[f32]) -> [S::V; NQ] {
    let mut high = [s.splat(f32::NEG_INFINITY); NQ];
    let lanes = NQ * S::LANES;
    let (fours, rest) = fours::<S>(tile, lanes);
    for four in fours.chunks_exact(4 * lanes) {
        let mut h = [[s.splat(0.0); NQ]; 4];
        for (row, h) in four.chunks_exact(lanes).zip(&mut h) {
            *h = get::<S, NQ>(s, row);
        }
        let [h0, h1, h2, h3] = h;
        for n in 0..NQ {
            high[n] = s.max(s.max(s.max(h0[n], h1[n]), s.max(h2[n], h3[n])), high[n]);
        }
    }
    for row in rest.chunks_exact(lanes) {
        let h = get::<S, NQ>(s, row);
        for n in 0..NQ {
            high[n] = s.max(h[n], high[n]);
        }
    }
    high
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
    let mut state = State::<S, NQ>::get(s, &lanes);
    state.raise(s, high);
    let safe = state.lower(s, run_low);
    let (hide, zero) = (s.splat(if masked { f32::NEG_INFINITY } else { f32::NAN }), s.splat(0.0));
    for row in tile.chunks_exact_mut(NQ * S::LANES) {
        for ((part, &max), sum) in row.chunks_exact_mut(S::LANES).zip(&state.max).zip(&mut state.sum) {
            let x = s.load(part);
            let (hidden, p) = (s.equal(x, hide), weight(s, x, max));
            *sum = s.add(*sum, s.select(hidden, zero, p));
            s.store(s.select(hidden, s.splat(-1.0), p), part);
        }
    }
    state.put(s, lanes);
    !safe
}

/// As [`weigh`] for a run without masked keys, where every score lies within [`NEAR`] of its lane's reference: neither
/// the lowest score nor a clamp is needed then. `None` if one does not: the lanes are as they were, the tile is spoiled.
#[inline(always)]
pub fn weigh_near<S: Simd<f32>>(s: S, tile: &mut [f32], lanes: Lanes<'_>) -> Option<bool> {
    match S::REGISTERS {
        32.. => weigh_near_of::<S, 2, 2, false>(s, tile, lanes),
        16.. => weigh_near_of::<S, 2, 1, false>(s, tile, lanes),
        _ => weigh_near_of::<S, 1, 1, false>(s, tile, lanes),
    }
}

/// As [`weigh_near`], for one query whose keys are the lanes; see [`weigh_row`].
#[inline(always)]
pub fn weigh_near_row<S: Simd<f32>>(s: S, row: &mut [f32], lanes: Lanes<'_>) -> Option<bool> {
    match S::LANES {
        16 => weigh_near_of::<S, 1, 4, true>(s, row, lanes),
        8 => weigh_near_of::<S, 2, 1, true>(s, row, lanes),
        4 => weigh_near_of::<S, 4, 1, true>(s, row, lanes),
        _ => weigh_near_of::<S, 16, 1, true>(s, row, lanes),
    }
}

#[inline(always)]
fn weigh_near_of<S: Simd<f32>, const NQ: usize, const STEP: usize, const ACROSS: bool>(
    s: S,
    tile: &mut [f32],
    lanes: Lanes<'_>,
) -> Option<bool> {
    let mut state = State::<S, NQ>::get(s, &lanes);
    let mut high = maxima::<S, NQ>(s, tile);
    if ACROSS {
        high = common::<S, NQ>(s, high, |a, b| if a > b { a } else { b });
    }
    state.raise(s, high);
    let (mut c, mut seen) = ([s.splat(0.0); NQ], s.splat(0.0));
    let mut low = state.max;
    for n in 0..NQ {
        if !s.all(s.less(s.abs(state.max[n]), s.splat(LARGE))) {
            return None;
        }
        c[n] = s.sub(s.splat(f32::MAGIC), state.max[n]);
        low[n] = s.sub(state.max[n], s.splat(NEAR));
    }
    let mut rows = tile.chunks_exact_mut(STEP * NQ * S::LANES);
    for rows in rows.by_ref() {
        near_rows::<S, NQ, STEP>(s, rows, &c, &mut state.sum, &mut seen);
    }
    for row in rows.into_remainder().chunks_exact_mut(NQ * S::LANES) {
        near_rows::<S, NQ, 1>(s, row, &c, &mut state.sum, &mut seen);
    }
    if s.any_bit(seen, s.splat(NEAR_BITS.1)) {
        return None;
    }
    let safe = state.lower(s, low);
    state.put(s, lanes);
    Some(!safe)
}

/// `STEP` keys at once, in lockstep, as the chain of one weight is too long to hide.
#[inline(always)]
fn near_rows<S: Simd<f32>, const NQ: usize, const STEP: usize>(
    s: S,
    rows: &mut [f32],
    c: &[S::V; NQ],
    sum: &mut [S::V; NQ],
    seen: &mut S::V,
) {
    let lanes = NQ * S::LANES;
    let mut x = [[s.splat(0.0); NQ]; STEP];
    for (x, row) in x.iter_mut().zip(rows.chunks_exact(lanes)) {
        *x = get::<S, NQ>(s, row);
    }
    let mut t = x;
    for k in 0..STEP {
        for n in 0..NQ {
            t[k][n] = s.add(x[k][n], c[n]);
        }
    }
    for k in 0..STEP {
        for n in 0..NQ {
            *seen = s.differences(*seen, t[k][n], s.splat(NEAR_BITS.0));
            x[k][n] = s.sub(x[k][n], s.sub(t[k][n], c[n]));
        }
    }
    let mut p = x;
    for k in 0..STEP {
        for n in 0..NQ {
            p[k][n] = s.mul(power(s, x[k][n]), s.exponent(t[k][n]));
        }
    }
    for k in 0..STEP {
        for n in 0..NQ {
            sum[n] = s.add(sum[n], p[k][n]);
        }
    }
    for (p, row) in p.iter().zip(rows.chunks_exact_mut(lanes)) {
        put(s, p, row);
    }
}

/// [`Lanes`] in registers.
struct State<S: Simd<f32>, const NQ: usize> {
    max: [S::V; NQ],
    sum: [S::V; NQ],
    low: [S::V; NQ],
    factor: [S::V; NQ],
    /// What was summed under a reference that has since been raised, else 0.
    raised: [S::V; NQ],
}

impl<S: Simd<f32>, const NQ: usize> State<S, NQ> {
    #[inline(always)]
    fn get(s: S, lanes: &Lanes<'_>) -> Self {
        State {
            max: get::<S, NQ>(s, lanes.max),
            sum: get::<S, NQ>(s, lanes.sum),
            low: get::<S, NQ>(s, lanes.low),
            factor: [s.splat(1.0); NQ],
            raised: [s.splat(0.0); NQ],
        }
    }

    #[inline(always)]
    fn put(&self, s: S, lanes: Lanes<'_>) {
        put(s, &self.max, lanes.max);
        put(s, &self.sum, lanes.sum);
        put(s, &self.low, lanes.low);
        put(s, &self.factor, lanes.factor);
    }

    /// Takes the highest scores of a run into the references, and scales the sums.
    #[inline(always)]
    fn raise(&mut self, s: S, high: [S::V; NQ]) {
        for n in 0..NQ {
            let old = self.max[n];
            self.max[n] = s.max(old, ceil(s, high[n]));
            self.factor[n] = weight(s, old, self.max[n]);
            self.raised[n] = s.select(s.equal(old, self.max[n]), s.splat(0.0), self.sum[n]);
            self.sum[n] = s.mul(self.sum[n], self.factor[n]);
        }
    }

    /// Takes the lowest scores of a run in. False if a weight may have been cut that a lower reference would have kept.
    #[inline(always)]
    fn lower(&mut self, s: S, run_low: [S::V; NQ]) -> bool {
        let mut safe = true;
        for n in 0..NQ {
            self.low[n] = s.min(run_low[n], self.low[n]);
            // A reference that stays, or that nothing was summed under, cannot have cut anything.
            let floor = s.select(
                s.equal(self.raised[n], s.splat(0.0)),
                s.splat(f32::NEG_INFINITY),
                s.sub(self.max[n], s.splat(CUT)),
            );
            safe &= s.all(s.less(floor, self.low[n]));
        }
        safe
    }
}

//! What the gradient of attention adds to the two tiles of `tile`: probabilities from the saved log-sum-exp, and sums over
//! the queries.
//!
//! Where the sums of the forward call were saved as they are, `lse` is the reference of its weights, and so are what is
//! called probabilities here: they still have to be divided by their sum, which the caller does to the output's gradient.
//!
//! Probabilities and the gradients of the scores are made with lanes that are queries, and read back one number at a time:
//! the sums over queries have lanes that are columns. Each of their numbers is one chain over the queries in order.

// As in `tile`: index loops over small arrays of vectors read like the formula.
#![allow(clippy::needless_range_loop)]

use super::elementary::tanh;
use super::softmax::finite_or_nan;
use super::tile::{get, put, query_vectors, scores};
use super::weight::fraction;
use crate::simd::Simd;
use crate::view::{MatMut, MatRef};

/// Keys that are finished together: whole tiles of every back end.
const NEAR: usize = 12;

/// Probabilities of a run of keys, `p[key][lane] = 2^(score - lse[lane])`, from queries and keys at once: a pass over all
/// scores of the run would find them in the second-level cache.
#[inline(always)]
pub fn probabilities_of_keys<S: Simd<f32>>(s: S, q_t: &[f32], k: MatRef<'_, f32>, p: &mut [f32], lse: &[f32]) {
    let lanes = query_vectors(S::REGISTERS) * S::LANES;
    let mut key = 0;
    for p in p.chunks_mut(NEAR * lanes) {
        scores(s, q_t, k.row_range(key..key + NEAR), p);
        probabilities(s, p, lse);
        key += NEAR;
    }
}

/// Gradients of their scores, `ds = p * (product - delta)`, from the output's gradient and the values likewise.
#[inline(always)]
pub fn gradients_of_keys<S: Simd<f32>>(
    s: S,
    d_out_t: &[f32],
    v: MatRef<'_, f32>,
    ds: &mut [f32],
    p: &[f32],
    delta: &[f32],
) {
    let lanes = query_vectors(S::REGISTERS) * S::LANES;
    let mut key = 0;
    for (ds, p) in ds.chunks_mut(NEAR * lanes).zip(p.chunks(NEAR * lanes)) {
        scores(s, d_out_t, v.row_range(key..key + NEAR), ds);
        slopes(s, ds, p, delta);
        key += NEAR;
    }
}

/// `p = 2^(p - lse)` and `ds = p * (ds - delta)`, in place: scores into probabilities, products of the output's gradient
/// with the values into gradients of the scores. All tiles are `[key][lane]`, `lse` (in base 2) and `delta` `[lane]`.
///
/// With `masked`, a score of minus infinity is a masked key: both numbers become 0.
#[inline(always)]
pub fn score_gradients<S: Simd<f32>>(s: S, p: &mut [f32], ds: &mut [f32], lse: &[f32], delta: &[f32], masked: bool) {
    if !masked {
        probabilities(s, p, lse);
        slopes(s, ds, p, delta);
    } else if S::REGISTERS >= 16 {
        masked_gradients::<S, 2>(s, p, ds, lse, delta);
    } else {
        masked_gradients::<S, 1>(s, p, ds, lse, delta);
    }
}

#[inline(always)]
fn masked_gradients<S: Simd<f32>, const NQ: usize>(s: S, p: &mut [f32], ds: &mut [f32], lse: &[f32], delta: &[f32]) {
    let (lse, delta) = (get::<S, NQ>(s, lse), get::<S, NQ>(s, delta));
    let lanes = NQ * S::LANES;
    for (p, ds) in p.chunks_exact_mut(lanes).zip(ds.chunks_exact_mut(lanes)) {
        let (mut x, mut y) = (get::<S, NQ>(s, p), get::<S, NQ>(s, ds));
        for n in 0..NQ {
            let hidden = s.equal(x[n], s.splat(f32::NEG_INFINITY));
            x[n] = fraction(s, s.sub(x[n], lse[n]));
            y[n] = s.mul(x[n], s.sub(y[n], delta[n]));
            x[n] = s.select(hidden, s.splat(0.0), x[n]);
            y[n] = s.select(hidden, s.splat(0.0), y[n]);
        }
        put(s, &x, p);
        put(s, &y, ds);
    }
}

/// Scores into probabilities.
#[inline(always)]
fn probabilities<S: Simd<f32>>(s: S, p: &mut [f32], lse: &[f32]) {
    if S::REGISTERS >= 16 {
        probabilities_of::<S, 2>(s, p, lse);
    } else {
        probabilities_of::<S, 1>(s, p, lse);
    }
}

#[inline(always)]
fn probabilities_of<S: Simd<f32>, const NQ: usize>(s: S, p: &mut [f32], lse: &[f32]) {
    let lse = get::<S, NQ>(s, lse);
    for p in p.chunks_exact_mut(NQ * S::LANES) {
        let mut x = get::<S, NQ>(s, p);
        for n in 0..NQ {
            x[n] = fraction(s, s.sub(x[n], lse[n]));
        }
        put(s, &x, p);
    }
}

/// Products of the output's gradient with the values into gradients of the scores.
#[inline(always)]
fn slopes<S: Simd<f32>>(s: S, ds: &mut [f32], p: &[f32], delta: &[f32]) {
    if S::REGISTERS >= 16 {
        slopes_of::<S, 2>(s, ds, p, delta);
    } else {
        slopes_of::<S, 1>(s, ds, p, delta);
    }
}

#[inline(always)]
fn slopes_of<S: Simd<f32>, const NQ: usize>(s: S, ds: &mut [f32], p: &[f32], delta: &[f32]) {
    let delta = get::<S, NQ>(s, delta);
    let lanes = NQ * S::LANES;
    for (ds, p) in ds.chunks_exact_mut(lanes).zip(p.chunks_exact(lanes)) {
        let (mut y, p) = (get::<S, NQ>(s, ds), get::<S, NQ>(s, p));
        for n in 0..NQ {
            y[n] = s.mul(p[n], s.sub(y[n], delta[n]));
        }
        put(s, &y, ds);
    }
}

/// Soft-cap of every score as [`cap`](super::softmax::cap) makes it, and its derivative: `slope = 1 - tanh(x / cap)^2`, NaN
/// where the score is not finite.
#[inline(always)]
pub fn cap_and_slope<S: Simd<f32>>(s: S, tile: &mut [f32], slope: &mut [f32], cap: f32) {
    let (cap, inverse, one) = (s.splat(cap), s.splat(1.0 / cap), s.splat(1.0));
    for (x, slope) in tile.chunks_exact_mut(S::LANES).zip(slope.chunks_exact_mut(S::LANES)) {
        let t = tanh(s, s.mul(finite_or_nan(s, s.load(x)), inverse));
        s.store(s.mul(t, cap), x);
        // In two factors: near the cap, where t is almost 1, the first is exact.
        s.store(s.mul(s.sub(one, t), s.add(one, t)), slope);
    }
}

/// `ds = ds * slope`; a zero, which may be that of a masked key, stays one whatever the slope is.
#[inline(always)]
pub fn times_slope<S: Simd<f32>>(s: S, ds: &mut [f32], slope: &[f32]) {
    for (ds, slope) in ds.chunks_exact_mut(S::LANES).zip(slope.chunks_exact(S::LANES)) {
        let x = s.load(ds);
        let zero = s.equal(x, s.splat(0.0));
        s.store(s.select(zero, x, s.mul(x, s.load(slope))), ds);
    }
}

/// Weights of a run of keys for the panels of a block, and the row that belongs to each lane.
pub struct Weighted<'a> {
    /// `[panel][key][lane]`.
    pub weights: &'a [f32],
    /// Keys of each panel in `weights`.
    pub keys: usize,
    /// `[panel][lane][column]`.
    pub rows: &'a [f32],
    /// Numbers from one row to the next: the columns, filled up with zeros to a multiple of sixteen.
    pub width: usize,
    /// Lanes in use, over all panels.
    pub used: usize,
    /// The keys that each panel has weights for; those of the others are 0.
    pub spans: &'a [Span],
}

/// Keys `first..last` of a run.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub first: usize,
    pub last: usize,
}

impl Span {
    /// None of them.
    pub const NONE: Span = Span { first: 0, last: 0 };
}

/// `out.row(key) += sum over lanes of weights[key][lane] * rows[lane]`, in the order of panels and lanes.
#[inline(always)]
pub fn weighted_rows<S: Simd<f32>>(s: S, of: &Weighted<'_>, out: &mut MatMut<'_, f32>) {
    let mut col = 0;
    if S::REGISTERS >= 32 {
        // As many vectors of a row as there are columns for. A single one has twelve accumulators, which is enough:
        // LLVM does not unroll the loop over 24 rows, and then keeps them in memory.
        while col + 4 * S::LANES <= out.cols() {
            key_tiles::<S, 6, 4, false>(s, of, col, out);
            col += 4 * S::LANES;
        }
        while col + 2 * S::LANES <= out.cols() {
            key_tiles::<S, 12, 2, false>(s, of, col, out);
            col += 2 * S::LANES;
        }
        while col + S::LANES <= out.cols() {
            key_tiles::<S, 12, 1, false>(s, of, col, out);
            col += S::LANES;
        }
        if col < out.cols() {
            key_tiles::<S, 12, 1, true>(s, of, col, out);
        }
    } else if S::REGISTERS >= 16 {
        while col + 2 * S::LANES <= out.cols() {
            key_tiles::<S, 6, 2, false>(s, of, col, out);
            col += 2 * S::LANES;
        }
        while col < out.cols() {
            key_tiles::<S, 12, 1, true>(s, of, col, out);
            col += S::LANES;
        }
    } else {
        while col < out.cols() {
            key_tiles::<S, 4, 1, true>(s, of, col, out);
            col += S::LANES;
        }
    }
}

/// Columns `col..` of all keys. With `PART`, one vector that may reach beyond the last; apart, because LLVM keeps a tile
/// that is filled in two ways in memory.
#[inline(always)]
fn key_tiles<S: Simd<f32>, const MK: usize, const NC: usize, const PART: bool>(
    s: S,
    of: &Weighted<'_>,
    col: usize,
    out: &mut MatMut<'_, f32>,
) {
    let mut key = 0;
    while key + MK <= out.rows() {
        key_tile::<S, MK, NC, PART>(s, of, key, col, out);
        key += MK;
    }
    while key < out.rows() {
        key_tile::<S, 1, NC, PART>(s, of, key, col, out);
        key += 1;
    }
}

#[inline(always)]
fn key_tile<S: Simd<f32>, const MK: usize, const NC: usize, const PART: bool>(
    s: S,
    of: &Weighted<'_>,
    key: usize,
    col: usize,
    out: &mut MatMut<'_, f32>,
) {
    let mut acc = [[s.splat(0.0); NC]; MK];
    for m in 0..MK {
        let row = out.row(key + m).get(col..).unwrap_or(&[]);
        if PART && row.len() < S::LANES {
            acc[m] = [s.load_part(row, 0.0); NC];
        } else if let Some(row) = row.get(..NC * S::LANES) {
            acc[m] = get::<S, NC>(s, row);
        }
    }
    let lanes = query_vectors(S::REGISTERS) * S::LANES;
    let (panel, row_panel) = ((of.keys * lanes).max(1), (lanes * of.width).max(1));
    let panels = of.weights.chunks_exact(panel).zip(of.rows.chunks_exact(row_panel));
    let mut used = of.used;
    for ((weights, rows), span) in panels.zip(of.spans) {
        let count = if used < lanes { used } else { lanes };
        used -= count;
        if span.last <= key || key + MK <= span.first {
            continue;
        }
        let weights = weights.get(key * lanes..).unwrap_or(&[]);
        let rows = rows.get(col..).unwrap_or(&[]);
        lanes_of::<S, MK, NC>(s, weights, rows, of.width, count, &mut acc);
    }
    for m in 0..MK {
        let row = out.row(key + m).get_mut(col..).unwrap_or(&mut []);
        if PART && row.len() < S::LANES {
            s.store_part(acc[m][0], row);
        } else if let Some(row) = row.get_mut(..NC * S::LANES) {
            put(s, &acc[m], row);
        }
    }
}

/// The first `count` lanes of one panel, in order.
#[inline(always)]
fn lanes_of<S: Simd<f32>, const MK: usize, const NC: usize>(
    s: S,
    weights: &[f32],
    rows: &[f32],
    width: usize,
    count: usize,
    acc: &mut [[S::V; NC]; MK],
) {
    let lanes = query_vectors(S::REGISTERS) * S::LANES;
    let mut rest = rows;
    for lane in 0..count {
        let (Some(row), Some(w)) = (
            rest.get(..NC * S::LANES),
            weights.get(lane..lane + (MK - 1) * lanes + 1),
        ) else {
            return;
        };
        rest = rest.get(width..).unwrap_or(&[]);
        let x = get::<S, NC>(s, row);
        for m in 0..MK {
            // Both numbers are constants, so this is no comparison.
            let y = s.splat(w[m * lanes]);
            for n in 0..NC {
                acc[m][n] = s.mul_add(y, x[n], acc[m][n]);
            }
        }
    }
}

//! The two register tiles of attention, lanes are queries.
//!
//! A block holds `NQ` vectors of queries, one query per lane. Keys and values are read in place, one number at a time,
//! as broadcasts. So nothing is packed but the queries, nothing is added across lanes, and every number of the result
//! is one chain of multiply-adds (over the dimensions for a score, over the keys for an output), whatever the width.
// Index loops over `[[V; NQ]; MK]` read like the formula and unroll completely; iterators hide the shape.
#![allow(clippy::needless_range_loop)]

use crate::simd::Simd;
use crate::view::MatRef;

/// Query vectors per block: two where there are registers for a tile of twelve or six accumulators each.
pub const fn query_vectors(registers: usize) -> usize {
    if registers >= 16 {
        2
    } else {
        1
    }
}

/// Scores of a run of keys: `tile[key][lane] = sum over c of q_t[c][lane] * k[key][c]`, in the order of c.
#[inline(always)]
pub fn scores<S: Simd<f32>>(s: S, q_t: &[f32], k: MatRef<'_, f32>, tile: &mut [f32]) {
    match S::REGISTERS {
        32.. => scores_of::<S, 2, 12, 2>(s, q_t, k, tile),
        16.. => scores_of::<S, 2, 6, 4>(s, q_t, k, tile),
        // One lane is for size.
        _ if S::LANES == 1 => scores_of::<S, 1, 1, 1>(s, q_t, k, tile),
        _ => scores_of::<S, 1, 4, 4>(s, q_t, k, tile),
    }
}

#[inline(always)]
fn scores_of<S: Simd<f32>, const NQ: usize, const MK: usize, const STEPS: usize>(
    s: S,
    q_t: &[f32],
    k: MatRef<'_, f32>,
    tile: &mut [f32],
) {
    let lanes = NQ * S::LANES;
    let mut whole = tile.chunks_exact_mut(MK * lanes);
    let mut key = 0;
    for tile in whole.by_ref() {
        score_tile::<S, NQ, MK, STEPS>(s, q_t, k, key, tile);
        key += MK;
    }
    for tile in whole.into_remainder().chunks_exact_mut(lanes) {
        score_tile::<S, NQ, 1, STEPS>(s, q_t, k, key, tile);
        key += 1;
    }
}

/// `STEPS` dimensions are taken together, so that a key's address serves that many broadcasts.
#[inline(always)]
fn score_tile<S: Simd<f32>, const NQ: usize, const MK: usize, const STEPS: usize>(
    s: S,
    q_t: &[f32],
    k: MatRef<'_, f32>,
    key: usize,
    tile: &mut [f32],
) {
    // As they are, cut into steps, and into single dimensions.
    let (mut rows, mut steps, mut ones) = ([&[][..]; MK], [&[][..]; MK], [&[][..]; MK]);
    for m in 0..MK {
        let Some(row) = k.get(key + m) else { return };
        (rows[m], steps[m], ones[m]) = (row, row.as_chunks::<STEPS>().0, row.as_chunks::<1>().0);
    }
    let mut acc = [[s.splat(0.0); NQ]; MK];
    let mut whole = q_t.chunks_exact(STEPS * NQ * S::LANES);
    let (mut c, mut step) = (0, 0);
    for q in whole.by_ref() {
        score_steps::<S, NQ, MK, STEPS>(s, q, (&rows, c), (&steps, step), &mut acc);
        c += STEPS;
        step += 1;
    }
    for q in whole.remainder().chunks_exact(NQ * S::LANES) {
        score_steps::<S, NQ, MK, 1>(s, q, (&rows, c), (&ones, c), &mut acc);
        c += 1;
    }
    for (m, row) in tile.chunks_exact_mut(NQ * S::LANES).take(MK).enumerate() {
        put(s, &acc[m], row);
    }
}

/// The next `STEPS` dimensions: in the rows from one of them on, or in the same rows cut into steps.
#[inline(always)]
fn score_steps<S: Simd<f32>, const NQ: usize, const MK: usize, const STEPS: usize>(
    s: S,
    q: &[f32],
    (rows, c): (&[&[f32]; MK], usize),
    (steps, step): (&[&[[f32; STEPS]]; MK], usize),
    acc: &mut [[S::V; NQ]; MK],
) {
    let mut x = [[s.splat(0.0); NQ]; STEPS];
    for (x, q) in x.iter_mut().zip(q.chunks_exact(NQ * S::LANES)) {
        *x = get::<S, NQ>(s, q);
    }
    for m in 0..MK {
        // All rows have the same length, so this is one comparison per step. Which form shows LLVM so depends on the
        // machine: the other one spills vectors on AVX2, and takes 3 % more instructions on a Cortex-M.
        let y = if S::REGISTERS >= 16 {
            steps[m].get(step)
        } else {
            rows[m].get(c..).and_then(|row| row.first_chunk())
        };
        let Some(y) = y else { return };
        for t in 0..STEPS {
            let y = s.splat(y[t]);
            for n in 0..NQ {
                acc[m][n] = s.mul_add(x[t][n], y, acc[m][n]);
            }
        }
    }
}

/// Adds a run of values: `out[c][lane] = out[c][lane] * factor[lane] + sum over keys of tile[key][lane] * v[key][c]`.
///
/// With `MASKED`, a key takes part in a lane only if its weight there is not negative: what a mask hides is not even
/// multiplied by zero, so a NaN behind a mask stays there.
#[inline(always)]
pub fn values<S: Simd<f32>, const MASKED: bool>(
    s: S,
    tile: &[f32],
    v: MatRef<'_, f32>,
    factor: &[f32],
    out: &mut [f32],
) {
    match S::REGISTERS {
        32.. => values_of::<S, MASKED, 2, 8>(s, tile, v, factor, out),
        16.. => values_of::<S, MASKED, 2, 6>(s, tile, v, factor, out),
        _ if S::LANES == 1 => values_of::<S, MASKED, 1, 1>(s, tile, v, factor, out),
        _ => values_of::<S, MASKED, 1, 4>(s, tile, v, factor, out),
    }
}

#[inline(always)]
fn values_of<S: Simd<f32>, const MASKED: bool, const NQ: usize, const MC: usize>(
    s: S,
    tile: &[f32],
    v: MatRef<'_, f32>,
    factor: &[f32],
    out: &mut [f32],
) {
    let factor = get::<S, NQ>(s, factor);
    let lanes = NQ * S::LANES;
    let cols = out.len() / lanes;
    // Two quads are faster than a six and two single columns.
    let spare = usize::from(MC == 6 && cols >= 8 && matches!(cols % 6, 2 | 3));
    let (whole, mut rest) = out
        .split_at_mut_checked((cols / MC - spare) * MC * lanes)
        .unwrap_or_default();
    let mut col = 0;
    for out in whole.chunks_exact_mut(MC * lanes) {
        value_tile::<S, MASKED, NQ, MC>(s, tile, v.col_range(col..v.cols()), &factor, out);
        col += MC;
    }
    if MC > 4 {
        let mut quads = rest.chunks_exact_mut(4 * lanes);
        for out in quads.by_ref() {
            value_tile::<S, MASKED, NQ, 4>(s, tile, v.col_range(col..v.cols()), &factor, out);
            col += 4;
        }
        rest = quads.into_remainder();
    }
    for out in rest.chunks_exact_mut(lanes) {
        value_tile::<S, MASKED, NQ, 1>(s, tile, v.col_range(col..v.cols()), &factor, out);
        col += 1;
    }
}

#[inline(always)]
fn value_tile<S: Simd<f32>, const MASKED: bool, const NQ: usize, const MC: usize>(
    s: S,
    tile: &[f32],
    v: MatRef<'_, f32>,
    factor: &[S::V; NQ],
    out: &mut [f32],
) {
    let lanes = NQ * S::LANES;
    let mut acc = [[s.splat(0.0); NQ]; MC];
    for (c, out) in out.chunks_exact(lanes).take(MC).enumerate() {
        acc[c] = get::<S, NQ>(s, out);
        for n in 0..NQ {
            acc[c][n] = s.mul(acc[c][n], factor[n]);
        }
    }
    let mut rest = v.data();
    for weights in tile.chunks_exact(lanes) {
        let w = get::<S, NQ>(s, weights);
        let Some(x) = rest.first_chunk::<MC>() else {
            return;
        };
        rest = rest.get(v.stride()..).unwrap_or(&[]);
        for c in 0..MC {
            let x = s.splat(x[c]);
            for n in 0..NQ {
                let sum = s.mul_add(w[n], x, acc[c][n]);
                acc[c][n] = if MASKED {
                    s.select(s.less(w[n], s.splat(0.0)), acc[c][n], sum)
                } else {
                    sum
                };
            }
        }
    }
    for (c, out) in out.chunks_exact_mut(lanes).take(MC).enumerate() {
        put(s, &acc[c], out);
    }
}

/// `NQ` vectors from the front of `p`.
#[inline(always)]
pub fn get<S: Simd<f32>, const NQ: usize>(s: S, p: &[f32]) -> [S::V; NQ] {
    let mut v = [s.splat(0.0); NQ];
    for (v, p) in v.iter_mut().zip(p.chunks_exact(S::LANES)) {
        *v = s.load(p);
    }
    v
}

/// `NQ` vectors to the front of `p`.
#[inline(always)]
pub fn put<S: Simd<f32>, const NQ: usize>(s: S, v: &[S::V; NQ], p: &mut [f32]) {
    for (&v, p) in v.iter().zip(p.chunks_exact_mut(S::LANES)) {
        s.store(v, p);
    }
}

//! The two products of decoding: few queries, one row each, against many keys.
//!
//! A score is a dot product in the order of sixteen lanes and a halving tree; an output is one chain over the keys. Both
//! are documented orders of their own, so a row's bits do not depend on how many queries are asked at once.
// As in `tile`: index loops over small arrays of vectors read like the formula.
#![allow(clippy::needless_range_loop)]

use crate::simd::Simd;
use crate::view::MatRef;

/// Scores of `q.rows()` queries and a run of keys: `out.row(i)[j] = q.row(i) . k.row(j)`.
///
/// Rows of `out` are `stride` apart, a multiple of 16 not below the run; up to the next multiple of 16 they may be
/// written beyond it.
#[inline(always)]
pub fn row_scores<S: Simd<f32>>(s: S, q: MatRef<'_, f32>, k: MatRef<'_, f32>, out: &mut [f32], stride: usize) {
    let mut start = 0;
    // Four queries at once where sixteen sums of sixteen lanes fit the registers: keys are read a quarter as often.
    if S::REGISTERS * S::LANES >= 512 {
        while start + 4 <= q.rows() {
            scores_of::<S, 4, 4>(
                s,
                q.row_range(start..start + 4),
                k,
                out.get_mut(start * stride..).unwrap_or(&mut []),
                stride,
            );
            start += 4;
        }
    }
    while start < q.rows() {
        let (q, out) = (
            q.row_range(start..start + 1),
            out.get_mut(start * stride..).unwrap_or(&mut []),
        );
        if S::REGISTERS * S::LANES >= 512 {
            scores_of::<S, 1, 16>(s, q, k, out, stride);
        } else {
            scores_of::<S, 1, 4>(s, q, k, out, stride);
        }
        start += 1;
    }
}

#[inline(always)]
fn scores_of<S: Simd<f32>, const NQ: usize, const MK: usize>(
    s: S,
    q: MatRef<'_, f32>,
    k: MatRef<'_, f32>,
    out: &mut [f32],
    stride: usize,
) {
    let mut queries: [&[f32]; NQ] = [&[]; NQ];
    for n in 0..NQ {
        let Some(row) = q.get(n) else { return };
        queries[n] = row;
    }
    let mut key = 0;
    while key < k.rows() {
        // The last tile reads the last key again instead of having a second form.
        let last = k.rows() - 1;
        let mut keys: [&[f32]; MK] = [&[]; MK];
        for m in 0..MK {
            let Some(row) = k.get(if key + m < last { key + m } else { last }) else {
                return;
            };
            keys[m] = row;
        }
        let mut sums = [0.0; 16];
        s.store16(products::<S, NQ, MK>(s, queries, keys), &mut sums);
        for (n, sums) in sums.chunks_exact(MK).take(NQ).enumerate() {
            let at = n.wrapping_mul(stride).wrapping_add(key);
            let to = out.get_mut(at..).and_then(|out| out.first_chunk_mut::<MK>());
            let (Some(to), Some(sums)) = (to, sums.first_chunk::<MK>()) else {
                return;
            };
            *to = *sums;
        }
        key += MK;
    }
}

/// Up to sixteen dot products, query by query, in one vector.
#[inline(always)]
fn products<S: Simd<f32>, const NQ: usize, const MK: usize>(s: S, q: [&[f32]; NQ], k: [&[f32]; MK]) -> S::V16 {
    let mut acc = [s.splat16(0.0); 16];
    let mut c = 0;
    let dim = k.first().map_or(0, |row| row.len());
    while c + 16 <= dim {
        let mut x = [s.splat16(0.0); NQ];
        for n in 0..NQ {
            let Some(part) = q[n].get(c..c + 16) else { break };
            x[n] = s.load16(part);
        }
        for m in 0..MK {
            let Some(part) = k[m].get(c..c + 16) else { break };
            let y = s.load16(part);
            for n in 0..NQ {
                acc[n * MK + m] = s.mul_add16(x[n], y, acc[n * MK + m]);
            }
        }
        c += 16;
    }
    if c < dim {
        for m in 0..MK {
            let y = tail(s, k[m], c);
            for n in 0..NQ {
                acc[n * MK + m] = s.mul_add16(tail(s, q[n], c), y, acc[n * MK + m]);
            }
        }
    }
    s.sums16(&acc)
}

/// The columns from `c` on, filled up with zeros: missing terms are zero, so they add in the same order too.
#[inline(always)]
fn tail<S: Simd<f32>>(s: S, row: &[f32], c: usize) -> S::V16 {
    let mut whole = [0.0; 16];
    whole
        .iter_mut()
        .zip(row.get(c..).unwrap_or(&[]))
        .for_each(|(w, &x)| *w = x);
    s.load16(&whole)
}

/// Adds a run of values to each query's row: `out[c] = out[c] * factor + sum over keys of w[key] * v[key][c]`.
///
/// With `MASKED`, keys of negative weight do not take part.
#[inline(always)]
pub fn row_values<S: Simd<f32>, const MASKED: bool>(s: S, rows: &mut Rows<'_>, v: MatRef<'_, f32>) {
    let mut start = 0;
    if !MASKED && S::REGISTERS >= 32 {
        while start + 4 <= rows.count {
            columns::<S, MASKED, 4, 4>(s, rows, start, v);
            start += 4;
        }
    }
    while start < rows.count {
        if S::REGISTERS >= 32 {
            columns::<S, MASKED, 1, 8>(s, rows, start, v);
        } else {
            columns::<S, MASKED, 1, 4>(s, rows, start, v);
        }
        start += 1;
    }
}

/// The rows that decoding works on, one per query.
pub struct Rows<'a> {
    /// Queries.
    pub count: usize,
    /// Weights, `weight_stride` apart; at least as many as there are keys in the run.
    pub weights: &'a [f32],
    /// From one query's weights to the next.
    pub weight_stride: usize,
    /// Powers of two that scale what came before, sixteen equal ones per query.
    pub factor: &'a [f32],
    /// Running sums, `out_stride` apart, `out_stride` a multiple of 16 and not less than the value columns.
    pub out: &'a mut [f32],
    /// From one query's sums to the next.
    pub out_stride: usize,
}

#[inline(always)]
fn columns<S: Simd<f32>, const MASKED: bool, const NQ: usize, const NC: usize>(
    s: S,
    rows: &mut Rows<'_>,
    start: usize,
    v: MatRef<'_, f32>,
) {
    // A wide tile hides the latency of a chain; what it leaves over is taken in halves.
    let mut col = 0;
    while col + NC * S::LANES <= v.cols() {
        column_tile::<S, MASKED, NQ, NC>(s, rows, start, v.col_range(col..col + NC * S::LANES), col);
        col += NC * S::LANES;
    }
    while col + 4 * S::LANES <= v.cols() {
        column_tile::<S, MASKED, NQ, 4>(s, rows, start, v.col_range(col..col + 4 * S::LANES), col);
        col += 4 * S::LANES;
    }
    while col + 2 * S::LANES <= v.cols() {
        column_tile::<S, MASKED, NQ, 2>(s, rows, start, v.col_range(col..col + 2 * S::LANES), col);
        col += 2 * S::LANES;
    }
    while col < v.cols() {
        let end = if col + S::LANES < v.cols() {
            col + S::LANES
        } else {
            v.cols()
        };
        column_tile::<S, MASKED, NQ, 1>(s, rows, start, v.col_range(col..end), col);
        col = end;
    }
}

#[inline(always)]
fn column_tile<S: Simd<f32>, const MASKED: bool, const NQ: usize, const NC: usize>(
    s: S,
    rows: &mut Rows<'_>,
    start: usize,
    v: MatRef<'_, f32>,
    col: usize,
) {
    let mut acc = [[s.splat(0.0); NC]; NQ];
    let mut weights: [&[f32]; NQ] = [&[]; NQ];
    for n in 0..NQ {
        let at = (start + n).wrapping_mul(rows.weight_stride);
        let Some(w) = rows.weights.get(at..at.wrapping_add(v.rows())) else {
            return;
        };
        weights[n] = w;
        let factor = s.splat(rows.factor.get((start + n).wrapping_mul(16)).map_or(0.0, |&f| f));
        let out = rows
            .out
            .get((start + n).wrapping_mul(rows.out_stride).wrapping_add(col)..)
            .unwrap_or(&[]);
        for (acc, part) in acc[n].iter_mut().zip(out.chunks_exact(S::LANES)) {
            *acc = s.mul(s.load(part), factor);
        }
    }
    let whole = v.cols() == NC * S::LANES;
    for key in 0..v.rows() {
        let Some(row) = v.get(key) else { return };
        let mut x = [s.splat(0.0); NC];
        if whole {
            for (x, part) in x.iter_mut().zip(row.chunks_exact(S::LANES)) {
                *x = s.load(part);
            }
        } else {
            x[0] = s.load_part(row, 0.0);
        }
        for n in 0..NQ {
            let Some(&w) = weights[n].get(key) else { return };
            if MASKED && w < 0.0 {
                continue;
            }
            let w = s.splat(w);
            for c in 0..NC {
                acc[n][c] = s.mul_add(w, x[c], acc[n][c]);
            }
        }
    }
    for n in 0..NQ {
        let at = (start + n).wrapping_mul(rows.out_stride).wrapping_add(col);
        let out = rows.out.get_mut(at..).unwrap_or(&mut []);
        for (&acc, part) in acc[n].iter().zip(out.chunks_exact_mut(S::LANES)) {
            s.store(acc, part);
        }
    }
}

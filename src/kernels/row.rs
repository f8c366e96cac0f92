//! The two products of decoding: few queries, one row each, against many keys.
//!
//! A score is a dot product in the order of sixteen lanes and a halving tree; an output is one chain over the keys. Both
//! are documented orders of their own, so a row's bits do not depend on how many queries are asked at once.
// As in `tile`: index loops over small arrays of vectors read like the formula.
#![allow(clippy::needless_range_loop)]

use crate::simd::{Stored, Widen, F32};
use crate::view::{MatRef, NextRows};

/// Scores of `q.rows()` queries and a run of keys: `out.row(i)[j] = q.row(i) . k.row(j)`.
///
/// Rows of `out` are `stride` apart, a multiple of 16 not below the run; up to the next multiple of 16 they may be
/// written beyond it.
#[inline(always)]
pub fn row_scores<S: Widen, K: Stored>(
    s: S,
    q: MatRef<'_, f32>,
    k: MatRef<'_, K::Bits>,
    out: &mut [f32],
    stride: usize,
) {
    let mut start = 0;
    // Four queries at once where sixteen sums of sixteen lanes fit the registers: keys are read a quarter as often.
    if S::REGISTERS * S::LANES >= 512 {
        while start + 4 <= q.rows() {
            let out = out.get_mut(start * stride..).unwrap_or(&mut []);
            square_scores::<S, K>(s, q.row_range(start..start + 4), k, out, stride);
            start += 4;
        }
    }
    for n in start..q.rows() {
        one_row_scores::<S, K>(s, q.row(n), k, out.get_mut(n * stride..).unwrap_or(&mut []));
    }
}

/// Rows one after the other, sums in registers: rows side by side are streams of memory, which large caches do not foresee.
#[inline(always)]
fn one_row_scores<S: Widen, K: Stored>(s: S, q: &[f32], k: MatRef<'_, K::Bits>, out: &mut [f32]) {
    for (key, out) in (0..k.rows()).step_by(16).zip(out.chunks_exact_mut(16)) {
        let Some(mut rows) = k.rows_from(key, 16) else {
            let mut sums = [s.splat16(0.0); 16];
            for (key, sum) in (key..k.rows()).zip(&mut sums) {
                [*sum] = products::<S, K, 1, 1, 1>(s, [q], [k.row(key)]);
            }
            s.store16(s.sums16(&sums), out);
            return;
        };
        let [a0, a1, a2, a3] = four_products::<S, K>(s, q, &mut rows);
        let [b0, b1, b2, b3] = four_products::<S, K>(s, q, &mut rows);
        let [c0, c1, c2, c3] = four_products::<S, K>(s, q, &mut rows);
        let [d0, d1, d2, d3] = four_products::<S, K>(s, q, &mut rows);
        let sums = [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3];
        s.store16(s.sums16(&sums), out);
    }
}

/// Of the next four rows.
#[inline(always)]
fn four_products<S: Widen, K: Stored>(s: S, q: &[f32], rows: &mut NextRows<'_, K::Bits>) -> [S::V16; 4] {
    let [a] = products::<S, K, 1, 1, 1>(s, [q], [rows.row()]);
    let [b] = products::<S, K, 1, 1, 1>(s, [q], [rows.row()]);
    let [c] = products::<S, K, 1, 1, 1>(s, [q], [rows.row()]);
    let [d] = products::<S, K, 1, 1, 1>(s, [q], [rows.row()]);
    [a, b, c, d]
}

/// Four queries, four keys at a time.
#[inline(always)]
fn square_scores<S: Widen, K: Stored>(
    s: S,
    q: MatRef<'_, f32>,
    k: MatRef<'_, K::Bits>,
    out: &mut [f32],
    stride: usize,
) {
    let queries = [q.row(0), q.row(1), q.row(2), q.row(3)];
    for key in (0..k.rows()).step_by(4) {
        let mut sums = [0.0; 16];
        s.store16(
            s.sums16(&products::<S, K, 4, 4, 16>(s, queries, four_rows(k, key))),
            &mut sums,
        );
        for (n, sums) in sums.chunks_exact(4).enumerate() {
            let at = n.wrapping_mul(stride).wrapping_add(key);
            let to = out.get_mut(at..).and_then(|out| out.first_chunk_mut::<4>());
            if let (Some(to), Some(sums)) = (to, sums.first_chunk::<4>()) {
                *to = *sums;
            }
        }
    }
}

/// The rows from `key` on; beyond the last the last again, so that no tile needs a second form.
#[inline(always)]
fn four_rows<T>(k: MatRef<'_, T>, key: usize) -> [&[T]; 4] {
    let last = k.rows().saturating_sub(1);
    let at = |m| if key + m < last { key + m } else { last };
    [k.row(at(0)), k.row(at(1)), k.row(at(2)), k.row(at(3))]
}

/// Dot products in sixteen lanes each, query by query.
#[inline(always)]
fn products<S: Widen, K: Stored, const NQ: usize, const MK: usize, const N: usize>(
    s: S,
    q: [&[f32]; NQ],
    k: [&[K::Bits]; MK],
) -> [S::V16; N] {
    let mut acc = [s.splat16(0.0); N];
    let dim = k.first().map_or(0, |row| row.len());
    // All of one length, so that one comparison serves all.
    let blocks = dim / 16;
    let (Some(x), Some(y)) = (whole(q, blocks), whole(k, blocks)) else {
        return acc;
    };
    for c in 0..blocks {
        let mut v = [s.splat16(0.0); NQ];
        for n in 0..NQ {
            let Some(part) = x[n].get(c) else { return acc };
            v[n] = s.load16(part);
        }
        for m in 0..MK {
            let Some(part) = y[m].get(c) else { return acc };
            let w = K::load16(s, part);
            for n in 0..NQ {
                acc[n * MK + m] = s.mul_add16(v[n], w, acc[n * MK + m]);
            }
        }
    }
    if !dim.is_multiple_of(16) {
        for m in 0..MK {
            let w = tail::<S, K>(s, k[m], 16 * blocks);
            for n in 0..NQ {
                acc[n * MK + m] = s.mul_add16(tail::<S, F32>(s, q[n], 16 * blocks), w, acc[n * MK + m]);
            }
        }
    }
    acc
}

/// The first blocks of sixteen columns of each row.
#[inline(always)]
fn whole<T, const N: usize>(rows: [&[T]; N], blocks: usize) -> Option<[&[[T; 16]]; N]> {
    let mut whole: [&[[T; 16]]; N] = [&[]; N];
    for (whole, row) in whole.iter_mut().zip(rows) {
        *whole = row.as_chunks().0.get(..blocks)?;
    }
    Some(whole)
}

/// The columns from `c` on, filled up with zeros: missing terms are zero, so they add in the same order too.
#[inline(always)]
fn tail<S: Widen, K: Stored>(s: S, row: &[K::Bits], c: usize) -> S::V16 {
    let mut v = s.splat16(0.0);
    let mut rest = row.get(c..).unwrap_or(&[]);
    for v in v.as_mut() {
        *v = K::load_part(s, rest);
        rest = rest.get(S::LANES..).unwrap_or(&[]);
    }
    v
}

/// Adds a run of values to each query's row: `out[c] = out[c] * factor + sum over keys of w[key] * v[key][c]`.
///
/// With `MASKED`, keys of negative weight do not take part.
#[inline(always)]
pub fn row_values<S: Widen, K: Stored, const MASKED: bool>(s: S, rows: &mut Rows<'_>, v: MatRef<'_, K::Bits>) {
    let mut start = 0;
    if !MASKED && S::REGISTERS >= 32 {
        while start + 4 <= rows.count {
            columns::<S, K, MASKED, 4, 4>(s, rows, start, v);
            start += 4;
        }
    }
    while start < rows.count {
        if S::REGISTERS >= 32 {
            columns::<S, K, MASKED, 1, 8>(s, rows, start, v);
        } else {
            columns::<S, K, MASKED, 1, 4>(s, rows, start, v);
        }
        start += 1;
    }
}

/// The rows that decoding works on, one per query.
pub struct Rows<'a> {
    /// Queries.
    pub count: usize,
    /// Weights, `weight_stride` apart; at least as many as there are keys in the run.
    pub weights: &'a mut [f32],
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
fn columns<S: Widen, K: Stored, const MASKED: bool, const NQ: usize, const NC: usize>(
    s: S,
    rows: &mut Rows<'_>,
    start: usize,
    v: MatRef<'_, K::Bits>,
) {
    // A wide tile hides the latency of a chain; what it leaves over is taken in halves.
    let mut col = 0;
    while col + NC * S::LANES <= v.cols() {
        column_tile::<S, K, MASKED, NQ, NC>(s, rows, start, v.col_range(col..col + NC * S::LANES), col);
        col += NC * S::LANES;
    }
    while col + 4 * S::LANES <= v.cols() {
        column_tile::<S, K, MASKED, NQ, 4>(s, rows, start, v.col_range(col..col + 4 * S::LANES), col);
        col += 4 * S::LANES;
    }
    while col + 2 * S::LANES <= v.cols() {
        column_tile::<S, K, MASKED, NQ, 2>(s, rows, start, v.col_range(col..col + 2 * S::LANES), col);
        col += 2 * S::LANES;
    }
    while col < v.cols() {
        let end = if col + S::LANES < v.cols() {
            col + S::LANES
        } else {
            v.cols()
        };
        column_tile::<S, K, MASKED, NQ, 1>(s, rows, start, v.col_range(col..end), col);
        col = end;
    }
}

#[inline(always)]
fn column_tile<S: Widen, K: Stored, const MASKED: bool, const NQ: usize, const NC: usize>(
    s: S,
    rows: &mut Rows<'_>,
    start: usize,
    v: MatRef<'_, K::Bits>,
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
                *x = K::load(s, part);
            }
        } else {
            x[0] = K::load_part(s, row);
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

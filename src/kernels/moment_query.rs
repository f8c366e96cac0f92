//! A block of queries against the weighted sums of a moment state, lanes are queries:
//! `out[j][c] = sum over alpha of degree j of q^alpha * weighted[alpha][c]`.
//!
//! Every number is one chain over the monomials in their order, so the bits depend neither on the width nor on how
//! queries are put into blocks. Monomials are made on the way, by the first tile of columns; the others read those that
//! were kept because they are parents.
// As in `tile`: index loops over small arrays of vectors read like the formula.
#![allow(clippy::needless_range_loop)]

use super::monomials::{runs, Run};
use super::tile::{get, put, query_vectors};
use crate::simd::Simd;

/// A block of queries.
pub struct Queries<'a> {
    /// Variables.
    pub dim: usize,
    /// Highest degree.
    pub degree: usize,
    /// Columns of `weighted`, at least one: the values, then the count.
    pub columns: usize,
    /// `[variable][lane]`.
    pub q_t: &'a [f32],
    /// `[monomial][column]`.
    pub weighted: &'a [f32],
    /// `[monomial below the highest degree][lane]`, to work in.
    pub parents: &'a mut [f32],
    /// `[degree][column][lane]`.
    pub out: &'a mut [f32],
}

/// How a tile comes by its monomials.
const MAKE_AND_KEEP: u8 = 0;
const MAKE: u8 = 1;
const READ: u8 = 2;

/// `out[j][c][lane]`, see above.
#[inline(always)]
pub fn query<S: Simd<f32>>(s: S, of: &mut Queries<'_>) {
    match S::REGISTERS {
        32.. => wide::<S>(s, of),
        16.. => {
            if of.columns >= 5 {
                columns::<S, 2, 5>(s, of);
            } else {
                columns::<S, 2, 1>(s, of);
            }
        }
        _ if S::LANES == 1 => columns::<S, 1, 1>(s, of),
        _ => {
            if of.columns >= 4 {
                columns::<S, 1, 4>(s, of);
            } else {
                columns::<S, 1, 1>(s, of);
            }
        }
    }
}

/// The width that takes the least steps, the two that make a monomial included.
#[inline(always)]
fn wide<S: Simd<f32>>(s: S, of: &mut Queries<'_>) {
    let cost = |width: usize| (of.columns.div_ceil(width) * (width + 1), width);
    let widths = [13, 9, 5, 2, 1].into_iter().filter(|&width| width <= of.columns);
    match widths.map(cost).min() {
        Some((_, 13)) => columns::<S, 2, 13>(s, of),
        Some((_, 9)) => columns::<S, 2, 9>(s, of),
        Some((_, 5)) => columns::<S, 2, 5>(s, of),
        Some((_, 2)) => columns::<S, 2, 2>(s, of),
        _ => columns::<S, 2, 1>(s, of),
    }
}

/// All columns, `NC` at a time; the last tile moves back, and finds again what is there already.
#[inline(always)]
fn columns<S: Simd<f32>, const NQ: usize, const NC: usize>(s: S, of: &mut Queries<'_>) {
    tile::<S, NQ, NC, true>(s, of, 0);
    let mut col = NC;
    while col < of.columns {
        let last = of.columns - NC;
        tile::<S, NQ, NC, false>(s, of, if col < last { col } else { last });
        col += NC;
    }
}

#[inline(always)]
fn tile<S: Simd<f32>, const NQ: usize, const NC: usize, const FIRST: bool>(s: S, of: &mut Queries<'_>, col: usize) {
    let lanes = NQ * S::LANES;
    let mut acc = [[s.splat(0.0); NQ]; NC];
    let ones = [s.splat(1.0); NQ];
    let first = of.weighted.get(col..).unwrap_or(&[]);
    step::<S, NQ, NC>(s, &ones, first, &mut acc);
    if FIRST {
        if let Some(to) = of.parents.get_mut(..lanes) {
            put(s, &ones, to);
        }
    }
    let mut degree = 0;
    for run in runs(of.dim, of.degree) {
        if run.degree != degree {
            finish::<S, NQ, NC>(s, of, degree, col, &mut acc);
            degree = run.degree;
        }
        match (FIRST, degree == of.degree) {
            (true, false) => sweep::<S, NQ, NC, MAKE_AND_KEEP>(s, of, &run, col, &mut acc),
            (_, true) => sweep::<S, NQ, NC, MAKE>(s, of, &run, col, &mut acc),
            (false, false) => sweep::<S, NQ, NC, READ>(s, of, &run, col, &mut acc),
        }
    }
    finish::<S, NQ, NC>(s, of, degree, col, &mut acc);
    // Without variables there are no monomials of higher degrees.
    while degree < of.degree && of.dim == 0 {
        degree += 1;
        finish::<S, NQ, NC>(s, of, degree, col, &mut acc);
    }
}

/// Writes the sums of a degree and starts again.
#[inline(always)]
fn finish<S: Simd<f32>, const NQ: usize, const NC: usize>(
    s: S,
    of: &mut Queries<'_>,
    degree: usize,
    col: usize,
    acc: &mut [[S::V; NQ]; NC],
) {
    let lanes = NQ * S::LANES;
    let at = degree.wrapping_mul(of.columns).wrapping_add(col).wrapping_mul(lanes);
    let out = of.out.get_mut(at..).unwrap_or_default();
    for (acc, out) in acc.iter_mut().zip(out.chunks_exact_mut(lanes)) {
        put(s, acc, out);
        *acc = [s.splat(0.0); NQ];
    }
}

/// The monomials of a run.
#[inline(always)]
fn sweep<S: Simd<f32>, const NQ: usize, const NC: usize, const MODE: u8>(
    s: S,
    of: &mut Queries<'_>,
    run: &Run,
    col: usize,
    acc: &mut [[S::V; NQ]; NC],
) {
    let lanes = NQ * S::LANES;
    let x = get::<S, NQ>(s, of.q_t.get(run.variable.wrapping_mul(lanes)..).unwrap_or(&[]));
    let split = if MODE == MAKE {
        of.parents.len()
    } else {
        run.at.wrapping_mul(lanes)
    };
    let Some((parents, own)) = of.parents.split_at_mut_checked(split) else {
        return;
    };
    let parents = parents.get(run.parent.wrapping_mul(lanes)..).unwrap_or(&[]);
    let start = run.at.wrapping_mul(of.columns).wrapping_add(col);
    let mut rest = of.weighted.get(start..).unwrap_or(&[]);
    match MODE {
        READ => {
            for f in own.chunks_exact(lanes).take(run.len) {
                step::<S, NQ, NC>(s, &get::<S, NQ>(s, f), rest, acc);
                rest = rest.get(of.columns..).unwrap_or(&[]);
            }
        }
        MAKE => {
            for parent in parents.chunks_exact(lanes).take(run.len) {
                let f = times::<S, NQ>(s, parent, &x);
                step::<S, NQ, NC>(s, &f, rest, acc);
                rest = rest.get(of.columns..).unwrap_or(&[]);
            }
        }
        _ => {
            let rows = parents.chunks_exact(lanes).zip(own.chunks_exact_mut(lanes));
            for (parent, own) in rows.take(run.len) {
                let f = times::<S, NQ>(s, parent, &x);
                put(s, &f, own);
                step::<S, NQ, NC>(s, &f, rest, acc);
                rest = rest.get(of.columns..).unwrap_or(&[]);
            }
        }
    }
}

#[inline(always)]
fn times<S: Simd<f32>, const NQ: usize>(s: S, parent: &[f32], x: &[S::V; NQ]) -> [S::V; NQ] {
    let mut f = get::<S, NQ>(s, parent);
    for n in 0..NQ {
        f[n] = s.mul(f[n], x[n]);
    }
    f
}

/// One monomial times the front of its row.
#[inline(always)]
fn step<S: Simd<f32>, const NQ: usize, const NC: usize>(s: S, f: &[S::V; NQ], row: &[f32], acc: &mut [[S::V; NQ]; NC]) {
    let Some(z) = row.first_chunk::<NC>() else { return };
    for c in 0..NC {
        let z = s.splat(z[c]);
        for n in 0..NQ {
            acc[c][n] = s.mul_add(f[n], z, acc[c][n]);
        }
    }
}

/// `out[j][lane] = sum over alpha of degree j of |q^alpha * weighted[alpha][last column]|`: how much the sums of
/// [`query`] have cancelled. `parents` are those that it left.
#[inline(always)]
pub fn magnitudes<S: Simd<f32>>(s: S, of: &mut Queries<'_>) {
    match query_vectors(S::REGISTERS) {
        2 => magnitudes_of::<S, 2>(s, of),
        _ => magnitudes_of::<S, 1>(s, of),
    }
}

#[inline(always)]
fn magnitudes_of<S: Simd<f32>, const NQ: usize>(s: S, of: &mut Queries<'_>) {
    let lanes = NQ * S::LANES;
    let mut out = of.out.chunks_exact_mut(lanes);
    let mut last = of
        .weighted
        .chunks_exact(of.columns.max(1))
        .map(|row| row.last().copied().unwrap_or(0.0));
    let mut acc = [s.splat(last.next().unwrap_or(0.0)); NQ];
    let mut degree = 0;
    for run in runs(of.dim, of.degree) {
        if run.degree != degree {
            degree = run.degree;
            if let Some(out) = out.next() {
                put(s, &acc, out);
            }
            acc = [s.splat(0.0); NQ];
        }
        let x = get::<S, NQ>(s, of.q_t.get(run.variable.wrapping_mul(lanes)..).unwrap_or(&[]));
        let parents = of.parents.get(run.parent.wrapping_mul(lanes)..).unwrap_or(&[]);
        for (parent, z) in parents.chunks_exact(lanes).take(run.len).zip(last.by_ref()) {
            let f = times::<S, NQ>(s, parent, &x);
            let z = s.splat(z);
            for n in 0..NQ {
                acc[n] = s.add(acc[n], s.abs(s.mul(f[n], z)));
            }
        }
    }
    if let Some(out) = out.next() {
        put(s, &acc, out);
    }
    out.for_each(|out| put(s, &[s.splat(0.0); NQ], out));
}

//! A block of queries against the weighted sums of a moment state, lanes are queries:
//! `out[j][c] = sum over alpha of degree j of q^alpha * weighted[alpha][c]`.
//!
//! Every number is one chain over the monomials in their order, so the bits depend neither on the width nor on how
//! queries are put into blocks. Monomials are made on the way, by the first tile of columns; the others read those that
//! were kept because they are parents.
// As in `tile`: index loops over small arrays of vectors read like the formula.
#![allow(clippy::needless_range_loop)]

use super::monomials::{next_degree, products_of_degree, runs, Products};
use super::tile::{get, put, query_vectors};
use crate::simd::Simd;
use core::ops::Range;

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
    // What a machine does not take is not even compiled for it.
    if const { S::REGISTERS >= 32 } {
        wide::<S>(s, of);
    } else if const { S::REGISTERS >= 16 } {
        match of.columns {
            5.. => columns::<S, 2, 5>(s, of),
            _ => columns::<S, 2, 1>(s, of),
        }
    } else if const { S::LANES > 1 } {
        match of.columns {
            4.. => columns::<S, 1, 4>(s, of),
            _ => columns::<S, 1, 1>(s, of),
        }
    } else {
        columns::<S, 1, 1>(s, of);
    }
}

/// The width that takes the least steps, the two that make a monomial included.
#[inline(always)]
fn wide<S: Simd<f32>>(s: S, of: &mut Queries<'_>) {
    let n = of.columns;
    let costs = [cost::<13>(n), cost::<9>(n), cost::<5>(n), cost::<2>(n)];
    match costs.into_iter().flatten().min() {
        Some((_, 13)) => columns::<S, 2, 13>(s, of),
        Some((_, 9)) => columns::<S, 2, 9>(s, of),
        Some((_, 5)) => columns::<S, 2, 5>(s, of),
        Some((_, 2)) => columns::<S, 2, 2>(s, of),
        _ => columns::<S, 2, 1>(s, of),
    }
}

/// Steps for all columns, `WIDTH` at a time, if there are so many; and the width.
#[inline(always)]
fn cost<const WIDTH: usize>(columns: usize) -> Option<(usize, usize)> {
    (columns >= WIDTH).then(|| (columns.div_ceil(WIDTH) * (WIDTH + 1), WIDTH))
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
    finish::<S, NQ, NC>(s, of, 0, col, &mut acc);
    let (mut below, mut at, mut len) = (0, 1, 1);
    for degree in 1..=of.degree {
        len = next_degree(of.dim, degree, len);
        let (range, products) = (at..at + len, products_of_degree(of.dim, degree, below, at));
        match (FIRST, degree == of.degree) {
            (true, false) => sweep::<S, NQ, NC, MAKE_AND_KEEP>(s, of, range, products, col, &mut acc),
            (_, true) => sweep::<S, NQ, NC, MAKE>(s, of, range, products, col, &mut acc),
            (false, false) => sweep::<S, NQ, NC, READ>(s, of, range, products, col, &mut acc),
        }
        finish::<S, NQ, NC>(s, of, degree, col, &mut acc);
        (below, at) = (at, at + len);
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
    for c in 0..NC {
        let out = of
            .out
            .get_mut(at.wrapping_add(c * lanes)..)
            .and_then(|out| out.get_mut(..lanes));
        put(s, &acc[c], out.unwrap_or_default());
        acc[c] = [s.splat(0.0); NQ];
    }
}

/// The monomials of a degree, `range` of all.
#[inline(always)]
fn sweep<S: Simd<f32>, const NQ: usize, const NC: usize, const MODE: u8>(
    s: S,
    of: &mut Queries<'_>,
    range: Range<usize>,
    mut products: Products,
    col: usize,
    acc: &mut [[S::V; NQ]; NC],
) {
    let lanes = NQ * S::LANES;
    let start = range.start.wrapping_mul(of.columns).wrapping_add(col);
    let mut rest = of.weighted.get(start..).unwrap_or(&[]);
    for at in range {
        let f = if MODE == READ {
            get::<S, NQ>(s, row(of.parents, at, lanes))
        } else {
            let Some(product) = products.next() else { return };
            let mut f = get::<S, NQ>(s, row(of.parents, product.parent, lanes));
            let x = get::<S, NQ>(s, row(of.q_t, product.variable, lanes));
            for n in 0..NQ {
                f[n] = s.mul(f[n], x[n]);
            }
            f
        };
        if MODE == MAKE_AND_KEEP {
            let own = of
                .parents
                .get_mut(at.wrapping_mul(lanes)..)
                .and_then(|own| own.get_mut(..lanes));
            put(s, &f, own.unwrap_or_default());
        }
        step::<S, NQ, NC>(s, &f, rest, acc);
        rest = rest.get(of.columns..).unwrap_or(&[]);
    }
}

/// Row `at` of rows of `lanes`.
#[inline(always)]
fn row(rows: &[f32], at: usize, lanes: usize) -> &[f32] {
    let row = rows.get(at.wrapping_mul(lanes)..).and_then(|row| row.get(..lanes));
    row.unwrap_or(&[])
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
    if const { query_vectors(S::REGISTERS) == 2 } {
        magnitudes_of::<S, 2>(s, of);
    } else {
        magnitudes_of::<S, 1>(s, of);
    }
}

#[inline(always)]
fn magnitudes_of<S: Simd<f32>, const NQ: usize>(s: S, of: &mut Queries<'_>) {
    let lanes = NQ * S::LANES;
    let mut counts = of.weighted.get(of.columns.saturating_sub(1)..).unwrap_or(&[]);
    let mut out = of.out.chunks_exact_mut(lanes);
    let mut runs = runs(of.dim, of.degree).peekable();
    // The monomial of degree 0 is one, and its sum no less than 0.
    let mut acc = [s.splat(counts.first().copied().unwrap_or(0.0)); NQ];
    counts = counts.get(of.columns..).unwrap_or(&[]);
    for degree in 0..=of.degree {
        while let Some(run) = runs.next_if(|run| run.degree == degree) {
            let x = get::<S, NQ>(s, row(of.q_t, run.variable, lanes));
            let parents = of.parents.get(run.parent.wrapping_mul(lanes)..).unwrap_or(&[]);
            for parent in parents.chunks_exact(lanes).take(run.len) {
                let f = get::<S, NQ>(s, parent);
                let z = s.abs(s.splat(counts.first().copied().unwrap_or(0.0)));
                counts = counts.get(of.columns..).unwrap_or(&[]);
                for n in 0..NQ {
                    acc[n] = s.mul_add(s.abs(s.mul(f[n], x[n])), z, acc[n]);
                }
            }
        }
        if let Some(out) = out.next() {
            put(s, &acc, out);
        }
        acc = [s.splat(0.0); NQ];
    }
}

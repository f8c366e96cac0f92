//! The derivative of the monomials backwards, lanes are queries: from a derivative by every monomial to one by every variable.
//!
//! A monomial is its parent times a variable, so what is known of it goes to both, highest degree first. Every number is one
//! chain in the order of the monomials, so the bits depend neither on the width nor on how queries are put into blocks.
// As in `tile`: index loops over small arrays of vectors read like the formula.
#![allow(clippy::needless_range_loop)]

use super::monomials::{next_degree, runs};
use super::tile::{get, put, query_vectors};
use crate::simd::Simd;

/// A block of queries, after [`query`](super::moment_query::query) has left their monomials.
pub struct Adjoint<'a> {
    /// Variables.
    pub dim: usize,
    /// Highest degree.
    pub degree: usize,
    /// `[variable][lane]`.
    pub q_t: &'a [f32],
    /// `[monomial below the highest degree][lane]`.
    pub parents: &'a [f32],
    /// What the derivatives by the monomials of a degree are multiplied with, degree by degree.
    pub coefficients: &'a [f32],
    /// `[monomial][lane]`: the derivatives by the monomials, used up.
    pub adjoint: &'a mut [f32],
    /// `[variable][lane]`.
    pub out: &'a mut [f32],
}

/// `out[v] = sum over alpha of coefficients[|alpha|] adjoint[alpha] * d q^alpha / d q_v`.
#[inline(always)]
pub fn reverse<S: Simd<f32>>(s: S, of: &mut Adjoint<'_>) {
    if const { query_vectors(S::REGISTERS) == 2 } {
        reverse_of::<S, 2>(s, of);
    } else {
        reverse_of::<S, 1>(s, of);
    }
}

#[inline(always)]
fn reverse_of<S: Simd<f32>, const NQ: usize>(s: S, of: &mut Adjoint<'_>) {
    let lanes = NQ * S::LANES;
    scale::<S, NQ>(s, of);
    of.out.fill(0.0);
    // Runs come in one direction only; what a degree hands down has to be whole before, so degrees go backwards.
    for degree in (1..=of.degree).rev() {
        for run in runs(of.dim, degree) {
            if run.degree != degree {
                continue;
            }
            let at = run.at.wrapping_mul(lanes);
            let (Some((before, own)), Some(values), Some(x), Some(to)) = (
                of.adjoint.split_at_mut_checked(at),
                of.parents.get(run.parent.wrapping_mul(lanes)..),
                row(of.q_t, run.variable, lanes),
                of.out
                    .get_mut(run.variable.wrapping_mul(lanes)..)
                    .and_then(|out| out.get_mut(..lanes)),
            ) else {
                return;
            };
            let before = before.get_mut(run.parent.wrapping_mul(lanes)..).unwrap_or_default();
            let (x, mut sum) = (get::<S, NQ>(s, x), get::<S, NQ>(s, to));
            let rows = own.chunks_exact(lanes).take(run.len);
            let rows = rows.zip(values.chunks_exact(lanes)).zip(before.chunks_exact_mut(lanes));
            for ((own, value), parent) in rows {
                let (own, value) = (get::<S, NQ>(s, own), get::<S, NQ>(s, value));
                let mut handed = get::<S, NQ>(s, parent);
                for n in 0..NQ {
                    sum[n] = s.mul_add(own[n], value[n], sum[n]);
                    handed[n] = s.mul_add(own[n], x[n], handed[n]);
                }
                put(s, &handed, parent);
            }
            put(s, &sum, to);
        }
    }
}

/// Every degree times its coefficient.
#[inline(always)]
fn scale<S: Simd<f32>, const NQ: usize>(s: S, of: &mut Adjoint<'_>) {
    let lanes = NQ * S::LANES;
    let mut rows = of.adjoint.chunks_exact_mut(lanes);
    let mut len = 1;
    for (degree, &c) in of.coefficients.iter().enumerate().take(of.degree + 1) {
        if degree > 0 {
            len = next_degree(of.dim, degree, len);
        }
        let c = s.splat(c);
        for row in rows.by_ref().take(len) {
            let mut x = get::<S, NQ>(s, row);
            for n in 0..NQ {
                x[n] = s.mul(x[n], c);
            }
            put(s, &x, row);
        }
    }
}

/// Row `at` of rows of `lanes`.
#[inline(always)]
fn row(rows: &[f32], at: usize, lanes: usize) -> Option<&[f32]> {
    rows.get(at.wrapping_mul(lanes)..).and_then(|row| row.get(..lanes))
}

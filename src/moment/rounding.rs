//! How many roundings there are between a token and an answer.
//!
//! Let u = 2^-24 and `gamma(n) = n u / (1 - n u)`. A chain of n roundings multiplies a term by `1 + theta`,
//! `|theta| <= gamma(n)`, and factors of m and n roundings make one of m + n (Higham, lemmas 3.1 and 3.3).
//!
//! **The sums.** `x = (k - c) / rho` has one rounding per variable, as rho is a power of two. A monomial of degree j has
//! those j and its j - 1 multiplications. Times the value, into one of sixteen sums over the block (or one sum where lanes
//! are values), up the halving tree, and into the state, once per block or merge. So for every alpha of degree j
//!
//! `|Z - true Z| <= gamma(sum_roundings) sum over tokens |x^alpha v|`.
//!
//! Compensated sums of n numbers are those of numbers that are off by `2 u + O(n u^2)` each (Kahan; Higham, section 4.3), for
//! which 2 + 8 n u roundings stand.
//!
//! **The query.** Each of its j variables is scaled and rounded once; then there are j - 1 multiplications for the monomial,
//! one for the weight (which is exact to degree 13, [`weights`](super::features::weights)), and one chain of multiply-adds
//! over the `C(d + j - 1, j)` monomials of the degree. So against the true query
//!
//! `|N_j - sum over alpha w q^alpha Z| <= gamma(query_roundings) sum over alpha w |q^alpha Z|`.
//!
//! Together, with `sum over alpha w |q^alpha x^alpha| = (|q| . |x|)^j <= (||q|| ||x||)^j`:
//!
//! `|N_j - true N_j| <= gamma(sum_roundings + query_roundings) max |v| ||q||^j sum over tokens ||x||^j`.
//!
//! **Underflow** adds half of 2^-149 for every product that is subnormal: at most 2 j + 1 for a monomial and its use, on
//! either side, and what is lost of one factor is multiplied by the others, at most `max(1, ||q||)^j` each. With
//! `sum over alpha w <= d^j` and [`LOST`] there is room for all of it:
//! `LOST (j + 1) (n + 1) max(1, |v|) (d max(1, ||q||))^j`.

use super::features::{count, offset};
use super::Shape;
use crate::kernels::by_values;

/// 2^-145.
pub const LOST: f32 = f32::from_bits(16);

/// Roundings of one term of a sum of degree `degree`, in a state in which a term may have been in `additions` additions.
#[must_use]
pub const fn sum_roundings(shape: Shape, additions: u64, degree: usize) -> usize {
    let monomial = (degree.saturating_mul(2)).saturating_sub(1);
    let chain = if by_values(shape.value_dim) {
        shape.block
    } else {
        shape.block / 16
    };
    let additions = if shape.compensated {
        // Two units, and of the second order what 8 n u stands for, then the correction, and the block that waits.
        additions / (1 << 21) + 5
    } else {
        additions
    };
    let additions = if additions < usize::MAX as u64 {
        additions as usize
    } else {
        usize::MAX
    };
    // The product, where it is rounded by itself, and four floors of the tree.
    monomial
        .saturating_add(chain)
        .saturating_add(5)
        .saturating_add(additions)
}

/// Roundings of one term of an answer of degree `degree`, besides those of the sum it reads.
#[must_use]
pub const fn query_roundings(shape: Shape, degree: usize) -> usize {
    if degree == 0 {
        return 1;
    }
    let weight = if degree > 13 { degree.saturating_mul(2) } else { 0 };
    let terms = match (count(shape.dim, degree), offset(shape.dim, degree)) {
        (Some(all), Some(before)) => all - before,
        _ => usize::MAX,
    };
    // Scaled variables and their product, the weight, the product of both; then the chain.
    degree
        .saturating_mul(2)
        .saturating_add(1)
        .saturating_add(weight)
        .saturating_add(terms)
}

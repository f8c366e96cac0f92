//! From power sums of scores to attention: lanes are queries, as everywhere.
//!
//! Given `N_j = sum over keys of s^j v` and `m_j = sum of s^j`, every polynomial in place of e^s is a choice of coefficients,
//! made here for each query. With `mean = m_1 / m_0` all are polynomials in `s - mean`, which is what is small, and the
//! factor `e^mean` cancels in the output. Three are tried:
//!
//! - Taylor's, for which the sum of all errors is bounded by a power sum that is at hand;
//! - the best in relative error for the reach of the block, whose error is known beforehand;
//! - Hermite's for the variance of the scores, the most accurate by far where scores look normal: its promise is that of one
//!   of the others plus the distance to it.
//!
//! Derivation of the promise, for a query with `|q| = norm` and keys with `|x| <= radius`; sums over keys, `a = |mean|`:
//!
//! ```text
//! reach       b = norm radius + a >= |s - mean|
//! errors      error(p) = sum_i norm^i relative_i P_i sum_(j>=i) |p_j| C(j,i) a^(j-i) for p(s - mean), with the measured
//!             sums P_i >= sum |x|^i: what the roundings of all terms can make
//! power       S = sum (s - mean)^e, e even: at most max(computed, 0) + error(s^e)
//! Taylor      missed = sum |e^(s - mean) - T| <= S b^(g + 1 - e) taylor_rest(g, b), e the even one of g and g - 1
//!             out off by (range missed + 2 largest |v| error(T)) / mass, as for the true output o, which lies among the
//!             values, sum T (v - o) = sum (T - e^..) (v - o)                                                      (L2)
//! minimax     out off by range share + 2 largest |v| error(M) / mass                                           (L1)
//! Hermite     the smaller of these, plus the largest distance between the outputs
//! ```
//!
//! `relative_i` is the caller's: the roundings of a term of the sums, relative to it, and [`roundings`] for what is done here.
//! What underflow hides is relative to the number of keys, which the sum of weights is not less than (Jensen).
//! No output is farther from the truth than the range of the values, as both lie among them.

mod choice;
mod scores;

use crate::simd::Simd;
use choice::All;
use scores::{norm, Scores, Sums};

/// One more than the largest degree.
pub(crate) const MOST_TERMS: usize = 17;

/// Polynomials that do not depend on the query. Constant terms first; each has one more term than the degree.
#[derive(Clone, Copy)]
pub(crate) struct Polynomials<'a> {
    /// `1 / j!`.
    pub taylor: &'a [f32],
    /// The factor of `taylor_rest` that does not depend on the reach: `1 / (g + 1)!`, rounded up.
    pub taylor_next: f32,
    /// Reach, coefficients, and by how much of the range an output can be off.
    pub minimax: Option<(f32, &'a [f32], f32)>,
}

/// What the keys are known to be.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    /// How far the sums of powers are off, for a query of length 1 and values of at most 1: at least
    /// `relative_i sum |x|^i` for each power, `relative_i` the roundings of a term of the sums and [`roundings`].
    pub errors: &'a [f32],
    /// At least the largest `|x|`.
    pub radius: f32,
    /// Least and largest value of every column, as they entered the sums.
    pub low: &'a [f32],
    pub high: &'a [f32],
    /// At least the largest magnitude of these, and at least the largest difference inside a column.
    pub value: f32,
    pub range: f32,
    /// What underflow may have hidden of a sum of powers of the highest degree, per key, for a query of length 1.
    pub lost: f32,
    /// The largest promise that the caller is content with.
    pub wanted: f32,
}

/// Sums of a block of queries, and where their results go.
pub(crate) struct Estimates<'a> {
    /// `[degree][column][lane]`; the last column is that of the power sums.
    pub sums: &'a [f32],
    /// `[dim][lane]`: the queries as they entered the sums.
    pub q_t: &'a [f32],
    /// From one row of lanes to the next.
    pub lanes: usize,
    /// `[column][lane]`, without the column of the power sums.
    pub out: &'a mut [f32],
    /// `e^mean mass` is the sum of weights.
    pub mean: &'a mut [f32],
    pub mass: &'a mut [f32],
    /// Promises: about every entry of the output, and about the logarithm of the sum of weights.
    pub out_bound: &'a mut [f32],
    pub mass_bound: &'a mut [f32],
}

/// Where terms of certificates were rounded down, this makes up for it: some eighty roundings of positive numbers.
const SLACK: f32 = 1.0 + 1.0 / 65536.0;
/// Roundings that a term meets here: its coefficient, two per step of shifting, two per term of the last sum, and the quotient.
pub(crate) const fn roundings(degree: usize) -> usize {
    4 * degree + 8
}
/// Keeps lengths of queries away from underflow.
const TINY_SQUARE: f32 = f32::MIN_POSITIVE * 256.0;

type Terms<V> = [V; MOST_TERMS];

/// All of a block.
#[inline(always)]
pub fn estimate<S: Simd<f32>>(s: S, keys: &Keys<'_>, of: &Polynomials<'_>, block: &mut Estimates<'_>) {
    let mut at = 0;
    while at + S::LANES <= block.lanes {
        estimate_vector(s, keys, of, block, at);
        at += S::LANES;
    }
}

/// The vector of lanes that starts at `at`.
#[inline(always)]
fn estimate_vector<S: Simd<f32>>(s: S, keys: &Keys<'_>, of: &Polynomials<'_>, block: &mut Estimates<'_>, at: usize) {
    let terms = if of.taylor.len() < MOST_TERMS {
        of.taylor.len()
    } else {
        MOST_TERMS
    };
    let sums = Sums {
        sums: block.sums,
        lanes: block.lanes,
        columns: keys.low.len() + 1,
        at,
        terms,
    };
    let scores = Scores::of(s, &sums, keys, norm(s, block.q_t, block.lanes, at));
    let (limit, best, share) = of.minimax.unwrap_or((-1.0, of.taylor, f32::INFINITY));
    let never = s.splat(f32::INFINITY);
    let all = All {
        taylor: scores.apply(s, &sums, &spread(s, of.taylor)),
        minimax: scores.apply(s, &sums, &spread(s, best)),
        hermite: scores.apply(s, &sums, &scores.hermite(s, &sums, of.taylor)),
        missed: scores.missed(s, &sums, of),
        share: s.select(s.less(s.splat(limit), scores.reach), never, s.splat(share)),
    };
    let seen = all.look(s, &sums, keys);
    let choice = all.choose(s, keys, &scores, &seen);
    all.hand_out(s, &sums, keys, &choice, block.out);
    put(s, scores.mean, block.mean, at);
    put(s, choice.out, block.out_bound, at);
    let (mass, off) = all.mass(s, &scores, &choice);
    put(s, mass, block.mass, at);
    put(s, off, block.mass_bound, at);
}

#[inline(always)]
fn put<S: Simd<f32>>(s: S, v: S::V, to: &mut [f32], at: usize) {
    if let Some(to) = to.get_mut(at..) {
        s.store(v, to);
    }
}

/// Coefficients that are the same for all lanes.
#[inline(always)]
fn spread<S: Simd<f32>>(s: S, coefficients: &[f32]) -> Terms<S::V> {
    let mut terms = [s.splat(0.0); MOST_TERMS];
    for (term, &c) in terms.iter_mut().zip(coefficients) {
        *term = s.splat(c);
    }
    terms
}

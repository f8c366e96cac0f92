//! The dispatched list: the last floor that sees vectors. Above it a back end is an [`Isa`].

mod elementary;
mod estimate;
mod gradient;
mod moment_push;
mod moment_query;
mod moment_reverse;
mod moment_rows;
pub(crate) mod monomials;
mod normalize;
mod reduce;
mod rotary;
mod row;
mod softmax;
mod stored;
#[cfg(test)]
mod sweep;
mod tile;
mod weight;

use crate::simd::{dispatch, Emu, Isa, Simd};
use crate::view::{MatMut, MatRef};
pub(crate) use estimate::{roundings as estimate_roundings, Estimates, Keys, Polynomials};
pub(crate) use gradient::{Span, Weighted};
pub(crate) use moment_push::{add_to, by_values, Tokens, SPARE};
pub(crate) use moment_query::Queries;
pub(crate) use moment_reverse::Adjoint;
pub(crate) use row::Rows;
pub(crate) use softmax::Lanes;
pub(crate) use stored::{row_scores, row_values, widen};
pub(crate) use weight::NOTHING;

/// Keys that are scored before their values are read: a tile that fits the first-level cache.
pub(crate) const KEY_RUN: usize = if cfg!(target_pointer_width = "64") { 192 } else { 32 };

/// Queries in a block of the attention kernel on this back end.
pub(crate) const fn block_lanes(isa: Isa) -> usize {
    isa.lanes() * tile::query_vectors(isa.registers())
}

/// Whether [`weigh_near`] is worth its code: one lane is for size, and has one way to weigh, the one that is always right.
pub(crate) const fn weighs_near(isa: Isa) -> bool {
    isa.lanes() > 1
}

/// Whether [`probabilities_of_keys`] and [`gradients_of_keys`] are worth their code, likewise.
pub(crate) const fn finishes_scores(isa: Isa) -> bool {
    isa.lanes() > 1
}

/// The largest [`block_lanes`] of this build.
pub(crate) const fn most_block_lanes() -> usize {
    const fn of<S: Simd<f32>>() -> usize {
        S::LANES * tile::query_vectors(S::REGISTERS)
    }
    #[cfg(any(test, feature = "emulation"))]
    return 32; // two vectors of sixteen
    #[cfg(all(isa_x86, not(any(test, feature = "emulation"))))]
    return of::<crate::simd::Avx512>();
    #[cfg(isa_neon)]
    return of::<crate::simd::Neon>();
    #[cfg(isa_wasm)]
    return of::<crate::simd::Wasm>();
    #[allow(unreachable_code)]
    of::<crate::simd::Scalar>()
}

/// `2^(x - max)` for an integer `max >= x`, on one number.
pub(crate) fn weight_of(x: f32, max: f32) -> f32 {
    let [w] = weight::weight(Emu::<1>, [x], [max]);
    w
}

/// `2^x` on one number, as a probability is made: 1 at most.
pub(crate) fn probability_of(x: f32) -> f32 {
    let [p] = weight::fraction(Emu::<1>, [x]);
    p
}

/// The smallest integer not below `x`.
pub(crate) fn ceil_of(x: f32) -> f32 {
    let [c] = weight::ceil(Emu::<1>, [x]);
    c
}

/// Sum of sixteen lanes, halves added to halves.
pub(crate) fn sum_of(lanes: &[f32; 16]) -> f32 {
    Simd::<f32>::sum16(Emu::<16>, [*lanes])
}

dispatch! {
    /// Sum of `x[i] * y[i]` over the shorter length, in the fixed order of sixteen lanes.
    ///
    /// Error: at most `gamma(ceil(n / 16) + 5) * sum |x[i] y[i]|`.
    pub fn dot(x: &[f32], y: &[f32]) -> f32 = reduce::dot;
    /// As [`dot`], in f64.
    pub fn dot_f64(x: &[f64], y: &[f64]) -> f64 = reduce::dot;
    /// `y[i] = exp(x[i])` over the shorter length: at most 0.79 ULP, specials exact.
    pub fn exp(x: &[f32], y: &mut [f32]) = elementary::exp_row;
    /// `y[i] = tanh(x[i])` over the shorter length: at most 2 ULP, specials exact.
    pub fn tanh(x: &[f32], y: &mut [f32]) = elementary::tanh_row;
    /// Softmax of a row in place, in the fixed order of sixteen lanes. NaN or plus infinity anywhere makes it canonical NaN;
    /// minus infinity throughout makes it zeros.
    ///
    /// Relative error of an entry: `(|x - max| + ln n + ceil(n / 16) + 10) 2^-24` to first order.
    pub fn softmax(row: &mut [f32]) = normalize::softmax;
    /// Turns each pair `(x[i], y[i])` by the angle of `cos[i]` and `sin[i]`, over the shortest length: the same bits on every
    /// back end. NaN is canonical.
    pub fn turn_halves(x: &mut [f32], y: &mut [f32], cos: &[f32], sin: &[f32]) = rotary::turn_halves;
    /// As [`turn_halves`], for the pairs `(row[2 i], row[2 i + 1])`.
    pub fn turn_neighbours(row: &mut [f32], cos: &[f32], sin: &[f32]) = rotary::turn_neighbours;
    /// `tile[key][lane] = sum over c of q_t[c][lane] * k[key][c]`, in the order of c.
    pub(crate) fn scores(q_t: &[f32], k: MatRef<'_, f32>, tile: &mut [f32]) = tile::scores;
    /// Soft-cap of every score.
    pub(crate) fn cap(tile: &mut [f32], cap: f32) = softmax::cap;
    /// Bias and masks.
    pub(crate) fn add_bias(tile: &mut [f32], bias: &[f32]) = softmax::add_bias;
    /// Scores into weights, and into the running sums; whether a second run is needed.
    pub(crate) fn weigh(tile: &mut [f32], lanes: Lanes<'_>, masked: bool) -> bool = softmax::weigh;
    /// As [`weigh`] where no key is masked and all scores are near their references; `None`, and a spoiled tile, if not.
    pub(crate) fn weigh_near(tile: &mut [f32], lanes: Lanes<'_>) -> Option<bool> = softmax::weigh_near;
    /// `out[c][lane] = out[c][lane] * factor[lane] + sum over keys of tile[key][lane] * v[key][c]`.
    pub(crate) fn values(tile: &[f32], v: MatRef<'_, f32>, factor: &[f32], out: &mut [f32]) = tile::values::<_, false>;
    /// As [`values`], for runs with masked keys.
    pub(crate) fn masked_values(tile: &[f32], v: MatRef<'_, f32>, factor: &[f32], out: &mut [f32]) = tile::values::<_, true>;
    /// A row of scores in base 2 into probabilities.
    pub(crate) fn probabilities(row: &mut [f32], max: f32, inverse: f32) = softmax::probabilities;
    /// As [`weigh`], for one query whose keys are the lanes.
    pub(crate) fn weigh_row(row: &mut [f32], lanes: Lanes<'_>, masked: bool) -> bool = softmax::weigh_row;
    /// As [`weigh_near`], for one query whose keys are the lanes.
    pub(crate) fn weigh_near_row(row: &mut [f32], lanes: Lanes<'_>) -> Option<bool> = softmax::weigh_near_row;
    /// Scores of keys that no lane is barred from, at once into probabilities.
    pub(crate) fn probabilities_of_keys(q_t: &[f32], k: MatRef<'_, f32>, p: &mut [f32], lse: &[f32]) = gradient::probabilities_of_keys;
    /// Products of their values with the gradient of the output, at once into gradients of the scores.
    pub(crate) fn gradients_of_keys(d_out_t: &[f32], v: MatRef<'_, f32>, ds: &mut [f32], p: &[f32], delta: &[f32]) = gradient::gradients_of_keys;
    /// Scores and products into probabilities and gradients of the scores: `p = 2^(p - lse)`, `ds = p * (ds - delta)`.
    pub(crate) fn score_gradients(p: &mut [f32], ds: &mut [f32], lse: &[f32], delta: &[f32], masked: bool) = gradient::score_gradients;
    /// As [`cap`], with the derivative.
    pub(crate) fn cap_and_slope(tile: &mut [f32], slope: &mut [f32], cap: f32) = gradient::cap_and_slope;
    /// `ds = ds * slope` where `ds` is not 0.
    pub(crate) fn times_slope(ds: &mut [f32], slope: &[f32]) = gradient::times_slope;
    /// `out.row(key) += sum over lanes of weights[key][lane] * rows[lane]`, in the order of the lanes.
    pub(crate) fn weighted_rows(of: &Weighted<'_>, out: &mut MatMut<'_, f32>) = gradient::weighted_rows;
    /// Power sums of scores into outputs of attention, with promises.
    pub(crate) fn estimate(keys: &Keys<'_>, of: &Polynomials<'_>, block: &mut Estimates<'_>) = estimate::estimate;
    /// Whether all numbers are finite.
    pub(crate) fn all_finite(rows: MatRef<'_, f32>) -> bool = moment_rows::all_finite;
    /// Ranges that hold these rows as well.
    pub(crate) fn widen_ranges(rows: MatRef<'_, f32>, low: &mut [f32], high: &mut [f32]) = moment_rows::widen;
    /// Sums of powers 1, 2, ... of the squared norms of tokens, and the largest square.
    pub(crate) fn powers(x: &[f32], count: usize, work: [&mut [f32]; 2], sums: &mut [f32]) -> f32 = moment_rows::powers;
    /// The squared norms of `(k - centre) * inverse` for up to sixteen keys, with the same bits in both classes.
    pub(crate) fn squares(k: MatRef<'_, f32>, centre: &[f32], inverse: f32, out: &mut [f32; 16]) = moment_rows::squares;
    /// A block of tokens into the sums of a moment state.
    pub(crate) fn push_tokens(tokens: &mut Tokens<'_>) = moment_push::push;
    /// `out[j][c][lane] = sum over alpha of degree j of q^alpha * weighted[alpha][c]`.
    pub(crate) fn query_moments(of: &mut Queries<'_>) = moment_query::query;
    /// The same of absolute values, for the last column; after [`query_moments`].
    pub(crate) fn query_magnitudes(of: &mut Queries<'_>) = moment_query::magnitudes;
    /// `out[v] = sum over alpha of coefficients[|alpha|] adjoint[alpha] * d q^alpha / d q_v`; after [`query_moments`].
    pub(crate) fn reverse_monomials(of: &mut Adjoint<'_>) = moment_reverse::reverse;
}

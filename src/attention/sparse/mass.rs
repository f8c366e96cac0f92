//! How much weight a block of keys can have at most.

use super::index::Extent;
use crate::bound::{product_up, sum_up, up, UNIT};
use crate::kernels;
use crate::math;
use core::f32::consts::LOG2_E;

/// A query against a block: what was computed about them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    /// Scale times the product with the centre.
    pub centre: f32,
    /// Scale times the largest product with a difference from the centre that lies in the box.
    pub reach: f32,
    /// At least scale times the length of the query.
    pub length: f32,
}

/// At least the log2 of the mean weight of the keys of a block (lemma L5, about the mean of the block, so that the scores x
/// relative to its own have mean 0):
///
/// ```text
/// e^x <= e^b'                                             b' = min(b, reach), b = length * radius
/// mean e^x <= cosh b                                      convexity on [-b, b]
/// mean e^x <= 1 + s (e^b' - 1 - b') / b'^2                Bennett, s = min(b^2, length^2 * spread)
/// ```
///
/// Infinite where numbers overflow. Every rounding is in the last line: so many units of the sizes that were added.
pub(super) fn log2_mean_weight(of: &Product, extent: &Extent) -> f32 {
    let slack = product_up(of.length, extent.slack);
    let b = product_up(of.length, extent.radius);
    let reach = sum_up(of.reach, slack).min(b);
    let square = product_up(product_up(of.length, of.length), extent.spread).min(product_up(b, b));
    let excess = reach.min(log_cosh(b)).min(log_bennett(reach, square));
    let log = of.centre + slack + excess;
    let pad = product_up(32.0 * UNIT, sum_up(sum_up(of.centre.abs(), slack), sum_up(excess, 1.0)));
    let log2 = (log + pad) * LOG2_E;
    if log2.is_finite() {
        log2
    } else {
        f32::INFINITY
    }
}

/// At least `ln cosh b`: `b^2 / 2`, and `b - ln 2 + e^-2b` from 2 on.
fn log_cosh(b: f32) -> f32 {
    let half = product_up(0.5 * b, b);
    if b >= 2.0 {
        half.min(b - 0.674)
    } else {
        half
    }
}

/// At least `ln(1 + square (e^b - 1 - b) / b^2)`.
fn log_bennett(b: f32, square: f32) -> f32 {
    if b <= 1.0 {
        // The quotient's series, its tail from b^3 on at most b^3 / 100; ln(1 + x) <= x.
        let quotient = 0.5 + b * (1.0 / 6.0 + b * (1.0 / 24.0 + b * 0.01));
        return product_up(square, quotient * (1.0 + 16.0 * UNIT));
    }
    // ln of e^-b times that, which overflows nowhere.
    let small = sum_up(kernels::probability_of(-b * LOG2_E), 1e-30);
    let ratio = up(square / (b * b));
    let inner = small + ratio * (1.0 - (1.0 + b) * small);
    b + math::ln(inner) + 128.0 * UNIT * (1.0 + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_bounded_and_close() {
        for i in 1..4000 {
            let b = i as f32 * 0.02;
            let x = f64::from(b);
            assert!(f64::from(log_cosh(b)) >= x.cosh().ln());
            for share in [1e-6, 1e-3, 0.1, 1.0] {
                let square = (share * b * b).min(b * b);
                let true_log = (1.0 + f64::from(square) / (x * x) * (x.exp() - 1.0 - x)).ln();
                let ours = f64::from(log_bennett(b, square));
                assert!(ours >= true_log, "{b} {share}: {ours} {true_log}");
                // ln(1 + x) <= x costs most where both are 1.
                let room = if b <= 1.0 { 0.2 } else { 2e-5 * (1.0 + x) };
                assert!(ours <= true_log + room, "{b} {share}: {ours} {true_log}");
            }
        }
    }
}

//! How sparse rows of attention are if scores are normal: what to expect, before anything is computed.
//!
//! For keys that are independent and normal, the scores of a query are too, with a standard deviation sigma =
//! `scale |Sigma^(1/2) q|`; then one number decides everything. Trained heads are not like that: measure, and let
//! [`Pruned`](super::Pruned) promise. At the usual scaling sigma is near 1, and 90 % of the weight takes 61 % of the keys,
//! whatever their number.

use crate::kernels;
use crate::math;
use core::f32::consts::LOG2_E;

/// The upper tail of the normal distribution, off by 2e-7 at most (Abramowitz and Stegun 7.1.26).
#[must_use]
pub fn normal_tail(x: f32) -> f32 {
    const TERMS: [f32; 5] = [0.254_829_6, -0.284_496_74, 1.421_413_7, -1.453_152, 1.061_405_4];
    let z = x.abs() * core::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let series = TERMS.iter().rev().fold(0.0, |sum, c| (sum + c) * t);
    let tail = 0.5 * series * kernels::probability_of(-z * z * LOG2_E);
    if x < 0.0 {
        1.0 - tail
    } else {
        tail
    }
}

/// Where the lower tail of the normal distribution is `p`, off by 4.5e-4 at most (Abramowitz and Stegun 26.2.23) for p in
/// 0..1; infinite at the ends, NaN beyond.
#[must_use]
pub fn normal_quantile(p: f32) -> f32 {
    if p.is_nan() || !(0.0..=1.0).contains(&p) {
        return f32::NAN;
    }
    if p == 0.0 || p == 1.0 {
        return if p == 0.0 { f32::NEG_INFINITY } else { f32::INFINITY };
    }
    let t = math::sqrt(-2.0 * math::ln(p.min(1.0 - p)));
    let above = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let below = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    let x = t - above / below;
    if p < 0.5 {
        -x
    } else {
        x
    }
}

/// With probability `1 - delta` at most how many of n probabilities of a row exceed `eps`: theorem G, by Maurer's bound for
/// the sum of the weights and Bernstein's for the count. Where n is too small for it, or sigma too large, `1 / eps`, which is
/// always true. Never more than n.
///
/// The tail is off by 2e-7, so the count by 2e-7 n: for planning.
#[must_use]
pub fn entries_above(n: usize, sigma: f32, eps: f32, delta: f32) -> f32 {
    let keys = math::nearest(n as u64);
    let always = keys.min(1.0 / eps);
    let log = math::ln(2.0 / delta);
    let growth = 1.0 / kernels::probability_of(-sigma * sigma * LOG2_E);
    let zeta = math::sqrt(2.0 * growth * log / keys);
    if !(zeta < 1.0 && sigma > 0.0) {
        return always;
    }
    let pi = normal_tail((math::ln(eps * keys * (1.0 - zeta)) + 0.5 * sigma * sigma) / sigma);
    let spread = math::sqrt(log * log / 9.0 + 2.0 * keys * pi * (1.0 - pi) * log);
    always.min(keys * pi + log / 3.0 + spread)
}

/// About how many of n keys hold all but a share theta of the weight: `n tail(sigma + quantile(theta))`. No promise.
#[must_use]
pub fn kept_for_mass(n: usize, sigma: f32, theta: f32) -> f32 {
    math::nearest(n as u64) * normal_tail(sigma + normal_quantile(theta))
}

/// C of `n^C`, as the number of keys that matter grows: `1 - sigma^2 / (2 ln n)`, and 0 from [`collapse`] on.
#[must_use]
pub fn exponent(n: usize, sigma: f32) -> f32 {
    let log = math::ln(math::nearest(n.max(2) as u64));
    (1.0 - sigma * sigma / (2.0 * log)).max(0.0)
}

/// The sigma from which on few keys hold all the weight: `sqrt(2 ln n)`.
#[must_use]
pub fn collapse(n: usize) -> f32 {
    math::sqrt(2.0 * math::ln(math::nearest(n.max(1) as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_those_of_tables() {
        // To seven digits, from the tables.
        for (x, tail) in [
            (0.0, 0.5),
            (1.0, 0.158_655_3),
            (2.0, 0.022_750_1),
            (-1.5, 0.933_192_8),
            (4.0, 3.167_1e-5),
        ] {
            assert!((normal_tail(x) - tail).abs() < 3e-7, "{x}");
        }
        for i in 1..1000 {
            let p = i as f32 / 1000.0;
            assert!((1.0 - normal_tail(normal_quantile(p)) - p).abs() < 2e-4, "{p}");
        }
        assert!(normal_quantile(-0.1).is_nan() && normal_quantile(0.0) == f32::NEG_INFINITY);
    }

    #[test]
    fn the_rules_are_those_of_the_specification() {
        let share = |n, sigma, theta| kept_for_mass(n, sigma, theta) / n as f32;
        for (n, sigma, theta, rule) in [
            (10_000, 0.5, 0.1, 0.783),
            (10_000, 1.0, 0.01, 0.908),
            (10_000, 2.0, 0.1, 0.236),
            (1_000_000, 4.0, 0.001, 0.181),
        ] {
            assert!((share(n, sigma, theta) - rule).abs() < 1.5e-3, "{n} {sigma} {theta}");
        }
        // The count's published bounds: 50 (sigma 1, eps 10 / n), 270 (sigma 2) and 81 (n 1e5, eps 100 / n).
        for (n, sigma, eps, count) in [
            (10_000, 1.0, 1e-3, 50.0),
            (10_000, 2.0, 1e-3, 270.0),
            (100_000, 2.0, 1e-3, 81.0),
        ] {
            let ours = entries_above(n, sigma, eps, 0.01);
            assert!((ours / count - 1.0).abs() < 0.2, "{n} {sigma}: {ours}");
        }
        assert_eq!(entries_above(1000, 3.0, 0.01, 0.01), 100.0);
        assert!((exponent(10_000, 2.0) - 0.78).abs() < 0.005 && exponent(100, 9.0) == 0.0);
        assert!((collapse(10_000) - 4.292).abs() < 1e-3);
    }
}

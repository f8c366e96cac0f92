//! Angles in 64 bits, a whole turn being 2^64: what overflows is whole turns, so that no angle is too large to be exact.
//!
//! Integers and plain f32: the same bits on every machine, of either arithmetic class.

use super::nearest;
use super::poly::{COS, SIN};

/// A radian: 2^64 / (2 pi).
const RADIAN: u64 = 0x28be_60db_9391_054a;
/// 2^64 pi / 4.
const EIGHTH: u64 = 0xc90f_daa2_2168_c235;
/// 2^64 ln 2.
const LN_2: u64 = 0xb172_17f7_d1cf_79ac;

/// The upper half of a product.
const fn high(a: u64, b: u64) -> u64 {
    ((a as u128 * b as u128) >> 64) as u64
}

/// Cosine and sine of an angle: at most 1.6 ULP and 2^-63 off, and at most 1.15 * 2^-24.
#[must_use]
#[inline(always)]
pub fn cos_sin(angle: u64) -> [f32; 2] {
    // The nearest quarter turn, and the rest of an eighth at most, in 2^-63 radians.
    let quarters = angle.wrapping_add(1 << 61) >> 62;
    let rest = angle.wrapping_sub(quarters << 62) as i64;
    let x = nearest(high(rest.unsigned_abs() << 2, EIGHTH)) * f32::from_bits((127 - 63) << 23);
    let z = x * x;
    let [s0, s1, s2] = SIN;
    let sin = x + x * z * ((s2 * z + s1) * z + s0);
    let [c0, c1, c2] = COS;
    // 1 - z / 2 = lead + rest exactly.
    let half = 0.5 * z;
    let lead = 1.0 - half;
    let cos = lead + (((1.0 - lead) - half) + z * z * ((c2 * z + c1) * z + c0));
    let sin = if rest < 0 { -sin } else { sin };
    match quarters {
        0 => [cos, sin],
        1 => [-sin, cos],
        2 => [-cos, -sin],
        _ => [sin, -cos],
    }
}

/// Frequencies that fall geometrically, in turns per step: the first is 1 radian, or less, and each is `ratio` times that
/// before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frequencies {
    next: u64,
    ratio: u64,
}

impl Frequencies {
    /// `base^(-i / steps) / slower` radians for i = 0, 1, ...: number i is off by at most 4 (i + 1) of 2^64 in a turn.
    ///
    /// `base` is finite and above 1, `slower` finite and not below 1, `steps` neither 0 nor 2^63.
    pub fn new(base: f32, steps: u64, slower: f32) -> Self {
        let (mantissa, exponent) = split(slower);
        let first = quotient([RADIAN >> 41, RADIAN << 23], mantissa);
        Frequencies {
            next: first.checked_shr(exponent).unwrap_or(0),
            ratio: inverse_root(base, steps),
        }
    }

    /// Cosines and sines of the next frequencies, as many as there is room for in both, after `position` steps.
    pub fn angles(&mut self, position: u64, cos: &mut [f32], sin: &mut [f32]) {
        for (cos, sin) in cos.iter_mut().zip(sin) {
            [*cos, *sin] = cos_sin(position.wrapping_mul(self.next));
            self.next = high(self.next, self.ratio);
        }
    }
}

/// `mantissa * 2^(exponent - 23)`, of a number that is not below 1.
const fn split(x: f32) -> (u64, u32) {
    let bits = x.to_bits();
    (
        (bits & 0x007f_ffff | 0x0080_0000) as u64,
        (bits >> 23).saturating_sub(127),
    )
}

/// 2^64 `base^(-1 / steps)`, within 12.
fn inverse_root(base: f32, steps: u64) -> u64 {
    let (mantissa, exponent) = split(base);
    // log2 of the mantissa, a bit with each squaring: below the true one by 6 at most.
    let (mut x, mut log) = (mantissa << 40, 0u64);
    for _ in 0..64 {
        let square = high(x, x);
        log = log << 1 | square >> 63;
        x = if square >> 63 == 1 { square } else { square << 1 };
    }
    let whole = u64::from(exponent).checked_div(steps).unwrap_or(0);
    let fraction = quotient([u64::from(exponent), log], steps);
    // 2^-fraction = e^-z; 1 - e^-z = z (1 - z / 2 (1 - z / 3 (...))), and !x is 1 - x.
    let z = high(fraction, LN_2);
    let mut below = 0;
    for n in (1..=20u64).rev() {
        below = high(z, !below) / n;
    }
    (!below).checked_shr(whole as u32).unwrap_or(0)
}

/// The lower 64 bits of a quotient of a number of 128, by hand: small machines have no such division.
fn quotient(number: [u64; 2], by: u64) -> u64 {
    let (mut rest, mut quotient) = (0u64, 0u64);
    for word in number {
        for bit in (0..64).rev() {
            rest = rest << 1 | (word >> bit & 1);
            quotient <<= 1;
            if rest >= by {
                rest -= by;
                quotient |= 1;
            }
        }
    }
    quotient
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_those_of_long_division() {
        let mut state = 1u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state
        };
        for _ in 0..10_000 {
            let (a, b, by) = (next(), next(), next() >> 1 | 1);
            let wide = (u128::from(a) << 64 | u128::from(b)) / u128::from(by);
            assert_eq!(quotient([a, b], by), wide as u64);
        }
    }

    #[test]
    fn frequencies_are_the_known_ones() {
        // base^(-1 / steps) = 1 / whole, so that number i is RADIAN / slower / whole^i.
        for (base, steps, whole, slower) in [
            (16.0, 4, 2u64, 1.0f32),
            (10_000.0, 4, 10, 1.0),
            (1e6, 2, 1000, 4.0),
            (500_000.0, 1, 500_000, 3.0),
            (3.0, 1, 3, 1.0),
            (2f32.powi(127), 127, 2, 2f32.powi(70)),
        ] {
            let mut f = Frequencies::new(base, steps, slower);
            let mut want = RADIAN.checked_div(slower as u64).unwrap_or(0);
            for i in 0..40 {
                let off = f.next.abs_diff(want);
                assert!(off <= 4 * (i + 1), "{base} {steps} number {i}: {off}");
                f.angles(0, &mut [0.0], &mut [0.0]);
                want /= whole;
            }
        }
        // The usual ones, of which every sixteenth is known.
        let mut f = Frequencies::new(10_000.0, 64, 1.0);
        for i in 0..64u64 {
            let want = RADIAN / 10u64.pow(i as u32 / 16);
            assert!(i % 16 != 0 || f.next.abs_diff(want) <= 4 * (i + 1), "{i}");
            f.angles(0, &mut [0.0], &mut [0.0]);
        }
        // Bases so near 1, or roots so high, that nothing falls.
        let mut f = Frequencies::new(1.0 + f32::EPSILON, 1 << 40, 1.0);
        f.angles(0, &mut [0.0; 8], &mut [0.0; 8]);
        assert!(f.next.abs_diff(RADIAN) <= 36);
    }
}

#[cfg(test)]
mod sweep {
    //! ```text
    //! cargo test --lib sweep -- --nocapture     every 257th of 2^32 angles; every third with SUBQUAD_LONG=1
    //! ```
    //!
    //! Every third meets each float that a rest can be some fifty times; all 2^32 once gave 1.5804 ULP and 1.1267 of 2^-24.

    use super::*;
    use std::println;

    /// The promises: in ULP, and in 2^-24.
    const LIMITS: [f64; 2] = [1.6, 1.15];

    /// Cosine and sine in f64, of the angle in quarters and a rest, neither of which is rounded by more than 2^-53.
    fn exact(angle: u64) -> [f64; 2] {
        let quarters = angle.wrapping_add(1 << 61) >> 62;
        let rest = angle.wrapping_sub(quarters << 62) as i64;
        let (sin, cos) = (rest as f64 * std::f64::consts::TAU / 2f64.powi(64)).sin_cos();
        [[cos, sin], [-sin, cos], [-cos, -sin], [sin, -cos]][quarters as usize]
    }

    /// In ULP of the exact result, what 2^-63 explains aside.
    fn ulps(got: f32, exact: f64) -> f64 {
        let exponent = ((exact.to_bits() >> 52) & 0x7ff) as i32 - 1023;
        let off = (f64::from(got) - exact).abs() - 2f64.powi(-63);
        off.max(0.0) / 2f64.powi(exponent.max(-126) - 23)
    }

    /// The largest errors, in the units of both limits.
    fn worst(angles: impl Iterator<Item = u64>) -> [f64; 2] {
        let mut worst = [0.0f64; 2];
        for angle in angles {
            for (got, want) in cos_sin(angle).into_iter().zip(exact(angle)) {
                let off = (f64::from(got) - want).abs() * 16_777_216.0;
                worst = larger(worst, [ulps(got, want), off]);
            }
        }
        worst
    }

    fn larger(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
        [0, 1].map(|i| a[i].max(b[i]))
    }

    #[test]
    fn cosines_and_sines_keep_their_promise() {
        let long = std::env::var_os("SUBQUAD_LONG").is_some();
        let step = if long { 3 } else { 257 };
        // The low bits of neighbours differ, so that whatever they do shows.
        let angle = |n: u64| n << 32 | n.wrapping_mul(0x9e37_79b9) & 0xffff_ffff;
        let found = std::thread::scope(|scope| {
            let upper = scope.spawn(move || worst((1 << 31..1u64 << 32).step_by(step).map(angle)));
            let lower = worst((0..1u64 << 31).step_by(step).map(angle));
            larger(lower, upper.join().unwrap())
        });
        // Small ones, and their neighbours around every eighth of a turn.
        let small =
            (0..61).flat_map(|shift| (0..999u64).map(move |n| (n.wrapping_mul(0x1357_9bdf_0246_8ace) >> 3) >> shift));
        let around =
            small.flat_map(|x| (0..8u64).flat_map(move |n| [(n << 61).wrapping_add(x), (n << 61).wrapping_sub(x)]));
        let [ulps, units] = larger(found, worst(around));
        println!("cos, sin max {ulps:.4} ULP, {units:.4} of 2^-24");
        let [most_ulps, most_units] = LIMITS;
        assert!(
            ulps > 0.5 && ulps <= most_ulps && units > 0.5 && units <= most_units,
            "{ulps} {units}"
        );
        // Without the reduction that oracle and function share.
        for n in 0..1000u64 {
            let angle = angle(n.wrapping_mul(4_294_967) & 0xffff_ffff);
            let (sin, cos) = (angle as f64 * std::f64::consts::TAU / 2f64.powi(64)).sin_cos();
            let [c, s] = cos_sin(angle);
            assert!((f64::from(c) - cos).abs() < 7e-8 && (f64::from(s) - sin).abs() < 7e-8);
        }
        assert_eq!(
            [0, 1 << 62, 1 << 63, 3 << 62].map(cos_sin),
            [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]
        );
    }
}

//! Scalar functions for what happens once per row. Plain multiplications and additions: the same bits everywhere.

pub mod poly;
pub mod turn;

use poly::{LN, LN2_HIGH, LN2_LOW};

/// Square root, correctly rounded; NaN below 0. One bit per step: it is called once per plan.
/// Inlined, so that a caller carries the cases that its numbers can be: that of a size is half as long.
#[must_use]
#[inline(always)]
pub const fn sqrt(x: f32) -> f32 {
    if x == 0.0 || x.is_nan() || x == f32::INFINITY {
        return x;
    }
    if x < 0.0 {
        return f32::NAN;
    }
    // x = m 2^e with 2^24 <= m < 2^26 and e even, so that 2^24 <= root of (m 2^24) < 2^25: one guard bit.
    let (bits, shift) = if x < f32::MIN_POSITIVE {
        ((x * 16_777_216.0).to_bits(), 24)
    } else {
        (x.to_bits(), 0)
    };
    let mut e = (bits >> 23) as i32 - 127 - 24 - shift;
    let mut m = ((bits & 0x007f_ffff) | 0x0080_0000) << 1;
    if e % 2 != 0 {
        m <<= 1;
        e -= 1;
    }
    // By hand, in base 4: two more bits of m 2^24 into the remainder give one more of the root.
    let mut digits = m << 6;
    let (mut root, mut rest) = (0u32, 0u32);
    let mut bit = 0;
    while bit < 25 {
        rest = rest << 2 | digits >> 30;
        digits <<= 2;
        let trial = root << 2 | 1;
        root <<= 1;
        if rest >= trial {
            rest -= trial;
            root |= 1;
        }
        bit += 1;
    }
    // The root of a 24-bit number never lies exactly between two neighbours, so the guard bit decides.
    let mantissa = (root + 1) >> 1;
    let exponent = (e / 2 + 12 + 127) as u32;
    f32::from_bits((exponent << 23) + (mantissa - 0x0080_0000))
}

/// `n as f32`, without the library call that small machines make of it.
#[must_use]
pub const fn nearest(n: u64) -> f32 {
    // The leading 32 bits are more than f32 keeps; what lies below them only decides ties.
    let shift = 32u32.saturating_sub(n.leading_zeros());
    let rest = n & ((1 << shift) - 1);
    let leading = (n >> shift) as u32 | (rest != 0) as u32;
    leading as f32 * f32::from_bits((127 + shift) << 23)
}

/// Natural logarithm: at most 0.84 ULP over all positive inputs; minus infinity at 0, NaN below.
#[must_use]
pub fn ln(x: f32) -> f32 {
    // Numbers are split as 2^k (1 + f), sqrt(1/2) <= 1 + f < sqrt(2).
    const SQRT_HALF: u32 = 0x3f35_04f3;
    if x == f32::INFINITY || x == 0.0 {
        return if x == 0.0 { f32::NEG_INFINITY } else { x };
    }
    if x.is_nan() || x < 0.0 {
        return f32::NAN;
    }
    let (bits, subnormal) = if x < f32::MIN_POSITIVE {
        ((x * 8_388_608.0).to_bits(), 23)
    } else {
        (x.to_bits(), 0)
    };
    let bits = bits.wrapping_add(0x3f80_0000 - SQRT_HALF);
    let k = ((bits >> 23) as i32 - 127 - subnormal) as f32;
    let f = f32::from_bits((bits & 0x007f_ffff) + SQRT_HALF) - 1.0;

    // With u = f / (2 + f): ln(1 + f) = 2 artanh u = f - h + u (h + R), h = f^2 / 2, R = u^2 P(u^2).
    let u = f / (2.0 + f);
    let z = u * u;
    let [p0, p1, p2] = LN;
    let r = z * ((p2 * z + p1) * z + p0);
    let h = 0.5 * f * f;
    let tail = (u * (h + r) + k * LN2_LOW) - h;
    // k LN2_HIGH + f = lead + rest exactly: the product is exact, and larger than f unless k = 0.
    let big = k * LN2_HIGH;
    let lead = big + f;
    let rest = f - (lead - big);
    lead + (rest + tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqrt_is_correctly_rounded() {
        for i in (0..=u32::MAX).step_by(9973) {
            let x = f32::from_bits(i);
            let (ours, std) = (sqrt(x), x.sqrt());
            assert!(
                ours.to_bits() == std.to_bits() || (ours.is_nan() && std.is_nan()),
                "{x:e}: {ours:e} {std:e}"
            );
        }
        for x in [1.0, 4.0, 2.0, f32::MAX, f32::MIN_POSITIVE, 1e-45, 16_777_215.0] {
            assert_eq!(sqrt(x), x.sqrt());
        }
    }

    #[test]
    fn nearest_is_the_conversion() {
        let mut n = 1u64;
        for i in 0..200_000u64 {
            n = n
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let n = n >> (i % 64);
            assert_eq!(nearest(n), n as f32, "{n}");
        }
        // Ties, and their neighbours, at every size.
        for s in 0..40 {
            for n in [0x0100_0001u64 << s, 0x0100_0003 << s] {
                for n in [n - 1, n, n + 1] {
                    assert_eq!(nearest(n), n as f32, "{n}");
                }
            }
        }
        assert_eq!((nearest(0), nearest(u64::MAX)), (0.0, u64::MAX as f32));
    }

    #[test]
    fn ln_keeps_its_promise() {
        let mut worst = 0.0f64;
        for i in (1..0x7f80_0000).step_by(257) {
            let x = f32::from_bits(i);
            let exact = f64::from(x).ln();
            let ulp = f64::from(f32::from_bits((exact as f32).abs().to_bits() + 1)) - f64::from((exact as f32).abs());
            worst = worst.max((f64::from(ln(x)) - exact).abs() / ulp);
        }
        // 0.84 over all inputs, by the sweep.
        assert!(worst <= 0.841, "{worst}");
        assert_eq!(
            (ln(1.0), ln(0.0), ln(f32::INFINITY)),
            (0.0, f32::NEG_INFINITY, f32::INFINITY)
        );
        assert!(ln(-1.0).is_nan() && ln(f32::NAN).is_nan());
    }
}

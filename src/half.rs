//! f16 and bf16 as bits: what numbers are stored in, never what is calculated with.
//!
//! From bits to f32 is exact. To bits rounds to nearest, ties to even; what is too large becomes infinity.

/// 2^112: by so much the exponents of f16 and f32 are apart.
pub(crate) const APART: f32 = f32::from_bits((127 + 112) << 23);

/// The f32 that f16 `bits` mean. A NaN becomes quiet and keeps the rest of its payload, as the instructions do it.
#[must_use]
#[inline(always)]
pub const fn f32_from_f16(bits: u16) -> f32 {
    let sign = (bits as u32 & 0x8000) << 16;
    let magnitude = bits as u32 & 0x7fff;
    // In f32 the exponent counts from 112 lower: a power of two puts that right, subnormals included.
    let scaled = (f32::from_bits(magnitude << 13) * APART).to_bits();
    let special = if magnitude >= 0x7c00 { 0x7f80_0000 } else { 0 };
    let quiet = if magnitude > 0x7c00 { 0x0040_0000 } else { 0 };
    f32::from_bits(sign | scaled | special | quiet)
}

/// The f16 nearest to `x`.
#[must_use]
pub const fn f16_from_f32(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00 | (magnitude >> 13 & 0x3ff) as u16;
    }
    if magnitude < 0x3880_0000 {
        // Subnormal: one addition leaves the multiples of 2^-24 in the low bits, rounded.
        let whole = f32::from_bits(magnitude) + 0.5;
        return sign | (whole.to_bits() - 0x3f00_0000) as u16;
    }
    let rounded = magnitude - 0x3800_0000 + 0x0fff + (magnitude >> 13 & 1);
    let infinite = rounded >= 0x7c00 << 13;
    sign | if infinite { 0x7c00 } else { (rounded >> 13) as u16 }
}

/// The f32 that bf16 `bits` mean.
#[must_use]
#[inline(always)]
pub const fn f32_from_bf16(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// The bf16 nearest to `x`.
#[must_use]
pub const fn bf16_from_f32(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the definition, in f64.
    fn meaning(bits: u16, digits: u32, bias: i32) -> f64 {
        let exponent = (bits & 0x7fff) >> digits;
        let fraction = f64::from(bits & ((1 << digits) - 1)) / f64::from(1u32 << digits);
        let (lead, power) = if exponent == 0 {
            (0.0, 1 - bias)
        } else {
            (1.0, i32::from(exponent) - bias)
        };
        let size = (lead + fraction) * 2f64.powi(power);
        if bits >> 15 == 1 {
            -size
        } else {
            size
        }
    }

    #[test]
    fn every_number_means_what_the_format_says_and_comes_back() {
        for bits in 0..=u16::MAX {
            let (a, b) = (f32_from_f16(bits), f32_from_bf16(bits));
            if bits & 0x7c00 != 0x7c00 {
                assert_eq!(f64::from(a), meaning(bits, 10, 15));
                assert_eq!(a.is_sign_negative(), bits >> 15 == 1);
            }
            if bits & 0x7f80 != 0x7f80 {
                assert_eq!(f64::from(b), meaning(bits, 7, 127));
            }
            let (nan_a, nan_b) = (bits & 0x7fff > 0x7c00, bits & 0x7fff > 0x7f80);
            assert_eq!((a.is_nan(), b.is_nan()), (nan_a, nan_b));
            assert_eq!(f16_from_f32(a), if nan_a { bits | 0x200 } else { bits });
            assert_eq!(bf16_from_f32(b), if nan_b { bits | 0x40 } else { bits });
        }
        assert_eq!(
            (f32_from_f16(0x7c00), f32_from_f16(0xfc00)),
            (f32::INFINITY, f32::NEG_INFINITY)
        );
    }

    #[test]
    fn between_two_numbers_the_nearest_is_taken_and_ties_go_to_even() {
        let up = |x: f32| f32::from_bits(x.to_bits() + 1);
        let down = |x: f32| f32::from_bits(x.to_bits() - 1);
        type Conversions = (fn(u16) -> f32, fn(f32) -> u16);
        let f16: Conversions = (f32_from_f16, f16_from_f32);
        let bf16: Conversions = (f32_from_bf16, bf16_from_f32);
        for ((from, to), infinite) in [(f16, 0x7c00), (bf16, 0x7f80)] {
            for low in 0..infinite - 1 {
                let middle = ((f64::from(from(low)) + f64::from(from(low + 1))) / 2.0) as f32;
                let even = low + (low & 1);
                assert_eq!(to(middle), even);
                assert_eq!(to(-middle), even | 0x8000);
                assert_eq!((to(down(middle)), to(up(middle))), (low, low + 1));
            }
            assert_eq!(to(f32::MAX), infinite);
            assert_eq!(to(f32::NEG_INFINITY), infinite | 0x8000);
        }
        assert_eq!((f16_from_f32(65519.996), f16_from_f32(65520.0)), (0x7bff, 0x7c00));
    }
}

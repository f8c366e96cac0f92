//! The softmax weight: a power of two relative to an integer reference.

use super::elementary::power;
use crate::real::Real;
use crate::simd::Simd;

/// The reference before any key: the lowest finite number, so that no difference of references is NaN.
pub const NOTHING: f32 = -f32::MAX;

/// A weight more than this many powers of two below the reference is 0. Nothing that small shows beside a weight of one
/// half, and its products with values would be subnormal numbers, which cost a hundred cycles each.
///
/// Weights above are multiples of 2^-123. Times values that are multiples of 2^-26 they add up without rounding below
/// 2^-126, so scaling them is exact whatever cancels; each power of two less here allows one more in the values.
pub const CUT: f32 = 100.0;

/// Scores this close to their reference take the short way: see [`weigh_near`].
pub const NEAR: f32 = 64.0;

/// `t` in `near_weight` is 0x4b40_0040 and up to 63 where the score is near, so it differs from the first number only
/// in bits that the second does not have.
pub const NEAR_BITS: (f32, f32) = (f32::from_bits(0x4b40_0040), f32::from_bits(!63));

/// Beyond this reference the rounding constant has no room for it, and differences are taken first.
pub const LARGE: f32 = 2_097_152.0;

/// `2^(x - m)` for an integer `m >= x`: exact 0 more than [`CUT`] below, NaN for NaN.
#[inline(always)]
pub fn weight<S: Simd<f32>>(s: S, x: S::V, m: S::V) -> S::V {
    // Where m is large, x - m is exact (or far below the clamp); where it is not, m goes into the rounding constant.
    let large = s.less(s.splat(LARGE), s.abs(m));
    let x = s.select(large, s.sub(x, m), x);
    let m = s.select(large, s.splat(0.0), m);
    let cut = s.sub(m, s.splat(CUT));
    let w = near_weight(s, s.max(cut, x), s.sub(s.splat(f32::MAGIC), m));
    s.select(s.less(x, cut), s.splat(0.0), w)
}

/// `2^(x - m)` given `c = magic - m`, for `x` between `m - 126` and `m`.
///
/// `t` is `x - m` rounded to an integer, with the exponent bias in its low bits; the rest `r` is exact.
#[inline(always)]
fn near_weight<S: Simd<f32>>(s: S, x: S::V, c: S::V) -> S::V {
    let t = s.add(x, c);
    let r = s.sub(x, s.sub(t, c));
    s.mul(power(s, r), s.exponent(t))
}

/// `2^x` of a part of a whole: exact 0 below `-`[`CUT`], 1 from 0 on, NaN for NaN.
#[inline(always)]
pub fn fraction<S: Simd<f32>>(s: S, x: S::V) -> S::V {
    let cut = s.splat(-CUT);
    let near = s.max(cut, s.min(s.splat(0.0), x));
    s.select(s.less(x, cut), s.splat(0.0), near_weight(s, near, s.splat(f32::MAGIC)))
}

/// The smallest integer not below `x`; numbers without a fraction, infinities and NaN as they are.
#[inline(always)]
pub fn ceil<S: Simd<f32>>(s: S, x: S::V) -> S::V {
    // From 2^23 on there are no fractions. Below, adding 2^23 away from zero pushes them out.
    let whole = s.splat(8_388_608.0);
    let below = s.add(s.sub(x, whole), whole);
    let near = s.select(s.less(x, s.splat(0.0)), below, s.sub(s.add(x, whole), whole));
    let up = s.select(s.less(near, x), s.add(near, s.splat(1.0)), near);
    s.select(s.less(s.abs(x), whole), up, x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Emu;

    #[test]
    fn references_are_integers_up_to_the_last_fraction() {
        // Every exponent, both signs, mantissas that round down, up and to even.
        for bits in (0..0x7f80_0000u32).step_by(4093) {
            for x in [f32::from_bits(bits), -f32::from_bits(bits)] {
                let [c] = ceil(Emu::<1>, [x]);
                assert_eq!(c, x.ceil(), "{x:e}");
            }
        }
        // 2^21 to 2^23 still has halves: a reference there would make rescaling inexact.
        for x in [2_097_152.5f32, 4_194_304.5, -2_097_152.5, -4_194_304.5, 8_388_607.5] {
            assert_eq!(ceil(Emu::<1>, [x]), [x.ceil()]);
        }
    }
}

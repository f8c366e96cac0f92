//! The scalars that kernels are written for.

use core::ops::{Add, Div, Mul, Sub};

/// f32 or f64. Sealed: the constants below are matched to kernels.
pub trait Real:
    Copy
    + PartialEq
    + PartialOrd
    + core::fmt::Debug
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + sealed::Sealed
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Infinity.
    const INFINITY: Self;
    /// `1.5 * 2^(digits - 1)` plus the exponent bias: added to a number it rounds it to an integer and leaves, in the
    /// low bits, the biased exponent of 2 to that integer.
    const MAGIC: Self;
    /// The number without its sign.
    #[must_use]
    fn magnitude(self) -> Self;
    /// The low bits of the number, moved into its exponent: `2^n` for `MAGIC + n`.
    #[must_use]
    fn exponent(self) -> Self;
    /// The bits of the number, and those in which `a` and `b` differ.
    #[must_use]
    fn differences(self, a: Self, b: Self) -> Self;
    /// Whether the number has a bit of `bits`.
    #[must_use]
    fn any_bit(self, bits: Self) -> bool;
    /// `self * b + c` with one rounding. In software: for oracles only.
    #[cfg(any(test, feature = "emulation"))]
    #[must_use]
    fn fused(self, b: Self, c: Self) -> Self;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

macro_rules! real {
    ($t:ident, $magic:expr, $digits:expr) => {
        impl Real for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const INFINITY: Self = $t::INFINITY;
            const MAGIC: Self = $magic;

            #[inline(always)]
            fn magnitude(self) -> Self {
                self.abs()
            }

            #[inline(always)]
            fn exponent(self) -> Self {
                $t::from_bits(self.to_bits() << $digits)
            }

            #[inline(always)]
            fn differences(self, a: Self, b: Self) -> Self {
                $t::from_bits(self.to_bits() | (a.to_bits() ^ b.to_bits()))
            }

            #[inline(always)]
            fn any_bit(self, bits: Self) -> bool {
                self.to_bits() & bits.to_bits() != 0
            }

            #[cfg(any(test, feature = "emulation"))]
            fn fused(self, b: Self, c: Self) -> Self {
                self.mul_add(b, c)
            }
        }
    };
}

real!(f32, 12_582_912.0 + 127.0, 23);
real!(f64, 6_755_399_441_055_744.0 + 1023.0, 52);

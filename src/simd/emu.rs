//! Portable lanes: plain loops over arrays. The only back end of small machines, and the oracle of the others.

use super::{Simd, Widen};
use crate::real::Real;

/// `N` lanes in plain Rust, multiply and add rounded separately.
#[derive(Clone, Copy, Debug)]
pub struct Emu<const N: usize>;

/// What runs where no back end is written: four lanes fit SSE2 and the register file of a Cortex-M4F.
#[cfg(not(feature = "compact"))]
pub type Scalar = Emu<4>;
/// What runs where no back end is written: one lane, the smallest code.
#[cfg(feature = "compact")]
pub type Scalar = Emu<1>;

/// `N` lanes with a fused multiply-add in software: the oracle of the fused class. Slow.
#[cfg(any(test, feature = "emulation"))]
#[derive(Clone, Copy, Debug)]
pub struct FusedEmu<const N: usize>;

/// Applies `f` lane by lane.
#[inline(always)]
fn zip<T: Copy, U: Copy, R: Copy, const N: usize>(a: [T; N], b: [U; N], start: R, f: impl Fn(T, U) -> R) -> [R; N] {
    let mut out = [start; N];
    for (o, (a, b)) in out.iter_mut().zip(a.into_iter().zip(b)) {
        *o = f(a, b);
    }
    out
}

macro_rules! emulated {
    ($name:ident, $n:literal, $fused:literal, |$a:ident, $b:ident, $c:ident| $mul_add:expr) => {
        impl<T: Real> Simd<T> for $name<$n> {
            type V = [T; $n];
            type M = [bool; $n];
            type V16 = [[T; $n]; 16 / $n];

            const LANES: usize = $n;
            const FUSED: bool = $fused;
            // Scalar code: a Cortex-M4F has 32 single registers. One lane is for size, and takes the smallest tiles.
            const REGISTERS: usize = if $n == 1 { 8 } else { 32 / $n };

            #[inline(always)]
            fn splat(self, x: T) -> Self::V {
                [x; $n]
            }
            #[inline(always)]
            fn load(self, p: &[T]) -> Self::V {
                match p.first_chunk::<$n>() {
                    Some(p) => *p,
                    None => [T::ZERO; $n],
                }
            }
            #[inline(always)]
            fn store(self, v: Self::V, p: &mut [T]) {
                if let Some(p) = p.first_chunk_mut::<$n>() {
                    *p = v;
                }
            }
            #[inline(always)]
            fn add(self, a: Self::V, b: Self::V) -> Self::V {
                zip(a, b, T::ZERO, |a, b| a + b)
            }
            #[inline(always)]
            fn sub(self, a: Self::V, b: Self::V) -> Self::V {
                zip(a, b, T::ZERO, |a, b| a - b)
            }
            #[inline(always)]
            fn mul(self, a: Self::V, b: Self::V) -> Self::V {
                zip(a, b, T::ZERO, |a, b| a * b)
            }
            #[inline(always)]
            fn div(self, a: Self::V, b: Self::V) -> Self::V {
                zip(a, b, T::ZERO, |a, b| a / b)
            }
            #[inline(always)]
            fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                let mut out = c;
                for (o, ($a, $b)) in out.iter_mut().zip(a.into_iter().zip(b)) {
                    let $c = *o;
                    *o = $mul_add;
                }
                out
            }
            #[inline(always)]
            fn max(self, a: Self::V, b: Self::V) -> Self::V {
                zip(a, b, T::ZERO, |a, b| if a > b { a } else { b })
            }
            #[inline(always)]
            fn min(self, a: Self::V, b: Self::V) -> Self::V {
                zip(a, b, T::ZERO, |a, b| if a < b { a } else { b })
            }
            #[inline(always)]
            fn abs(self, a: Self::V) -> Self::V {
                zip(a, a, T::ZERO, |a, _| a.magnitude())
            }
            #[inline(always)]
            fn less(self, a: Self::V, b: Self::V) -> Self::M {
                zip(a, b, false, |a, b| a < b)
            }
            #[inline(always)]
            fn equal(self, a: Self::V, b: Self::V) -> Self::M {
                zip(a, b, false, |a, b| a == b)
            }
            #[inline(always)]
            fn select(self, m: Self::M, a: Self::V, b: Self::V) -> Self::V {
                let mut out = b;
                for (o, (m, a)) in out.iter_mut().zip(m.into_iter().zip(a)) {
                    *o = if m { a } else { *o };
                }
                out
            }
            #[inline(always)]
            fn all(self, m: Self::M) -> bool {
                m.into_iter().all(|m| m)
            }
            #[inline(always)]
            fn exponent(self, t: Self::V) -> Self::V {
                zip(t, t, T::ZERO, |t, _| t.exponent())
            }
            #[inline(always)]
            fn differences(self, seen: Self::V, a: Self::V, b: Self::V) -> Self::V {
                let mut out = seen;
                for (o, (a, b)) in out.iter_mut().zip(a.into_iter().zip(b)) {
                    *o = o.differences(a, b);
                }
                out
            }
            #[inline(always)]
            fn any_bit(self, v: Self::V, bits: Self::V) -> bool {
                v.into_iter()
                    .zip(bits)
                    .fold(false, |any, (v, bits)| any | v.any_bit(bits))
            }
            #[inline(always)]
            fn splat16(self, x: T) -> Self::V16 {
                [[x; $n]; 16 / $n]
            }
        }

        impl Widen for $name<$n> {}
    };
}

emulated!(Emu, 1, false, |a, b, c| a * b + c);
emulated!(Emu, 4, false, |a, b, c| a * b + c);
emulated!(Emu, 8, false, |a, b, c| a * b + c);
emulated!(Emu, 16, false, |a, b, c| a * b + c);

#[cfg(any(test, feature = "emulation"))]
mod fused {
    use super::*;

    emulated!(FusedEmu, 1, true, |a, b, c| a.fused(b, c));
    emulated!(FusedEmu, 4, true, |a, b, c| a.fused(b, c));
    emulated!(FusedEmu, 8, true, |a, b, c| a.fused(b, c));
    emulated!(FusedEmu, 16, true, |a, b, c| a.fused(b, c));
}

//! The vocabulary of vectors: some thirty operations, one file per machine.
//!
//! A back end is a value ("token") that only detection can make, so that holding one proves that its instructions run
//! here. Kernels are written once over [`Simd`]; `dispatch!` instantiates them per back end and [`Isa`] chooses.
//!
//! Every operation rounds like IEEE 754 scalar code, so results depend on the order of operations only, and a kernel
//! fixes that. Two classes remain: back ends that fuse `mul_add` and back ends that do not.

mod emu;
mod isa;
#[cfg(test)]
mod laws;
mod strict;
mod widen;

#[cfg(isa_x86)]
mod avx2;
#[cfg(isa_x86)]
mod avx512;
#[cfg(isa_neon)]
mod neon;
#[cfg(isa_wasm)]
mod wasm;

#[cfg(any(test, feature = "emulation"))]
pub use emu::FusedEmu;
pub use emu::{Emu, Scalar};
pub(crate) use isa::dispatch;
pub use isa::Isa;
pub use strict::Strict;
pub use widen::{Bf16, Stored, Widen, F16, F32, I8};

#[cfg(isa_neon)]
pub use neon::Neon;
#[cfg(isa_wasm)]
pub use wasm::Wasm;
#[cfg(isa_x86)]
pub use {avx2::Avx2, avx512::Avx512};

use crate::real::Real;

/// One machine's vectors of `T`.
///
/// Loads and stores are total: a slice that is too short reads as zeros and is not written. In kernels the lengths are
/// known after inlining and the test folds away.
pub trait Simd<T: Real>: Copy {
    /// A vector.
    type V: Copy;
    /// One truth value per lane.
    type M: Copy;
    /// Sixteen lanes, in as many vectors as that takes: the unit of every reduction.
    type V16: Copy + AsRef<[Self::V]> + AsMut<[Self::V]>;

    /// Lanes of a vector; divides 16.
    const LANES: usize;
    /// Whether `mul_add` rounds once.
    const FUSED: bool;
    /// Vector registers, which decide how large a tile may be.
    const REGISTERS: usize;

    /// All lanes `x`.
    fn splat(self, x: T) -> Self::V;
    /// The first lanes of `p`.
    fn load(self, p: &[T]) -> Self::V;
    /// Writes the lanes to the front of `p`.
    fn store(self, v: Self::V, p: &mut [T]);
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once if `FUSED`, else twice.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `if a > b { a } else { b }`: a NaN on either side gives `b`, and so do two zeros.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `if a < b { a } else { b }`: a NaN on either side gives `b`, and so do two zeros.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// Without the sign.
    fn abs(self, a: Self::V) -> Self::V;
    /// `a < b`, false for NaN.
    fn less(self, a: Self::V, b: Self::V) -> Self::M;
    /// `a == b`, false for NaN.
    fn equal(self, a: Self::V, b: Self::V) -> Self::M;
    /// Where `m`: `a`, elsewhere `b`.
    fn select(self, m: Self::M, a: Self::V, b: Self::V) -> Self::V;
    /// Whether all lanes hold.
    fn all(self, m: Self::M) -> bool;
    /// The low bits, moved into the exponent: `2^n` for [`Real::MAGIC`]` + n`, and 0 one below the smallest exponent.
    fn exponent(self, t: Self::V) -> Self::V;
    /// The bits of `seen`, and those in which `a` and `b` differ.
    fn differences(self, seen: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// Whether some lane of `v` has a bit of `bits`.
    fn any_bit(self, v: Self::V, bits: Self::V) -> bool;
    /// Sixteen lanes `x`.
    fn splat16(self, x: T) -> Self::V16;

    /// As many lanes as `p` has, the rest `fill`.
    #[inline(always)]
    fn load_part(self, p: &[T], fill: T) -> Self::V {
        let mut whole = [fill; 16];
        whole.iter_mut().zip(p).for_each(|(w, &x)| *w = x);
        self.load(&whole)
    }

    /// As many lanes as `p` has room for.
    #[inline(always)]
    fn store_part(self, v: Self::V, p: &mut [T]) {
        let mut whole = [T::ZERO; 16];
        self.store(v, &mut whole);
        p.iter_mut().take(Self::LANES).zip(&whole).for_each(|(x, &w)| *x = w);
    }

    /// The first sixteen numbers of `p`.
    #[inline(always)]
    fn load16(self, p: &[T]) -> Self::V16 {
        let mut v = self.splat16(T::ZERO);
        for (v, p) in v.as_mut().iter_mut().zip(p.chunks_exact(Self::LANES)) {
            *v = self.load(p);
        }
        v
    }

    /// Writes all sixteen lanes to the front of `p`.
    #[inline(always)]
    fn store16(self, v: Self::V16, p: &mut [T]) {
        for (&v, p) in v.as_ref().iter().zip(p.chunks_exact_mut(Self::LANES)) {
            self.store(v, p);
        }
    }

    /// `a * b + c` in each of sixteen lanes.
    #[inline(always)]
    fn mul_add16(self, a: Self::V16, b: Self::V16, mut c: Self::V16) -> Self::V16 {
        for (c, (&a, &b)) in c.as_mut().iter_mut().zip(a.as_ref().iter().zip(b.as_ref())) {
            *c = self.mul_add(a, b, *c);
        }
        c
    }

    /// Sum of sixteen lanes: halves added to halves, on every machine.
    #[inline(always)]
    fn sum16(self, v: Self::V16) -> T {
        let mut x = [T::ZERO; 16];
        self.store16(v, &mut x);
        let [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7] = x;
        let (c0, c1, c2, c3) = (a0 + b0, a1 + b1, a2 + b2, a3 + b3);
        let (c4, c5, c6, c7) = (a4 + b4, a5 + b5, a6 + b6, a7 + b7);
        ((c0 + c4) + (c2 + c6)) + ((c1 + c5) + (c3 + c7))
    }

    /// Sixteen times [`sum16`](Simd::sum16), one sum per lane.
    #[inline(always)]
    fn sums16(self, rows: &[Self::V16; 16]) -> Self::V16 {
        let mut sums = [T::ZERO; 16];
        for (sum, &row) in sums.iter_mut().zip(rows) {
            *sum = self.sum16(row);
        }
        self.load16(&sums)
    }
}

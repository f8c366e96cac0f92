//! WebAssembly simd128: four lanes of f32, two of f64. No fused multiply-add that rounds the same everywhere, so strict.
#![allow(unsafe_code)]

use super::{Simd, Widen};
use core::arch::wasm32::*;

/// simd128, a property of the module that is being compiled.
#[derive(Clone, Copy, Debug)]
pub struct Wasm(());

impl Wasm {
    /// The token; a module with simd128 runs only where simd128 is.
    #[must_use]
    pub fn detect() -> Self {
        Wasm(())
    }
}

/// An operation that is one intrinsic.
macro_rules! ops {
    ($($name:ident($($arg:ident: $ty:ty),+) -> $ret:ty = $f:expr;)+) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),+) -> $ret {
            $f($($arg),+)
        }
    )+};
}

impl Simd<f32> for Wasm {
    type V = v128;
    type M = v128;
    type V16 = [v128; 4];

    const LANES: usize = 4;
    const FUSED: bool = false;
    const REGISTERS: usize = 16;

    ops! {
        splat(x: f32) -> v128 = f32x4_splat;
        add(a: v128, b: v128) -> v128 = f32x4_add;
        sub(a: v128, b: v128) -> v128 = f32x4_sub;
        mul(a: v128, b: v128) -> v128 = f32x4_mul;
        div(a: v128, b: v128) -> v128 = f32x4_div;
        abs(a: v128) -> v128 = f32x4_abs;
        less(a: v128, b: v128) -> v128 = f32x4_lt;
        equal(a: v128, b: v128) -> v128 = f32x4_eq;
        all(m: v128) -> bool = i32x4_all_true;
    }

    #[inline(always)]
    fn load(self, p: &[f32]) -> v128 {
        match p.first_chunk::<4>() {
            // SAFETY: four floats, any alignment.
            Some(p) => unsafe { v128_load(p.as_ptr().cast()) },
            None => Simd::<f32>::splat(self, 0.0),
        }
    }
    #[inline(always)]
    fn store(self, v: v128, p: &mut [f32]) {
        if let Some(p) = p.first_chunk_mut::<4>() {
            // SAFETY: four floats, any alignment.
            unsafe { v128_store(p.as_mut_ptr().cast(), v) }
        }
    }
    #[inline(always)]
    fn mul_add(self, a: v128, b: v128, c: v128) -> v128 {
        f32x4_add(f32x4_mul(a, b), c)
    }
    // pmax(x, y) is `if x < y { y } else { x }`, which is ours with the operands exchanged.
    #[inline(always)]
    fn max(self, a: v128, b: v128) -> v128 {
        f32x4_pmax(b, a)
    }
    #[inline(always)]
    fn min(self, a: v128, b: v128) -> v128 {
        f32x4_pmin(b, a)
    }
    #[inline(always)]
    fn select(self, m: v128, a: v128, b: v128) -> v128 {
        v128_bitselect(a, b, m)
    }
    #[inline(always)]
    fn exponent(self, t: v128) -> v128 {
        i32x4_shl(t, 23)
    }
    #[inline(always)]
    fn differences(self, seen: v128, a: v128, b: v128) -> v128 {
        v128_or(seen, v128_xor(a, b))
    }
    #[inline(always)]
    fn any_bit(self, v: v128, bits: v128) -> bool {
        v128_any_true(v128_and(v, bits))
    }
    #[inline(always)]
    fn splat16(self, x: f32) -> Self::V16 {
        [Simd::<f32>::splat(self, x); 4]
    }
}

// Loops over four lanes, which the compiler turns into vectors.
impl Widen for Wasm {}

impl Simd<f64> for Wasm {
    type V = v128;
    type M = v128;
    type V16 = [v128; 8];

    const LANES: usize = 2;
    const FUSED: bool = false;
    const REGISTERS: usize = 16;

    ops! {
        splat(x: f64) -> v128 = f64x2_splat;
        add(a: v128, b: v128) -> v128 = f64x2_add;
        sub(a: v128, b: v128) -> v128 = f64x2_sub;
        mul(a: v128, b: v128) -> v128 = f64x2_mul;
        div(a: v128, b: v128) -> v128 = f64x2_div;
        abs(a: v128) -> v128 = f64x2_abs;
        less(a: v128, b: v128) -> v128 = f64x2_lt;
        equal(a: v128, b: v128) -> v128 = f64x2_eq;
        all(m: v128) -> bool = i64x2_all_true;
    }

    #[inline(always)]
    fn load(self, p: &[f64]) -> v128 {
        match p.first_chunk::<2>() {
            // SAFETY: two doubles, any alignment.
            Some(p) => unsafe { v128_load(p.as_ptr().cast()) },
            None => Simd::<f64>::splat(self, 0.0),
        }
    }
    #[inline(always)]
    fn store(self, v: v128, p: &mut [f64]) {
        if let Some(p) = p.first_chunk_mut::<2>() {
            // SAFETY: two doubles, any alignment.
            unsafe { v128_store(p.as_mut_ptr().cast(), v) }
        }
    }
    #[inline(always)]
    fn mul_add(self, a: v128, b: v128, c: v128) -> v128 {
        f64x2_add(f64x2_mul(a, b), c)
    }
    // pmax(x, y) is `if x < y { y } else { x }`, which is ours with the operands exchanged.
    #[inline(always)]
    fn max(self, a: v128, b: v128) -> v128 {
        f64x2_pmax(b, a)
    }
    #[inline(always)]
    fn min(self, a: v128, b: v128) -> v128 {
        f64x2_pmin(b, a)
    }
    #[inline(always)]
    fn select(self, m: v128, a: v128, b: v128) -> v128 {
        v128_bitselect(a, b, m)
    }
    #[inline(always)]
    fn exponent(self, t: v128) -> v128 {
        i64x2_shl(t, 52)
    }
    #[inline(always)]
    fn differences(self, seen: v128, a: v128, b: v128) -> v128 {
        v128_or(seen, v128_xor(a, b))
    }
    #[inline(always)]
    fn any_bit(self, v: v128, bits: v128) -> bool {
        v128_any_true(v128_and(v, bits))
    }
    #[inline(always)]
    fn splat16(self, x: f64) -> Self::V16 {
        [Simd::<f64>::splat(self, x); 8]
    }
}

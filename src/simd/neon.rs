//! NEON on AArch64, where it and its fused multiply-add are part of the base: four lanes of f32, two of f64.
#![allow(unsafe_code)]

use super::{Simd, Widen};
use core::arch::aarch64::*;

/// NEON. Only `detect` makes one, though on AArch64 it never fails.
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

impl Neon {
    /// The token; the target's base has NEON.
    #[must_use]
    pub fn detect() -> Self {
        Neon(())
    }
}

/// An operation that is one intrinsic.
macro_rules! ops {
    ($($name:ident($($arg:ident: $ty:ty),+) -> $ret:ty = $f:expr;)+) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),+) -> $ret {
            // SAFETY: NEON is in the target's base; the intrinsic touches no memory.
            unsafe { $f($($arg),+) }
        }
    )+};
}

impl Simd<f32> for Neon {
    type V = float32x4_t;
    type M = uint32x4_t;
    type V16 = [float32x4_t; 4];

    const LANES: usize = 4;
    const FUSED: bool = true;
    const REGISTERS: usize = 32;

    ops! {
        splat(x: f32) -> float32x4_t = vdupq_n_f32;
        add(a: float32x4_t, b: float32x4_t) -> float32x4_t = vaddq_f32;
        sub(a: float32x4_t, b: float32x4_t) -> float32x4_t = vsubq_f32;
        mul(a: float32x4_t, b: float32x4_t) -> float32x4_t = vmulq_f32;
        div(a: float32x4_t, b: float32x4_t) -> float32x4_t = vdivq_f32;
        abs(a: float32x4_t) -> float32x4_t = vabsq_f32;
        less(a: float32x4_t, b: float32x4_t) -> uint32x4_t = vcltq_f32;
        equal(a: float32x4_t, b: float32x4_t) -> uint32x4_t = vceqq_f32;
        select(m: uint32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t = vbslq_f32;
    }

    #[inline(always)]
    fn load(self, p: &[f32]) -> float32x4_t {
        match p.first_chunk::<4>() {
            // SAFETY: four floats, any alignment; NEON is in the base.
            Some(p) => unsafe { vld1q_f32(p.as_ptr()) },
            None => Simd::<f32>::splat(self, 0.0),
        }
    }
    #[inline(always)]
    fn store(self, v: float32x4_t, p: &mut [f32]) {
        if let Some(p) = p.first_chunk_mut::<4>() {
            // SAFETY: four floats, any alignment; NEON is in the base.
            unsafe { vst1q_f32(p.as_mut_ptr(), v) }
        }
    }
    #[inline(always)]
    fn mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is in the base; no memory is touched.
        unsafe { vfmaq_f32(c, a, b) }
    }
    // The native maximum lets NaN win and orders zeros; ours is the comparison.
    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is in the base; no memory is touched.
        unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
    }
    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is in the base; no memory is touched.
        unsafe { vbslq_f32(vcltq_f32(a, b), a, b) }
    }
    #[inline(always)]
    fn all(self, m: uint32x4_t) -> bool {
        // SAFETY: NEON is in the base; no memory is touched.
        unsafe { vminvq_u32(m) == u32::MAX }
    }
    #[inline(always)]
    fn exponent(self, t: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is in the base; no memory is touched.
        unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(t))) }
    }
    #[inline(always)]
    fn differences(self, seen: float32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is in the base; no memory is touched.
        unsafe {
            vreinterpretq_f32_u32(vorrq_u32(
                vreinterpretq_u32_f32(seen),
                veorq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)),
            ))
        }
    }
    #[inline(always)]
    fn any_bit(self, v: float32x4_t, bits: float32x4_t) -> bool {
        // SAFETY: NEON is in the base; no memory is touched.
        unsafe {
            let x = vandq_u32(vreinterpretq_u32_f32(v), vreinterpretq_u32_f32(bits));
            vmaxvq_u32(x) != 0
        }
    }
    #[inline(always)]
    fn splat16(self, x: f32) -> Self::V16 {
        [Simd::<f32>::splat(self, x); 4]
    }
}

impl Widen for Neon {
    /// By the instruction itself, as its intrinsic is stable from Rust 1.94 on only.
    #[inline(always)]
    fn load_f16(self, p: &[u16]) -> float32x4_t {
        match p.first_chunk::<4>() {
            Some(p) => {
                let wide;
                // SAFETY: four halves, any alignment; NEON is in the base, and the conversion with it. A NaN becomes quiet.
                unsafe {
                    let halves = vld1_u16(p.as_ptr());
                    core::arch::asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) wide, in(vreg) halves, options(pure, nomem, nostack));
                }
                wide
            }
            None => Simd::<f32>::splat(self, 0.0),
        }
    }
    #[inline(always)]
    fn load_i8(self, p: &[i8]) -> float32x4_t {
        match p.first_chunk::<4>() {
            // SAFETY: NEON is in the base; no memory is touched.
            Some(&[a, b, c, d]) => unsafe {
                let four = u32::from_le_bytes([a as u8, b as u8, c as u8, d as u8]);
                let wide = vmovl_s8(vcreate_s8(u64::from(four)));
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)))
            },
            None => Simd::<f32>::splat(self, 0.0),
        }
    }
    #[inline(always)]
    fn load_bf16(self, p: &[u16]) -> float32x4_t {
        match p.first_chunk::<4>() {
            // SAFETY: four halves, any alignment; NEON is in the base.
            Some(p) => unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p.as_ptr()))) },
            None => Simd::<f32>::splat(self, 0.0),
        }
    }
}

impl Simd<f64> for Neon {
    type V = float64x2_t;
    type M = uint64x2_t;
    type V16 = [float64x2_t; 8];

    const LANES: usize = 2;
    const FUSED: bool = true;
    const REGISTERS: usize = 32;

    ops! {
        splat(x: f64) -> float64x2_t = vdupq_n_f64;
        add(a: float64x2_t, b: float64x2_t) -> float64x2_t = vaddq_f64;
        sub(a: float64x2_t, b: float64x2_t) -> float64x2_t = vsubq_f64;
        mul(a: float64x2_t, b: float64x2_t) -> float64x2_t = vmulq_f64;
        div(a: float64x2_t, b: float64x2_t) -> float64x2_t = vdivq_f64;
        abs(a: float64x2_t) -> float64x2_t = vabsq_f64;
        less(a: float64x2_t, b: float64x2_t) -> uint64x2_t = vcltq_f64;
        equal(a: float64x2_t, b: float64x2_t) -> uint64x2_t = vceqq_f64;
        select(m: uint64x2_t, a: float64x2_t, b: float64x2_t) -> float64x2_t = vbslq_f64;
    }

    #[inline(always)]
    fn load(self, p: &[f64]) -> float64x2_t {
        match p.first_chunk::<2>() {
            // SAFETY: two doubles, any alignment; NEON is in the base.
            Some(p) => unsafe { vld1q_f64(p.as_ptr()) },
            None => Simd::<f64>::splat(self, 0.0),
        }
    }
    #[inline(always)]
    fn store(self, v: float64x2_t, p: &mut [f64]) {
        if let Some(p) = p.first_chunk_mut::<2>() {
            // SAFETY: two doubles, any alignment; NEON is in the base.
            unsafe { vst1q_f64(p.as_mut_ptr(), v) }
        }
    }
    #[inline(always)]
    fn mul_add(self, a: float64x2_t, b: float64x2_t, c: float64x2_t) -> float64x2_t {
        // SAFETY: NEON is in the base; no memory is touched.
        unsafe { vfmaq_f64(c, a, b) }
    }
    // The native maximum lets NaN win and orders zeros; ours is the comparison.
    #[inline(always)]
    fn max(self, a: float64x2_t, b: float64x2_t) -> float64x2_t {
        // SAFETY: NEON is in the base; no memory is touched.
        unsafe { vbslq_f64(vcgtq_f64(a, b), a, b) }
    }
    #[inline(always)]
    fn min(self, a: float64x2_t, b: float64x2_t) -> float64x2_t {
        // SAFETY: NEON is in the base; no memory is touched.
        unsafe { vbslq_f64(vcltq_f64(a, b), a, b) }
    }
    #[inline(always)]
    fn all(self, m: uint64x2_t) -> bool {
        // SAFETY: NEON is in the base; no memory is touched.
        unsafe { vminvq_u32(vreinterpretq_u32_u64(m)) == u32::MAX }
    }
    #[inline(always)]
    fn exponent(self, t: float64x2_t) -> float64x2_t {
        // SAFETY: NEON is in the base; no memory is touched.
        unsafe { vreinterpretq_f64_u64(vshlq_n_u64::<52>(vreinterpretq_u64_f64(t))) }
    }
    #[inline(always)]
    fn differences(self, seen: float64x2_t, a: float64x2_t, b: float64x2_t) -> float64x2_t {
        // SAFETY: NEON is in the base; no memory is touched.
        unsafe {
            vreinterpretq_f64_u64(vorrq_u64(
                vreinterpretq_u64_f64(seen),
                veorq_u64(vreinterpretq_u64_f64(a), vreinterpretq_u64_f64(b)),
            ))
        }
    }
    #[inline(always)]
    fn any_bit(self, v: float64x2_t, bits: float64x2_t) -> bool {
        // SAFETY: NEON is in the base; no memory is touched.
        unsafe {
            let x = vandq_u64(vreinterpretq_u64_f64(v), vreinterpretq_u64_f64(bits));
            vmaxvq_u32(vreinterpretq_u32_u64(x)) != 0
        }
    }
    #[inline(always)]
    fn splat16(self, x: f64) -> Self::V16 {
        [Simd::<f64>::splat(self, x); 8]
    }
}

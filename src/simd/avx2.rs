//! AVX2 with FMA: eight lanes of f32, four of f64.
#![allow(unsafe_code)]

use super::{Simd, Widen};
use core::arch::x86_64::*;

/// Proof that this CPU has AVX2 and FMA. Only `detect` makes one.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

cpufeatures::new!(avx2_fma, "avx2", "fma");

impl Avx2 {
    /// The token, where the CPU and the operating system support it.
    #[must_use]
    pub fn detect() -> Option<Self> {
        avx2_fma::get().then_some(Avx2(()))
    }
}

/// An operation that is one intrinsic.
macro_rules! ops {
    ($($name:ident($($arg:ident: $ty:ty),+) -> $ret:ty = $f:expr;)+) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),+) -> $ret {
            // SAFETY: `self` proves the instructions; the intrinsic touches no memory.
            unsafe { $f($($arg),+) }
        }
    )+};
}
pub(super) use ops;

impl Simd<f32> for Avx2 {
    type V = __m256;
    type M = __m256;
    type V16 = [__m256; 2];

    const LANES: usize = 8;
    const FUSED: bool = true;
    const REGISTERS: usize = 16;

    ops! {
        splat(x: f32) -> __m256 = _mm256_set1_ps;
        add(a: __m256, b: __m256) -> __m256 = _mm256_add_ps;
        sub(a: __m256, b: __m256) -> __m256 = _mm256_sub_ps;
        mul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps;
        div(a: __m256, b: __m256) -> __m256 = _mm256_div_ps;
        mul_add(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps;
        max(a: __m256, b: __m256) -> __m256 = _mm256_max_ps;
        min(a: __m256, b: __m256) -> __m256 = _mm256_min_ps;
        less(a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_LT_OQ>;
        equal(a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_EQ_OQ>;
    }

    #[inline(always)]
    fn load(self, p: &[f32]) -> __m256 {
        match p.first_chunk::<8>() {
            // SAFETY: eight floats, any alignment; `self` proves AVX.
            Some(p) => unsafe { _mm256_loadu_ps(p.as_ptr()) },
            None => Simd::<f32>::splat(self, 0.0),
        }
    }
    #[inline(always)]
    fn store(self, v: __m256, p: &mut [f32]) {
        if let Some(p) = p.first_chunk_mut::<8>() {
            // SAFETY: eight floats, any alignment; `self` proves AVX.
            unsafe { _mm256_storeu_ps(p.as_mut_ptr(), v) }
        }
    }
    #[inline(always)]
    fn abs(self, a: __m256) -> __m256 {
        // SAFETY: `self` proves AVX; no memory is touched.
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
    }
    #[inline(always)]
    fn select(self, m: __m256, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX; no memory is touched.
        unsafe { _mm256_blendv_ps(b, a, m) }
    }
    #[inline(always)]
    fn all(self, m: __m256) -> bool {
        // SAFETY: `self` proves AVX; no memory is touched.
        unsafe { _mm256_movemask_ps(m) == 0xff }
    }
    #[inline(always)]
    fn exponent(self, t: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2; no memory is touched.
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(t))) }
    }
    #[inline(always)]
    fn differences(self, seen: __m256, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2; no memory is touched.
        unsafe {
            let (seen, a, b) = (
                _mm256_castps_si256(seen),
                _mm256_castps_si256(a),
                _mm256_castps_si256(b),
            );
            _mm256_castsi256_ps(_mm256_or_si256(seen, _mm256_xor_si256(a, b)))
        }
    }
    #[inline(always)]
    fn any_bit(self, v: __m256, bits: __m256) -> bool {
        // SAFETY: `self` proves AVX2; no memory is touched.
        unsafe { _mm256_testz_si256(_mm256_castps_si256(v), _mm256_castps_si256(bits)) == 0 }
    }
    #[inline(always)]
    fn splat16(self, x: f32) -> Self::V16 {
        [Simd::<f32>::splat(self, x); 2]
    }

    #[inline(always)]
    fn sums16(self, rows: &[Self::V16; 16]) -> Self::V16 {
        let &[a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7] = rows;
        let (a0, a1) = (self.fours(a0, a4), self.fours(a1, a5));
        let (a2, a3) = (self.fours(a2, a6), self.fours(a3, a7));
        let (b0, b1) = (self.fours(b0, b4), self.fours(b1, b5));
        let (b2, b3) = (self.fours(b2, b6), self.fours(b3, b7));
        [
            self.ones(self.twos(a0, a2), self.twos(a1, a3)),
            self.ones(self.twos(b0, b2), self.twos(b1, b3)),
        ]
    }
}

/// The rounds of `sums16`: each adds halves of two rows at once, so 30 additions do instead of 120. A lane whose number
/// has the bit 4, 2 or 1 of the round takes from `b`, so that lane l ends with row l. Blends leave the shuffle port free.
impl Avx2 {
    #[inline(always)]
    fn fours(self, [a0, a1]: [__m256; 2], [b0, b1]: [__m256; 2]) -> __m256 {
        // SAFETY: `self` proves AVX; no memory is touched.
        unsafe {
            let (a, b) = (_mm256_add_ps(a0, a1), _mm256_add_ps(b0, b1));
            _mm256_add_ps(_mm256_blend_ps::<0xf0>(a, b), _mm256_permute2f128_ps::<0x21>(a, b))
        }
    }
    #[inline(always)]
    fn twos(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX; no memory is touched.
        unsafe { _mm256_add_ps(_mm256_blend_ps::<0xcc>(a, b), _mm256_shuffle_ps::<0x4e>(a, b)) }
    }
    #[inline(always)]
    fn ones(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX; no memory is touched.
        unsafe {
            let (own, other) = (_mm256_blend_ps::<0xaa>(a, b), _mm256_blend_ps::<0xaa>(b, a));
            _mm256_add_ps(own, _mm256_permute_ps::<0xb1>(other))
        }
    }
}

impl Widen for Avx2 {
    /// In integers, as `half::f32_from_f16`: F16C is a feature of its own that nothing else here needs.
    #[inline(always)]
    fn load_f16(self, p: &[u16]) -> __m256 {
        match p.first_chunk::<8>() {
            // SAFETY: eight halves, any alignment; `self` proves AVX2.
            Some(p) => unsafe {
                let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.as_ptr().cast()));
                let magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fff));
                let sign = _mm256_slli_epi32::<16>(_mm256_xor_si256(bits, magnitude));
                let moved = _mm256_castsi256_ps(_mm256_slli_epi32::<13>(magnitude));
                let scaled = _mm256_mul_ps(moved, _mm256_set1_ps(crate::half::APART));
                let special = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7bff));
                let nan = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7c00));
                let special = _mm256_and_si256(special, _mm256_set1_epi32(0x7f80_0000));
                let quiet = _mm256_and_si256(nan, _mm256_set1_epi32(0x0040_0000));
                let rest = _mm256_or_si256(sign, _mm256_or_si256(special, quiet));
                _mm256_or_ps(scaled, _mm256_castsi256_ps(rest))
            },
            None => Simd::<f32>::splat(self, 0.0),
        }
    }
    #[inline(always)]
    fn load_bf16(self, p: &[u16]) -> __m256 {
        match p.first_chunk::<8>() {
            // SAFETY: eight halves, any alignment; `self` proves AVX2.
            Some(p) => unsafe {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.as_ptr().cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            },
            None => Simd::<f32>::splat(self, 0.0),
        }
    }
    #[inline(always)]
    fn load_i8(self, p: &[i8]) -> __m256 {
        match p.first_chunk::<8>() {
            // SAFETY: eight bytes, any alignment; `self` proves AVX2.
            Some(p) => unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.as_ptr().cast()))) },
            None => Simd::<f32>::splat(self, 0.0),
        }
    }
}

impl Simd<f64> for Avx2 {
    type V = __m256d;
    type M = __m256d;
    type V16 = [__m256d; 4];

    const LANES: usize = 4;
    const FUSED: bool = true;
    const REGISTERS: usize = 16;

    ops! {
        splat(x: f64) -> __m256d = _mm256_set1_pd;
        add(a: __m256d, b: __m256d) -> __m256d = _mm256_add_pd;
        sub(a: __m256d, b: __m256d) -> __m256d = _mm256_sub_pd;
        mul(a: __m256d, b: __m256d) -> __m256d = _mm256_mul_pd;
        div(a: __m256d, b: __m256d) -> __m256d = _mm256_div_pd;
        mul_add(a: __m256d, b: __m256d, c: __m256d) -> __m256d = _mm256_fmadd_pd;
        max(a: __m256d, b: __m256d) -> __m256d = _mm256_max_pd;
        min(a: __m256d, b: __m256d) -> __m256d = _mm256_min_pd;
        less(a: __m256d, b: __m256d) -> __m256d = _mm256_cmp_pd::<_CMP_LT_OQ>;
        equal(a: __m256d, b: __m256d) -> __m256d = _mm256_cmp_pd::<_CMP_EQ_OQ>;
    }

    #[inline(always)]
    fn load(self, p: &[f64]) -> __m256d {
        match p.first_chunk::<4>() {
            // SAFETY: four doubles, any alignment; `self` proves AVX.
            Some(p) => unsafe { _mm256_loadu_pd(p.as_ptr()) },
            None => Simd::<f64>::splat(self, 0.0),
        }
    }
    #[inline(always)]
    fn store(self, v: __m256d, p: &mut [f64]) {
        if let Some(p) = p.first_chunk_mut::<4>() {
            // SAFETY: four doubles, any alignment; `self` proves AVX.
            unsafe { _mm256_storeu_pd(p.as_mut_ptr(), v) }
        }
    }
    #[inline(always)]
    fn abs(self, a: __m256d) -> __m256d {
        // SAFETY: `self` proves AVX; no memory is touched.
        unsafe { _mm256_andnot_pd(_mm256_set1_pd(-0.0), a) }
    }
    #[inline(always)]
    fn select(self, m: __m256d, a: __m256d, b: __m256d) -> __m256d {
        // SAFETY: `self` proves AVX; no memory is touched.
        unsafe { _mm256_blendv_pd(b, a, m) }
    }
    #[inline(always)]
    fn all(self, m: __m256d) -> bool {
        // SAFETY: `self` proves AVX; no memory is touched.
        unsafe { _mm256_movemask_pd(m) == 0xf }
    }
    #[inline(always)]
    fn exponent(self, t: __m256d) -> __m256d {
        // SAFETY: `self` proves AVX2; no memory is touched.
        unsafe { _mm256_castsi256_pd(_mm256_slli_epi64::<52>(_mm256_castpd_si256(t))) }
    }
    #[inline(always)]
    fn differences(self, seen: __m256d, a: __m256d, b: __m256d) -> __m256d {
        // SAFETY: `self` proves AVX2; no memory is touched.
        unsafe {
            let (seen, a, b) = (
                _mm256_castpd_si256(seen),
                _mm256_castpd_si256(a),
                _mm256_castpd_si256(b),
            );
            _mm256_castsi256_pd(_mm256_or_si256(seen, _mm256_xor_si256(a, b)))
        }
    }
    #[inline(always)]
    fn any_bit(self, v: __m256d, bits: __m256d) -> bool {
        // SAFETY: `self` proves AVX2; no memory is touched.
        unsafe { _mm256_testz_si256(_mm256_castpd_si256(v), _mm256_castpd_si256(bits)) == 0 }
    }
    #[inline(always)]
    fn splat16(self, x: f64) -> Self::V16 {
        [Simd::<f64>::splat(self, x); 4]
    }
}

//! AVX-512 (F, DQ, BW, VL): sixteen lanes of f32, eight of f64.
#![allow(unsafe_code)]

use super::avx2::ops;
use super::{Simd, Widen};
use core::arch::x86_64::*;

/// Proof that this CPU has AVX-512 F, DQ, BW and VL, AVX2 and FMA. Only `detect` makes one.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

cpufeatures::new!(avx512_set, "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx2", "fma");

impl Avx512 {
    /// The token, where the CPU and the operating system support it.
    #[must_use]
    pub fn detect() -> Option<Self> {
        avx512_set::get().then_some(Avx512(()))
    }
}

/// The truth table of `a | (b ^ c)`.
const OR_XOR: i32 = 0xf6;

impl Simd<f32> for Avx512 {
    type V = __m512;
    type M = __mmask16;
    type V16 = [__m512; 1];

    const LANES: usize = 16;
    const FUSED: bool = true;
    const REGISTERS: usize = 32;

    ops! {
        splat(x: f32) -> __m512 = _mm512_set1_ps;
        add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps;
        sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps;
        mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps;
        div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps;
        mul_add(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps;
        max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps;
        min(a: __m512, b: __m512) -> __m512 = _mm512_min_ps;
        abs(a: __m512) -> __m512 = _mm512_abs_ps;
        less(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_LT_OQ>;
        equal(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>;
    }

    #[inline(always)]
    fn load(self, p: &[f32]) -> __m512 {
        match p.first_chunk::<16>() {
            // SAFETY: sixteen floats, any alignment; `self` proves AVX-512.
            Some(p) => unsafe { _mm512_loadu_ps(p.as_ptr()) },
            None => Simd::<f32>::splat(self, 0.0),
        }
    }
    #[inline(always)]
    fn store(self, v: __m512, p: &mut [f32]) {
        if let Some(p) = p.first_chunk_mut::<16>() {
            // SAFETY: sixteen floats, any alignment; `self` proves AVX-512.
            unsafe { _mm512_storeu_ps(p.as_mut_ptr(), v) }
        }
    }
    #[inline(always)]
    fn load_part(self, p: &[f32], fill: f32) -> __m512 {
        let mask = if p.len() < 16 { (1 << p.len()) - 1 } else { 0xffff };
        // SAFETY: only lanes of the mask are read, and `p` has those; `self` proves AVX-512.
        unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), mask, p.as_ptr()) }
    }
    #[inline(always)]
    fn select(self, m: __mmask16, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512; no memory is touched.
        unsafe { _mm512_mask_blend_ps(m, b, a) }
    }
    #[inline(always)]
    fn all(self, m: __mmask16) -> bool {
        m == 0xffff
    }
    #[inline(always)]
    fn exponent(self, t: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512; no memory is touched.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(t))) }
    }
    #[inline(always)]
    fn differences(self, seen: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512; no memory is touched.
        unsafe {
            let (seen, a, b) = (
                _mm512_castps_si512(seen),
                _mm512_castps_si512(a),
                _mm512_castps_si512(b),
            );
            _mm512_castsi512_ps(_mm512_ternarylogic_epi32::<OR_XOR>(seen, a, b))
        }
    }
    #[inline(always)]
    fn any_bit(self, v: __m512, bits: __m512) -> bool {
        // SAFETY: `self` proves AVX-512; no memory is touched.
        unsafe { _mm512_test_epi32_mask(_mm512_castps_si512(v), _mm512_castps_si512(bits)) != 0 }
    }
    #[inline(always)]
    fn splat16(self, x: f32) -> Self::V16 {
        [Simd::<f32>::splat(self, x)]
    }

    #[inline(always)]
    fn sums16(self, rows: &[Self::V16; 16]) -> Self::V16 {
        let &[[a0], [a1], [a2], [a3], [a4], [a5], [a6], [a7], [a8], [a9], [a10], [a11], [a12], [a13], [a14], [a15]] =
            rows;
        let (b0, b4) = (self.eights(a0, a8), self.eights(a4, a12));
        let (b2, b6) = (self.eights(a2, a10), self.eights(a6, a14));
        let (b1, b5) = (self.eights(a1, a9), self.eights(a5, a13));
        let (b3, b7) = (self.eights(a3, a11), self.eights(a7, a15));
        let even = self.twos(self.fours(b0, b4), self.fours(b2, b6));
        let odd = self.twos(self.fours(b1, b5), self.fours(b3, b7));
        [self.ones(even, odd)]
    }
}

/// The rounds of `sums16`: each adds halves of two vectors at once, so 15 additions do instead of 60. A lane whose number
/// has the bit 8, 4, 2 or 1 of the round takes from `b`, so that lane l ends with row l. Blends leave the shuffle port
/// free.
impl Avx512 {
    #[inline(always)]
    fn eights(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512; no memory is touched.
        unsafe { _mm512_add_ps(_mm512_mask_blend_ps(0xff00, a, b), _mm512_shuffle_f32x4::<0x4e>(a, b)) }
    }
    #[inline(always)]
    fn fours(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512; no memory is touched.
        unsafe {
            let (own, other) = (_mm512_mask_blend_ps(0xf0f0, a, b), _mm512_mask_blend_ps(0xf0f0, b, a));
            _mm512_add_ps(own, _mm512_shuffle_f32x4::<0xb1>(other, other))
        }
    }
    #[inline(always)]
    fn twos(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512; no memory is touched.
        unsafe { _mm512_add_ps(_mm512_mask_blend_ps(0xcccc, a, b), _mm512_shuffle_ps::<0x4e>(a, b)) }
    }
    #[inline(always)]
    fn ones(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512; no memory is touched.
        unsafe {
            let (own, other) = (_mm512_mask_blend_ps(0xaaaa, a, b), _mm512_mask_blend_ps(0xaaaa, b, a));
            _mm512_add_ps(own, _mm512_permute_ps::<0xb1>(other))
        }
    }
}

impl Widen for Avx512 {
    #[inline(always)]
    fn load_f16(self, p: &[u16]) -> __m512 {
        match p.first_chunk::<16>() {
            // SAFETY: sixteen halves, any alignment; `self` proves AVX-512.
            Some(p) => unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.as_ptr().cast())) },
            None => Simd::<f32>::splat(self, 0.0),
        }
    }
    #[inline(always)]
    fn load_bf16(self, p: &[u16]) -> __m512 {
        match p.first_chunk::<16>() {
            // SAFETY: sixteen halves, any alignment; `self` proves AVX-512.
            Some(p) => unsafe {
                let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.as_ptr().cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
            },
            None => Simd::<f32>::splat(self, 0.0),
        }
    }
    #[inline(always)]
    fn load_i8(self, p: &[i8]) -> __m512 {
        match p.first_chunk::<16>() {
            // SAFETY: sixteen bytes, any alignment; `self` proves AVX-512.
            Some(p) => unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.as_ptr().cast()))) },
            None => Simd::<f32>::splat(self, 0.0),
        }
    }
}

impl Simd<f64> for Avx512 {
    type V = __m512d;
    type M = __mmask8;
    type V16 = [__m512d; 2];

    const LANES: usize = 8;
    const FUSED: bool = true;
    const REGISTERS: usize = 32;

    ops! {
        splat(x: f64) -> __m512d = _mm512_set1_pd;
        add(a: __m512d, b: __m512d) -> __m512d = _mm512_add_pd;
        sub(a: __m512d, b: __m512d) -> __m512d = _mm512_sub_pd;
        mul(a: __m512d, b: __m512d) -> __m512d = _mm512_mul_pd;
        div(a: __m512d, b: __m512d) -> __m512d = _mm512_div_pd;
        mul_add(a: __m512d, b: __m512d, c: __m512d) -> __m512d = _mm512_fmadd_pd;
        max(a: __m512d, b: __m512d) -> __m512d = _mm512_max_pd;
        min(a: __m512d, b: __m512d) -> __m512d = _mm512_min_pd;
        abs(a: __m512d) -> __m512d = _mm512_abs_pd;
        less(a: __m512d, b: __m512d) -> __mmask8 = _mm512_cmp_pd_mask::<_CMP_LT_OQ>;
        equal(a: __m512d, b: __m512d) -> __mmask8 = _mm512_cmp_pd_mask::<_CMP_EQ_OQ>;
    }

    #[inline(always)]
    fn load(self, p: &[f64]) -> __m512d {
        match p.first_chunk::<8>() {
            // SAFETY: eight doubles, any alignment; `self` proves AVX-512.
            Some(p) => unsafe { _mm512_loadu_pd(p.as_ptr()) },
            None => Simd::<f64>::splat(self, 0.0),
        }
    }
    #[inline(always)]
    fn store(self, v: __m512d, p: &mut [f64]) {
        if let Some(p) = p.first_chunk_mut::<8>() {
            // SAFETY: eight doubles, any alignment; `self` proves AVX-512.
            unsafe { _mm512_storeu_pd(p.as_mut_ptr(), v) }
        }
    }
    #[inline(always)]
    fn select(self, m: __mmask8, a: __m512d, b: __m512d) -> __m512d {
        // SAFETY: `self` proves AVX-512; no memory is touched.
        unsafe { _mm512_mask_blend_pd(m, b, a) }
    }
    #[inline(always)]
    fn all(self, m: __mmask8) -> bool {
        m == 0xff
    }
    #[inline(always)]
    fn exponent(self, t: __m512d) -> __m512d {
        // SAFETY: `self` proves AVX-512; no memory is touched.
        unsafe { _mm512_castsi512_pd(_mm512_slli_epi64::<52>(_mm512_castpd_si512(t))) }
    }
    #[inline(always)]
    fn differences(self, seen: __m512d, a: __m512d, b: __m512d) -> __m512d {
        // SAFETY: `self` proves AVX-512; no memory is touched.
        unsafe {
            let (seen, a, b) = (
                _mm512_castpd_si512(seen),
                _mm512_castpd_si512(a),
                _mm512_castpd_si512(b),
            );
            _mm512_castsi512_pd(_mm512_ternarylogic_epi64::<OR_XOR>(seen, a, b))
        }
    }
    #[inline(always)]
    fn any_bit(self, v: __m512d, bits: __m512d) -> bool {
        // SAFETY: `self` proves AVX-512; no memory is touched.
        unsafe { _mm512_test_epi64_mask(_mm512_castpd_si512(v), _mm512_castpd_si512(bits)) != 0 }
    }
    #[inline(always)]
    fn splat16(self, x: f64) -> Self::V16 {
        [Simd::<f64>::splat(self, x); 2]
    }
}

//! Vectors of f32 from numbers that are stored in less: f16, bf16, small integers. Exact, so the same bits everywhere.

use super::Simd;
use crate::half::{f32_from_bf16, f32_from_f16};

/// Loads that widen. As all loads they are total: a slice that is too short reads as zeros.
pub trait Widen: Simd<f32> {
    /// The first lanes of `p`, which holds f16.
    #[inline(always)]
    fn load_f16(self, p: &[u16]) -> Self::V {
        let mut whole = [0.0; 16];
        if let Some(p) = p.get(..Self::LANES) {
            whole.iter_mut().zip(p).for_each(|(x, &bits)| *x = f32_from_f16(bits));
        }
        self.load(&whole)
    }

    /// The first lanes of `p`, which holds bf16.
    #[inline(always)]
    fn load_bf16(self, p: &[u16]) -> Self::V {
        let mut whole = [0.0; 16];
        if let Some(p) = p.get(..Self::LANES) {
            whole.iter_mut().zip(p).for_each(|(x, &bits)| *x = f32_from_bf16(bits));
        }
        self.load(&whole)
    }

    /// The first lanes of `p`.
    #[inline(always)]
    fn load_i8(self, p: &[i8]) -> Self::V {
        let mut whole = [0.0; 16];
        if let Some(p) = p.get(..Self::LANES) {
            whole.iter_mut().zip(p).for_each(|(x, &n)| *x = f32::from(n));
        }
        self.load(&whole)
    }
}

/// What kernels that read rows are generic over: a form in which numbers are stored.
pub trait Stored {
    /// One number in memory.
    type Bits: Copy + Default;

    /// The first lanes of `p`; zeros if it is too short.
    fn load<S: Widen>(s: S, p: &[Self::Bits]) -> S::V;

    /// As many lanes as `p` has, the rest 0.
    #[inline(always)]
    fn load_part<S: Widen>(s: S, p: &[Self::Bits]) -> S::V {
        let mut whole = [Self::Bits::default(); 16];
        whole.iter_mut().zip(p).for_each(|(to, &x)| *to = x);
        Self::load(s, &whole)
    }

    /// The first sixteen numbers of `p`.
    #[inline(always)]
    fn load16<S: Widen>(s: S, p: &[Self::Bits]) -> S::V16 {
        let mut v = s.splat16(0.0);
        for (v, p) in v.as_mut().iter_mut().zip(p.chunks_exact(S::LANES)) {
            *v = Self::load(s, p);
        }
        v
    }
}

/// f32 as it is.
pub struct F32;
/// f16, as bits.
pub struct F16;
/// bf16, as bits.
pub struct Bf16;
/// Integers; the scale of their row is applied elsewhere.
pub struct I8;

impl Stored for F32 {
    type Bits = f32;

    #[inline(always)]
    fn load<S: Widen>(s: S, p: &[f32]) -> S::V {
        s.load(p)
    }
    #[inline(always)]
    fn load_part<S: Widen>(s: S, p: &[f32]) -> S::V {
        s.load_part(p, 0.0)
    }
    #[inline(always)]
    fn load16<S: Widen>(s: S, p: &[f32]) -> S::V16 {
        s.load16(p)
    }
}

impl Stored for F16 {
    type Bits = u16;

    #[inline(always)]
    fn load<S: Widen>(s: S, p: &[u16]) -> S::V {
        s.load_f16(p)
    }
}

impl Stored for Bf16 {
    type Bits = u16;

    #[inline(always)]
    fn load<S: Widen>(s: S, p: &[u16]) -> S::V {
        s.load_bf16(p)
    }
}

impl Stored for I8 {
    type Bits = i8;

    #[inline(always)]
    fn load<S: Widen>(s: S, p: &[i8]) -> S::V {
        s.load_i8(p)
    }
}

//! Any back end without fusing: the bits of the smallest machine, at nearly the speed of this one.

use super::{Simd, Widen};
use crate::real::Real;

/// `S`, with `mul_add` split into a multiplication and an addition.
#[derive(Clone, Copy, Debug)]
pub struct Strict<S>(pub S);

macro_rules! forward {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $ret:ty;)+) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) -> $ret {
            self.0.$name($($arg),*)
        }
    )+};
}

impl<T: Real, S: Simd<T>> Simd<T> for Strict<S> {
    type V = S::V;
    type M = S::M;
    type V16 = S::V16;

    const LANES: usize = S::LANES;
    const FUSED: bool = false;
    const REGISTERS: usize = S::REGISTERS;

    #[inline(always)]
    fn mul_add(self, a: S::V, b: S::V, c: S::V) -> S::V {
        self.0.add(self.0.mul(a, b), c)
    }

    #[inline(always)]
    fn load_part(self, p: &[T], fill: T) -> S::V {
        self.0.load_part(p, fill)
    }

    #[inline(always)]
    fn store(self, v: S::V, p: &mut [T]) {
        self.0.store(v, p);
    }

    forward! {
        splat(x: T) -> S::V;
        load(p: &[T]) -> S::V;
        add(a: S::V, b: S::V) -> S::V;
        sub(a: S::V, b: S::V) -> S::V;
        mul(a: S::V, b: S::V) -> S::V;
        div(a: S::V, b: S::V) -> S::V;
        max(a: S::V, b: S::V) -> S::V;
        min(a: S::V, b: S::V) -> S::V;
        abs(a: S::V) -> S::V;
        less(a: S::V, b: S::V) -> S::M;
        equal(a: S::V, b: S::V) -> S::M;
        select(m: S::M, a: S::V, b: S::V) -> S::V;
        all(m: S::M) -> bool;
        exponent(t: S::V) -> S::V;
        differences(seen: S::V, a: S::V, b: S::V) -> S::V;
        any_bit(v: S::V, bits: S::V) -> bool;
        splat16(x: T) -> S::V16;
        sums16(rows: &[S::V16; 16]) -> S::V16;
    }
}

impl<S: Widen> Widen for Strict<S> {
    #[inline(always)]
    fn load_f16(self, p: &[u16]) -> S::V {
        self.0.load_f16(p)
    }
    #[inline(always)]
    fn load_bf16(self, p: &[u16]) -> S::V {
        self.0.load_bf16(p)
    }
    #[inline(always)]
    fn load_i8(self, p: &[i8]) -> S::V {
        self.0.load_i8(p)
    }
}

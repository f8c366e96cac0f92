//! exp and tanh, and what softmax uses in their place: 2^r. One formula for every back end.
//!
//! Largest errors over all f32 inputs: exp 0.79 ULP (0.66 where the result is normal), tanh 2.0 ULP, 2^r relative
//! 1.63e-7.

use crate::math::poly::{EXP, LN2_HIGH, LN2_LOW, LN2_MIDDLE, LN2_TINY, LOG2_E, WEIGHT};
use crate::real::Real;
use crate::simd::Simd;

/// Horner's rule; the constant term comes first.
#[inline(always)]
fn horner<S: Simd<f32>, const N: usize>(s: S, coefficients: &[f32; N], x: S::V) -> S::V {
    let mut powers = coefficients.iter().rev();
    let mut p = s.splat(powers.next().map_or(0.0, |&c| c));
    for &c in powers {
        p = s.mul_add(p, x, s.splat(c));
    }
    p
}

/// 2^r for |r| <= 1/2; 1 at 0, and never on the wrong side of 1.
#[inline(always)]
pub fn power<S: Simd<f32>>(s: S, r: S::V) -> S::V {
    horner(s, &WEIGHT, r)
}

/// e^x over all of f32, gradual underflow included; NaN becomes the canonical NaN.
///
/// Do not simplify the order of the additions: several form error-free transformations.
#[inline(always)]
pub fn exp<S: Simd<f32>>(s: S, x: S::V) -> S::V {
    let (one, magic) = (s.splat(1.0), s.splat(f32::MAGIC));
    // The ends of the clamp already give infinity and 0; NaN passes both and is replaced at the end.
    let a = s.max(s.splat(-105.0), s.min(s.splat(89.0), x));
    let n = s.sub(s.mul_add(a, s.splat(LOG2_E), magic), magic);

    // a - n ln 2 = high + low, ln 2 being split in three. n LN2_HIGH and n LN2_MIDDLE are exact (8 + 15 and 8 + 2
    // bits), and so are both subtractions (multiples of 2^-25 below 1/2), so `high` has no error in either class.
    let high = s.mul_add(n, s.splat(-LN2_HIGH), a);
    let high = s.mul_add(n, s.splat(-LN2_MIDDLE), high);
    let low = s.mul(n, s.splat(-LN2_TINY));

    // e^high = 1 + high + curve, curve = high^2 q(high) <= 0.07: its rounding errors hardly count.
    let curve = s.mul(s.mul(high, high), horner(s, &EXP, high));
    // 1 + high = lead + rest exactly, as |high| < 1.
    let lead = s.add(one, high);
    let rest = s.sub(high, s.sub(lead, one));
    // e^(high + low) = e^high (1 + low), and low needs no accurate factor. One rounding that matters: the last.
    let tail = s.mul_add(low, s.add(lead, curve), curve);
    let p = s.add(lead, s.add(rest, tail));

    // 2^n in two factors, as n runs from -151 to 128. The first product is exact; the second rounds only where the
    // result is subnormal, or overflows.
    let half = s.mul_add(n, s.splat(0.5), magic);
    let other = s.add(s.sub(n, s.sub(half, magic)), magic);
    let y = s.mul(s.mul(p, s.exponent(half)), s.exponent(other));
    s.select(s.equal(x, x), y, s.splat(f32::NAN))
}

/// tanh x over all of f32, odd bit for bit; NaN becomes the canonical NaN.
///
/// With e = exp(-2|x|) - 1 in (-1, 0], tanh|x| = -e / (2 + e): no cancellation, no overflow, no cases.
#[inline(always)]
pub fn tanh<S: Simd<f32>>(s: S, x: S::V) -> S::V {
    let (one, magic) = (s.splat(1.0), s.splat(f32::MAGIC));
    // Beyond 10 the result is 1 (it is from 9.01 on). NaN passes.
    let a = s.max(s.splat(-20.0), s.mul(s.abs(x), s.splat(-2.0)));
    let t = s.mul_add(a, s.splat(LOG2_E), magic);
    let n = s.sub(t, magic);
    let r = s.mul_add(n, s.splat(-LN2_HIGH), a);
    let r = s.mul_add(n, s.splat(-LN2_LOW), r);
    // m = e^r - 1, accurate relative to itself down to r = 0.
    let m = s.mul_add(s.mul(r, r), horner(s, &EXP, r), r);
    // e = 2^n m + (2^n - 1). The denominator is formed from m too, to save it a rounding.
    let p = s.exponent(t);
    let e = s.mul_add(m, p, s.sub(p, one));
    let d = s.mul_add(m, p, s.add(p, one));
    let y = s.div(e, d);
    let y = s.select(s.less(x, s.splat(0.0)), y, s.mul(y, s.splat(-1.0)));
    let y = s.select(s.equal(x, s.splat(0.0)), x, y);
    s.select(s.equal(x, x), y, s.splat(f32::NAN))
}

/// A function of one vector. A trait and not a closure: a closure cannot be told to be inlined, and out of line it loses
/// the target features, so that every instruction becomes a call.
trait Function {
    fn at<S: Simd<f32>>(s: S, x: S::V) -> S::V;
}

struct Exp;
struct Tanh;

impl Function for Exp {
    #[inline(always)]
    fn at<S: Simd<f32>>(s: S, x: S::V) -> S::V {
        exp(s, x)
    }
}

impl Function for Tanh {
    #[inline(always)]
    fn at<S: Simd<f32>>(s: S, x: S::V) -> S::V {
        tanh(s, x)
    }
}

/// `y[i] = exp(x[i])` over the shorter length.
#[inline(always)]
pub fn exp_row<S: Simd<f32>>(s: S, x: &[f32], y: &mut [f32]) {
    map::<S, Exp>(s, x, y);
}

/// `y[i] = tanh(x[i])` over the shorter length.
#[inline(always)]
pub fn tanh_row<S: Simd<f32>>(s: S, x: &[f32], y: &mut [f32]) {
    map::<S, Tanh>(s, x, y);
}

/// Vector by vector; the last one is filled up with zeros, so that no function needs a second form.
#[inline(always)]
fn map<S: Simd<f32>, F: Function>(s: S, x: &[f32], y: &mut [f32]) {
    let n = x.len().min(y.len());
    let (x, y) = (x.get(..n).unwrap_or(&[]), y.get_mut(..n).unwrap_or(&mut []));
    let (xs, mut ys) = (x.chunks_exact(S::LANES), y.chunks_exact_mut(S::LANES));
    let rest = xs.remainder();
    for (x, y) in xs.zip(ys.by_ref()) {
        s.store(F::at(s, s.load(x)), y);
    }
    if !rest.is_empty() {
        s.store_part(F::at(s, s.load_part(rest, 0.0)), ys.into_remainder());
    }
}

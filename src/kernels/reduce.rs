//! Sums over a slice.

use crate::real::Real;
use crate::simd::Simd;

/// Sum of `x[i] * y[i]` over the shorter length.
///
/// Sixteen running sums, then halves added to halves: the order is the same on every machine.
/// Error: at most `gamma(ceil(n / 16) + 5) * sum |x[i] y[i]|`.
#[inline(always)]
pub fn dot<T: Real, S: Simd<T>>(s: S, x: &[T], y: &[T]) -> T {
    let mut acc = s.splat16(T::ZERO);
    let n = x.len().min(y.len());
    let (x, y) = (x.get(..n).unwrap_or(&[]), y.get(..n).unwrap_or(&[]));
    let (xs, ys) = (x.chunks_exact(16), y.chunks_exact(16));
    let (xt, yt) = (xs.remainder(), ys.remainder());
    for (x, y) in xs.zip(ys) {
        acc = s.mul_add16(s.load16(x), s.load16(y), acc);
    }
    // The tail is a block whose missing terms are zero, so it adds in the same order too.
    if !xt.is_empty() {
        let (mut xp, mut yp) = ([T::ZERO; 16], [T::ZERO; 16]);
        xp.iter_mut().zip(xt).for_each(|(p, &x)| *p = x);
        yp.iter_mut().zip(yt).for_each(|(p, &y)| *p = y);
        acc = s.mul_add16(s.load16(&xp), s.load16(&yp), acc);
    }
    s.sum16(acc)
}

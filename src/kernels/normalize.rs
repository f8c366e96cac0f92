//! Softmax of a plain row, outside attention.

use super::elementary::exp;
use crate::simd::Simd;

/// `y[i] = exp(x[i] - max x) / sum of these`, over the shorter length.
///
/// Minus infinity has probability 0; a row of nothing else is all zeros. NaN or infinity anywhere makes the whole row the
/// canonical NaN. The sum runs in sixteen lanes and a halving tree.
#[inline(always)]
pub fn softmax<S: Simd<f32>>(s: S, x: &[f32], y: &mut [f32]) {
    let n = x.len().min(y.len());
    let (x, y) = (x.get(..n).unwrap_or(&[]), y.get_mut(..n).unwrap_or(&mut []));
    let mut max = f32::NEG_INFINITY;
    for &x in x {
        max = if x > max || x.is_nan() { x } else { max };
    }
    if max == f32::NEG_INFINITY {
        y.fill(0.0);
        return;
    }
    let shift = s.splat(max);
    let mut sums = s.splat16(0.0);
    for (x, y) in x.chunks(16).zip(y.chunks_mut(16)) {
        let mut part = [f32::NEG_INFINITY; 16];
        part.iter_mut().zip(x).for_each(|(p, &x)| *p = x);
        let mut e = s.load16(&part);
        for (e, sum) in e.as_mut().iter_mut().zip(sums.as_mut()) {
            *e = exp(s, s.sub(*e, shift));
            *sum = s.add(*sum, *e);
        }
        s.store16(e, &mut part);
        y.iter_mut().zip(part).for_each(|(y, p)| *y = p);
    }
    let sum = s.sum16(sums);
    if !sum.is_finite() {
        y.fill(f32::NAN);
        return;
    }
    let inverse = 1.0 / sum;
    y.iter_mut().for_each(|y| *y *= inverse);
}

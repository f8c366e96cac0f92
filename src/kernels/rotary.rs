//! Pairs of numbers, each turned by an angle of its own. Products are not fused: one result for both classes.

use crate::simd::Simd;

/// `x a + y b`, NaN always the same.
#[inline(always)]
fn sum(x: f32, a: f32, y: f32, b: f32) -> f32 {
    let z = x * a + y * b;
    if z.is_nan() {
        f32::NAN
    } else {
        z
    }
}

/// `(x, y)` turned.
#[inline(always)]
fn turned(x: f32, y: f32, cos: f32, sin: f32) -> [f32; 2] {
    [sum(x, cos, y, -sin), sum(x, sin, y, cos)]
}

/// Number i of `x` with number i of `y`, over the shortest length.
#[inline(always)]
pub fn turn_halves<S: Simd<f32>>(_: S, x: &mut [f32], y: &mut [f32], cos: &[f32], sin: &[f32]) {
    let pairs = x.iter_mut().zip(y);
    for ((x, y), (&cos, &sin)) in pairs.zip(cos.iter().zip(sin)) {
        [*x, *y] = turned(*x, *y, cos, sin);
    }
}

/// Number 2i with number 2i + 1, over the shortest length.
#[inline(always)]
pub fn turn_neighbours<S: Simd<f32>>(_: S, row: &mut [f32], cos: &[f32], sin: &[f32]) {
    let pairs = row.as_chunks_mut::<2>().0.iter_mut();
    for ([x, y], (&cos, &sin)) in pairs.zip(cos.iter().zip(sin)) {
        [*x, *y] = turned(*x, *y, cos, sin);
    }
}

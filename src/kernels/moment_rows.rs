//! What is asked of the caller's rows before they are pushed: whether they are finite, how far apart, how long. Lanes are
//! columns.

use crate::simd::Simd;
use crate::view::MatRef;

/// Whether all numbers are finite.
#[inline(always)]
pub fn all_finite<S: Simd<f32>>(s: S, rows: MatRef<'_, f32>) -> bool {
    // Adding up zeros: what is not finite, times zero, is NaN and stays it.
    let mut zero = s.splat(0.0);
    for i in 0..rows.rows() {
        let whole = rows.row(i).chunks_exact(S::LANES);
        let rest = whole.remainder();
        for part in whole {
            zero = s.add(zero, s.mul(s.load(part), s.splat(0.0)));
        }
        if !rest.is_empty() {
            zero = s.add(zero, s.mul(s.load_part(rest, 0.0), s.splat(0.0)));
        }
    }
    s.all(s.equal(zero, s.splat(0.0)))
}

/// `low[c] = min(low[c], rows[i][c])`, `high[c] = max(high[c], rows[i][c])` for all rows.
#[inline(always)]
pub fn widen<S: Simd<f32>>(s: S, rows: MatRef<'_, f32>, low: &mut [f32], high: &mut [f32]) {
    let parts = low.chunks_mut(S::LANES).zip(high.chunks_mut(S::LANES));
    for (n, (low, high)) in parts.enumerate() {
        let columns = rows.col_range(n * S::LANES..rows.cols());
        let (mut least, mut most) = (s.load_part(low, 0.0), s.load_part(high, 0.0));
        for i in 0..columns.rows() {
            let x = s.load_part(columns.row(i), 0.0);
            least = s.min(x, least);
            most = s.max(x, most);
        }
        s.store_part(least, low);
        s.store_part(most, high);
    }
}

/// The squared norms of `x = (k - centre) * inverse` for up to sixteen keys, 0 beyond them: sixteen running sums of squares
/// that are rounded by themselves, so that all machines agree which keys are near.
#[inline(always)]
pub fn squares<S: Simd<f32>>(s: S, k: MatRef<'_, f32>, centre: &[f32], inverse: f32, out: &mut [f32; 16]) {
    let mut sums = [s.splat16(0.0); 16];
    let inverse = s.splat(inverse);
    let (whole, rest) = centre.as_chunks::<16>();
    for (i, sum) in sums.iter_mut().enumerate().take(k.rows()) {
        let (parts, tail) = k.row(i).as_chunks::<16>();
        for (k, c) in parts.iter().zip(whole) {
            let parts = k.chunks_exact(S::LANES).zip(c.chunks_exact(S::LANES));
            for (sum, (k, c)) in sum.as_mut().iter_mut().zip(parts) {
                let x = s.mul(s.sub(s.load(k), s.load(c)), inverse);
                *sum = s.add(*sum, s.mul(x, x));
            }
        }
        if !tail.is_empty() {
            let parts = tail.chunks(S::LANES).zip(rest.chunks(S::LANES));
            for (sum, (k, c)) in sum.as_mut().iter_mut().zip(parts) {
                let x = s.mul(s.sub(s.load_part(k, 0.0), s.load_part(c, 0.0)), inverse);
                *sum = s.add(*sum, s.mul(x, x));
            }
        }
    }
    s.store16(s.sums16(&sums), out);
}

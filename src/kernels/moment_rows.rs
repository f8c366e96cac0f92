//! What is asked of the caller's rows before they are pushed: whether they are finite, how far apart, how long. Lanes are
//! columns.

use crate::simd::Simd;
use crate::view::MatRef;

/// Whether all numbers are finite.
#[inline(always)]
pub fn all_finite<S: Simd<f32>>(s: S, rows: MatRef<'_, f32>) -> bool {
    if rows.stride() == rows.cols() {
        // Without gaps it is one long row.
        let all = rows.rows().wrapping_mul(rows.cols());
        return row_is_finite(s, rows.data().get(..all).unwrap_or(&[]));
    }
    for i in 0..rows.rows() {
        if !row_is_finite(s, rows.row(i)) {
            return false;
        }
    }
    true
}

#[inline(always)]
fn row_is_finite<S: Simd<f32>>(s: S, row: &[f32]) -> bool {
    // Adding up zeros: what is not finite, times zero, is NaN and stays it.
    let mut zeros = [s.splat(0.0); 4];
    let whole = row.chunks_exact(4 * S::LANES);
    let mut rest = whole.remainder();
    for part in whole {
        for (zero, part) in zeros.iter_mut().zip(part.chunks_exact(S::LANES)) {
            *zero = s.mul_add(s.load(part), s.splat(0.0), *zero);
        }
    }
    for zero in &mut zeros {
        *zero = s.mul_add(s.load_part(rest, 0.0), s.splat(0.0), *zero);
        rest = rest.get(S::LANES..).unwrap_or(&[]);
    }
    let [a, b, c, d] = zeros;
    s.all(s.equal(s.add(s.add(a, b), s.add(c, d)), s.splat(0.0)))
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
    for (n, c) in centre.chunks(16).enumerate() {
        let (columns, c) = (k.col_range(16 * n..k.cols()), load_part16(s, c));
        for (i, sum) in sums.iter_mut().enumerate() {
            let k = load_part16(s, columns.row(i));
            let parts = k.as_ref().iter().zip(c.as_ref());
            for (sum, (&k, &c)) in sum.as_mut().iter_mut().zip(parts) {
                let x = s.mul(s.sub(k, c), inverse);
                *sum = s.add(*sum, s.mul(x, x));
            }
        }
    }
    // What lies beyond the last key is no key at the origin.
    s.store16(s.sums16(&sums), out);
    out.iter_mut().skip(k.rows()).for_each(|square| *square = 0.0);
}

/// Powers 1, 2, ... of the squared norms of tokens, `sums[i] = sum over tokens of square^(i + 1)`, and the largest square.
///
/// `x` is `[variable][token]`, rows `room` apart, zeros beyond `count`; `squares` and `powers` have room for a row. Sixteen
/// running sums, then halves added to halves, every product rounded by itself.
#[inline(always)]
pub fn powers<S: Simd<f32>>(
    s: S,
    x: &[f32],
    count: usize,
    [squares, powers]: [&mut [f32]; 2],
    sums: &mut [f32],
) -> f32 {
    let room = squares.len().max(1);
    let steps = count.div_ceil(16);
    let (squares, powers) = (squares.as_chunks_mut::<16>().0, powers.as_chunks_mut::<16>().0);
    let mut largest = s.splat16(0.0);
    for (t, (square, power)) in squares.iter_mut().zip(powers.iter_mut()).enumerate().take(steps) {
        let mut sum = s.splat16(0.0);
        for row in x.chunks_exact(room) {
            let x = match row.as_chunks::<16>().0.get(t) {
                Some(x) => s.load16(x),
                None => s.splat16(0.0),
            };
            for (sum, &x) in sum.as_mut().iter_mut().zip(x.as_ref()) {
                *sum = s.add(*sum, s.mul(x, x));
            }
        }
        s.store16(sum, square);
        s.store16(s.splat16(1.0), power);
        for (largest, &sum) in largest.as_mut().iter_mut().zip(sum.as_ref()) {
            *largest = s.max(sum, *largest);
        }
    }
    for to in sums.iter_mut() {
        let mut sum = s.splat16(0.0);
        for (square, power) in squares.iter().zip(powers.iter_mut()).take(steps) {
            let (square, mut next) = (s.load16(square), s.load16(power));
            let parts = next.as_mut().iter_mut().zip(square.as_ref());
            for (sum, (next, &square)) in sum.as_mut().iter_mut().zip(parts) {
                *next = s.mul(*next, square);
                *sum = s.add(*sum, *next);
            }
            s.store16(next, power);
        }
        *to = s.sum16(sum);
    }
    let mut lanes = [0.0f32; 16];
    s.store16(largest, &mut lanes);
    lanes
        .iter()
        .fold(0.0, |largest, &x| if x > largest { x } else { largest })
}

/// The first sixteen numbers, zeros beyond the last.
#[inline(always)]
fn load_part16<S: Simd<f32>>(s: S, p: &[f32]) -> S::V16 {
    let mut v = s.splat16(0.0);
    let mut rest = p;
    for v in v.as_mut() {
        *v = s.load_part(rest, 0.0);
        rest = rest.get(S::LANES..).unwrap_or(&[]);
    }
    v
}

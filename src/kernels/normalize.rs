//! Softmax of one row that lies in memory.

use super::elementary::exp;
use crate::simd::Simd;

/// `row[i] = exp(row[i]) / sum of exp(row[j])`, in place; sixteen running sums, then halves added to halves.
///
/// A row with a NaN or plus infinity becomes canonical NaN, one that is minus infinity throughout becomes zeros (as a
/// query without keys), and an empty one stays. Relative error of an entry, to first order:
/// `(|x - max| + ln n + ceil(n / 16) + 10) 2^-24`, and 2^-149 absolutely: rounding `x - max` shifts an entry by
/// `|x - max|` units and the sum by their weighted mean, which is at most the entropy, `ln n`; exp counts twice 1.6,
/// the sum `ceil(n / 16) + 4`, inverse and product one each.
#[inline(always)]
pub fn softmax<S: Simd<f32>>(s: S, row: &mut [f32]) {
    let max = s.splat(maximum(s, row));
    let mut sums = s.splat16(0.0);
    let mut blocks = row.chunks_exact_mut(16);
    for block in blocks.by_ref() {
        weigh(s, block, max, &mut sums);
    }
    let rest = blocks.into_remainder();
    if !rest.is_empty() {
        let mut block = [f32::NEG_INFINITY; 16];
        block.iter_mut().zip(rest.iter()).for_each(|(b, &x)| *b = x);
        weigh(s, &mut block, max, &mut sums);
        rest.iter_mut().zip(&block).for_each(|(x, &b)| *x = b);
    }
    let sum = s.sum16(sums);
    if sum > 0.0 {
        scale(s, row, 1.0 / sum);
    } else {
        row.fill(if sum == 0.0 { 0.0 } else { f32::NAN });
    }
}

/// The largest number, at least the lowest finite one, so that minus infinity minus it is not NaN. What a NaN hides here
/// the sum shows.
#[inline(always)]
fn maximum<S: Simd<f32>>(s: S, row: &[f32]) -> f32 {
    let mut high = s.splat(-f32::MAX);
    let parts = row.chunks_exact(S::LANES);
    let rest = parts.remainder();
    for part in parts {
        high = s.max(s.load(part), high);
    }
    high = s.max(s.load_part(rest, -f32::MAX), high);
    let mut lanes = [-f32::MAX; 16];
    s.store(high, &mut lanes);
    lanes.iter().fold(-f32::MAX, |max, &x| if x > max { x } else { max })
}

/// Sixteen numbers into weights, added to their sums.
#[inline(always)]
fn weigh<S: Simd<f32>>(s: S, block: &mut [f32], max: S::V, sums: &mut S::V16) {
    for (sum, part) in sums.as_mut().iter_mut().zip(block.chunks_exact_mut(S::LANES)) {
        let p = exp(s, s.sub(s.load(part), max));
        *sum = s.add(*sum, p);
        s.store(p, part);
    }
}

#[inline(always)]
fn scale<S: Simd<f32>>(s: S, row: &mut [f32], factor: f32) {
    let factor = s.splat(factor);
    let mut parts = row.chunks_exact_mut(S::LANES);
    for part in parts.by_ref() {
        s.store(s.mul(s.load(part), factor), part);
    }
    let rest = parts.into_remainder();
    let last = s.mul(s.load_part(rest, 0.0), factor);
    s.store_part(last, rest);
}

#[cfg(test)]
mod tests {
    use crate::kernels::softmax;
    use crate::simd::Isa;
    use std::vec::Vec;

    /// Numbers between -1 and 1.
    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let hash = |i: usize| {
            (i as u32)
                .wrapping_mul(747_796_405)
                .wrapping_add(seed)
                .wrapping_mul(2_891_336_453)
        };
        (0..n).map(|i| (hash(i) >> 8) as f32 / 8_388_608.0 - 1.0).collect()
    }

    #[test]
    fn every_entry_keeps_its_promise_and_every_back_end_gives_the_bits_of_its_class() {
        let sizes = (0..70).chain([127, 1000]);
        for (n, spread) in sizes.flat_map(|n| [0.5f32, 20.0, 120.0].map(|s| (n, s))) {
            let x: Vec<f32> = numbers(n, n as u32).iter().map(|x| x * spread + 3.0 * spread).collect();
            let max = x.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(f64::from(x)));
            let exact: Vec<f64> = x.iter().map(|&x| (f64::from(x) - max).exp()).collect();
            let sum: f64 = exact.iter().sum();
            let mut classes: [Option<Vec<u32>>; 2] = [None, None];
            for isa in Isa::all() {
                let mut row = x.clone();
                softmax(isa, &mut row);
                for ((&p, &x), &w) in row.iter().zip(&x).zip(&exact) {
                    // The documented error; second-order terms are below 1e-4 of it, as it stays below 1e-4.
                    let units = (max - f64::from(x)) + (n as f64).ln() + (n as f64 / 16.0).ceil() + 10.0;
                    let allowed = w / sum * units * 2f64.powi(-24) * 1.001 + 2f64.powi(-149);
                    assert!(
                        (f64::from(p) - w / sum).abs() <= allowed,
                        "{} n {n} x {x}: {p}",
                        isa.name()
                    );
                }
                let bits: Vec<u32> = row.iter().map(|p| p.to_bits()).collect();
                let first = classes[usize::from(isa.fused())].get_or_insert_with(|| bits.clone());
                assert_eq!(*first, bits, "{} n {n}", isa.name());
            }
        }
    }

    #[test]
    fn specials_are_what_the_documentation_says() {
        const INF: f32 = f32::INFINITY;
        for isa in Isa::all() {
            for (n, at) in [(1, 0), (5, 4), (16, 7), (37, 0), (37, 36)] {
                let run = |special: f32, rest: f32| {
                    let mut row: Vec<f32> = (0..n).map(|i| if i == at { special } else { rest }).collect();
                    softmax(isa, &mut row);
                    row
                };
                for row in [
                    run(f32::NAN, 1.0),
                    run(-f32::NAN, -INF),
                    run(INF, 1.0),
                    run(INF, INF),
                    run(INF, -INF),
                ] {
                    assert!(
                        row.iter().all(|p| p.to_bits() == f32::NAN.to_bits()),
                        "{} {row:?}",
                        isa.name()
                    );
                }
                assert!(run(-INF, -INF).iter().all(|&p| p.to_bits() == 0));
                // One key that counts takes everything, the lowest number included; a difference that overflows is 0.
                for (special, rest) in [(2.0, -INF), (-f32::MAX, -INF), (f32::MAX, -f32::MAX)] {
                    let row = run(special, rest);
                    assert!(
                        row.iter().enumerate().all(|(i, &p)| p == f32::from(u8::from(i == at))),
                        "{row:?}"
                    );
                }
            }
        }
    }
}

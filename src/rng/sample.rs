//! Distributions over a generator.

use super::Philox;
use crate::math;

/// Standard normal numbers, by Marsaglia's polar method in pairs. Exact up to rounding: no table, no approximation of the
/// distribution function.
pub fn normals(rng: &mut Philox, to: &mut [f32]) {
    for pair in to.chunks_mut(2) {
        let (x, y, factor) = loop {
            let (x, y) = (symmetric(rng), symmetric(rng));
            let square = x * x + y * y;
            if square < 1.0 && square > 0.0 {
                break (x, y, math::sqrt(-2.0 * math::ln(square) / square));
            }
        };
        pair.iter_mut()
            .zip([x * factor, y * factor])
            .for_each(|(to, z)| *to = z);
    }
}

/// Uniform in (-1, 1): odd multiples of 2^-24, so never 0.
fn symmetric(rng: &mut Philox) -> f32 {
    let whole = (rng.word() >> 8) as f32;
    (whole * 2.0 + 1.0) * (1.0 / 16_777_216.0) - 1.0
}

/// `to.len()` different numbers of `0..n`, each set equally likely, in increasing order (Vitter's method A: one pass, no
/// memory). Nothing is written where `n` is smaller than that.
pub fn distinct(rng: &mut Philox, n: u32, to: &mut [u32]) {
    let Ok(mut wanted) = u32::try_from(to.len()) else {
        return;
    };
    if wanted > n {
        return;
    }
    let mut places = to.iter_mut();
    for i in 0..n {
        if wanted == 0 {
            return;
        }
        if rng.below(n - i) < wanted {
            wanted -= 1;
            if let Some(place) = places.next() {
                *place = i;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{vec, vec::Vec};

    #[test]
    fn normals_have_the_moments_of_a_normal() {
        let mut x = vec![0.0; 200_001];
        normals(&mut Philox::new(3, 0), &mut x);
        let n = x.len() as f64;
        let moment = |k: i32| x.iter().map(|&x| f64::from(x).powi(k)).sum::<f64>() / n;
        // Standard deviations of these means: 1, sqrt 2, sqrt 15, sqrt 96 over sqrt n; five of them.
        let allowed = |sd: f64| 5.0 * sd / n.sqrt();
        assert!(moment(1).abs() < allowed(1.0));
        assert!((moment(2) - 1.0).abs() < allowed(2f64.sqrt()));
        assert!(moment(3).abs() < allowed(15f64.sqrt()));
        assert!((moment(4) - 3.0).abs() < allowed(96f64.sqrt()));
    }

    #[test]
    fn distinct_numbers_are_distinct_and_even() {
        let mut rng = Philox::new(5, 0);
        let mut counts = [0u32; 10];
        for _ in 0..30_000 {
            let mut x = [0; 3];
            distinct(&mut rng, 10, &mut x);
            assert!(x[0] < x[1] && x[1] < x[2] && x[2] < 10);
            x.iter().for_each(|&i| counts[i as usize] += 1);
        }
        let chi: f64 = counts.iter().map(|&c| (f64::from(c) - 9e3).powi(2) / 9e3).sum();
        assert!(chi < 33.7, "{chi}");
        let mut all: Vec<u32> = vec![9; 4];
        distinct(&mut rng, 4, &mut all);
        assert_eq!(all, [0, 1, 2, 3]);
        distinct(&mut rng, 3, &mut all);
        assert_eq!(all, [0, 1, 2, 3]);
    }
}

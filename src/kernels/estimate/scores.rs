//! Scores as their power sums know them, and polynomials of them.

use super::{Keys, Polynomials, Terms, MOST_TERMS, SLACK, TINY_SQUARE};
use crate::bound::gamma;
use crate::kernels::elementary::exp;
use crate::simd::Simd;

/// At least the Euclidean length of each query.
#[inline(always)]
pub(super) fn norm<S: Simd<f32>>(s: S, q_t: &[f32], lanes: usize, at: usize) -> S::V {
    let (mut square, mut dim) = (s.splat(0.0), 0);
    for row in q_t.chunks_exact(lanes.max(1)) {
        let x = s.load(row.get(at..).unwrap_or(&[]));
        square = s.mul_add(x, x, square);
        dim += 1;
    }
    let square = s.mul_add(square, s.splat(1.0 + gamma(dim + 1)), s.splat(TINY_SQUARE));
    // From above, Newton's steps for the root stay above. The start must not depend on the other lanes.
    let mut root = s.add(square, s.splat(1.0));
    for _ in 0..7 {
        root = s.mul(s.splat(0.5), s.add(root, s.div(square, root)));
    }
    s.mul(root, s.splat(SLACK))
}

/// At least `sup |e^s - T(s)| / |s|^(degree + 1)` over `|s| <= reach`: see `moment::series::taylor_rest`.
#[inline(always)]
pub(super) fn taylor_rest<S: Simd<f32>>(s: S, reach: S::V, degree: usize, next: f32) -> S::V {
    let whole = s.splat((degree + 2) as f32);
    let series = s.div(whole, s.sub(whole, reach));
    let growth = s.mul(exp(s, reach), s.splat(SLACK));
    // Where the series does not converge it is negative, infinite or NaN, and the second operand of min is what remains.
    let small = s.select(s.less(reach, whole), s.min(series, growth), growth);
    s.mul(small, s.splat(next * SLACK))
}

/// The power sums of a vector of queries.
pub(super) struct Sums<'a> {
    pub(super) sums: &'a [f32],
    pub(super) lanes: usize,
    pub(super) columns: usize,
    pub(super) at: usize,
    pub(super) terms: usize,
}

impl Sums<'_> {
    /// Of one power and column.
    #[inline(always)]
    pub(super) fn get<S: Simd<f32>>(&self, s: S, power: usize, column: usize) -> S::V {
        s.load(
            self.sums
                .get((power * self.columns + column) * self.lanes + self.at..)
                .unwrap_or(&[]),
        )
    }

    /// Of one power of the scores themselves.
    #[inline(always)]
    pub(super) fn power<S: Simd<f32>>(&self, s: S, power: usize) -> S::V {
        self.get(s, power, self.columns - 1)
    }
}

/// What the power sums say about the scores.
pub(super) struct Scores<V> {
    pub(super) mean: V,
    /// `|mean|`.
    pub(super) away: V,
    /// At least `|s - mean|` for every key.
    pub(super) reach: V,
    /// At least how far each power sum is off; that of values, by the largest of them.
    pub(super) errors: Terms<V>,
    /// At least the share of the sum of weights that underflow can hide.
    pub(super) lost: V,
    pub(super) variance: V,
}

/// A polynomial in `s - mean`, as one in s.
pub(super) struct Applied<V> {
    pub(super) coefficients: Terms<V>,
    /// The sum of its values.
    pub(super) mass: V,
    /// At least how far `mass` is off; that of a sum with values, by the largest of them.
    pub(super) error: V,
    /// `1 / mass`.
    pub(super) inverse: V,
}

impl<V: Copy> Scores<V> {
    #[inline(always)]
    pub(super) fn of<S: Simd<f32, V = V>>(s: S, sums: &Sums<'_>, keys: &Keys<'_>, norm: V) -> Self {
        let inverse = s.div(s.splat(1.0), sums.power(s, 0));
        let mean = s.mul(sums.power(s, 1), inverse);
        let away = s.abs(mean);
        let reach = s.mul(s.mul_add(norm, s.splat(keys.radius), away), s.splat(SLACK));
        let (mut errors, mut power) = ([s.splat(0.0); MOST_TERMS], s.splat(SLACK));
        let (mut lost, step) = (s.splat(keys.lost), s.max(norm, s.splat(1.0)));
        for (error, &one) in errors.iter_mut().zip(keys.errors).take(sums.terms) {
            *error = s.mul(power, s.splat(one));
            power = s.mul(power, norm);
            lost = s.mul(lost, step);
        }
        let second = if sums.terms > 2 {
            s.mul(sums.power(s, 2), inverse)
        } else {
            s.splat(0.0)
        };
        let variance = s.max(s.sub(second, s.mul(mean, mean)), s.splat(0.0));
        Scores {
            mean,
            away,
            reach,
            errors,
            lost,
            variance,
        }
    }

    /// `sum of p(s - mean)`, given the terms of p.
    #[inline(always)]
    pub(super) fn apply<S: Simd<f32, V = V>>(&self, s: S, sums: &Sums<'_>, p: &Terms<V>) -> Applied<V> {
        let (mut coefficients, mut sizes) = (*p, *p);
        for x in &mut sizes {
            *x = s.abs(*x);
        }
        shift(s, &mut coefficients, sums.terms, s.sub(s.splat(0.0), self.mean));
        shift(s, &mut sizes, sums.terms, self.away);
        let (mut mass, mut error) = (s.splat(0.0), s.splat(0.0));
        for (power, (&c, (&a, &off))) in coefficients
            .iter()
            .zip(sizes.iter().zip(&self.errors))
            .take(sums.terms)
            .enumerate()
        {
            mass = s.mul_add(c, sums.power(s, power), mass);
            error = s.mul_add(a, off, error);
        }
        Applied {
            coefficients,
            mass,
            error: s.mul(error, s.splat(SLACK)),
            inverse: s.div(s.splat(1.0), mass),
        }
    }

    /// At least the sum over keys of `|e^(s - mean) - T(s - mean)|`: the even power sum that is at hand, and the rest.
    #[inline(always)]
    pub(super) fn missed<S: Simd<f32, V = V>>(&self, s: S, sums: &Sums<'_>, of: &Polynomials<'_>) -> V {
        let degree = sums.terms.saturating_sub(1);
        let even = degree & !1;
        let mut unit = [s.splat(0.0); MOST_TERMS];
        if let Some(x) = unit.get_mut(even) {
            *x = s.splat(1.0);
        }
        let power = self.apply(s, sums, &unit);
        // Recentred sums cancel: computed, they may even be negative.
        let power = s.add(s.max(power.mass, s.splat(0.0)), power.error);
        let rest = s.mul(taylor_rest(s, self.reach, degree, of.taylor_next), self.reach);
        let rest = if even == degree { rest } else { s.mul(rest, self.reach) };
        s.mul(s.mul(power, rest), s.splat(SLACK))
    }

    /// Terms of `sum over j <= degree of He_j(s) / j!`, He the Hermite polynomials orthogonal for this variance: term k is
    /// `1 / k!` times the first terms of `e^(-variance / 2)`, as many as fit below the degree.
    #[inline(always)]
    pub(super) fn hermite<S: Simd<f32, V = V>>(&self, s: S, sums: &Sums<'_>, taylor: &[f32]) -> Terms<V> {
        let half = s.mul(self.variance, s.splat(-0.5));
        let mut terms = [s.splat(0.0); MOST_TERMS];
        // From the top: the term of the highest power has one summand, that two below has two.
        let (mut partial, mut last) = ([s.splat(0.0); 2], [s.splat(1.0); 2]);
        let powers = terms.iter_mut().zip(taylor).take(sums.terms).rev().enumerate();
        for (below, (term, &c)) in powers {
            let (i, parity) = (below / 2, below % 2 == 1);
            let (p, l) = if parity {
                (partial[1], last[1])
            } else {
                (partial[0], last[0])
            };
            let l = if i == 0 {
                l
            } else {
                s.mul(l, s.mul(half, s.splat(1.0 / i as f32)))
            };
            let p = s.add(p, l);
            if parity {
                (partial[1], last[1]) = (p, l);
            } else {
                (partial[0], last[0]) = (p, l);
            }
            *term = s.mul(p, s.splat(c));
        }
        terms
    }
}

/// `p(s)` into `p(s + by)`, in place.
#[inline(always)]
pub(super) fn shift<S: Simd<f32>>(s: S, p: &mut Terms<S::V>, terms: usize, by: S::V) {
    for start in 0..terms {
        let mut powers = p.get_mut(start..terms).unwrap_or(&mut []).iter_mut().rev();
        let Some(&mut mut above) = powers.next() else { return };
        for x in powers {
            *x = s.mul_add(above, by, *x);
            above = *x;
        }
    }
}

impl<V: Copy> Applied<V> {
    /// `(missed + error) / mass`: infinite where there is no mass.
    #[inline(always)]
    pub(super) fn off<S: Simd<f32, V = V>>(&self, s: S, missed: V, error: V) -> V {
        let off = s.mul(s.div(s.add(missed, error), self.mass), s.splat(SLACK));
        let never = s.splat(f32::INFINITY);
        // NaN, of nothing times infinity, is no promise either.
        s.select(s.less(s.splat(0.0), self.mass), s.min(off, never), never)
    }

    /// An entry of the output.
    #[inline(always)]
    pub(super) fn entry<S: Simd<f32, V = V>>(&self, s: S, sums: &Sums<'_>, column: usize, low: V, high: V) -> V {
        let mut sum = s.splat(0.0);
        for (power, &c) in self.coefficients.iter().take(sums.terms).enumerate() {
            sum = s.mul_add(c, sums.get(s, power, column), sum);
        }
        // Pulled between the values; a NaN becomes the least of them.
        s.min(high, s.max(s.mul(sum, self.inverse), low))
    }
}

//! What is known of the tokens in a state besides their sums: enough for every bound.

use super::rounding;
use super::Shape;
use crate::bound::{gamma, product_up, sum_up, up};
use crate::math;

/// All but the sums: read from a [`Frozen`](super::Frozen).
#[derive(Clone, Copy, Debug)]
pub struct Summary<'a> {
    pub(super) shape: Shape,
    pub(super) scale: f32,
    pub(super) count: u64,
    pub(super) additions: u64,
    pub(super) centre: &'a [f32],
    pub(super) low: &'a [f32],
    pub(super) high: &'a [f32],
    /// Largest computed square of a norm.
    pub(super) square: f32,
    /// Sums of the powers 1, 2, ... of the computed squares, rounded up.
    pub(super) powers: &'a [f32],
}

impl<'a> Summary<'a> {
    /// The sizes.
    #[must_use]
    pub const fn shape(&self) -> Shape {
        self.shape
    }

    /// rho, a power of two: keys enter the sums as `x = (k - c) / rho`.
    #[must_use]
    pub const fn scale(&self) -> f32 {
        self.scale
    }

    /// Tokens.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// c, one number per column of the keys.
    #[must_use]
    pub const fn centre(&self) -> &'a [f32] {
        self.centre
    }

    /// The lowest value of every column; zeros where there is no token.
    #[must_use]
    pub const fn low(&self) -> &'a [f32] {
        self.low
    }

    /// The highest value of every column; zeros where there is no token.
    #[must_use]
    pub const fn high(&self) -> &'a [f32] {
        self.high
    }

    /// At least the largest norm of an x.
    #[must_use]
    pub fn reach(&self) -> f32 {
        if self.count == 0 {
            return 0.0;
        }
        up(math::sqrt(up(self.true_power(self.square, 1) + f32::MIN_POSITIVE)))
    }

    /// At least the sum over the tokens of `||x||^power`, for powers up to the degree; infinity beyond.
    ///
    /// Even powers are summed as tokens come; an odd one is at most the geometric mean of its neighbours.
    #[must_use]
    pub fn power(&self, power: usize) -> f32 {
        if self.count == 0 {
            return 0.0;
        }
        if power == 0 {
            return up(math::nearest(self.count));
        }
        if power.is_multiple_of(2) {
            return self.even(power / 2);
        }
        let below = if power == 1 {
            self.power(0)
        } else {
            self.even(power / 2)
        };
        // The roots first: the product of the sums may be too large.
        let roots = [below, self.even(power / 2 + 1)].map(|x| up(math::sqrt(x)));
        product_up(roots[0], roots[1])
    }

    fn even(&self, half: usize) -> f32 {
        let sum = half.checked_sub(1).and_then(|at| self.powers.get(at));
        self.true_power(sum.copied().unwrap_or(f32::INFINITY), half)
    }

    /// The `half`-th power of a square, or a sum of such, from computed squares to true ones: each has one rounding per
    /// square and addition, two of the key's difference to the centre, and counts itself.
    fn true_power(&self, x: f32, half: usize) -> f32 {
        let roundings = self.shape.dim.saturating_add(4).saturating_mul(half);
        product_up(x, up(1.0 + gamma(roundings)))
    }

    /// At least the largest absolute error of a computed `N_j[c]` of degree j, against its true value: that of the exact
    /// query and the exact keys. `norm` is at least `||tau rho q||`, `value` at least every `|v[c]|` (1 for the count).
    ///
    /// `gamma(sum_roundings + query_roundings) value norm^j sum ||x||^j`, see [`rounding`], and what may be lost to underflow.
    /// As the scale is a power of two, it costs nothing. Infinite where a computed sum may have overflowed.
    #[must_use]
    pub fn error(&self, degree: usize, norm: f32, value: f32) -> f32 {
        let roundings = rounding::sum_roundings(self.shape, self.additions, degree)
            .saturating_add(rounding::query_roundings(self.shape, degree));
        self.scaled(gamma(roundings), degree, norm, value)
    }

    /// As [`error`](Summary::error) for the count, from the computed [magnitude](super::Answer::magnitudes) `M_j`: less where
    /// the sums of the monomials have cancelled, as those of odd degree do.
    #[must_use]
    pub fn count_error(&self, degree: usize, norm: f32, magnitude: f32) -> f32 {
        let of_sums = gamma(rounding::sum_roundings(self.shape, self.additions, degree));
        let query = gamma(rounding::query_roundings(self.shape, degree));
        // The computed magnitude is itself at most that much too small.
        let query = if query < 0.5 {
            up(query / (1.0 - up(query)))
        } else {
            f32::INFINITY
        };
        sum_up(
            product_up(up(query), magnitude),
            self.scaled(of_sums, degree, norm, 1.0),
        )
    }

    /// At least the length of the error of what [`Frozen::reverse`](super::Frozen::reverse) makes of degree `degree`, its last
    /// factor `tau rho` left out, for coefficient 1 and the `u` that it was given: the gradient of `sum over c of u[c] N_j[c]`.
    /// `norm` as for [`error`](Summary::error), `value` at least every `sum over c of |u[c] v[c]|`.
    ///
    /// Its terms have lengths of at most `j norm^(j - 1) ||x||^j value` together. Each meets the roundings of the sums and of
    /// the query's monomials, one chain over the columns, the coefficient, then for each degree a product and one addition
    /// per variable, and one chain over all monomials.
    #[must_use]
    pub fn reverse_error(&self, degree: usize, norm: f32, value: f32) -> f32 {
        let shape = self.shape;
        let features = shape.features().unwrap_or(usize::MAX);
        let steps = degree
            .saturating_mul(shape.dim.saturating_add(2))
            .saturating_add(features);
        let own = steps.saturating_add(shape.value_dim).saturating_add(6);
        let roundings = rounding::sum_roundings(shape, self.additions, degree)
            .saturating_add(rounding::query_roundings(shape, degree))
            .saturating_add(own);
        let mut relative = product_up(product_up(gamma(roundings), value), self.power(degree));
        relative = product_up(relative, degree as f32);
        (1..degree).for_each(|_| relative = product_up(relative, norm));
        // What underflows, as for the sums, at each of the steps besides.
        let lost = self.scaled(0.0, degree, norm.max(1.0), value.max(1.0));
        let error = sum_up(relative, product_up(lost, up(math::nearest(own as u64))));
        if error.is_nan() {
            f32::INFINITY
        } else {
            error
        }
    }

    /// `factor value norm^j sum ||x||^j`, and the underflow.
    fn scaled(&self, factor: f32, degree: usize, norm: f32, value: f32) -> f32 {
        let mut relative = product_up(product_up(factor, value), self.power(degree));
        let dim = math::nearest(self.shape.dim as u64);
        let steps = math::nearest(degree as u64 + 1);
        let mut lost = product_up(rounding::LOST, product_up(steps, up(math::nearest(self.count) + 1.0)));
        lost = product_up(lost, value.max(1.0));
        for _ in 0..degree {
            relative = product_up(relative, norm);
            lost = product_up(lost, up(product_up(dim, norm.max(1.0))));
        }
        let error = sum_up(relative, lost);
        if error.is_nan() {
            f32::INFINITY
        } else {
            error
        }
    }
}

//! Which polynomial a query gets, and what is promised about it.

use super::scores::{Applied, Scores, Sums};
use super::{put, Keys, SLACK};
use crate::kernels::elementary::exp;
use crate::simd::Simd;

/// At least `|ln(1 + y)|` for `|y| <= x`.
#[inline(always)]
pub(super) fn log_error<S: Simd<f32>>(s: S, x: S::V) -> S::V {
    let y = s.div(x, s.sub(s.splat(1.0), x));
    s.select(s.less(x, s.splat(0.9)), y, s.splat(f32::INFINITY))
}

/// At least `|ln(a / b)|`, rounding of the quotient included.
#[inline(always)]
pub(super) fn log_ratio<S: Simd<f32>>(s: S, a: S::V, b: S::V) -> S::V {
    let ratio = s.div(a, b);
    let one = s.splat(1.0);
    let away = s.add(s.abs(s.sub(ratio, one)), s.splat(f32::EPSILON));
    let y = s.div(away, s.min(one, ratio));
    s.select(s.less(s.splat(0.0), ratio), y, s.splat(f32::INFINITY))
}

/// The three polynomials, and what is known about the first two.
pub(super) struct All<V> {
    pub(super) taylor: Applied<V>,
    pub(super) minimax: Applied<V>,
    pub(super) hermite: Applied<V>,
    pub(super) missed: V,
    pub(super) share: V,
}

/// Largest distances between outputs.
pub(super) struct Seen<V> {
    pub(super) from_taylor: V,
    pub(super) from_minimax: V,
}

/// Which of them each lane gets, and its promises.
pub(super) struct Choice<M, V> {
    pub(super) hermite: M,
    pub(super) taylor: M,
    pub(super) out: V,
}

impl<V: Copy> All<V> {
    #[inline(always)]
    pub(super) fn look<S: Simd<f32, V = V>>(&self, s: S, sums: &Sums<'_>, keys: &Keys<'_>) -> Seen<V> {
        let mut seen = Seen {
            from_taylor: s.splat(0.0),
            from_minimax: s.splat(0.0),
        };
        for (column, (&low, &high)) in keys.low.iter().zip(keys.high).enumerate() {
            let (low, high) = (s.splat(low), s.splat(high));
            let hermite = self.hermite.entry(s, sums, column, low, high);
            let taylor = self.taylor.entry(s, sums, column, low, high);
            let minimax = self.minimax.entry(s, sums, column, low, high);
            seen.from_taylor = s.max(s.abs(s.sub(hermite, taylor)), seen.from_taylor);
            seen.from_minimax = s.max(s.abs(s.sub(hermite, minimax)), seen.from_minimax);
        }
        seen
    }

    /// The most accurate whose promise is what is wanted, or else the surest.
    #[inline(always)]
    pub(super) fn choose<S: Simd<f32, V = V>>(
        &self,
        s: S,
        keys: &Keys<'_>,
        scores: &Scores<V>,
        seen: &Seen<V>,
    ) -> Choice<S::M, V> {
        let (range, never) = (s.splat(keys.range), s.splat(f32::INFINITY));
        // Both the sum of values and the mean that it is compared with are at most this times the error of the mass.
        let sizes = s.splat(2.0 * keys.value);
        let taylor = self
            .taylor
            .off(s, s.mul(range, self.missed), s.mul(sizes, self.taylor.error));
        let minimax = self.minimax.off(s, s.splat(0.0), s.mul(sizes, self.minimax.error));
        // Without a table the share is infinite, and nothing times that is no number.
        let minimax = s.min(s.mul_add(range, self.share, minimax), never);
        let hermite = s.min(s.add(taylor, seen.from_taylor), s.add(minimax, seen.from_minimax));
        let hermite = s.select(s.less(s.splat(0.0), self.hermite.mass), hermite, never);
        let good = s.less(hermite, s.splat(keys.wanted));
        let out = s.mul(s.select(good, hermite, s.min(taylor, minimax)), s.splat(SLACK));
        Choice {
            hermite: good,
            taylor: s.less(taylor, minimax),
            out: s.min(s.mul_add(s.splat(keys.value + 1.0), scores.lost, out), range),
        }
    }

    /// The sum of weights `e^(s - mean)`, and at least how far its logarithm is off.
    #[inline(always)]
    pub(super) fn mass<S: Simd<f32, V = V>>(&self, s: S, scores: &Scores<V>, choice: &Choice<S::M, V>) -> (V, V) {
        let zero = s.splat(0.0);
        let taylor = log_error(s, self.taylor.off(s, self.missed, self.taylor.error));
        // 1 - error of the weights is (1 - share)^2 / (1 + share^2).
        let twice = s.add(self.share, self.share);
        let share = s.mul_add(self.share, self.share, s.div(twice, s.sub(s.splat(1.0), self.share)));
        let share = s.select(s.less(self.share, s.splat(0.9)), share, s.splat(f32::INFINITY));
        let minimax = s.add(share, log_error(s, self.minimax.off(s, zero, self.minimax.error)));

        let hermite = s.mul(self.hermite.mass, exp(s, s.mul(scores.variance, s.splat(0.5))));
        let from_taylor = s.add(taylor, log_ratio(s, hermite, self.taylor.mass));
        let from_minimax = s.add(minimax, log_ratio(s, hermite, self.minimax.mass));
        let mass = s.select(choice.taylor, self.taylor.mass, self.minimax.mass);
        let off = s.select(choice.taylor, taylor, minimax);
        let mass = s.select(choice.hermite, hermite, mass);
        let off = s.select(choice.hermite, s.min(from_taylor, from_minimax), off);
        (
            mass,
            s.min(s.mul(s.add(off, scores.lost), s.splat(SLACK)), s.splat(f32::INFINITY)),
        )
    }

    #[inline(always)]
    pub(super) fn hand_out<S: Simd<f32, V = V>>(
        &self,
        s: S,
        sums: &Sums<'_>,
        keys: &Keys<'_>,
        choice: &Choice<S::M, V>,
        out: &mut [f32],
    ) {
        for (column, (&low, &high)) in keys.low.iter().zip(keys.high).enumerate() {
            let (low, high) = (s.splat(low), s.splat(high));
            let mut entry = self.hermite.entry(s, sums, column, low, high);
            if !s.all(choice.hermite) {
                let taylor = self.taylor.entry(s, sums, column, low, high);
                let minimax = self.minimax.entry(s, sums, column, low, high);
                entry = s.select(choice.hermite, entry, s.select(choice.taylor, taylor, minimax));
            }
            put(s, entry, out, column * sums.lanes + sums.at);
        }
    }
}

//! Best polynomials in place of e^s, in the sense of relative error.

use crate::bound::{product_up, up};
use crate::math;

/// `|1 - p(s) e^-s| <= error` for `|s| <= reach`, so p is positive there. Coefficients as they are in f32; the error is that
/// of these very numbers in real arithmetic.
#[derive(Clone, Copy, Debug)]
pub struct Minimax {
    /// Scores that it is for.
    pub reach: f32,
    /// Largest relative error of a weight.
    pub error: f32,
    /// Constant term first.
    pub coefficients: &'static [f32],
}

pub(super) use super::minimax_table::TABLE;

impl Minimax {
    /// The power of its last term.
    #[must_use]
    pub const fn degree(&self) -> usize {
        self.coefficients.len().saturating_sub(1)
    }

    /// By how much of the range of the values an output can be off, rounding aside: weights off by factors between
    /// `1 - error` and `1 + error` have `error / (1 + sqrt(1 - error^2))` (lemma L1: tanh of a quarter of the difference of
    /// their logarithms).
    #[must_use]
    pub fn share(&self) -> f32 {
        let root = math::sqrt(1.0 - product_up(self.error, self.error)) - f32::EPSILON;
        up(up(self.error) / (1.0 + root))
    }
}

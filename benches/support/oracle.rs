//! Attention in f64, written from the formula, with the error that f32 may have beside it.

use subquad::MatRef;

/// Half the distance from 1 to the next f32.
const UNIT: f64 = f32::EPSILON as f64 / 2.0;

/// One output row, and how far an f32 kernel may be from it.
pub struct Row {
    pub out: Vec<f64>,
    pub tolerance: Vec<f64>,
}

impl Row {
    /// Softmax of `scale * q . k` over the first `seen` keys, times `v`.
    ///
    /// The tolerance, to first order, with p the probabilities, u the unit roundoff:
    /// - a score is a sum of dim products (in any order), of rounded factors (scale, log2 e, their product, times q):
    ///   off by at most (dim + 8) u scale sum |q k|, and its weight by that factor;
    /// - 2^r adds a relative 1.63e-7 < 3 u; so weight j is off by a factor 1 + e with |e| <= e_j, which moves the output
    ///   by at most sum p_j e_j (|v_j| + |out|);
    /// - a chain of multiply-adds commits, at each step, at most u times the product and u times what it has come to
    ///   (running error analysis: Higham, Accuracy and Stability, 3.3); the same for the sum of weights. Rescaling
    ///   multiplies by powers of two and commits nothing; several shorter chains commit no more than one long;
    /// - the division takes 2 u of the output.
    ///
    /// Weights below 2^-126 of the largest are dropped, which is far below all that. A fifth more covers the second
    /// order under the limits that are asserted below: sums that are computed, not exact (1 / (1 - n u) <= 1.07), a
    /// quotient by such a sum (1.05), weights that are off by e <= 0.01.
    pub fn of(q: &[f32], k: MatRef<'_, f32>, v: MatRef<'_, f32>, scale: f64, seen: usize) -> Row {
        let wide = |x: &f32| f64::from(*x);
        let products = |j: usize| q.iter().zip(k.row(j)).map(move |(a, b)| wide(a) * wide(b) * scale);
        let scores: Vec<f64> = (0..seen).map(|j| products(j).sum()).collect();
        let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let columns = v.cols();
        let (mut sum, mut sum_steps) = (0.0, 0.0);
        let (mut out, mut steps, mut moved) = (vec![0.0; columns], vec![0.0; columns], vec![0.0; columns]);
        let (mut weights_moved, mut worst) = (0.0, 0.0f64);
        for (j, score) in scores.iter().enumerate() {
            let w = (score - highest).exp();
            let e = UNIT * ((q.len() + 8) as f64 * products(j).map(f64::abs).sum::<f64>() + 3.0);
            sum += w;
            sum_steps += sum;
            weights_moved += w * e;
            worst = worst.max(w * e);
            for (c, x) in v.row(j).iter().map(wide).enumerate() {
                out[c] += w * x;
                steps[c] += (w * x).abs() + out[c].abs();
                moved[c] += w * e * x.abs();
            }
        }
        let small = worst < 0.01 && sum_steps / sum * UNIT < 0.05 && seen as f64 * UNIT < 0.065;
        assert!(small, "first order does not describe this row");
        let tolerance = (0..columns)
            .map(|c| {
                let size = out[c].abs() / sum;
                let of_sum = UNIT * (sum_steps / sum + 2.0) + weights_moved / sum;
                1.2 * ((UNIT * steps[c] + moved[c]) / sum + of_sum * size)
            })
            .collect();
        out.iter_mut().for_each(|x| *x /= sum);
        Row { out, tolerance }
    }

    /// Largest error of `row`; panics where it is more than its tolerance.
    pub fn check(&self, row: &[f32], what: &str) -> f64 {
        assert_eq!(row.len(), self.out.len(), "{what}");
        let mut worst = 0.0f64;
        for ((&x, want), tolerance) in row.iter().zip(&self.out).zip(&self.tolerance) {
            let error = (f64::from(x) - want).abs();
            assert!(
                error <= *tolerance,
                "{what}: {x} is off by {error:e}, more than {tolerance:e}"
            );
            worst = worst.max(error);
        }
        worst
    }
}

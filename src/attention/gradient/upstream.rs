//! What the gradient is made from, row by row.

use super::gradients::settle;
use crate::attention::block::{all_finite, Input};
use crate::attention::rules::At;
use crate::attention::Shape;
use crate::error::Error;
use crate::kernels;
use crate::view::TensorRef;

/// What the forward call gave, and what comes back for it. All are `(batch, query_heads, queries, ...)`.
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a> {
    /// The attention output, `value_dim` columns.
    pub out: TensorRef<'a, f32>,
    /// Its gradient, `value_dim` columns.
    pub d_out: TensorRef<'a, f32>,
    /// Log-sum-exp of the forward call, one column.
    pub lse: TensorRef<'a, f32>,
    /// Its gradient, one column, if anything depends on it.
    pub d_lse: Option<TensorRef<'a, f32>>,
}

impl Upstream<'_> {
    pub(super) fn check(&self, shape: &Shape) -> Result<(), Error> {
        let fits = |t: &TensorRef<'_, f32>, cols: usize| {
            (t.batch(), t.heads(), t.rows(), t.cols()) == (shape.batch, shape.query_heads, shape.queries, cols)
        };
        let all = fits(&self.out, shape.value_dim)
            && fits(&self.d_out, shape.value_dim)
            && fits(&self.lse, 1)
            && self.d_lse.as_ref().is_none_or(|t| fits(t, 1));
        if all {
            Ok(())
        } else {
            Err(Error::Shape)
        }
    }

    /// Log-sum-exp in base 2 and `<out, d_out> - d_lse` of a row; both NaN where something about the row is not finite.
    pub(super) fn row(&self, input: &Input<'_>, at: At) -> [f32; 2] {
        fn row<'t>(t: &TensorRef<'t, f32>, at: At) -> &'t [f32] {
            t.matrix(at.batch, at.head).row(at.query)
        }
        let number = |t: &TensorRef<'_, f32>| row(t, at).first().copied().unwrap_or(0.0);
        let d_out = row(&self.d_out, at);
        let dot = kernels::dot(input.isa, row(&self.out, at), d_out);
        let delta = dot - self.d_lse.as_ref().map_or(0.0, number);
        let lse = number(&self.lse);
        if lse < f32::INFINITY && delta.is_finite() && all_finite(row(&input.q, at)) && all_finite(d_out) {
            [lse * core::f32::consts::LOG2_E, delta]
        } else {
            [f32::NAN; 2]
        }
    }

    /// The gradient of the learned sinks. A sink is a key of value 0, and so takes part in no product but this; all are
    /// summed by one thread, as batch entries add to the same.
    pub(super) fn sum_sinks(&self, input: &Input<'_>, sinks: &mut [f32]) {
        sinks.fill(0.0);
        for batch in 0..input.shape.batch {
            for (head, sum) in sinks.iter_mut().enumerate() {
                let Some(logit) = input.rules.sink_logit2(head) else {
                    continue;
                };
                for query in 0..input.shape.queries {
                    let [lse, delta] = self.row(input, At { batch, head, query });
                    *sum -= kernels::probability_of(logit - lse) * delta;
                }
            }
        }
        settle(sinks, 1.0);
    }
}

//! What the gradient is made from, row by row.

use super::gradients::settle;
use crate::attention::block::{all_finite, Input};
use crate::attention::partial::{with_sink, Partial};
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
    /// The sums that make probabilities of scores.
    pub saved: Saved<'a>,
    /// The gradient of the log-sum-exp, one column, if anything depends on it.
    pub d_lse: Option<TensorRef<'a, f32>>,
}

/// What was kept of a row's sum of exponentiated scores.
#[derive(Clone, Copy, Debug)]
pub enum Saved<'a> {
    /// [`Outputs::lse`](crate::attention::Outputs::lse), one column: `P = exp(score - lse)`.
    ///
    /// The rounding of a number of this size goes into every P, `4 u |lse|` of it. Rows where that is more than 2^-8,
    /// beyond 2^14, are [`imprecise_rows`](crate::Report::imprecise_rows) of the report.
    Lse(TensorRef<'a, f32>),
    /// [`Outputs::partials`](crate::attention::Outputs::partials), of which the first two columns are read:
    /// `P = 2^(score - max) / sum`, right however far from 0 scores are.
    ///
    /// Without a learned sink the columns from [`Partial::HEAD`] on are the output: a view of them serves as
    /// [`Upstream::out`], and partials are all that has to be kept.
    Partials(TensorRef<'a, f32>),
}

/// Beyond this size the rounding of a log-sum-exp moves probabilities by more than 2^-8.
const FAR: f32 = 16_384.0;

/// What a row of scores and its products become a gradient with; NaN throughout where something about it is not finite.
pub(super) struct Sums {
    /// What scores are measured against, in base 2: log-sum-exp, or the forward call's reference.
    pub level: f32,
    /// What makes a probability of `2^(score - level)`.
    pub inverse: f32,
    /// `<out, d_out> - d_lse`.
    pub delta: f32,
}

fn row<'t>(t: &TensorRef<'t, f32>, at: At) -> &'t [f32] {
    t.matrix(at.batch, at.head).row(at.query)
}

fn number(t: &TensorRef<'_, f32>, at: At) -> f32 {
    row(t, at).first().copied().unwrap_or(0.0)
}

impl Saved<'_> {
    fn fits(&self, shape: &Shape) -> bool {
        match self {
            Saved::Lse(t) => fits(t, shape, 1),
            Saved::Partials(t) => fits(t, shape, Partial::width(shape.value_dim)),
        }
    }

    /// `level` and `inverse` of a row's [`Sums`]; neither finite, nor minus infinity for no key, if the row is not.
    fn row(&self, input: &Input<'_>, at: At) -> [f32; 2] {
        match self {
            Saved::Lse(t) => [number(t, at) * core::f32::consts::LOG2_E, 1.0],
            Saved::Partials(t) => {
                let [max, sum] = row(t, at).first_chunk().copied().unwrap_or([0.0; 2]);
                let [max, sum, _] = match input.rules.sink_logit2(at.head) {
                    Some(logit) => with_sink([max, sum], logit),
                    None => [max, sum, 1.0],
                };
                let inverse = if sum == 0.0 { 0.0 } else { 1.0 / sum };
                if sum < f32::INFINITY {
                    [max, inverse]
                } else {
                    [f32::NAN; 2]
                }
            }
        }
    }
}

fn fits(t: &TensorRef<'_, f32>, shape: &Shape, cols: usize) -> bool {
    (t.batch(), t.heads(), t.rows(), t.cols()) == (shape.batch, shape.query_heads, shape.queries, cols)
}

impl Upstream<'_> {
    pub(super) fn check(&self, shape: &Shape) -> Result<(), Error> {
        let all = fits(&self.out, shape, shape.value_dim)
            && fits(&self.d_out, shape, shape.value_dim)
            && self.saved.fits(shape)
            && self.d_lse.as_ref().is_none_or(|t| fits(t, shape, 1));
        if all {
            Ok(())
        } else {
            Err(Error::Shape)
        }
    }

    /// What a row's gradient is made with.
    pub(super) fn row(&self, input: &Input<'_>, at: At) -> Sums {
        let d_out = row(&self.d_out, at);
        let dot = kernels::dot(input.isa, row(&self.out, at), d_out);
        let delta = dot - self.d_lse.as_ref().map_or(0.0, |t| number(t, at));
        let [level, inverse] = self.saved.row(input, at);
        if level < f32::INFINITY && delta.is_finite() && all_finite(row(&input.q, at)) && all_finite(d_out) {
            Sums { level, inverse, delta }
        } else {
            Sums {
                level: f32::NAN,
                inverse: f32::NAN,
                delta: f32::NAN,
            }
        }
    }

    /// Whether a row's probabilities suffer from the size of its log-sum-exp.
    pub(super) fn imprecise(&self, at: At) -> bool {
        match &self.saved {
            Saved::Lse(t) => number(t, at).abs() > FAR,
            Saved::Partials(_) => false,
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
                    let Sums { level, inverse, delta } = self.row(input, At { batch, head, query });
                    *sum -= kernels::probability_of(logit - level) * (inverse * delta);
                }
            }
        }
        settle(sinks, 1.0);
    }
}

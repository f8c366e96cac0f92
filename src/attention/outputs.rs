//! Where results go: rows finished from sums, scores written as they pass.

use super::block::{all_finite, Input, Place, Watch};
use super::certificate::Rounding;
use super::partial::{lse, with_sink, Partial};
use super::rules::At;
use super::split::{Cut, Split};
use super::Shape;
use crate::error::Error;
use crate::kernels;
use crate::report::Report;
use crate::view::{Layout, TensorMut};

/// Which scores to write, on their way from product to probability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// `scale * q.k`, for every key.
    Raw,
    /// After the soft-cap, for every key.
    Capped,
    /// After bias and masks; minus infinity where masked.
    Biased,
    /// The probabilities; zeros where masked, all zeros in a row without keys.
    Softmax,
}

/// Where results go. `out` is `(batch, query_heads, queries, value_dim)`; the others are optional.
#[derive(Debug, Default)]
pub struct Outputs<'a> {
    /// The attention output.
    pub out: Option<TensorMut<'a, f32>>,
    /// Log-sum-exp of the scores (natural log), one column.
    pub lse: Option<TensorMut<'a, f32>>,
    /// Mergeable rows of [`Partial::width`] columns, without the learned sink (merge it once, at the end).
    pub partials: Option<TensorMut<'a, f32>>,
    /// Scores of one stage, `keys` columns.
    pub scores: Option<(Stage, TensorMut<'a, f32>)>,
}

/// What is left of a row when all its keys are seen.
pub(super) struct Sums<'a> {
    /// The softmax reference.
    pub max: f32,
    /// Sum of the weights.
    pub sum: f32,
    /// Lowest live score.
    pub low: f32,
    /// Weighted sums of the values, `[column][lane]`.
    pub values: &'a [f32],
    pub lanes: usize,
    pub lane: usize,
}

impl<'a> Sums<'a> {
    /// Whether every score was: the sums of a row with a NaN score are NaN; an infinite score shows in the extremes.
    pub(super) fn finite(&self) -> bool {
        self.sum.is_finite() && self.max < f32::INFINITY && self.low > f32::NEG_INFINITY
    }

    /// The output row without a learned sink: the weighted mean of the values. Whether it is finite.
    #[inline(never)]
    pub(super) fn finish(&self, row: &mut [f32]) -> bool {
        let inverse = if self.sum == 0.0 { 0.0 } else { 1.0 / self.sum };
        self.write(row, inverse, self.finite())
    }

    fn column(&self) -> impl Iterator<Item = &'a f32> {
        let lane = self.lane;
        let columns = self.values.chunks_exact(self.lanes.max(1));
        columns.map(move |lanes| lanes.get(lane).unwrap_or(&0.0))
    }

    /// The weighted sums times `inverse`, or NaN throughout where a score or any of them is not finite. Says which.
    #[inline(never)]
    pub(super) fn write(&self, row: &mut [f32], inverse: f32, finite: bool) -> bool {
        row.iter_mut().zip(self.column()).for_each(|(to, &x)| *to = x * inverse);
        let finite = finite && all_finite(row);
        if !finite {
            // One NaN for all machines.
            row.fill(f32::NAN);
        }
        finite
    }
}

/// [`Error::Shape`] unless every output that is wanted has the shape of the call.
pub(super) fn check_layouts(layouts: &[Option<&Layout>; 4], shape: &Shape) -> Result<(), Error> {
    let cols = [shape.value_dim, 1, Partial::width(shape.value_dim), shape.keys];
    let fits = |(layout, cols): (&Option<&Layout>, usize)| {
        let wanted = [shape.batch, shape.query_heads, shape.queries, cols];
        layout.is_none_or(|layout| layout.shape() == wanted)
    };
    if layouts.iter().zip(cols).all(fits) {
        Ok(())
    } else {
        Err(Error::Shape)
    }
}

impl Split for Outputs<'_> {
    fn split(self, cut: &Cut) -> (Self, Self) {
        let (stage, scores) = self.scores.unzip();
        let parts = [self.out, self.lse, self.partials, scores].map(|t| cut.apply(t));
        let part = |out, lse, partials, scores| Outputs {
            out,
            lse,
            partials,
            scores: stage.zip(scores),
        };
        let [[a, b], [c, d], [e, f], [g, h]] = parts;
        (part(a, c, e, g), part(b, d, f, h))
    }
}

impl Outputs<'_> {
    /// Every output that is wanted has the shape of the call.
    #[inline(always)]
    pub(super) fn check(&self, shape: &Shape) -> Result<(), Error> {
        check_layouts(&self.layouts(), shape)
    }

    /// How those that are wanted lie in memory: output, log-sum-exp, partials, scores.
    pub(super) fn layouts(&self) -> [Option<&Layout>; 4] {
        [
            self.out.as_ref().map(TensorMut::layout),
            self.lse.as_ref().map(TensorMut::layout),
            self.partials.as_ref().map(TensorMut::layout),
            self.scores.as_ref().map(|(_, t)| t.layout()),
        ]
    }

    /// Turns sums into an output row.
    pub(super) fn finish<K>(
        &mut self,
        input: &Input<'_, K>,
        promise: &Rounding,
        at: At,
        sums: Sums<'_>,
        report: &mut Report,
    ) {
        let Sums { mut max, mut sum, .. } = sums;
        let seen = sum != 0.0;
        let mut finite = sums.finite();
        let mut scale = 1.0;
        // Partials leave the sink to whoever merges the last of them.
        let (partial_max, partial_sum) = (max, sum);
        if let Some(logit) = input.rules.sink_logit2(at.head) {
            [max, sum, scale] = with_sink([max, sum], logit);
        }
        let inverse = if sum == 0.0 { 0.0 } else { scale / sum };
        let At { batch, head, query } = at;
        finite = match &mut self.out {
            Some(out) => sums.write(out.row(batch, head, query), inverse, finite),
            None => finite && sums.column().all(|&x| (x * inverse).is_finite()),
        };
        report.count(seen, finite);
        let result = |x: f32| if finite { x } else { f32::NAN };
        if let Some(to) = self.lse.as_mut().and_then(|t| t.row(batch, head, query).first_mut()) {
            *to = result(lse(max, sum));
        }
        if let Some(t) = &mut self.partials {
            let inverse = if seen { 1.0 / partial_sum } else { 0.0 };
            let head = [
                result(partial_max),
                result(partial_sum),
                promise.mass,
                promise.out.value,
            ];
            let head = if seen { head } else { Partial::EMPTY_HEAD };
            let values = sums.column().map(|&x| result(x * inverse));
            let row = t.row(batch, at.head, query).iter_mut();
            row.zip(head.into_iter().chain(values)).for_each(|(to, x)| *to = x);
        }
        if let Some((Stage::Softmax, t)) = &mut self.scores {
            let row = t.row(batch, head, query);
            if !finite {
                row.fill(f32::NAN);
            } else if sum == 0.0 {
                row.fill(0.0);
            } else {
                kernels::probabilities(input.isa, row, max, 1.0 / sum);
            }
        }
    }

    /// Writes one row's scores of keys `start..end`, in base 2, if this is the stage that was asked for.
    pub(super) fn write_row(&mut self, stage: Stage, at: At, (start, end): (usize, usize), tile: &[f32]) {
        let Some((wanted, t)) = &mut self.scores else { return };
        if *wanted == stage {
            let row = t
                .row(at.batch, at.head, at.query)
                .iter_mut()
                .skip(start)
                .take(end - start);
            let factor = stage.unit();
            row.zip(tile).for_each(|(to, &x)| *to = x * factor);
        }
    }
}

impl Stage {
    /// From base 2 to what the caller sees; probabilities stay in base 2 until the row's sum is known.
    const fn unit(self) -> f32 {
        match self {
            Stage::Softmax => 1.0,
            _ => core::f32::consts::LN_2,
        }
    }
}

/// Scores written to the caller's tensor as they pass.
pub(super) struct Written<'a, 'b> {
    pub stage: Stage,
    pub scores: &'a mut TensorMut<'b, f32>,
}

impl Written<'_, '_> {
    fn write(&mut self, place: &Place, first_key: usize, tile: &[f32], lanes: usize) {
        let factor = self.stage.unit();
        for lane in 0..place.used {
            let At { batch, head, query } = place.at(lane);
            let row = self.scores.row(batch, head, query).iter_mut().skip(first_key);
            let column = tile.get(lane..).unwrap_or(&[]).iter().step_by(lanes.max(1));
            row.zip(column).for_each(|(to, &x)| *to = x * factor);
        }
    }
}

impl Watch for Written<'_, '_> {
    const EVERY_KEY: bool = true;

    fn raw(&mut self, place: &Place, first_key: usize, tile: &[f32], lanes: usize) {
        if self.stage == Stage::Raw {
            self.write(place, first_key, tile, lanes);
        }
    }

    fn capped(&mut self, place: &Place, first_key: usize, tile: &[f32], lanes: usize) {
        if self.stage == Stage::Capped {
            self.write(place, first_key, tile, lanes);
        }
    }

    fn shaped(&mut self, place: &Place, first_key: usize, tile: &[f32], lanes: usize) {
        if matches!(self.stage, Stage::Biased | Stage::Softmax) {
            self.write(place, first_key, tile, lanes);
        }
    }
}

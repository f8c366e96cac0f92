//! Exact attention for many queries: every score, every key, O(1) memory per query.

use super::block::{Block, Input, Place, Unwatched, Watch, MOST_LANES};
use super::certificate::{rounding, Rounding};
use super::partial::{lse, Partial};
use super::rules::{At, Rules};
use super::Shape;
use crate::error::Error;
use crate::kernels;
use crate::report::Report;
use crate::scratch::{Need, Scratch};
use crate::simd::Isa;
use crate::view::{MatMut, MatRef, TensorMut, TensorRef};

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
    /// Mergeable rows of [`Partial::width`] columns.
    pub partials: Option<TensorMut<'a, f32>>,
    /// Scores of one stage, `keys` columns.
    pub scores: Option<(Stage, TensorMut<'a, f32>)>,
}

/// Exact attention. Rows are independent: the same bits however the queries are split among calls or threads.
///
/// Cost: `2 (dim + value_dim)` flops and one exponential per query and key; a block of queries reads its keys and values
/// once. Scratch: [`Exact::need`], independent of the number of queries and keys.
///
/// ```
/// use subquad::{attention::Exact, MatMut, MatRef, Scratch};
/// # fn main() -> Result<(), subquad::Error> {
/// let (q, k, v) = ([1.0, 0.0], [1.0, 0.0, 0.0, 1.0], [1.0, 2.0]);
/// let (q, k, v) = (MatRef::new(&q, 1, 2)?, MatRef::new(&k, 2, 2)?, MatRef::new(&v, 2, 1)?);
/// let plan = Exact::for_views(q, k, v)?;
/// let mut work = vec![core::mem::MaybeUninit::uninit(); plan.need().bytes()];
/// let mut out = [0.0];
/// let report = plan.forward(q, k, v, MatMut::new(&mut out, 1, 1)?, &mut Scratch::new(&mut work))?;
/// assert!((out[0] - 1.3302).abs() < 1e-4 && report.masked_rows == 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Exact<'a> {
    shape: Shape,
    rules: Rules<'a>,
    isa: Option<Isa>,
    run: usize,
    bound: bool,
}

impl<'a> Exact<'a> {
    /// A plan for a shape, without rules, on the best back end.
    pub const fn new(shape: Shape) -> Result<Self, Error> {
        match shape.check() {
            Ok(()) => Ok(Exact {
                shape,
                rules: Rules::new(),
                isa: None,
                run: kernels::KEY_RUN,
                bound: false,
            }),
            Err(e) => Err(e),
        }
    }

    /// A plan for the shape of three views.
    pub fn for_views<'v>(
        q: impl Into<TensorRef<'v, f32>>,
        k: impl Into<TensorRef<'v, f32>>,
        v: impl Into<TensorRef<'v, f32>>,
    ) -> Result<Self, Error> {
        Self::new(Shape::of(&q.into(), &k.into(), &v.into())?)
    }

    /// How scores are formed and which keys take part; checked against the shape.
    pub fn with_rules(mut self, rules: Rules<'a>) -> Result<Self, Error> {
        rules.check(&self.shape)?;
        self.rules = rules;
        Ok(self)
    }

    /// Forces a back end.
    #[must_use]
    pub const fn with_isa(mut self, isa: Isa) -> Self {
        self.isa = Some(isa);
        self
    }

    /// Keys that are scored before their values are read, at least 1. More is faster up to the size of the cache and
    /// takes more scratch; no bit of the result depends on it.
    #[must_use]
    pub const fn with_key_run(mut self, keys: usize) -> Self {
        self.run = if keys == 0 { 1 } else { keys };
        self
    }

    /// Puts [`rounding_bound`](Exact::rounding_bound) into the report and the partials of every run, at its cost.
    #[must_use]
    pub const fn with_bound(mut self) -> Self {
        self.bound = true;
        self
    }

    /// Scratch of a call without score outputs: that of the forced back end, or enough for any that this build has.
    #[must_use]
    pub const fn need(&self) -> Need {
        self.need_of(self.rules.limits())
    }

    /// Scratch of a call with score outputs: those visit masked keys too.
    #[must_use]
    pub const fn need_with_scores(&self) -> Need {
        self.need_of(true)
    }

    const fn need_of(&self, biased: bool) -> Need {
        let lanes = match self.isa {
            Some(isa) => kernels::block_lanes(isa),
            None => MOST_LANES,
        };
        Block::need(&self.shape, lanes, self.run_length(), biased)
    }

    /// No run is longer than the keys.
    const fn run_length(&self) -> usize {
        if self.run < self.shape.keys {
            self.run
        } else if self.shape.keys == 0 {
            1
        } else {
            self.shape.keys
        }
    }

    /// `out = softmax(scores) v` for one head.
    pub fn forward<'v>(
        &self,
        q: MatRef<'v, f32>,
        k: MatRef<'v, f32>,
        v: MatRef<'v, f32>,
        out: MatMut<'_, f32>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        let outputs = Outputs {
            out: Some(out.into()),
            ..Outputs::default()
        };
        self.run(q.into(), k.into(), v.into(), outputs, scratch)
    }

    /// All heads and batch entries, with any of the outputs.
    ///
    /// Errors, before anything is written: [`Error::Shape`] if a view does not fit the plan, [`Error::Short`] if the
    /// scratch is less than [`need`](Exact::need).
    pub fn run<'v>(
        &self,
        q: TensorRef<'v, f32>,
        k: TensorRef<'v, f32>,
        v: TensorRef<'v, f32>,
        mut outputs: Outputs<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        let input = self.input(q, k, v)?;
        let Input { shape, isa, .. } = input;
        outputs.check(&shape)?;
        let biased = self.rules.limits() || outputs.scores.is_some();
        let mut scratch = scratch.scope();
        let mut block = Block::take(
            &mut scratch,
            &shape,
            kernels::block_lanes(isa),
            self.run_length(),
            biased,
        )?;
        let promise = if self.bound {
            rounding(&input)
        } else {
            Rounding::UNKNOWN
        };
        let mut report = Report::new(isa);
        report.bound = promise.out;
        let group = shape.group();
        let pairs = shape.queries.saturating_mul(group);
        for batch in 0..shape.batch {
            for kv_head in 0..shape.kv_heads {
                for start in (0..pairs).step_by(block.lanes().max(1)) {
                    let place = Place {
                        batch,
                        kv_head,
                        group,
                        start,
                        used: (pairs - start).min(block.lanes()),
                    };
                    block.load(&input, &place);
                    outputs.block(&input, &place, &mut block, &mut report, &promise);
                }
            }
        }
        Ok(report)
    }

    /// How far rounding can put any entry of the output, and any log-sum-exp, off from real arithmetic. True for every
    /// input and for the arithmetic class of the back end; nothing is assumed about how roundings fall, so typical
    /// errors are hundreds of times smaller.
    ///
    /// Cost: one pass over queries, keys and values, and over all pairs where a bias or slopes are added. No scratch.
    /// Numbers that are not finite give [`Bound::UNKNOWN`](crate::Bound::UNKNOWN).
    pub fn rounding_bound<'v>(
        &self,
        q: impl Into<TensorRef<'v, f32>>,
        k: impl Into<TensorRef<'v, f32>>,
        v: impl Into<TensorRef<'v, f32>>,
    ) -> Result<Rounding, Error> {
        Ok(rounding(&self.input(q.into(), k.into(), v.into())?))
    }

    /// The views, if they are what was planned for.
    fn input<'v>(&self, q: TensorRef<'v, f32>, k: TensorRef<'v, f32>, v: TensorRef<'v, f32>) -> Result<Input<'v>, Error>
    where
        'a: 'v,
    {
        if Shape::of(&q, &k, &v)? != self.shape {
            return Err(Error::Shape);
        }
        Ok(Input {
            shape: self.shape,
            rules: self.rules,
            isa: self.isa.unwrap_or_else(Isa::best),
            q,
            k,
            v,
        })
    }
}

impl Outputs<'_> {
    fn check(&self, shape: &Shape) -> Result<(), Error> {
        let fits = |t: &TensorMut<'_, f32>, cols: usize| {
            (t.batch(), t.heads(), t.rows(), t.cols()) == (shape.batch, shape.query_heads, shape.queries, cols)
        };
        let all = self.out.as_ref().is_none_or(|t| fits(t, shape.value_dim))
            && self.lse.as_ref().is_none_or(|t| fits(t, 1))
            && self
                .partials
                .as_ref()
                .is_none_or(|t| fits(t, Partial::width(shape.value_dim)))
            && self.scores.as_ref().is_none_or(|(_, t)| fits(t, shape.keys));
        if all {
            Ok(())
        } else {
            Err(Error::Shape)
        }
    }

    fn block(
        &mut self,
        input: &Input<'_>,
        place: &Place,
        block: &mut Block<'_>,
        report: &mut Report,
        promise: &Rounding,
    ) {
        let repeated = match &mut self.scores {
            None => block.run(input, place, &mut Unwatched),
            Some((stage, scores)) => block.run(input, place, &mut Written { stage: *stage, scores }),
        };
        report.repeated_blocks += usize::from(repeated);
        for lane in 0..place.used {
            self.finish(input, place.at(lane), lane, block, report, promise);
        }
    }

    /// Turns a lane into an output row.
    fn finish(
        &mut self,
        input: &Input<'_>,
        at: At,
        lane: usize,
        block: &mut Block<'_>,
        report: &mut Report,
        promise: &Rounding,
    ) {
        let number = |x: &[f32]| x.get(lane).copied().unwrap_or(0.0);
        let (mut max, mut sum, low) = (number(block.max), number(block.sum), number(block.low));
        let seen = sum != 0.0;
        // The sums of a row with a NaN score are NaN; an infinite score shows in the extremes.
        let mut finite = sum.is_finite() && max < f32::INFINITY && low > f32::NEG_INFINITY;
        let mut scale = 1.0;
        if let Some(logit) = input.rules.sink_logit2(at.head) {
            // The sink is the partial (logit, 1, 0), merged last.
            let reference = kernels::ceil_of(logit);
            let reference = if max > reference { max } else { reference };
            scale = kernels::weight_of(max, reference);
            sum = sum * scale + kernels::weight_of(logit, reference);
            max = reference;
        }
        let inverse = if sum == 0.0 { 0.0 } else { scale / sum };
        let lanes = block.lanes().max(1);
        let column = || block.out.get(lane..).unwrap_or(&[]).iter().step_by(lanes);
        finite &= column().all(|&x| (x * inverse).is_finite());
        report.masked_rows += usize::from(!seen && finite);
        report.non_finite_rows += usize::from(!finite);
        // One NaN for all machines.
        let result = |x: f32| if finite { x } else { f32::NAN };
        let At { batch, head, query } = at;
        if let Some(out) = &mut self.out {
            let row = out.row(batch, head, query).iter_mut();
            row.zip(column()).for_each(|(to, &x)| *to = result(x * inverse));
        }
        if let Some(to) = self.lse.as_mut().and_then(|t| t.row(batch, head, query).first_mut()) {
            *to = result(lse(max, sum));
        }
        if let Some(t) = &mut self.partials {
            let row = t.row(batch, head, query).iter_mut();
            let head = [result(max), result(sum), promise.mass, promise.out.value];
            let head = if seen || sum != 0.0 { head } else { Partial::EMPTY_HEAD };
            let values = column().map(|&x| result(x * inverse));
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
}

/// Scores written to the caller's tensor as they pass.
struct Written<'a, 'b> {
    stage: Stage,
    scores: &'a mut TensorMut<'b, f32>,
}

impl Written<'_, '_> {
    fn write(&mut self, place: &Place, first_key: usize, tile: &[f32], lanes: usize, factor: f32) {
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
            self.write(place, first_key, tile, lanes, core::f32::consts::LN_2);
        }
    }

    fn capped(&mut self, place: &Place, first_key: usize, tile: &[f32], lanes: usize) {
        if self.stage == Stage::Capped {
            self.write(place, first_key, tile, lanes, core::f32::consts::LN_2);
        }
    }

    fn shaped(&mut self, place: &Place, first_key: usize, tile: &[f32], lanes: usize) {
        match self.stage {
            Stage::Biased => self.write(place, first_key, tile, lanes, core::f32::consts::LN_2),
            // Kept in base 2 until the row's sum is known.
            Stage::Softmax => self.write(place, first_key, tile, lanes, 1.0),
            Stage::Raw | Stage::Capped => {}
        }
    }
}

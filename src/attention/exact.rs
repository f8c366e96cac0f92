//! Exact attention for many queries: every score, every key, O(1) memory per query.

mod rows;

use super::block::{Block, Input, Unwatched, MOST_LANES};
use super::certificate::{rounding, Loss, Order, Rounding};
use super::outputs::{check_layouts, Outputs, Written};
use super::rules::Rules;
use super::slots::Keys;
use super::source::{Rooms, Source};
use super::split::{Grain, Share, Task, Tasks};
use super::Shape;
use crate::error::Error;
use crate::kernels;
use crate::report::Report;
use crate::scratch::{Need, Scratch};
use crate::simd::Isa;
use crate::view::{Layout, MatMut, MatRef, RowsRef, TensorRef};

/// Exact attention. Rows are independent: the same bits however the queries are split among calls or threads.
///
/// Cost: `2 (dim + value_dim)` flops and one exponential per query and key; a block of queries reads its keys and values
/// once. Scratch: [`Exact::need`], which stops growing with queries and keys.
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
    loss: Loss,
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
                loss: Loss::NONE,
            }),
            Err(e) => Err(e),
        }
    }

    /// All at once, in place; a `run` of 0 is the built-in choice.
    pub(crate) fn from_parts(shape: Shape, rules: Rules<'a>, isa: Isa, run: usize) -> Result<Self, Error> {
        shape.check()?;
        rules.check(&shape)?;
        Ok(Exact {
            shape,
            rules,
            isa: Some(isa),
            run: if run == 0 { kernels::KEY_RUN } else { run },
            bound: false,
            loss: Loss::NONE,
        })
    }

    /// Shape, rules and back end.
    pub(crate) const fn parts(&self) -> (Shape, Rules<'a>, Option<Isa>) {
        (self.shape, self.rules, self.isa)
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
    /// takes more scratch. No bit of the result depends on it for values that are multiples of 2^-26, as all of at least
    /// 1/8 are; of finer ones, sums that cancel to less than 2^-126 may keep a trace.
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

    /// What making the stored keys and values has lost: the bound is then about the originals.
    #[must_use]
    pub const fn with_loss(mut self, loss: Loss) -> Self {
        self.loss = loss;
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
        outputs: Outputs<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        let promise = self.promise(&self.input(q, k, v)?.stored());
        self.run_promised(q, k, v, outputs, scratch, &promise)
    }

    /// [`run`](Exact::run) with a promise from elsewhere: what does not ask for one does not link the certificate.
    pub(crate) fn run_promised<'v>(
        &self,
        q: TensorRef<'v, f32>,
        k: TensorRef<'v, f32>,
        v: TensorRef<'v, f32>,
        mut outputs: Outputs<'_>,
        scratch: &mut Scratch<'_>,
        promise: &Rounding,
    ) -> Result<Report, Error> {
        let input = self.input(q, k, v)?;
        outputs.check(&input.shape)?;
        self.run_task(&input, &Task::all(&input.shape), &mut outputs, scratch, promise)
    }

    /// The work of [`run`](Exact::run) in up to `wanted` tasks, to be shared out among threads; see [`Share`].
    ///
    /// Fewer where the outputs do not lie in memory such that they can be cut, or have fewer rows than that. Several tasks
    /// per thread make up for those that take longer, as the last rows of causal attention do.
    ///
    /// Errors: [`Error::Shape`] if an output does not fit the plan, [`Error::Parameter`] if `wanted` is 0.
    pub fn share<'o>(&self, outputs: Outputs<'o>, wanted: usize) -> Result<Share<Outputs<'o>>, Error> {
        let tasks = self.tasks(&outputs.layouts(), wanted)?;
        Ok(Share::whole(tasks, outputs))
    }

    /// The tasks of a call with outputs that lie like this; those of [`share`](Exact::share), with its errors.
    pub(crate) fn tasks(&self, layouts: &[Option<&Layout>; 4], wanted: usize) -> Result<Tasks, Error> {
        check_layouts(layouts, &self.shape)?;
        let grain = Grain {
            group: true,
            panel: Some(kernels::block_lanes(self.isa.unwrap_or_else(Isa::best))),
        };
        Tasks::new(self.shape, layouts, grain, wanted)
    }

    /// A share of the work; the others may be done before, after, or at the same time. The reports of all, put together
    /// by [`Report::and`], are that of the whole, but for `repeated_blocks` where a group of heads was cut.
    ///
    /// Errors and scratch are those of [`run`](Exact::run), and [`Error::Shape`] if the share is of a plan for another
    /// shape. [`with_bound`](Exact::with_bound) looks at all of the input, whatever the share.
    pub fn run_share<'v>(
        &self,
        q: TensorRef<'v, f32>,
        k: TensorRef<'v, f32>,
        v: TensorRef<'v, f32>,
        share: Share<Outputs<'_>>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        let promise = self.promise(&self.input(q, k, v)?.stored());
        self.run_share_promised(q, k, v, share, scratch, &promise)
    }

    /// [`run_share`](Exact::run_share) with a promise from elsewhere.
    pub(crate) fn run_share_promised<'v>(
        &self,
        q: TensorRef<'v, f32>,
        k: TensorRef<'v, f32>,
        v: TensorRef<'v, f32>,
        share: Share<Outputs<'_>>,
        scratch: &mut Scratch<'_>,
        promise: &Rounding,
    ) -> Result<Report, Error> {
        self.run_tasks(&self.input(q, k, v)?, share, scratch, promise)
    }

    /// The promise of a run, if it was asked for.
    pub(super) fn promise(&self, input: &Keys<'_>) -> Rounding {
        if self.bound {
            rounding(input, Order::Chains, self.loss)
        } else {
            Rounding::UNKNOWN
        }
    }

    /// The tasks of a share, one after the other.
    pub(super) fn run_tasks(
        &self,
        input: &Input<'_>,
        share: Share<Outputs<'_>>,
        scratch: &mut Scratch<'_>,
        promise: &Rounding,
    ) -> Result<Report, Error> {
        share.each(&self.shape, |task, outputs| {
            self.run_task(input, task, outputs, scratch, promise)
        })
    }

    /// The rows of one task, wherever its outputs are.
    fn run_task<K: Source>(
        &self,
        input: &Input<'_, K>,
        task: &Task,
        outputs: &mut Outputs<'_>,
        scratch: &mut Scratch<'_>,
        promise: &Rounding,
    ) -> Result<Report, Error> {
        let biased = self.rules.limits() || outputs.scores.is_some();
        let lanes = kernels::block_lanes(input.isa);
        let run = self.run_length();
        let need = Block::need(&input.shape, lanes, run, biased);
        scratch.check(Rooms::<K>::need(need, &input.shape, run))?;
        let mut scratch = scratch.scope();
        let mut block = Block::take(&mut scratch, &input.shape, lanes, run, biased)?;
        let mut rooms = Rooms::<K>::take(&mut scratch, &input.shape, run)?;
        let mut report = Report::new(input.isa);
        report.bound = promise.out;
        let rows = block.rows();
        task.places(&input.shape, rows, |place| {
            block.load(input, place);
            report.repeated_blocks += match &mut outputs.scores {
                None => block.run(input, place, &mut rooms, &mut Unwatched),
                Some((stage, scores)) => block.run(input, place, &mut rooms, &mut Written { stage: *stage, scores }),
            };
            for row in 0..place.used {
                outputs.finish(input, promise, place.at(row), block.sums(row), &mut report);
            }
        });
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
        k: impl Into<RowsRef<'v>>,
        v: impl Into<RowsRef<'v>>,
    ) -> Result<Rounding, Error> {
        let input = self.rows_input(q.into(), k.into(), v.into())?;
        Ok(rounding(&input, Order::Chains, self.loss))
    }

    /// Keys and values that were checked.
    #[inline(always)]
    fn over<'v, K>(&'v self, q: TensorRef<'v, f32>, k: K, v: K) -> Input<'v, K> {
        Input {
            shape: self.shape,
            rules: &self.rules,
            isa: self.isa.unwrap_or_else(Isa::best),
            q,
            k,
            v,
        }
    }

    /// The views, if they are what was planned for. Inlined: out of line it costs firmware a hundred bytes more.
    #[inline(always)]
    pub(super) fn input<'v>(
        &'v self,
        q: TensorRef<'v, f32>,
        k: TensorRef<'v, f32>,
        v: TensorRef<'v, f32>,
    ) -> Result<Input<'v>, Error> {
        if Shape::of(&q, &k, &v)? != self.shape {
            return Err(Error::Shape);
        }
        Ok(self.over(q, k, v))
    }
}

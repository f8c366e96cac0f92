//! Exact attention for few queries against many keys, as in generating one token after the other.

mod work;

use super::block::Input;
use super::certificate::{rounding, Loss, Order, Rounding};
use super::exact::Exact;
use super::outputs::{check_layouts, Outputs};
use super::rules::Rules;
use super::slots::{Keys, Sequence};
use super::split::{Grain, Share, Task, Tasks};
use super::Shape;
use crate::error::Error;
use crate::report::Report;
use crate::scratch::{Need, Scratch};
use crate::simd::Isa;
use crate::view::{Layout, RowsRef, TensorRef};
use work::{Work, ROWS};

/// Exact attention whose cost is reading the keys and values once.
///
/// Same rules, outputs and errors as [`Exact`](super::Exact), another order of operations, hence other last bits: scores
/// are dot products in sixteen lanes and a halving tree, lane `l` sums the weights of keys `l`, `l + 16`, ..., outputs
/// are chains over the keys. A row's bits do not depend on the rows it is computed with. Nothing chooses between the two
/// plans but the caller: `Decode` pays while queries times heads of a group are at most 8 or so.
#[derive(Clone, Copy, Debug)]
pub struct Decode<'a> {
    shape: Shape,
    rules: Rules<'a>,
    isa: Option<Isa>,
    bound: bool,
    loss: Loss,
}

impl<'a> Decode<'a> {
    /// A plan for a shape, without rules, on the best back end.
    pub const fn new(shape: Shape) -> Result<Self, Error> {
        match shape.check() {
            Ok(()) => Ok(Decode {
                shape,
                rules: Rules::new(),
                isa: None,
                bound: false,
                loss: Loss::NONE,
            }),
            Err(e) => Err(e),
        }
    }

    /// The same shape, rules and back end, in the order of decoding.
    pub(crate) const fn from_exact(exact: &Exact<'a>) -> Self {
        let (shape, rules, isa) = exact.parts();
        Decode {
            shape,
            rules,
            isa,
            bound: false,
            loss: Loss::NONE,
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

    /// Puts [`rounding_bound`](Decode::rounding_bound) into the report and the partials of every run, at its cost.
    #[must_use]
    pub const fn with_bound(mut self) -> Self {
        self.bound = true;
        self
    }

    /// Scratch of a call, on any back end and with any outputs.
    #[must_use]
    pub const fn need(&self) -> Need {
        Work::need(&self.shape)
    }

    /// What making the stored keys and values has lost: the bound is then about the originals.
    #[must_use]
    pub const fn with_loss(mut self, loss: Loss) -> Self {
        self.loss = loss;
        self
    }

    /// All heads and batch entries, with any of the outputs. Errors as for [`Exact::run`](super::Exact::run).
    pub fn run<'v>(
        &self,
        q: TensorRef<'v, f32>,
        k: TensorRef<'v, f32>,
        v: TensorRef<'v, f32>,
        outputs: Outputs<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        self.run_rows(q, k.into(), v.into(), outputs, scratch)
    }

    /// As [`run`](Decode::run), with keys and values each in any format. Numbers are widened in registers, exactly, so that
    /// f16 and bf16 give the bits of their f32 values. Of integers the scale of a key multiplies its score, that of a value
    /// its weight: one rounding each, which the bound counts. The integers' own products with a query must be finite.
    pub fn run_rows<'v>(
        &self,
        q: TensorRef<'v, f32>,
        k: RowsRef<'v>,
        v: RowsRef<'v>,
        outputs: Outputs<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        let input = self.input(q, k, v)?;
        let promise = self.promise(&input);
        self.run_input(&input, outputs, scratch, &promise)
    }

    /// [`run`](Decode::run) with a promise from elsewhere: what does not ask for one does not link the certificate.
    pub(crate) fn run_promised<'v>(
        &self,
        q: TensorRef<'v, f32>,
        k: TensorRef<'v, f32>,
        v: TensorRef<'v, f32>,
        outputs: Outputs<'_>,
        scratch: &mut Scratch<'_>,
        promise: &Rounding,
    ) -> Result<Report, Error> {
        self.run_input(&self.input(q, k.into(), v.into())?, outputs, scratch, promise)
    }

    /// The work of [`run_rows`](Decode::run_rows) in up to `wanted` tasks, to be shared out among threads; see [`Share`].
    ///
    /// Batch entries, key heads and queries may be in different tasks; keys and the heads that read them are not, so that
    /// all are read once. Fewer tasks and errors as for [`Exact::share`](super::Exact::share).
    pub fn share<'o>(&self, outputs: Outputs<'o>, wanted: usize) -> Result<Share<Outputs<'o>>, Error> {
        let tasks = self.tasks(&outputs.layouts(), wanted)?;
        Ok(Share::whole(tasks, outputs))
    }

    /// The tasks of a call with outputs that lie like this; those of [`share`](Decode::share), with its errors.
    pub(crate) fn tasks(&self, layouts: &[Option<&Layout>; 4], wanted: usize) -> Result<Tasks, Error> {
        check_layouts(layouts, &self.shape)?;
        let grain = Grain {
            group: false,
            panel: Some(ROWS),
        };
        Tasks::new(self.shape, layouts, grain, wanted)
    }

    /// A share of the work, as [`Exact::run_share`](super::Exact::run_share).
    pub fn run_share<'v>(
        &self,
        q: TensorRef<'v, f32>,
        k: RowsRef<'v>,
        v: RowsRef<'v>,
        share: Share<Outputs<'_>>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        let input = self.input(q, k, v)?;
        self.run_tasks(&input, share, scratch, &self.promise(&input))
    }

    /// [`run_share`](Decode::run_share) with a promise from elsewhere.
    #[cfg(feature = "capi")]
    pub(crate) fn run_share_promised<'v>(
        &self,
        q: TensorRef<'v, f32>,
        k: TensorRef<'v, f32>,
        v: TensorRef<'v, f32>,
        share: Share<Outputs<'_>>,
        scratch: &mut Scratch<'_>,
        promise: &Rounding,
    ) -> Result<Report, Error> {
        self.run_tasks(&self.input(q, k.into(), v.into())?, share, scratch, promise)
    }

    /// The tasks of a share, one after the other.
    pub(super) fn run_tasks(
        &self,
        input: &Keys<'_>,
        share: Share<Outputs<'_>>,
        scratch: &mut Scratch<'_>,
        promise: &Rounding,
    ) -> Result<Report, Error> {
        share.each(&self.shape, |task, outputs| {
            self.run_task(input, task, outputs, scratch, promise)
        })
    }

    /// The promise about a call, if one is wanted.
    pub(super) fn promise(&self, input: &Keys<'_>) -> Rounding {
        if self.bound {
            rounding(input, Order::Lanes, self.loss)
        } else {
            Rounding::UNKNOWN
        }
    }

    /// A call over the keys of a cache, which has checked its own part of the shape.
    pub(super) fn attend(
        &self,
        shape: Shape,
        loss: impl FnOnce() -> Loss,
        [k, v]: [Sequence<'_>; 2],
        q: TensorRef<'_, f32>,
        outputs: Outputs<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        if shape != self.shape {
            return Err(Error::Shape);
        }
        let mut plan = *self;
        if self.bound {
            plan.loss = self.loss.plus(loss());
        }
        let input = plan.over(q, k, v);
        plan.run_input(&input, outputs, scratch, &plan.promise(&input))
    }

    /// What every call comes to.
    pub(super) fn run_input(
        &self,
        input: &Keys<'_>,
        mut outputs: Outputs<'_>,
        scratch: &mut Scratch<'_>,
        promise: &Rounding,
    ) -> Result<Report, Error> {
        outputs.check(&self.shape)?;
        self.run_task(input, &Task::all(&self.shape), &mut outputs, scratch, promise)
    }

    /// The rows of one task, wherever its outputs are.
    fn run_task(
        &self,
        input: &Keys<'_>,
        task: &Task,
        outputs: &mut Outputs<'_>,
        scratch: &mut Scratch<'_>,
        promise: &Rounding,
    ) -> Result<Report, Error> {
        scratch.check(self.need())?;
        let mut scratch = scratch.scope();
        let mut work = Work::take(&mut scratch, &self.shape)?;
        let mut report = Report::new(input.isa);
        report.bound = promise.out;
        task.places(&self.shape, ROWS, |place| {
            work.load(input, place);
            report.repeated_blocks += usize::from(work.run(input, place, outputs));
            for row in 0..place.used {
                outputs.finish(input, promise, place.at(row), work.sums(row), &mut report);
            }
        });
        Ok(report)
    }

    /// As [`Exact::rounding_bound`](super::Exact::rounding_bound), for this order of operations: scores and sums of weights
    /// meet a sixteenth of the roundings.
    pub fn rounding_bound<'v>(
        &self,
        q: impl Into<TensorRef<'v, f32>>,
        k: impl Into<RowsRef<'v>>,
        v: impl Into<RowsRef<'v>>,
    ) -> Result<Rounding, Error> {
        let input = self.input(q.into(), k.into(), v.into())?;
        Ok(rounding(&input, Order::Lanes, self.loss))
    }

    /// The views, if they are what was planned for.
    pub(super) fn input<'v>(
        &'v self,
        q: TensorRef<'v, f32>,
        k: RowsRef<'v>,
        v: RowsRef<'v>,
    ) -> Result<Keys<'v>, Error> {
        if Shape::of_rows(&q, &k, &v)? != self.shape {
            return Err(Error::Shape);
        }
        Ok(self.over(q, Sequence::straight(k), Sequence::straight(v)))
    }

    /// Keys and values that were checked elsewhere.
    pub(super) fn over<'v>(&'v self, q: TensorRef<'v, f32>, k: Sequence<'v>, v: Sequence<'v>) -> Keys<'v> {
        Input {
            shape: self.shape,
            rules: &self.rules,
            isa: self.isa.unwrap_or_else(Isa::best),
            q,
            k,
            v,
        }
    }
}

//! Many queries over keys and values in any format.

use super::Exact;
use crate::attention::certificate::Loss;
use crate::attention::outputs::Outputs;
use crate::attention::slots::{Keys, Sequence};
use crate::attention::source::Rooms;
use crate::attention::split::Task;
use crate::attention::Shape;
use crate::error::Error;
use crate::report::Report;
use crate::scratch::{Need, Scratch};
use crate::view::{RowsRef, TensorRef};

impl Exact<'_> {
    /// Scratch of [`run_rows`](Exact::run_rows) without score outputs: a run of keys and values more.
    #[must_use]
    pub const fn need_rows(&self) -> Need {
        Rooms::<Sequence<'_>>::need(self.need(), &self.shape, self.run_length())
    }

    /// Scratch of [`run_rows`](Exact::run_rows) with score outputs.
    #[must_use]
    pub const fn need_rows_with_scores(&self) -> Need {
        Rooms::<Sequence<'_>>::need(self.need_with_scores(), &self.shape, self.run_length())
    }

    /// As [`run`](Exact::run), with keys and values each in any format: the bits of `run` over the f32 numbers that they
    /// stand for. Of integers that is the product with the scale of their row, rounded once, which the bound counts.
    ///
    /// Cost: a block of queries widens a run of keys and values into scratch, once for all its queries, and reads it there;
    /// f32 is read where it lies. Errors as for [`run`](Exact::run), with the scratch of [`need_rows`](Exact::need_rows).
    pub fn run_rows<'v>(
        &self,
        q: TensorRef<'v, f32>,
        k: RowsRef<'v>,
        v: RowsRef<'v>,
        outputs: Outputs<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        self.run_keys(&self.rows_input(q, k, v)?, outputs, scratch)
    }

    /// A call over the keys of a cache, which has checked its own part of the shape.
    pub(in crate::attention) fn attend(
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
        plan.run_keys(&plan.over(q, k, v), outputs, scratch)
    }

    fn run_keys(&self, input: &Keys<'_>, mut outputs: Outputs<'_>, scratch: &mut Scratch<'_>) -> Result<Report, Error> {
        outputs.check(&self.shape)?;
        let promise = self.promise(input);
        self.run_task(input, &Task::all(&self.shape), &mut outputs, scratch, &promise)
    }

    /// As [`input`](Exact::input), in any format.
    pub(super) fn rows_input<'v>(
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
}

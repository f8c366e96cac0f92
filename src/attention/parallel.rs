//! Exact attention on the threads of rayon.

use super::block::Input;
use super::certificate::Rounding;
use super::exact::Exact;
use super::outputs::Outputs;
use super::split::Share;
use crate::error::Error;
use crate::report::Report;
use crate::scratch::{Need, Scratch};
use crate::view::TensorRef;
use std::sync::{Mutex, PoisonError};

/// Tasks per worker: enough that nobody waits long for the last of them, and few enough that each is worth its start.
const TASKS: usize = 8;

impl Exact<'_> {
    /// Scratch of [`run_parallel`](Exact::run_parallel) with so many workers: as many times that of one.
    #[must_use]
    pub const fn need_for(&self, workers: usize) -> Need {
        self.need().times(workers)
    }

    /// As [`need_for`](Exact::need_for), of a call with score outputs.
    #[must_use]
    pub const fn need_for_with_scores(&self, workers: usize) -> Need {
        self.need_with_scores().times(workers)
    }

    /// As [`run`](Exact::run), by up to `workers` threads of the current rayon pool at the same time. Same bits.
    ///
    /// Workers take the next of a number of tasks when they have done one: row blocks with all heads together where heads
    /// are packed in rows, heads and then row blocks of a head where these are contiguous. Every worker has its part of
    /// `scratch`, [`need_for`](Exact::need_for) in all. Nothing is allocated here; what rayon allocates, when its threads
    /// start, is rayon's.
    ///
    /// Errors, before anything is written: those of [`run`](Exact::run), and [`Error::Parameter`] if `workers` is 0.
    pub fn run_parallel<'v>(
        &self,
        q: TensorRef<'v, f32>,
        k: TensorRef<'v, f32>,
        v: TensorRef<'v, f32>,
        outputs: Outputs<'_>,
        workers: usize,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        let input = self.input(q, k, v)?;
        let need = if outputs.scores.is_some() {
            self.need_with_scores()
        } else {
            self.need()
        };
        let share = self.share(outputs, workers.saturating_mul(TASKS))?;
        scratch.check(need.times(workers))?;
        let crew = Crew {
            plan: self,
            input: &input,
            promise: &self.promise(&input.stored()),
            need,
            work: Mutex::new(Some(share)),
        };
        crew.run(workers, scratch.scope())
    }
}

/// What the workers have in common.
struct Crew<'c, 'a, 'o> {
    plan: &'c Exact<'a>,
    input: &'c Input<'c>,
    promise: &'c Rounding,
    /// Scratch of one.
    need: Need,
    /// What nobody has taken yet.
    work: Mutex<Option<Share<'o>>>,
}

impl<'o> Crew<'_, '_, 'o> {
    /// So many workers, who halve themselves and the scratch until each is alone.
    fn run(&self, workers: usize, mut scratch: Scratch<'_>) -> Result<Report, Error> {
        if workers <= 1 {
            return self.work(&mut scratch);
        }
        let half = workers / 2;
        let mut other = scratch.split(self.need.times(half))?;
        let (a, b) = rayon::join(|| self.run(half, other.scope()), || self.run(workers - half, scratch));
        Ok(a?.and(b?))
    }

    /// One worker: task after task until there is none.
    fn work(&self, scratch: &mut Scratch<'_>) -> Result<Report, Error> {
        let mut report = Report::new(self.input.isa);
        report.bound = self.promise.out;
        while let Some(task) = self.next() {
            let done = self.plan.run_tasks(self.input, task, scratch, self.promise)?;
            report = report.and(done);
        }
        Ok(report)
    }

    /// The last task that is left. The last rows of causal attention take longest: better soon than late.
    fn next(&self) -> Option<Share<'o>> {
        // Nobody panics while holding it.
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let (rest, task) = work.take().map(|all| {
            let before = all.len().saturating_sub(1);
            all.split_at(before)
        })?;
        *work = Some(rest);
        (!task.is_empty()).then_some(task)
    }
}

//! Attention on the threads of rayon.

use super::decode::Decode;
use super::exact::Exact;
use super::gradient::{Gradient, Gradients, Upstream};
use super::outputs::Outputs;
use super::split::{Share, Split};
use crate::error::Error;
use crate::report::Report;
use crate::scratch::{Need, Scratch};
use crate::view::{RowsRef, TensorRef};
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
        let promise = self.promise(&input.stored());
        let mut idle = Report::new(input.isa);
        idle.bound = promise.out;
        let run = |share: Share<_>, scratch: &mut Scratch<'_>| self.run_tasks(&input, share, scratch, &promise);
        Crew::new(share, need, idle, run).run(workers, scratch.scope())
    }
}

impl Decode<'_> {
    /// Scratch of [`run_parallel`](Decode::run_parallel) with so many workers: as many times that of one.
    #[must_use]
    pub const fn need_for(&self, workers: usize) -> Need {
        self.need().times(workers)
    }

    /// As [`run_rows`](Decode::run_rows), by up to `workers` threads of the current rayon pool at the same time. Same bits.
    ///
    /// The tasks are those of [`share`](Decode::share): one kv head and up to eight rows have one reader. The rest is as for
    /// [`Exact::run_parallel`].
    pub fn run_parallel<'v>(
        &self,
        q: TensorRef<'v, f32>,
        k: RowsRef<'v>,
        v: RowsRef<'v>,
        outputs: Outputs<'_>,
        workers: usize,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        let input = self.input(q, k, v)?;
        let share = self.share(outputs, workers.saturating_mul(TASKS))?;
        scratch.check(self.need_for(workers))?;
        let promise = self.promise(&input);
        let mut idle = Report::new(input.isa);
        idle.bound = promise.out;
        let run = |share: Share<_>, scratch: &mut Scratch<'_>| self.run_tasks(&input, share, scratch, &promise);
        Crew::new(share, self.need(), idle, run).run(workers, scratch.scope())
    }
}

impl Gradient<'_> {
    /// Scratch of [`run_parallel`](Gradient::run_parallel) with so many workers: as many times that of one.
    #[must_use]
    pub const fn need_for(&self, workers: usize) -> Need {
        self.need().times(workers)
    }

    /// As [`run`](Gradient::run), by up to `workers` threads of the current rayon pool at the same time. Same bits.
    ///
    /// The tasks are those of [`share`](Gradient::share): batch entries and kv heads, where the gradients lie apart in
    /// memory and share no bias. The rest is as for [`Exact::run_parallel`].
    pub fn run_parallel<'v>(
        &self,
        [q, k, v]: [TensorRef<'v, f32>; 3],
        upstream: Upstream<'_>,
        to: Gradients<'_>,
        workers: usize,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        let input = self.input(q, k, v, &upstream)?;
        let share = self.share(to, workers.saturating_mul(TASKS))?;
        scratch.check(self.need_for(workers))?;
        let run = |share: Share<_>, scratch: &mut Scratch<'_>| self.run_tasks(&input, &upstream, share, scratch);
        Crew::new(share, self.need(), Report::new(input.isa), run).run(workers, scratch.scope())
    }
}

/// What the workers have in common.
struct Crew<T, F> {
    /// What nobody has taken yet.
    work: Mutex<Option<Share<T>>>,
    /// Scratch of one.
    need: Need,
    /// What a worker says who finds nothing to do.
    idle: Report,
    /// How to do a share.
    run: F,
}

impl<T, F> Crew<T, F>
where
    T: Split + Send,
    F: Fn(Share<T>, &mut Scratch<'_>) -> Result<Report, Error> + Sync,
{
    fn new(share: Share<T>, need: Need, idle: Report, run: F) -> Self {
        Crew {
            work: Mutex::new(Some(share)),
            need,
            idle,
            run,
        }
    }

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
        let mut report = self.idle;
        while let Some(task) = self.next() {
            report = report.and((self.run)(task, scratch)?);
        }
        Ok(report)
    }

    /// The last task that is left. The last rows of causal attention take longest: better soon than late.
    fn next(&self) -> Option<Share<T>> {
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

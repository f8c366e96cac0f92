//! The gradient of exact attention.

mod gradients;
mod panels;
mod upstream;

use super::block::{Input, MOST_LANES};
use super::rules::Rules;
use super::split::{Grain, Share, Task, Tasks};
use super::{Exact, Shape};
use crate::error::Error;
use crate::kernels;
use crate::report::Report;
use crate::scratch::{Need, Scratch};
use crate::simd::Isa;
use crate::view::{Layout, TensorRef};
pub use gradients::Gradients;
pub(super) use panels::padded;
use panels::Panels;
pub use upstream::{Saved, Upstream};

/// The gradient of [`Exact`], from the gradient of its output: scores are computed again, and the [`Saved`] log-sum-exp, or
/// sums, make probabilities of them.
///
/// With `P = exp(scores - lse)` and `delta = <out, d_out> - d_lse`, row by row,
///
/// ```text
/// dS = P (d_out V^T - delta)      dV = P^T d_out                        summed over the group of query heads
/// dbias = dS                      dK = scale (dS [1 - tanh^2])^T Q      likewise; tanh of score / cap with a soft-cap
/// dsink = -sum exp(sink - lse) delta      dQ = scale (dS [1 - tanh^2]) K
/// ```
///
/// Masks, windows, sinks and all other [`Rules`] mean what they mean forwards. A masked key is not multiplied and gets
/// nothing; a row that sees no key gives zeros. A row with a non-finite number (of q, d_out, delta, or of what was saved, as
/// the forward call leaves it where it saw a non-finite score or value) makes NaN of its dQ, of dK and dV of every key that
/// it sees, of their bias, and of the sink of its head, whichever of these are wanted. A sum that is not finite is NaN, one
/// bit pattern.
///
/// Order: each number is one chain. dQ over the keys; dK and dV over the queries, and over the heads of the group for each;
/// bias over batch entries, then kv heads, then as dK, for those that share an entry; sinks over batch entries, then
/// queries. So bits do not depend on the machine inside an arithmetic class. Batch entries and kv heads (with their query
/// heads) are independent but for a bias that they share: that is how to [share](Gradient::share) the work among threads.
///
/// Cost: `6 dim + 4 value_dim` flops and one exponential per query and key. Scratch: [`Gradient::need`], which stops
/// growing with queries and keys.
///
/// Error, entry by entry, against the gradient in real arithmetic of the numbers given, with `u = 2^-24`,
/// `gamma(n) = n u / (1 - n u)`, `t = 2^-149` for what falls below the smallest normal number, and primes for what was
/// computed (no more than the number itself and its error):
///
/// ```text
/// score       E = its error in Rounding's derivation, L = that of the log of the sum
/// P           off by P (exp(h) - 1) + 2^-99, as less is cut, with
///               lse        h = E + L + u (2 |lse| + |score - lse|) + 1.63e-7     L with the roundings of lse itself;
///                          its product with log2 e, the difference, 2^x
///               partials   h = E + L + u (1 + |score - max ln 2|) + 1.63e-7      the quotient 1 / sum, the difference, 2^x
/// d_out V^T   g = gamma(value_dim + 1) sum |d_out v| + n t (value_dim + sum |v|)      n = 1, with partials sum
/// delta       e = gamma(value_dim / 16 + 6) sum |out' d_out| + sum |d_out| (error of out) + 2 u |delta'|
///               + n t (value_dim + 1)
/// dS          z = |P - P'| G + P (g + e) + gamma(2) P' G + t      G = |d_out V^T - delta| + g + e
///               with a cap y = z s' + |dS| f + u |dS'| s' + t     s = 1 - tanh^2, f = 0.77 E / cap + 8 u; E before the cap
/// dQ          scale (sum y |k| + gamma(keys + 4) sum |dS' s' k| + keys t) + t         without a cap y = z, s = 1
/// dK          scale (sum y |q| + gamma(rows + 4) sum |dS' s' q| + rows t) + t         rows = queries of the whole group
/// dV          sum |P - P'| |d_out| + gamma(rows + 2) sum |P' d_out| + rows t
/// bias, sink  sum z + gamma(terms) sum |dS'|; sinks with P that of the sink and d_out V^T = 0
/// ```
///
/// ```
/// use subquad::attention::{Exact, Gradient, Gradients, Outputs, Saved, Upstream};
/// use subquad::{MatMut, MatRef, Scratch};
/// # fn main() -> Result<(), subquad::Error> {
/// let (q, k, v) = ([1.0, 0.0], [1.0, 0.0, 0.0, 1.0], [1.0, 2.0]);
/// let (q, k, v) = (MatRef::new(&q, 1, 2)?, MatRef::new(&k, 2, 2)?, MatRef::new(&v, 2, 1)?);
/// let (forward, backward) = (Exact::for_views(q, k, v)?, Gradient::for_views(q, k, v)?);
/// let mut work = vec![core::mem::MaybeUninit::uninit(); forward.need().or(backward.need()).bytes()];
///
/// let (mut out, mut lse) = ([0.0], [0.0]);
/// let outputs = Outputs {
///     out: Some(MatMut::new(&mut out, 1, 1)?.into()),
///     lse: Some(MatMut::new(&mut lse, 1, 1)?.into()),
///     ..Outputs::default()
/// };
/// let _ = forward.run(q.into(), k.into(), v.into(), outputs, &mut Scratch::new(&mut work))?;
///
/// // How the values should change to make the output larger: by their probabilities.
/// let (d_out, mut dv) = ([1.0], [0.0; 2]);
/// let upstream = Upstream {
///     out: MatRef::new(&out, 1, 1)?.into(),
///     d_out: MatRef::new(&d_out, 1, 1)?.into(),
///     saved: Saved::Lse(MatRef::new(&lse, 1, 1)?.into()),
///     d_lse: None,
/// };
/// let gradients = Gradients { v: Some(MatMut::new(&mut dv, 2, 1)?.into()), ..Gradients::default() };
/// let _ = backward.run(q.into(), k.into(), v.into(), upstream, gradients, &mut Scratch::new(&mut work))?;
/// assert!((dv[0] - 0.6698).abs() < 1e-4 && (dv[0] + dv[1] - 1.0).abs() < 1e-6);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Gradient<'a> {
    shape: Shape,
    rules: Rules<'a>,
    isa: Option<Isa>,
}

impl<'a> Gradient<'a> {
    /// A plan for a shape, without rules, on the best back end.
    pub const fn new(shape: Shape) -> Result<Self, Error> {
        match shape.check() {
            Ok(()) => Ok(Gradient {
                shape,
                rules: Rules::new(),
                isa: None,
            }),
            Err(e) => Err(e),
        }
    }

    /// With the shape, rules and back end of a forward plan.
    pub(crate) const fn from_exact(exact: &Exact<'a>) -> Self {
        let (shape, rules, isa) = exact.parts();
        Gradient { shape, rules, isa }
    }

    /// A plan for the shape of three views.
    pub fn for_views<'v>(
        q: impl Into<TensorRef<'v, f32>>,
        k: impl Into<TensorRef<'v, f32>>,
        v: impl Into<TensorRef<'v, f32>>,
    ) -> Result<Self, Error> {
        Self::new(Shape::of(&q.into(), &k.into(), &v.into())?)
    }

    /// The rules of the forward call; checked against the shape.
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

    /// Scratch of a call: that of the forced back end, or enough for any that this build has.
    #[must_use]
    pub const fn need(&self) -> Need {
        let lanes = match self.isa {
            Some(isa) => kernels::block_lanes(isa),
            None => MOST_LANES,
        };
        Panels::need(&self.shape, lanes, self.rules.limits(), self.rules.has_cap())
    }

    /// All heads and batch entries, any of the gradients.
    ///
    /// Errors, before anything is written: [`Error::Shape`] if a view does not fit the plan, or a gradient is wanted of a
    /// bias or sinks that the rules do not have; [`Error::Short`] if the scratch is less than [`need`](Gradient::need).
    pub fn run<'v>(
        &self,
        q: TensorRef<'v, f32>,
        k: TensorRef<'v, f32>,
        v: TensorRef<'v, f32>,
        upstream: Upstream<'_>,
        mut to: Gradients<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        let input = self.input(q, k, v, &upstream)?;
        to.check(&self.shape, &self.rules)?;
        self.run_task(&input, &upstream, &Task::all(&self.shape), &mut to, scratch)
    }

    /// The work of [`run`](Gradient::run) in up to `wanted` tasks, to be shared out among threads; see [`Share`].
    ///
    /// A task is some batch entries, or some kv heads of one, with all their queries and keys. Entries and heads that add
    /// to the same number of the bias's gradient are never in different tasks: a bias of one batch entry for all leaves
    /// batch entries together, one of one head leaves heads together. Sinks are no such sum; the first task has all of
    /// theirs. Nor is anything cut that does not lie apart in memory: heads that are packed side by side in rows stay
    /// together, and where batch entries do, so do heads inside of them.
    ///
    /// Errors: [`Error::Shape`] as for [`run`](Gradient::run), [`Error::Parameter`] if `wanted` is 0.
    pub fn share<'o>(&self, to: Gradients<'o>, wanted: usize) -> Result<Share<Gradients<'o>>, Error> {
        let tasks = self.tasks(&to.layouts(), to.sinks(), wanted)?;
        Ok(Share::whole(tasks, to))
    }

    /// The tasks of a call with gradients that lie like this, and of so many sinks; those of [`share`](Gradient::share),
    /// with its errors.
    pub(crate) fn tasks(
        &self,
        layouts: &[Option<&Layout>; 4],
        sinks: Option<usize>,
        wanted: usize,
    ) -> Result<Tasks, Error> {
        gradients::check(layouts, sinks, &self.shape, &self.rules)?;
        let grain = Grain {
            group: false,
            panel: None,
        };
        Tasks::new(self.shape, layouts, grain, wanted)
    }

    /// A share of the work; the others may be done before, after, or at the same time. The reports of all, put together
    /// by [`Report::and`], are that of the whole.
    ///
    /// Errors and scratch are those of [`run`](Gradient::run), and [`Error::Shape`] if the share is of a plan for another
    /// shape.
    pub fn run_share<'v>(
        &self,
        q: TensorRef<'v, f32>,
        k: TensorRef<'v, f32>,
        v: TensorRef<'v, f32>,
        upstream: Upstream<'_>,
        share: Share<Gradients<'_>>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        self.run_tasks(&self.input(q, k, v, &upstream)?, &upstream, share, scratch)
    }

    /// The tasks of a share, one after the other.
    pub(super) fn run_tasks(
        &self,
        input: &Input<'_>,
        upstream: &Upstream<'_>,
        share: Share<Gradients<'_>>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        share.each(&self.shape, |task, to| {
            to.check(&self.shape, &self.rules)?;
            self.run_task(input, upstream, task, to, scratch)
        })
    }

    /// The heads of one task, and all sinks where nobody has done them.
    fn run_task(
        &self,
        input: &Input<'_>,
        upstream: &Upstream<'_>,
        task: &Task,
        to: &mut Gradients<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        let shape = &self.shape;
        let mut scratch = scratch.scope();
        let (lanes, limits, capped) = (
            kernels::block_lanes(input.isa),
            self.rules.limits(),
            self.rules.has_cap(),
        );
        let mut panels = Panels::take(&mut scratch, shape, lanes, limits, capped)?;
        let mut report = Report::new(input.isa);
        to.clear(task, shape);
        for batch in task.batch.clone() {
            for kv_head in task.kv_heads.clone() {
                panels.head(input, upstream, (batch, kv_head), to, &mut report);
            }
        }
        to.settle(task, shape, self.rules.scale_of(shape.dim));
        if let Some(sinks) = to.sink_logits.take() {
            upstream.sum_sinks(input, sinks);
        }
        Ok(report)
    }

    /// The views, if they are what was planned for.
    pub(super) fn input<'v>(
        &'v self,
        q: TensorRef<'v, f32>,
        k: TensorRef<'v, f32>,
        v: TensorRef<'v, f32>,
        upstream: &Upstream<'_>,
    ) -> Result<Input<'v>, Error> {
        if Shape::of(&q, &k, &v)? != self.shape {
            return Err(Error::Shape);
        }
        upstream.check(&self.shape)?;
        Ok(Input {
            shape: self.shape,
            rules: &self.rules,
            isa: self.isa.unwrap_or_else(Isa::best),
            q,
            k,
            v,
        })
    }
}

//! Exact attention for many queries: every score, every key, O(1) memory per query.

use super::block::{block_rows, Block, Input, Place, Unwatched, MOST_LANES};
use super::certificate::{rounding, Loss, Order, Rounding};
use super::outputs::{Outputs, Written};
use super::rules::Rules;
use super::Shape;
use crate::error::Error;
use crate::kernels;
use crate::report::Report;
use crate::scratch::{Need, Scratch};
use crate::simd::Isa;
use crate::view::{MatMut, MatRef, TensorRef};

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

    /// All at once, in place; a `run` of 0 is the built-in choice.
    #[cfg(feature = "capi")]
    pub(crate) fn from_parts(shape: Shape, rules: Rules<'a>, isa: Isa, run: usize) -> Result<Self, Error> {
        shape.check()?;
        rules.check(&shape)?;
        Ok(Exact {
            shape,
            rules,
            isa: Some(isa),
            run: if run == 0 { kernels::KEY_RUN } else { run },
            bound: false,
        })
    }

    /// Shape, rules and back end.
    #[cfg(feature = "capi")]
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
        let promise = if self.bound {
            rounding(&self.input(q, k, v)?.stored(), Order::Chains, Loss::NONE)
        } else {
            Rounding::UNKNOWN
        };
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
        let mut report = Report::new(isa);
        report.bound = promise.out;
        let group = shape.group();
        let pairs = shape.queries.saturating_mul(group);
        let rows = block_rows(&shape, kernels::block_lanes(isa));
        for batch in 0..shape.batch {
            for kv_head in 0..shape.kv_heads {
                for start in (0..pairs).step_by(rows.max(1)) {
                    let used = (pairs - start).min(rows);
                    let place = Place {
                        batch,
                        kv_head,
                        group,
                        start,
                        used,
                    };
                    block.load(&input, &place);
                    report.repeated_blocks += match &mut outputs.scores {
                        None => block.run(&input, &place, &mut Unwatched),
                        Some((stage, scores)) => block.run(&input, &place, &mut Written { stage: *stage, scores }),
                    };
                    for row in 0..used {
                        outputs.finish(&input, promise, place.at(row), block.sums(row), &mut report);
                    }
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
        let input = self.input(q.into(), k.into(), v.into())?.stored();
        Ok(rounding(&input, Order::Chains, Loss::NONE))
    }

    /// The views, if they are what was planned for. Inlined: out of line it costs firmware a hundred bytes more.
    #[inline(always)]
    fn input<'v>(
        &'v self,
        q: TensorRef<'v, f32>,
        k: TensorRef<'v, f32>,
        v: TensorRef<'v, f32>,
    ) -> Result<Input<'v>, Error> {
        if Shape::of(&q, &k, &v)? != self.shape {
            return Err(Error::Shape);
        }
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

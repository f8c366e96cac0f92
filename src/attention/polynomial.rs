//! Attention by power sums: time and memory that do not grow with the product of queries and keys.

mod head;
pub(super) mod keys;
mod row;

use super::certificate::Rounding;
use super::outputs::Outputs;
use super::{Exact, Rules, Shape};
use crate::error::Error;
use crate::moment::{self, series::MOST_DEGREE};
use crate::report::Report;
use crate::scratch::{Need, Scratch};
use crate::simd::Isa;
use crate::view::{MatMut, MatRef, TensorRef};
use head::Head;

/// Polynomial attention in the sense of Alman and Song: e^s becomes a polynomial of degree g, and all keys become
/// `t (value_dim + 1)` power sums, `t = C(dim + g, g)`, which every query asks once.
///
/// Which polynomial is decided per query, after the sums are made, see [`moment::Attend`]; so is its promise, f32 rounding
/// included. A row whose promise is worse than [`with_tolerance`](Polynomial::with_tolerance) allows is computed
/// exactly instead, and counted in [`Report::exact_rows`]: with a tolerance, the bound of the report is always within it, or
/// that of exact attention.
///
/// It is for small `dim`, bounded scores, or a temperature of one's own: with the keys centred, what decides is
/// `beta = scale max |q| max |k - mean|`. Of 162 heads of two trained networks none is small enough; see the planner.
///
/// Causal attention ([`with_causal`](Polynomial::with_causal)) takes rows in chunks: keys before the chunk by the sums,
/// those inside exactly, one [`Partial`](super::Partial) each, merged.
///
/// Cost: `2 t (value_dim + 1)` flops per key and again per query. Scratch: [`need`](Polynomial::need), which does not
/// depend on queries and keys. Bits do not depend on how queries are put into calls, but for causal chunks.
///
/// ```
/// use subquad::{attention::Polynomial, MatMut, MatRef, Scratch};
/// # fn main() -> Result<(), subquad::Error> {
/// // Keys on a line, values of their sign: the output is tanh of the query.
/// let (q, k, v) = ([0.25, -0.5], [1.0, -1.0, 1.0, -1.0], [1.0, -1.0, 1.0, -1.0]);
/// let (q, k, v) = (MatRef::new(&q, 2, 1)?, MatRef::new(&k, 4, 1)?, MatRef::new(&v, 4, 1)?);
/// let plan = Polynomial::for_views(q, k, v, 6)?.with_scale(1.0)?.with_tolerance(1e-3)?;
/// let mut work = vec![core::mem::MaybeUninit::uninit(); plan.need().bytes()];
/// let mut out = [0.0; 2];
/// let report = plan.forward(q, k, v, MatMut::new(&mut out, 2, 1)?, &mut Scratch::new(&mut work))?;
/// assert!((out[0] - 0.25f32.tanh()).abs() <= report.bound.value);
/// assert!(report.bound.value <= 1e-3 * 2.0 && report.exact_rows == 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Polynomial {
    shape: Shape,
    degree: usize,
    scale: Option<f32>,
    causal: Option<usize>,
    tolerance: f32,
    isa: Option<Isa>,
}

/// Rows of a chunk of causal attention, and queries that are computed exactly at once.
pub(super) const CHUNK: usize = 128;

impl Polynomial {
    /// A plan for a shape and a degree of 1 to 16; any promise is good enough. [`Error::Parameter`] for other degrees,
    /// [`Error::Overflow`] where the sums do not fit the address space.
    pub const fn new(shape: Shape, degree: usize) -> Result<Self, Error> {
        if degree == 0 || degree > MOST_DEGREE {
            return Err(Error::Parameter);
        }
        let plan = Polynomial {
            shape,
            degree,
            scale: None,
            causal: None,
            tolerance: f32::INFINITY,
            isa: None,
        };
        match (shape.check(), plan.moments().state_len()) {
            (Err(e), _) | (Ok(()), Err(e)) => Err(e),
            (Ok(()), Ok(_)) => Ok(plan),
        }
    }

    /// A plan for the shape of three views.
    pub fn for_views<'v>(
        q: impl Into<TensorRef<'v, f32>>,
        k: impl Into<TensorRef<'v, f32>>,
        v: impl Into<TensorRef<'v, f32>>,
        degree: usize,
    ) -> Result<Self, Error> {
        Self::new(Shape::of(&q.into(), &k.into(), &v.into())?, degree)
    }

    /// What products are multiplied with; `1 / sqrt(dim)` otherwise. [`Error::Parameter`] unless finite.
    pub const fn with_scale(mut self, scale: f32) -> Result<Self, Error> {
        if !scale.is_finite() {
            return Err(Error::Parameter);
        }
        self.scale = Some(scale);
        Ok(self)
    }

    /// Query i sees the keys up to `i + offset`.
    #[must_use]
    pub const fn with_causal(mut self, offset: usize) -> Self {
        self.causal = Some(offset);
        self
    }

    /// The promise that every row must keep, in ranges of the values (the largest difference inside a column); rows that
    /// cannot are computed exactly. [`Error::Parameter`] unless it is at least 0.
    pub const fn with_tolerance(mut self, tolerance: f32) -> Result<Self, Error> {
        if tolerance.is_nan() || tolerance < 0.0 {
            return Err(Error::Parameter);
        }
        self.tolerance = tolerance;
        Ok(self)
    }

    /// Forces a back end.
    #[must_use]
    pub const fn with_isa(mut self, isa: Isa) -> Self {
        self.isa = Some(isa);
        self
    }

    /// Numbers of the state: what is left of the keys, `t (value_dim + 1)` and a block of tokens.
    #[must_use]
    pub const fn state_len(&self) -> usize {
        match self.moments().state_len() {
            Ok(len) => len,
            Err(_) => usize::MAX,
        }
    }

    /// Scratch of a call: of the forced back end, or enough for any that this build has.
    #[must_use]
    pub const fn need(&self) -> Need {
        Head::need(self)
    }

    /// The sizes of the state of a head.
    const fn moments(&self) -> moment::Shape {
        moment::Shape::new(self.shape.dim, self.shape.value_dim, self.degree).with_compensation()
    }

    /// The rules of exact attention that say the same.
    const fn rules(&self) -> Rules<'static> {
        match self.scale {
            Some(scale) => Rules::new().with_scale(scale),
            None => Rules::new(),
        }
    }

    /// Exact attention of some of the queries with some of the keys of one head.
    fn exact(&self, queries: usize, keys: usize) -> Result<Exact<'static>, Error> {
        let Shape { dim, value_dim, .. } = self.shape;
        let exact = Exact::new(Shape::head(queries, keys, dim, value_dim))?.with_rules(self.rules())?;
        Ok(match self.isa {
            Some(isa) => exact.with_isa(isa),
            None => exact,
        })
    }

    /// `out = softmax(scores) v` for one head.
    pub fn forward(
        &self,
        q: MatRef<'_, f32>,
        k: MatRef<'_, f32>,
        v: MatRef<'_, f32>,
        out: MatMut<'_, f32>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        let outputs = Outputs {
            out: Some(out.into()),
            ..Outputs::default()
        };
        self.run(q.into(), k.into(), v.into(), outputs, scratch)
    }

    /// All heads and batch entries, with output, log-sum-exp and partials as they are wanted.
    ///
    /// Errors, before anything is written: [`Error::Shape`] if a view does not fit the plan, [`Error::Unsupported`] if scores
    /// are wanted, [`Error::NonFinite`], [`Error::Range`] if keys are farther than 2^60 from their mean, [`Error::Short`] for
    /// less scratch than [`need`](Polynomial::need).
    pub fn run(
        &self,
        q: TensorRef<'_, f32>,
        k: TensorRef<'_, f32>,
        v: TensorRef<'_, f32>,
        mut outputs: Outputs<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        if Shape::of(&q, &k, &v)? != self.shape {
            return Err(Error::Shape);
        }
        if outputs.scores.is_some() {
            return Err(Error::Unsupported);
        }
        outputs.check(&self.shape)?;
        scratch.check(self.need())?;
        for x in [&q, &k, &v] {
            keys::check_finite(x)?;
        }
        let mut report = Report::new(self.isa.unwrap_or_else(Isa::best));
        report.bound = Rounding::NONE.out;
        for batch in 0..self.shape.batch {
            for kv_head in 0..self.shape.kv_heads {
                let head = Head::new(self, [&q, &k, &v], batch, kv_head, scratch.scope())?;
                report = report.and(head.run(&mut outputs)?);
            }
        }
        Ok(report)
    }
}

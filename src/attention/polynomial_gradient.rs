//! The gradient of polynomial attention: time and memory that do not grow with the product of queries and keys.

mod exactly;
mod head;
mod promise;

use super::polynomial::keys;
use super::{Rules, Shape};
use crate::bound::{up, Bound};
use crate::error::Error;
use crate::moment::{self, series};
use crate::report::Report;
use crate::scratch::{Need, Scratch};
use crate::simd::Isa;
use crate::view::{TensorMut, TensorRef};
use head::Head;
use promise::Series;

/// The gradient of attention in which a polynomial p of fixed coefficients stands for e^s, in three passes over power sums:
///
/// ```text
/// keys      Z += m(k) [v, 1]                                              m the monomials of (k - c) / rho
/// queries   N = m(q) Z by degree, D, out = N / D;   u = [d_out, -<out, d_out>] / D
///           dq = the derivative of <m(q) Z, u>;     G += m(q) u
/// keys      dv = m(k) G;   dk = the derivative of <m(k) G, [v, 1]>
/// ```
///
/// So it is the gradient of what it computes forwards, p' for e^s and all, with the centre c of the keys held fixed: in
/// exact arithmetic finite differences of that output agree with it. p is Taylor's polynomial, or one of least
/// relative error ([`with_minimax`](PolynomialGradient::with_minimax)).
///
/// Promise: [`Report::bound`] is at least `|dq~ - dq|`, as a length, for every row by the sums, against the gradient of
/// [`Exact`](super::Exact) in real arithmetic for the scale as f32 has it; all f32 rounding and underflow is in it.
/// A row whose promise is worse than [`with_tolerance`](PolynomialGradient::with_tolerance) allows, or that has
/// none (a sum of weights that may not be positive, a score beyond the reach of the polynomial), goes to
/// [`Gradient`](super::Gradient) with all it adds to dk and dv, and is counted in [`Report::exact_rows`]; its error is the one
/// that is stated there. Nothing is promised of dk, dv and the output.
///
/// Cost: about `t (12 value_dim + 26)` flops for a query and a key together, `t = C(dim + g, g)`, and of the order of a
/// thousand for the promise of a query: `benches/polynomial_gradient.rs` has it pay from 2 to 10 t tokens on. Scratch:
/// [`need`](PolynomialGradient::need): about `6 t (value_dim + 2)` numbers and `2 t` for each lane of a block, whatever the number of
/// queries and keys. Bits do not depend on the machine inside an arithmetic class; those of dq not on how queries
/// are put into calls.
///
/// ```
/// use subquad::attention::{Aim, PolynomialGradient, PolynomialGradients};
/// use subquad::{MatMut, MatRef, Scratch};
/// # fn main() -> Result<(), subquad::Error> {
/// // Keys on a line, values of their sign: the output is tanh of the query, and so its derivative is 1 - tanh^2.
/// let (q, k, d_out) = ([0.25, -0.5], [1.0, -1.0, 1.0, -1.0], [1.0, 1.0]);
/// let (q, k, d_out) = (MatRef::new(&q, 2, 1)?, MatRef::new(&k, 4, 1)?, MatRef::new(&d_out, 2, 1)?);
/// let plan = PolynomialGradient::for_views(q, k, k, 8)?.with_scale(1.0)?.with_tolerance(1e-3)?;
/// let mut work = vec![core::mem::MaybeUninit::uninit(); plan.need().bytes()];
/// let mut dq = [0.0; 2];
/// let to = PolynomialGradients { q: Some(MatMut::new(&mut dq, 2, 1)?.into()), ..Default::default() };
/// let report = plan.run(q.into(), k.into(), k.into(), Aim::Upstream(d_out.into()), to, &mut Scratch::new(&mut work))?;
/// assert!((dq[0] - (1.0 - 0.25f32.tanh().powi(2))).abs() <= report.bound.value);
/// assert!(report.bound.value < 1e-3 * 2.1 && report.exact_rows == 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PolynomialGradient {
    shape: Shape,
    degree: usize,
    series: Series,
    scale: Option<f32>,
    tolerance: f32,
    isa: Option<Isa>,
}

/// What the gradient is of. Both are `(batch, query_heads, queries, value_dim)`.
#[derive(Clone, Copy, Debug)]
pub enum Aim<'a> {
    /// Whatever has this gradient by the output.
    Upstream(TensorRef<'a, f32>),
    /// Half the sum of squares of the output less this: d_out is the difference.
    Target(TensorRef<'a, f32>),
}

/// What is wanted; all is overwritten.
#[derive(Debug, Default)]
pub struct PolynomialGradients<'a> {
    /// The output itself, which is made on the way.
    pub out: Option<TensorMut<'a, f32>>,
    /// Of the queries, in their shape.
    pub q: Option<TensorMut<'a, f32>>,
    /// Of the keys, in their shape.
    pub k: Option<TensorMut<'a, f32>>,
    /// Of the values, in their shape.
    pub v: Option<TensorMut<'a, f32>>,
}

/// As far as keys and queries may be from their middle.
const FAR: f32 = (1u64 << 60) as f32;

impl PolynomialGradient {
    /// A plan for a shape and Taylor's polynomial of a degree from 1 to 16; any promise is good enough. [`Error::Parameter`] for
    /// other degrees, [`Error::Overflow`] where the sums do not fit the address space.
    pub fn new(shape: Shape, degree: usize) -> Result<Self, Error> {
        if degree == 0 {
            return Err(Error::Parameter);
        }
        let coefficients = series::TAYLOR.get(..=degree).ok_or(Error::Parameter)?;
        let plan = PolynomialGradient {
            shape,
            degree,
            series: Series {
                coefficients,
                minimax: None,
            },
            scale: None,
            tolerance: f32::INFINITY,
            isa: None,
        };
        shape.check()?;
        plan.of_queries().state_len()?;
        Ok(plan)
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

    /// The polynomial of least relative error for scores up to `reach` about the centre of the keys, instead of Taylor's.
    /// Rows that may have others go to exact attention. [`Error::Parameter`] where [`series::minimax`] has none.
    pub fn with_minimax(mut self, reach: f32) -> Result<Self, Error> {
        let of = series::minimax(self.degree, reach).ok_or(Error::Parameter)?;
        self.series = Series {
            coefficients: of.coefficients,
            minimax: Some((of.reach, of.error)),
        };
        Ok(self)
    }

    /// What products are multiplied with; `1 / sqrt(dim)` otherwise. [`Error::Parameter`] unless finite.
    pub const fn with_scale(mut self, scale: f32) -> Result<Self, Error> {
        if !scale.is_finite() {
            return Err(Error::Parameter);
        }
        self.scale = Some(scale);
        Ok(self)
    }

    /// The promise that every row must keep, in units of `scale max |k - c| sum over columns of |d_out| (range of the
    /// values)`: no gradient is larger than that. [`Error::Parameter`] unless it is at least 0.
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

    /// Scratch of a call: of the forced back end, or enough for any that this build has.
    #[must_use]
    pub fn need(&self) -> Need {
        Head::need(self)
    }

    /// The sizes of what is left of keys and values.
    const fn of_keys(&self) -> moment::Shape {
        moment::Shape::new(self.shape.dim, self.shape.value_dim, self.degree).with_compensation()
    }

    /// The sizes of what is left of queries, whose values are u.
    const fn of_queries(&self) -> moment::Shape {
        moment::Shape::new(self.shape.dim, self.shape.value_dim.saturating_add(1), self.degree).with_compensation()
    }

    /// The rules of exact attention that say the same.
    const fn rules(&self) -> Rules<'static> {
        match self.scale {
            Some(scale) => Rules::new().with_scale(scale),
            None => Rules::new(),
        }
    }

    fn tau(&self) -> f32 {
        self.rules().scale_of(self.shape.dim)
    }

    /// All heads and batch entries.
    ///
    /// Errors, before anything is written: [`Error::Shape`] if a view does not fit the plan, [`Error::NonFinite`],
    /// [`Error::Range`] if keys are 2^60 or farther from their mean, or queries so long, or the scale times such a length is
    /// not finite, [`Error::Short`] for less scratch than [`need`](PolynomialGradient::need).
    pub fn run(
        &self,
        q: TensorRef<'_, f32>,
        k: TensorRef<'_, f32>,
        v: TensorRef<'_, f32>,
        aim: Aim<'_>,
        mut to: PolynomialGradients<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        let Shape {
            batch,
            query_heads,
            kv_heads,
            queries,
            keys,
            dim,
            value_dim,
        } = self.shape;
        let (Aim::Upstream(given) | Aim::Target(given)) = aim;
        let given_shape = [given.batch(), given.heads(), given.rows(), given.cols()];
        let fits = |t: &Option<TensorMut<'_, f32>>, shape| t.as_ref().is_none_or(|t| t.layout().shape() == shape);
        let of_out = [batch, query_heads, queries, value_dim];
        if Shape::of(&q, &k, &v)? != self.shape
            || given_shape != of_out
            || !fits(&to.out, of_out)
            || !fits(&to.q, [batch, query_heads, queries, dim])
            || !fits(&to.k, [batch, kv_heads, keys, dim])
            || !fits(&to.v, [batch, kv_heads, keys, value_dim])
        {
            return Err(Error::Shape);
        }
        scratch.check(self.need())?;
        for x in [&q, &k, &v, &given] {
            keys::check_finite(x)?;
        }
        self.check_reach(&q, &k, scratch)?;
        let mut report = Report::new(self.isa.unwrap_or_else(Isa::best));
        report.bound = Bound::certain(0.0);
        for batch in 0..batch {
            for kv_head in 0..kv_heads {
                let head = Head::new(self, [&q, &k, &v], aim, (batch, kv_head), scratch.scope())?;
                report = report.and(head.run(&mut to)?);
            }
        }
        Ok(report)
    }

    /// [`Error::Range`] for lengths that the states do not take.
    fn check_reach(
        &self,
        q: &TensorRef<'_, f32>,
        k: &TensorRef<'_, f32>,
        scratch: &mut Scratch<'_>,
    ) -> Result<(), Error> {
        let mut scratch = scratch.scope();
        let centre = scratch.take(self.shape.dim)?;
        // Scales are powers of two that are less than twice the length.
        let near = |length: f32| length < FAR && up(2.0 * length * self.tau().abs()).is_finite();
        for batch in 0..self.shape.batch {
            for head in 0..self.shape.kv_heads {
                let k = k.matrix(batch, head);
                keys::centre(k, centre);
                if !near(keys::radius(k, centre)) {
                    return Err(Error::Range);
                }
            }
            for head in 0..self.shape.query_heads {
                if !near(keys::longest(q.matrix(batch, head))) {
                    return Err(Error::Range);
                }
            }
        }
        Ok(())
    }
}

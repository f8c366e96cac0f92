//! The gradient of exact attention.

mod panels;

use super::block::{Input, MOST_LANES};
use super::rules::{At, Rules};
use super::{Exact, Shape};
use crate::error::Error;
use crate::kernels;
use crate::report::Report;
use crate::scratch::{Need, Scratch};
use crate::simd::Isa;
use crate::view::{TensorMut, TensorRef};
pub(super) use panels::padded;
use panels::{settle, Panels};

/// The gradient of [`Exact`], from the gradient of its output: scores are computed again, and the saved
/// log-sum-exp makes probabilities of them.
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
/// nothing; a row that sees no key gives zeros. A row with a non-finite number (of q, d_out, lse, delta, or of a key or
/// value that it sees) makes NaN of its dQ, of dK and dV of every key that it sees, of their bias, and of the sink of its
/// head. A sum that is not finite is NaN, one bit pattern.
///
/// Order: each number is one chain. dQ over the keys; dK and dV over the queries, and over the heads of the group for each;
/// bias over batch entries, then kv heads, then as dK, for those that share an entry; sinks over batch entries, then
/// queries. So bits do not depend on the machine inside an arithmetic class. Batch entries and kv heads (with their query
/// heads) are independent: that is how to share the work among threads.
///
/// Cost: `6 dim + 4 value_dim` flops and one exponential per query and key. Scratch: [`Gradient::need`], which stops
/// growing with queries and keys.
///
/// Error, entry by entry, against the gradient in real arithmetic of the numbers given, with `u = 2^-24`,
/// `gamma(n) = n u / (1 - n u)`:
///
/// ```text
/// score       E = its error in Rounding's derivation; and those of lse, which are the forward call's L and u |lse| for
///             the product with log2 e (1.3 u), and u |score - lse| for the difference
/// P           off by P (exp(h) - 1), h = E + L + u (2 |lse| + |score - lse|) + 1.63e-7, or cut below 2^-100
/// d_out V^T   g = gamma(value_dim) sum |d_out v|
/// delta       e = gamma(value_dim / 16 + 6) sum |out d_out| + sum |d_out| (error of out) + u |delta|
/// dS          z = |P - P'| (|dP - delta| + g + e) + P (g + e) + 2 u |dS|; with a cap t = tanh, slope 1 - t^2 off by
///             2 |t| (E / cap + 5 u) + 4 u
/// dQ          scale (sum z |k| + gamma(keys + 4) sum |dS k|)
/// dK          scale (sum z |q| + gamma(rows + 4) sum |dS q|), rows = queries of all heads of the group
/// dV          sum |P - P'| |d_out| + gamma(rows + 1) sum |P d_out|
/// bias, sink  sum z + gamma(terms) sum |dS|; sinks likewise with P that of the sink
/// ```
///
/// ```
/// use subquad::attention::{Exact, Gradient, Gradients, Outputs, Upstream};
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
///     lse: MatRef::new(&lse, 1, 1)?.into(),
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

/// What the forward call gave, and what comes back for it. All are `(batch, query_heads, queries, ...)`.
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a> {
    /// The attention output, `value_dim` columns.
    pub out: TensorRef<'a, f32>,
    /// Its gradient, `value_dim` columns.
    pub d_out: TensorRef<'a, f32>,
    /// Log-sum-exp of the forward call, one column.
    pub lse: TensorRef<'a, f32>,
    /// Its gradient, one column, if anything depends on it.
    pub d_lse: Option<TensorRef<'a, f32>>,
}

/// Where gradients go; each is optional, and overwritten.
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// Of the queries, in their shape.
    pub q: Option<TensorMut<'a, f32>>,
    /// Of the keys, in their shape.
    pub k: Option<TensorMut<'a, f32>>,
    /// Of the values, in their shape.
    pub v: Option<TensorMut<'a, f32>>,
    /// Of the bias, in its shape, repeated axes of 1 included: there it is a sum.
    pub bias: Option<TensorMut<'a, f32>>,
    /// Of the learned sinks, one per query head.
    pub sink_logits: Option<&'a mut [f32]>,
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
        let shape = self.shape;
        if Shape::of(&q, &k, &v)? != shape {
            return Err(Error::Shape);
        }
        upstream.check(&shape)?;
        to.check(&shape, &self.rules)?;
        let isa = self.isa.unwrap_or_else(Isa::best);
        let input = Input {
            shape,
            rules: &self.rules,
            isa,
            q,
            k,
            v,
        };
        let mut scratch = scratch.scope();
        let (lanes, limits, capped) = (kernels::block_lanes(isa), self.rules.limits(), self.rules.has_cap());
        let mut panels = Panels::take(&mut scratch, &shape, lanes, limits, capped)?;
        let mut report = Report::new(isa);
        to.clear();
        for batch in 0..shape.batch {
            for kv_head in 0..shape.kv_heads {
                panels.head(&input, &upstream, (batch, kv_head), &mut to, &mut report);
            }
        }
        to.settle(self.rules.scale_of(shape.dim));
        Ok(report)
    }
}

impl Upstream<'_> {
    fn check(&self, shape: &Shape) -> Result<(), Error> {
        let fits = |t: &TensorRef<'_, f32>, cols: usize| {
            (t.batch(), t.heads(), t.rows(), t.cols()) == (shape.batch, shape.query_heads, shape.queries, cols)
        };
        let all = fits(&self.out, shape.value_dim)
            && fits(&self.d_out, shape.value_dim)
            && fits(&self.lse, 1)
            && self.d_lse.as_ref().is_none_or(|t| fits(t, 1));
        if all {
            Ok(())
        } else {
            Err(Error::Shape)
        }
    }

    /// Log-sum-exp and delta of a row.
    fn row(&self, isa: Isa, at: At) -> [f32; 2] {
        fn row<'t>(t: &TensorRef<'t, f32>, at: At) -> &'t [f32] {
            t.matrix(at.batch, at.head).row(at.query)
        }
        let number = |t: &TensorRef<'_, f32>| row(t, at).first().copied().unwrap_or(0.0);
        let dot = kernels::dot(isa, row(&self.out, at), row(&self.d_out, at));
        let d_lse = self.d_lse.as_ref().map_or(0.0, number);
        [number(&self.lse), dot - d_lse]
    }
}

/// Shape of a tensor.
macro_rules! shape_of {
    ($t:expr) => {
        [$t.batch(), $t.heads(), $t.rows(), $t.cols()]
    };
}

impl Gradients<'_> {
    fn check(&self, shape: &Shape, rules: &Rules<'_>) -> Result<(), Error> {
        let Shape {
            batch,
            query_heads,
            kv_heads,
            queries,
            keys,
            dim,
            value_dim,
        } = *shape;
        let wanted = [
            (&self.q, Some([batch, query_heads, queries, dim])),
            (&self.k, Some([batch, kv_heads, keys, dim])),
            (&self.v, Some([batch, kv_heads, keys, value_dim])),
            (&self.bias, rules.bias().map(|b| shape_of!(b))),
        ];
        let tensors = wanted
            .iter()
            .all(|(t, fits)| t.as_ref().is_none_or(|t| Some(shape_of!(t)) == *fits));
        let sinks = self
            .sink_logits
            .as_ref()
            .is_none_or(|to| rules.sink_logits().is_some_and(|x| x.len() == to.len()));
        if tensors && sinks {
            Ok(())
        } else {
            Err(Error::Shape)
        }
    }

    /// What is summed over queries starts at 0.
    fn clear(&mut self) {
        for t in [&mut self.k, &mut self.v, &mut self.bias].into_iter().flatten() {
            each_row(t, |row| row.fill(0.0));
        }
        if let Some(sinks) = &mut self.sink_logits {
            sinks.fill(0.0);
        }
    }

    /// The sums as they are handed out.
    fn settle(&mut self, scale: f32) {
        let sums = [(&mut self.k, scale), (&mut self.v, 1.0), (&mut self.bias, 1.0)];
        for (t, scale) in sums {
            if let Some(t) = t {
                each_row(t, |row| {
                    settle(row, scale);
                });
            }
        }
        if let Some(sinks) = &mut self.sink_logits {
            settle(sinks, 1.0);
        }
    }
}

fn each_row(t: &mut TensorMut<'_, f32>, mut f: impl FnMut(&mut [f32])) {
    for batch in 0..t.batch() {
        for head in 0..t.heads() {
            for row in 0..t.rows() {
                f(t.row(batch, head, row));
            }
        }
    }
}

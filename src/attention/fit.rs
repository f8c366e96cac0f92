//! Attention whose queries and values are linear in parameters, fitted to a target.

use super::block::MOST_LANES;
use super::gradient::{padded, Gradient, Gradients, Saved, Upstream};
use super::outputs::Outputs;
use super::rules::Rules;
use super::{Exact, Shape};
use crate::error::Error;
use crate::kernels::{self, Span, Weighted};
use crate::report::Report;
use crate::scratch::{Need, Scratch};
use crate::simd::Isa;
use crate::view::{MatMut, MatRef};

/// How far attention with parameters is from a target, and which way to move the parameters:
///
/// ```text
/// L(X, Y) = 1/2 || D^-1 exp(A1 X A2^T / d) A3 Y - E ||^2      the squares of all entries, D the row sums of the exp
/// dL/dX = A1^T dQ        dL/dY = A3^T dV                      dQ, dV of Gradient for d_out = out - E
/// ```
///
/// This is attention of queries `A1 X`, keys `A2` and values `A3 Y`, with scale `1 / d`.
///
/// Cost: [`Exact`] and [`Gradient`], and products with the parameters. Scratch: [`Fit::need`], which grows with the rows
/// of the inputs and never with their product. Order: products are chains over their inner dimension, the rest is that of
/// the two plans, so bits depend on the arithmetic class only.
///
/// Error: that of the two plans for the queries and values as f32 has them; in each product `gamma(n)` of the sums of
/// magnitudes and 2^-149 a term, where n is rows of X for `A1 X`, rows of Y for `A3 Y`, queries for `A1^T dQ` and keys for
/// `A3^T dV`; and for the loss `gamma(queries + columns / 16 + 8)` of it.
#[derive(Clone, Copy, Debug)]
pub struct Fit<'a> {
    shape: Shape,
    /// Rows of X and of Y.
    parameters: [usize; 2],
    rules: Rules<'a>,
    isa: Option<Isa>,
}

/// What a fit reads.
#[derive(Clone, Copy, Debug)]
pub struct FitInputs<'a> {
    /// A1, of which queries are made: queries x rows of X.
    pub queries: MatRef<'a, f32>,
    /// A2, the keys: keys x dim.
    pub keys: MatRef<'a, f32>,
    /// A3, of which values are made: keys x rows of Y.
    pub values: MatRef<'a, f32>,
    /// X: its rows x dim.
    pub x: MatRef<'a, f32>,
    /// Y: its rows x value_dim.
    pub y: MatRef<'a, f32>,
    /// E, the target: queries x value_dim.
    pub target: MatRef<'a, f32>,
}

/// Which gradients are wanted; they are overwritten.
#[derive(Debug, Default)]
pub struct FitGradients<'a> {
    /// dL/dX, in the shape of X.
    pub x: Option<MatMut<'a, f32>>,
    /// dL/dY, in the shape of Y.
    pub y: Option<MatMut<'a, f32>>,
}

impl<'a> Fit<'a> {
    /// A plan for the shapes of these inputs, without masks, scale 1 / dim. [`Error::Shape`] if they do not fit each other.
    pub fn for_inputs(inputs: &FitInputs<'_>) -> Result<Self, Error> {
        let FitInputs {
            queries,
            keys,
            values,
            x,
            y,
            target,
        } = inputs;
        let fits = queries.cols() == x.rows()
            && keys.cols() == x.cols()
            && values.rows() == keys.rows()
            && values.cols() == y.rows()
            && target.rows() == queries.rows()
            && target.cols() == y.cols();
        if !fits {
            return Err(Error::Shape);
        }
        let shape = Shape::head(queries.rows(), keys.rows(), x.cols(), y.cols());
        shape.check()?;
        Ok(Fit {
            shape,
            parameters: [x.rows(), y.rows()],
            rules: Rules::new().with_scale(1.0 / x.cols().max(1) as f32),
            isa: None,
        })
    }

    /// Other rules, their scale included.
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
    pub fn need(&self) -> Result<Need, Error> {
        let (exact, gradient) = self.plans()?;
        let (lanes, s) = (self.lanes(), &self.shape);
        let columns = if s.dim > s.value_dim { s.dim } else { s.value_dim };
        let most = exact.need().or(gradient.need()).or(Product::need(lanes, columns));
        let all = self.pieces().into_iter().fold(Need::NONE, |need, n| need.and::<f32>(n));
        Ok(all.then(most))
    }

    fn lanes(&self) -> usize {
        self.isa.map_or(MOST_LANES, kernels::block_lanes)
    }

    fn plans(&self) -> Result<(Exact<'a>, Gradient<'a>), Error> {
        let exact = Exact::new(self.shape)?.with_rules(self.rules)?;
        let exact = match self.isa {
            Some(isa) => exact.with_isa(isa),
            None => exact,
        };
        Ok((exact, Gradient::from_exact(&exact)))
    }

    /// Numbers of queries, values, outputs, their gradients, and log-sum-exps.
    fn pieces(&self) -> [usize; 7] {
        let s = &self.shape;
        let (q, v) = (s.queries.saturating_mul(s.dim), s.keys.saturating_mul(s.value_dim));
        let out = s.queries.saturating_mul(s.value_dim);
        [q, v, out, q, v, out, s.queries]
    }

    /// The loss, and the gradients that are wanted. The report is that of the gradient, or of the forward call if none is.
    ///
    /// Errors, before anything is written: [`Error::Shape`] if a view does not fit the plan, [`Error::Short`] if the
    /// scratch is less than [`need`](Fit::need).
    pub fn run(
        &self,
        inputs: &FitInputs<'_>,
        to: FitGradients<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<(f32, Report), Error> {
        let other = Self::for_inputs(inputs)?;
        let [x_rows, y_rows] = self.parameters;
        let fits =
            |m: &Option<MatMut<'_, f32>>, rows, cols| m.as_ref().is_none_or(|m| (m.rows(), m.cols()) == (rows, cols));
        let s = self.shape;
        if (other.shape, other.parameters) != (s, self.parameters)
            || !fits(&to.x, x_rows, s.dim)
            || !fits(&to.y, y_rows, s.value_dim)
        {
            return Err(Error::Shape);
        }
        scratch.check(self.need()?)?;
        let isa = self.isa.unwrap_or_else(Isa::best);
        let (exact, gradient) = self.plans()?;
        let mut scratch = scratch.scope();
        let [n_q, n_v, n_out, n_dq, n_dv, n_d_out, n_lse] = self.pieces();
        let (q, v, out) = (scratch.take(n_q)?, scratch.take(n_v)?, scratch.take(n_out)?);
        let (dq, dv, d_out) = (scratch.take(n_dq)?, scratch.take(n_dv)?, scratch.take(n_d_out)?);
        let lse = scratch.take(n_lse)?;

        let product = Product { isa };
        product.add(
            inputs.queries,
            false,
            inputs.x,
            MatMut::new(q, s.queries, s.dim)?,
            &mut scratch,
        )?;
        product.add(
            inputs.values,
            false,
            inputs.y,
            MatMut::new(v, s.keys, s.value_dim)?,
            &mut scratch,
        )?;
        let (q, v) = (MatRef::new(q, s.queries, s.dim)?, MatRef::new(v, s.keys, s.value_dim)?);
        let outputs = Outputs {
            out: Some(MatMut::new(out, s.queries, s.value_dim)?.into()),
            lse: Some(MatMut::new(lse, s.queries, 1)?.into()),
            ..Outputs::default()
        };
        let mut report = exact.run(q.into(), inputs.keys.into(), v.into(), outputs, &mut scratch)?;

        let mut loss = 0.0;
        let rows = out
            .chunks_exact(s.value_dim.max(1))
            .zip(d_out.chunks_exact_mut(s.value_dim.max(1)));
        for (i, (out, d_out)) in rows.enumerate() {
            let wanted = out.iter().zip(inputs.target.row(i));
            d_out.iter_mut().zip(wanted).for_each(|(d, (&out, &e))| *d = out - e);
            loss += kernels::dot(isa, d_out, d_out);
        }
        if to.x.is_some() || to.y.is_some() {
            let upstream = Upstream {
                out: MatRef::new(out, s.queries, s.value_dim)?.into(),
                d_out: MatRef::new(d_out, s.queries, s.value_dim)?.into(),
                saved: Saved::Lse(MatRef::new(lse, s.queries, 1)?.into()),
                d_lse: None,
            };
            let wanted = Gradients {
                q: Some(MatMut::new(dq, s.queries, s.dim)?.into()),
                v: Some(MatMut::new(dv, s.keys, s.value_dim)?.into()),
                ..Gradients::default()
            };
            report = gradient.run(q.into(), inputs.keys.into(), v.into(), upstream, wanted, &mut scratch)?;
        }
        if let Some(mut x) = to.x {
            clear(&mut x);
            product.add(
                inputs.queries,
                true,
                MatRef::new(dq, s.queries, s.dim)?,
                x,
                &mut scratch,
            )?;
        }
        if let Some(mut y) = to.y {
            clear(&mut y);
            product.add(
                inputs.values,
                true,
                MatRef::new(dv, s.keys, s.value_dim)?,
                y,
                &mut scratch,
            )?;
        }
        Ok((0.5 * loss, report))
    }
}

fn clear(m: &mut MatMut<'_, f32>) {
    for row in 0..m.rows() {
        m.row(row).fill(0.0);
    }
}

/// Products of matrices, with the kernel that sums keys' gradients: weights are a tile of the left one.
struct Product {
    isa: Isa,
}

impl Product {
    /// Rows of a result that are made at once.
    const ROWS: usize = kernels::KEY_RUN / 2;

    fn need(lanes: usize, columns: usize) -> Need {
        Need::NONE
            .and::<f32>(Self::ROWS * lanes)
            .and::<f32>(padded(columns).saturating_mul(lanes))
    }

    /// `to += a b`, or `to += a^T b`: each entry a chain over the inner dimension, in order.
    fn add(
        &self,
        a: MatRef<'_, f32>,
        transposed: bool,
        b: MatRef<'_, f32>,
        mut to: MatMut<'_, f32>,
        scratch: &mut Scratch<'_>,
    ) -> Result<(), Error> {
        let lanes = kernels::block_lanes(self.isa);
        let width = padded(b.cols());
        let mut scratch = scratch.scope();
        let weights = scratch.take::<f32>(Self::ROWS * lanes)?;
        let rows = scratch.take::<f32>(width.saturating_mul(lanes))?;
        for inner in (0..b.rows()).step_by(lanes) {
            let used = (b.rows() - inner).min(lanes);
            for (lane, row) in rows.chunks_exact_mut(width.max(1)).take(used).enumerate() {
                row.iter_mut().zip(b.row(inner + lane)).for_each(|(to, &x)| *to = x);
            }
            for start in (0..to.rows()).step_by(Self::ROWS) {
                let count = (to.rows() - start).min(Self::ROWS);
                for (key, tile) in weights.chunks_exact_mut(lanes).take(count).enumerate() {
                    for (lane, to) in tile.iter_mut().take(used).enumerate() {
                        let (row, col) = match transposed {
                            false => (start + key, inner + lane),
                            true => (inner + lane, start + key),
                        };
                        *to = a.row(row).get(col).copied().unwrap_or(0.0);
                    }
                }
                let weighted = Weighted {
                    weights,
                    keys: Self::ROWS,
                    rows,
                    width,
                    used,
                    spans: &[Span { first: 0, last: count }],
                };
                kernels::weighted_rows(self.isa, &weighted, &mut to.row_range(start..start + count));
            }
        }
        Ok(())
    }
}

//! Rows that are computed exactly, some at a time, with what they add to the gradients of keys and values.

use super::{PolynomialGradient, PolynomialGradients};
use crate::attention::polynomial::CHUNK;
use crate::attention::{Exact, Gradient, Gradients, Outputs, Partial, Saved, Shape, Upstream};
use crate::error::Error;
use crate::scratch::{Need, Scratch};
use crate::simd::Isa;
use crate::view::{MatMut, MatRef};

/// A list of rows, and the memory that they are computed in.
pub(super) struct Exactly<'s> {
    shape: Shape,
    isa: Isa,
    plan: PolynomialGradient,
    count: usize,
    places: &'s mut [u64],
    queries: &'s mut [f32],
    given: &'s mut [f32],
    partials: &'s mut [f32],
    sums: &'s mut [f32],
    parts: [&'s mut [f32]; 3],
}

impl<'s> Exactly<'s> {
    /// Sizes of the pieces after the list.
    fn pieces(shape: &Shape) -> [usize; 7] {
        let Shape { dim, value_dim, .. } = *shape;
        [dim, value_dim, Partial::width(value_dim), dim, dim, dim, value_dim].map(|n| CHUNK.saturating_mul(n))
    }

    pub(super) fn own_need(plan: &PolynomialGradient) -> Need {
        let pieces = Self::pieces(&plan.shape).into_iter();
        pieces.fold(Need::NONE.and::<u64>(CHUNK), |need, n| need.and::<f32>(n))
    }

    /// What a run takes besides.
    pub(super) fn need(plan: &PolynomialGradient) -> Need {
        let Shape {
            keys, dim, value_dim, ..
        } = plan.shape;
        let plans = (
            Exact::new(Shape::head(CHUNK, keys, dim, value_dim)),
            Gradient::new(Shape::head(CHUNK, CHUNK, dim, value_dim)),
        );
        let (Ok(exact), Ok(gradient)) = plans else {
            return Need::NONE.and::<f32>(usize::MAX);
        };
        match plan.isa {
            Some(isa) => exact.with_isa(isa).need().or(gradient.with_isa(isa).need()),
            None => exact.need().or(gradient.need()),
        }
    }

    pub(super) fn new(plan: &PolynomialGradient, isa: Isa, scratch: &mut Scratch<'s>) -> Result<Self, Error> {
        let [n_q, n_given, n_partials, n_sums, n_dq, n_dk, n_dv] = Self::pieces(&plan.shape);
        Ok(Exactly {
            shape: plan.shape,
            isa,
            plan: *plan,
            count: 0,
            places: scratch.take(CHUNK)?,
            queries: scratch.take(n_q)?,
            given: scratch.take(n_given)?,
            partials: scratch.take(n_partials)?,
            sums: scratch.take(n_sums)?,
            parts: [scratch.take(n_dq)?, scratch.take(n_dk)?, scratch.take(n_dv)?],
        })
    }

    pub(super) const fn full(&self) -> bool {
        self.count >= CHUNK
    }

    /// One more row of the head at hand.
    pub(super) fn add(&mut self, query: usize) {
        if let Some(place) = self.places.get_mut(self.count) {
            *place = query as u64;
            self.count += 1;
        }
    }

    /// All rows of the list, which is empty then. `given` is d_out, or with `aimed` what the output is to be.
    pub(super) fn run(
        &mut self,
        [q, k, v, given]: [MatRef<'_, f32>; 4],
        aimed: bool,
        (batch, head, kv_head): (usize, usize, usize),
        to: &mut PolynomialGradients<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<(), Error> {
        let count = core::mem::take(&mut self.count);
        if count == 0 {
            return Ok(());
        }
        let Shape { dim, value_dim, .. } = self.shape;
        let listed = || self.places.iter().take(count).map(|&place| place as usize);
        for (from, rows, width) in [(q, &mut *self.queries, dim), (given, &mut *self.given, value_dim)] {
            for (row, place) in rows.chunks_exact_mut(width.max(1)).zip(listed()) {
                row.iter_mut().zip(from.row(place)).for_each(|(to, &x)| *to = x);
            }
        }
        let queries = MatRef::new(self.queries, count, dim)?;
        let width = Partial::width(value_dim);
        let exact = Exact::new(Shape::head(count, k.rows(), dim, value_dim))?.with_rules(self.plan.rules())?;
        let outputs = Outputs {
            partials: Some(MatMut::new(self.partials, count, width)?.into()),
            ..Outputs::default()
        };
        let _ = exact
            .with_isa(self.isa)
            .run(queries.into(), k.into(), v.into(), outputs, scratch)?;
        let partials = MatRef::new(self.partials, count, width)?;
        let out = partials.col_range(Partial::HEAD..width);
        for (i, place) in listed().enumerate() {
            if aimed {
                let rows = self.given.chunks_exact_mut(value_dim.max(1)).nth(i).unwrap_or_default();
                rows.iter_mut().zip(out.row(i)).for_each(|(e, o)| *e = o - *e);
            }
            if let Some(to) = &mut to.out {
                copy(to.row(batch, head, place), out.row(i));
            }
        }
        self.sums.fill(0.0);
        for first in (0..k.rows()).step_by(CHUNK) {
            let range = first..k.rows().min(first + CHUNK);
            let (k, v, len) = (k.row_range(range.clone()), v.row_range(range.clone()), range.len());
            let upstream = Upstream {
                out: out.into(),
                d_out: MatRef::new(self.given, count, value_dim)?.into(),
                saved: Saved::Partials(partials.into()),
                d_lse: None,
            };
            let [dq, dk, dv] = &mut self.parts;
            let gradients = Gradients {
                q: Some(MatMut::new(dq, count, dim)?.into()),
                k: Some(MatMut::new(dk, len, dim)?.into()),
                v: Some(MatMut::new(dv, len, value_dim)?.into()),
                ..Gradients::default()
            };
            let gradient = Gradient::new(Shape::head(count, len, dim, value_dim))?.with_rules(self.plan.rules())?;
            let _ =
                gradient
                    .with_isa(self.isa)
                    .run(queries.into(), k.into(), v.into(), upstream, gradients, scratch)?;
            self.sums.iter_mut().zip(dq.iter()).for_each(|(sum, x)| *sum += x);
            for (to, part, width) in [(&mut to.k, dk, dim), (&mut to.v, dv, value_dim)] {
                let Some(to) = to else { continue };
                for (row, part) in range.clone().zip(part.chunks_exact(width.max(1))) {
                    let row = to.row(batch, kv_head, row);
                    row.iter_mut().zip(part).for_each(|(to, x)| *to += x);
                }
            }
        }
        if let Some(to) = &mut to.q {
            for (row, place) in self.sums.chunks_exact(dim.max(1)).zip(listed()) {
                copy(to.row(batch, head, place), row);
            }
        }
        Ok(())
    }
}

fn copy(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, &x)| *to = x);
}

//! The sums as queries read them.

use super::gather::rows;
use super::summary::Summary;
use super::Shape;
use crate::error::Error;
use crate::kernels::{
    all_finite, block_lanes, query_magnitudes, query_moments, reverse_monomials, scores, Adjoint, Queries,
};
use crate::scratch::Scratch;
use crate::simd::Isa;
use crate::view::MatRef;

/// Queries in a block on this back end.
#[must_use]
pub const fn lanes(isa: Isa) -> usize {
    block_lanes(isa)
}

/// Memory of a block of queries: taken once, used for one block after the other.
pub struct Work<'a> {
    shape: Shape,
    isa: Isa,
    q_t: &'a mut [f32],
    parents: &'a mut [f32],
}

impl<'a> Work<'a> {
    /// Takes [`Shape::work_need`]; [`Error::Short`] if there is less.
    pub fn new(shape: Shape, isa: Isa, scratch: &mut Scratch<'a>) -> Result<Self, Error> {
        scratch.check(shape.work_need(isa))?;
        let lanes = lanes(isa);
        let parents = shape
            .parents()
            .and_then(|n| n.checked_mul(lanes))
            .ok_or(Error::Overflow)?;
        Ok(Work {
            shape,
            isa,
            q_t: scratch.take(shape.dim.checked_mul(lanes).ok_or(Error::Overflow)?)?,
            parents: scratch.take(parents)?,
        })
    }
}

impl Work<'_> {
    /// The back end that works here.
    #[must_use]
    pub const fn isa(&self) -> Isa {
        self.isa
    }

    /// The queries of the last block as they were asked, `[variable][lane]`.
    pub(super) const fn queries(&self) -> &[f32] {
        self.q_t
    }
}

/// Where the answer to a block of queries goes.
#[derive(Debug)]
pub struct Answer<'a> {
    /// `N_j[c]` as `[degree][column][lane]`, degrees 0 to g, the columns of the values and then that of the count:
    /// `(g + 1) (dv + 1) lanes` numbers.
    pub moments: &'a mut [f32],
    /// `M_j = sum over alpha of degree j of |w q^alpha Z|` of the count, as `[degree][lane]`: `(g + 1) lanes` numbers. It
    /// costs from a thirtieth to a third of the moments, the more the fewer values there are.
    pub magnitudes: Option<&'a mut [f32]>,
}

/// The sums of a state times the weights of the monomials, at one moment. Many threads may ask it.
#[derive(Clone, Copy, Debug)]
pub struct Frozen<'a> {
    pub(super) summary: Summary<'a>,
    pub(super) weighted: &'a [f32],
}

impl<'a> Frozen<'a> {
    /// What is known of the tokens.
    #[must_use]
    pub const fn summary(&self) -> Summary<'a> {
        self.summary
    }

    /// Sums of powers of the scores of up to [`lanes`] queries: with `s = tau <q, k - c>`, for every degree j
    /// `N_j[c] = sum over tokens of s^j v[c]`, and `sum over tokens of s^j` in the last column.
    ///
    /// Lane i is query i; lanes without a query repeat the last one, and without any nothing is written. Cost: `2 t (dv + 1)` flops per query. The bits of a
    /// query do not depend on the others. Error: [`Summary::error`]. Numbers that are too large become infinite or NaN, and
    /// so does that.
    ///
    /// Errors, with nothing written: [`Error::Shape`] for more queries or other columns, or work for another shape,
    /// [`Error::Short`] for a short answer, [`Error::Parameter`] for a `tau` (or `tau rho`) that is not finite,
    /// [`Error::NonFinite`].
    pub fn query(&self, q: MatRef<'_, f32>, tau: f32, work: &mut Work<'_>, answer: Answer<'_>) -> Result<(), Error> {
        let Summary { shape, scale, .. } = self.summary;
        let lanes = lanes(work.isa);
        if work.shape != shape || q.rows() > lanes || q.cols() != shape.dim {
            return Err(Error::Shape);
        }
        let columns = shape.columns().ok_or(Error::Overflow)?;
        let each = shape
            .degree
            .checked_add(1)
            .and_then(|n| n.checked_mul(lanes))
            .ok_or(Error::Overflow)?;
        let moments = each.checked_mul(columns).ok_or(Error::Overflow)?;
        let moments = answer.moments.get_mut(..moments).ok_or(Error::Short)?;
        let magnitudes = match answer.magnitudes {
            None => None,
            Some(out) => Some(out.get_mut(..each).ok_or(Error::Short)?),
        };
        let factor = tau * scale;
        if !factor.is_finite() {
            return Err(Error::Parameter);
        }
        if !all_finite(work.isa, q) {
            return Err(Error::NonFinite);
        }
        for first in (0..lanes).step_by(4) {
            let Some(four) = rows::<4>(q, first) else { return Ok(()) };
            for (variable, to) in (0..shape.dim).zip(work.q_t.chunks_exact_mut(lanes)) {
                let x = four.map(|row| row.get(variable).map_or(0.0, |&x| factor * x));
                let to = to.get_mut(first..).unwrap_or_default();
                match to.first_chunk_mut() {
                    Some(to) => *to = x,
                    None => to.iter_mut().zip(x).for_each(|(to, x)| *to = x),
                }
            }
        }
        let mut queries = Queries {
            dim: shape.dim,
            degree: shape.degree,
            columns,
            q_t: work.q_t,
            weighted: self.weighted,
            parents: work.parents,
            out: moments,
        };
        query_moments(work.isa, &mut queries);
        if let Some(out) = magnitudes {
            query_magnitudes(work.isa, &mut Queries { out, ..queries });
        }
        Ok(())
    }

    /// The derivative by the queries of the last [`query`](Frozen::query) of
    /// `sum over j and c of coefficients[j] u[c] N_j[c]`, for fixed `u` and coefficients.
    ///
    /// `u` is `[column][lane]`, for some or all of the columns. `adjoint` is to work in, `t lanes` numbers; the derivative goes
    /// to `out`, `[variable][lane]`. Cost: `2 t` flops per column of `u` and `5 t` more, per query. The bits of a query do not
    /// depend on the others.
    ///
    /// Errors, with nothing written: [`Error::Shape`] for work for another shape, or a `u` of more columns or not of whole
    /// ones, [`Error::Short`] for the other memory and fewer coefficients than degrees.
    pub fn reverse(
        &self,
        coefficients: &[f32],
        tau: f32,
        u: &[f32],
        work: &Work<'_>,
        adjoint: &mut [f32],
        out: &mut [f32],
    ) -> Result<(), Error> {
        let Summary { shape, scale, .. } = self.summary;
        let lanes = lanes(work.isa);
        let columns = shape.columns().ok_or(Error::Overflow)?;
        let wanted = u.len().checked_div(lanes).unwrap_or(0);
        if work.shape != shape || wanted > columns || !u.len().is_multiple_of(lanes) {
            return Err(Error::Shape);
        }
        let features = shape.features().ok_or(Error::Overflow)?;
        let len = features.checked_mul(lanes).ok_or(Error::Overflow)?;
        let adjoint = adjoint.get_mut(..len).ok_or(Error::Short)?;
        let len = shape.dim.checked_mul(lanes).ok_or(Error::Overflow)?;
        let out = out.get_mut(..len).ok_or(Error::Short)?;
        let coefficients = coefficients.get(..=shape.degree).ok_or(Error::Short)?;
        // Row by row of the sums a product with u: what scores are to keys.
        let rows = MatRef::new(self.weighted, features, columns)?.col_range(0..wanted);
        scores(work.isa, u, rows, adjoint);
        let mut of = Adjoint {
            dim: shape.dim,
            degree: shape.degree,
            q_t: work.q_t,
            parents: work.parents,
            coefficients,
            adjoint,
            out,
        };
        reverse_monomials(work.isa, &mut of);
        let factor = tau * scale;
        of.out.iter_mut().for_each(|x| *x *= factor);
        Ok(())
    }
}

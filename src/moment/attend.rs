//! Attention over the tokens of a state.

use super::frozen::{lanes, Answer, Frozen, Work};
use super::rounding;
use super::series::{minimax, taylor_rest, MOST_DEGREE, TAYLOR};
use crate::bound::{gamma, product_up, sum_up, up};
use crate::error::Error;
use crate::kernels::{self, estimate_roundings, Estimates, Keys, Polynomials};
use crate::math;
use crate::scratch::{Need, Scratch};
use crate::simd::Isa;
use crate::view::MatRef;

/// Numbers of a block of answers for each lane, besides the sums of powers.
const PER_LANE: usize = 4;

/// What attention over a frozen state takes: one for any number of queries, on any number of threads.
///
/// A state holds power sums of scores, and so answers every polynomial in place of e^s. For each query three are tried (see
/// [`series`](super::series)): Taylor's, whose errors are bounded by a power sum; the best one in the sense of relative
/// error for scores of up to [`reach`](Attend::with_reach); and Hermite's for the variance of this query's scores, the most
/// accurate one where scores look normal, bounded by its distance to the others. The query gets the most accurate one whose
/// promise is what is [wanted](Attend::with_wanted), or else the one with the best promise.
#[derive(Clone, Copy, Debug)]
pub struct Attend<'a> {
    frozen: Frozen<'a>,
    terms: usize,
    errors: [f32; MOST_DEGREE + 1],
    reach: f32,
    wanted: f32,
    value: f32,
    range: f32,
    lost: f32,
    radius: f32,
}

/// The answers to a block of queries. Lanes without a query hold what a query of zeros gets.
#[derive(Debug)]
pub struct Attended<'a> {
    /// Lanes of a row.
    pub lanes: usize,
    /// Outputs, `[column][lane]`.
    pub out: &'a [f32],
    /// `e^mean mass` is the sum over tokens of `e^s`, `s = tau <q, k - c>`.
    pub mean: &'a [f32],
    /// See `mean`.
    pub mass: &'a [f32],
    /// The promise about every entry of the output, at most the largest range of a column of values; equal to that it says
    /// nothing.
    pub out_bound: &'a [f32],
    /// The promise about `mean + ln mass`; infinite where nothing is known.
    pub mass_bound: &'a [f32],
}

impl<'a> Attend<'a> {
    /// Attention over the tokens of a state. [`Error::Empty`] if there is none, [`Error::Parameter`] for a degree of 0 or above
    /// [`MOST_DEGREE`].
    pub fn new(frozen: Frozen<'a>) -> Result<Self, Error> {
        let summary = frozen.summary();
        let shape = summary.shape();
        if summary.count() == 0 {
            return Err(Error::Empty);
        }
        if shape.degree == 0 || shape.degree > MOST_DEGREE {
            return Err(Error::Parameter);
        }
        let own = estimate_roundings(shape.degree);
        let mut errors = [0.0; MOST_DEGREE + 1];
        for (degree, error) in errors.iter_mut().enumerate().take(shape.degree + 1) {
            let roundings = rounding::sum_roundings(shape, summary.additions, degree)
                .saturating_add(rounding::query_roundings(shape, degree))
                .saturating_add(own);
            *error = product_up(gamma(roundings), summary.power(degree));
        }
        let columns = || summary.low().iter().zip(summary.high());
        // Powers up to the highest lose at most this each, see `rounding`; half the tokens are less than their weights.
        let steps = math::nearest(shape.degree as u64 + 1);
        let mut lost = product_up(product_up(rounding::LOST, product_up(steps, steps)), 4.0);
        for _ in 0..shape.degree {
            lost = product_up(lost, math::nearest(shape.dim as u64));
        }
        Ok(Attend {
            frozen,
            terms: shape.degree + 1,
            errors,
            reach: 0.0,
            wanted: f32::INFINITY,
            value: columns().fold(0.0, |most, (low, high)| most.max(low.abs()).max(high.abs())),
            range: columns().fold(0.0, |most, (low, high)| most.max(up(high - low))),
            lost,
            radius: summary.reach(),
        })
    }

    /// For queries with `tau |q| (largest |k - c|)` up to about `reach`: the polynomial of least relative error is chosen for
    /// that. Others are answered too, by what is good for them.
    #[must_use]
    pub const fn with_reach(mut self, reach: f32) -> Self {
        self.reach = reach;
        self
    }

    /// The largest promise that is good enough: within it, the most accurate answer counts.
    #[must_use]
    pub const fn with_wanted(mut self, wanted: f32) -> Self {
        self.wanted = wanted;
        self
    }

    /// The largest distance between two values of a column: no promise is larger.
    #[must_use]
    pub const fn range(&self) -> f32 {
        self.range
    }

    /// At least the largest distance of a key from the centre, in units of the keys.
    #[must_use]
    pub fn radius(&self) -> f32 {
        product_up(self.radius, self.frozen.summary().scale())
    }

    /// Scratch of [`run`](Attend::run) besides that of its [`Work`]: `((g + 2) (dv + 1) + 3) lanes` numbers.
    #[must_use]
    pub const fn need(&self, isa: Isa) -> Need {
        need(self.terms, self.frozen.summary().shape().value_dim, lanes(isa))
    }

    /// Answers up to [`lanes`](super::lanes) queries, for scores `tau <q, k>`.
    ///
    /// Cost: `2 t (dv + 1) + 6 (g + 1) (dv + 1)` flops per query, and about a hundred for its promise. The bits of a query do
    /// not depend on the others. Errors: those of [`Frozen::query`], and [`Error::Short`].
    pub fn run<'s>(
        &self,
        q: MatRef<'_, f32>,
        tau: f32,
        work: &mut Work<'_>,
        scratch: &mut Scratch<'s>,
    ) -> Result<Attended<'s>, Error> {
        let (summary, isa) = (self.frozen.summary(), work.isa());
        let (value_dim, lanes) = (summary.shape().value_dim, lanes(isa));
        scratch.check(need(self.terms, value_dim, lanes))?;
        let moments = scratch.take((value_dim + 1) * self.terms * lanes)?;
        let out = scratch.take(value_dim * lanes)?;
        let per_lane = scratch.take(PER_LANE * lanes)?;
        self.frozen.query(
            q,
            tau,
            work,
            Answer {
                moments,
                magnitudes: None,
            },
        )?;
        let mut parts = per_lane.chunks_exact_mut(lanes.max(1));
        let (mean, mass, out_bound, mass_bound) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(a), Some(b), Some(c), Some(d)) => (a, b, c, d),
            _ => return Err(Error::Short),
        };
        let mut block = Estimates {
            sums: moments,
            q_t: work.queries(),
            lanes,
            out,
            mean,
            mass,
            out_bound,
            mass_bound,
        };
        kernels::estimate(isa, &self.keys(), &self.polynomials(), &mut block);
        Ok(Attended {
            lanes,
            out,
            mean,
            mass,
            out_bound,
            mass_bound,
        })
    }

    fn keys(&self) -> Keys<'_> {
        let summary = self.frozen.summary();
        Keys {
            errors: self.errors.get(..self.terms).unwrap_or(&[]),
            radius: self.radius,
            low: summary.low(),
            high: summary.high(),
            value: self.value,
            range: self.range,
            lost: self.lost,
            wanted: self.wanted,
        }
    }

    fn polynomials(&self) -> Polynomials<'static> {
        let degree = self.terms.saturating_sub(1);
        Polynomials {
            taylor: TAYLOR.get(..self.terms).unwrap_or(&[]),
            taylor_next: taylor_rest(degree, 0.0, 1.0),
            minimax: minimax(degree, self.reach).map(|m| (m.reach, m.coefficients, m.share())),
        }
    }

    /// A bound on the promises of all queries of length `norm` (times tau and the scale of the state), before any is asked:
    /// infinite where only the query itself can tell.
    #[must_use]
    pub fn promise_before(&self, reach: f32) -> f32 {
        let degree = self.terms.saturating_sub(1);
        minimax(degree, reach).map_or(f32::INFINITY, |m| sum_up(product_up(self.range, m.share()), 0.0))
    }
}

/// See [`Attend::need`].
pub(crate) const fn need(terms: usize, value_dim: usize, lanes: usize) -> Need {
    let columns = value_dim.saturating_add(1);
    Need::NONE
        .and::<f32>(columns.saturating_mul(terms).saturating_mul(lanes))
        .and::<f32>(value_dim.saturating_mul(lanes))
        .and::<f32>(lanes.saturating_mul(PER_LANE))
}

//! The three passes over one head of keys and the queries that share it.

use super::exactly::Exactly;
use super::promise::{length, Promise, Row};
use super::{Aim, PolynomialGradient, PolynomialGradients};
use crate::attention::block::MOST_LANES;
use crate::attention::polynomial::keys;
use crate::bound::{gamma, product_up, sum_up, up, Bound};
use crate::error::Error;
use crate::moment::{self, series::MOST_DEGREE, Answer, Frozen, State, Summary, Work};
use crate::report::Report;
use crate::scratch::{Need, Scratch};
use crate::simd::Isa;
use crate::view::{MatRef, TensorRef};
use core::ops::Range;

/// A head, and the memory that lives as long.
pub(super) struct Head<'p, 's> {
    plan: &'p PolynomialGradient,
    isa: Isa,
    q: &'p TensorRef<'p, f32>,
    k: MatRef<'p, f32>,
    v: MatRef<'p, f32>,
    aim: Aim<'p>,
    batch: usize,
    kv_head: usize,
    centre: &'s mut [f32],
    origin: &'s mut [f32],
    of_keys: &'s mut [f32],
    of_queries: &'s mut [f32],
    weighted: &'s mut [f32],
    exactly: Exactly<'s>,
    scratch: Scratch<'s>,
}

impl<'p, 's> Head<'p, 's> {
    /// The pieces that live as long as the head, then the larger of what its steps take.
    pub(super) fn need(plan: &PolynomialGradient) -> Need {
        let (of_keys, of_queries) = (plan.of_keys(), plan.of_queries());
        let own = Need::NONE
            .and::<f32>(plan.shape.dim)
            .and::<f32>(plan.shape.dim)
            .and::<f32>(of_keys.state_len().unwrap_or(usize::MAX))
            .and::<f32>(of_queries.state_len().unwrap_or(usize::MAX))
            .and::<f32>(of_queries.frozen_len().unwrap_or(usize::MAX));
        let lanes = plan.isa.map_or(MOST_LANES, moment::lanes);
        // A block asks, and then pushes what came out, or has the list computed.
        let pushes = of_keys.need().or(of_queries.need());
        let asks = Block::need(plan, of_keys, lanes).then(pushes.or(Exactly::need(plan)));
        let asks = asks.or(Block::need(plan, of_queries, lanes));
        own.then(Exactly::own_need(plan)).then(asks.or(pushes))
    }

    pub(super) fn new(
        plan: &'p PolynomialGradient,
        [q, k, v]: [&'p TensorRef<'p, f32>; 3],
        aim: Aim<'p>,
        (batch, kv_head): (usize, usize),
        mut scratch: Scratch<'s>,
    ) -> Result<Self, Error> {
        let (k, v) = (k.matrix(batch, kv_head), v.matrix(batch, kv_head));
        let isa = plan.isa.unwrap_or_else(Isa::best);
        let centre = scratch.take(plan.shape.dim)?;
        keys::centre(k, centre);
        Ok(Head {
            plan,
            isa,
            q,
            k,
            v,
            aim,
            batch,
            kv_head,
            centre,
            origin: scratch.take(plan.shape.dim)?,
            of_keys: scratch.take(plan.of_keys().state_len()?)?,
            of_queries: scratch.take(plan.of_queries().state_len()?)?,
            weighted: scratch.take(plan.of_queries().frozen_len().ok_or(Error::Overflow)?)?,
            exactly: Exactly::new(plan, isa, &mut scratch)?,
            scratch,
        })
    }

    /// Query heads of the group.
    fn heads(&self) -> Range<usize> {
        let group = self.plan.shape.group();
        self.kv_head * group..(self.kv_head + 1) * group
    }

    pub(super) fn run(mut self, to: &mut PolynomialGradients<'_>) -> Result<Report, Error> {
        let mut report = Report::new(self.isa);
        report.bound = Bound::certain(0.0);
        self.clear(to);
        if self.k.rows() == 0 {
            let rows = self.heads().len() * self.plan.shape.queries;
            (0..rows).for_each(|_| report.count(false, true));
            return Ok(report);
        }
        let memory = core::mem::take(&mut self.of_keys);
        let radius = keys::radius(self.k, self.centre);
        let mut of_keys = State::new(self.plan.of_keys(), self.centre, radius, memory)?.with_isa(self.isa);
        let memory = core::mem::take(&mut self.of_queries);
        let longest = self
            .heads()
            .map(|head| keys::radius(self.q.matrix(self.batch, head), self.origin));
        let longest = longest.fold(0.0, f32::max);
        let mut of_queries = State::new(self.plan.of_queries(), self.origin, longest, memory)?.with_isa(self.isa);
        let weighted = core::mem::take(&mut self.weighted);

        of_keys.push(self.k, self.v, &mut self.scratch.scope())?;
        let frozen = of_keys.freeze(weighted, &mut self.scratch.scope())?;
        for head in self.heads() {
            self.queries(&frozen, head, &mut of_queries, to, &mut report)?;
        }
        if to.k.is_some() || to.v.is_some() {
            let frozen = of_queries.freeze(weighted, &mut self.scratch.scope())?;
            self.keys(&frozen, to)?;
        }
        Ok(report)
    }

    /// Everything is a sum, or of no key.
    fn clear(&self, to: &mut PolynomialGradients<'_>) {
        let (heads, kv_head) = (self.heads(), self.kv_head..self.kv_head + 1);
        let all = [
            (&mut to.out, heads.clone()),
            (&mut to.q, heads),
            (&mut to.k, kv_head.clone()),
            (&mut to.v, kv_head),
        ];
        for (to, heads) in all {
            let Some(to) = to else { continue };
            for head in heads {
                (0..to.rows()).for_each(|row| to.row(self.batch, head, row).fill(0.0));
            }
        }
    }

    /// The second pass, for one head of queries.
    fn queries(
        &mut self,
        frozen: &Frozen<'_>,
        head: usize,
        of_queries: &mut State<'_>,
        to: &mut PolynomialGradients<'_>,
        report: &mut Report,
    ) -> Result<(), Error> {
        let q = self.q.matrix(self.batch, head);
        let promise = Promise::new(frozen.summary(), self.plan.series, self.plan.tau());
        let mut scratch = self.scratch.scope();
        let mut block = Block::new(self.plan, self.plan.of_keys(), self.isa, &mut scratch)?;
        let (Aim::Upstream(given) | Aim::Target(given)) = self.aim;
        let (given, aimed) = (given.matrix(self.batch, head), matches!(self.aim, Aim::Target(_)));
        let all = [q, self.k, self.v, given];
        let place = (self.batch, head, self.kv_head);
        for start in (0..q.rows()).step_by(block.lanes.max(1)) {
            let range = start..q.rows().min(start + block.lanes);
            let asked = q.row_range(range.clone());
            block.ask(frozen, asked, self.plan.tau(), self.plan.series.coefficients)?;
            let mut rows = [Row::NONE; MOST_LANES];
            for ((lane, query), row) in range.clone().enumerate().zip(&mut rows) {
                *row = block.upstream(lane, given.row(query), aimed, frozen.summary());
                row.norm = product_up(
                    self.plan.tau().abs(),
                    product_up(frozen.summary().scale(), length(q.row(query).iter().copied())),
                );
                if let Some(out) = &mut to.out {
                    block.write_out(lane, out.row(self.batch, head, query));
                }
            }
            block.back(frozen, self.plan.series.coefficients, self.plan.tau())?;
            for ((lane, query), row) in range.enumerate().zip(&mut rows) {
                let bound = block.bound(lane, row, &promise);
                if bound.is_finite() && bound <= product_up(self.plan.tolerance, promise.unit(row.spread)) {
                    report.bound = report.bound.or(Bound::certain(bound));
                    report.count(true, true);
                    if let Some(dq) = &mut to.q {
                        copy(
                            dq.row(self.batch, head, query),
                            lane_of(block.derivative, lane, block.lanes),
                        );
                    }
                    continue;
                }
                // Its part in the gradients of keys and values comes from elsewhere.
                block.forget(lane);
                if self.exactly.full() {
                    self.exactly.run(all, aimed, place, to, &mut scratch.scope())?;
                }
                self.exactly.add(query);
                report.count(true, true);
                report.exact_rows += 1;
            }
            let u = MatRef::new(block.rows, asked.rows(), self.v.cols() + 1)?;
            of_queries.push(asked, u, &mut scratch.scope())?;
        }
        self.exactly.run(all, aimed, place, to, &mut scratch)
    }

    /// The third pass.
    fn keys(&mut self, frozen: &Frozen<'_>, to: &mut PolynomialGradients<'_>) -> Result<(), Error> {
        let (tau, coefficients) = (self.plan.tau(), self.plan.series.coefficients);
        let mut scratch = self.scratch.scope();
        let mut block = Block::new(self.plan, self.plan.of_queries(), self.isa, &mut scratch)?;
        let dim = self.k.cols();
        for start in (0..self.k.rows()).step_by(block.lanes.max(1)) {
            let range = start..self.k.rows().min(start + block.lanes);
            for (key, to) in range.clone().zip(block.keys.chunks_exact_mut(dim.max(1))) {
                let differences = self.k.row(key).iter().zip(&*self.centre);
                to.iter_mut().zip(differences).for_each(|(to, (k, c))| *to = k - c);
            }
            let keys = core::mem::take(&mut block.keys);
            block.ask(frozen, MatRef::new(keys, range.len(), dim)?, tau, coefficients)?;
            block.keys = keys;
            for (lane, key) in range.clone().enumerate() {
                let values = self.v.row(key).iter().copied().chain([1.0]);
                let lanes = block.u.get_mut(lane..).unwrap_or_default().iter_mut();
                lanes
                    .step_by(block.lanes.max(1))
                    .zip(values)
                    .for_each(|(to, x)| *to = x);
            }
            block.back(frozen, coefficients, tau)?;
            for (lane, key) in range.enumerate() {
                for (to, from) in [(&mut to.k, &*block.derivative), (&mut to.v, &*block.sums)] {
                    let Some(to) = to else { continue };
                    let parts = to.row(self.batch, self.kv_head, key).iter_mut();
                    for (to, x) in parts.zip(lane_of(from, lane, block.lanes)) {
                        let sum = *to + x;
                        *to = if sum.is_finite() { sum } else { f32::NAN };
                    }
                }
            }
        }
        Ok(())
    }
}

/// Memory of a block of queries, or of keys that ask.
struct Block<'b> {
    lanes: usize,
    work: Work<'b>,
    /// Sums of powers as a state answers them; the first of all degrees; what they are multiplied with on the way back.
    moments: &'b mut [f32],
    sums: &'b mut [f32],
    u: &'b mut [f32],
    /// u row by row; differences of keys and the centre.
    rows: &'b mut [f32],
    keys: &'b mut [f32],
    adjoint: &'b mut [f32],
    derivative: &'b mut [f32],
}

impl<'b> Block<'b> {
    fn pieces(plan: &PolynomialGradient, shape: moment::Shape, lanes: usize) -> [usize; 7] {
        let columns = shape.value_dim.saturating_add(1);
        let u = plan.shape.value_dim.saturating_add(1);
        let features = shape.features().unwrap_or(usize::MAX);
        let each = columns.saturating_mul(shape.degree + 1);
        let dim = shape.dim;
        [each, columns, u, u, dim, features, dim].map(|n| n.saturating_mul(lanes))
    }

    fn need(plan: &PolynomialGradient, shape: moment::Shape, lanes: usize) -> Need {
        let pieces = Self::pieces(plan, shape, lanes).into_iter();
        pieces.fold(shape.work_need_of(lanes), |need, n| need.and::<f32>(n))
    }

    fn new(
        plan: &PolynomialGradient,
        shape: moment::Shape,
        isa: Isa,
        scratch: &mut Scratch<'b>,
    ) -> Result<Self, Error> {
        let lanes = moment::lanes(isa);
        let [n_moments, n_sums, n_u, n_rows, n_keys, n_adjoint, n_out] = Self::pieces(plan, shape, lanes);
        Ok(Block {
            lanes,
            work: Work::new(shape, isa, scratch)?,
            moments: scratch.take(n_moments)?,
            sums: scratch.take(n_sums)?,
            u: scratch.take(n_u)?,
            rows: scratch.take(n_rows)?,
            keys: scratch.take(n_keys)?,
            adjoint: scratch.take(n_adjoint)?,
            derivative: scratch.take(n_out)?,
        })
    }

    /// The polynomial of the scores of some rows, summed: `sums[column][lane]`.
    fn ask(&mut self, frozen: &Frozen<'_>, q: MatRef<'_, f32>, tau: f32, coefficients: &[f32]) -> Result<(), Error> {
        let answer = Answer {
            moments: self.moments,
            magnitudes: None,
        };
        frozen.query(q, tau, &mut self.work, answer)?;
        self.sums.fill(0.0);
        let degrees = self.moments.chunks_exact(self.sums.len().max(1));
        for (degree, c) in degrees.zip(coefficients) {
            self.sums.iter_mut().zip(degree).for_each(|(sum, n)| *sum += c * n);
        }
        Ok(())
    }

    /// The row of u of a lane, in both of its places, and what is known of it.
    fn upstream(&mut self, lane: usize, given: &[f32], aimed: bool, of: Summary<'_>) -> Row {
        let columns = given.len();
        let mass = lane_of(self.sums, lane, self.lanes).nth(columns).unwrap_or(0.0);
        let inverse = 1.0 / mass;
        let mut row = Row {
            mass,
            aimed,
            ..Row::NONE
        };
        let mut size = 0.0;
        let to = self.rows.chunks_exact_mut(columns + 1).nth(lane).unwrap_or_default();
        let ranges = of.low().iter().zip(of.high()).map(|(low, high)| up(high - low));
        let outs = lane_of(self.sums, lane, self.lanes).map(|n| n * inverse);
        for (((to, &given), range), out) in to.iter_mut().zip(given).zip(ranges).zip(outs) {
            let d_out = if aimed { out - given } else { given };
            row.delta += out * d_out;
            row.most = row.most.max(out.abs());
            size += d_out.abs();
            row.spread = sum_up(row.spread, product_up(d_out.abs(), range));
            *to = d_out * inverse;
        }
        // No sum of magnitudes is 0 unless all of them are, and then it stays 0.
        if size > 0.0 {
            row.size = product_up(size, up(1.0 + gamma(columns)));
        }
        if let Some(last) = to.last_mut() {
            *last = -(row.delta * inverse);
        }
        let lanes = self.u.get_mut(lane..).unwrap_or_default().iter_mut();
        lanes.step_by(self.lanes.max(1)).zip(to).for_each(|(u, x)| *u = *x);
        row
    }

    fn write_out(&self, lane: usize, to: &mut [f32]) {
        let mass = lane_of(self.sums, lane, self.lanes).nth(to.len()).unwrap_or(0.0);
        let inverse = 1.0 / mass;
        copy(to, lane_of(self.sums, lane, self.lanes).map(|n| n * inverse));
    }

    /// The derivative of what was asked for, times u.
    fn back(&mut self, frozen: &Frozen<'_>, coefficients: &[f32], tau: f32) -> Result<(), Error> {
        frozen.reverse(coefficients, tau, self.u, &self.work, self.adjoint, self.derivative)
    }

    /// The promise of a lane.
    fn bound(&self, lane: usize, row: &mut Row, promise: &Promise<'_>) -> f32 {
        row.length = length(lane_of(self.derivative, lane, self.lanes));
        if row.size == 0.0 && !row.aimed && row.mass > 0.0 {
            // Nothing comes back, so nothing is off.
            return 0.0;
        }
        let mut powers = [0.0; MOST_DEGREE + 1];
        let degrees = self.moments.chunks_exact(self.sums.len().max(1));
        let last = (self.sums.len() / self.lanes.max(1)).saturating_sub(1);
        let counts = degrees.filter_map(|degree| lane_of(degree, lane, self.lanes).nth(last));
        powers.iter_mut().zip(counts).for_each(|(to, n)| *to = n);
        promise.of(row, &powers)
    }

    /// A lane adds nothing to what is pushed.
    fn forget(&mut self, lane: usize) {
        let columns = self.u.len() / self.lanes.max(1);
        let row = self.rows.chunks_exact_mut(columns.max(1)).nth(lane);
        row.unwrap_or_default().fill(0.0);
    }
}

/// One lane of rows of lanes.
fn lane_of(rows: &[f32], lane: usize, lanes: usize) -> impl Iterator<Item = f32> + '_ {
    rows.get(lane..).unwrap_or(&[]).iter().step_by(lanes.max(1)).copied()
}

fn copy(to: &mut [f32], from: impl Iterator<Item = f32>) {
    to.iter_mut().zip(from).for_each(|(to, x)| *to = x);
}

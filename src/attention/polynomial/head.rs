//! The queries that share the keys and values of one head.

use super::row::{far, finish, write_out, Place};
use super::{keys, Polynomial, CHUNK};
use crate::attention::block::MOST_LANES;
use crate::attention::outputs::Outputs;
use crate::attention::{Offset, Partial, Shape};
use crate::bound::{gamma, product_up, sum_up, Bound};
use crate::error::Error;
use crate::moment::{self, Attend, State, Work};
use crate::report::Report;
use crate::scratch::{Need, Scratch};
use crate::simd::Isa;
use crate::view::{MatMut, MatRef, TensorRef};
use core::ops::Range;

/// A head, with what was looked up about it and the memory of its state.
pub(super) struct Head<'p, 's> {
    plan: &'p Polynomial,
    isa: Isa,
    q: &'p TensorRef<'p, f32>,
    k: MatRef<'p, f32>,
    v: MatRef<'p, f32>,
    batch: usize,
    kv_head: usize,
    /// The scale, and its relative error.
    tau: f32,
    tau_error: f32,
    /// Largest difference inside a column of values.
    range: f32,
    centre: &'s mut [f32],
    memory: &'s mut [f32],
    weighted: &'s mut [f32],
    /// Rows that are computed exactly, as partials, and their queries.
    rows: &'s mut [f32],
    queries: &'s mut [f32],
    /// Which rows those are.
    places: &'s mut [u64],
    scratch: Scratch<'s>,
}

impl<'p, 's> Head<'p, 's> {
    /// The pieces that live as long as the head, then the larger of what its steps take.
    pub(super) const fn need(plan: &Polynomial) -> Need {
        let (shape, moments) = (plan.shape, plan.moments());
        let sums = match moments.frozen_len() {
            Some(n) => n,
            None => usize::MAX,
        };
        let own = Need::NONE
            .and::<f32>(shape.dim)
            .and::<f32>(plan.state_len())
            .and::<f32>(sums)
            .and::<f32>(CHUNK.saturating_mul(Partial::width(shape.value_dim)))
            .and::<f32>(CHUNK.saturating_mul(shape.dim))
            .and::<u64>(CHUNK);
        let lanes = match plan.isa {
            Some(isa) => moment::lanes(isa),
            None => MOST_LANES,
        };
        let ask = moments
            .work_need_of(lanes)
            .then(moment::attend_need(plan.degree + 1, shape.value_dim, lanes));
        let exact = Shape::head(CHUNK, shape.keys, shape.dim, shape.value_dim);
        let exact = match super::Exact::new(exact) {
            Ok(exact) => match plan.isa {
                Some(isa) => exact.with_isa(isa).need_with_scores(),
                None => exact.need_with_scores(),
            },
            Err(_) => Need::NONE.and::<f32>(usize::MAX),
        };
        own.then(moments.need().or(ask.then(exact)))
    }

    pub(super) fn new(
        plan: &'p Polynomial,
        [q, k, v]: [&'p TensorRef<'p, f32>; 3],
        batch: usize,
        kv_head: usize,
        mut scratch: Scratch<'s>,
    ) -> Result<Self, Error> {
        let (shape, moments) = (plan.shape, plan.moments());
        let (k, v) = (k.matrix(batch, kv_head), v.matrix(batch, kv_head));
        let centre = scratch.take(shape.dim)?;
        keys::centre(k, centre);
        let rounded = plan.scale.is_none() && !(shape.dim.is_power_of_two() && shape.dim.trailing_zeros() % 2 == 0);
        Ok(Head {
            plan,
            isa: plan.isa.unwrap_or_else(Isa::best),
            q,
            k,
            v,
            batch,
            kv_head,
            tau: plan.rules().scale_of(shape.dim),
            tau_error: if rounded { gamma(2) } else { 0.0 },
            range: keys::range(v),
            centre,
            memory: scratch.take(plan.state_len())?,
            weighted: scratch.take(moments.frozen_len().ok_or(Error::Overflow)?)?,
            rows: scratch.take(CHUNK.saturating_mul(Partial::width(shape.value_dim)))?,
            queries: scratch.take(CHUNK.saturating_mul(shape.dim))?,
            places: scratch.take(CHUNK)?,
            scratch,
        })
    }

    /// All queries of the group.
    pub(super) fn run(mut self, outputs: &mut Outputs<'_>) -> Result<Report, Error> {
        let radius = keys::radius(self.k, self.centre);
        let memory = core::mem::take(&mut self.memory);
        let mut state = State::new(self.plan.moments(), self.centre, radius, memory)?.with_isa(self.isa);
        match self.plan.causal {
            None => self.all_keys(&mut state, outputs),
            Some(offset) => self.causal(&mut state, offset, outputs),
        }
    }

    /// Query heads of the group.
    fn heads(&self) -> Range<usize> {
        let group = self.plan.shape.group();
        self.kv_head * group..(self.kv_head + 1) * group
    }

    /// Every query sees every key.
    fn all_keys(&mut self, state: &mut State<'_>, outputs: &mut Outputs<'_>) -> Result<Report, Error> {
        let keys = self.k.rows();
        let weighted = core::mem::take(&mut self.weighted);
        let attend = if keys == 0 {
            None
        } else {
            state.push(self.k, self.v, &mut self.scratch.scope())?;
            let frozen = state.freeze(weighted, &mut self.scratch.scope())?;
            Some(self.attend(frozen)?)
        };
        let mut report = self.report();
        for head in self.heads() {
            let Some(attend) = &attend else {
                self.nothing(head, outputs, &mut report);
                continue;
            };
            let rows = 0..self.plan.shape.queries;
            let mut missed = 0;
            let lanes = moment::lanes(self.isa).max(1);
            for start in rows.clone().step_by(lanes) {
                let range = start..rows.end.min(start + lanes);
                // What is refused is kept until there is a chunk of it.
                if missed + range.len() > CHUNK {
                    self.exactly(head, &mut missed, outputs, &mut report)?;
                }
                self.ask(attend, head, range, &mut missed, outputs, &mut report)?;
            }
            self.exactly(head, &mut missed, outputs, &mut report)?;
        }
        Ok(report)
    }

    fn report(&self) -> Report {
        let mut report = Report::new(self.isa);
        report.bound = Bound::certain(0.0);
        report
    }

    /// Attention over a frozen state, for the queries of this call.
    fn attend<'f>(&self, frozen: moment::Frozen<'f>) -> Result<Attend<'f>, Error> {
        let attend = Attend::new(frozen)?;
        let longest = self.heads().map(|head| keys::longest(self.q.matrix(self.batch, head)));
        let longest = longest.fold(0.0, f32::max);
        let reach = product_up(product_up(self.tau.abs(), longest), attend.radius());
        Ok(attend.with_reach(reach).with_wanted(self.wanted(&attend)))
    }

    /// What an answer may be off.
    fn wanted(&self, attend: &Attend<'_>) -> f32 {
        self.plan.tolerance * attend.range()
    }

    /// One block of queries: results where the promise is good enough, and a list of the others.
    fn ask(
        &mut self,
        attend: &Attend<'_>,
        head: usize,
        range: Range<usize>,
        missed: &mut usize,
        outputs: &mut Outputs<'_>,
        report: &mut Report,
    ) -> Result<(), Error> {
        let (q, wanted) = (self.q.matrix(self.batch, head), self.wanted(attend));
        let mut scratch = self.scratch.scope();
        let mut work = Work::new(self.plan.moments(), self.isa, &mut scratch)?;
        let answers = attend.run(q.row_range(range.clone()), self.tau, &mut work, &mut scratch)?;
        for (lane, query) in range.enumerate() {
            let own = answers.out_bound.get(lane).copied().unwrap_or(f32::INFINITY);
            let bound = sum_up(own, of_scale(self.tau_error, self.tau, attend, q.row(query)));
            if bound > wanted {
                if let Some(place) = self.places.get_mut(*missed) {
                    *place = query as u64;
                    *missed += 1;
                }
                continue;
            }
            report.bound = report.bound.or(Bound::certain(bound));
            report.count(true, true);
            let place = Place { head, query };
            write_out(outputs, self.batch, place, &answers, lane);
            if outputs.lse.is_some() || outputs.partials.is_some() {
                let row = self
                    .rows
                    .get_mut(..Partial::width(self.plan.shape.value_dim))
                    .unwrap_or(&mut []);
                far(row, &answers, lane, self.tau, q.row(query), self.centre, bound)?;
                finish(outputs, self.batch, place, row)?;
            }
        }
        Ok(())
    }

    /// The rows of the list, with all keys.
    fn exactly(
        &mut self,
        head: usize,
        missed: &mut usize,
        outputs: &mut Outputs<'_>,
        report: &mut Report,
    ) -> Result<(), Error> {
        let count = core::mem::take(missed);
        if count == 0 {
            return Ok(());
        }
        let q = self.q.matrix(self.batch, head);
        let dim = self.plan.shape.dim.max(1);
        let listed = self.queries.chunks_exact_mut(dim).zip(self.places.iter());
        for (to, &place) in listed.take(count) {
            to.copy_from_slice(q.row(place as usize));
        }
        let queries = MatRef::new(self.queries, count, self.plan.shape.dim)?;
        let plan = self.plan.exact(count, self.k.rows())?.with_bound();
        let done = run_exact(&plan, queries, self.k, self.v, self.rows, &mut self.scratch.scope())?;
        report.bound = report.bound.or(done.bound);
        report.exact_rows += count;
        let width = Partial::width(self.plan.shape.value_dim);
        for (row, &place) in self.rows.chunks_exact_mut(width).zip(self.places.iter()).take(count) {
            report.count(true, row.iter().all(|x| x.is_finite()));
            let place = Place {
                head,
                query: place as usize,
            };
            finish(outputs, self.batch, place, row)?;
        }
        Ok(())
    }

    /// Rows without any key.
    fn nothing(&mut self, head: usize, outputs: &mut Outputs<'_>, report: &mut Report) {
        let width = Partial::width(self.plan.shape.value_dim);
        let row = self.rows.get_mut(..width).unwrap_or(&mut []);
        row.fill(0.0);
        row.iter_mut().zip(Partial::EMPTY_HEAD).for_each(|(to, x)| *to = x);
        for query in 0..self.plan.shape.queries {
            report.count(false, true);
            // Only a row without a head could fail.
            let _ = finish(outputs, self.batch, Place { head, query }, row);
        }
    }

    /// Chunk by chunk: keys before it by the sums, those inside exactly.
    fn causal(&mut self, state: &mut State<'_>, offset: usize, outputs: &mut Outputs<'_>) -> Result<Report, Error> {
        let (queries, keys) = (self.plan.shape.queries, self.k.rows());
        let mut report = self.report();
        for start in (0..queries).step_by(CHUNK) {
            let rows = start..queries.min(start + CHUNK);
            // Keys that all rows of the chunk see, and those that some see.
            let past = start.saturating_add(offset).min(keys);
            let seen = rows.end.saturating_add(offset).min(keys);
            let pushed = usize::try_from(state.progress().count).unwrap_or(keys).min(past);
            let (k, v) = (self.k.row_range(pushed..past), self.v.row_range(pushed..past));
            state.push(k, v, &mut self.scratch.scope())?;
            for head in self.heads() {
                self.chunk(state, head, rows.clone(), past..seen, outputs, &mut report)?;
            }
        }
        Ok(report)
    }

    /// A chunk of rows: the keys `near` exactly, those before by the sums; or all of them exactly where that is too little.
    fn chunk(
        &mut self,
        state: &State<'_>,
        head: usize,
        rows: Range<usize>,
        near: Range<usize>,
        outputs: &mut Outputs<'_>,
        report: &mut Report,
    ) -> Result<(), Error> {
        let first = near.start;
        let q = self.q.matrix(self.batch, head).row_range(rows.clone());
        let mut bound = self.exact_chunk(q, near.clone(), 1)?;
        let mut kept = true;
        if first > 0 {
            let far = self.far_chunk(state, q, head)?;
            kept = far.is_some();
            bound = far.unwrap_or(bound);
        }
        if !kept {
            // Row i of the chunk sees the keys up to i + first.
            bound = self.exact_chunk(q, 0..near.end, first.saturating_add(1))?;
            report.exact_rows += rows.len();
        }
        report.bound = report.bound.or(Bound::certain(bound));
        let width = Partial::width(self.plan.shape.value_dim);
        for (row, query) in self.rows.chunks_exact_mut(width).zip(rows) {
            let sum = row.get(1).copied().unwrap_or(0.0);
            report.count(sum != 0.0, row.iter().all(|x| x.is_finite()));
            finish(outputs, self.batch, Place { head, query }, row)?;
        }
        Ok(())
    }

    /// Partials of a chunk over these keys, row i seeing the first `i + visible` of them. Returns the largest bound.
    fn exact_chunk(&mut self, q: MatRef<'_, f32>, keys: Range<usize>, visible: usize) -> Result<f32, Error> {
        let offset = i64::try_from(visible).unwrap_or(i64::MAX).saturating_sub(1);
        let plan = self.plan.exact(q.rows(), keys.len())?;
        let rules = self.plan.rules().with_causal().with_offset(Offset::Keys(offset));
        let plan = plan.with_rules(rules)?.with_bound();
        let (k, v) = (self.k.row_range(keys.clone()), self.v.row_range(keys));
        let report = run_exact(&plan, q, k, v, self.rows, &mut self.scratch.scope())?;
        Ok(report.bound.value)
    }

    /// Merges what the sums say about the past into the partials of a chunk. `None` where a row does not keep the tolerance.
    fn far_chunk(&mut self, state: &State<'_>, q: MatRef<'_, f32>, head: usize) -> Result<Option<f32>, Error> {
        let frozen = state.freeze(self.weighted, &mut self.scratch.scope())?;
        let attend = Attend::new(frozen)?;
        let longest = keys::longest(self.q.matrix(self.batch, head));
        let reach = product_up(product_up(self.tau.abs(), longest), attend.radius());
        let wanted = product_up(self.plan.tolerance, self.range);
        let attend = attend.with_reach(reach).with_wanted(wanted);
        let width = Partial::width(self.plan.shape.value_dim);
        let own = self.queries.get_mut(..width);
        let other = own.unwrap_or_default();
        let mut bound = 0.0f32;
        let lanes = moment::lanes(self.isa).max(1);
        for start in (0..q.rows()).step_by(lanes) {
            let range = start..q.rows().min(start + lanes);
            let mut scratch = self.scratch.scope();
            let mut work = Work::new(self.plan.moments(), self.isa, &mut scratch)?;
            let answers = attend.run(q.row_range(range.clone()), self.tau, &mut work, &mut scratch)?;
            let rows = self.rows.chunks_exact_mut(width).skip(start);
            for ((lane, query), row) in range.enumerate().zip(rows) {
                let own = answers.out_bound.get(lane).copied().unwrap_or(f32::INFINITY);
                let off = sum_up(own, of_scale(self.tau_error, self.tau, &attend, q.row(query)));
                far(other, &answers, lane, self.tau, q.row(query), self.centre, off)?;
                let mut near = Partial::from_row(row)?;
                near.merge(other, self.range)?;
                bound = bound.max(near.out_bound().value);
            }
        }
        Ok((bound <= wanted).then_some(bound))
    }
}

/// Exact attention with its promise, as partials.
fn run_exact(
    plan: &crate::attention::Exact<'_>,
    q: MatRef<'_, f32>,
    k: MatRef<'_, f32>,
    v: MatRef<'_, f32>,
    rows: &mut [f32],
    scratch: &mut Scratch<'_>,
) -> Result<Report, Error> {
    let partials = MatMut::new(rows, q.rows(), Partial::width(v.cols()))?;
    let outputs = Outputs {
        partials: Some(partials.into()),
        ..Outputs::default()
    };
    plan.run(q.into(), k.into(), v.into(), outputs, scratch)
}

/// What the rounding of the scale does to a row: scores off by its share, outputs by the range times half of that.
fn of_scale(error: f32, tau: f32, attend: &Attend<'_>, q: &[f32]) -> f32 {
    if error == 0.0 {
        return 0.0;
    }
    let square = q.iter().fold(0.0f32, |sum, x| sum + x * x);
    // The length is at most the larger of its square and 1, and half of it has room for any rounding.
    let reach = product_up(product_up(square.max(1.0), tau.abs()), attend.radius());
    product_up(product_up(error, reach), attend.range())
}

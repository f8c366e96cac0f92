//! One block of queries against all its keys, backwards.

use super::{Gradients, Upstream};
use crate::attention::block::{all_finite, fill_bias, load, Input, Place};
use crate::attention::reach::{Cursor, Reach, Run};
use crate::attention::Shape;
use crate::error::Error;
use crate::kernels::{self, Span, Weighted};
use crate::report::Report;
use crate::scratch::{Need, Scratch};
use crate::view::TensorMut;

/// Keys, and queries, that a block takes at once. A panel's tiles should stay near while it works on them, and gradients of
/// keys are read and written once per block.
const SIDE: usize = kernels::KEY_RUN;

/// Most panels of a block: there is something to be said about each of them on the stack.
const PANELS: usize = 12;

/// Lanes that a call uses at once, in panels.
const fn block_rows(shape: &Shape, lanes: usize) -> usize {
    // No back end has none, but not every optimiser sees that.
    let lanes = if lanes == 0 { 1 } else { lanes };
    let panels = shape.queries.saturating_mul(shape.group()).div_ceil(lanes);
    let most = SIDE.div_ceil(lanes);
    let most = if most < PANELS { most } else { PANELS };
    lanes * if panels < most { panels } else { most }
}

const fn keys_of(shape: &Shape) -> usize {
    if shape.keys < SIDE {
        shape.keys
    } else {
        SIDE
    }
}

/// Rows of copies are whole vectors on every back end.
pub(in crate::attention) const fn padded(columns: usize) -> usize {
    columns.div_ceil(16).saturating_mul(16)
}

/// Working memory of a block of queries, all of it in the caller's scratch. `[panel]` comes first in every piece that
/// the panels do not share.
pub(super) struct Panels<'s> {
    lanes: usize,
    keys: usize,
    dim: usize,
    value_dim: usize,
    /// Queries, `[panel][dim][lane]`, times scale and log2 e.
    q_t: &'s mut [f32],
    /// Gradients of the output, `[panel][column][lane]`.
    d_out_t: &'s mut [f32],
    /// Gradients of the queries, `[panel][dim][lane]`, before the scale.
    dq_t: &'s mut [f32],
    /// Queries, `[panel][lane][column]`.
    q_rows: &'s mut [f32],
    /// Gradients of the output, `[panel][lane][column]`.
    d_out_rows: &'s mut [f32],
    /// Scores, then probabilities, of a run of keys: `[panel][key][lane]`.
    p: &'s mut [f32],
    /// Products of the output's gradient with the values, then gradients of the scores: `[panel][key][lane]`.
    ds: &'s mut [f32],
    /// What is added to the scores of a run; empty where no rule needs it.
    bias: &'s mut [f32],
    /// Derivative of the soft-cap; empty without one.
    slope: &'s mut [f32],
    /// Log-sum-exp in base 2, `[panel][lane]`; NaN where something about the row is not finite.
    lse: &'s mut [f32],
    /// The row's `<out, d_out> - d_lse`; NaN as above.
    delta: &'s mut [f32],
    /// 1 for each lane that has seen a key.
    seen: &'s mut [u32],
    /// Ones.
    factor: &'s mut [f32],
    /// What each panel has weights for.
    spans: [Span; PANELS],
}

impl<'s> Panels<'s> {
    pub(super) const fn need(shape: &Shape, lanes: usize, biased: bool, capped: bool) -> Need {
        let (rows, keys) = (block_rows(shape, lanes), keys_of(shape));
        let tile = keys.saturating_mul(lanes);
        Need::NONE
            .and::<f32>(shape.dim.saturating_mul(rows))
            .and::<f32>(shape.value_dim.saturating_mul(rows))
            .and::<f32>(shape.dim.saturating_mul(rows))
            .and::<f32>(padded(shape.dim).saturating_mul(rows))
            .and::<f32>(padded(shape.value_dim).saturating_mul(rows))
            .and::<f32>(keys.saturating_mul(rows))
            .and::<f32>(keys.saturating_mul(rows))
            .and::<f32>(if biased { tile } else { 0 })
            .and::<f32>(if capped { tile } else { 0 })
            .and::<f32>(rows)
            .and::<f32>(rows)
            .and::<u32>(rows)
            .and::<f32>(lanes)
    }

    pub(super) fn take(
        scratch: &mut Scratch<'s>,
        shape: &Shape,
        lanes: usize,
        biased: bool,
        capped: bool,
    ) -> Result<Self, Error> {
        scratch.check(Self::need(shape, lanes, biased, capped))?;
        let (rows, keys) = (block_rows(shape, lanes), keys_of(shape));
        let tile = keys.saturating_mul(lanes);
        let panels = Panels {
            lanes,
            keys,
            dim: shape.dim,
            value_dim: shape.value_dim,
            q_t: scratch.take(shape.dim.saturating_mul(rows))?,
            d_out_t: scratch.take(shape.value_dim.saturating_mul(rows))?,
            dq_t: scratch.take(shape.dim.saturating_mul(rows))?,
            q_rows: scratch.take(padded(shape.dim).saturating_mul(rows))?,
            d_out_rows: scratch.take(padded(shape.value_dim).saturating_mul(rows))?,
            p: scratch.take(keys.saturating_mul(rows))?,
            ds: scratch.take(keys.saturating_mul(rows))?,
            bias: scratch.take(if biased { tile } else { 0 })?,
            slope: scratch.take(if capped { tile } else { 0 })?,
            lse: scratch.take(rows)?,
            delta: scratch.take(rows)?,
            seen: scratch.take(rows)?,
            factor: scratch.take(lanes)?,
            spans: [Span::NONE; PANELS],
        };
        panels.factor.fill(1.0);
        Ok(panels)
    }

    /// All queries of a kv head, block by block.
    pub(super) fn head(
        &mut self,
        input: &Input<'_>,
        up: &Upstream<'_>,
        (batch, kv_head): (usize, usize),
        to: &mut Gradients<'_>,
        report: &mut Report,
    ) {
        let group = input.shape.group();
        let (pairs, rows) = (input.shape.queries.saturating_mul(group), self.lse.len());
        for start in (0..pairs).step_by(rows.max(1)) {
            let place = Place {
                batch,
                kv_head,
                head: kv_head * group,
                group,
                start,
                used: (pairs - start).min(rows),
            };
            self.load(input, up, &place);
            self.run(input, &place, to);
            self.finish(input, &place, to, report);
            self.sinks(input, &place, to);
        }
    }

    /// Queries and what comes back for them, into lanes and into rows. A row that is not finite is zero, and its
    /// log-sum-exp and delta are NaN: so it makes NaN of all that it touches, and nothing of what a mask hides from it.
    fn load(&mut self, input: &Input<'_>, up: &Upstream<'_>, place: &Place) {
        let scale = input.rules.scale2(self.dim);
        let (lanes, dim, value_dim) = (self.lanes.max(1), self.dim, self.value_dim);
        for all in [&mut *self.q_t, self.d_out_t, self.dq_t, self.q_rows, self.d_out_rows] {
            all.fill(0.0);
        }
        for all in [&mut *self.lse, self.delta] {
            all.fill(0.0);
        }
        self.seen.fill(0);
        for row in 0..place.used {
            let at = place.at(row);
            let [lse, delta] = up.row(input.isa, at);
            let q = input.q.matrix(at.batch, at.head).row(at.query);
            let d_out = up.d_out.matrix(at.batch, at.head).row(at.query);
            let finite = lse < f32::INFINITY && delta.is_finite() && all_finite(q) && all_finite(d_out);
            let number = |x: f32| if finite { x } else { f32::NAN };
            if let (Some(l), Some(d)) = (self.lse.get_mut(row), self.delta.get_mut(row)) {
                (*l, *d) = (number(lse * core::f32::consts::LOG2_E), number(delta));
            }
            if !finite {
                continue;
            }
            let (panel, lane) = (row / lanes, row % lanes);
            let part = |n: usize| panel * n * lanes..;
            load(self.q_t.get_mut(part(dim)).unwrap_or(&mut []), lanes, lane, q, scale);
            load(
                self.d_out_t.get_mut(part(value_dim)).unwrap_or(&mut []),
                lanes,
                lane,
                d_out,
                1.0,
            );
            copy(self.q_rows, row * padded(dim), q);
            copy(self.d_out_rows, row * padded(value_dim), d_out);
        }
    }

    /// All keys, in order.
    fn run(&mut self, input: &Input<'_>, place: &Place, to: &mut Gradients<'_>) {
        let mut cursors = [Cursor::DONE; PANELS];
        for (p, cursor) in cursors.iter_mut().enumerate() {
            let part = place.panel(p, self.lanes);
            if part.used > 0 {
                *cursor = Cursor::new(Reach::of(input, &part, false));
            }
        }
        let next = |cursors: &[Cursor], keys| cursors.iter().filter_map(|c| c.peek(keys)).map(|run| run.start).min();
        while let Some(start) = next(&cursors, self.keys) {
            let end = start.saturating_add(self.keys).min(input.shape.keys);
            for (p, cursor) in cursors.iter_mut().enumerate() {
                let part = place.panel(p, self.lanes);
                if part.used == 0 {
                    break;
                }
                let mut done = Span::NONE;
                while let Some(run) = cursor.next_before(end, self.keys) {
                    let rows = (run.start - start, run.end - start);
                    self.clear(p, done.last, rows.0);
                    self.step(input, &part, p, run, rows, to);
                    let first = if done.last == 0 { rows.0 } else { done.first };
                    done = Span { first, last: rows.1 };
                }
                self.clear(p, done.last, self.keys);
                self.spans[p % PANELS] = done;
            }
            self.sum(input, place, (start, end), to);
        }
    }

    /// No weights for the keys `from..to` of a panel's tiles.
    fn clear(&mut self, p: usize, from: usize, to: usize) {
        let (lanes, tile) = (self.lanes, p.saturating_mul(self.keys * self.lanes));
        for all in [&mut *self.p, self.ds] {
            if let Some(part) = all.get_mut(tile + from * lanes..tile + to * lanes) {
                part.fill(0.0);
            }
        }
    }

    /// One run of keys for panel `p`: probabilities, gradients of the scores, and their part of the queries' gradients.
    /// `rows` is where the run lies in the tiles.
    fn step(
        &mut self,
        input: &Input<'_>,
        place: &Place,
        p: usize,
        run: Run,
        rows: (usize, usize),
        to: &mut Gradients<'_>,
    ) {
        let (isa, lanes) = (input.isa, self.lanes);
        let size = (run.end - run.start).saturating_mul(lanes);
        let tile = p.saturating_mul(self.keys * lanes) + rows.0 * lanes;
        let part = |n: usize| p * n * lanes..(p + 1) * n * lanes;
        let (k, v) = (
            input.k.matrix(place.batch, place.kv_head).row_range(run.start..run.end),
            input.v.matrix(place.batch, place.kv_head).row_range(run.start..run.end),
        );
        let mut panel = Panel {
            p: self.p.get_mut(tile..tile + size).unwrap_or(&mut []),
            ds: self.ds.get_mut(tile..tile + size).unwrap_or(&mut []),
            bias: self.bias.get_mut(..size).unwrap_or(&mut []),
            dq_t: self.dq_t.get_mut(part(self.dim)).unwrap_or(&mut []),
            seen: self.seen.get_mut(part(1)).unwrap_or(&mut []),
            lanes,
        };
        let slope = self.slope.get_mut(..size).unwrap_or(&mut []);
        let (lse, delta) = (
            self.lse.get(part(1)).unwrap_or(&[]),
            self.delta.get(part(1)).unwrap_or(&[]),
        );
        let q_t = self.q_t.get(part(self.dim)).unwrap_or(&[]);
        let d_out_t = self.d_out_t.get(part(self.value_dim)).unwrap_or(&[]);
        let cap = input.rules.cap2();
        if run.whole && cap == 0.0 && kernels::finishes_scores(isa) {
            kernels::probabilities_of_keys(isa, q_t, k, panel.p, lse);
            kernels::gradients_of_keys(isa, d_out_t, v, panel.ds, panel.p, delta);
        } else {
            kernels::scores(isa, q_t, k, panel.p);
            if cap != 0.0 {
                kernels::cap_and_slope(isa, panel.p, slope, cap);
            }
            if !run.whole {
                fill_bias(panel.bias, lanes, input, place, run.start);
                kernels::add_bias(isa, panel.p, panel.bias);
            }
            kernels::scores(isa, d_out_t, v, panel.ds);
            kernels::score_gradients(isa, panel.p, panel.ds, lse, delta, !run.whole);
        }
        if run.whole {
            panel.seen.fill(1);
        } else {
            panel.look();
        }
        if let Some(bias) = &mut to.bias {
            panel.add_bias_gradient(place, run, bias);
        }
        if cap != 0.0 {
            kernels::times_slope(isa, panel.ds, slope);
        }
        if to.q.is_none() {
            return;
        }
        if run.whole || (0..k.rows()).all(|j| all_finite(k.row(j))) {
            kernels::values(isa, panel.ds, k, self.factor, panel.dq_t);
            return;
        }
        for j in 0..k.rows() {
            if all_finite(k.row(j)) {
                let ds = panel.ds.get(j * lanes..(j + 1) * lanes).unwrap_or(&[]);
                kernels::values(isa, ds, k.row_range(j..j + 1), self.factor, panel.dq_t);
            } else {
                panel.spoil(j);
            }
        }
    }

    /// The keys' part: `start..end` are in the tiles of all panels.
    fn sum(&self, input: &Input<'_>, place: &Place, (start, end): (usize, usize), to: &mut Gradients<'_>) {
        let sums = [
            (&*self.p, &*self.d_out_rows, self.value_dim, &mut to.v),
            (self.ds, self.q_rows, self.dim, &mut to.k),
        ];
        for (weights, rows, columns, to) in sums {
            let weighted = Weighted {
                weights,
                keys: self.keys,
                rows,
                width: padded(columns),
                used: place.used,
                spans: &self.spans,
            };
            if let Some(to) = to {
                let mut matrix = to.matrix(place.batch, place.kv_head);
                kernels::weighted_rows(input.isa, &weighted, &mut matrix.row_range(start..end));
            }
        }
    }

    /// The queries' gradients, out of their lanes.
    fn finish(&self, input: &Input<'_>, place: &Place, to: &mut Gradients<'_>, report: &mut Report) {
        let scale = input.rules.scale_of(self.dim);
        let lanes = self.lanes.max(1);
        for row in 0..place.used {
            let at = place.at(row);
            let seen = self.seen.get(row).is_some_and(|&n| n != 0);
            let mut finite = !seen || self.lse.get(row).is_some_and(|lse| !lse.is_nan());
            if let Some(to) = &mut to.q {
                let to = to.row(at.batch, at.head, at.query);
                let panel = self
                    .dq_t
                    .get((row / lanes).saturating_mul(self.dim * lanes)..)
                    .unwrap_or(&[]);
                let lane = panel.get(row % lanes..).unwrap_or(&[]).iter().step_by(lanes);
                to.iter_mut().zip(lane).for_each(|(to, &x)| *to = x);
                finite &= settle(to, scale);
            }
            report.count(seen, finite);
        }
    }

    /// A learned sink is a key of value 0.
    fn sinks(&self, input: &Input<'_>, place: &Place, to: &mut Gradients<'_>) {
        let Some(sinks) = &mut to.sink_logits else { return };
        for (row, (lse, delta)) in (0..place.used).zip(self.lse.iter().zip(&*self.delta)) {
            let head = place.at(row).head;
            if let (Some(logit), Some(sum)) = (input.rules.sink_logit2(head), sinks.get_mut(head)) {
                *sum -= kernels::probability_of(logit - lse) * delta;
            }
        }
    }
}

/// One panel's share of a block, over a run of keys.
struct Panel<'p> {
    p: &'p mut [f32],
    ds: &'p mut [f32],
    bias: &'p mut [f32],
    dq_t: &'p mut [f32],
    seen: &'p mut [u32],
    lanes: usize,
}

impl Panel<'_> {
    /// Which lanes see a key of the run.
    fn look(&mut self) {
        for row in self.bias.chunks_exact(self.lanes.max(1)) {
            let lanes = self.seen.iter_mut().zip(row);
            lanes.for_each(|(seen, &bias)| *seen |= u32::from(bias != f32::NEG_INFINITY));
        }
    }

    /// The gradient of what was added to the scores: the scores' own, summed over what shares an entry.
    fn add_bias_gradient(&self, place: &Place, run: Run, to: &mut TensorMut<'_, f32>) {
        let shared = |at: usize, n: usize| at.min(n.saturating_sub(1));
        for lane in 0..place.used {
            let at = place.at(lane);
            let (batch, head, query) = (
                shared(at.batch, to.batch()),
                shared(at.head, to.heads()),
                shared(at.query, to.rows()),
            );
            let row = to.row(batch, head, query).iter_mut().skip(run.start);
            let column = self.ds.get(lane..).unwrap_or(&[]).iter().step_by(self.lanes.max(1));
            row.zip(column).for_each(|(to, &x)| *to += x);
        }
    }

    /// Key `j` of the run is not finite: neither is a row that sees it, whatever else its numbers say.
    fn spoil(&mut self, j: usize) {
        let lanes = self.lanes.max(1);
        for lane in 0..lanes {
            let at = j * lanes + lane;
            if self.bias.get(at) == Some(&f32::NEG_INFINITY) {
                continue;
            }
            for x in [&mut *self.p, self.ds] {
                if let Some(x) = x.get_mut(at) {
                    *x = f32::NAN;
                }
            }
            let column = self.dq_t.get_mut(lane..).unwrap_or(&mut []).iter_mut().step_by(lanes);
            column.for_each(|x| *x = f32::NAN);
        }
    }
}

/// A row of sums, scaled, as it is handed out: one NaN and one zero for all machines. Whether it is finite.
pub(super) fn settle(row: &mut [f32], scale: f32) -> bool {
    for x in row.iter_mut() {
        // A sum that underflowed may be a zero of either sign.
        let y = *x * scale + 0.0;
        *x = if y.is_finite() { y } else { f32::NAN };
    }
    all_finite(row)
}

fn copy(rows: &mut [f32], start: usize, row: &[f32]) {
    let to = rows.get_mut(start..).unwrap_or(&mut []).iter_mut();
    to.zip(row).for_each(|(to, &x)| *to = x);
}

//! One block of queries against all its keys: the loop that every tile runs in.

use super::outputs::Sums;
use super::rules::{At, Rules, Span};
use super::Shape;
use crate::error::Error;
use crate::kernels::{self, Lanes};
use crate::scratch::{Need, Scratch};
use crate::simd::Isa;
use crate::view::{MatRef, TensorRef};

/// Most lanes of a block over all back ends of this build.
pub(super) const MOST_LANES: usize = kernels::most_block_lanes();

/// Working memory of a block, all in the caller's scratch.
pub(super) struct Block<'s> {
    lanes: usize,
    run: usize,
    /// Queries, `[dim][lane]`, times scale and log2 e.
    q_t: &'s mut [f32],
    /// Scores, then weights, of a run of keys: `[key][lane]`.
    tile: &'s mut [f32],
    /// What is added to the scores of a run; empty where no rule needs it.
    bias: &'s mut [f32],
    /// Weighted sums of values, `[column][lane]`.
    out: &'s mut [f32],
    /// Softmax references.
    max: &'s mut [f32],
    /// Sums of weights.
    sum: &'s mut [f32],
    /// Lowest live scores.
    low: &'s mut [f32],
    factor: &'s mut [f32],
}

/// Which lane is which: lane `l` of a block is query `(start + l) / group`, head `(start + l) % group` of the group.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub batch: usize,
    pub kv_head: usize,
    pub group: usize,
    pub start: usize,
    /// Lanes in use.
    pub used: usize,
}

impl Place {
    pub(super) fn at(&self, lane: usize) -> At {
        let pair = self.start + lane;
        // `group` is not 0 where there are lanes.
        let group = self.group.max(1);
        At {
            batch: self.batch,
            head: self.kv_head * group + pair % group,
            query: pair / group,
        }
    }
}

/// What a block reads.
pub(super) struct Input<'a> {
    pub shape: Shape,
    pub rules: Rules<'a>,
    pub isa: Isa,
    pub q: TensorRef<'a, f32>,
    pub k: TensorRef<'a, f32>,
    pub v: TensorRef<'a, f32>,
}

/// Where scores go on their way, if anybody asked.
pub(super) trait Watch {
    /// Whether every key must be visited, masked or not.
    const EVERY_KEY: bool;
    /// The scores of a run, in base 2, before the cap.
    fn raw(&mut self, place: &Place, first_key: usize, tile: &[f32], lanes: usize);
    /// After the cap.
    fn capped(&mut self, place: &Place, first_key: usize, tile: &[f32], lanes: usize);
    /// After cap and bias; minus infinity is masked.
    fn shaped(&mut self, place: &Place, first_key: usize, tile: &[f32], lanes: usize);
}

/// Nobody asked.
pub(super) struct Unwatched;

impl Watch for Unwatched {
    const EVERY_KEY: bool = false;
    fn raw(&mut self, _: &Place, _: usize, _: &[f32], _: usize) {}
    fn capped(&mut self, _: &Place, _: usize, _: &[f32], _: usize) {}
    fn shaped(&mut self, _: &Place, _: usize, _: &[f32], _: usize) {}
}

impl<'s> Block<'s> {
    pub(super) const fn need(shape: &Shape, lanes: usize, run: usize, biased: bool) -> Need {
        Need::NONE
            .and::<f32>(shape.dim.saturating_mul(lanes))
            .and::<f32>(run.saturating_mul(lanes))
            .and::<f32>(if biased { run.saturating_mul(lanes) } else { 0 })
            .and::<f32>(shape.value_dim.saturating_mul(lanes))
            .and::<f32>(lanes)
            .and::<f32>(lanes)
            .and::<f32>(lanes)
            .and::<f32>(lanes)
    }

    pub(super) fn take(
        scratch: &mut Scratch<'s>,
        shape: &Shape,
        lanes: usize,
        run: usize,
        biased: bool,
    ) -> Result<Self, Error> {
        scratch.check(Self::need(shape, lanes, run, biased))?;
        Ok(Block {
            lanes,
            run,
            q_t: scratch.take(shape.dim.saturating_mul(lanes))?,
            tile: scratch.take(run.saturating_mul(lanes))?,
            bias: scratch.take(if biased { run.saturating_mul(lanes) } else { 0 })?,
            out: scratch.take(shape.value_dim.saturating_mul(lanes))?,
            max: scratch.take(lanes)?,
            sum: scratch.take(lanes)?,
            low: scratch.take(lanes)?,
            factor: scratch.take(lanes)?,
        })
    }

    pub(super) const fn lanes(&self) -> usize {
        self.lanes
    }

    /// What a lane has come to.
    pub(super) fn sums(&self, lane: usize) -> Sums<'_> {
        let number = |x: &[f32]| x.get(lane).copied().unwrap_or(0.0);
        Sums {
            max: number(self.max),
            sum: number(self.sum),
            low: number(self.low),
            values: self.out.get(lane..).unwrap_or(&[]),
            stride: self.lanes,
        }
    }

    /// Queries into lanes, scaled. Unused lanes are zero.
    pub(super) fn load(&mut self, input: &Input<'_>, place: &Place) {
        let scale = input.rules.scale2(input.shape.dim);
        for lane in 0..self.lanes {
            let at = place.at(lane);
            let row = if lane < place.used {
                input.q.matrix(at.batch, at.head).row(at.query)
            } else {
                &[]
            };
            let lane_of_columns = self
                .q_t
                .get_mut(lane..)
                .unwrap_or(&mut [])
                .iter_mut()
                .step_by(self.lanes);
            let mut values = row.iter();
            lane_of_columns.for_each(|to| *to = values.next().map_or(0.0, |&x| x * scale));
        }
    }

    /// All keys, in order. Returns whether it took a second run.
    pub(super) fn run(&mut self, input: &Input<'_>, place: &Place, watch: &mut impl Watch) -> bool {
        self.max.fill(kernels::NOTHING);
        if !self.keys(input, place, watch) {
            return false;
        }
        // Some weight may have lost bits under a reference that was raised later. With the last reference known from
        // the start there is nothing to rescale, and the result is the one that every cut into runs agrees on.
        self.keys(input, place, watch);
        true
    }

    /// One pass over the keys from the references in `max`; whether it should be repeated.
    fn keys<W: Watch>(&mut self, input: &Input<'_>, place: &Place, watch: &mut W) -> bool {
        self.sum.fill(0.0);
        self.out.fill(0.0);
        self.low.fill(f32::INFINITY);
        let mut spans = [Span::EMPTY; MOST_LANES];
        let spans = spans.get_mut(..place.used).unwrap_or(&mut []);
        for (lane, span) in spans.iter_mut().enumerate() {
            *span = input.rules.span(&input.shape, place.batch, place.at(lane).query);
        }
        let reach = Reach::of(spans, input, W::EVERY_KEY);
        let (k, v) = (
            input.k.matrix(place.batch, place.kv_head),
            input.v.matrix(place.batch, place.kv_head),
        );
        let mut repeat = false;
        let mut j = 0;
        while let Some((start, end, whole)) = reach.next(j, self.run) {
            j = end;
            let run = (k.row_range(start..end), v.row_range(start..end));
            repeat |= self.step(input, place, spans, (start, end), whole, run, watch);
        }
        repeat
    }

    #[allow(clippy::too_many_arguments)] // one call site; a struct would only rename the words
    fn step(
        &mut self,
        input: &Input<'_>,
        place: &Place,
        spans: &[Span],
        (start, end): (usize, usize),
        whole: bool,
        (k, v): (MatRef<'_, f32>, MatRef<'_, f32>),
        watch: &mut impl Watch,
    ) -> bool {
        let isa = input.isa;
        let size = (end - start).saturating_mul(self.lanes);
        let tile = self.tile.get_mut(..size).unwrap_or(&mut []);
        kernels::scores(isa, self.q_t, k, tile);
        watch.raw(place, start, tile, self.lanes);
        let cap = input.rules.cap2();
        if cap != 0.0 {
            kernels::cap(isa, tile, cap);
        }
        watch.capped(place, start, tile, self.lanes);
        let masked = !whole;
        if masked {
            let bias = self.bias.get_mut(..size).unwrap_or(&mut []);
            fill_bias(bias, self.lanes, input, place, spans, start);
            kernels::add_bias(isa, tile, bias);
            watch.shaped(place, start, tile, self.lanes);
        }
        let lanes = Lanes {
            max: self.max,
            sum: self.sum,
            low: self.low,
            factor: self.factor,
        };
        let repeat = kernels::weigh(isa, tile, lanes, masked);
        if masked {
            kernels::masked_values(isa, tile, v, self.factor, self.out);
        } else {
            kernels::values(isa, tile, v, self.factor, self.out);
        }
        repeat
    }
}

/// What each lane adds to the scores of keys `start..`: minus infinity where it does not see the key.
fn fill_bias(bias: &mut [f32], lanes: usize, input: &Input<'_>, place: &Place, spans: &[Span], start: usize) {
    let dense = input.rules.dense();
    for (lane, span) in spans.iter().enumerate() {
        let at = place.at(lane);
        let position = input.rules.absolute_position(&input.shape, place.batch, at.query);
        let column = bias.get_mut(lane..).unwrap_or(&mut []).iter_mut().step_by(lanes.max(1));
        for (j, to) in (start..).zip(column) {
            *to = match (span.sees(j), dense) {
                (false, _) => f32::NEG_INFINITY,
                (true, false) => 0.0,
                (true, true) => input.rules.bias2(at, position, j),
            };
        }
    }
    // Lanes without a query see everything: their scores are zero, and nobody reads them.
    for row in bias.chunks_exact_mut(lanes.max(1)) {
        row.iter_mut().skip(spans.len()).for_each(|x| *x = 0.0);
    }
}

/// The keys that the lanes of a block reach together, and those that all of them see.
pub(super) struct Reach {
    sinks: (usize, usize),
    keys: (usize, usize),
    whole: (usize, usize),
}

impl Reach {
    pub(super) fn of(spans: &[Span], input: &Input<'_>, every_key: bool) -> Reach {
        let mut reach = Reach {
            sinks: (usize::MAX, 0),
            keys: (usize::MAX, 0),
            whole: (0, usize::MAX),
        };
        for span in spans {
            if span.sinks.0 < span.sinks.1 {
                reach.sinks = (reach.sinks.0.min(span.sinks.0), reach.sinks.1.max(span.sinks.1));
            }
            if span.keys.0 < span.keys.1 {
                reach.keys = (reach.keys.0.min(span.keys.0), reach.keys.1.max(span.keys.1));
            }
            reach.whole = (reach.whole.0.max(span.keys.0), reach.whole.1.min(span.keys.1));
        }
        if input.rules.dense() || every_key {
            reach.whole = (0, 0);
        }
        if every_key {
            reach.keys = (0, input.shape.keys);
        }
        reach
    }

    /// One past the last key that anybody sees.
    pub(super) fn last(&self) -> usize {
        self.keys.1.max(self.sinks.1)
    }

    /// The next run from key `j` on: start, end, and whether every lane sees all of it.
    pub(super) fn next(&self, j: usize, run: usize) -> Option<(usize, usize, bool)> {
        let j = if j < self.sinks.1 {
            j.max(self.sinks.0.min(self.keys.0))
        } else {
            j.max(self.keys.0)
        };
        let last = self.last();
        if j >= last {
            return None;
        }
        let (w0, w1) = self.whole;
        let (end, whole) = if j >= w0 && j < w1 {
            (w1, true)
        } else if j < w0 && w0 < w1 {
            (w0.min(last), false)
        } else {
            (last, false)
        };
        // Before the window there may be only the kept first keys.
        let end = if j < self.sinks.1 && j < self.keys.0 {
            end.min(self.sinks.1)
        } else {
            end
        };
        Some((j, end.min(j.saturating_add(run)), whole))
    }
}

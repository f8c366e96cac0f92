//! One block of queries against all its keys: the loop that every tile runs in.

use super::outputs::Sums;
use super::reach::{Cursor, Reach, Run};
use super::rules::{At, Rules};
use super::source::{Rooms, Source};
use super::Shape;
use crate::error::Error;
use crate::kernels::{self, Lanes};
use crate::scratch::{Need, Scratch};
use crate::simd::Isa;
use crate::view::{MatRef, TensorRef};

/// Most lanes of a block over all back ends of this build.
pub(super) const MOST_LANES: usize = kernels::most_block_lanes();

/// Panels of lanes that read a run of keys one after the other while it is in the second-level cache.
pub(super) const PANELS: usize = if cfg!(target_pointer_width = "64") { 2 } else { 1 };

/// Working memory of a block of queries: up to [`PANELS`] panels of lanes. All of it is in the caller's scratch.
pub(super) struct Block<'s> {
    lanes: usize,
    run: usize,
    dim: usize,
    value_dim: usize,
    /// Queries, `[panel][dim][lane]`, times scale and log2 e.
    q_t: &'s mut [f32],
    /// Scores, then weights, of a run of keys: `[key][lane]`.
    tile: &'s mut [f32],
    /// What is added to the scores of a run; empty where no rule needs it.
    bias: &'s mut [f32],
    /// Weighted sums of values, `[panel][column][lane]`.
    out: &'s mut [f32],
    /// Softmax references, `[panel][lane]` like all that follow.
    max: &'s mut [f32],
    /// Sums of weights.
    sum: &'s mut [f32],
    /// Lowest live scores.
    low: &'s mut [f32],
    factor: &'s mut [f32],
    /// Panels whose scores were near their references so far.
    near: [bool; PANELS],
}

/// Which lane is which: lane `l` of a block is query `(start + l) / group`, head `head + (start + l) % group`.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub batch: usize,
    pub kv_head: usize,
    /// The first of the query heads, all of which read `kv_head`.
    pub head: usize,
    /// How many there are.
    pub group: usize,
    pub start: usize,
    /// Lanes in use, over all panels.
    pub used: usize,
}

impl Place {
    /// The part that panel `p` holds.
    pub(super) fn panel(&self, p: usize, lanes: usize) -> Place {
        let skipped = p.saturating_mul(lanes).min(self.used);
        Place {
            start: self.start + skipped,
            used: (self.used - skipped).min(lanes),
            ..*self
        }
    }

    pub(super) fn at(&self, lane: usize) -> At {
        let pair = self.start + lane;
        // `group` is not 0 where there are lanes.
        let group = self.group.max(1);
        At {
            batch: self.batch,
            head: self.head + pair % group,
            query: pair / group,
        }
    }
}

/// What a block reads: keys and values in f32, or in whatever `K` is.
pub(super) struct Input<'a, K = TensorRef<'a, f32>> {
    pub shape: Shape,
    pub rules: &'a Rules<'a>,
    pub isa: Isa,
    pub q: TensorRef<'a, f32>,
    pub k: K,
    pub v: K,
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

/// Lanes that a call uses at once: all its rows, or as many as there are panels for.
pub(super) const fn block_rows(shape: &Shape, lanes: usize) -> usize {
    let pairs = shape.queries.saturating_mul(shape.group());
    let panels = if lanes == 0 { 0 } else { pairs.div_ceil(lanes) };
    lanes * if panels < PANELS { panels } else { PANELS }
}

impl<'s> Block<'s> {
    pub(super) const fn need(shape: &Shape, lanes: usize, run: usize, biased: bool) -> Need {
        let rows = block_rows(shape, lanes);
        Need::NONE
            .and::<f32>(shape.dim.saturating_mul(rows))
            .and::<f32>(run.saturating_mul(lanes))
            .and::<f32>(if biased { run.saturating_mul(lanes) } else { 0 })
            .and::<f32>(shape.value_dim.saturating_mul(rows))
            .and::<f32>(rows)
            .and::<f32>(rows)
            .and::<f32>(rows)
            .and::<f32>(rows)
    }

    pub(super) fn take(
        scratch: &mut Scratch<'s>,
        shape: &Shape,
        lanes: usize,
        run: usize,
        biased: bool,
    ) -> Result<Self, Error> {
        let rows = block_rows(shape, lanes);
        Ok(Block {
            lanes,
            run,
            dim: shape.dim,
            value_dim: shape.value_dim,
            q_t: scratch.take(shape.dim.saturating_mul(rows))?,
            tile: scratch.take(run.saturating_mul(lanes))?,
            bias: scratch.take(if biased { run.saturating_mul(lanes) } else { 0 })?,
            out: scratch.take(shape.value_dim.saturating_mul(rows))?,
            max: scratch.take(rows)?,
            sum: scratch.take(rows)?,
            low: scratch.take(rows)?,
            factor: scratch.take(rows)?,
            near: [true; PANELS],
        })
    }

    /// Lanes of all panels.
    pub(super) const fn rows(&self) -> usize {
        self.max.len()
    }

    /// What row `row` of the block has come to.
    pub(super) fn sums(&self, row: usize) -> Sums<'_> {
        let number = |x: &[f32]| x.get(row).copied().unwrap_or(0.0);
        let lanes = self.lanes.max(1);
        let panel = (row / lanes).saturating_mul(self.value_dim * lanes);
        Sums {
            max: number(self.max),
            sum: number(self.sum),
            low: number(self.low),
            values: self.out.get(panel..).unwrap_or(&[]),
            lanes,
            lane: row % lanes,
        }
    }

    /// Queries into lanes, scaled. Unused lanes are zero.
    pub(super) fn load<K>(&mut self, input: &Input<'_, K>, place: &Place) {
        let scale = input.rules.scale2(input.shape.dim);
        let lanes = self.lanes.max(1);
        for (p, q_t) in self.q_t.chunks_exact_mut((self.dim * lanes).max(1)).enumerate() {
            let place = place.panel(p, lanes);
            if place.used < lanes {
                q_t.fill(0.0);
            }
            for lane in 0..place.used {
                let at = place.at(lane);
                load(q_t, lanes, lane, input.q.matrix(at.batch, at.head).row(at.query), scale);
            }
        }
    }

    /// All keys, in order. Returns how many panels took a second pass.
    pub(super) fn run<K: Source>(
        &mut self,
        input: &Input<'_, K>,
        place: &Place,
        rooms: &mut Rooms<'_, K>,
        watch: &mut impl Watch,
    ) -> usize {
        let mut again = [true; PANELS];
        self.near = [kernels::weighs_near(input.isa); PANELS];
        self.max.fill(kernels::NOTHING);
        self.pass(input, place, rooms, watch, &mut again);
        for (p, again) in again.iter_mut().enumerate() {
            // A sum may have overflowed only because its reference was still low.
            *again |= place.panel(p, self.lanes).used > 0 && !all_finite(self.panel(p, 0).out);
        }
        let repeated = again.iter().filter(|&&again| again).count();
        if repeated > 0 {
            // Some weight may have lost bits, or some sum its finite value, under a reference that was raised later. With
            // the last reference known from the start there is nothing to rescale, and the result is the one that every
            // cut into runs agrees on.
            self.pass(input, place, rooms, watch, &mut again);
        }
        repeated
    }

    /// One pass of the panels in `wanted` over their keys, from the references in `max`; leaves the panels that should
    /// be repeated.
    ///
    /// Panels take turns at a run of keys, so that it is read from memory, and widened, once for all of them.
    fn pass<K: Source, W: Watch>(
        &mut self,
        input: &Input<'_, K>,
        place: &Place,
        rooms: &mut Rooms<'_, K>,
        watch: &mut W,
        wanted: &mut [bool; PANELS],
    ) {
        let mut cursors = [Cursor::DONE; PANELS];
        for (p, (cursor, &wanted)) in cursors.iter_mut().zip(wanted.iter()).enumerate() {
            let part = place.panel(p, self.lanes);
            if wanted && part.used > 0 {
                *cursor = Cursor::new(Reach::of(input, &part, W::EVERY_KEY));
                self.panel(p, 0).clear();
            }
        }
        *wanted = [false; PANELS];
        while let Some(start) = cursors
            .iter()
            .filter_map(|c| c.peek(self.run))
            .map(|run| run.start)
            .min()
        {
            let limit = start.saturating_add(self.run);
            rooms.empty(start);
            for (p, (cursor, again)) in cursors.iter_mut().zip(wanted.iter_mut()).enumerate() {
                while let Some(run) = cursor.next_before(limit, self.run) {
                    *again |= self.step(input, p, &place.panel(p, self.lanes), run, rooms, watch);
                }
            }
        }
    }

    /// Panel `p`, with `size` numbers of the tile.
    fn panel(&mut self, p: usize, size: usize) -> Panel<'_> {
        let part = |n: usize| p.saturating_mul(n)..p.saturating_add(1).saturating_mul(n);
        let lanes = part(self.lanes);
        Panel {
            q_t: self.q_t.get(part(self.dim * self.lanes)).unwrap_or(&[]),
            out: self.out.get_mut(part(self.value_dim * self.lanes)).unwrap_or(&mut []),
            max: self.max.get_mut(lanes.clone()).unwrap_or(&mut []),
            sum: self.sum.get_mut(lanes.clone()).unwrap_or(&mut []),
            low: self.low.get_mut(lanes.clone()).unwrap_or(&mut []),
            factor: self.factor.get_mut(lanes).unwrap_or(&mut []),
            near: &mut self.near[p % PANELS],
            tile: self.tile.get_mut(..size).unwrap_or(&mut []),
            bias: self.bias.get_mut(..size).unwrap_or(&mut []),
        }
    }

    /// One run of keys for one panel; whether the panel should be repeated.
    fn step<K: Source>(
        &mut self,
        input: &Input<'_, K>,
        p: usize,
        place: &Place,
        run: Run,
        rooms: &mut Rooms<'_, K>,
        watch: &mut impl Watch,
    ) -> bool {
        let (isa, lanes) = (input.isa, self.lanes);
        let size = (run.end - run.start).saturating_mul(lanes);
        let (k, v) = rooms.rows(input, place, run);
        let mut panel = self.panel(p, size);
        let cap = input.rules.cap2();
        panel.score(isa, k, cap, |tile| watch.raw(place, run.start, tile, lanes));
        watch.capped(place, run.start, panel.tile, lanes);
        if run.whole {
            let repeat = panel.weigh(isa, k, cap);
            kernels::values(isa, panel.tile, v, panel.factor, panel.out);
            return repeat;
        }
        fill_bias(panel.bias, lanes, input, place, run.start);
        kernels::add_bias(isa, panel.tile, panel.bias);
        watch.shaped(place, run.start, panel.tile, lanes);
        let (tile, softmax) = panel.softmax();
        let repeat = kernels::weigh(isa, tile, softmax, true);
        kernels::masked_values(isa, panel.tile, v, panel.factor, panel.out);
        repeat
    }
}

/// One panel's share of a block.
struct Panel<'p> {
    q_t: &'p [f32],
    out: &'p mut [f32],
    max: &'p mut [f32],
    sum: &'p mut [f32],
    low: &'p mut [f32],
    factor: &'p mut [f32],
    /// Whether scores were near their references so far.
    near: &'p mut bool,
    tile: &'p mut [f32],
    bias: &'p mut [f32],
}

impl Panel<'_> {
    /// Forgets all keys, but not the references.
    fn clear(&mut self) {
        self.sum.fill(0.0);
        self.out.fill(0.0);
        self.low.fill(f32::INFINITY);
    }

    /// Scores of a run, capped if `cap` is not 0; `raw` sees them before.
    fn score(&mut self, isa: Isa, k: MatRef<'_, f32>, cap: f32, raw: impl FnOnce(&[f32])) {
        kernels::scores(isa, self.q_t, k, self.tile);
        raw(self.tile);
        if cap != 0.0 {
            kernels::cap(isa, self.tile, cap);
        }
    }

    fn softmax(&mut self) -> (&mut [f32], Lanes<'_>) {
        let lanes = Lanes {
            max: self.max,
            sum: self.sum,
            low: self.low,
            factor: self.factor,
        };
        (self.tile, lanes)
    }

    /// Scores of a run that no mask touches into weights; whether the panel should be repeated.
    fn weigh(&mut self, isa: Isa, k: MatRef<'_, f32>, cap: f32) -> bool {
        if *self.near {
            let (tile, lanes) = self.softmax();
            if let Some(repeat) = kernels::weigh_near(isa, tile, lanes) {
                return repeat;
            }
            // Where scores once were far apart they will be again.
            *self.near = false;
            self.score(isa, k, cap, |_| ());
        }
        let (tile, lanes) = self.softmax();
        kernels::weigh(isa, tile, lanes, false)
    }
}

/// A query into its lane of `[dim][lane]`, scaled. Like the other leaves that work on a row, not inlined: its registers
/// would be saved in the caller's frame, below which the kernels run.
#[inline(never)]
pub(super) fn load(q_t: &mut [f32], lanes: usize, lane: usize, row: &[f32], scale: f32) {
    for (to, &x) in q_t.chunks_exact_mut(lanes.max(1)).zip(row) {
        if let Some(to) = to.get_mut(lane) {
            *to = x * scale;
        }
    }
}

/// Without a branch per number, so that it is done in vectors.
#[inline(never)]
pub(super) fn all_finite(x: &[f32]) -> bool {
    // One more in the exponent reaches the sign bit only from the largest, that of infinities and NaN.
    let bits = x.iter().map(|x| (x.to_bits() & 0x7fff_ffff) + 0x0080_0000);
    bits.fold(0, |all, bits| all | bits) >> 31 == 0
}

/// What each lane adds to the scores of keys `start..`: minus infinity where it does not see the key.
pub(super) fn fill_bias<K>(bias: &mut [f32], lanes: usize, input: &Input<'_, K>, place: &Place, start: usize) {
    let dense = input.rules.dense();
    for lane in 0..lanes {
        let column = bias.get_mut(lane..).unwrap_or(&mut []).iter_mut().step_by(lanes.max(1));
        if lane >= place.used {
            // Lanes without a query see everything: their scores are zero, and nobody reads them.
            column.for_each(|to| *to = 0.0);
            continue;
        }
        let at = place.at(lane);
        let span = input.rules.span(&input.shape, at.batch, at.query);
        let position = input.rules.absolute_position(&input.shape, at.batch, at.query);
        for (j, to) in (start..).zip(column) {
            *to = match (span.sees(j), dense) {
                (false, _) => f32::NEG_INFINITY,
                (true, false) => 0.0,
                (true, true) => input.rules.bias2(at, position, j),
            };
        }
    }
}

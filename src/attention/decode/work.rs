//! Up to eight rows against all their keys, a run at a time.

use crate::attention::block::{all_finite, Place};
use crate::attention::outputs::{Outputs, Stage, Sums};
use crate::attention::reach::Reach;
use crate::attention::rules::{At, Span};
use crate::attention::slots::Keys;
use crate::attention::Shape;
use crate::error::Error;
use crate::kernels::{self, Lanes, Rows};
use crate::scratch::{Need, Scratch};
use crate::view::MatRef;

/// Rows (queries times heads of a group) that read the keys together.
pub(super) const ROWS: usize = 8;

/// Keys that are scored before their values are read; a multiple of 16.
const RUN: usize = 256;

/// From the scores of one query to those of the next: a run, and what a piece of it that begins anywhere may be written
/// beyond its end.
const STRIDE: usize = RUN + 16;

/// Working memory of up to [`ROWS`] rows.
pub(super) struct Work<'s> {
    dim: usize,
    out_stride: usize,
    /// Queries times scale and log2 e.
    q: &'s mut [f32],
    /// Scores, then weights, of a run of keys, one row of [`RUN`] per query.
    tile: &'s mut [f32],
    bias: &'s mut [f32],
    out: &'s mut [f32],
    /// Softmax state in sixteen lanes per query; `max`, `low` and `factor` are the same in all of them.
    max: &'s mut [f32],
    sum: &'s mut [f32],
    low: &'s mut [f32],
    factor: &'s mut [f32],
    /// Rows whose scores were near their references so far.
    near: [bool; ROWS],
}

const fn rows(shape: &Shape) -> usize {
    let pairs = shape.queries.saturating_mul(shape.group());
    if pairs < ROWS {
        pairs
    } else {
        ROWS
    }
}

const fn out_stride(shape: &Shape) -> usize {
    shape.value_dim.saturating_add(15) & !15
}

impl<'s> Work<'s> {
    pub(super) const fn need(shape: &Shape) -> Need {
        let rows = rows(shape);
        Need::NONE
            .and::<f32>(rows.saturating_mul(shape.dim))
            .and::<f32>(rows * STRIDE)
            .and::<f32>(rows * RUN)
            .and::<f32>(rows.saturating_mul(out_stride(shape)))
            .and::<f32>(rows * 16)
            .and::<f32>(rows * 16)
            .and::<f32>(rows * 16)
            .and::<f32>(rows * 16)
    }

    pub(super) fn take(scratch: &mut Scratch<'s>, shape: &Shape) -> Result<Self, Error> {
        let (rows, out_stride) = (rows(shape), out_stride(shape));
        Ok(Work {
            dim: shape.dim,
            out_stride,
            q: scratch.take(rows.saturating_mul(shape.dim))?,
            tile: scratch.take(rows * STRIDE)?,
            bias: scratch.take(rows * RUN)?,
            out: scratch.take(rows.saturating_mul(out_stride))?,
            max: scratch.take(rows * 16)?,
            sum: scratch.take(rows * 16)?,
            low: scratch.take(rows * 16)?,
            factor: scratch.take(rows * 16)?,
            near: [true; ROWS],
        })
    }
}

impl Work<'_> {
    pub(super) fn load(&mut self, input: &Keys<'_>, place: &Place) {
        let scale = input.rules.scale2(self.dim);
        for (row, to) in self.q.chunks_exact_mut(self.dim.max(1)).take(place.used).enumerate() {
            let At { batch, head, query } = place.at(row);
            let from = input.q.matrix(batch, head).row(query);
            to.iter_mut().zip(from).for_each(|(to, &x)| *to = x * scale);
        }
    }

    pub(super) fn sums(&self, row: usize) -> Sums<'_> {
        let lanes = |x: &[f32]| {
            x.get(row * 16..)
                .and_then(|x| x.first_chunk::<16>().copied())
                .unwrap_or([0.0; 16])
        };
        let first = |x: &[f32]| x.get(row * 16).copied().unwrap_or(0.0);
        Sums {
            max: first(self.max),
            sum: kernels::sum_of(&lanes(self.sum)),
            low: first(self.low),
            values: self.out.get(row.wrapping_mul(self.out_stride)..).unwrap_or(&[]),
            lanes: 1,
            lane: 0,
        }
    }

    /// All keys, in order; twice where bits may have been lost (see `Block::run`).
    pub(super) fn run(&mut self, input: &Keys<'_>, place: &Place, outputs: &mut Outputs<'_>) -> bool {
        self.max.fill(kernels::NOTHING);
        self.near = [kernels::weighs_near(input.isa); ROWS];
        let safe = !self.keys(input, place, outputs);
        let sums = self
            .out
            .get(..place.used.saturating_mul(self.out_stride))
            .unwrap_or(&[]);
        if safe && all_finite(sums) {
            return false;
        }
        self.keys(input, place, outputs);
        true
    }

    fn keys(&mut self, input: &Keys<'_>, place: &Place, outputs: &mut Outputs<'_>) -> bool {
        self.sum.fill(0.0);
        self.out.fill(0.0);
        self.low.fill(f32::INFINITY);
        let mut spans = [Span::EMPTY; ROWS];
        for (row, span) in spans.iter_mut().take(place.used).enumerate() {
            *span = input.rules.span(&input.shape, place.batch, place.at(row).query);
        }
        let spans = spans.get(..place.used).unwrap_or(&[]);
        let reach = Reach::of(input, place, outputs.scores.is_some());
        let mut repeat = false;
        let mut j = 0;
        // Runs begin at multiples of 16, so that a key's lane is its index, whatever the other rows see.
        while let Some(run) = reach.next(j, RUN) {
            let start = (run.start & !15).max(j);
            let end = start.saturating_add(RUN).min(reach.last());
            repeat |= self.step(input, place, spans, (start, end), outputs);
            j = end;
        }
        repeat
    }

    /// One run of keys for all rows.
    fn step(
        &mut self,
        input: &Keys<'_>,
        place: &Place,
        spans: &[Span],
        (start, end): (usize, usize),
        outputs: &mut Outputs<'_>,
    ) -> bool {
        let isa = input.isa;
        let Ok(q) = MatRef::new(&*self.q, place.used, self.dim) else {
            return false;
        };
        scores(input, place, q, (start, end), self.tile);
        let length = (end - start + 15) & !15;
        let (mut repeat, mut masked) = (false, false);
        for (row, &span) in spans.iter().enumerate() {
            let at = place.at(row);
            let Some(tile) = self.tile.get_mut(row * STRIDE..row * STRIDE + length) else {
                break;
            };
            let Some(bias) = self.bias.get_mut(row * RUN..row * RUN + length) else {
                break;
            };
            let whole = span.keys.0 <= start && end <= span.keys.1 && end - start == length;
            let hides = !whole || input.rules.dense() || outputs.scores.is_some();
            masked |= hides;
            shape_row(input, at, span, (start, end), tile, bias, hides, outputs);
            let lanes = row * 16..row * 16 + 16;
            let (Some(max), Some(sum), Some(low), Some(factor)) = (
                self.max.get_mut(lanes.clone()),
                self.sum.get_mut(lanes.clone()),
                self.low.get_mut(lanes.clone()),
                self.factor.get_mut(lanes),
            ) else {
                break;
            };
            let mut lanes = Lanes { max, sum, low, factor };
            let mut near = None;
            if let Some(may) = self.near.get_mut(row).filter(|may| **may && !hides) {
                near = kernels::weigh_near_row(isa, tile, lanes.again());
                if near.is_none() {
                    // The tile is spoiled, and where scores once were far apart they will be again.
                    *may = false;
                    let tile = self.tile.get_mut(row * STRIDE..).unwrap_or(&mut []);
                    score_row(input, place, q.row_range(row..row + 1), (start, end), tile);
                }
            }
            repeat |= match near {
                Some(repeat) => repeat,
                None => {
                    let tile = self
                        .tile
                        .get_mut(row * STRIDE..row * STRIDE + length)
                        .unwrap_or(&mut []);
                    kernels::weigh_row(isa, tile, lanes, hides)
                }
            };
        }
        let Work {
            tile,
            factor,
            out,
            out_stride,
            ..
        } = self;
        input.v.pieces(place.batch, place.kv_head, start..end, |v, first| {
            let mut rows = Rows {
                count: place.used,
                weights: tile.get_mut(first - start..).unwrap_or(&mut []),
                weight_stride: STRIDE,
                factor,
                out,
                out_stride: *out_stride,
            };
            kernels::row_values(isa, &mut rows, v, masked);
            // The next piece of the run goes on from here.
            factor.fill(1.0);
        });
        repeat
    }
}

/// Scores of a run, piece by piece: the order of a score's products does not depend on where the key lies.
fn scores(input: &Keys<'_>, place: &Place, q: MatRef<'_, f32>, (start, end): (usize, usize), tile: &mut [f32]) {
    input.k.pieces(place.batch, place.kv_head, start..end, |k, first| {
        let tile = tile.get_mut(first - start..).unwrap_or(&mut []);
        kernels::row_scores(input.isa, q, k, tile, STRIDE);
    });
}

/// One row's scores of a run without masks, capped.
fn score_row(input: &Keys<'_>, place: &Place, q: MatRef<'_, f32>, run: (usize, usize), tile: &mut [f32]) {
    scores(input, place, q, run, tile);
    let cap = input.rules.cap2();
    if cap != 0.0 {
        kernels::cap(input.isa, tile.get_mut(..run.1 - run.0).unwrap_or(&mut []), cap);
    }
}

/// Cap, bias and masks of one row's scores, written out at the stage that was asked for.
#[allow(clippy::too_many_arguments)] // one call site; a struct would only rename the words
fn shape_row(
    input: &Keys<'_>,
    at: At,
    span: Span,
    (start, end): (usize, usize),
    tile: &mut [f32],
    bias: &mut [f32],
    hides: bool,
    outputs: &mut Outputs<'_>,
) {
    let isa = input.isa;
    let mut write = |stage: Stage, tile: &[f32]| outputs.write_row(stage, at, (start, end), tile);
    write(Stage::Raw, tile);
    let cap = input.rules.cap2();
    if cap != 0.0 {
        kernels::cap(isa, tile, cap);
    }
    write(Stage::Capped, tile);
    if hides {
        let position = input.rules.absolute_position(&input.shape, at.batch, at.query);
        for (j, to) in (start..).zip(bias.iter_mut()) {
            *to = match (j < end && span.sees(j), input.rules.dense()) {
                (false, _) => f32::NEG_INFINITY,
                (true, false) => 0.0,
                (true, true) => input.rules.bias2(at, position, j),
            };
        }
        kernels::add_bias(isa, tile, bias);
    }
    write(Stage::Biased, tile);
    write(Stage::Softmax, tile);
}

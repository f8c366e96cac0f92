//! Exact attention for few queries against many keys, as in generating one token after the other.

use super::block::{all_finite, Input, Place};
use super::certificate::{rounding, Order, Rounding};
use super::exact::Exact;
use super::outputs::{Outputs, Stage, Sums};
use super::reach::Reach;
use super::rules::{At, Rules, Span};
use super::Shape;
use crate::error::Error;
use crate::kernels::{self, Lanes, Rows};
use crate::report::Report;
use crate::scratch::{Need, Scratch};
use crate::simd::Isa;
use crate::view::{MatRef, TensorRef};

/// Rows (queries times heads of a group) that read the keys together.
const ROWS: usize = 8;

/// Keys that are scored before their values are read; a multiple of 16.
const RUN: usize = 256;

/// Exact attention whose cost is reading the keys and values once.
///
/// Same rules, outputs and errors as [`Exact`](super::Exact), another order of operations, hence other last bits: scores
/// are dot products in sixteen lanes and a halving tree, lane `l` sums the weights of keys `l`, `l + 16`, ..., outputs
/// are chains over the keys. A row's bits do not depend on the rows it is computed with. Nothing chooses between the two
/// plans but the caller: `Decode` pays while queries times heads of a group are at most 8 or so.
#[derive(Clone, Copy, Debug)]
pub struct Decode<'a> {
    shape: Shape,
    rules: Rules<'a>,
    isa: Option<Isa>,
    bound: bool,
}

impl<'a> Decode<'a> {
    /// A plan for a shape, without rules, on the best back end.
    pub const fn new(shape: Shape) -> Result<Self, Error> {
        match shape.check() {
            Ok(()) => Ok(Decode {
                shape,
                rules: Rules::new(),
                isa: None,
                bound: false,
            }),
            Err(e) => Err(e),
        }
    }

    /// The same shape, rules and back end, in the order of decoding.
    pub(crate) const fn from_exact(exact: &Exact<'a>) -> Self {
        let (shape, rules, isa) = exact.parts();
        Decode {
            shape,
            rules,
            isa,
            bound: false,
        }
    }

    /// A plan for the shape of three views.
    pub fn for_views<'v>(
        q: impl Into<TensorRef<'v, f32>>,
        k: impl Into<TensorRef<'v, f32>>,
        v: impl Into<TensorRef<'v, f32>>,
    ) -> Result<Self, Error> {
        Self::new(Shape::of(&q.into(), &k.into(), &v.into())?)
    }

    /// How scores are formed and which keys take part; checked against the shape.
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

    /// Puts [`rounding_bound`](Decode::rounding_bound) into the report and the partials of every run, at its cost.
    #[must_use]
    pub const fn with_bound(mut self) -> Self {
        self.bound = true;
        self
    }

    /// Scratch of a call, on any back end and with any outputs.
    #[must_use]
    pub const fn need(&self) -> Need {
        let rows = self.rows();
        Need::NONE
            .and::<f32>(rows.saturating_mul(self.shape.dim))
            .and::<f32>(rows * RUN)
            .and::<f32>(rows * RUN)
            .and::<f32>(rows.saturating_mul(self.out_stride()))
            .and::<f32>(rows * 16)
            .and::<f32>(rows * 16)
            .and::<f32>(rows * 16)
            .and::<f32>(rows * 16)
    }

    const fn rows(&self) -> usize {
        let pairs = self.shape.queries.saturating_mul(self.shape.group());
        if pairs < ROWS {
            pairs
        } else {
            ROWS
        }
    }

    const fn out_stride(&self) -> usize {
        self.shape.value_dim.saturating_add(15) & !15
    }

    /// All heads and batch entries, with any of the outputs. Errors as for [`Exact::run`](super::Exact::run).
    pub fn run<'v>(
        &self,
        q: TensorRef<'v, f32>,
        k: TensorRef<'v, f32>,
        v: TensorRef<'v, f32>,
        outputs: Outputs<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        let promise = if self.bound {
            rounding(&self.input(q, k, v)?, Order::Lanes)
        } else {
            Rounding::UNKNOWN
        };
        self.run_promised(q, k, v, outputs, scratch, &promise)
    }

    /// [`run`](Decode::run) with a promise from elsewhere: what does not ask for one does not link the certificate.
    pub(crate) fn run_promised<'v>(
        &self,
        q: TensorRef<'v, f32>,
        k: TensorRef<'v, f32>,
        v: TensorRef<'v, f32>,
        mut outputs: Outputs<'_>,
        scratch: &mut Scratch<'_>,
        promise: &Rounding,
    ) -> Result<Report, Error> {
        let input = self.input(q, k, v)?;
        let shape = self.shape;
        outputs.check(&shape)?;
        scratch.check(self.need())?;
        let mut scratch = scratch.scope();
        let mut work = self.take(&mut scratch)?;
        let mut report = Report::new(input.isa);
        report.bound = promise.out;
        let group = shape.group();
        let pairs = shape.queries.saturating_mul(group);
        for batch in 0..shape.batch {
            for kv_head in 0..shape.kv_heads {
                for start in (0..pairs).step_by(ROWS) {
                    let used = (pairs - start).min(ROWS);
                    let place = Place {
                        batch,
                        kv_head,
                        head: kv_head.saturating_mul(group),
                        group,
                        start,
                        used,
                    };
                    work.load(&input, &place);
                    report.repeated_blocks += usize::from(work.run(&input, &place, &mut outputs));
                    for row in 0..used {
                        outputs.finish(&input, promise, place.at(row), work.sums(row), &mut report);
                    }
                }
            }
        }
        Ok(report)
    }

    /// As [`Exact::rounding_bound`](super::Exact::rounding_bound), for this order of operations: scores and sums of weights
    /// meet a sixteenth of the roundings.
    pub fn rounding_bound<'v>(
        &self,
        q: impl Into<TensorRef<'v, f32>>,
        k: impl Into<TensorRef<'v, f32>>,
        v: impl Into<TensorRef<'v, f32>>,
    ) -> Result<Rounding, Error> {
        Ok(rounding(&self.input(q.into(), k.into(), v.into())?, Order::Lanes))
    }

    /// The views, if they are what was planned for.
    fn input<'v>(
        &'v self,
        q: TensorRef<'v, f32>,
        k: TensorRef<'v, f32>,
        v: TensorRef<'v, f32>,
    ) -> Result<Input<'v>, Error> {
        if Shape::of(&q, &k, &v)? != self.shape {
            return Err(Error::Shape);
        }
        Ok(Input {
            shape: self.shape,
            rules: &self.rules,
            isa: self.isa.unwrap_or_else(Isa::best),
            q,
            k,
            v,
        })
    }

    fn take<'s>(&self, scratch: &mut Scratch<'s>) -> Result<Work<'s>, Error> {
        let rows = self.rows();
        Ok(Work {
            dim: self.shape.dim,
            out_stride: self.out_stride(),
            q: scratch.take(rows.saturating_mul(self.shape.dim))?,
            tile: scratch.take(rows * RUN)?,
            bias: scratch.take(rows * RUN)?,
            out: scratch.take(rows.saturating_mul(self.out_stride()))?,
            max: scratch.take(rows * 16)?,
            sum: scratch.take(rows * 16)?,
            low: scratch.take(rows * 16)?,
            factor: scratch.take(rows * 16)?,
            near: [true; ROWS],
        })
    }
}

/// Working memory of up to [`ROWS`] rows.
struct Work<'s> {
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

impl Work<'_> {
    fn load(&mut self, input: &Input<'_>, place: &Place) {
        let scale = input.rules.scale2(self.dim);
        for (row, to) in self.q.chunks_exact_mut(self.dim.max(1)).take(place.used).enumerate() {
            let At { batch, head, query } = place.at(row);
            let from = input.q.matrix(batch, head).row(query);
            to.iter_mut().zip(from).for_each(|(to, &x)| *to = x * scale);
        }
    }

    fn sums(&self, row: usize) -> Sums<'_> {
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
    fn run(&mut self, input: &Input<'_>, place: &Place, outputs: &mut Outputs<'_>) -> bool {
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

    fn keys(&mut self, input: &Input<'_>, place: &Place, outputs: &mut Outputs<'_>) -> bool {
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
        input: &Input<'_>,
        place: &Place,
        spans: &[Span],
        (start, end): (usize, usize),
        outputs: &mut Outputs<'_>,
    ) -> bool {
        let isa = input.isa;
        let k = input.k.matrix(place.batch, place.kv_head).row_range(start..end);
        let v = input.v.matrix(place.batch, place.kv_head).row_range(start..end);
        let Ok(q) = MatRef::new(&*self.q, place.used, self.dim) else {
            return false;
        };
        kernels::row_scores(isa, q, k, self.tile, RUN);
        let length = (end - start + 15) & !15;
        let (mut repeat, mut masked) = (false, false);
        for (row, &span) in spans.iter().enumerate() {
            let at = place.at(row);
            let Some(tile) = self.tile.get_mut(row * RUN..row * RUN + length) else {
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
                    score_row(input, q.row_range(row..row + 1), k, tile);
                }
            }
            repeat |= match near {
                Some(repeat) => repeat,
                None => kernels::weigh_row(isa, tile, lanes, hides),
            };
        }
        let mut rows = Rows {
            count: place.used,
            weights: self.tile,
            weight_stride: RUN,
            factor: self.factor,
            out: self.out,
            out_stride: self.out_stride,
        };
        if masked {
            kernels::masked_row_values(isa, &mut rows, v);
        } else {
            kernels::row_values(isa, &mut rows, v);
        }
        repeat
    }
}

/// One row's scores of a run without masks, capped.
fn score_row(input: &Input<'_>, q: MatRef<'_, f32>, k: MatRef<'_, f32>, tile: &mut [f32]) {
    kernels::row_scores(input.isa, q, k, tile, RUN);
    let cap = input.rules.cap2();
    if cap != 0.0 {
        kernels::cap(input.isa, tile, cap);
    }
}

/// Cap, bias and masks of one row's scores, written out at the stage that was asked for.
#[allow(clippy::too_many_arguments)] // one call site; a struct would only rename the words
fn shape_row(
    input: &Input<'_>,
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

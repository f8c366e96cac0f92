//! Random attention problems, and what an engine makes of them, as bits.

use std::mem::MaybeUninit;
use std::ops::Range;
use subquad::attention::{Decode, Exact, Offset, Outputs, Partial, Rules, Segments, Shape};
use subquad::{Error, Isa, Report, Scratch, TensorMut, TensorRef};

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Up to `n`, small numbers more often.
    pub fn size(&mut self, n: usize) -> usize {
        let cut = self.below(n + 1);
        self.below(cut + 1)
    }

    /// True once in `n`.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Between -1 and 1, a multiple of 2^-23.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / 8_388_608.0 - 1.0
    }

    pub fn numbers(&mut self, n: usize, size: f32) -> Vec<f32> {
        (0..n).map(|_| self.unit() * size).collect()
    }
}

/// A tensor that owns its numbers.
#[derive(Debug)]
pub struct Tensor<T> {
    data: Vec<T>,
    shape: [usize; 4],
    strides: [usize; 3],
}

impl<T> Tensor<T> {
    pub fn dense(shape: [usize; 4], data: Vec<T>) -> Self {
        let [_, h, r, c] = shape;
        Tensor {
            data,
            shape,
            strides: [h * r * c, r * c, c],
        }
    }

    /// One of the two usual layouts, or one with gaps.
    fn any(r: &mut Random, shape: [usize; 4], mut number: impl FnMut(&mut Random) -> T) -> Self {
        let [b, h, n, c] = shape;
        let strides = match r.below(4) {
            0 => [h * n * c, n * c, c],
            1 => [n * h * c, c, h * c],
            2 => [0, n * c + 3, c],
            _ => [h * (n * (c + 5) + 1), n * (c + 5) + 1, c + 5],
        };
        let [bs, hs, ns] = strides;
        let len = b * bs + h * hs + n * ns + c;
        Tensor {
            data: (0..len).map(|_| number(r)).collect(),
            shape,
            strides,
        }
    }

    /// Some of the rows.
    fn rows(&self, rows: &Range<usize>) -> TensorRef<'_, T> {
        let [b, h, _, c] = self.shape;
        let skipped = (rows.start * self.strides[2]).min(self.data.len());
        TensorRef::with_strides(&self.data[skipped..], [b, h, rows.len(), c], self.strides).unwrap()
    }

    pub fn view(&self) -> TensorRef<'_, T> {
        self.rows(&(0..self.shape[2]))
    }

    /// The same layout, with another number for each: `f` is given batch entry, head and row, and the number.
    pub fn map<U: Clone + Default>(&self, mut f: impl FnMut([usize; 3], &T) -> U) -> Tensor<U> {
        let mut data = vec![U::default(); self.data.len()];
        let ([b, h, n, c], [bs, hs, ns]) = (self.shape, self.strides);
        for (batch, head) in (0..b).flat_map(|b| (0..h).map(move |h| (b, h))) {
            for row in 0..n {
                let at = batch * bs + head * hs + row * ns;
                let numbers = data[at..at + c].iter_mut().zip(&self.data[at..at + c]);
                numbers.for_each(|(to, x)| *to = f([batch, head, row], x));
            }
        }
        Tensor {
            data,
            shape: self.shape,
            strides: self.strides,
        }
    }

    /// A number per row, `(batch, heads, 1, rows)`; the same for batch entries that share their rows.
    pub fn per_row<U>(&self, mut f: impl FnMut() -> U) -> Tensor<U> {
        let ([b, h, n, _], [bs, ..]) = (self.shape, self.strides);
        let batch = if bs == 0 { 0 } else { h * n };
        Tensor {
            data: (0..b * h * n).map(|_| f()).collect(),
            shape: [b, h, 1, n],
            strides: [batch, n, n],
        }
    }

    /// What a call for some of the queries is given: those rows, or the one row that all share.
    fn shared(&self, rows: &Range<usize>) -> TensorRef<'_, T> {
        if self.shape[2] == 1 {
            self.view()
        } else {
            self.rows(rows)
        }
    }
}

/// A call and everything it refers to.
#[derive(Debug)]
pub struct Problem {
    pub q: Tensor<f32>,
    pub k: Tensor<f32>,
    pub v: Tensor<f32>,
    pub scale: Option<f32>,
    pub cap: f32,
    pub causal: bool,
    pub offset: Offset,
    pub window: (Option<usize>, Option<usize>),
    pub sinks: usize,
    pub sink_logits: Option<Vec<f32>>,
    pub mask: Option<Tensor<u8>>,
    pub bias: Option<Tensor<f32>>,
    pub slopes: Option<Vec<f32>>,
    pub key_lengths: Option<Vec<usize>>,
    pub segments: Option<[Vec<usize>; 2]>,
}

impl Problem {
    /// One head, no rules.
    pub fn plain(q: Tensor<f32>, k: Tensor<f32>, v: Tensor<f32>) -> Problem {
        Problem {
            q,
            k,
            v,
            scale: None,
            cap: 0.0,
            causal: false,
            offset: Offset::Keys(0),
            window: (None, None),
            sinks: 0,
            sink_logits: None,
            mask: None,
            bias: None,
            slopes: None,
            key_lengths: None,
            segments: None,
        }
    }

    /// Odd shapes, any layout, any rules.
    pub fn random(r: &mut Random) -> Problem {
        let (batch, kv_heads, group) = (1 + r.size(1), 1 + r.size(2), 1 + r.size(3));
        let (queries, dim, columns) = (r.size(80), r.size(40), r.size(40));
        // Decode reads 256 keys at a time: some problems need more than that.
        let keys = if r.once_in(20) { 240 + r.below(320) } else { r.size(80) };
        let heads = kv_heads * group;
        let loud = [0.1, 1.0, 3.0, 30.0, 400.0][r.below(5)];
        let q = Tensor::any(r, [batch, heads, queries, dim], |r| r.unit() * loud);
        let k = Tensor::any(r, [batch, kv_heads, keys, dim], Random::unit);
        let v = Tensor::any(r, [batch, kv_heads, keys, columns], Random::unit);
        let mut p = Problem::plain(q, k, v);
        let position = r.below(keys + 10) as i64 - 5;
        p.offset = if r.once_in(3) {
            Offset::ToEnd
        } else {
            Offset::Keys(position)
        };
        p.causal = r.once_in(3);
        p.scale = r.once_in(3).then(|| r.unit().abs());
        p.cap = if r.once_in(4) { 0.5 + 20.0 * r.unit().abs() } else { 0.0 };
        p.window = (r.once_in(4).then(|| r.size(40)), r.once_in(5).then(|| r.size(40)));
        p.sinks = r.size(6);
        p.sink_logits = r.once_in(5).then(|| r.numbers(heads, 20.0));
        p.slopes = r.once_in(5).then(|| r.numbers(heads, 1.0));
        let broadcast = |r: &mut Random| {
            let one = |r: &mut Random, n: usize| if r.once_in(2) { 1 } else { n };
            let cols = if r.once_in(4) { r.below(keys + 1) } else { keys };
            [one(r, batch), one(r, heads), one(r, queries), cols]
        };
        if r.once_in(4) {
            let shape = broadcast(r);
            p.mask = Some(Tensor::any(r, shape, |r| u8::from(!r.once_in(3))));
        }
        if r.once_in(4) {
            let shape = broadcast(r);
            let hidden = |r: &mut Random| {
                if r.once_in(6) {
                    f32::NEG_INFINITY
                } else {
                    r.unit() * 10.0
                }
            };
            p.bias = Some(Tensor::any(r, shape, hidden));
        }
        p.key_lengths = r.once_in(6).then(|| (0..batch).map(|_| r.below(keys + 1)).collect());
        p.segments = r.once_in(6).then(|| {
            [ends(r, queries, queries), {
                let n = r.below(keys + 1);
                ends(r, keys, n)
            }]
        });
        p
    }

    pub fn queries(&self) -> usize {
        self.q.shape[2]
    }

    /// Makes a problem whose rows can be asked for one by one, each with an offset of its own.
    pub fn splittable(mut self) -> Problem {
        self.segments = None;
        if self.offset == Offset::ToEnd {
            self.offset = Offset::Keys(self.k.shape[2] as i64 - self.queries() as i64);
        }
        self
    }

    fn rules(&self, rows: &Range<usize>) -> Rules<'_> {
        let mut rules = Rules::new()
            .with_cap(self.cap)
            .with_window(self.window.0, self.window.1)
            .with_sinks(self.sinks);
        rules = rules.with_offset(match self.offset {
            Offset::Keys(n) => Offset::Keys(n + rows.start as i64),
            Offset::ToEnd => Offset::ToEnd,
        });
        if self.causal {
            rules = rules.with_causal();
        }
        if let Some(scale) = self.scale {
            rules = rules.with_scale(scale);
        }
        if let Some(logits) = &self.sink_logits {
            rules = rules.with_sink_logits(logits);
        }
        if let Some(mask) = &self.mask {
            rules = rules.with_mask(mask.shared(rows));
        }
        if let Some(bias) = &self.bias {
            rules = rules.with_bias(bias.shared(rows));
        }
        if let Some(slopes) = &self.slopes {
            rules = rules.with_slopes(slopes);
        }
        if let Some(lengths) = &self.key_lengths {
            rules = rules.with_key_lengths(lengths);
        }
        if let Some([queries, keys]) = &self.segments {
            rules = rules.with_segments(Segments { queries, keys });
        }
        rules
    }

    /// All queries in one call.
    pub fn solve(&self, engine: Engine, isa: Isa) -> Solution {
        self.solve_rows(engine, isa, 0..self.queries())
    }

    /// Some of the queries in a call of their own.
    pub fn solve_rows(&self, engine: Engine, isa: Isa, rows: Range<usize>) -> Solution {
        let (k, v) = (self.k.view(), self.v.view());
        let work = |need: usize| vec![MaybeUninit::uninit(); need];
        self.solve_by(rows, |shape, rules, q, outputs| match engine {
            Engine::Exact { run } => {
                let plan = Exact::new(shape).unwrap().with_rules(rules).unwrap().with_isa(isa);
                let plan = if run == 0 { plan } else { plan.with_key_run(run) };
                plan.run(q, k, v, outputs, &mut Scratch::new(&mut work(plan.need().bytes())))
            }
            Engine::Decode => {
                let plan = Decode::new(shape).unwrap().with_rules(rules).unwrap().with_isa(isa);
                plan.run(q, k, v, outputs, &mut Scratch::new(&mut work(plan.need().bytes())))
            }
        })
    }

    /// What `run` makes of some of the queries.
    pub fn solve_by(
        &self,
        rows: Range<usize>,
        run: impl FnOnce(Shape, Rules<'_>, TensorRef<'_, f32>, Outputs<'_>) -> Result<Report, Error>,
    ) -> Solution {
        let q = self.q.rows(&rows);
        let shape = Shape::of(&q, &self.k.view(), &self.v.view()).unwrap();
        let (heads, columns) = (shape.batch * shape.query_heads, shape.value_dim);
        let widths = [columns, 1, Partial::width(columns)];
        let mut buffers = widths.map(|w| vec![0.5f32; heads * rows.len() * w]);
        let [out, lse, partials] = &mut buffers;
        fn tensor<'t>(data: &'t mut [f32], s: &Shape, cols: usize) -> Option<TensorMut<'t, f32>> {
            Some(TensorMut::new(data, [s.batch, s.query_heads, s.queries, cols]).unwrap())
        }
        let outputs = Outputs {
            out: tensor(out, &shape, widths[0]),
            lse: tensor(lse, &shape, widths[1]),
            partials: tensor(partials, &shape, widths[2]),
            scores: None,
        };
        let report = run(shape, self.rules(&rows), q, outputs).unwrap();
        // Row by row: out, lse, partial of each head.
        let n = rows.len();
        let row_bits = |row: usize| {
            let parts = buffers.iter().zip(widths);
            let numbers = parts.flat_map(|(data, w)| (0..heads).flat_map(move |h| &data[(h * n + row) * w..][..w]));
            numbers.map(|x| x.to_bits()).collect()
        };
        Solution {
            rows: (0..n).map(row_bits).collect(),
            masked: report.masked_rows,
            non_finite: report.non_finite_rows,
            repeated: report.repeated_blocks,
        }
    }
}

/// Segments that end at `last`; the whole has `all`.
fn ends(r: &mut Random, all: usize, last: usize) -> Vec<usize> {
    let mut middle = [r.below(all + 1).min(last), r.below(all + 1).min(last)];
    middle.sort_unstable();
    vec![0, middle[0], middle[1], last]
}

/// Who solves a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// 0 is the default run.
    Exact {
        run: usize,
    },
    Decode,
}

/// The bits of every output, query by query.
#[derive(Debug, Default)]
pub struct Solution {
    pub rows: Vec<Vec<u32>>,
    pub masked: usize,
    pub non_finite: usize,
    pub repeated: usize,
}

impl Solution {
    /// Takes the rows of a later call behind those of this one.
    pub fn append(&mut self, other: Solution) {
        self.rows.extend(other.rows);
        self.masked += other.masked;
        self.non_finite += other.non_finite;
        self.repeated += other.repeated;
    }
}

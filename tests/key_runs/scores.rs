//! Problems whose scores are chosen, not drawn: what a running softmax could trip over.

use std::mem::MaybeUninit;
use subquad::attention::{Exact, Offset, Outputs, Partial, Rules};
use subquad::{Isa, MatMut, MatRef, Scratch, TensorRef};

/// SplitMix64: every problem is a function of its number.
pub struct Rng(pub u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 11) as usize % n
    }

    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// A multiple of 2^-20 in [-1, 1): coarse enough for the promise (multiples of 2^-26, see `tests/key_runs.rs`).
    fn unit(&mut self) -> f32 {
        (self.below(1 << 21) as f32 - 1_048_576.0) / 1_048_576.0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn shuffle<T>(&mut self, x: &mut [T]) {
        for i in (1..x.len()).rev() {
            x.swap(i, self.below(i + 1));
        }
    }
}

/// The scale that makes scores in base 2 equal to q.k: times log2 e it is exactly 1.
///
/// One exists: steps of the product are 1.44 * 2^-24, and what rounds to 1 is 1.5 * 2^-24 wide.
fn scale_of_base_2() -> f32 {
    let near = std::f32::consts::LN_2.to_bits();
    let found = (near - 4..near + 4)
        .map(f32::from_bits)
        .find(|s| s * std::f32::consts::LOG2_E == 1.0);
    found.expect("a scale that makes scores exact")
}

/// How the scores of a row are spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spread {
    /// 100 to 320 powers of two, evenly.
    Wide,
    /// Halves between -130 and 0: every rounding a tie, and the end of the weights among them.
    Halves,
    /// A few levels, each near a place where something changes: 100 powers of two under the top, above all.
    Edges,
    /// Around 2^21, 2^22, 2^23 and 2^24, where references stop having room, then fractions.
    Huge,
    /// All of it in one row, very low scores included.
    Mixed,
    /// What attention sees on ordinary days.
    Ordinary,
}

pub const SPREADS: [Spread; 6] = [
    Spread::Wide,
    Spread::Halves,
    Spread::Edges,
    Spread::Huge,
    Spread::Mixed,
    Spread::Ordinary,
];

/// In which order the keys come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    /// The reference rises until the last key.
    Ascending,
    Descending,
    Shuffled,
    /// Ascending runs of a few keys, each a little higher.
    Sawtooth,
}

pub const ORDERS: [Order; 4] = [Order::Ascending, Order::Descending, Order::Shuffled, Order::Sawtooth];

/// What the keys carry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values {
    /// Every key in a column of its own (up to 24 columns).
    OneHot,
    Random,
    /// Each value next to its negative, so that almost everything cancels.
    Cancelling,
    /// The lowest keys only: all others have the value 0, so that lost bits show.
    AtTheBottom,
}

pub const VALUES: [Values; 4] = [Values::OneHot, Values::Random, Values::Cancelling, Values::AtTheBottom];

fn score(rng: &mut Rng, spread: Spread) -> f32 {
    match spread {
        Spread::Wide => rng.unit() * 160.0,
        Spread::Halves => rng.below(261) as f32 * -0.5,
        Spread::Edges => {
            let level = rng.pick(&[
                0.0f32, -1.0, -99.0, -100.0, -101.0, -126.0, -126.5, -127.0, -200.0, -226.5,
            ]);
            level + rng.pick(&[0.0f32, 0.0, 0.5, -0.5, 1e-5, -1e-5])
        }
        Spread::Huge => {
            let power = rng.pick(&[2_097_152.0f32, 4_194_304.0, 8_388_608.0, 16_777_216.0]);
            let near = power + rng.unit() * rng.pick(&[1.0f32, 4.0, 130.0]);
            if rng.once_in(3) {
                -near
            } else {
                near
            }
        }
        Spread::Mixed => {
            if rng.once_in(40) {
                return rng.pick(&[-1e30f32, -3e38, -65_536.0]);
            }
            let spread = rng.pick(&[
                Spread::Wide,
                Spread::Halves,
                Spread::Edges,
                Spread::Huge,
                Spread::Ordinary,
            ]);
            score(rng, spread)
        }
        Spread::Ordinary => rng.unit() * 8.0,
    }
}

fn scores(rng: &mut Rng, spread: Spread, order: Order, keys: usize) -> Vec<f32> {
    // Huge scores are all near one power, or no two keys would ever compete.
    let base = if spread == Spread::Huge && rng.once_in(2) {
        score(rng, spread)
    } else {
        f32::NAN
    };
    let mut s: Vec<f32> = (0..keys)
        .map(|_| {
            if base.is_nan() {
                score(rng, spread)
            } else {
                base + rng.unit() * 64.0
            }
        })
        .collect();
    if spread == Spread::Wide {
        // Just above what counts as safe, just above what a weight can be, and far above both.
        let width = rng.pick(&[52.0f32 / 160.0, 58.0 / 160.0, 62.0 / 160.0, 1.0]);
        s.iter_mut().for_each(|s| *s *= width);
    }
    s.sort_unstable_by(f32::total_cmp);
    match order {
        Order::Ascending => {}
        Order::Descending => s.reverse(),
        Order::Shuffled => rng.shuffle(&mut s),
        Order::Sawtooth => {
            let teeth = 2 + rng.below(9);
            let sorted = s.clone();
            let by_tooth = (0..teeth).flat_map(|t| sorted.iter().skip(t).step_by(teeth));
            s.iter_mut().zip(by_tooth).for_each(|(to, &x)| *to = x);
        }
    }
    s
}

fn values(rng: &mut Rng, values: Values, scores: &[f32], cols: usize) -> Vec<f32> {
    let keys = scores.len();
    let mut v: Vec<f32> = (0..keys * cols).map(|_| rng.unit()).collect();
    let lowest = scores.iter().copied().fold(f32::MAX, f32::min);
    let height = rng.pick(&[1.0f32, 4.0, 20.0, 60.0]);
    for (j, &score) in scores.iter().enumerate() {
        match values {
            Values::OneHot => (0..cols).for_each(|c| v[j * cols + c] = f32::from(u8::from(c == j % cols))),
            Values::Random => {}
            Values::Cancelling if j % 2 == 1 => (0..cols).for_each(|c| v[j * cols + c] = -v[(j - 1) * cols + c]),
            Values::Cancelling => {}
            Values::AtTheBottom if score > lowest + height => v[j * cols..][..cols].fill(0.0),
            Values::AtTheBottom => {}
        }
    }
    v
}

/// One dimension, so that a score is `query * key` in base 2.
pub struct Problem {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    cols: usize,
    /// Rows and entries of the additive bias.
    bias: Option<(usize, Vec<f32>)>,
    offset: Option<i64>,
}

impl Problem {
    /// One query that sees the scores as they are, one column of values. The bias of zeros asks for the way that knows
    /// the lowest score exactly; the short one would run such a row twice, and hide what the caller looks for.
    pub fn row(scores: Vec<f32>, values: Vec<f32>) -> Problem {
        Problem {
            queries: vec![1.0],
            bias: Some((1, vec![0.0; scores.len()])),
            keys: scores,
            values,
            cols: 1,
            offset: None,
        }
    }

    /// The first query sees the scores as they were chosen, the others their negatives, halves, doubles, ties only, and
    /// all of them a rounding lower; now and then under a bias, masks or a causal edge.
    pub fn chosen(rng: &mut Rng, (spread, order, carried): (Spread, Order, Values)) -> Problem {
        let keys = rng.pick(&[2usize, 9, 40, 193, 260]) + rng.below(8);
        let cols = 1 + rng.below(24);
        let mut s = scores(rng, spread, order, keys);
        if carried == Values::Cancelling {
            // Pairs of equal scores.
            (1..keys).step_by(2).for_each(|j| s[j] = s[j - 1]);
        }
        let values = values(rng, carried, &s, cols);
        let queries = vec![1.0, -1.0, 0.5, 2.0, 0.0, 1.0 - f32::EPSILON];
        let bias = rng.once_in(3).then(|| {
            let rows = rng.pick(&[1, queries.len()]);
            let mut one = || match rng.below(3) {
                0 => f32::NEG_INFINITY,
                1 => 0.0,
                _ => -0.25,
            };
            (rows, (0..rows * keys).map(|_| one()).collect())
        });
        let offset = rng.once_in(4).then(|| rng.below(keys) as i64);
        Problem {
            queries,
            keys: s,
            values,
            cols,
            bias,
            offset,
        }
    }

    /// The bits of outputs, log-sum-exps and partials, and the blocks that were run twice.
    pub fn solve(&self, isa: Isa, run: usize) -> (Vec<u32>, usize) {
        let (rows, width) = (self.queries.len(), Partial::width(self.cols));
        let q = MatRef::new(&self.queries, rows, 1).unwrap();
        let k = MatRef::new(&self.keys, self.keys.len(), 1).unwrap();
        let v = MatRef::new(&self.values, self.keys.len(), self.cols).unwrap();
        let mut rules = Rules::new().with_scale(scale_of_base_2());
        if let Some((rows, entries)) = &self.bias {
            rules = rules.with_bias(TensorRef::new(entries, [1, 1, *rows, self.keys.len()]).unwrap());
        }
        if let Some(offset) = self.offset {
            rules = rules.with_causal().with_offset(Offset::Keys(offset));
        }
        let plan = Exact::for_views(q, k, v).unwrap().with_rules(rules).unwrap();
        let plan = plan.with_isa(isa).with_key_run(run);
        let mut memory = vec![MaybeUninit::uninit(); plan.need().bytes()];
        let (mut out, mut lse) = (vec![7.0; rows * self.cols], vec![7.0; rows]);
        let mut partials = vec![7.0f32; rows * width];
        let outputs = Outputs {
            out: Some(MatMut::new(&mut out, rows, self.cols).unwrap().into()),
            lse: Some(MatMut::new(&mut lse, rows, 1).unwrap().into()),
            partials: Some(MatMut::new(&mut partials, rows, width).unwrap().into()),
            ..Outputs::default()
        };
        let report = plan
            .run(q.into(), k.into(), v.into(), outputs, &mut Scratch::new(&mut memory))
            .unwrap();
        let bits = [out, lse, partials].concat().into_iter().map(f32::to_bits).collect();
        (bits, report.repeated_blocks)
    }
}

//! The gradient in f64, written from the formula, every entry with the error that f32 arithmetic may make. The steps of
//! the error are those in the documentation of `attention::Gradient`.

use super::case::Case;
use super::model::{gamma, Answer, Near, UNIT, WEIGHT};

/// What comes back for a forward call: gradients of its outputs.
#[derive(Clone, Debug)]
pub struct Back {
    pub d_out: Vec<f32>,
    pub d_lse: Option<Vec<f32>>,
}

/// Gradients, each in the shape of its input.
#[derive(Debug, Default)]
pub struct Slopes {
    pub q: Vec<Near>,
    pub k: Vec<Near>,
    pub v: Vec<Near>,
    pub bias: Vec<Near>,
    pub sinks: Vec<Near>,
    pub masked_rows: usize,
    pub non_finite_rows: usize,
}

/// What the forward call kept for the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Lse,
    Partials,
}

/// What falls below the smallest normal number.
const SUBNORMAL: f64 = 1.401_298_464_324_817e-45;
/// Probabilities that may be cut.
const CUT: f64 = 1.577_721_810_442_024e-30;

/// A sum on its way: value, sum of magnitudes as computed, sum of the errors of the terms, number of terms.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    value: f64,
    size: f64,
    error: f64,
    terms: usize,
}

impl Sum {
    /// A term that is a product of `x` and `by`, which is as it is.
    fn add(&mut self, x: Near, by: f64) {
        self.value += x.value * by;
        self.size += most(x) * by.abs();
        self.error += x.error * by.abs();
        self.terms += 1;
    }

    /// The sum after its terms and `more` have been rounded.
    fn near(&self, more: usize) -> Near {
        Near {
            value: self.value,
            error: self.error + gamma(self.terms + more) * self.size + self.terms as f64 * SUBNORMAL,
        }
    }

    /// That times a scale: two roundings of its own, and the product's.
    fn scaled(&self, scale: f64) -> Near {
        let Near { value, error } = self.near(4);
        Near {
            value: scale * value,
            error: scale * error + SUBNORMAL,
        }
    }
}

/// A number as large as it may have been computed.
fn most(x: Near) -> f64 {
    x.value.abs() + x.error
}

struct Sums {
    q: Vec<Sum>,
    k: Vec<Sum>,
    v: Vec<Sum>,
    bias: Vec<Sum>,
    sinks: Vec<Sum>,
}

/// A row's indices and numbers.
struct Row {
    b: usize,
    h: usize,
    i: usize,
    /// Of the row among all rows.
    n: usize,
    kept: Kept,
    lse: Near,
    /// The largest score, and the log of the sum relative to it.
    sums: (f64, Near),
    delta: Near,
}

impl Case {
    /// What the gradients are the gradient of: sum of out * d_out, and of lse * d_lse where there is one.
    pub fn objective(&self, back: &Back) -> f64 {
        let answer = self.answer();
        let dot = |x: &[Near], d: &[f32]| -> f64 {
            let seen = x.iter().zip(d).filter(|(x, _)| x.value != f64::NEG_INFINITY);
            seen.map(|(x, &d)| x.value * f64::from(d)).sum()
        };
        dot(&answer.out, &back.d_out) + back.d_lse.as_ref().map_or(0.0, |d| dot(&answer.lse, d))
    }

    /// The gradients, row by row.
    pub fn slopes(&self, back: &Back, kept: Kept) -> Slopes {
        let s = &self.shape;
        let answer = self.answer();
        let sums = |n: usize| vec![Sum::default(); n];
        let mut to = Sums {
            q: sums(self.q.len()),
            k: sums(self.k.len()),
            v: sums(self.v.len()),
            bias: sums(self.bias.as_ref().map_or(0, |b| b.data.len())),
            sinks: sums(self.sink_logits.as_ref().map_or(0, Vec::len)),
        };
        let mut slopes = Slopes {
            masked_rows: answer.masked_rows,
            ..Slopes::default()
        };
        for b in 0..s.batch {
            for h in 0..s.query_heads {
                for i in 0..s.queries {
                    let row = self.upstream([b, h, i], back, &answer, kept);
                    let spoiled = self.row_back(&row, back, &mut to);
                    slopes.non_finite_rows += usize::from(spoiled);
                }
            }
        }
        let scale = self.scale.map_or(1.0 / (s.dim.max(1) as f64).sqrt(), f64::from);
        let near = |sums: &[Sum], f: &dyn Fn(&Sum) -> Near| sums.iter().map(f).collect();
        slopes.q = near(&to.q, &|x| x.scaled(scale));
        slopes.k = near(&to.k, &|x| x.scaled(scale));
        slopes.v = near(&to.v, &|x| x.near(2));
        slopes.bias = near(&to.bias, &|x| x.near(0));
        slopes.sinks = near(&to.sinks, &|x| x.near(0));
        slopes
    }

    /// What a row's gradient is made with, as f32 would have it.
    fn upstream(&self, [b, h, i]: [usize; 3], back: &Back, answer: &Answer, kept: Kept) -> Row {
        let s = &self.shape;
        let n = (b * s.query_heads + h) * s.queries + i;
        let (mut value, mut size, mut error) = (0.0, 0.0, 0.0);
        for c in n * s.value_dim..(n + 1) * s.value_dim {
            let (out, d) = (answer.out[c], f64::from(back.d_out[c]));
            value += out.value * d;
            size += most(out) * d.abs();
            error += out.error * d.abs();
        }
        value -= back.d_lse.as_ref().map_or(0.0, |d| f64::from(d[n]));
        error += gamma(s.value_dim.div_ceil(16) + 5) * size;
        error += 2.0 * UNIT * (value.abs() + error);
        let mut row = Row {
            b,
            h,
            i,
            n,
            kept,
            lse: answer.lse[n],
            sums: answer.sums[n],
            delta: Near { value, error },
        };
        row.delta.error += row.subnormal() * (s.value_dim + 1) as f64;
        row
    }

    /// What one row gives to all sums; whether it is not finite.
    fn row_back(&self, row: &Row, back: &Back, to: &mut Sums) -> bool {
        let s = &self.shape;
        let &Row { b, h, i, n, delta, .. } = row;
        let kv = b * s.kv_heads + h / (s.query_heads / s.kv_heads);
        let (q, d_out) = (
            &self.q[n * s.dim..][..s.dim],
            &back.d_out[n * s.value_dim..][..s.value_dim],
        );
        let seen: Vec<usize> = (0..s.keys).filter(|&j| self.sees(b, h, i, j)).collect();
        let numbers = q.iter().chain(d_out).map(|&x| f64::from(x));
        let numbers = numbers.chain([row.lse.value, delta.value]);
        let finite = numbers.clone().all(f64::is_finite) || seen.is_empty() && self.sink_logits.is_none();
        let spoil = if finite { 0.0 } else { f64::NAN };
        if let (Some(logits), Some(sum)) = (&self.sink_logits, to.sinks.get_mut(h)) {
            let logit = f64::from(logits[h]);
            let score = Near {
                value: logit,
                error: 2.0 * UNIT * logit.abs(),
            };
            let nothing = Near { value: 0.0, error: 0.0 };
            let mut ds = gradient(row.probability(score), nothing, delta);
            ds.value += spoil;
            sum.add(ds, 1.0);
        }
        for &j in &seen {
            let key = kv * s.keys + j;
            let (k, v) = (
                &self.k[key * s.dim..][..s.dim],
                &self.v[key * s.value_dim..][..s.value_dim],
            );
            let [raw, _, score] = self.score(b, h, i, j);
            let mut p = row.probability(score);
            let product = row.product(d_out, v);
            let mut ds = gradient(p, product, delta);
            ds.value += spoil;
            if let Some(bias) = &self.bias {
                to.bias[bias.index(b, h, i, j)].add(ds, 1.0);
            }
            if self.cap > 0.0 {
                ds = through_cap(ds, raw, f64::from(self.cap));
            }
            for c in 0..s.dim {
                let (q, k) = (f64::from(q[c]), f64::from(k[c]));
                to.q[n * s.dim + c].add(ds, k);
                to.k[key * s.dim + c].add(ds, q);
            }
            p.value += spoil;
            for (c, &d) in d_out.iter().enumerate() {
                to.v[key * s.value_dim + c].add(p, f64::from(d));
            }
        }
        !finite && !seen.is_empty()
    }
}

impl Row {
    /// What falls below the smallest normal number, with partials after division by the sum.
    fn subnormal(&self) -> f64 {
        match self.kept {
            Kept::Lse => SUBNORMAL,
            // The reference is no lower than the largest score.
            Kept::Partials => SUBNORMAL * self.sums.1.value.exp(),
        }
    }

    fn probability(&self, score: Near) -> Near {
        let (top, log) = self.sums;
        // From the largest score, as the log-sum-exp of large ones has lost its fraction.
        let x = (score.value - top) - log.value;
        let off = match self.kept {
            Kept::Lse => self.lse.error + UNIT * (2.0 * self.lse.value.abs() + x.abs()),
            // The reference is the next power of two from the largest score on.
            Kept::Partials => log.error + UNIT * (1.0 + (score.value - top).abs() + std::f64::consts::LN_2),
        };
        let h = score.error + off + WEIGHT;
        Near {
            value: x.exp(),
            error: x.exp() * h.exp_m1() + CUT,
        }
    }

    /// The gradient of the output times a value.
    fn product(&self, d_out: &[f32], v: &[f32]) -> Near {
        let (mut value, mut size, mut values) = (0.0, 0.0, 0.0);
        for (&d, &v) in d_out.iter().zip(v) {
            value += f64::from(d) * f64::from(v);
            size += (f64::from(d) * f64::from(v)).abs();
            values += f64::from(v).abs();
        }
        let lost = self.subnormal() * (v.len() as f64 + values);
        Near {
            value,
            error: gamma(v.len() + 1) * size + lost,
        }
    }
}

/// `p * (product - delta)`: the errors of all three, and two roundings.
fn gradient(p: Near, product: Near, delta: Near) -> Near {
    let value = product.value - delta.value;
    let off = product.error + delta.error;
    let gap = value.abs() + off;
    Near {
        value: p.value * value,
        error: p.error * gap + p.value * off + gamma(2) * most(p) * gap + SUBNORMAL,
    }
}

/// `ds * (1 - tanh^2)` of a score before the cap.
fn through_cap(ds: Near, raw: Near, cap: f64) -> Near {
    let t = (raw.value / cap).tanh();
    let (slope, off) = (1.0 - t * t, 0.77 * raw.error / cap + 8.0 * UNIT);
    Near {
        value: ds.value * slope,
        error: ds.error * (slope + off) + ds.value.abs() * off + UNIT * most(ds) * (slope + off) + SUBNORMAL,
    }
}

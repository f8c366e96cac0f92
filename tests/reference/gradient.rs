//! The gradient in f64, written from the formula, every entry with the error that f32 arithmetic may make. The steps of
//! the error are those in the documentation of `attention::Gradient`.

use super::case::Case;
use super::model::{gamma, Answer, Near, TINY, UNIT, WEIGHT};

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

/// A sum on its way: value, sum of magnitudes, sum of the errors of the terms, number of terms.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    value: f64,
    size: f64,
    error: f64,
    terms: usize,
}

impl Sum {
    fn add(&mut self, term: f64, error: f64) {
        self.value += term;
        self.size += term.abs();
        self.error += error;
        self.terms += 1;
    }

    /// The sum times `scale`, with three roundings for the scale and its product.
    fn near(&self, scale: f64) -> Near {
        Near {
            value: scale * self.value,
            error: scale * (self.error + gamma(self.terms + 4) * (self.size + self.error)) + self.terms as f64 * TINY,
        }
    }
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
    lse: Near,
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
    pub fn slopes(&self, back: &Back) -> Slopes {
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
                    let row = self.upstream(b, h, i, back, &answer);
                    let spoiled = self.row_back(&row, back, &mut to);
                    slopes.non_finite_rows += usize::from(spoiled);
                }
            }
        }
        let scale = self.scale.map_or(1.0 / (s.dim.max(1) as f64).sqrt(), f64::from);
        let near = |sums: &[Sum], scale: f64| sums.iter().map(|x| x.near(scale)).collect();
        slopes.q = near(&to.q, scale);
        slopes.k = near(&to.k, scale);
        slopes.v = near(&to.v, 1.0);
        slopes.bias = near(&to.bias, 1.0);
        slopes.sinks = near(&to.sinks, 1.0);
        slopes
    }

    /// Log-sum-exp and delta of a row, as f32 would have them.
    fn upstream(&self, b: usize, h: usize, i: usize, back: &Back, answer: &Answer) -> Row {
        let s = &self.shape;
        let n = (b * s.query_heads + h) * s.queries + i;
        let mut delta = Sum::default();
        for c in n * s.value_dim..(n + 1) * s.value_dim {
            let (out, d) = (answer.out[c], f64::from(back.d_out[c]));
            delta.add(out.value * d, out.error * d.abs());
        }
        let d_lse = back.d_lse.as_ref().map_or(0.0, |d| f64::from(d[n]));
        let mut delta = delta.near(1.0);
        delta.value -= d_lse;
        delta.error += UNIT * (delta.value.abs() + delta.error);
        Row {
            b,
            h,
            i,
            n,
            lse: answer.lse[n],
            delta,
        }
    }

    /// What one row gives to all sums; whether it is not finite.
    fn row_back(&self, row: &Row, back: &Back, to: &mut Sums) -> bool {
        let s = &self.shape;
        let &Row { b, h, i, n, lse, delta } = row;
        let kv = b * s.kv_heads + h / (s.query_heads / s.kv_heads);
        let (q, d_out) = (
            &self.q[n * s.dim..][..s.dim],
            &back.d_out[n * s.value_dim..][..s.value_dim],
        );
        let seen: Vec<usize> = (0..s.keys).filter(|&j| self.sees(b, h, i, j)).collect();
        let numbers = q.iter().chain(d_out).map(|&x| f64::from(x));
        let numbers = numbers.chain([lse.value, delta.value]);
        let finite = numbers.clone().all(f64::is_finite) || seen.is_empty() && self.sink_logits.is_none();
        let spoil = if finite { 0.0 } else { f64::NAN };
        if let (Some(logits), Some(sum)) = (&self.sink_logits, to.sinks.get_mut(h)) {
            let logit = f64::from(logits[h]);
            let p = probability(
                Near {
                    value: logit,
                    error: 2.0 * UNIT * logit.abs(),
                },
                lse,
            );
            let error = p.error * (delta.value.abs() + delta.error) + p.value * delta.error;
            sum.add(spoil - p.value * delta.value, error);
        }
        for &j in &seen {
            let key = kv * s.keys + j;
            let (k, v) = (
                &self.k[key * s.dim..][..s.dim],
                &self.v[key * s.value_dim..][..s.value_dim],
            );
            let [raw, _, score] = self.score(b, h, i, j);
            let p = probability(score, lse);
            let mut product = Sum::default();
            d_out
                .iter()
                .zip(v)
                .for_each(|(&d, &v)| product.add(f64::from(d) * f64::from(v), 0.0));
            let product = product.near(1.0);
            let (gap, gap_error) = (product.value - delta.value, product.error + delta.error);
            let mut ds = Near {
                value: p.value * gap + spoil,
                error: p.error * (gap.abs() + gap_error) + p.value * gap_error + 2.0 * UNIT * (p.value * gap).abs(),
            };
            if let Some(bias) = &self.bias {
                to.bias[bias.index(b, h, i, j)].add(ds.value, ds.error);
            }
            if self.cap > 0.0 {
                let cap = f64::from(self.cap);
                let t = (raw.value / cap).tanh();
                let (slope, off) = (1.0 - t * t, 2.0 * (raw.error / cap + 8.0 * UNIT * t.abs()) + 4.0 * UNIT);
                ds.error = ds.error * (slope + off) + ds.value.abs() * (off + UNIT);
                ds.value *= slope;
            }
            for c in 0..s.dim {
                let (q, k) = (f64::from(q[c]), f64::from(k[c]));
                to.q[n * s.dim + c].add(ds.value * k, ds.error * k.abs());
                to.k[key * s.dim + c].add(ds.value * q, ds.error * q.abs());
            }
            for (c, &d) in d_out.iter().enumerate() {
                let d = f64::from(d);
                to.v[key * s.value_dim + c].add(p.value * d + spoil, p.error * d.abs());
            }
        }
        !finite && !seen.is_empty()
    }
}

/// `exp(score - lse)`: the errors of both, of the product of lse with log2 e, of the difference, and of 2^x.
fn probability(score: Near, lse: Near) -> Near {
    let x = score.value - lse.value;
    let off = score.error + lse.error + UNIT * (2.0 * lse.value.abs() + x.abs()) + WEIGHT;
    Near {
        value: x.exp(),
        error: x.exp() * off.exp_m1() + TINY,
    }
}

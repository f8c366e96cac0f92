//! The contract in f64. Every number of the answer comes with the error that f32 arithmetic may make.
//!
//! The errors are worst-case, with u = 2^-24 and gamma(n) = n u / (1 - n u) for n roundings in a row:
//!
//! * a product q.k: the scale carries five roundings (root, division, log2 e, its product, the product with q), the
//!   chain over `dim` as many as `dim`, leaving base 2 two more: `gamma(dim + 7) scale sum |q_c k_c|`.
//! * the cap: NaN where the product is not finite; tanh does not enlarge errors of its argument; four roundings of the argument cost at most as much
//!   relative to the result (t sech^2 t <= tanh t), tanh itself 2 ULP = 4u, its factor three: 11u, and one to spare.
//! * bias and slope: two and four roundings of the terms, one for their sum, one for the sum with the score, two for
//!   leaving base 2.
//! * a weight: the error of its score, and `2^r` is off by 1.63e-7 at most.
//! * an output: weights a_j (1 + e_j) move it by at most `range(v) eta / (1 - eta)`, eta = sum p_j |e_j| (from
//!   `o' - o = sum of e_j a_j (v_j - o) / D'`), never by more than the range; the two chains over n keys and the
//!   division add `gamma(2n + 8) max |v|`.
//! * what falls below 2^-100 of the largest weight is lost.

use super::case::Case;
use subquad::attention::Offset;

/// Unit roundoff of f32.
pub const UNIT: f64 = 5.960_464_477_539_063e-8;
pub(super) const WEIGHT: f64 = 1.64e-7;
pub(super) const TINY: f64 = 1e-29;

pub(super) fn gamma(n: usize) -> f64 {
    let nu = n as f64 * UNIT;
    nu / (1.0 - nu)
}

/// A number and how far a right answer may be from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Near {
    pub value: f64,
    pub error: f64,
}

const EXACTLY: fn(f64) -> Near = |value| Near { value, error: 0.0 };

impl Near {
    /// Whether `x` is a right answer; not a number only where that is the answer.
    pub fn admits(&self, x: f32) -> bool {
        let x = f64::from(x);
        if self.value.is_finite() {
            (x - self.value).abs() <= self.error
        } else {
            x == self.value || (x.is_nan() && self.value.is_nan())
        }
    }
}

/// What a call must give, in the 4-D layout.
#[derive(Debug, Default)]
pub struct Answer {
    pub out: Vec<Near>,
    pub lse: Vec<Near>,
    /// What the log-sum-exp is the sum of: the largest score, and the log of the sum relative to it, whose error is that of
    /// the sum alone.
    pub sums: Vec<(f64, Near)>,
    /// Scores raw, capped, biased, softmax.
    pub scores: [Vec<Near>; 4],
    pub masked_rows: usize,
    pub non_finite_rows: usize,
}

impl Case {
    /// The answer, row by row.
    pub fn answer(&self) -> Answer {
        let mut answer = Answer::default();
        for b in 0..self.shape.batch {
            for h in 0..self.shape.query_heads {
                for i in 0..self.shape.queries {
                    self.row(b, h, i, &mut answer);
                }
            }
        }
        answer
    }

    /// Whether the rules, all of them, let query i see key j.
    pub fn sees(&self, b: usize, h: usize, i: usize, j: usize) -> bool {
        let valid = self.key_lengths.as_ref().map_or(self.shape.keys, |n| n[b]);
        let (q0, q1, k0, k1) = self.segment(i);
        let k1 = k1.min(valid);
        let Some(key) = j.checked_sub(k0).filter(|_| j < k1) else {
            return false;
        };
        let (key, position) = (
            key as i128,
            i128::from(self.position(i - q0, q1 - q0, k1.saturating_sub(k0))),
        );
        let after = !self.causal || key <= position;
        let right = self.right.is_none_or(|n| key <= position + n as i128);
        let left = self.left.is_none_or(|n| key >= position - n as i128) || key < self.sinks as i128;
        let mask = self.mask.as_ref().is_none_or(|m| m.at(b, h, i, j).unwrap_or(0) != 0);
        let bias = self
            .bias
            .as_ref()
            .is_none_or(|m| m.at(b, h, i, j).unwrap_or(f32::NEG_INFINITY) != f32::NEG_INFINITY);
        after && right && left && mask && bias
    }

    /// First query, end of queries, first key, end of keys of the sequence that query i belongs to.
    fn segment(&self, i: usize) -> (usize, usize, usize, usize) {
        let Some((queries, keys)) = &self.segments else {
            return (0, self.shape.queries, 0, self.shape.keys);
        };
        let s = (0..queries.len() - 1)
            .find(|&s| queries[s] <= i && i < queries[s + 1])
            .unwrap();
        (queries[s], queries[s + 1], keys[s], keys[s + 1])
    }

    /// Position among the keys of the `i`-th of `queries` queries over `keys` keys; positions are 64-bit.
    fn position(&self, i: usize, queries: usize, keys: usize) -> i64 {
        let offset = match self.offset {
            Offset::Keys(n) => n,
            Offset::ToEnd => keys as i64 - queries as i64,
        };
        offset.saturating_add(i as i64)
    }

    /// Raw, capped and biased score of (query i, key j); the last is minus infinity where the key is not seen.
    pub(super) fn score(&self, b: usize, h: usize, i: usize, j: usize) -> [Near; 3] {
        let s = &self.shape;
        let kv = h / (s.query_heads / s.kv_heads);
        let (q, k) = (
            ((b * s.query_heads + h) * s.queries + i) * s.dim,
            ((b * s.kv_heads + kv) * s.keys + j) * s.dim,
        );
        let terms = (0..s.dim).map(|c| f64::from(self.q[q + c]) * f64::from(self.k[k + c]));
        let scale = self.scale.map_or(1.0 / (s.dim.max(1) as f64).sqrt(), f64::from);
        let raw = Near {
            value: scale * terms.clone().sum::<f64>(),
            error: gamma(s.dim + 7) * scale * terms.map(f64::abs).sum::<f64>() + TINY,
        };
        let cap = f64::from(self.cap);
        let mut capped = raw;
        if cap > 0.0 {
            // A tanh of 1 would hide what is not finite.
            capped.value = if raw.value.is_finite() {
                cap * (raw.value / cap).tanh()
            } else {
                f64::NAN
            };
            capped.error = raw.error + 12.0 * UNIT * capped.value.abs();
        }
        if !self.sees(b, h, i, j) {
            return [raw, capped, EXACTLY(f64::NEG_INFINITY)];
        }
        let bias = self.bias.as_ref().map_or(0.0, |x| f64::from(x.at(b, h, i, j).unwrap()));
        let (q0, q1, k0, k1) = self.segment(i);
        let k1 = k1.min(self.key_lengths.as_ref().map_or(s.keys, |n| n[b]));
        let position = self.position(i - q0, q1 - q0, k1.saturating_sub(k0));
        let distance = (i128::from(position) - (j - k0) as i128).abs() as f64;
        let slope = self.slopes.as_ref().map_or(0.0, |x| f64::from(x[h]) * distance);
        let value = capped.value + bias - slope;
        if value == f64::NEG_INFINITY {
            // Minus infinity means masked, and this key is not.
            return [raw, capped, EXACTLY(f64::NAN)];
        }
        // The lowest finite numbers cannot be written in base 2; what comes closest does as well.
        let lowest = if bias < -2e38 { 0.31 * bias.abs() } else { 0.0 };
        let terms = 4.0 * bias.abs() + 5.0 * slope.abs() + 4.0 * value.abs();
        let biased = Near {
            value,
            error: capped.error + UNIT * terms + lowest,
        };
        [raw, capped, biased]
    }

    fn row(&self, b: usize, h: usize, i: usize, answer: &mut Answer) {
        let s = &self.shape;
        let scores: Vec<[Near; 3]> = (0..s.keys).map(|j| self.score(b, h, i, j)).collect();
        for (stage, to) in answer.scores.iter_mut().take(3).enumerate() {
            to.extend(scores.iter().map(|x| x[stage]));
        }
        let seen: Vec<usize> = (0..s.keys).filter(|&j| self.sees(b, h, i, j)).collect();
        let value = |j: usize, c: usize| {
            let kv = h / (s.query_heads / s.kv_heads);
            f64::from(self.v[((b * s.kv_heads + kv) * s.keys + j) * s.value_dim + c])
        };
        let sink = self.sink_logits.as_ref().map(|x| f64::from(x[h]));
        answer.masked_rows += usize::from(seen.is_empty());
        let finite = |&j: &usize| scores[j][2].value.is_finite() && (0..s.value_dim).all(|c| value(j, c).is_finite());
        if !seen.iter().all(finite) {
            answer.non_finite_rows += 1;
            answer.lse.push(EXACTLY(f64::NAN));
            answer.sums.push((f64::NAN, EXACTLY(f64::NAN)));
            answer.out.extend(vec![EXACTLY(f64::NAN); s.value_dim]);
            answer.scores[3].extend(vec![EXACTLY(f64::NAN); s.keys]);
            return;
        }
        // The sink is one more score, with the value 0.
        let sink = sink.map(|x| Near {
            value: x,
            error: 2.0 * UNIT * x.abs(),
        });
        let live: Vec<Near> = seen.iter().map(|&j| scores[j][2]).chain(sink).collect();
        let softmax = Softmax::of(&live);
        answer.lse.push(softmax.lse);
        answer.sums.push((softmax.top, softmax.log));
        let mut probabilities = vec![EXACTLY(0.0); s.keys];
        for &j in &seen {
            probabilities[j] = softmax.probability(scores[j][2]);
        }
        let p = |j: usize| probabilities[j].value;
        for c in 0..s.value_dim {
            let values = || seen.iter().map(|&j| value(j, c)).chain(sink.map(|_| 0.0));
            let range = values().fold(f64::NEG_INFINITY, f64::max) - values().fold(f64::INFINITY, f64::min);
            let largest = values().fold(0.0, |a: f64, x| a.max(x.abs()));
            answer.out.push(match live.len() {
                0 => EXACTLY(0.0),
                n => Near {
                    value: seen.iter().map(|&j| p(j) * value(j, c)).sum(),
                    error: range * softmax.spread() + gamma(2 * n + 8) * largest + n as f64 * TINY * (1.0 + largest),
                },
            });
        }
        answer.scores[3].extend(probabilities);
    }
}

/// Softmax over scores with errors.
struct Softmax {
    count: usize,
    /// The largest score, and the sum of the exponentials relative to it: their quotients are accurate even where
    /// scores are so large that the logarithm of the sum is lost in them.
    top: f64,
    sum: f64,
    lse: Near,
    /// Of the sum.
    log: Near,
    /// Sum of p_j |e_j|.
    eta: f64,
}

impl Softmax {
    fn of(scores: &[Near]) -> Softmax {
        let top = scores.iter().fold(f64::NEG_INFINITY, |a, x| a.max(x.value));
        let sum: f64 = scores.iter().map(|x| (x.value - top).exp()).sum();
        let lse = if scores.is_empty() {
            f64::NEG_INFINITY
        } else {
            top + sum.ln()
        };
        let count = scores.len();
        let moved = |x: &Near| ((x.value - top + x.error + WEIGHT).exp() - (x.value - top).exp()) / sum;
        let eta: f64 = scores.iter().map(moved).sum();
        // The logarithm, and the reference in base 2 on its way back: five roundings of terms no larger than
        // |lse| + 1 + 2 ln(count).
        let rounding = 5.0 * UNIT * (lse.abs() + 1.0 + 2.0 * (count.max(1) as f64).ln());
        let error = if eta < 1.0 {
            -(-eta).ln_1p() + gamma(count + 1)
        } else {
            f64::INFINITY
        };
        Softmax {
            count,
            top,
            sum,
            lse: Near {
                value: lse,
                error: error + rounding,
            },
            log: Near { value: sum.ln(), error },
            eta,
        }
    }

    /// eta / (1 - eta), at most 1.
    fn spread(&self) -> f64 {
        if self.eta < 0.5 {
            self.eta / (1.0 - self.eta)
        } else {
            1.0
        }
    }

    /// `weight / sum`: the error of the one, of the other, and two roundings.
    fn probability(&self, score: Near) -> Near {
        let value = (score.value - self.top).exp() / self.sum;
        let high = (score.value - self.top + score.error + WEIGHT).exp() / self.sum;
        let high = high * (1.0 + self.spread()) * (1.0 + gamma(self.count + 3));
        Near {
            value,
            error: (high - value).min(1.0) + TINY,
        }
    }
}

//! How far f32 can be off in exact attention: a promise that no input breaks.
//!
//! One derivation for both kernels, which differ in where they add ([`Order`]). `u = 2^-24`, `gamma(n) = n u / (1 - n u)`;
//! n is the most keys that one query sees. Each line is a step of the kernel: what is known before it, and what follows.
//! Scores are in natural units here; the kernel holds them times log2 e. "error" is how far they are from those of real
//! arithmetic. `tests/steps.rs` has a family of inputs for every step, on which more than half of the promise is reached.
//!
//! ```text
//! step                       before                         after
//! scale2 = scale * log2 e    log2 e off by 0.23 u; the      scale2 = scale log2 e (1 + t), |t| <= gamma(1) + 0.25 u;
//!                            default scale: sqrt, divide    gamma(3) + 0.25 u unless the root is a power of two
//! q * scale2                 one rounding per number        score terms off by gamma(1) more
//! sum over dim               a product meets P roundings,   E = (gamma(P + 2 or 4) + 0.25 u) * scale |q| |k|
//!                            see `Order`                    (Cauchy-Schwarz: sum |q_c k_c| <= |q| |k|)
//! x / cap, tanh, * cap       see `Scores::capped`           E = max of what is left of E and what the steps add, over
//!                                                           the curve; then |x| <= cap
//! bias, slopes               bias log2 e: 1.23 u |b|;       E += 1.25 u B (slopes 3.25, both 4.25), B = max of |bias| +
//!                            slope: 3.23 u; their sum: 1    |slope distance| over keys that are not far (below)
//! score + bias               one rounding of the sum        E += u (|x| + B)
//! learned sink               logit log2 e: 1.23 u           E = max(E, 1.25 u |logit|); a key of value 0
//! 2^(s - M)                  s - M exact, 2^r off by w      weights off by exp(+-(E + w)) relative, w = 1.63e-7 (1.54e-7
//!                            relative; 0 below -100         fused); what is cut is < 2^-100 each, subnormal less, and the
//!                                                           sum is >= 1/2, as M < max s + 1
//! rescaling                  M an integer                   exact; where it is not, the kernel runs the keys again
//! sum of weights             a weight >= 0 meets W          off by gamma(W) relative; one more with the sink
//!                            additions: see `Order`
//! sum of weight * value      a chain over the keys          term by term off by gamma(n)
//! * (1 / sum)                two roundings                  quotient off by gamma(W + n + 2) * weighted mean of |v|
//! lse                        see `lse_rounding`             E + w + gamma(W) + that
//! ```
//!
//! Weights that are off by `exp(+-d)` move the output by at most `range * tanh(d / 2)` (lemma L1: the output is a
//! weighted mean, extreme where every value is one of two; `range` is how far values of a column are apart, 0 included
//! if there is a learned sink). Dropped weights of share `t` move it by at most `t * range`. So
//!
//! ```text
//! out <= range * min((E + w) / 2 + n 2^-97, 1) + gamma(W + n + 2) * max |v| + n 2^-97 (max |v| + 1)
//! lse <= E + w + gamma(W) + n 2^-97 + lse_rounding
//! ```
//!
//! where the powers of two cover underflow, with room. A key is far if its bias puts it 160 powers of two below another
//! key of its row, whatever the products are: its weight is 0 here and less than 2^-150 in truth. Without that, masks
//! written as -1e9 would make every promise empty.
//!
//! Integers with a scale per row: `Exact` multiplies every number by it, `Decode` the score of a key and the weight of a
//! value. Either way P and W + n + 2 are one more. What storing has lost ([`Loss`]; the originals k, v became k', v'):
//!
//! ```text
//! |k - k'| <= eta          E += scale * max |q| * eta, before the cap (lemma L8: Cauchy-Schwarz)
//! |v_c - v'_c| <= e        out += e: a weighted mean of the differences
//! ```
//!
//! `range` and `max |v|` are those of the stored values: values are exchanged first, then the keys.
//!
//! No promise (`UNKNOWN`): numbers that are not finite, padding aside (what only a mask hides still counts); |q|^2, |k|^2,
//! the scores or the sums may overflow; a cap outside 2^-125..2^125; so many keys or dimensions that some
//! gamma has no value (2^22 keys and 2^23 dimensions for `Exact`).

mod addends;
mod scores;

use super::block::Input;
use super::partial::lse_rounding;
use super::rules::At;
use super::slots::Sequence;
use crate::bound::{gamma, product_up, sum_up, Bound, UNIT};
use crate::view::Format;
pub(super) use scores::largest_norm;
use scores::{largest_key_norm, Scores};

/// Where a kernel adds, and so how many roundings a term meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// One chain after the other: [`Exact`](super::Exact).
    Chains,
    /// Sixteen chains, then halves added to halves: [`Decode`](super::Decode).
    Lanes,
}

impl Order {
    /// Of a product in a sum of `dim` products, its own included. Fused: one per step. Strict: two, but the first sum,
    /// 0 + x, is exact.
    fn of_products(self, dim: usize) -> usize {
        match self {
            Order::Chains => dim,
            // Lanes without a number are 0 and add exactly: three meet in two additions, nine to sixteen in four.
            Order::Lanes => dim.div_ceil(16) + dim.clamp(1, 16).next_power_of_two().trailing_zeros() as usize,
        }
    }

    /// Of a weight in the sum over `keys` weights; 0 + x is exact.
    fn of_weights(self, keys: usize) -> usize {
        let chain = keys.saturating_sub(1);
        match self {
            Order::Chains => chain,
            // A lane has every sixteenth key of an interval. Kept first keys and a window are two intervals.
            Order::Lanes => chain.min(keys.div_ceil(16) + 4),
        }
    }
}

/// What rounding can do to the results of a call: the worst over all heads and rows.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct Rounding {
    /// Of any entry of the output.
    pub out: Bound,
    /// Of any log-sum-exp of a row that sees a key.
    pub lse: Bound,
    /// Of the log of `sum * 2^max`, before it is rounded into an f32 log-sum-exp.
    pub(super) mass: f32,
}

impl Rounding {
    /// Nothing to be off.
    pub(super) const NONE: Rounding = Rounding {
        out: Bound::certain(0.0),
        lse: Bound::certain(0.0),
        mass: 0.0,
    };

    /// No promise.
    pub(crate) const UNKNOWN: Rounding = Rounding {
        out: Bound::UNKNOWN,
        lse: Bound::UNKNOWN,
        mass: f32::INFINITY,
    };

    fn or(self, other: Rounding) -> Rounding {
        Rounding {
            out: self.out.or(other.out),
            lse: self.lse.or(other.lse),
            mass: self.mass.max(other.mass),
        }
    }
}

/// At least ln 2, and so much more that it turns what was rounded in base 2 into an upper bound in natural units.
const LN2_UP: f32 = 0.693_147_6;
/// At least log2 e, likewise.
const LOG2_E_UP: f32 = 1.442_696;
/// Relative error of 2^r by class.
const WEIGHT_STRICT: f32 = 1.63e-7;
const WEIGHT_FUSED: f32 = 1.54e-7;
/// The smallest number above 0: twice what one underflow can cost.
const TINY: f32 = f32::from_bits(1);

const fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// What storing keys and values in fewer bits has lost, over all rows that are attended to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// The largest Euclidean distance of a stored key from its original.
    pub key: f32,
    /// The largest difference of a number of a stored value from its original.
    pub value: f32,
}

impl Loss {
    /// What is stored is what was meant.
    pub const NONE: Loss = Loss { key: 0.0, value: 0.0 };

    /// Whichever is worse of each.
    #[must_use]
    pub const fn or(self, other: Loss) -> Loss {
        Loss {
            key: if self.key < other.key { other.key } else { self.key },
            value: if self.value < other.value {
                other.value
            } else {
                self.value
            },
        }
    }

    /// Both losses, one after the other.
    #[must_use]
    pub(super) fn plus(self, other: Loss) -> Loss {
        Loss {
            key: sum_up(self.key, other.key),
            value: sum_up(self.value, other.value),
        }
    }
}

/// The worst case over all heads, for a kernel that adds in this order, against the originals that `loss` is about.
pub(super) fn rounding(input: &Input<'_, Sequence<'_>>, order: Order, loss: Loss) -> Rounding {
    let shape = &input.shape;
    let mut all = Rounding::NONE;
    for batch in 0..shape.batch {
        let keys = (0..shape.queries).map(|i| input.rules.span(shape, batch, i).len());
        let most = keys.max().unwrap_or(0);
        for kv_head in 0..shape.kv_heads {
            all = all.or(of_group(input, order, loss, [batch, kv_head, most]));
        }
    }
    all
}

/// The query heads that share the keys and values of `kv_head`; a row sees `most` keys at most.
fn of_group(input: &Input<'_, Sequence<'_>>, order: Order, loss: Loss, [batch, kv_head, most]: [usize; 3]) -> Rounding {
    let (shape, rules) = (&input.shape, &input.rules);
    let valid = rules.valid_keys(shape, batch);
    let key_norm = largest_key_norm(input, batch, kv_head, valid);
    let values = Values::of(&input.v, batch, kv_head, valid);
    let group = shape.group();
    let (mut all, additions) = (Rounding::NONE, order.of_weights(most));
    for head in kv_head * group..(kv_head + 1) * group {
        let at = At { batch, head, query: 0 };
        let query_norm = largest_norm(input.isa, input.q.matrix(batch, head));
        let scores = Scores::of_products(input, order, [query_norm, key_norm, loss.key])
            .and_then(|s| s.capped(rules.cap2()))
            .and_then(|s| s.biased(input, at));
        let logit = rules.sink_logit2(head);
        all = all.or(match scores {
            Some(scores) => of_head(scores, values, [most, additions], logit, input.isa.fused()),
            None => Rounding::UNKNOWN,
        });
    }
    if most > 0 {
        all.out = Bound::certain(sum_up(all.out.value, loss.value));
    }
    all
}

/// From scores and values to results, for a head where a row sees `keys` at most, whose weights meet so many `additions`.
fn of_head(
    scores: Scores,
    values: Values,
    [keys, mut additions]: [usize; 2],
    logit: Option<f32>,
    fused: bool,
) -> Rounding {
    let Scores { mut size, mut error } = scores;
    let Values {
        mut range,
        size: value,
        scaled,
    } = values;
    let (mut terms, mut weight) = (keys, if fused { WEIGHT_FUSED } else { WEIGHT_STRICT });
    if let Some(logit) = logit {
        let logit = product_up(logit.abs(), LN2_UP);
        size = size.max(logit);
        error = error.max(sum_up(product_up(1.25 * UNIT, logit), TINY));
        // Its value is 0, and its weight is computed on one strict lane.
        range = range.max(value);
        terms = terms.saturating_add(1);
        additions = additions.saturating_add(usize::from(keys > 0));
        weight = WEIGHT_STRICT;
    }
    if terms == 0 {
        return Rounding::NONE;
    }
    if !product_up(2.0 * terms as f32, value).is_finite() {
        return Rounding::UNKNOWN;
    }
    let lost = product_up(terms as f32, power_of_two(-97));
    let weights = sum_up(error, weight);
    let share = sum_up(product_up(weights, 0.5), lost);
    let mixed = product_up(range, if share < 1.0 { share } else { 1.0 });
    let summed = product_up(gamma(additions.saturating_add(keys).saturating_add(2 + scaled)), value);
    let out = sum_up(sum_up(mixed, summed), product_up(lost, sum_up(value, 1.0)));

    let mass = sum_up(sum_up(weights, gamma(additions)), lost);
    // The reference is within 1 of the largest score. The sum is between 1/2 and the number of terms, up to its error.
    let reference = sum_up(product_up(size, LOG2_E_UP), 1.0);
    let log_terms = product_up((usize::BITS - terms.leading_zeros()) as f32, LN2_UP);
    let log_sum = sum_up(log_terms, mass);
    Rounding {
        out: Bound::certain(out),
        lse: Bound::certain(sum_up(mass, lse_rounding(reference, log_sum))),
        mass: Bound::certain(mass).value,
    }
}

/// What is known about the values of a head.
#[derive(Clone, Copy)]
struct Values {
    /// How far two values of a column are apart, at most.
    range: f32,
    /// The largest value.
    size: f32,
    /// Roundings that a product of weight and value meets besides: one, if the value has a scale.
    scaled: usize,
}

impl Values {
    /// Columns at a time: as many as one cache line holds.
    const COLUMNS: usize = 16;

    fn of(v: &Sequence<'_>, batch: usize, head: usize, valid: usize) -> Values {
        let scaled = v.rows.format() == Format::I8;
        let mut all = Values {
            range: 0.0,
            size: 0.0,
            scaled: usize::from(scaled),
        };
        for first in (0..v.rows.cols()).step_by(Self::COLUMNS) {
            let (mut low, mut high) = ([f32::INFINITY; Self::COLUMNS], [f32::NEG_INFINITY; Self::COLUMNS]);
            // Stays 0 while everything is finite.
            let mut strange = 0.0f32;
            let mut room = [0.0; Self::COLUMNS];
            v.pieces(batch, head, 0..valid, |rows, _| {
                for i in 0..rows.rows() {
                    let (numbers, scale) = rows.numbers(i, first, &mut room);
                    for (&x, (low, high)) in numbers.iter().zip(low.iter_mut().zip(&mut high)) {
                        let x = x * scale;
                        *low = low.min(x);
                        *high = high.max(x);
                        strange += x * 0.0;
                    }
                }
            });
            let ends = low.iter().zip(&high).filter(|(low, high)| low <= high);
            for (&low, &high) in ends {
                all.range = all.range.max(sum_up(high - low, 0.0));
                all.size = all.size.max(low.abs()).max(high.abs());
            }
            if strange != 0.0 {
                all.range = f32::INFINITY;
                all.size = f32::INFINITY;
                return all;
            }
        }
        if scaled {
            // The scales were multiplied by, and both ends of a range were rounded.
            all.size = sum_up(product_up(all.size, 1.0 + 2.0 * UNIT), TINY);
            all.range = sum_up(all.range, sum_up(product_up(4.0 * UNIT, all.size), 2.0 * TINY));
        }
        all
    }
}

//! How far f32 can be off in exact attention: a promise that no input breaks.
//!
//! `u = 2^-24`, `gamma(n) = n u / (1 - n u)`; n is the most keys that one query sees (one more with a learned sink). Each
//! line is a step of the kernel: what is known before it, and what follows. Scores are in natural units here; the kernel
//! holds them times log2 e. "error" is how far they are from those of real arithmetic.
//!
//! ```text
//! step                       before                         after
//! scale2 = scale * log2 e    log2 e off by 0.23 u; the      scale2 = scale log2 e (1 + t), |t| <= gamma(2);
//!                            default scale: sqrt, divide    gamma(4) unless the root is a power of two
//! q * scale2                 one rounding per number        score terms off by gamma(1) more
//! chain over dim             fused: one rounding per step;  term c meets dim - c roundings, the first dim:
//!                            strict: two, but 0 + x is      E = gamma(dim + 3 or 5) * scale |q| |k|
//!                            exact                          (Cauchy-Schwarz: sum |q_c k_c| <= |q| |k|)
//! x / cap                    cap2 off by 1.23 u, inverse    argument z off by 3.25 u, tanh by max z tanh' = 0.448
//!                            and product by 1 each          times that; or 3.25 u |x|, as tanh' <= 1
//! tanh                       2 ULP: 2 u below 1, 4 u |x|    the input error E does not grow (tanh' <= 1);
//! * cap                      1.25 u (cap2) + 1 u            E += min(6 u cap, 10 u |x|); then |x| <= cap
//! bias, slopes               bias log2 e: 1.23 u |b|;       E += 1.25 u B (slopes 3.25, both 4.25), B = max of |bias| +
//!                            slope: 3.23 u; their sum: 1    |slope distance| over keys that are not far (below)
//! score + bias               one rounding of the sum        E += u (|x| + B)
//! learned sink               logit log2 e: 1.23 u           E = max(E, 2 u |logit|); a key of value 0
//! 2^(s - M)                  s - M exact, 2^r off by w      weights off by exp(+-(E + w)) relative, w = 1.63e-7 (1.54e-7
//!                            relative; 0 below -100         fused); what is cut is < 2^-100 each, subnormal less, and the
//!                                                           sum is >= 1/2, as M < max s + 1
//! rescaling                  M an integer                   exact; where it is not, the kernel runs the keys again
//! sum of weights             n numbers >= 0, 0 + x exact    off by gamma(n - 1) relative; with the sink gamma(n)
//! sum of weight * value      chain as above                 term by term off by gamma(n)
//! * (1 / sum)                two roundings                  quotient off by gamma(2 n + 1) * weighted mean of |v|
//! lse                        see `lse_rounding`             E + w + gamma(n) + that
//! ```
//!
//! Weights that are off by `exp(+-d)` move the output by at most `range * tanh(d / 2)` (lemma L1: the output is a
//! weighted mean, extreme where every value is one of two; `range` is how far values of a column are apart, 0 included
//! if there is a learned sink). Dropped weights of share `t` move it by at most `t * range`. So
//!
//! ```text
//! out <= range * min((E + w) / 2 + n 2^-97, 1) + gamma(2 n + 1) * max |v| + n 2^-97 (max |v| + 1)
//! lse <= E + w + gamma(n) + n 2^-97 + lse_rounding
//! ```
//!
//! where the powers of two cover underflow, with room. A key is far if its bias puts it 160 powers of two below another
//! key of its row, whatever the products are: its weight is 0 here and less than 2^-150 in truth. Without that, masks
//! written as -1e9 would make every promise empty.
//!
//! No promise (`UNKNOWN`): numbers that are not finite, padding aside (what only a mask hides still counts); |q|^2, |k|^2,
//! the scores or the sums may overflow; a cap outside 2^-125..2^125; more than 2^22 keys or 2^23 dimensions.

use super::block::Input;
use super::partial::lse_rounding;
use super::rules::At;
use crate::bound::{gamma, product_up, sum_up, Bound, UNIT};
use crate::kernels;
use crate::math;
use crate::view::MatRef;

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
    const NONE: Rounding = Rounding {
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
/// Beyond this size sums of three or four scores might overflow.
const HUGE: f32 = 1.0e30;

const fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// The worst case over all heads.
pub(super) fn rounding(input: &Input<'_>) -> Rounding {
    let shape = &input.shape;
    let mut all = Rounding::NONE;
    for batch in 0..shape.batch {
        let keys = (0..shape.queries).map(|i| input.rules.span(shape, batch, i).len());
        let most = keys.max().unwrap_or(0);
        for kv_head in 0..shape.kv_heads {
            all = all.or(of_group(input, batch, kv_head, most));
        }
    }
    all
}

/// The query heads that share the keys and values of `kv_head`; a row sees `most` keys at most.
fn of_group(input: &Input<'_>, batch: usize, kv_head: usize, most: usize) -> Rounding {
    let (shape, rules) = (&input.shape, &input.rules);
    let valid = rules.valid_keys(shape, batch);
    let key_norm = largest_norm(input, input.k.matrix(batch, kv_head).row_range(0..valid));
    let values = Values::of(input.v.matrix(batch, kv_head).row_range(0..valid));
    let group = shape.group();
    let mut all = Rounding::NONE;
    for head in kv_head * group..(kv_head + 1) * group {
        let at = At { batch, head, query: 0 };
        let query_norm = largest_norm(input, input.q.matrix(batch, head));
        let scores = Scores::of_products(input, query_norm, key_norm)
            .and_then(|s| s.capped(rules.cap2()))
            .and_then(|s| s.biased(input, at));
        let logit = rules.sink_logit2(head);
        all = all.or(match scores {
            Some(scores) => of_head(scores, values, most, logit, input.isa.fused()),
            None => Rounding::UNKNOWN,
        });
    }
    all
}

/// From scores and values to results, for a head where a row sees `most` keys at most.
fn of_head(scores: Scores, values: Values, most: usize, logit: Option<f32>, fused: bool) -> Rounding {
    let Scores { mut size, mut error } = scores;
    let Values { mut range, size: value } = values;
    let (mut terms, mut weight) = (most, if fused { WEIGHT_FUSED } else { WEIGHT_STRICT });
    if let Some(logit) = logit {
        let logit = product_up(logit.abs(), LN2_UP);
        size = size.max(logit);
        error = error.max(sum_up(product_up(2.0 * UNIT, logit), TINY));
        // Its value is 0, and its weight is computed on one strict lane.
        range = range.max(value);
        terms = terms.saturating_add(1);
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
    let summed = product_up(gamma(terms.saturating_mul(2).saturating_add(1)), value);
    let out = sum_up(sum_up(mixed, summed), product_up(lost, sum_up(value, 1.0)));

    let mass = sum_up(sum_up(weights, gamma(terms)), lost);
    // The reference is within 1 of the largest score, the sum between 1/2 and the number of terms.
    let reference = sum_up(product_up(size, LOG2_E_UP), 1.0);
    let log_sum = product_up((usize::BITS - terms.leading_zeros() + 1) as f32, LN2_UP);
    Rounding {
        out: Bound::certain(out),
        lse: Bound::certain(sum_up(mass, lse_rounding(reference, log_sum))),
        mass: Bound::certain(mass).value,
    }
}

/// What is known about all scores of a head: none is larger than `size`, none off by more than `error` (infinite where
/// only the size is known). There is a `Scores` only where every score is finite.
#[derive(Clone, Copy)]
struct Scores {
    size: f32,
    error: f32,
}

impl Scores {
    /// `scale q.k` from the largest norms.
    fn of_products(input: &Input<'_>, query_norm: f32, key_norm: f32) -> Option<Scores> {
        let dim = input.shape.dim;
        let scale2 = input.rules.scale2(dim);
        let products = product_up(query_norm, key_norm);
        let size = product_up(product_up(sum_up(scale2, TINY), LN2_UP), products);
        // A scale, a query or a product that is subnormal is off by up to TINY / 2, times what it is multiplied by.
        let keys = product_up(dim as f32, sum_up(key_norm, 1.0));
        let underflow = product_up(sum_up(keys, products), TINY);
        let relative = gamma(dim.saturating_add(1 + input.rules.scale2_roundings(dim)));
        let error = sum_up(product_up(relative, size), underflow);
        let size = sum_up(size, error);
        let scaled = product_up(query_norm, scale2);
        (scaled < HUGE && size < HUGE).then_some(Scores { size, error })
    }

    /// After the soft-cap.
    fn capped(self, cap2: f32) -> Option<Scores> {
        if cap2 == 0.0 {
            return Some(self);
        }
        if cap2 < power_of_two(-125) || cap2 > power_of_two(125) {
            return None;
        }
        let cap = product_up(cap2, LN2_UP);
        let flat = product_up(6.0 * UNIT, cap);
        let steep = product_up(10.0 * UNIT, self.size);
        let underflow = sum_up(product_up(cap, power_of_two(-126)), TINY);
        let error = sum_up(self.error, if flat < steep { flat } else { steep });
        // tanh is not above 1, and the product with the cap is rounded once.
        let size = if cap < self.size { cap } else { self.size };
        Some(Scores {
            size: product_up(size, 1.0 + 16.0 * UNIT),
            error: sum_up(error, underflow),
        })
    }

    /// After bias and slopes; masks only take keys away.
    fn biased(self, input: &Input<'_>, at: At) -> Option<Scores> {
        if !(input.rules.has_bias() || input.rules.has_slopes()) {
            return Some(self);
        }
        let added2 = largest_addend(input, at, product_up(self.size, LOG2_E_UP))?;
        let added = product_up(added2, LN2_UP);
        // Times log2 e: 1.23 u. A slope also times a distance, itself rounded; and the two together once more.
        let roundings = match (input.rules.has_bias(), input.rules.has_slopes()) {
            (_, false) => 1.25,
            (false, true) => 3.25,
            (true, true) => 4.25,
        };
        let size = sum_up(self.size, added);
        let error = sum_up(product_up(roundings * UNIT, added), product_up(UNIT, size));
        // A subnormal slope times a distance below 2^64.
        let underflow = power_of_two(-84);
        Some(Scores {
            size: product_up(size, 1.0 + 16.0 * UNIT),
            error: sum_up(self.error, sum_up(error, underflow)),
        })
    }
}

/// Largest `|bias| + |slope * distance|` of a head, in base 2, over the keys that are not far; `size2` bounds what is
/// added to. Infinite where a bias was clamped to the lowest number and its row has nothing better; `None` where a sum
/// may not be finite.
fn largest_addend(input: &Input<'_>, at: At, size2: f32) -> Option<f32> {
    let (shape, rules) = (&input.shape, &input.rules);
    let [biases, slopes] = rules.addends();
    let mut largest = 0.0;
    for query in 0..shape.queries {
        let at = At { query, ..at };
        let span = rules.span(shape, at.batch, query);
        let position = rules.absolute_position(shape, at.batch, query);
        // Both ends of the row: in between, distances are less.
        let slope_at = |j: usize| slopes.bias2(at, position, j).abs();
        if slope_at(0).max(slope_at(shape.keys)) >= HUGE {
            return None;
        }
        let addends = || {
            let seen = (0..span.keys.1).filter(|&j| span.sees(j));
            seen.map(|j| Addend {
                sum: rules.bias2(at, position, j),
                bias: biases.bias2(at, position, j),
                slope: slopes.bias2(at, position, j),
            })
        };
        let mut best = f32::NEG_INFINITY;
        for a in addends().filter(|a| !a.masks()) {
            if a.sum.is_nan() || a.sum >= HUGE {
                return None;
            }
            best = best.max(a.least());
        }
        // The products of a far key and of the best one may both be worst; the rest is room for roundings of `size2`.
        let far = best - 2.001 * size2 - 160.0;
        let near = addends().filter(|a| !a.masks() && a.most() >= far);
        largest = near.map(|a| a.size()).fold(largest, f32::max);
    }
    Some(largest)
}

/// What is added to a score, in base 2, and its two parts.
struct Addend {
    sum: f32,
    bias: f32,
    slope: f32,
}

impl Addend {
    /// Thirty-two roundings: more than twice what the parts are off by, relative to their sizes.
    const ROOM: f32 = 32.0 * UNIT;

    fn masks(&self) -> bool {
        self.sum == f32::NEG_INFINITY
    }

    /// A bias that base 2 has no room for stands for anything lower.
    fn clamped(&self) -> bool {
        self.bias <= -f32::MAX
    }

    fn room(&self) -> f32 {
        self.bias.abs() * Self::ROOM + self.slope.abs() * Self::ROOM
    }

    /// No lower in real arithmetic.
    fn least(&self) -> f32 {
        if self.clamped() {
            f32::NEG_INFINITY
        } else {
            self.sum - self.room()
        }
    }

    /// No higher in real arithmetic.
    fn most(&self) -> f32 {
        self.sum + self.room()
    }

    fn size(&self) -> f32 {
        if self.clamped() {
            f32::INFINITY
        } else {
            sum_up(self.bias.abs(), self.slope.abs())
        }
    }
}

/// At least the largest Euclidean norm of a row; infinite where some number is not finite or too large to square.
fn largest_norm(input: &Input<'_>, rows: MatRef<'_, f32>) -> f32 {
    let mut largest = 0.0f32;
    for i in 0..rows.rows() {
        let square = kernels::dot(input.isa, rows.row(i), rows.row(i));
        if !square.is_finite() {
            return f32::INFINITY;
        }
        largest = largest.max(square);
    }
    // `dot` is off by gamma(dim / 16 + 6) relative, and squares may underflow.
    let relative = gamma(rows.cols() / 16 + 8);
    let square = sum_up(largest, product_up(relative, largest));
    let underflow = product_up(rows.cols() as f32, TINY);
    product_up(math::sqrt(sum_up(square, underflow)), 1.0 + 2.0 * UNIT)
}

/// What is known about the values of a head.
#[derive(Clone, Copy)]
struct Values {
    /// How far two values of a column are apart, at most.
    range: f32,
    /// The largest value.
    size: f32,
}

impl Values {
    /// Columns at a time: as many as one cache line holds.
    const COLUMNS: usize = 16;

    fn of(v: MatRef<'_, f32>) -> Values {
        let mut all = Values { range: 0.0, size: 0.0 };
        for first in (0..v.cols()).step_by(Self::COLUMNS) {
            let columns = v.col_range(first..first + Self::COLUMNS);
            let (mut low, mut high) = ([f32::INFINITY; Self::COLUMNS], [f32::NEG_INFINITY; Self::COLUMNS]);
            // Stays 0 while everything is finite.
            let mut strange = 0.0f32;
            for i in 0..columns.rows() {
                for (&x, (low, high)) in columns.row(i).iter().zip(low.iter_mut().zip(&mut high)) {
                    *low = low.min(x);
                    *high = high.max(x);
                    strange += x * 0.0;
                }
            }
            let ends = low.iter().zip(&high).filter(|(low, high)| low <= high);
            for (&low, &high) in ends {
                all.range = all.range.max(sum_up(high - low, 0.0));
                all.size = all.size.max(low.abs()).max(high.abs());
            }
            if strange != 0.0 {
                return Values {
                    range: f32::INFINITY,
                    size: f32::INFINITY,
                };
            }
        }
        all
    }
}

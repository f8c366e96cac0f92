//! From power sums of scores to attention: lanes are queries, as everywhere.
//!
//! Given `N_j = sum over keys of s^j v` and `m_j = sum of s^j`, every polynomial in place of e^s is a choice of coefficients,
//! made here for each query. With `mean = m_1 / m_0` all are polynomials in `s - mean`, which is what is small, and the
//! factor `e^mean` cancels in the output. Three are tried:
//!
//! - Taylor's, for which the sum of all errors is bounded by a power sum that is at hand;
//! - the best in relative error for the reach of the block, whose error is known beforehand;
//! - Hermite's for the variance of the scores, the most accurate by far where scores look normal: its promise is that of one
//!   of the others plus the distance to it.
//!
//! Derivation of the promise, for a query with `|q| = norm` and keys with `|x| <= radius`; sums over keys, `a = |mean|`:
//!
//! ```text
//! reach       b = norm radius + a >= |s - mean|
//! sizes       A(p) = sum_i norm^i P_i sum_(j>=i) |p_j| C(j,i) a^(j-i) for p(s - mean), with the measured sums
//!             P_i >= sum |x|^i: all that roundings multiply. error(p) = relative A(p)
//! power       S = sum (s - mean)^e, e even: at most max(computed, 0) + error(s^e)
//! Taylor      missed = sum |e^(s - mean) - T| <= S b^(g + 1 - e) taylor_rest(g, b), e the even one of g and g - 1
//!             out off by (range missed + 2 largest |v| error(T)) / mass, as for the true output o, which lies among the
//!             values, sum T (v - o) = sum (T - e^..) (v - o)                                                      (L2)
//! minimax     out off by range share + 2 largest |v| error(M) / mass                                           (L1)
//! Hermite     the smaller of these, plus the largest distance between the outputs
//! ```
//!
//! `relative` is the caller's: the roundings of a term of the sums, relative to it, and [`roundings`] for what is done here.
//! No output is farther from the truth than the range of the values, as both lie among them.

use super::elementary::exp;
use crate::bound::gamma;
use crate::simd::Simd;

/// One more than the largest degree.
pub(crate) const MOST_TERMS: usize = 17;

/// Polynomials that do not depend on the query. Constant terms first; each has one more term than the degree.
#[derive(Clone, Copy)]
pub(crate) struct Polynomials<'a> {
    /// `1 / j!`.
    pub taylor: &'a [f32],
    /// The factor of `taylor_rest` that does not depend on the reach: `1 / (g + 1)!`, rounded up.
    pub taylor_next: f32,
    /// Reach, coefficients, and by how much of the range an output can be off.
    pub minimax: Option<(f32, &'a [f32], f32)>,
}

/// What the keys are known to be.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    /// At least `sum |x|^i` for each power, the number of keys first.
    pub norms: &'a [f32],
    /// At least the largest `|x|`.
    pub radius: f32,
    /// Least and largest value of every column, as they entered the sums.
    pub low: &'a [f32],
    pub high: &'a [f32],
    /// At least the largest magnitude of these, and at least the largest difference inside a column.
    pub value: f32,
    pub range: f32,
    /// At least the relative error of a term of the sums.
    pub relative: f32,
    /// The largest promise that the caller is content with.
    pub wanted: f32,
}

/// Sums of a block of queries, and where their results go.
pub(crate) struct Estimates<'a> {
    /// `[degree][column][lane]`; the last column is that of the power sums.
    pub sums: &'a [f32],
    /// `[dim][lane]`: the queries as they entered the sums.
    pub q_t: &'a [f32],
    /// From one row of lanes to the next.
    pub lanes: usize,
    /// `[column][lane]`, without the column of the power sums.
    pub out: &'a mut [f32],
    /// `e^mean mass` is the sum of weights.
    pub mean: &'a mut [f32],
    pub mass: &'a mut [f32],
    /// Promises: about every entry of the output, and about the logarithm of the sum of weights.
    pub out_bound: &'a mut [f32],
    pub mass_bound: &'a mut [f32],
}

/// Where terms of certificates were rounded down, this makes up for it: some eighty roundings of positive numbers.
const SLACK: f32 = 1.0 + 1.0 / 65536.0;
/// What underflow may hide, relative to the values.
const HIDDEN: f32 = f32::from_bits((127 - 100) << 23);
/// Roundings that a term meets here: its coefficient, two per step of shifting, two per term of the last sum, and the quotient.
pub(crate) const fn roundings(degree: usize) -> usize {
    4 * degree + 8
}
/// Keeps lengths of queries away from underflow.
const TINY_SQUARE: f32 = f32::MIN_POSITIVE * 256.0;

type Terms<V> = [V; MOST_TERMS];

/// All of a block.
#[inline(always)]
pub fn estimate<S: Simd<f32>>(s: S, keys: &Keys<'_>, of: &Polynomials<'_>, block: &mut Estimates<'_>) {
    let mut at = 0;
    while at + S::LANES <= block.lanes {
        estimate_vector(s, keys, of, block, at);
        at += S::LANES;
    }
}

/// The vector of lanes that starts at `at`.
#[inline(always)]
fn estimate_vector<S: Simd<f32>>(s: S, keys: &Keys<'_>, of: &Polynomials<'_>, block: &mut Estimates<'_>, at: usize) {
    let terms = if of.taylor.len() < MOST_TERMS {
        of.taylor.len()
    } else {
        MOST_TERMS
    };
    let sums = Sums {
        sums: block.sums,
        lanes: block.lanes,
        columns: keys.low.len() + 1,
        at,
        terms,
    };
    let scores = Scores::of(s, &sums, keys, norm(s, block.q_t, block.lanes, at));
    let (limit, best, share) = of.minimax.unwrap_or((-1.0, of.taylor, f32::INFINITY));
    let never = s.splat(f32::INFINITY);
    let all = All {
        taylor: scores.apply(s, &sums, keys, &spread(s, of.taylor)),
        minimax: scores.apply(s, &sums, keys, &spread(s, best)),
        hermite: scores.apply(s, &sums, keys, &scores.hermite(s, &sums, of.taylor)),
        missed: scores.missed(s, &sums, keys, of),
        share: s.select(s.less(s.splat(limit), scores.reach), never, s.splat(share)),
    };
    let seen = all.look(s, &sums, keys);
    let choice = all.choose(s, keys, &seen);
    all.hand_out(s, &sums, keys, &choice, block.out);
    put(s, scores.mean, block.mean, at);
    put(s, choice.out, block.out_bound, at);
    let (mass, off) = all.mass(s, &scores, &choice);
    put(s, mass, block.mass, at);
    put(s, off, block.mass_bound, at);
}

#[inline(always)]
fn put<S: Simd<f32>>(s: S, v: S::V, to: &mut [f32], at: usize) {
    if let Some(to) = to.get_mut(at..) {
        s.store(v, to);
    }
}

/// Coefficients that are the same for all lanes.
#[inline(always)]
fn spread<S: Simd<f32>>(s: S, coefficients: &[f32]) -> Terms<S::V> {
    let mut terms = [s.splat(0.0); MOST_TERMS];
    for (term, &c) in terms.iter_mut().zip(coefficients) {
        *term = s.splat(c);
    }
    terms
}

/// At least the Euclidean length of each query.
#[inline(always)]
fn norm<S: Simd<f32>>(s: S, q_t: &[f32], lanes: usize, at: usize) -> S::V {
    let (mut square, mut dim) = (s.splat(0.0), 0);
    for row in q_t.chunks_exact(lanes.max(1)) {
        let x = s.load(row.get(at..).unwrap_or(&[]));
        square = s.mul_add(x, x, square);
        dim += 1;
    }
    let square = s.mul_add(square, s.splat(1.0 + gamma(dim + 1)), s.splat(TINY_SQUARE));
    // From above, Newton's steps for the root stay above. The start must not depend on the other lanes.
    let mut root = s.add(square, s.splat(1.0));
    for _ in 0..7 {
        root = s.mul(s.splat(0.5), s.add(root, s.div(square, root)));
    }
    s.mul(root, s.splat(SLACK))
}

/// At least `sup |e^s - T(s)| / |s|^(degree + 1)` over `|s| <= reach`: see `moment::series::taylor_rest`.
#[inline(always)]
fn taylor_rest<S: Simd<f32>>(s: S, reach: S::V, degree: usize, next: f32) -> S::V {
    let whole = s.splat((degree + 2) as f32);
    let series = s.div(whole, s.sub(whole, reach));
    let growth = s.mul(exp(s, reach), s.splat(SLACK));
    // Where the series does not converge it is negative, infinite or NaN, and the second operand of min is what remains.
    let small = s.select(s.less(reach, whole), s.min(series, growth), growth);
    s.mul(small, s.splat(next * SLACK))
}

/// The power sums of a vector of queries.
struct Sums<'a> {
    sums: &'a [f32],
    lanes: usize,
    columns: usize,
    at: usize,
    terms: usize,
}

impl Sums<'_> {
    /// Of one power and column.
    #[inline(always)]
    fn get<S: Simd<f32>>(&self, s: S, power: usize, column: usize) -> S::V {
        s.load(
            self.sums
                .get((power * self.columns + column) * self.lanes + self.at..)
                .unwrap_or(&[]),
        )
    }

    /// Of one power of the scores themselves.
    #[inline(always)]
    fn power<S: Simd<f32>>(&self, s: S, power: usize) -> S::V {
        self.get(s, power, self.columns - 1)
    }
}

/// What the power sums say about the scores.
struct Scores<V> {
    mean: V,
    /// `|mean|`.
    away: V,
    /// At least `|s - mean|` for every key.
    reach: V,
    /// At least the sum over keys of `|s|^i`, however the signs of its parts are.
    sizes: Terms<V>,
    variance: V,
}

/// A polynomial in `s - mean`, as one in s.
struct Applied<V> {
    coefficients: Terms<V>,
    /// The sum of its values.
    mass: V,
    /// At least how far `mass` is off; that of a sum with values, by the largest of them.
    error: V,
    /// `1 / mass`.
    inverse: V,
}

impl<V: Copy> Scores<V> {
    #[inline(always)]
    fn of<S: Simd<f32, V = V>>(s: S, sums: &Sums<'_>, keys: &Keys<'_>, norm: V) -> Self {
        let inverse = s.div(s.splat(1.0), sums.power(s, 0));
        let mean = s.mul(sums.power(s, 1), inverse);
        let away = s.abs(mean);
        let reach = s.mul(s.mul_add(norm, s.splat(keys.radius), away), s.splat(SLACK));
        let (mut sizes, mut power) = ([s.splat(0.0); MOST_TERMS], s.splat(SLACK));
        for (size, &norms) in sizes.iter_mut().zip(keys.norms).take(sums.terms) {
            *size = s.mul(power, s.splat(norms));
            power = s.mul(power, norm);
        }
        let second = if sums.terms > 2 {
            s.mul(sums.power(s, 2), inverse)
        } else {
            s.splat(0.0)
        };
        let variance = s.max(s.sub(second, s.mul(mean, mean)), s.splat(0.0));
        Scores {
            mean,
            away,
            reach,
            sizes,
            variance,
        }
    }

    /// `sum of p(s - mean)`, given the terms of p.
    #[inline(always)]
    fn apply<S: Simd<f32, V = V>>(&self, s: S, sums: &Sums<'_>, keys: &Keys<'_>, p: &Terms<V>) -> Applied<V> {
        let (mut coefficients, mut sizes) = (*p, *p);
        for x in &mut sizes {
            *x = s.abs(*x);
        }
        shift(s, &mut coefficients, sums.terms, s.sub(s.splat(0.0), self.mean));
        shift(s, &mut sizes, sums.terms, self.away);
        let (mut mass, mut error) = (s.splat(0.0), s.splat(0.0));
        for (power, (&c, (&a, &size))) in coefficients
            .iter()
            .zip(sizes.iter().zip(&self.sizes))
            .take(sums.terms)
            .enumerate()
        {
            mass = s.mul_add(c, sums.power(s, power), mass);
            error = s.mul_add(a, size, error);
        }
        Applied {
            coefficients,
            mass,
            error: s.mul(error, s.splat(keys.relative * SLACK)),
            inverse: s.div(s.splat(1.0), mass),
        }
    }

    /// At least the sum over keys of `|e^(s - mean) - T(s - mean)|`: the even power sum that is at hand, and the rest.
    #[inline(always)]
    fn missed<S: Simd<f32, V = V>>(&self, s: S, sums: &Sums<'_>, keys: &Keys<'_>, of: &Polynomials<'_>) -> V {
        let degree = sums.terms.saturating_sub(1);
        let even = degree & !1;
        let mut unit = [s.splat(0.0); MOST_TERMS];
        if let Some(x) = unit.get_mut(even) {
            *x = s.splat(1.0);
        }
        let power = self.apply(s, sums, keys, &unit);
        // Recentred sums cancel: computed, they may even be negative.
        let power = s.add(s.max(power.mass, s.splat(0.0)), power.error);
        let rest = s.mul(taylor_rest(s, self.reach, degree, of.taylor_next), self.reach);
        let rest = if even == degree { rest } else { s.mul(rest, self.reach) };
        s.mul(s.mul(power, rest), s.splat(SLACK))
    }

    /// Terms of `sum over j <= degree of He_j(s) / j!`, He the Hermite polynomials orthogonal for this variance: term k is
    /// `1 / k!` times the first terms of `e^(-variance / 2)`, as many as fit below the degree.
    #[inline(always)]
    fn hermite<S: Simd<f32, V = V>>(&self, s: S, sums: &Sums<'_>, taylor: &[f32]) -> Terms<V> {
        let half = s.mul(self.variance, s.splat(-0.5));
        let mut terms = [s.splat(0.0); MOST_TERMS];
        // From the top: the term of the highest power has one summand, that two below has two.
        let (mut partial, mut last) = ([s.splat(0.0); 2], [s.splat(1.0); 2]);
        let powers = terms.iter_mut().zip(taylor).take(sums.terms).rev().enumerate();
        for (below, (term, &c)) in powers {
            let (i, parity) = (below / 2, below % 2 == 1);
            let (p, l) = if parity {
                (partial[1], last[1])
            } else {
                (partial[0], last[0])
            };
            let l = if i == 0 {
                l
            } else {
                s.mul(l, s.mul(half, s.splat(1.0 / i as f32)))
            };
            let p = s.add(p, l);
            if parity {
                (partial[1], last[1]) = (p, l);
            } else {
                (partial[0], last[0]) = (p, l);
            }
            *term = s.mul(p, s.splat(c));
        }
        terms
    }
}

/// `p(s)` into `p(s + by)`, in place.
#[inline(always)]
fn shift<S: Simd<f32>>(s: S, p: &mut Terms<S::V>, terms: usize, by: S::V) {
    for start in 0..terms {
        let mut powers = p.get_mut(start..terms).unwrap_or(&mut []).iter_mut().rev();
        let Some(&mut mut above) = powers.next() else { return };
        for x in powers {
            *x = s.mul_add(above, by, *x);
            above = *x;
        }
    }
}

impl<V: Copy> Applied<V> {
    /// `(missed + error) / mass`: infinite where there is no mass.
    #[inline(always)]
    fn off<S: Simd<f32, V = V>>(&self, s: S, missed: V, error: V) -> V {
        let off = s.mul(s.div(s.add(missed, error), self.mass), s.splat(SLACK));
        let never = s.splat(f32::INFINITY);
        // NaN, of nothing times infinity, is no promise either.
        s.select(s.less(s.splat(0.0), self.mass), s.min(off, never), never)
    }

    /// An entry of the output.
    #[inline(always)]
    fn entry<S: Simd<f32, V = V>>(&self, s: S, sums: &Sums<'_>, column: usize, low: V, high: V) -> V {
        let mut sum = s.splat(0.0);
        for (power, &c) in self.coefficients.iter().take(sums.terms).enumerate() {
            sum = s.mul_add(c, sums.get(s, power, column), sum);
        }
        // Pulled between the values; a NaN becomes the least of them.
        s.min(high, s.max(s.mul(sum, self.inverse), low))
    }
}

/// At least `|ln(1 + y)|` for `|y| <= x`.
#[inline(always)]
fn log_error<S: Simd<f32>>(s: S, x: S::V) -> S::V {
    let y = s.div(x, s.sub(s.splat(1.0), x));
    s.select(s.less(x, s.splat(0.9)), y, s.splat(f32::INFINITY))
}

/// At least `|ln(a / b)|`, rounding of the quotient included.
#[inline(always)]
fn log_ratio<S: Simd<f32>>(s: S, a: S::V, b: S::V) -> S::V {
    let ratio = s.div(a, b);
    let one = s.splat(1.0);
    let away = s.add(s.abs(s.sub(ratio, one)), s.splat(f32::EPSILON));
    let y = s.div(away, s.min(one, ratio));
    s.select(s.less(s.splat(0.0), ratio), y, s.splat(f32::INFINITY))
}

/// The three polynomials, and what is known about the first two.
struct All<V> {
    taylor: Applied<V>,
    minimax: Applied<V>,
    hermite: Applied<V>,
    missed: V,
    share: V,
}

/// Largest distances between outputs.
struct Seen<V> {
    from_taylor: V,
    from_minimax: V,
}

/// Which of them each lane gets, and its promises.
struct Choice<M, V> {
    hermite: M,
    taylor: M,
    out: V,
}

impl<V: Copy> All<V> {
    #[inline(always)]
    fn look<S: Simd<f32, V = V>>(&self, s: S, sums: &Sums<'_>, keys: &Keys<'_>) -> Seen<V> {
        let mut seen = Seen {
            from_taylor: s.splat(0.0),
            from_minimax: s.splat(0.0),
        };
        for (column, (&low, &high)) in keys.low.iter().zip(keys.high).enumerate() {
            let (low, high) = (s.splat(low), s.splat(high));
            let hermite = self.hermite.entry(s, sums, column, low, high);
            let taylor = self.taylor.entry(s, sums, column, low, high);
            let minimax = self.minimax.entry(s, sums, column, low, high);
            seen.from_taylor = s.max(s.abs(s.sub(hermite, taylor)), seen.from_taylor);
            seen.from_minimax = s.max(s.abs(s.sub(hermite, minimax)), seen.from_minimax);
        }
        seen
    }

    /// The most accurate whose promise is what is wanted, or else the surest.
    #[inline(always)]
    fn choose<S: Simd<f32, V = V>>(&self, s: S, keys: &Keys<'_>, seen: &Seen<V>) -> Choice<S::M, V> {
        let (range, never) = (s.splat(keys.range), s.splat(f32::INFINITY));
        // Both the sum of values and the mean that it is compared with are at most this times the error of the mass.
        let sizes = s.splat(2.0 * keys.value);
        let taylor = self
            .taylor
            .off(s, s.mul(range, self.missed), s.mul(sizes, self.taylor.error));
        let minimax = self.minimax.off(s, s.splat(0.0), s.mul(sizes, self.minimax.error));
        // Without a table the share is infinite, and nothing times that is no number.
        let minimax = s.min(s.mul_add(range, self.share, minimax), never);
        let hermite = s.min(s.add(taylor, seen.from_taylor), s.add(minimax, seen.from_minimax));
        let hermite = s.select(s.less(s.splat(0.0), self.hermite.mass), hermite, never);
        let good = s.less(hermite, s.splat(keys.wanted));
        let out = s.mul(s.select(good, hermite, s.min(taylor, minimax)), s.splat(SLACK));
        Choice {
            hermite: good,
            taylor: s.less(taylor, minimax),
            out: s.min(s.add(out, s.splat(keys.value * HIDDEN)), range),
        }
    }

    /// The sum of weights `e^(s - mean)`, and at least how far its logarithm is off.
    #[inline(always)]
    fn mass<S: Simd<f32, V = V>>(&self, s: S, scores: &Scores<V>, choice: &Choice<S::M, V>) -> (V, V) {
        let zero = s.splat(0.0);
        let taylor = log_error(s, self.taylor.off(s, self.missed, self.taylor.error));
        // 1 - error of the weights is (1 - share)^2 / (1 + share^2).
        let twice = s.add(self.share, self.share);
        let share = s.mul_add(self.share, self.share, s.div(twice, s.sub(s.splat(1.0), self.share)));
        let share = s.select(s.less(self.share, s.splat(0.9)), share, s.splat(f32::INFINITY));
        let minimax = s.add(share, log_error(s, self.minimax.off(s, zero, self.minimax.error)));

        let hermite = s.mul(self.hermite.mass, exp(s, s.mul(scores.variance, s.splat(0.5))));
        let from_taylor = s.add(taylor, log_ratio(s, hermite, self.taylor.mass));
        let from_minimax = s.add(minimax, log_ratio(s, hermite, self.minimax.mass));
        let mass = s.select(choice.taylor, self.taylor.mass, self.minimax.mass);
        let off = s.select(choice.taylor, taylor, minimax);
        let mass = s.select(choice.hermite, hermite, mass);
        let off = s.select(choice.hermite, s.min(from_taylor, from_minimax), off);
        (mass, s.min(s.mul(off, s.splat(SLACK)), s.splat(f32::INFINITY)))
    }

    #[inline(always)]
    fn hand_out<S: Simd<f32, V = V>>(
        &self,
        s: S,
        sums: &Sums<'_>,
        keys: &Keys<'_>,
        choice: &Choice<S::M, V>,
        out: &mut [f32],
    ) {
        for (column, (&low, &high)) in keys.low.iter().zip(keys.high).enumerate() {
            let (low, high) = (s.splat(low), s.splat(high));
            let mut entry = self.hermite.entry(s, sums, column, low, high);
            if !s.all(choice.hermite) {
                let taylor = self.taylor.entry(s, sums, column, low, high);
                let minimax = self.minimax.entry(s, sums, column, low, high);
                entry = s.select(choice.hermite, entry, s.select(choice.taylor, taylor, minimax));
            }
            put(s, entry, out, column * sums.lanes + sums.at);
        }
    }
}

#[cfg(test)]
mod tests;

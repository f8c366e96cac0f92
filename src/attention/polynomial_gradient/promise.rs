//! How far a row's gradient is from that of exact attention.
//!
//! ```text
//! exact       dq  = tau sum P_j (g_j - mean of g by P) x_j,      P = e^s / sum e^s,   g_j = <d_out, v_j>,   x_j = k_j - c
//! here        dq~ = tau sum (p'(s_j) / D) (g_j - mean of g by p) x_j,      D = sum p(s_j)
//!
//! powers      M_j >= sum |s|^j: read off the state where j is even, with its error; below, times the reach, where odd
//! missed      S  >= sum |p(s) - e^s|       Taylor: M_(g+1) taylor_rest + u sum c_j M_j       minimax: D error / (1 - error)
//! slopes      S' >= sum |p'(s) - e^s|      sum |(j+1) c_(j+1) - c_j| M_j + S
//! shares      m = S / D,  m' = S' / D,  m < 1
//! spread      G  >= the largest g_j - g_i: sum over columns of |d_out| (range of the values)
//!
//! |dq~ - dq| <= tau K G ((1 + m) m' / (1 - m) + m) + |dq~| m / (1 - m),      K >= |x_j|
//! ```
//!
//! as `D~ dq~ - D dq = tau sum (p' - e) (g - mean~) x + tau sum e (mean - mean~) x`, where the means differ by at most `G m`
//! (lemma L2) and the true one lies among the g, and `D >= D~ (1 - m)`. Positive weights are not needed.
//!
//! Rounding: sums by [`Summary::error`], everything after them counted here, and the way back by [`Summary::reverse_error`].

use crate::bound::{gamma, product_up, sum_up, up, UNIT};
use crate::kernels;
use crate::math;
use crate::moment::series::{taylor_rest, MOST_DEGREE};
use crate::moment::Summary;

/// The polynomial in place of e^s.
#[derive(Clone, Copy, Debug)]
pub(super) struct Series {
    /// Constant term first, as many as there are degrees and one more.
    pub coefficients: &'static [f32],
    /// Reach and relative error of a minimax polynomial; Taylor's otherwise.
    pub minimax: Option<(f32, f32)>,
}

/// What a row's promise is made from.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// Length of the query times tau rho, at least.
    pub norm: f32,
    /// Computed D, `<out, d_out>`, and the largest number of the output.
    pub mass: f32,
    pub delta: f32,
    pub most: f32,
    /// Sum of the magnitudes of d_out, and G.
    pub size: f32,
    pub spread: f32,
    /// Length of the computed dq, at least.
    pub length: f32,
    /// Whether d_out is itself the output less a target, and so as far off as that.
    pub aimed: bool,
}

impl Row {
    pub(super) const NONE: Row = Row {
        norm: 0.0,
        mass: 0.0,
        delta: 0.0,
        most: 0.0,
        size: 0.0,
        spread: 0.0,
        length: 0.0,
        aimed: false,
    };
}

/// What does not depend on the row.
pub(super) struct Promise<'a> {
    summary: Summary<'a>,
    series: Series,
    tau: f32,
    /// Largest magnitude of a value; the sum of the ranges of the columns, and the largest range.
    value: f32,
    ranges: f32,
    range: f32,
}

/// `sum of |c_j| f(j)`, upwards.
fn weighted(coefficients: &[f32], mut f: impl FnMut(usize) -> f32) -> f32 {
    let terms = coefficients.iter().enumerate();
    terms.fold(0.0, |sum, (j, c)| sum_up(sum, product_up(c.abs(), f(j))))
}

/// At least e^x, for x >= 0; infinite beyond about 69.
fn exp_up(x: f32) -> f32 {
    let down = kernels::probability_of(-x * core::f32::consts::LOG2_E);
    // The product is off by 2 u x log2 e, which is below 1e-4 wherever the power is not cut off.
    product_up(up(1.0 / down), 1.0001)
}

impl<'a> Promise<'a> {
    pub(super) fn new(summary: Summary<'a>, series: Series, tau: f32) -> Self {
        let columns = || summary.low().iter().zip(summary.high());
        let ranges = || columns().map(|(low, high)| up(high - low));
        Promise {
            summary,
            series,
            tau: tau.abs(),
            value: columns().fold(0.0, |most, (low, high)| most.max(low.abs()).max(high.abs())),
            ranges: ranges().fold(0.0, sum_up),
            range: ranges().fold(0.0, f32::max),
        }
    }

    /// The largest that the gradient of a row can be: `tau K G`.
    pub(super) fn unit(&self, spread: f32) -> f32 {
        product_up(product_up(self.tau, self.radius()), spread)
    }

    fn radius(&self) -> f32 {
        product_up(self.summary.reach(), self.summary.scale())
    }

    /// M_0 to M_(g+1).
    fn sums(&self, row: &Row, powers: &[f32], reach: f32) -> [f32; MOST_DEGREE + 2] {
        let degree = self.series.coefficients.len().saturating_sub(1);
        let mut sums = [f32::INFINITY; MOST_DEGREE + 2];
        let (mut below, mut power) = (f32::INFINITY, 1.0f32);
        for (j, to) in sums.iter_mut().enumerate().take(degree + 2) {
            let mut sum = product_up(below, reach);
            if j <= degree {
                sum = sum.min(product_up(power, self.summary.power(j)));
            }
            if let (Some(&n), true) = (powers.get(j), j % 2 == 0) {
                sum = sum.min(sum_up(n.max(0.0), self.summary.error(j, row.norm, 1.0)));
            }
            (*to, below, power) = (sum, sum, product_up(power, row.norm));
        }
        sums
    }

    /// At least `|dq~ - dq|` of what was computed, f32 rounding included; infinite where nothing can be said.
    /// `powers` are the computed sums of the powers of the scores.
    pub(super) fn of(&self, row: &Row, powers: &[f32]) -> f32 {
        let Series {
            coefficients: c,
            minimax,
        } = self.series;
        let reach = product_up(row.norm, self.summary.reach());
        let sums = self.sums(row, powers, reach);
        let sum = |j: usize| sums.get(j).copied().unwrap_or(f32::INFINITY);
        // Rounding of the sum of all degrees, for the mass and for a column of values.
        let chain = gamma(2 * c.len());
        let off = |value: f32| {
            weighted(c, |j| {
                let own = self.summary.error(j, row.norm, value);
                sum_up(own, product_up(chain, sum_up(product_up(value, sum(j)), own)))
            })
        };
        let (mass_off, value_off) = (off(1.0), off(self.value));
        let mass = row.mass - mass_off;
        // One rounding of the difference.
        let mass = mass - 2.0 * UNIT * mass.abs();
        if !(mass > 0.0 && reach.is_finite()) {
            return f32::INFINITY;
        }
        let over = |x: f32| up(x / mass);
        let rounding = self.rounding(row, &sums, [mass, mass_off, value_off]);

        let missed = match minimax {
            Some((most, _)) if reach > most => return f32::INFINITY,
            Some((_, error)) => {
                let error = up(up(error) / (1.0 - up(error)));
                product_up(error, sum_up(row.mass, mass_off))
            }
            None => {
                let rest = taylor_rest(c.len().saturating_sub(1), reach, exp_up(reach));
                sum_up(product_up(rest, sum(c.len())), product_up(UNIT, weighted(c, sum)))
            }
        };
        let slopes = c.iter().enumerate().fold(missed, |total, (j, &own)| {
            let next = c.get(j + 1).copied().unwrap_or(0.0) * (j + 1) as f32;
            let difference = up((next - own).abs() + 4.0 * UNIT * (next.abs() + own.abs()));
            sum_up(total, product_up(difference, sum(j)))
        });
        let (missed, slopes) = (over(missed), over(slopes));
        let left = 1.0 - up(missed);
        if left.is_nan() || left <= 0.0 {
            return f32::INFINITY;
        }
        let shares = sum_up(up(product_up(up(1.0 + missed), slopes) / left), missed);
        let length = product_up(up(missed / left), sum_up(row.length, rounding));
        let mut bound = sum_up(product_up(self.unit(row.spread), shares), sum_up(length, rounding));
        if row.aimed {
            // The output is off by its share of the range, by rounding, and the difference is rounded.
            let out = sum_up(
                product_up(self.range, missed),
                self.out_rounding(row, [mass, mass_off, value_off]),
            );
            let out = sum_up(out, product_up(2.0 * UNIT, row.size));
            bound = sum_up(bound, self.unit(product_up(self.ranges, out)));
        }
        if bound >= 0.0 {
            bound
        } else {
            f32::INFINITY
        }
    }

    /// What rounding does to an output: `(E_N + |o| E_D) / (D - E_D)`, and that of the quotient.
    fn out_rounding(&self, row: &Row, [mass, mass_off, value_off]: [f32; 3]) -> f32 {
        let most = product_up(row.most, up(1.0 + gamma(3)));
        sum_up(
            up(sum_up(value_off, product_up(most, mass_off)) / mass),
            product_up(gamma(2), most),
        )
    }

    /// What rounding does to dq: to what is multiplied with the sums, and on the way back.
    fn rounding(&self, row: &Row, sums: &[f32], offs: [f32; 3]) -> f32 {
        let [mass, mass_off, _] = offs;
        let columns = self.summary.shape().value_dim;
        let out = self.out_rounding(row, offs);
        let delta_off = product_up(row.size, sum_up(out, product_up(gamma(columns + 2), row.most)));
        // Of 1 / D, two roundings of quotient and product included.
        let inverse = up(1.0 / mass);
        let share = product_up(inverse, sum_up(up(mass_off / mass), gamma(3)));
        let delta = row.delta.abs();
        let u = sum_up(
            product_up(product_up(self.value, row.size), share),
            sum_up(product_up(delta_off, inverse), product_up(delta, share)),
        );
        let tiny = product_up(
            columns as f32 + 2.0,
            product_up(up(self.value + 1.0), f32::from_bits(2)),
        );
        let c = self.series.coefficients;
        let slopes = c.iter().enumerate().skip(1).fold(0.0, |total, (j, c)| {
            let sum = sums.get(j - 1).copied().unwrap_or(f32::INFINITY);
            sum_up(total, product_up(product_up(j as f32, c.abs()), sum))
        });
        let by_u = product_up(product_up(self.tau, self.radius()), product_up(slopes, sum_up(u, tiny)));

        let size = product_up(inverse, sum_up(product_up(self.value, row.size), delta));
        let size = product_up(size, up(1.0 + gamma(4)));
        let back = c.iter().enumerate().skip(1).fold(0.0, |total, (j, c)| {
            sum_up(
                total,
                product_up(c.abs(), self.summary.reverse_error(j, row.norm, size)),
            )
        });
        let back = product_up(product_up(self.tau, self.summary.scale()), back);
        sum_up(sum_up(by_u, back), product_up(2.0 * UNIT, row.length))
    }
}

/// At least the length of a vector.
pub(super) fn length(x: impl Iterator<Item = f32>) -> f32 {
    let (mut sum, mut count) = (0.0f32, 0u64);
    x.for_each(|x| (sum, count) = (sum + x * x, count + 1));
    let room = 1.0 + f32::EPSILON * (math::nearest(count) + 8.0);
    // Squares that underflow: one of 2^-126 makes up for many.
    up(math::sqrt(up(sum + f32::MIN_POSITIVE))) * room
}

//! Polynomials in place of e^s, and what they leave out.

use super::minimax::{Minimax, TABLE};
use crate::bound::{product_up, sum_up, up};

/// The largest degree of a polynomial.
pub const MOST_DEGREE: usize = 16;

/// `1 / j!`, rounded to nearest.
pub const TAYLOR: [f32; MOST_DEGREE + 1] = {
    let mut c = [1.0f32; MOST_DEGREE + 1];
    let (mut j, mut factorial) = (1, 1u64);
    while j <= MOST_DEGREE {
        factorial *= j as u64;
        // 16! has 45 bits: exact in f64, so this rounds twice, which no entry notices (see the tests).
        c[j] = (1.0 / factorial as f64) as f32;
        j += 1;
    }
    c
};

/// At least `sup |e^s - T(s)| / |s|^(degree + 1)` over `|s| <= reach`, T the Taylor polynomial: `1 / (degree + 1)!` times the
/// smaller of `e^reach` and the geometric series that the rest is below. `exp` is at least `e^reach`.
#[must_use]
pub fn taylor_rest(degree: usize, reach: f32, exp: f32) -> f32 {
    let next = degree.saturating_add(1);
    let first = match TAYLOR.get(next) {
        Some(&c) => up(c),
        None => TAYLOR.last().map_or(1.0, |&c| up(c)),
    };
    let room = (next + 1) as f32 - reach;
    let series = if room > 0.0 {
        up(up((next + 1) as f32) / room)
    } else {
        f32::INFINITY
    };
    product_up(first, if series < exp { up(series) } else { exp })
}

/// The best polynomial of the table for `|s| <= reach` in the sense of relative error: the one for the smallest reach that is
/// large enough. Its weights are positive, and off by a factor between `1 - error` and `1 + error`.
#[must_use]
pub fn minimax(degree: usize, reach: f32) -> Option<&'static Minimax> {
    TABLE.iter().find(|p| p.degree() == degree && reach <= p.reach)
}

/// The smallest degree whose [`minimax`] polynomial keeps the output of attention within `tolerance` times the range of the
/// values, for scores of at most `reach`, with its promise; `None` if the table has none.
#[must_use]
pub fn degree_for(reach: f32, tolerance: f32) -> Option<(usize, f32)> {
    (1..=MOST_DEGREE).find_map(|degree| {
        let share = minimax(degree, reach)?.share();
        (share <= tolerance).then_some((degree, share))
    })
}

/// At least `sup |e^s - C(s)|` over `|s| <= reach` for the truncated Chebyshev series C of that degree:
/// `2 sum over k > degree of I_k(reach)`, attained at the right end.
#[must_use]
pub fn chebyshev_rest(degree: usize, reach: f32) -> f32 {
    // I_k(b) = (b/2)^k / k! sum over m of (b/2)^(2m) k! / (m! (m+k)!), each sum below exp((b/2)^2 / (k + 1)).
    let half = up(reach * 0.5);
    let mut lead = 1.0f32;
    let mut sum = 0.0f32;
    for k in 1..=degree.saturating_add(64) {
        lead = product_up(lead, up(half / k as f32));
        if k > degree {
            sum = sum_up(sum, product_up(lead, bessel_sum(half, k)));
        }
        if lead == 0.0 || (k > degree && lead < sum * 1e-9) {
            break;
        }
    }
    product_up(2.0, product_up(sum, 1.0 + 1e-6))
}

/// `sum over m of (b/2)^(2m) k! / (m! (m+k)!)`.
fn bessel_sum(half: f32, k: usize) -> f32 {
    let square = product_up(half, half);
    let (mut term, mut sum) = (1.0f32, 1.0f32);
    for m in 1..200 {
        term = product_up(term, up(square / (m * (m + k)) as f32));
        sum = sum_up(sum, term);
        if term < sum * 1e-9 {
            break;
        }
    }
    sum
}

/// The truncated Chebyshev series of e^s on `|s| <= reach`, as a polynomial in s; coefficients up to `degree`.
#[must_use]
pub fn chebyshev(degree: usize, reach: f32) -> [f32; MOST_DEGREE + 1] {
    let mut sum = [0.0f64; MOST_DEGREE + 1];
    // T_0 = 1, T_1 = x, T_(k+1) = 2 x T_k - T_(k-1), x = s / reach.
    let (mut before, mut now) = ([0.0f64; MOST_DEGREE + 1], [0.0f64; MOST_DEGREE + 1]);
    if let Some(first) = now.first_mut() {
        *first = 1.0;
    }
    let half = f64::from(reach) * 0.5;
    let mut lead = 1.0;
    for k in 0..=degree.min(MOST_DEGREE) {
        if k > 0 {
            lead *= half / k as f64;
        }
        let weight = if k == 0 { 1.0 } else { 2.0 } * lead * bessel_sum_f64(half, k);
        sum.iter_mut().zip(&now).for_each(|(s, t)| *s += weight * t);
        let mut next = [0.0f64; MOST_DEGREE + 1];
        let factor = if k == 0 { 1.0 } else { 2.0 };
        next.iter_mut().skip(1).zip(&now).for_each(|(n, t)| *n = factor * t);
        next.iter_mut().zip(&before).for_each(|(n, t)| *n -= t);
        (before, now) = (now, next);
    }
    let (mut coefficients, mut power) = ([0.0f32; MOST_DEGREE + 1], 1.0);
    for (c, s) in coefficients.iter_mut().zip(sum) {
        *c = (s * power) as f32;
        power /= f64::from(reach);
    }
    coefficients
}

fn bessel_sum_f64(half: f64, k: usize) -> f64 {
    let (mut term, mut sum) = (1.0, 1.0);
    for m in 1..200 {
        term *= half * half / (m * (m + k)) as f64;
        sum += term;
    }
    sum
}

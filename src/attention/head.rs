//! Exact attention for one head and nothing else: what firmware has room for.

use super::block::{all_finite, load};
use super::outputs::Sums;
use super::rules::{parameter, scale2};
use crate::error::Error;
use crate::kernels::{self, Lanes, KEY_RUN};
use crate::report::Report;
use crate::scratch::{Need, Scratch};
use crate::simd::Isa;
use crate::view::{MatMut, MatRef};

/// Exact attention for one head: `out = softmax(scale q k^T) v`, causal if asked for.
///
/// The kernels, the order of operations and hence the bits are those of [`Exact`](super::Exact) with the same scale and
/// the same causal rule. What is missing are its other rules and outputs, and with them most of its code and stack.
///
/// Cost: `2 (dim + value_dim)` flops and one exponential per query and key. Keys and values are read once per block of
/// queries, so where they are larger than a cache `Exact` is faster. Scratch: [`Head::need`].
///
/// ```
/// use subquad::{attention::Head, MatMut, MatRef, Scratch};
/// # fn main() -> Result<(), subquad::Error> {
/// let (q, k, v) = ([1.0, 0.0], [1.0, 0.0, 0.0, 1.0], [1.0, 2.0]);
/// let (q, k, v) = (MatRef::new(&q, 1, 2)?, MatRef::new(&k, 2, 2)?, MatRef::new(&v, 2, 1)?);
/// let mut work = [core::mem::MaybeUninit::uninit(); Head::need_of(2, 2, 1).bytes()];
/// let mut out = [0.0];
/// let head = Head::new(q, k, v)?.with_scale(1.0)?;
/// let report = head.forward(MatMut::new(&mut out, 1, 1)?, &mut Scratch::new(&mut work))?;
/// assert!((out[0] - 1.2689).abs() < 1e-4 && report.masked_rows == 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    q: MatRef<'a, f32>,
    k: MatRef<'a, f32>,
    v: MatRef<'a, f32>,
    scale: Option<f32>,
    /// Query `i` sees the first `i + 1 + ahead - behind` keys; the largest number is more than there are.
    ahead: usize,
    behind: usize,
    isa: Isa,
}

impl<'a> Head<'a> {
    /// Every query sees every key, the scale is 1 / sqrt(dim), and the best back end runs. [`Error::Shape`] if the views
    /// do not fit each other.
    pub fn new(q: MatRef<'a, f32>, k: MatRef<'a, f32>, v: MatRef<'a, f32>) -> Result<Self, Error> {
        if k.cols() != q.cols() || v.rows() != k.rows() {
            return Err(Error::Shape);
        }
        Ok(Head {
            q,
            k,
            v,
            scale: None,
            ahead: usize::MAX,
            behind: 0,
            isa: Isa::best(),
        })
    }

    /// Scores are `scale * q.k`; [`Error::Parameter`] unless finite and not negative.
    pub fn with_scale(mut self, scale: f32) -> Result<Self, Error> {
        parameter(scale)?;
        self.scale = Some(scale);
        Ok(self)
    }

    /// Query `i` sees no key beyond number `offset + i`: `offset` keys lie before query 0. It may be negative.
    #[must_use]
    pub fn with_causal(mut self, offset: i64) -> Self {
        let size = usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX);
        (self.ahead, self.behind) = if offset < 0 { (0, size) } else { (size, 0) };
        self
    }

    /// Forces a back end.
    #[must_use]
    pub const fn with_isa(mut self, isa: Isa) -> Self {
        self.isa = isa;
        self
    }

    /// Scratch of [`forward`](Head::forward).
    #[must_use]
    pub const fn need(&self) -> Need {
        let lanes = kernels::block_lanes(self.isa);
        Panel::need(lanes, self.k.rows(), self.k.cols(), self.v.cols())
    }

    /// Enough scratch for these sizes, any number of queries and any back end of this build: for memory that is set
    /// aside when the program is compiled.
    #[must_use]
    pub const fn need_of(keys: usize, dim: usize, value_dim: usize) -> Need {
        Panel::need(kernels::most_block_lanes(), keys, dim, value_dim)
    }

    /// Runs.
    ///
    /// Errors, before anything is written: [`Error::Shape`] if `out` is not queries x value_dim, [`Error::Short`] if the
    /// scratch is less than [`need`](Head::need).
    pub fn forward(&self, mut out: MatMut<'_, f32>, scratch: &mut Scratch<'_>) -> Result<Report, Error> {
        self.run(&mut out, scratch)
    }

    /// [`forward`](Head::forward), in the caller's own stack frame.
    #[inline(always)]
    pub(crate) fn run(&self, out: &mut MatMut<'_, f32>, scratch: &mut Scratch<'_>) -> Result<Report, Error> {
        if out.rows() != self.q.rows() || out.cols() != self.v.cols() {
            return Err(Error::Shape);
        }
        let lanes = kernels::block_lanes(self.isa);
        let (keys, dim, value_dim) = (self.k.rows(), self.k.cols(), self.v.cols());
        let mut panel = Panel::take(scratch, lanes, keys, dim, value_dim)?;
        let mut report = Report::new(self.isa);
        let scale = scale2(self.scale, dim);
        for first in (0..self.q.rows()).step_by(lanes) {
            let used = lanes.min(self.q.rows() - first);
            if used < lanes {
                panel.q_t.fill(0.0);
            }
            for lane in 0..used {
                load(panel.q_t, lanes, lane, self.q.row(first + lane), scale);
            }
            panel.max.fill(kernels::NOTHING);
            // As in `Block::run`: with the last reference known from the start there is nothing to rescale.
            let mut passes = 0;
            while passes < 2 {
                passes += 1;
                if !self.pass(&mut panel, first, used) {
                    break;
                }
            }
            report.repeated_blocks += passes - 1;
            for lane in 0..used {
                panel.finish(lanes, lane, out.row(first + lane), &mut report);
            }
        }
        Ok(report)
    }

    /// One pass of a panel over its keys, from the references in `max`; whether it should be repeated.
    #[inline(always)]
    fn pass(&self, panel: &mut Panel<'_>, first: usize, used: usize) -> bool {
        let lanes = kernels::block_lanes(self.isa);
        panel.sum.fill(0.0);
        panel.out.fill(0.0);
        panel.low.fill(f32::INFINITY);
        // Keys that all lanes see, and that the last one sees.
        let (whole, last) = (self.seen(first), self.seen(first + used - 1));
        let (mut again, mut near, mut start) = (false, kernels::weighs_near(self.isa), 0);
        while start < last {
            // A run ends where `Exact` ends it: at multiples of its length, and where it ceases to be whole.
            let mut end = last.min((start - start % KEY_RUN).saturating_add(KEY_RUN));
            if start < whole && whole < end {
                end = whole;
            }
            // A single lane sees all that it reads.
            let masked = lanes > 1 && end > whole;
            let size = (end - start) * lanes;
            let keys = self.k.row_range(start..end);
            panel.score(self.isa, keys, size);
            if masked {
                for lane in 0..used {
                    let seen = self.seen(first + lane).saturating_sub(start);
                    hide(panel.tile(size), lanes, lane, seen);
                }
            }
            let mut weighed = None;
            if near && !masked {
                let (tile, lanes) = panel.softmax(size);
                weighed = kernels::weigh_near(self.isa, tile, lanes);
                if weighed.is_none() {
                    near = false;
                    panel.score(self.isa, keys, size);
                }
            }
            again |= match weighed {
                Some(again) => again,
                None => {
                    let (tile, lanes) = panel.softmax(size);
                    kernels::weigh(self.isa, tile, lanes, masked)
                }
            };
            let values = if masked {
                kernels::masked_values
            } else {
                kernels::values
            };
            let tile = panel.tile.get(..size).unwrap_or(&[]);
            values(self.isa, tile, self.v.row_range(start..end), panel.factor, panel.out);
            start = end;
        }
        again | !all_finite(panel.out)
    }

    /// How many keys query `i` sees, from the first on.
    fn seen(&self, i: usize) -> usize {
        let seen = i.saturating_add(1).saturating_add(self.ahead);
        seen.saturating_sub(self.behind).min(self.k.rows())
    }
}

/// Working memory of one panel of lanes; slices are `[...][lane]`, cut from one piece of scratch.
struct Panel<'s> {
    /// Queries, times scale and log2 e.
    q_t: &'s mut [f32],
    /// Weighted sums of values.
    out: &'s mut [f32],
    /// Softmax references.
    max: &'s mut [f32],
    /// Sums of weights.
    sum: &'s mut [f32],
    /// Lowest live scores.
    low: &'s mut [f32],
    factor: &'s mut [f32],
    /// Scores, then weights, of a run of keys.
    tile: &'s mut [f32],
}

impl<'s> Panel<'s> {
    const fn need(lanes: usize, keys: usize, dim: usize, value_dim: usize) -> Need {
        Need::NONE.and::<f32>(Self::floats(lanes, keys, dim, value_dim))
    }

    const fn floats(lanes: usize, keys: usize, dim: usize, value_dim: usize) -> usize {
        let run = if keys < KEY_RUN { keys } else { KEY_RUN };
        dim.saturating_add(value_dim)
            .saturating_add(run + 4)
            .saturating_mul(lanes)
    }

    #[inline(always)]
    fn take(scratch: &mut Scratch<'s>, lanes: usize, keys: usize, dim: usize, value_dim: usize) -> Result<Self, Error> {
        scratch.check(Self::need(lanes, keys, dim, value_dim))?;
        let all = scratch.take(Self::floats(lanes, keys, dim, value_dim))?;
        // Nothing is short: `floats` is the sum.
        let (q_t, all) = all.split_at_mut_checked(dim * lanes).ok_or(Error::Short)?;
        let (out, all) = all.split_at_mut_checked(value_dim * lanes).ok_or(Error::Short)?;
        let (max, all) = all.split_at_mut_checked(lanes).ok_or(Error::Short)?;
        let (sum, all) = all.split_at_mut_checked(lanes).ok_or(Error::Short)?;
        let (low, all) = all.split_at_mut_checked(lanes).ok_or(Error::Short)?;
        let (factor, tile) = all.split_at_mut_checked(lanes).ok_or(Error::Short)?;
        Ok(Panel {
            q_t,
            out,
            max,
            sum,
            low,
            factor,
            tile,
        })
    }

    fn score(&mut self, isa: Isa, keys: MatRef<'_, f32>, size: usize) {
        kernels::scores(isa, self.q_t, keys, self.tile.get_mut(..size).unwrap_or(&mut []));
    }

    /// The first numbers of the tile.
    fn tile(&mut self, size: usize) -> &mut [f32] {
        self.tile.get_mut(..size).unwrap_or(&mut [])
    }

    fn softmax(&mut self, size: usize) -> (&mut [f32], Lanes<'_>) {
        let lanes = Lanes {
            max: self.max,
            sum: self.sum,
            low: self.low,
            factor: self.factor,
        };
        (self.tile.get_mut(..size).unwrap_or(&mut []), lanes)
    }

    /// A lane that has seen all its keys becomes a row of the output.
    fn finish(&self, lanes: usize, lane: usize, row: &mut [f32], report: &mut Report) {
        let number = |x: &[f32]| x.get(lane).copied().unwrap_or(0.0);
        let sums = Sums {
            max: number(self.max),
            sum: number(self.sum),
            low: number(self.low),
            values: self.out,
            lanes,
            lane,
        };
        report.count(sums.sum != 0.0, sums.finish(row));
    }
}

/// The scores of a lane that sees the first `seen` of these keys: minus infinity where it does not, and NaN where a score
/// is minus infinity by itself, as [`kernels::add_bias`] has it.
fn hide(tile: &mut [f32], lanes: usize, lane: usize, seen: usize) {
    let column = tile.get_mut(lane..).unwrap_or(&mut []).iter_mut().step_by(lanes);
    for (j, x) in column.enumerate() {
        if j >= seen {
            *x = f32::NEG_INFINITY;
        } else if *x == f32::NEG_INFINITY {
            *x = f32::NAN;
        }
    }
}

//! An order of keys in which neighbours are alike.

use crate::attention::block::{load, MOST_LANES};
use crate::error::Error;
use crate::kernels;
use crate::math;
use crate::scratch::{Need, Scratch};
use crate::simd::Isa;
use crate::view::MatRef;

/// Rounds of Lloyd's algorithm: later ones move few keys.
const ROUNDS: usize = 8;

/// Scratch of [`cluster`].
#[must_use]
pub const fn cluster_need(keys: usize, dim: usize, means: usize) -> Need {
    Need::NONE
        .and::<f32>(means.saturating_mul(dim))
        .and::<f32>(means.saturating_mul(dim))
        .and::<f32>(means)
        .and::<f32>(dim.saturating_mul(MOST_LANES))
        .and::<f32>(means.saturating_mul(MOST_LANES))
        .and::<u32>(means)
        .and::<u32>(keys)
}

/// Writes an order of the keys for an [`Index`](super::Index): those of one of so many k-means clusters (8 rounds from keys
/// at random) after those of the nearest one before; inside a cluster as they came. One mean per block is a good choice.
///
/// Any order gives right answers, this one gives small blocks. Cost: `18 means dim` flops per key, `2 means^2 dim` once.
///
/// Errors, before anything is written: [`Error::Shape`] unless `order` has a place per key, [`Error::Parameter`] for no mean,
/// more than keys, or more keys than u32 can number, [`Error::NonFinite`] and [`Error::Range`] as [`Index`](super::Index) has
/// them, [`Error::Short`].
pub fn cluster(k: MatRef<'_, f32>, means: usize, order: &mut [u32], scratch: &mut Scratch<'_>) -> Result<(), Error> {
    if order.len() != k.rows() {
        return Err(Error::Shape);
    }
    if means == 0 || means > k.rows() || u32::try_from(k.rows()).is_err() {
        return Err(Error::Parameter);
    }
    scratch.check(cluster_need(k.rows(), k.cols(), means))?;
    super::index::check(k)?;
    let mut scratch = scratch.scope();
    let dim = k.cols();
    let mut work = Lloyd {
        means: scratch.take(means * dim)?,
        sums: scratch.take(means * dim)?,
        halves: scratch.take(means)?,
        k_t: scratch.take(dim * MOST_LANES)?,
        products: scratch.take(means * MOST_LANES)?,
        counts: scratch.take(means)?,
    };
    let labels: &mut [u32] = scratch.take(k.rows())?;
    for (i, mean) in work.means.chunks_exact_mut(dim.max(1)).enumerate() {
        // Keys in a fixed, random-looking choice: keys that repeat with a period would deceive an even one.
        let start = crate::rng::hash(1, 0, i as u64) % (k.rows() as u64).max(1);
        let row = k.row(start as usize);
        mean.iter_mut().zip(row).for_each(|(to, &x)| *to = x);
    }
    for _ in 0..ROUNDS {
        work.assign(k, means, labels)?;
        work.average(k, labels);
    }
    work.assign(k, means, labels)?;
    // Counts become first places; keys take theirs.
    work.chain(dim);
    for (key, &label) in (0u32..).zip(labels.iter()) {
        if let Some(place) = work.counts.get_mut(label as usize) {
            if let Some(to) = order.get_mut(*place as usize) {
                *to = key;
            }
            *place += 1;
        }
    }
    Ok(())
}

struct Lloyd<'s> {
    means: &'s mut [f32],
    sums: &'s mut [f32],
    /// Half the squared lengths of the means.
    halves: &'s mut [f32],
    k_t: &'s mut [f32],
    products: &'s mut [f32],
    counts: &'s mut [u32],
}

impl Lloyd<'_> {
    /// The nearest mean of every key, and how many keys each mean has.
    fn assign(&mut self, k: MatRef<'_, f32>, means: usize, labels: &mut [u32]) -> Result<(), Error> {
        let (isa, dim) = (Isa::best(), k.cols());
        let lanes = kernels::block_lanes(isa).max(1);
        self.counts.fill(0);
        for (half, mean) in self.halves.iter_mut().zip(self.means.chunks_exact(dim.max(1))) {
            *half = mean.iter().fold(0.0, |sum, x| sum + 0.5 * x * x);
        }
        let k_t = self.k_t.get_mut(..dim * lanes).ok_or(Error::Short)?;
        let products = self.products.get_mut(..means * lanes).ok_or(Error::Short)?;
        let centres = MatRef::new(self.means, means, dim)?;
        for (part, labels) in labels.chunks_mut(lanes).enumerate() {
            for lane in 0..labels.len() {
                load(k_t, lanes, lane, k.row(part * lanes + lane), 1.0);
            }
            kernels::scores(isa, k_t, centres, products);
            for (lane, label) in labels.iter_mut().enumerate() {
                let column = products.chunks_exact(lanes).filter_map(|row| row.get(lane));
                let nearest = column.zip(&*self.halves).map(|(x, half)| x - half);
                let first = (0u32, f32::NEG_INFINITY);
                let (best, _) = (0u32..)
                    .zip(nearest)
                    .fold(first, |best, at| if at.1 > best.1 { at } else { best });
                *label = best;
                if let Some(count) = self.counts.get_mut(best as usize) {
                    *count += 1;
                }
            }
        }
        Ok(())
    }

    /// First places instead of counts, every cluster followed by the nearest of those left: blocks that hold the end of
    /// one and the start of the next stay small.
    fn chain(&mut self, dim: usize) {
        let (mut cluster, mut next) = (0, 0);
        let row = |i: usize| i * dim..(i + 1) * dim;
        for _ in 0..self.halves.len() {
            if let Some(count) = self.counts.get_mut(cluster) {
                (*count, next) = (next, next + *count);
            }
            // It is never the nearest again.
            if let Some(half) = self.halves.get_mut(cluster) {
                *half = f32::INFINITY;
            }
            let own = self.means.get(row(cluster)).unwrap_or_default();
            let mut nearest = (0, f32::NEG_INFINITY);
            for (i, (mean, half)) in self.means.chunks_exact(dim.max(1)).zip(&*self.halves).enumerate() {
                let near = own.iter().zip(mean).fold(-half, |sum, (x, y)| sum + x * y);
                if near > nearest.1 {
                    nearest = (i, near);
                }
            }
            cluster = nearest.0;
        }
    }

    /// Means of their keys; one without keys stays where it is.
    fn average(&mut self, k: MatRef<'_, f32>, labels: &[u32]) {
        let dim = k.cols();
        self.sums.fill(0.0);
        for (i, &label) in labels.iter().enumerate() {
            let start = label as usize * dim;
            let sum = self.sums.get_mut(start..start + dim).unwrap_or_default();
            sum.iter_mut().zip(k.row(i)).for_each(|(sum, x)| *sum += x);
        }
        let sums = self.sums.chunks_exact(dim.max(1)).zip(&*self.counts);
        for (mean, (sum, &count)) in self.means.chunks_exact_mut(dim.max(1)).zip(sums) {
            if count > 0 {
                let share = 1.0 / math::nearest(u64::from(count));
                mean.iter_mut().zip(sum).for_each(|(to, x)| *to = x * share);
            }
        }
    }
}

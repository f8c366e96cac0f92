//! What is kept about blocks of keys, so that most of them need not be read.

use crate::bound::{gamma, product_up, sum_up, up};
use crate::error::Error;
use crate::kernels;
use crate::math;
use crate::simd::Isa;
use crate::view::MatRef;

/// Summaries of blocks of consecutive keys, in the caller's memory: `3 dim + 3` numbers per block, and `2 value_dim`.
///
/// Blocks close as keys come in ([`extend`](Index::extend)); what is not yet a whole block is read by every query. Which
/// keys share a block is the order of the keys, and decides more than anything else: attention without a causal rule does
/// not see the order, so put keys that are alike next to each other first (see [`cluster`](super::cluster)).
///
/// Cost of a block: `(size / 2 + 6) size dim` flops, once.
#[derive(Debug)]
pub struct Index<'m> {
    dim: usize,
    size: usize,
    blocks: usize,
    /// Lowest and highest value of every column so far.
    ranges: &'m mut [f32],
    records: &'m mut [f32],
}

/// Numbers of a record besides its centre and box: radius, spread, slack.
const SCALARS: usize = 3;

/// Room for squares that underflow, in every length.
pub(super) const LEAST: f32 = f32::from_bits((127 - 60) << 23);

/// What a record says about distances inside a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// At least the distance of any key from the mean of the block.
    pub radius: f32,
    /// At least the largest eigenvalue of the covariance.
    pub spread: f32,
    /// Times the length of a query: how far its computed product with the centre can be off from that with the mean.
    pub slack: f32,
}

impl<'m> Index<'m> {
    /// An empty index with blocks of 16, 32 or 64 keys. [`Error::Parameter`] for other sizes, [`Error::Short`] for less
    /// memory than that of a block, see [`len`](Index::len).
    pub fn new(dim: usize, value_dim: usize, size: usize, memory: &'m mut [f32]) -> Result<Self, Error> {
        if !matches!(size, 16 | 32 | 64) {
            return Err(Error::Parameter);
        }
        Self::len(dim, value_dim, size, size)?;
        let (ranges, records) = memory.split_at_mut_checked(2 * value_dim).ok_or(Error::Short)?;
        let mut index = Index {
            dim,
            size,
            blocks: 0,
            ranges,
            records,
        };
        index.reset();
        Ok(index)
    }

    /// Numbers of memory for so many keys. [`Error::Overflow`] where they do not fit the address space.
    pub const fn len(dim: usize, value_dim: usize, size: usize, keys: usize) -> Result<usize, Error> {
        let Some(blocks) = keys.checked_div(size) else {
            return Err(Error::Parameter);
        };
        match (dim.checked_mul(3), value_dim.checked_mul(2)) {
            (Some(boxes), Some(ranges)) => match boxes.saturating_add(SCALARS).checked_mul(blocks) {
                Some(records) if records <= isize::MAX as usize / 4 - ranges / 2 => Ok(records + ranges),
                _ => Err(Error::Overflow),
            },
            _ => Err(Error::Overflow),
        }
    }

    /// Keys of a block.
    #[must_use]
    pub const fn block(&self) -> usize {
        self.size
    }

    /// Keys that are in closed blocks.
    #[must_use]
    pub const fn keys(&self) -> usize {
        self.blocks * self.size
    }

    /// Closes the blocks that `k`, all keys from the first on, has gained, and takes in their values. Returns
    /// [`keys`](Index::keys).
    ///
    /// Errors, before anything is written: [`Error::Shape`] if the views do not fit, [`Error::Mismatch`] if there are fewer
    /// keys than before, [`Error::Full`] if the memory is too small, [`Error::NonFinite`], [`Error::Range`] for numbers
    /// beyond 2^60.
    pub fn extend(&mut self, k: MatRef<'_, f32>, v: MatRef<'_, f32>) -> Result<usize, Error> {
        if k.cols() != self.dim || v.cols() != self.ranges.len() / 2 || k.rows() != v.rows() {
            return Err(Error::Shape);
        }
        let blocks = k.rows().checked_div(self.size).unwrap_or(0);
        if blocks < self.blocks {
            return Err(Error::Mismatch);
        }
        if blocks > self.records.len() / self.width().max(1) {
            return Err(Error::Full);
        }
        let fresh = self.keys()..blocks * self.size;
        check(k.row_range(fresh.clone()))?;
        check(v.row_range(fresh.clone()))?;
        let (width, dim, size) = (self.width(), self.dim, self.size);
        let records = self.records.chunks_exact_mut(width.max(1)).skip(self.blocks);
        for (record, first) in records.zip(fresh.clone().step_by(size.max(1))) {
            summarise(k.row_range(first..first + size), dim, record);
        }
        if let Some((low, high)) = self.ranges.split_at_mut_checked(v.cols()) {
            kernels::widen_ranges(Isa::best(), v.row_range(fresh), low, high);
        }
        self.blocks = blocks;
        Ok(self.keys())
    }

    /// Nothing has come in yet.
    pub fn reset(&mut self) {
        let value_dim = self.value_dim();
        let columns = self.ranges.iter_mut().enumerate();
        columns.for_each(|(c, x)| {
            *x = if c < value_dim {
                f32::INFINITY
            } else {
                f32::NEG_INFINITY
            }
        });
        self.blocks = 0;
    }

    const fn width(&self) -> usize {
        3 * self.dim + SCALARS
    }

    pub(super) const fn dim(&self) -> usize {
        self.dim
    }

    pub(super) const fn value_dim(&self) -> usize {
        self.ranges.len() / 2
    }

    /// At least the largest difference inside a column of these values and all that came in.
    pub(super) fn range(&self, more: MatRef<'_, f32>) -> f32 {
        let (low, high) = self.ranges.split_at_checked(self.value_dim()).unwrap_or_default();
        let mut range = 0.0f32;
        for (c, (&low, &high)) in low.iter().zip(high).enumerate() {
            let column = (0..more.rows()).filter_map(|i| more.row(i).get(c).copied());
            let (low, high) = column.fold((low, high), |(low, high), x| (low.min(x), high.max(x)));
            if low < high {
                range = range.max(up(high - low));
            }
        }
        range
    }

    /// Centres of the first blocks, and their boxes about them: highest differences, then lowest.
    pub(super) fn centres_and_boxes(&self, blocks: usize) -> Result<[MatRef<'_, f32>; 2], Error> {
        let boxes = self.records.get(self.dim..).unwrap_or(&[]);
        Ok([
            MatRef::with_stride(self.records, blocks, self.dim, self.width())?,
            MatRef::with_stride(boxes, blocks, 2 * self.dim, self.width())?,
        ])
    }

    /// What is known about the blocks, one after the other.
    pub(super) fn extents(&self) -> impl Iterator<Item = Extent> + '_ {
        let records = self.records.chunks_exact(self.width().max(1)).take(self.blocks);
        records.map(|record| match record.last_chunk() {
            Some(&[radius, spread, slack]) => Extent { radius, spread, slack },
            None => Extent::UNKNOWN,
        })
    }
}

impl Extent {
    /// Nothing is known.
    const UNKNOWN: Extent = Extent {
        radius: f32::INFINITY,
        spread: f32::INFINITY,
        slack: f32::INFINITY,
    };
}

/// [`Error::NonFinite`], or [`Error::Range`] where sums of squares might overflow.
pub(super) fn check(rows: MatRef<'_, f32>) -> Result<(), Error> {
    const MOST: f32 = f32::from_bits((127 + 60) << 23);
    let mut most = 0.0f32;
    for i in 0..rows.rows() {
        // Stays 0 while everything is finite.
        let (strange, size) = rows
            .row(i)
            .iter()
            .fold((0.0f32, 0.0f32), |(s, m), x| (s + x * 0.0, m.max(x.abs())));
        if strange != 0.0 {
            return Err(Error::NonFinite);
        }
        most = most.max(size);
    }
    if most > MOST {
        return Err(Error::Range);
    }
    Ok(())
}

/// At least the length of a row, or of a difference of two that was rounded.
pub(super) fn length(row: impl Iterator<Item = f32>, dim: usize) -> f32 {
    let square = row.fold(0.0f32, |sum, x| sum + x * x);
    let square = product_up(square, 1.0 + gamma(dim.saturating_add(8)));
    sum_up(up(math::sqrt(square)), LEAST)
}

/// A record of these keys: centre, box about it, extent.
///
/// The centre c is the mean up to rounding: a chain of n additions, and a product with a power of two. So every number of
/// it is off by at most gamma(n) times the mean of |k|, and all of it by `gamma(n) max |k|` in length. What is said about
/// the mean adds that to what is computed about c. The covariance about c is no smaller than that about the mean. Its
/// largest eigenvalue is at most the Frobenius norm of the Gram matrix of the differences, over n.
fn summarise(k: MatRef<'_, f32>, dim: usize, record: &mut [f32]) {
    let Some((centre, rest)) = record.split_at_mut_checked(dim) else {
        return;
    };
    let Some((boxes, scalars)) = rest.split_at_mut_checked(2 * dim) else {
        return;
    };
    let (high, low) = boxes.split_at_mut(dim);
    let count = k.rows();
    let share = 1.0 / math::nearest(count.max(1) as u64);
    centre.fill(0.0);
    high.fill(0.0);
    low.fill(0.0);
    let mut longest = 0.0f32;
    for i in 0..count {
        centre.iter_mut().zip(k.row(i)).for_each(|(sum, &x)| *sum += x);
        longest = longest.max(length(k.row(i).iter().copied(), dim));
    }
    centre.iter_mut().for_each(|sum| *sum *= share);
    let mut radius = 0.0f32;
    for i in 0..count {
        let differences = k.row(i).iter().zip(&*centre).map(|(x, c)| x - c);
        radius = radius.max(length(differences.clone(), dim));
        for (x, (high, low)) in differences.zip(high.iter_mut().zip(low.iter_mut())) {
            *high = high.max(up(x.max(0.0)));
            *low = low.min(-up((-x).max(0.0)));
        }
    }
    let off = sum_up(product_up(gamma(count), longest), LEAST);
    // The product of a query with c is a chain over the columns, of numbers that the scale was multiplied into.
    let product = product_up(gamma(dim.saturating_add(8)), length(centre.iter().copied(), dim));
    let extent = [sum_up(radius, off), spread(k, centre, radius), sum_up(off, product)];
    scalars.iter_mut().zip(extent).for_each(|(to, x)| *to = x);
}

/// At least the largest eigenvalue of the covariance about `centre`. Entries of the Gram matrix are products of rounded
/// differences, off by `gamma(dim + 4) radius^2` each.
fn spread(k: MatRef<'_, f32>, centre: &[f32], radius: f32) -> f32 {
    let count = k.rows();
    let square = product_up(radius, radius);
    if square == 0.0 || !square.is_finite() {
        return square;
    }
    let mut sum = 0.0f32;
    for i in 0..count {
        for j in 0..=i {
            let pairs = k.row(i).iter().zip(k.row(j)).zip(centre);
            let product = pairs.fold(0.0f32, |sum, ((x, y), c)| sum + (x - c) * (y - c));
            let share = product / square;
            sum += share * share * if i == j { 1.0 } else { 2.0 };
        }
    }
    let off = product_up(gamma(centre.len().saturating_add(12)), math::nearest(count as u64));
    let norm = up(math::sqrt(product_up(sum, 1.0 + gamma(count * count + 8))));
    let share = up(sum_up(norm, off) / math::nearest(count.max(1) as u64));
    // No eigenvalue exceeds the largest square.
    product_up(square, share.min(1.0))
}

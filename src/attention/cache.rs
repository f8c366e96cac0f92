//! Keys and values that arrive one after the other: kept in the caller's memory, in fewer bits, with a bound.

mod append;
mod attend;
mod saved;
mod store;
mod turned;

pub use store::Store;

use super::certificate::Loss;
use super::slots::Pages;
use crate::bound::{product_up, UNIT};
use crate::error::Error;
use crate::math;
use turned::Turner;

/// The sizes of a [`Cache`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// Heads of keys and values.
    pub heads: usize,
    /// Columns of keys.
    pub dim: usize,
    /// Columns of values.
    pub value_dim: usize,
    /// Keys of each head that there is room for.
    pub capacity: usize,
    /// The first keys that stay when others go.
    pub kept: usize,
}

/// How far a cache has come: all that is not in its memory, so that a host can keep it as plain numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Keys that were appended since the beginning: the position of the next.
    pub next: u64,
    /// Position of the oldest key that is there besides the kept ones.
    pub first: u64,
    /// Room for keys that the cache had. It may get more until a row is written for a second time; see
    /// [`resume`](Cache::resume).
    pub capacity: usize,
    /// What storing has lost, over all rows so far.
    pub loss: Loss,
}

impl Progress {
    /// Nothing appended yet.
    const fn start(capacity: usize) -> Progress {
        Progress {
            next: 0,
            first: 0,
            capacity,
            loss: Loss::NONE,
        }
    }
}

/// A sequence's keys and values in the caller's memory, appended in place.
///
/// A key has a position, counted from the first that was ever appended. Memory is a ring: key `p` of the first `kept` lies
/// in row `p`, key `p` beyond them in row `kept + (p - kept) % (capacity - kept)`, rows of a head next to each other. When
/// it is full, [`append`](Cache::append) refuses until the caller has [evicted](Cache::evict) the oldest, or, with
/// [`with_sliding`](Cache::with_sliding), lets the oldest go by itself: a window with sinks. With
/// [`with_pages`](Cache::with_pages), rows lie in blocks of equal length wherever a table says.
///
/// [`Decode`](super::Decode), for few queries, and [`Exact`](super::Exact), for many, read the keys where they lie, in the
/// order of their positions: the bits are those of the same keys one after the other in plain memory, whatever the ring has
/// turned and wherever the pages are.
///
/// ```
/// use subquad::attention::{Cache, CacheShape, Outputs, Store};
/// use subquad::{MatMut, Scratch, TensorRef};
/// # fn main() -> Result<(), subquad::Error> {
/// let shape = CacheShape { heads: 1, dim: 2, value_dim: 1, capacity: 3, kept: 1 };
/// let (mut k, mut k_scales, mut v) = ([0i8; 6], [0.0; 3], [0u16; 3]);
/// let mut cache = Cache::new(shape, Store::I8(&mut k, &mut k_scales), Store::F16(&mut v))?.with_sliding()?;
/// for token in 0..10u8 {
///     let (k, v) = ([0.5, f32::from(token)], [f32::from(token)]);
///     cache.append(TensorRef::new(&k, [1, 1, 1, 2])?, TensorRef::new(&v, [1, 1, 1, 1])?)?;
/// }
/// assert_eq!([0, 1, 2].map(|key| cache.position(key)), [Some(0), Some(8), Some(9)]);
///
/// let plan = cache.decode(1, 1)?.with_bound();
/// let mut work = vec![core::mem::MaybeUninit::uninit(); plan.need().bytes()];
/// let mut out = [0.0];
/// let outputs = Outputs { out: Some(MatMut::new(&mut out, 1, 1)?.into()), ..Outputs::default() };
/// let report = cache.attend(&plan, TensorRef::new(&[0.0, 0.0], [1, 1, 1, 2])?, outputs, &mut Scratch::new(&mut work))?;
/// assert!((out[0] - (0.0 + 8.0 + 9.0) / 3.0).abs() <= report.bound.value);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Cache<'a> {
    shape: CacheShape,
    keys: Store<'a>,
    values: Store<'a>,
    pages: Option<Pages<'a>>,
    sliding: bool,
    turner: Option<Turner<'a>>,
    progress: Progress,
}

impl<'a> Cache<'a> {
    /// An empty cache over memory for `heads * capacity` rows each. [`Error::Short`] where that is less,
    /// [`Error::Parameter`] if more keys are kept than there is room for, [`Error::Shape`] without heads or any column.
    pub fn new(shape: CacheShape, keys: Store<'a>, values: Store<'a>) -> Result<Self, Error> {
        let cache = Self::unchecked(shape, keys, values, None)?;
        cache.has_room(shape.heads.checked_mul(shape.capacity).ok_or(Error::Overflow)?)?;
        Ok(cache)
    }

    /// As [`new`](Cache::new), over pages of `block` rows of all heads: head h of page p begins at row
    /// `(p * heads + h) * block`. Row r of the ring lies in page `table[r / block]`, as its row `r % block`, so that many
    /// caches share one pool of pages.
    ///
    /// The table has `capacity / block` entries, rounded up ([`Error::Shape`]), each of a page that the memory holds
    /// ([`Error::Range`]) and none twice, which is not checked. A host that makes a table longer makes the cache again, and
    /// [resumes](Cache::resume).
    pub fn with_pages(
        shape: CacheShape,
        keys: Store<'a>,
        values: Store<'a>,
        (table, block): (&'a [u32], usize),
    ) -> Result<Self, Error> {
        if block == 0 {
            return Err(Error::Parameter);
        }
        let cache = Self::unchecked(shape, keys, values, Some(Pages { table, block }))?;
        if table.len() != shape.capacity.div_ceil(block) {
            return Err(Error::Shape);
        }
        let pages = cache.pages_in_memory();
        if table.iter().any(|&page| page as usize >= pages) {
            return Err(Error::Range);
        }
        Ok(cache)
    }

    fn unchecked(
        shape: CacheShape,
        keys: Store<'a>,
        values: Store<'a>,
        pages: Option<Pages<'a>>,
    ) -> Result<Self, Error> {
        if shape.kept > shape.capacity {
            return Err(Error::Parameter);
        }
        // Rows without a column take no memory, so that there is no end to them.
        if shape.heads == 0 || (shape.dim == 0 && shape.value_dim == 0) {
            return Err(Error::Shape);
        }
        Ok(Cache {
            shape,
            keys,
            values,
            pages,
            sliding: false,
            turner: None,
            progress: Progress::start(shape.capacity),
        })
    }

    fn has_room(&self, rows: usize) -> Result<(), Error> {
        let CacheShape { dim, value_dim, .. } = self.shape;
        if self.keys.rows(dim) < rows || self.values.rows(value_dim) < rows {
            return Err(Error::Short);
        }
        Ok(())
    }

    /// Whole pages that both memories hold; one where there are none to speak of.
    fn pages_in_memory(&self) -> usize {
        let CacheShape {
            heads, dim, value_dim, ..
        } = self.shape;
        let Some(Pages { block, .. }) = self.pages else {
            return 1;
        };
        let rows = self.keys.rows(dim).min(self.values.rows(value_dim));
        // Numbers without columns are everywhere; no table names more pages.
        let pages = heads.checked_mul(block).and_then(|page| rows.checked_div(page));
        pages.unwrap_or(0).min(u32::MAX as usize)
    }

    /// A full cache lets its oldest key go for each new one, but not the kept ones. [`Error::Parameter`] if it has no room
    /// for others.
    pub fn with_sliding(mut self) -> Result<Self, Error> {
        if self.shape.kept >= self.shape.capacity {
            return Err(Error::Parameter);
        }
        self.sliding = true;
        Ok(self)
    }

    /// Goes on where another `Cache` over the same memory stopped, which had as much room, or another and every key's row is
    /// still where it was: no row was written for a second time (being full is no harm), and there are
    /// [pages](Cache::with_pages), or one head, as heads after the first begin at a multiple of the capacity.
    /// [`Error::Mismatch`] if no cache of this shape comes there.
    pub fn resume(&mut self, progress: Progress) -> Result<(), Error> {
        let CacheShape { capacity, heads, .. } = self.shape;
        let turned = progress.next > progress.capacity.min(capacity) as u64;
        let apart = self.pages.is_none() && heads > 1 && progress.next > 0;
        let moved = progress.capacity != capacity && (turned || apart);
        if progress.first > progress.next || self.held(&progress).is_none() || moved {
            return Err(Error::Mismatch);
        }
        let Loss { key, value } = progress.loss;
        if key.is_nan() || value.is_nan() || key < 0.0 || value < 0.0 {
            return Err(Error::Parameter);
        }
        self.progress = Progress { capacity, ..progress };
        Ok(())
    }

    /// Keys that are there at some point; `None` where that is more than there is room for.
    fn held(&self, progress: &Progress) -> Option<usize> {
        let CacheShape { capacity, kept, .. } = self.shape;
        let begun = progress.next.min(kept as u64);
        let window = progress.next - progress.first.max(begun).min(progress.next);
        usize::try_from(begun.checked_add(window)?)
            .ok()
            .filter(|&held| held <= capacity)
    }

    /// How far it has come.
    #[must_use]
    pub const fn progress(&self) -> Progress {
        self.progress
    }

    /// What storing has lost, over the rows that are there: at most the loss so far, and of integers at most what their
    /// scales leave room for, so that the bound forgets what was evicted; but for keys that were turned, which have lost
    /// more than their scales know. Cost: a look at every scale.
    #[must_use]
    pub fn loss(&self) -> Loss {
        let Loss { key, value } = self.progress.loss;
        let [keys, values] = [&self.keys, &self.values].map(|store| store.most_lost(self.places()));
        // The distance of rows whose numbers are all that far apart.
        let length = product_up(math::sqrt(self.shape.dim as f32), 1.0 + 4.0 * UNIT);
        Loss {
            key: match self.turner {
                Some(_) => key,
                None => key.min(product_up(keys, length)),
            },
            value: value.min(values),
        }
    }

    /// The sizes.
    #[must_use]
    pub const fn shape(&self) -> CacheShape {
        self.shape
    }

    /// Keys that are there.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held(&self.progress).unwrap_or(0)
    }

    /// Whether no key is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The position of key number `key` of those that are there, the kept ones first.
    #[must_use]
    pub fn position(&self, key: usize) -> Option<u64> {
        let kept = self.shape.kept;
        if key >= self.len() {
            None
        } else if key < kept {
            Some(key as u64)
        } else {
            Some(self.oldest() + (key - kept) as u64)
        }
    }

    /// Position of the oldest key that may go.
    fn oldest(&self) -> u64 {
        self.progress.first.max(self.shape.kept as u64)
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.progress = Progress::start(self.shape.capacity);
    }

    /// The row of the ring that a position has.
    fn row_of(&self, position: u64) -> usize {
        let CacheShape { capacity, kept, .. } = self.shape;
        match position.checked_sub(kept as u64) {
            None => position as usize,
            Some(beyond) => kept + beyond.checked_rem((capacity - kept) as u64).unwrap_or(0) as usize,
        }
    }

    /// Where row `row` of the ring lies for a head, among all rows of the memory.
    fn place_of(&self, row: usize, head: usize) -> usize {
        match self.pages {
            None => head * self.shape.capacity + row,
            Some(Pages { table, block }) => {
                let page = table.get(row / block.max(1)).map_or(0, |&page| page as usize);
                (page * self.shape.heads + head) * block + row % block.max(1)
            }
        }
    }

    /// Lets the `n` oldest keys go, but none of those that are kept. [`Error::Range`] if there are fewer.
    pub fn evict(&mut self, n: usize) -> Result<(), Error> {
        let there = self.len().saturating_sub(self.shape.kept);
        if n > there {
            return Err(Error::Range);
        }
        if n > 0 {
            self.progress.first = self.oldest() + n as u64;
        }
        Ok(())
    }
}

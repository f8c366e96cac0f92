//! What happened in a call that succeeded.

use crate::bound::Bound;
use crate::simd::Isa;

/// Returned by every call: nothing happens silently.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Report {
    /// The back end that ran.
    pub isa: Isa,
    /// Rows that saw no key at all: zeros, log-sum-exp minus infinity.
    pub masked_rows: usize,
    /// Rows with a non-finite score (before a soft-cap, too) or value among the keys they saw: canonical NaN.
    pub non_finite_rows: usize,
    /// Rows of a gradient whose log-sum-exp is so far from 0 that its rounding alone may move their probabilities by more
    /// than 2^-8 of themselves; see [`Saved`](crate::attention::Saved) for what to save instead.
    pub imprecise_rows: usize,
    /// Blocks of queries that were run a second time: their scores spread over more than 100 powers of two, or a sum of
    /// values was not finite.
    pub repeated_blocks: usize,
    /// Rows that were computed exactly because the promise of an approximation was too weak; 0 for exact methods.
    pub exact_rows: usize,
    /// Pairs of a row and a key that it read, where a method leaves keys out; 0 for the others.
    pub keys_read: usize,
    /// The promise about the output; [`Bound::UNKNOWN`] unless it was asked for.
    pub bound: Bound,
}

impl Report {
    pub(crate) const fn new(isa: Isa) -> Report {
        Report {
            isa,
            masked_rows: 0,
            non_finite_rows: 0,
            imprecise_rows: 0,
            repeated_blocks: 0,
            exact_rows: 0,
            keys_read: 0,
            bound: Bound::UNKNOWN,
        }
    }

    /// Both parts of one piece of work: rows and blocks add up, and the promise is the weaker one.
    pub const fn and(self, other: Report) -> Report {
        Report {
            isa: self.isa,
            masked_rows: self.masked_rows.saturating_add(other.masked_rows),
            non_finite_rows: self.non_finite_rows.saturating_add(other.non_finite_rows),
            imprecise_rows: self.imprecise_rows.saturating_add(other.imprecise_rows),
            repeated_blocks: self.repeated_blocks.saturating_add(other.repeated_blocks),
            exact_rows: self.exact_rows.saturating_add(other.exact_rows),
            keys_read: self.keys_read.saturating_add(other.keys_read),
            bound: self.bound.or(other.bound),
        }
    }

    /// One more row is finished.
    pub(crate) fn count(&mut self, seen: bool, finite: bool) {
        self.masked_rows += usize::from(!seen && finite);
        self.non_finite_rows += usize::from(!finite);
    }
}

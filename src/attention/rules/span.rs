//! Which keys a query sees, and what is added to its scores: the rules, read for one query.

use super::{Offset, Rules, Segments, LOG2_E};
use crate::attention::Shape;
use crate::math;

impl Rules<'_> {
    /// Keys of a batch entry that are not padding.
    pub(crate) fn valid_keys(&self, shape: &Shape, batch: usize) -> usize {
        self.key_lengths.and_then(|n| n.get(batch)).map_or(shape.keys, |&n| n)
    }

    /// The keys that query `i` of batch entry `batch` may see, masks in memory aside.
    pub(crate) fn span(&self, shape: &Shape, batch: usize, i: usize) -> Span {
        let valid = self.valid_keys(shape, batch);
        let (q0, q1, first, last) = match &self.segments {
            Some(s) => s.of_query(i),
            None => (0, shape.queries, 0, valid),
        };
        let last = last.min(valid);
        let position = self.position(i, q0, q1, first, last);
        let mut end = last as i64;
        let mut start = first as i64;
        let base = first as i64;
        if self.causal {
            end = end.min(base.saturating_add(position).saturating_add(1));
        }
        // A side that no 64-bit position can end limits nothing.
        if let Some(right) = self.right.and_then(|n| i64::try_from(n).ok()) {
            end = end.min(base.saturating_add(position).saturating_add(right).saturating_add(1));
        }
        if let Some(left) = self.left.and_then(|n| i64::try_from(n).ok()) {
            start = start.max(base.saturating_add(position).saturating_sub(left));
        }
        for cols in [self.mask.map(|m| m.cols()), self.bias.map(|b| b.cols())] {
            end = end.min(cols.map_or(i64::MAX, |n| n as i64));
        }
        let end = usize::try_from(end).unwrap_or(0);
        let start = usize::try_from(start).unwrap_or(0).min(end);
        let sinks = first.saturating_add(self.sinks).min(end);
        if sinks >= start {
            // The kept keys touch the window: one piece.
            return Span {
                sinks: (first.min(end), first.min(end)),
                keys: (first.min(start), end),
            };
        }
        Span {
            sinks: (first.min(end), sinks.max(first.min(end))),
            keys: (start, end),
        }
    }

    /// Position of query `i` relative to the first key of its segment.
    fn position(&self, i: usize, q0: usize, q1: usize, first: usize, last: usize) -> i64 {
        let offset = match self.offset {
            Offset::Keys(n) => n,
            Offset::ToEnd => (last.saturating_sub(first) as i64) - (q1.saturating_sub(q0) as i64),
        };
        offset.saturating_add(i.saturating_sub(q0) as i64)
    }

    /// What is added to the score of (query `i`, key `j`) of a head, in base 2; minus infinity masks.
    #[inline]
    pub(crate) fn bias2(&self, at: At, position: i64, j: usize) -> f32 {
        if let Some(m) = &self.mask {
            let row = m
                .matrix(
                    at.batch.min(m.batch().saturating_sub(1)),
                    at.head.min(m.heads().saturating_sub(1)),
                )
                .row(at.query.min(m.rows().saturating_sub(1)));
            if row.get(j).is_none_or(|&x| x == 0) {
                return f32::NEG_INFINITY;
            }
        }
        let mut sum = 0.0;
        if let Some(b) = &self.bias {
            let row = b
                .matrix(
                    at.batch.min(b.batch().saturating_sub(1)),
                    at.head.min(b.heads().saturating_sub(1)),
                )
                .row(at.query.min(b.rows().saturating_sub(1)));
            let x = row.get(j).map_or(f32::NEG_INFINITY, |&x| x);
            if x == f32::NEG_INFINITY {
                return x;
            }
            // The lowest finite numbers are how some hosts write "masked": they stay finite in base 2.
            let x = x * LOG2_E;
            sum = if x < -f32::MAX { -f32::MAX } else { x };
        }
        if let Some(slope) = self.slopes.and_then(|s| s.get(at.head)) {
            let distance = math::nearest(position.abs_diff(j as i64));
            sum -= slope * LOG2_E * distance;
        }
        sum
    }

    /// Position of query `i` among all keys of its batch entry, for distances.
    pub(crate) fn absolute_position(&self, shape: &Shape, batch: usize, i: usize) -> i64 {
        let valid = self.valid_keys(shape, batch);
        let (q0, q1, first, last) = match &self.segments {
            Some(s) => s.of_query(i),
            None => (0, shape.queries, 0, valid),
        };
        (first as i64).saturating_add(self.position(i, q0, q1, first, last.min(valid)))
    }
}

impl Segments<'_> {
    /// (first query, end of queries, first key, end of keys) of the segment that query `i` belongs to.
    fn of_query(&self, i: usize) -> (usize, usize, usize, usize) {
        let s = self.queries.partition_point(|&start| start <= i).saturating_sub(1);
        let at = |x: &[usize], s: usize| x.get(s).copied().unwrap_or(0);
        (
            at(self.queries, s),
            at(self.queries, s + 1),
            at(self.keys, s),
            at(self.keys, s + 1),
        )
    }
}

/// A row of a call.
#[derive(Clone, Copy)]
pub(crate) struct At {
    pub batch: usize,
    pub head: usize,
    pub query: usize,
}

/// The keys a query may see: two intervals, kept first keys and a window, the first before the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub sinks: (usize, usize),
    pub keys: (usize, usize),
}

impl Span {
    pub(crate) const EMPTY: Span = Span {
        sinks: (0, 0),
        keys: (0, 0),
    };

    /// Keys in both intervals.
    pub(crate) const fn len(&self) -> usize {
        self.keys.1.saturating_sub(self.keys.0) + self.sinks.1.saturating_sub(self.sinks.0)
    }

    pub(crate) const fn sees(&self, j: usize) -> bool {
        (j >= self.keys.0 && j < self.keys.1) || (j >= self.sinks.0 && j < self.sinks.1)
    }
}

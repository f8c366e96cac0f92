//! Which keys a group of rows reads, cut into runs.

use super::block::{Input, Place};

/// Keys `start..end`; `whole` if every row sees all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub start: usize,
    pub end: usize,
    pub whole: bool,
}

/// The keys that rows reach together (kept first keys, then a window), and those that all of them see.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    sinks: (usize, usize),
    keys: (usize, usize),
    whole: (usize, usize),
}

impl Reach {
    const NOTHING: Reach = Reach {
        sinks: (usize::MAX, 0),
        keys: (usize::MAX, 0),
        whole: (0, usize::MAX),
    };

    /// What the rows of `place` reach; with `every_key`, all keys, as if each were masked for somebody.
    pub(super) fn of<K>(input: &Input<'_, K>, place: &Place, every_key: bool) -> Reach {
        let join = |a: (usize, usize), b: (usize, usize)| if b.0 < b.1 { (a.0.min(b.0), a.1.max(b.1)) } else { a };
        let mut reach = Reach::NOTHING;
        for lane in 0..place.used {
            let at = place.at(lane);
            let span = input.rules.span(&input.shape, at.batch, at.query);
            reach.sinks = join(reach.sinks, span.sinks);
            reach.keys = join(reach.keys, span.keys);
            reach.whole = (reach.whole.0.max(span.keys.0), reach.whole.1.min(span.keys.1));
        }
        if every_key {
            reach.keys = (0, input.shape.keys);
        }
        if every_key || input.rules.dense() {
            reach.whole = (0, 0);
        }
        reach
    }

    /// One past the last key that anybody sees.
    pub(super) fn last(&self) -> usize {
        self.keys.1.max(self.sinks.1)
    }

    /// The next run of at most `length` keys from key `j` on.
    pub(super) fn next(&self, j: usize, length: usize) -> Option<Run> {
        let start = if j < self.sinks.1 {
            j.max(self.sinks.0.min(self.keys.0))
        } else {
            j.max(self.keys.0)
        };
        let last = self.last();
        if start >= last {
            return None;
        }
        let (w0, w1) = self.whole;
        let whole = w0 <= start && start < w1;
        // A run ends where it begins or ceases to be whole, and where the kept first keys end.
        let mut end = last;
        for border in [w0, w1, self.keys.0, self.sinks.1] {
            if start < border && border < end {
                end = border;
            }
        }
        Some(Run {
            start,
            end: end.min(start.saturating_add(length)),
            whole,
        })
    }
}

/// A place in a reach.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    reach: Reach,
    key: usize,
}

impl Cursor {
    /// Nothing left to read.
    pub(super) const DONE: Cursor = Cursor {
        reach: Reach::NOTHING,
        key: 0,
    };

    pub(super) const fn new(reach: Reach) -> Cursor {
        Cursor { reach, key: 0 }
    }

    /// The next run, without moving.
    pub(super) fn peek(&self, length: usize) -> Option<Run> {
        self.reach.next(self.key, length)
    }

    /// Moves over the next run if it begins before `limit`, which cuts it.
    pub(super) fn next_before(&mut self, limit: usize, length: usize) -> Option<Run> {
        let run = self.peek(length).filter(|run| run.start < limit)?;
        let run = Run {
            end: run.end.min(limit),
            ..run
        };
        self.key = run.end;
        Some(run)
    }
}

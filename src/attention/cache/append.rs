//! Keys and values on their way into a cache: checked, turned where that is wanted, stored.

use super::store::finite;
use super::{Cache, CacheShape, Progress};
use crate::attention::Loss;
use crate::bound::sum_up;
use crate::error::Error;
use crate::view::TensorRef;
use core::ops::Range;

impl Cache<'_> {
    /// Appends `(1, heads, n, dim)` keys and `(1, heads, n, value_dim)` values, and returns their positions.
    ///
    /// Errors, with nothing written: [`Error::Shape`], [`Error::Full`], [`Error::NonFinite`], and [`Error::Range`] for a
    /// number that is too large for the format, turned or not.
    pub fn append(&mut self, k: TensorRef<'_, f32>, v: TensorRef<'_, f32>) -> Result<Range<u64>, Error> {
        let CacheShape {
            heads,
            dim,
            value_dim,
            capacity,
            ..
        } = self.shape;
        let n = k.rows();
        let shape = |t: &TensorRef<'_, f32>| (t.batch(), t.heads(), t.rows(), t.cols());
        if shape(&k) != (1, heads, n, dim) || shape(&v) != (1, heads, n, value_dim) {
            return Err(Error::Shape);
        }
        let Progress { next, .. } = self.progress;
        let end = next.checked_add(n as u64).ok_or(Error::Overflow)?;
        if !self.sliding && n > capacity - self.len() {
            return Err(Error::Full);
        }
        let rows = |head, row| (k.matrix(0, head).row(row), v.matrix(0, head).row(row));
        for (row, position) in (0..n).zip(next..) {
            for head in 0..heads {
                let (k, v) = rows(head, row);
                self.check_key(position, k)?;
                self.values.check(v)?;
            }
        }
        for row in 0..n {
            self.push(|head| rows(head, row));
        }
        Ok(next..end)
    }

    /// Whether a key can be stored at a position.
    fn check_key(&self, position: u64, key: &[f32]) -> Result<(), Error> {
        let Some(turner) = &self.turner else {
            return self.keys.check(key);
        };
        finite(key)?;
        // A pair is at most sqrt(2) of its larger number: mostly there is nothing to turn.
        let largest = key.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        if self.keys.check(&[2.0 * largest]).is_ok() {
            return Ok(());
        }
        let fits = |numbers: &[f32]| self.keys.check(numbers);
        // What turning makes infinite was too large, not infinite.
        turner.rotary.check(key, position, fits).map_err(|_| Error::Range)
    }

    /// Stores the next key and value of every head; the oldest goes if there is no room.
    fn push<'r>(&mut self, rows: impl Fn(usize) -> (&'r [f32], &'r [f32])) {
        if let Some(turner) = &mut self.turner {
            turner.stand_at(self.progress.next);
        }
        if self.len() == self.shape.capacity {
            self.progress.first = self.oldest() + 1;
        }
        let at = self.row_of(self.progress.next);
        for head in 0..self.shape.heads {
            let (k, v) = rows(head);
            let at = self.place_of(at, head);
            let [key, _] = match &mut self.turner {
                None => self.keys.write(at, k),
                Some(turner) => {
                    let [stored, largest] = self.keys.write(at, turner.turn(k));
                    [sum_up(stored, turner.distance(k)), largest]
                }
            };
            let [_, value] = self.values.write(at, v);
            self.progress.loss = self.progress.loss.or(Loss { key, value });
        }
        self.progress.next += 1;
    }
}

//! Keys that are turned by their positions on the way into a cache.

use super::Cache;
use crate::attention::Rotary;
use crate::error::Error;

/// How keys are turned, and room for one of them.
#[derive(Debug)]
pub(super) struct Turner<'a> {
    pub(super) rotary: Rotary,
    position: u64,
    row: &'a mut [f32],
    cos: &'a mut [f32],
    sin: &'a mut [f32],
}

impl Turner<'_> {
    /// The position of the rows that follow.
    pub(super) fn stand_at(&mut self, position: u64) {
        self.position = position;
        self.rotary.fill(position, self.cos, self.sin);
    }

    /// A row, turned.
    pub(super) fn turn(&mut self, row: &[f32]) -> &[f32] {
        self.row.iter_mut().zip(row).for_each(|(to, &x)| *to = x);
        self.rotary.turn(self.row, 0, self.cos, self.sin);
        self.row
    }

    /// At least how far that was from what it should have been.
    pub(super) fn distance(&self, row: &[f32]) -> f32 {
        self.rotary.distance(row, self.position)
    }
}

impl<'a> Cache<'a> {
    /// Turns each key by its position when it is appended, so that the cache holds the keys that turned queries are compared
    /// with. A query is turned by its own position before the call, with [`Rotary::apply`]: the one that was appended last
    /// stands at [`progress`](Cache::progress)`().next - 1`. Scores depend on how far positions are apart, whatever has gone
    /// in between.
    ///
    /// `room` is for one row and its angles, `dim + rotary_dim` numbers; what they are between calls has no meaning. The
    /// bound of [`attend`](Cache::attend) is about the keys that were appended, turned in real numbers, and the queries as it
    /// gets them. [`Error::Shape`] for rows of another length, [`Error::Short`] without that room.
    ///
    /// # Kept keys that stay near
    ///
    /// With kept keys and a window, a host may want positions inside the cache: as if what went had never been. Nothing that
    /// is stored has to change for it, as the window's keys keep their distances and the kept ones all come nearer by
    /// [`gone`](Cache::gone). So two calls with [`partials`](crate::attention::Outputs::partials), the last query of each
    /// under rules of its own, and [`Partial::merge`](crate::attention::Partial::merge):
    ///
    /// | keys | the query turned to | rules, for `len` keys of which `kept` are kept |
    /// |---|---|---|
    /// | the kept ones | `next - 1 - gone()` | `Offset::Keys(0)`, window `(None, Some(kept - 1))` |
    /// | the others | `next - 1` | `Offset::ToEnd`, window `(Some(len - 1 - kept), None)` |
    pub fn with_rotary(mut self, rotary: Rotary, room: &'a mut [f32]) -> Result<Self, Error> {
        if rotary.dim() != self.shape.dim {
            return Err(Error::Shape);
        }
        let (row, angles) = room.split_at_mut_checked(rotary.dim()).ok_or(Error::Short)?;
        let angles = angles.get_mut(..rotary.rotary_dim()).ok_or(Error::Short)?;
        let (cos, sin) = angles
            .split_at_mut_checked(rotary.rotary_dim() / 2)
            .ok_or(Error::Short)?;
        self.turner = Some(Turner {
            rotary,
            position: 0,
            row,
            cos,
            sin,
        });
        Ok(self)
    }

    /// Positions between the kept keys and the others whose keys are no longer there.
    #[must_use]
    pub fn gone(&self) -> u64 {
        self.oldest().saturating_sub(self.shape.kept as u64)
    }
}

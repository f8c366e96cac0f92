//! How large biases and slopes are, over the keys that count.

use crate::attention::block::Input;
use crate::attention::rules::At;
use crate::bound::{sum_up, UNIT};

/// Beyond this size sums of three or four scores might overflow.
pub(super) const HUGE: f32 = 1.0e30;

/// Largest `|bias| + |slope * distance|` of a head, in base 2, over the keys that are not far; `size2` bounds what is
/// added to. Infinite where a bias was clamped to the lowest number and its row has nothing better; `None` where a sum
/// may not be finite.
pub(super) fn largest_addend<K>(input: &Input<'_, K>, at: At, size2: f32) -> Option<f32> {
    let (shape, rules) = (&input.shape, &input.rules);
    let [biases, slopes] = rules.addends();
    let mut largest = 0.0;
    for query in 0..shape.queries {
        let at = At { query, ..at };
        let span = rules.span(shape, at.batch, query);
        let position = rules.absolute_position(shape, at.batch, query);
        // Both ends of the row: in between, distances are less.
        let slope_at = |j: usize| slopes.bias2(at, position, j).abs();
        if slope_at(0).max(slope_at(shape.keys)) >= HUGE {
            return None;
        }
        let addends = || {
            let seen = (0..span.keys.1).filter(|&j| span.sees(j));
            seen.map(|j| Addend {
                sum: rules.bias2(at, position, j),
                bias: biases.bias2(at, position, j),
                slope: slopes.bias2(at, position, j),
            })
        };
        let mut best = f32::NEG_INFINITY;
        for a in addends().filter(|a| !a.masks()) {
            if a.sum.is_nan() || a.sum >= HUGE {
                return None;
            }
            best = best.max(a.least());
        }
        // The products of a far key and of the best one may both be worst; the rest is room for roundings of `size2`.
        let far = best - 2.001 * size2 - 160.0;
        let near = addends().filter(|a| !a.masks() && a.most() >= far);
        largest = near.map(|a| a.size()).fold(largest, f32::max);
    }
    Some(largest)
}

/// What is added to a score, in base 2, and its two parts.
struct Addend {
    sum: f32,
    bias: f32,
    slope: f32,
}

impl Addend {
    /// Thirty-two roundings: more than twice what the parts are off by, relative to their sizes.
    const ROOM: f32 = 32.0 * UNIT;

    fn masks(&self) -> bool {
        self.sum == f32::NEG_INFINITY
    }

    /// A bias that base 2 has no room for stands for anything lower.
    fn clamped(&self) -> bool {
        self.bias <= -f32::MAX
    }

    fn room(&self) -> f32 {
        self.bias.abs() * Self::ROOM + self.slope.abs() * Self::ROOM
    }

    /// No lower in real arithmetic.
    fn least(&self) -> f32 {
        if self.clamped() {
            f32::NEG_INFINITY
        } else {
            self.sum - self.room()
        }
    }

    /// No higher in real arithmetic.
    fn most(&self) -> f32 {
        self.sum + self.room()
    }

    fn size(&self) -> f32 {
        if self.clamped() {
            f32::INFINITY
        } else {
            sum_up(self.bias.abs(), self.slope.abs())
        }
    }
}

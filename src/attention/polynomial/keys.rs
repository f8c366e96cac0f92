//! What is looked up about keys and values before they are summed.

use crate::bound::up;
use crate::error::Error;
use crate::math;
use crate::view::{MatRef, TensorRef};

/// [`Error::NonFinite`] unless all numbers are finite.
pub(in crate::attention) fn check_finite(t: &TensorRef<'_, f32>) -> Result<(), Error> {
    for batch in 0..t.batch() {
        for head in 0..t.heads() {
            let rows = t.matrix(batch, head);
            for i in 0..rows.rows() {
                // Stays 0 while everything is finite.
                if rows.row(i).iter().fold(0.0f32, |sum, x| sum + x * 0.0) != 0.0 {
                    return Err(Error::NonFinite);
                }
            }
        }
    }
    Ok(())
}

/// Keys that the centre is the mean of, at most: evenly spread. Any centre is right, and a good one is near the mean.
const SAMPLE: usize = 4096;

/// About the mean of the keys.
pub(in crate::attention) fn centre(k: MatRef<'_, f32>, to: &mut [f32]) {
    to.fill(0.0);
    let step = k.rows().div_ceil(SAMPLE).max(1);
    let count = k.rows().div_ceil(step).max(1);
    let share = 1.0 / math::nearest(count as u64);
    for i in (0..k.rows()).step_by(step) {
        to.iter_mut().zip(k.row(i)).for_each(|(sum, &x)| *sum += x * share);
    }
}

/// At least the largest distance of a key from the centre.
pub(in crate::attention) fn radius(k: MatRef<'_, f32>, centre: &[f32]) -> f32 {
    let square = |i| {
        let differences = k.row(i).iter().zip(centre).map(|(x, c)| x - c);
        differences.fold(0.0f32, |sum, x| sum + x * x)
    };
    let largest = (0..k.rows()).map(square).fold(0.0, f32::max);
    // The state computes the same sum of numbers that are scaled: a few roundings more for each column.
    let room = 1.0 + f32::EPSILON * (math::nearest(k.cols() as u64) + 8.0);
    (up(math::sqrt(largest)) * room).max(LEAST)
}

/// Keys that are all the same have a radius too.
const LEAST: f32 = f32::from_bits((127 - 60) << 23);

/// At least the largest length of a query.
pub(in crate::attention) fn longest(q: MatRef<'_, f32>) -> f32 {
    let square = |i| q.row(i).iter().fold(0.0f32, |sum, x| sum + x * x);
    let largest = (0..q.rows()).map(square).fold(0.0, f32::max);
    let room = 1.0 + f32::EPSILON * (math::nearest(q.cols() as u64) + 8.0);
    up(math::sqrt(largest)) * room
}

/// At least the largest difference of two values of a column.
pub(in crate::attention) fn range(v: MatRef<'_, f32>) -> f32 {
    let column = |c: usize| {
        let values = (0..v.rows()).filter_map(|i| v.row(i).get(c).copied());
        let (low, high) = values.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), x| {
            (if x < low { x } else { low }, if x > high { x } else { high })
        });
        if low <= high {
            up(high - low)
        } else {
            0.0
        }
    };
    (0..v.cols()).map(column).fold(0.0, f32::max)
}

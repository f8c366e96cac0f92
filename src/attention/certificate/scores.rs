//! How large scores are and how far off, step by step: the upper half of the derivation.

use super::addends::{largest_addend, HUGE};
use super::{power_of_two, Order, LN2_UP, LOG2_E_UP, TINY};
use crate::attention::block::Input;
use crate::attention::rules::At;
use crate::attention::slots::Sequence;
use crate::bound::{gamma, product_up, sum_up, up, UNIT};
use crate::kernels;
use crate::math;
use crate::simd::Isa;
use crate::view::{Format, MatRef, RowsMat};

/// Parts that the curve of the soft-cap is looked at in.
const SLICES: usize = 16;

/// What is known about all scores of a head: none is larger than `size`, none off by more than `error` (infinite where
/// only the size is known). There is a `Scores` only where every score is finite.
#[derive(Clone, Copy)]
pub(super) struct Scores {
    pub(super) size: f32,
    pub(super) error: f32,
}

impl Scores {
    /// `scale q.k` from the largest norms; a key may be `lost` away from what it stands for.
    pub(super) fn of_products(
        input: &Input<'_, Sequence<'_>>,
        order: Order,
        [query_norm, key_norm, lost]: [f32; 3],
    ) -> Option<Scores> {
        let dim = input.shape.dim;
        let scaled_keys = input.k.rows.format() == Format::I8;
        let scale2 = input.rules.scale2(dim);
        let products = product_up(query_norm, key_norm);
        let natural = product_up(sum_up(scale2, TINY), LN2_UP);
        let size = product_up(natural, products);
        // A scale, a query or a product that is subnormal is off by up to TINY / 2, times what it is multiplied by.
        let keys = product_up(dim as f32, sum_up(key_norm, 1.0));
        let mut underflow = product_up(sum_up(keys, products), TINY);
        if scaled_keys && order == Order::Chains {
            // So is a number of a key, times its scale.
            let queries = product_up(dim as f32, product_up(natural, query_norm));
            underflow = sum_up(underflow, product_up(queries, TINY));
        }
        // The query takes a rounding of its own; log2 e is off by 0.23 u, which the rest can only stretch.
        let roundings = order
            .of_products(dim)
            .saturating_add(1 + input.rules.scale2_roundings(dim) + usize::from(scaled_keys));
        let whole = gamma(roundings);
        let relative = sum_up(whole, product_up(0.25 * UNIT, sum_up(1.0, whole)));
        let error = sum_up(product_up(relative, size), underflow);
        let error = sum_up(error, product_up(natural, product_up(query_norm, lost)));
        let size = sum_up(size, error);
        // In decoding, integers are summed before their scale brings the sum down.
        let integers = if scaled_keys && order == Order::Lanes {
            product_up(127.0, dim as f32)
        } else {
            1.0
        };
        let scaled = product_up(product_up(query_norm, scale2), integers);
        (scaled < HUGE && size < HUGE).then_some(Scores { size, error })
    }

    /// After the soft-cap. With `z = x / cap`, `t = |tanh z|` and `b = z tanh' z <= min(t, 0.45)`:
    ///
    /// ```text
    /// step                         off by                    moves the result, in u cap, by
    /// the error before             E                         E (1 - t^2) / (u cap): tanh' = 1 - t^2
    /// cap2 = cap * log2 e          1.23 u                    1.25 (t - b): it divides, and multiplies again
    /// 1 / cap2, x * that           1 u each                  2 b
    /// tanh                         2 ULP: 2 u, 4 u t         min(2, 4 t)
    /// * cap2                       1 u                       t
    /// ```
    ///
    /// Together `E (1 - t^2) + u cap (2.25 t + 0.75 b + min(2, 4 t))`, of which the largest over all t up to that of the
    /// largest score counts. What 1.25 and 0.45 are rounded up by is more than the products of errors.
    pub(super) fn capped(self, cap2: f32) -> Option<Scores> {
        if cap2 == 0.0 {
            return Some(self);
        }
        if cap2 < power_of_two(-125) || cap2 > power_of_two(125) {
            return None;
        }
        let cap = product_up(cap2, LN2_UP);
        // Relative to the cap, up to what the cap itself is rounded by.
        let relative = |x: f32| product_up(up(x / cap), 1.0 + 32.0 * UNIT);
        let (most, shift) = (relative(self.size), relative(self.error));
        let mut worst = 0.0f32;
        for slice in 0..SLICES {
            let [from, to] = [slice, slice + 1].map(|n| n as f32 / SLICES as f32);
            if from > most {
                break;
            }
            worst = worst.max(self.cap_error(cap, from, if to < most { to } else { most }, shift));
        }
        let underflow = sum_up(product_up(cap, power_of_two(-126)), TINY);
        // tanh is not above 1, and the product with the cap is rounded once.
        let size = if cap < self.size { cap } else { self.size };
        Some(Scores {
            size: product_up(size, 1.0 + 16.0 * UNIT),
            error: sum_up(worst, underflow),
        })
    }

    /// That, where t is between `from` and `to`; `shift` is the error before, relative to the cap.
    fn cap_error(self, cap: f32, from: f32, to: f32, shift: f32) -> f32 {
        // Between a score and what it is taken for tanh' changes by 0.77 of their distance, as |tanh''| is below that.
        let steep = sum_up(1.0 - from * from, shift);
        let before = product_up(self.error, if steep < 1.0 { steep } else { 1.0 });
        let [bent, tanh] = [to.min(0.45), (4.0 * to).min(2.0)];
        let units = sum_up(sum_up(2.25 * to, 0.75 * bent), tanh);
        sum_up(before, product_up(product_up(units, UNIT), cap))
    }

    /// After bias and slopes; masks only take keys away.
    pub(super) fn biased<K>(self, input: &Input<'_, K>, at: At) -> Option<Scores> {
        if !(input.rules.has_bias() || input.rules.has_slopes()) {
            return Some(self);
        }
        let added2 = largest_addend(input, at, product_up(self.size, LOG2_E_UP))?;
        let added = product_up(added2, LN2_UP);
        // Times log2 e: 1.23 u. A slope also times a distance, itself rounded; and the two together once more.
        let roundings = match (input.rules.has_bias(), input.rules.has_slopes()) {
            (_, false) => 1.25,
            (false, true) => 3.25,
            (true, true) => 4.25,
        };
        let size = sum_up(self.size, added);
        let error = sum_up(product_up(roundings * UNIT, added), product_up(UNIT, size));
        // A subnormal slope times a distance below 2^64.
        let underflow = power_of_two(-84);
        Some(Scores {
            size: product_up(size, 1.0 + 16.0 * UNIT),
            error: sum_up(self.error, sum_up(error, underflow)),
        })
    }
}

/// At least the largest Euclidean norm of a row; infinite where some number is not finite or too large to square.
pub(in crate::attention) fn largest_norm(isa: Isa, rows: MatRef<'_, f32>) -> f32 {
    norm(largest_square(isa, &RowsMat::F32(rows)), rows.cols())
}

/// That of a head's keys.
pub(super) fn largest_key_norm(input: &Input<'_, Sequence<'_>>, batch: usize, head: usize, valid: usize) -> f32 {
    let mut largest = 0.0f32;
    input.k.pieces(batch, head, 0..valid, |rows, _| {
        largest = largest.max(largest_square(input.isa, &rows));
    });
    norm(largest, input.shape.dim)
}

/// From the largest computed square: `dot` is off by gamma(dim / 16 + 6) relative, scales by three roundings more, and
/// squares may underflow.
fn norm(largest: f32, dim: usize) -> f32 {
    if largest == f32::INFINITY {
        return largest;
    }
    let relative = gamma((dim / 16).saturating_add(11));
    let square = sum_up(largest, product_up(relative, largest));
    let underflow = product_up(dim as f32, TINY);
    product_up(math::sqrt(sum_up(square, underflow)), 1.0 + 2.0 * UNIT)
}

fn largest_square(isa: Isa, rows: &RowsMat<'_>) -> f32 {
    let mut largest = 0.0f32;
    for i in 0..rows.rows() {
        let square = match rows {
            RowsMat::F32(rows) => kernels::dot(isa, rows.row(i), rows.row(i)),
            rows => widened_square(rows, i),
        };
        if !square.is_finite() {
            return f32::INFINITY;
        }
        largest = largest.max(square);
    }
    largest
}

/// The square of a row that is no f32, in the order of `dot`.
fn widened_square(rows: &RowsMat<'_>, i: usize) -> f32 {
    /// Scales below it are taken for it, so that none has a square that underflows.
    const LEAST: f32 = 1e-18;
    let (mut sums, mut room, mut scale) = ([0.0f32; 16], [0.0; 16], 1.0);
    for first in (0..rows.cols()).step_by(16) {
        let (numbers, of_row) = rows.numbers(i, first, &mut room);
        scale = of_row;
        sums.iter_mut().zip(numbers).for_each(|(sum, x)| *sum += x * x);
    }
    let square = kernels::sum_of(&sums);
    let scale = if scale < LEAST { LEAST } else { scale };
    (square * scale) * scale
}

//! Memory for keys or values: f32 in, any format stored, and what that lost.

use crate::bound::{product_up, sum_up, up, UNIT};
use crate::error::Error;
use crate::half::{bf16_from_f32, f16_from_f32, f32_from_bf16, f32_from_f16};
use crate::math;
use crate::view::{Format, RowsRef, TensorRef};

/// The caller's memory for keys or values, in the format in which they are kept.
#[derive(Debug)]
pub enum Store<'a> {
    /// f32, as it is.
    F32(&'a mut [f32]),
    /// f16, as bits. Numbers from 65520 on have no place.
    F16(&'a mut [u16]),
    /// bf16, as bits.
    Bf16(&'a mut [u16]),
    /// Integers, and one scale per row: the largest number of the row is 127 of them.
    I8(&'a mut [i8], &'a mut [f32]),
}

/// The smallest number above 0.
const TINY: f32 = f32::from_bits(1);
/// Added and taken away again it leaves the nearest integer, ties to even.
const MAGIC: f32 = 12_582_912.0;

impl Store<'_> {
    /// The format.
    #[must_use]
    pub const fn format(&self) -> Format {
        match self {
            Store::F32(_) => Format::F32,
            Store::F16(_) => Format::F16,
            Store::Bf16(_) => Format::Bf16,
            Store::I8(..) => Format::I8,
        }
    }

    /// Rows of `cols` numbers that there is room for.
    pub(super) fn rows(&self, cols: usize) -> usize {
        let rows = |n: usize| n.checked_div(cols).unwrap_or(usize::MAX);
        match self {
            Store::F32(x) => rows(x.len()),
            Store::F16(x) | Store::Bf16(x) => rows(x.len()),
            Store::I8(x, scales) => rows(x.len()).min(scales.len()),
        }
    }

    /// All of it as pages x heads x rows x cols. The sizes were checked when the cache was made.
    pub(super) fn view(&self, shape: [usize; 4]) -> Result<RowsRef<'_>, Error> {
        let [pages, heads, rows, _] = shape;
        Ok(match self {
            Store::F32(x) => TensorRef::new(x, shape)?.into(),
            Store::F16(x) => RowsRef::f16(TensorRef::new(x, shape)?),
            Store::Bf16(x) => RowsRef::bf16(TensorRef::new(x, shape)?),
            Store::I8(x, scales) => {
                let scales = TensorRef::new(scales, [pages, heads, 1, rows])?;
                RowsRef::i8_made(TensorRef::new(x, shape)?, scales)
            }
        })
    }

    /// Whether a row can be stored: [`Error::NonFinite`], or [`Error::Range`] where the format ends before a number.
    pub(super) fn check(&self, row: &[f32]) -> Result<(), Error> {
        finite(row)?;
        let fits = match self {
            Store::F32(_) | Store::I8(..) => true,
            Store::F16(_) => row.iter().all(|&x| f16_from_f32(x) & 0x7fff < 0x7c00),
            Store::Bf16(_) => row.iter().all(|&x| bf16_from_f32(x) & 0x7fff < 0x7f80),
        };
        if fits {
            Ok(())
        } else {
            Err(Error::Range)
        }
    }

    /// Stores a row that was checked, as row `at` of all. At least the Euclidean distance from it, and the largest
    /// difference of a number.
    pub(super) fn write(&mut self, at: usize, row: &[f32]) -> [f32; 2] {
        let start = at.wrapping_mul(row.len());
        let range = start..start.wrapping_add(row.len());
        let mut error = Differences::default();
        match self {
            Store::F32(x) => copy(x.get_mut(range), row, |x| x),
            Store::F16(x) => copy(x.get_mut(range), row, |x| {
                let bits = f16_from_f32(x);
                error.add(x, f32_from_f16(bits), 0.0);
                bits
            }),
            Store::Bf16(x) => copy(x.get_mut(range), row, |x| {
                let bits = bf16_from_f32(x);
                error.add(x, f32_from_bf16(bits), 0.0);
                bits
            }),
            Store::I8(x, scales) => {
                let scale = scale_of(row);
                if let Some(to) = scales.get_mut(at) {
                    *to = scale;
                }
                copy(x.get_mut(range), row, |x| {
                    let n = (x / scale + MAGIC) - MAGIC;
                    // The product is rounded once here; what is stored stands for the product itself.
                    let meant = n * scale;
                    error.add(x, meant, sum_up(product_up(UNIT, meant.abs()), TINY));
                    n as i8
                });
            }
        }
        error.bounds()
    }
}

/// [`Error::NonFinite`] if some number is not finite.
pub(super) fn finite(row: &[f32]) -> Result<(), Error> {
    // Stays 0 while everything is.
    let strange = row.iter().fold(0.0f32, |sum, x| sum + x * 0.0);
    if strange == 0.0 {
        Ok(())
    } else {
        Err(Error::NonFinite)
    }
}

impl Store<'_> {
    /// The most that a number of these rows is away from what it was, if their scales say so: half an integer, and what a
    /// quotient below 128 was rounded by. Infinite in formats without a scale.
    pub(super) fn most_lost(&self, rows: impl Iterator<Item = usize>) -> f32 {
        let Store::I8(_, scales) = self else {
            return f32::INFINITY;
        };
        let scales = rows.filter_map(|at| scales.get(at));
        let largest = scales.fold(0.0f32, |largest, &scale| largest.max(scale));
        product_up(0.5 + 1.0 / 65_536.0, largest)
    }
}

fn copy<T>(to: Option<&mut [T]>, row: &[f32], mut f: impl FnMut(f32) -> T) {
    to.unwrap_or(&mut [])
        .iter_mut()
        .zip(row)
        .for_each(|(to, &x)| *to = f(x));
}

/// What one integer is worth: no number of the row is more than 127 of it. A normal number, so that division is safe.
fn scale_of(row: &[f32]) -> f32 {
    let largest = row.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    (largest / 127.0).max(f32::MIN_POSITIVE)
}

/// Differences of a row, summed up.
#[derive(Default)]
struct Differences {
    squares: f32,
    largest: f32,
}

impl Differences {
    /// `x` became `y`, which itself may be off by `more`.
    fn add(&mut self, x: f32, y: f32, more: f32) {
        if x == y && more == 0.0 {
            return;
        }
        let difference = sum_up(up((x - y).abs()), more);
        self.squares = sum_up(self.squares, product_up(difference, difference));
        self.largest = self.largest.max(difference);
    }

    fn bounds(&self) -> [f32; 2] {
        if self.largest == 0.0 {
            return [0.0; 2];
        }
        let distance = product_up(math::sqrt(self.squares), 1.0 + 2.0 * UNIT);
        [distance, self.largest]
    }
}

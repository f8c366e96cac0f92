//! Rows of keys and values as they are stored: f32, f16, bf16, or small integers with a scale per row.

use super::{MatRef, TensorRef};
use crate::error::Error;
use crate::half::{f32_from_bf16, f32_from_f16};
use core::ops::Range;

/// A form in which rows are stored. The numbers are those of the C interface and of saved caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Format {
    /// f32, as it is.
    F32 = 0,
    /// f16: 11 digits, up to 65504.
    F16 = 1,
    /// bf16: 8 digits, the range of f32.
    Bf16 = 2,
    /// Integers from -127 to 127, times an f32 per row.
    I8 = 3,
}

impl Format {
    /// Every format, in the order of its number.
    pub const ALL: [Format; 4] = [Format::F32, Format::F16, Format::Bf16, Format::I8];

    /// Bytes of one number, the scale of a row aside.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Format::F32 => 4,
            Format::F16 | Format::Bf16 => 2,
            Format::I8 => 1,
        }
    }
}

/// Keys or values to read: batch x heads x rows x cols, in any [`Format`]. What they mean is exact: only who made them
/// knows what was lost.
#[derive(Clone, Copy, Debug)]
pub struct RowsRef<'a>(Tensors<'a>);

#[derive(Clone, Copy, Debug)]
enum Tensors<'a> {
    F32(TensorRef<'a, f32>),
    F16(TensorRef<'a, u16>),
    Bf16(TensorRef<'a, u16>),
    I8(TensorRef<'a, i8>, TensorRef<'a, f32>),
}

macro_rules! of_tensor {
    ($self:ident, $t:ident => $e:expr) => {
        match &$self.0 {
            Tensors::F32($t) => $e,
            Tensors::F16($t) | Tensors::Bf16($t) => $e,
            Tensors::I8($t, _) => $e,
        }
    };
}

impl<'a> RowsRef<'a> {
    /// f16, as bits.
    #[must_use]
    pub const fn f16(bits: TensorRef<'a, u16>) -> Self {
        RowsRef(Tensors::F16(bits))
    }

    /// bf16, as bits.
    #[must_use]
    pub const fn bf16(bits: TensorRef<'a, u16>) -> Self {
        RowsRef(Tensors::Bf16(bits))
    }

    /// Integers; number c of row r is `numbers[r][c] * scales[r]`. Scales are one row of `(batch, heads, 1, rows)`:
    /// [`Error::Shape`] otherwise, [`Error::Parameter`] if one is negative or not finite.
    pub fn i8(numbers: TensorRef<'a, i8>, scales: TensorRef<'a, f32>) -> Result<Self, Error> {
        let wanted = (numbers.batch(), numbers.heads(), 1, numbers.rows());
        if (scales.batch(), scales.heads(), scales.rows(), scales.cols()) != wanted {
            return Err(Error::Shape);
        }
        for batch in 0..scales.batch() {
            for head in 0..scales.heads() {
                // As integers, infinity is above all numbers, and whatever has a sign above infinity.
                let row = scales.matrix(batch, head).row(0);
                let largest = row.iter().fold(0, |largest, x| x.to_bits().max(largest));
                if largest >= f32::INFINITY.to_bits() {
                    return Err(Error::Parameter);
                }
            }
        }
        Ok(RowsRef(Tensors::I8(numbers, scales)))
    }

    /// As [`i8`](RowsRef::i8), of scales that are known to fit.
    pub(crate) const fn i8_made(numbers: TensorRef<'a, i8>, scales: TensorRef<'a, f32>) -> Self {
        RowsRef(Tensors::I8(numbers, scales))
    }

    /// How the rows are stored.
    #[must_use]
    pub const fn format(&self) -> Format {
        match self.0 {
            Tensors::F32(_) => Format::F32,
            Tensors::F16(_) => Format::F16,
            Tensors::Bf16(_) => Format::Bf16,
            Tensors::I8(..) => Format::I8,
        }
    }

    /// Number of batch entries.
    #[must_use]
    pub const fn batch(&self) -> usize {
        of_tensor!(self, t => t.batch())
    }

    /// Number of heads.
    #[must_use]
    pub const fn heads(&self) -> usize {
        of_tensor!(self, t => t.heads())
    }

    /// Rows of each matrix.
    #[must_use]
    pub const fn rows(&self) -> usize {
        of_tensor!(self, t => t.rows())
    }

    /// Columns of each matrix.
    #[must_use]
    pub const fn cols(&self) -> usize {
        of_tensor!(self, t => t.cols())
    }

    /// The rows `range` of one matrix; none beyond the last.
    pub(crate) fn part(&self, batch: usize, head: usize, range: Range<usize>) -> RowsMat<'a> {
        match &self.0 {
            Tensors::F32(t) => RowsMat::F32(t.matrix(batch, head).row_range(range)),
            Tensors::F16(t) => RowsMat::F16(t.matrix(batch, head).row_range(range)),
            Tensors::Bf16(t) => RowsMat::Bf16(t.matrix(batch, head).row_range(range)),
            Tensors::I8(t, scales) => {
                let scales = scales.matrix(batch, head).row(0).get(range.start..).unwrap_or(&[]);
                RowsMat::I8(t.matrix(batch, head).row_range(range), scales)
            }
        }
    }
}

impl<'a> From<TensorRef<'a, f32>> for RowsRef<'a> {
    fn from(t: TensorRef<'a, f32>) -> Self {
        RowsRef(Tensors::F32(t))
    }
}

impl<'a> From<MatRef<'a, f32>> for RowsRef<'a> {
    fn from(m: MatRef<'a, f32>) -> Self {
        RowsRef(Tensors::F32(m.into()))
    }
}

/// One matrix of them; the scales are as many as there are rows, or more.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RowsMat<'a> {
    F32(MatRef<'a, f32>),
    F16(MatRef<'a, u16>),
    Bf16(MatRef<'a, u16>),
    I8(MatRef<'a, i8>, &'a [f32]),
}

impl RowsMat<'_> {
    pub(crate) const fn cols(&self) -> usize {
        match self {
            RowsMat::F32(m) => m.cols(),
            RowsMat::F16(m) | RowsMat::Bf16(m) => m.cols(),
            RowsMat::I8(m, _) => m.cols(),
        }
    }

    pub(crate) const fn rows(&self) -> usize {
        match self {
            RowsMat::F32(m) => m.rows(),
            RowsMat::F16(m) | RowsMat::Bf16(m) => m.rows(),
            RowsMat::I8(m, _) => m.rows(),
        }
    }

    /// Up to sixteen numbers of row `i` from column `first` on, in `room` where they are not f32 already, and what they
    /// are still to be multiplied by.
    pub(crate) fn numbers<'b>(&'b self, i: usize, first: usize, room: &'b mut [f32; 16]) -> (&'b [f32], f32) {
        if let RowsMat::F32(m) = self {
            let row = m.row(i).get(first..).unwrap_or(&[]);
            return (row.get(..16).unwrap_or(row), 1.0);
        }
        let count = self.cols().saturating_sub(first).min(16);
        let scale = self.widen(i, first, room);
        (room.get(..count).unwrap_or(&[]), scale)
    }

    /// The numbers of row `i` from column `first` on, as f32, as many as `to` has room for; and what they are still to
    /// be multiplied by.
    pub(crate) fn widen(&self, i: usize, first: usize, to: &mut [f32]) -> f32 {
        fn each<T: Copy>(from: &[T], first: usize, to: &mut [f32], f: impl Fn(T) -> f32) {
            let from = from.get(first..).unwrap_or(&[]);
            to.iter_mut().zip(from).for_each(|(to, &x)| *to = f(x));
        }
        match self {
            RowsMat::F32(m) => each(m.row(i), first, to, |x| x),
            RowsMat::F16(m) => each(m.row(i), first, to, f32_from_f16),
            RowsMat::Bf16(m) => each(m.row(i), first, to, f32_from_bf16),
            RowsMat::I8(m, scales) => {
                each(m.row(i), first, to, f32::from);
                return scales.get(i).copied().unwrap_or(0.0);
            }
        }
        1.0
    }
}

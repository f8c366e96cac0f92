//! Row-major matrices over a caller's slice.

use super::check::{span, Axis};
use crate::error::Error;
use core::ops::Range;

/// A matrix to read: `rows` x `cols`, rows `stride` elements apart, columns next to each other.
///
/// A stride of 0 repeats one row for ever, which is how a mask is broadcast.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a, T> MatRef<'a, T> {
    /// No rows at all.
    pub(crate) const EMPTY: MatRef<'a, T> = MatRef {
        data: &[],
        rows: 0,
        cols: 0,
        stride: 0,
    };

    /// Rows next to each other. [`Error::Short`] if `data` does not hold them; more than enough is fine.
    pub const fn new(data: &'a [T], rows: usize, cols: usize) -> Result<Self, Error> {
        Self::with_stride(data, rows, cols, cols)
    }

    /// Rows `stride` elements apart.
    pub const fn with_stride(data: &'a [T], rows: usize, cols: usize, stride: usize) -> Result<Self, Error> {
        match span(&[Axis { len: rows, stride }, Axis { len: cols, stride: 1 }]) {
            Err(e) => Err(e),
            Ok(n) if n > data.len() => Err(Error::Short),
            Ok(_) => Ok(Self::spanning(data, rows, cols, stride)),
        }
    }

    /// Of data that is known to reach so far; rows beyond it are missing, not more.
    pub(crate) const fn spanning(data: &'a [T], rows: usize, cols: usize, stride: usize) -> Self {
        MatRef {
            data,
            rows,
            cols,
            // Rows without columns are found in no data at all.
            stride: if cols == 0 { 0 } else { stride },
        }
    }

    /// Number of rows.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[must_use]
    pub const fn cols(&self) -> usize {
        self.cols
    }

    /// Elements from one row to the next.
    #[must_use]
    pub const fn stride(&self) -> usize {
        self.stride
    }

    /// Row `i`, if there is one: always `cols` long.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, i: usize) -> Option<&'a [T]> {
        if i >= self.rows {
            return None;
        }
        let start = i.wrapping_mul(self.stride);
        self.data.get(start..start.wrapping_add(self.cols))
    }

    /// Row `i`; empty beyond the last.
    #[inline(always)]
    #[must_use]
    pub fn row(&self, i: usize) -> &'a [T] {
        self.get(i).unwrap_or(&[])
    }

    /// The rows of `range`, cut to those that exist.
    #[must_use]
    pub fn row_range(&self, range: Range<usize>) -> MatRef<'a, T> {
        let end = range.end.min(self.rows);
        let start = range.start.min(end);
        MatRef {
            data: self.data.get(start.wrapping_mul(self.stride)..).unwrap_or(&[]),
            rows: end - start,
            ..*self
        }
    }

    /// The columns of `range`, cut to those that exist.
    #[must_use]
    pub fn col_range(&self, range: Range<usize>) -> MatRef<'a, T> {
        let end = range.end.min(self.cols);
        let start = range.start.min(end);
        MatRef {
            data: self.data.get(start..).unwrap_or(&[]),
            cols: end - start,
            stride: if end == start { 0 } else { self.stride },
            ..*self
        }
    }

    pub(crate) const fn data(&self) -> &'a [T] {
        self.data
    }

    /// The `count` rows from `start` on, one after the other; `None` if there are less.
    #[inline(always)]
    pub(crate) fn rows_from(&self, start: usize, count: usize) -> Option<NextRows<'a, T>> {
        (start <= self.rows && count <= self.rows - start).then(|| NextRows {
            rest: self.data.get(start.wrapping_mul(self.stride)..).unwrap_or(&[]),
            cols: self.cols,
            stride: self.stride,
        })
    }
}

/// Rows one after the other, for loops that have no time to look each one up.
pub(crate) struct NextRows<'a, T> {
    rest: &'a [T],
    cols: usize,
    stride: usize,
}

impl<'a, T> NextRows<'a, T> {
    /// The next row; empty beyond the last.
    #[inline(always)]
    pub(crate) fn row(&mut self) -> &'a [T] {
        let row = self.rest.get(..self.cols).unwrap_or(&[]);
        self.rest = self.rest.get(self.stride..).unwrap_or(&[]);
        row
    }
}

/// A matrix to write. Rows never overlap.
#[derive(Debug)]
pub struct MatMut<'a, T> {
    data: &'a mut [T],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a, T> MatMut<'a, T> {
    /// Rows next to each other.
    pub const fn new(data: &'a mut [T], rows: usize, cols: usize) -> Result<Self, Error> {
        Self::with_stride(data, rows, cols, cols)
    }

    /// Rows `stride` elements apart; [`Error::Overlap`] if that is less than a row.
    pub const fn with_stride(data: &'a mut [T], rows: usize, cols: usize, stride: usize) -> Result<Self, Error> {
        match span(&[Axis { len: rows, stride }, Axis { len: cols, stride: 1 }]) {
            Err(e) => Err(e),
            Ok(_) if rows > 1 && stride < cols => Err(Error::Overlap),
            Ok(n) if n > data.len() => Err(Error::Short),
            Ok(_) => Ok(Self::spanning(data, rows, cols, stride)),
        }
    }

    /// Of data that is known to reach so far, in rows that are known to be apart.
    pub(crate) const fn spanning(data: &'a mut [T], rows: usize, cols: usize, stride: usize) -> Self {
        MatMut {
            data,
            rows,
            cols,
            stride,
        }
    }

    /// Number of rows.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[must_use]
    pub const fn cols(&self) -> usize {
        self.cols
    }

    /// Elements from one row to the next.
    #[must_use]
    pub const fn stride(&self) -> usize {
        self.stride
    }

    /// Row `i`; empty beyond the last.
    #[inline(always)]
    pub fn row(&mut self, i: usize) -> &mut [T] {
        if i >= self.rows {
            return &mut [];
        }
        let start = i.wrapping_mul(self.stride);
        self.data
            .get_mut(start..start.wrapping_add(self.cols))
            .unwrap_or(&mut [])
    }

    /// The same matrix for a shorter time.
    pub fn reborrow(&mut self) -> MatMut<'_, T> {
        MatMut {
            data: self.data,
            rows: self.rows,
            cols: self.cols,
            stride: self.stride,
        }
    }

    /// The rows of `range`, cut to those that exist, for a shorter time.
    pub fn row_range(&mut self, range: Range<usize>) -> MatMut<'_, T> {
        let end = range.end.min(self.rows);
        let start = range.start.min(end);
        MatMut {
            data: self.data.get_mut(start.wrapping_mul(self.stride)..).unwrap_or(&mut []),
            rows: end - start,
            ..*self
        }
    }

    /// The same matrix, to read.
    #[must_use]
    pub fn as_ref(&self) -> MatRef<'_, T> {
        MatRef {
            data: self.data,
            rows: self.rows,
            cols: self.cols,
            stride: self.stride,
        }
    }

    pub(crate) fn into_data(self) -> &'a mut [T] {
        self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn shapes_are_checked_once_and_hold() {
        let x: Vec<u32> = (0..20).collect();
        let m = MatRef::with_stride(&x, 3, 4, 7).unwrap();
        assert_eq!(m.row(2), &[14, 15, 16, 17]);
        assert_eq!(m.row(3), &[] as &[u32]);
        assert_eq!(m.row_range(1..9).row(0), m.row(1));
        assert_eq!(m.col_range(1..3).row(1), &[8, 9]);
        assert_eq!(MatRef::with_stride(&x, 3, 7, 7).err(), Some(Error::Short));
        assert_eq!(MatRef::new(&x, usize::MAX, 3).err(), Some(Error::Overflow));
        assert_eq!(MatRef::new(&x, 0, usize::MAX).unwrap().row(0), &[] as &[u32]);
        // Rows without columns are rows.
        let empty = MatRef::with_stride(&x[..0], 3, 0, 7).unwrap();
        for m in [empty, m.col_range(2..2), m.col_range(9..9)] {
            assert_eq!(m.row_range(1..3).rows(), 2);
            assert_eq!((m.get(2), m.get(3)), (Some(&[] as &[u32]), None));
        }
        // Stride 0 repeats a row and is for reading only.
        assert_eq!(MatRef::with_stride(&x, 1000, 20, 0).unwrap().row(999), &x[..]);
        let mut y = [0u32; 20];
        assert_eq!(MatMut::with_stride(&mut y, 2, 4, 0).err(), Some(Error::Overlap));
        assert_eq!(MatMut::with_stride(&mut y, 2, 4, 3).err(), Some(Error::Overlap));
        assert_eq!(MatMut::with_stride(&mut y, 1, 4, 0).unwrap().row(0).len(), 4);
    }
}

//! Stacks of matrices: batch x heads x rows x cols, each axis with a stride of its own.

use super::check::{disjoint, span, Axis};
use super::mat::{MatMut, MatRef};
use crate::error::Error;

/// Shape and strides, checked; shared by both views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    shape: [usize; 4],
    strides: [usize; 3],
}

impl Layout {
    /// Strides of batch, head and row, of a tensor to write: [`Error::Overlap`] if two entries share an element.
    pub(crate) const fn to_write(shape: [usize; 4], strides: [usize; 3]) -> Result<Layout, Error> {
        let layout = Layout { shape, strides };
        match (span(&layout.axes()), disjoint(layout.axes())) {
            (Err(e), _) | (Ok(_), Err(e)) => Err(e),
            _ => Ok(layout),
        }
    }

    pub(crate) const fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Whether axis `axis` (batch, head or row) steps over all that the others in `among` reach together: then a cut
    /// across it is a cut of the memory in two. An axis of one entry does not step.
    pub(crate) fn outermost(&self, axis: usize, among: [bool; 3]) -> bool {
        let [b, h, r, c] = self.axes();
        let mut stride = 0;
        let mut inner = [b, h, r, c];
        for (i, (other, among)) in inner.iter_mut().zip(among).enumerate() {
            if i == axis && other.len > 1 {
                stride = other.stride;
            }
            if i == axis || !among {
                other.len = other.len.min(1);
            }
        }
        span(&inner).is_ok_and(|reach| reach <= stride)
    }

    /// The element at which row (batch, head, row) begins.
    pub(crate) fn element(&self, [batch, head, row]: [usize; 3]) -> usize {
        let [.., rs] = self.strides;
        self.start(batch, head).wrapping_add(row.wrapping_mul(rs))
    }

    const fn axes(&self) -> [Axis; 4] {
        let ([b, h, r, c], [bs, hs, rs]) = (self.shape, self.strides);
        [
            Axis { len: b, stride: bs },
            Axis { len: h, stride: hs },
            Axis { len: r, stride: rs },
            Axis { len: c, stride: 1 },
        ]
    }

    /// Heads one after the other, as in (batch, heads, rows, cols).
    const fn contiguous(shape: [usize; 4]) -> Result<Layout, Error> {
        let [_, h, r, c] = shape;
        let strides = match r.checked_mul(c) {
            Some(matrix) => match matrix.checked_mul(h) {
                Some(batch) => [batch, matrix, c],
                None => return Err(Error::Overflow),
            },
            None => return Err(Error::Overflow),
        };
        Ok(Layout { shape, strides })
    }

    /// Heads side by side in each row, as in (batch, rows, heads * cols).
    const fn packed(shape: [usize; 4]) -> Result<Layout, Error> {
        let [_, h, r, c] = shape;
        let strides = match h.checked_mul(c) {
            Some(row) => match row.checked_mul(r) {
                Some(batch) => [batch, c, row],
                None => return Err(Error::Overflow),
            },
            None => return Err(Error::Overflow),
        };
        Ok(Layout { shape, strides })
    }

    /// Where matrix (batch, head) begins; a caller has checked both.
    fn start(&self, batch: usize, head: usize) -> usize {
        let [bs, hs, _] = self.strides;
        batch.wrapping_mul(bs).wrapping_add(head.wrapping_mul(hs))
    }

    fn has(&self, batch: usize, head: usize) -> bool {
        let [b, h, ..] = self.shape;
        batch < b && head < h
    }
}

macro_rules! shape_getters {
    () => {
        /// Number of batch entries.
        #[must_use]
        pub const fn batch(&self) -> usize {
            let [n, ..] = self.layout.shape;
            n
        }

        /// Number of heads.
        #[must_use]
        pub const fn heads(&self) -> usize {
            let [_, n, ..] = self.layout.shape;
            n
        }

        /// Rows of each matrix.
        #[must_use]
        pub const fn rows(&self) -> usize {
            let [_, _, n, _] = self.layout.shape;
            n
        }

        /// Columns of each matrix.
        #[must_use]
        pub const fn cols(&self) -> usize {
            let [.., n] = self.layout.shape;
            n
        }
    };
}

/// Matrices to read: (batch, heads, rows, cols), columns next to each other, any other strides, 0 included.
#[derive(Clone, Copy, Debug)]
pub struct TensorRef<'a, T> {
    data: &'a [T],
    layout: Layout,
}

impl<'a, T> TensorRef<'a, T> {
    /// The 4-D layout: `[batch, heads, rows, cols]`, contiguous.
    pub const fn new(data: &'a [T], shape: [usize; 4]) -> Result<Self, Error> {
        match Layout::contiguous(shape) {
            Ok(layout) => Self::checked(data, layout),
            Err(e) => Err(e),
        }
    }

    /// The 3-D layout (batch, rows, heads * cols): heads packed side by side. `shape` is still
    /// `[batch, heads, rows, cols]`.
    pub const fn packed(data: &'a [T], shape: [usize; 4]) -> Result<Self, Error> {
        match Layout::packed(shape) {
            Ok(layout) => Self::checked(data, layout),
            Err(e) => Err(e),
        }
    }

    /// Any layout: strides of batch, head and row in elements.
    pub const fn with_strides(data: &'a [T], shape: [usize; 4], strides: [usize; 3]) -> Result<Self, Error> {
        Self::checked(data, Layout { shape, strides })
    }

    const fn checked(data: &'a [T], layout: Layout) -> Result<Self, Error> {
        match span(&layout.axes()) {
            Err(e) => Err(e),
            Ok(n) if n > data.len() => Err(Error::Short),
            Ok(_) => Ok(TensorRef { data, layout }),
        }
    }

    shape_getters!();

    /// One matrix; without rows beyond the last.
    #[must_use]
    pub fn matrix(&self, batch: usize, head: usize) -> MatRef<'a, T> {
        let ([.., rows, cols], [.., stride]) = (self.layout.shape, self.layout.strides);
        let found = self
            .layout
            .has(batch, head)
            .then(|| self.data.get(self.layout.start(batch, head)..).unwrap_or(&[]));
        found
            .and_then(|data| MatRef::with_stride(data, rows, cols, stride).ok())
            .unwrap_or(MatRef::EMPTY)
    }
}

impl<'a, T> From<MatRef<'a, T>> for TensorRef<'a, T> {
    fn from(m: MatRef<'a, T>) -> Self {
        TensorRef {
            data: m.data(),
            layout: Layout {
                shape: [1, 1, m.rows(), m.cols()],
                strides: [0, 0, m.stride()],
            },
        }
    }
}

/// Matrices to write. No two entries share an element.
#[derive(Debug)]
pub struct TensorMut<'a, T> {
    data: &'a mut [T],
    layout: Layout,
    /// Elements that lie before `data`: not 0 for a part of a tensor, in which rows keep their numbers.
    before: usize,
}

impl<'a, T> TensorMut<'a, T> {
    /// The 4-D layout: `[batch, heads, rows, cols]`, contiguous.
    pub const fn new(data: &'a mut [T], shape: [usize; 4]) -> Result<Self, Error> {
        match Layout::contiguous(shape) {
            Ok(layout) => Self::checked(data, layout),
            Err(e) => Err(e),
        }
    }

    /// The 3-D layout (batch, rows, heads * cols); see [`TensorRef::packed`].
    pub const fn packed(data: &'a mut [T], shape: [usize; 4]) -> Result<Self, Error> {
        match Layout::packed(shape) {
            Ok(layout) => Self::checked(data, layout),
            Err(e) => Err(e),
        }
    }

    /// Any layout whose entries do not share elements ([`Error::Overlap`] otherwise).
    pub const fn with_strides(data: &'a mut [T], shape: [usize; 4], strides: [usize; 3]) -> Result<Self, Error> {
        Self::checked(data, Layout { shape, strides })
    }

    const fn checked(data: &'a mut [T], layout: Layout) -> Result<Self, Error> {
        match (span(&layout.axes()), disjoint(layout.axes())) {
            (Err(e), _) | (Ok(_), Err(e)) => Err(e),
            (Ok(n), Ok(())) if n > data.len() => Err(Error::Short),
            _ => Ok(TensorMut {
                data,
                layout,
                before: 0,
            }),
        }
    }

    /// A part of a tensor: `data` is its elements from number `before` on. Rows outside of them are empty.
    pub(crate) const fn window(data: &'a mut [T], layout: Layout, before: usize) -> Self {
        TensorMut { data, layout, before }
    }

    shape_getters!();

    /// Row `row` of matrix (batch, head); empty beyond the last.
    #[inline]
    pub fn row(&mut self, batch: usize, head: usize, row: usize) -> &mut [T] {
        let ([.., rows, cols], [.., stride]) = (self.layout.shape, self.layout.strides);
        if !self.layout.has(batch, head) || row >= rows {
            return &mut [];
        }
        let start = self.layout.start(batch, head).wrapping_add(row.wrapping_mul(stride));
        let start = start.wrapping_sub(self.before);
        self.data.get_mut(start..start.wrapping_add(cols)).unwrap_or(&mut [])
    }

    /// One matrix; without rows beyond the last.
    pub fn matrix(&mut self, batch: usize, head: usize) -> MatMut<'_, T> {
        let ([.., rows, cols], [.., stride]) = (self.layout.shape, self.layout.strides);
        if !self.layout.has(batch, head) {
            return MatMut::spanning(&mut [], 0, 0, 0);
        }
        let start = self.layout.start(batch, head).wrapping_sub(self.before);
        let data = self.data.get_mut(start..).unwrap_or(&mut []);
        MatMut::spanning(data, rows, cols, stride)
    }

    /// The same matrices for a shorter time.
    pub fn reborrow(&mut self) -> TensorMut<'_, T> {
        TensorMut {
            data: self.data,
            layout: self.layout,
            before: self.before,
        }
    }

    pub(crate) const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The elements before number `element` of the whole tensor, and those from there on. Rows keep their numbers; what
    /// lies in the other part is empty here, and so is a row that the cut goes through.
    pub(crate) fn split_before(self, element: usize) -> (Self, Self) {
        let cut = element.saturating_sub(self.before).min(self.data.len());
        // The cut is at most the length, so there is no other case.
        let (a, b) = self.data.split_at_mut_checked(cut).unwrap_or_default();
        (
            Self::window(a, self.layout, self.before),
            Self::window(b, self.layout, self.before.saturating_add(cut)),
        )
    }
}

impl<'a, T> From<MatMut<'a, T>> for TensorMut<'a, T> {
    fn from(m: MatMut<'a, T>) -> Self {
        let layout = Layout {
            shape: [1, 1, m.rows(), m.cols()],
            strides: [0, 0, m.stride()],
        };
        TensorMut {
            data: m.into_data(),
            layout,
            before: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{vec, vec::Vec};

    #[test]
    fn both_head_layouts_reach_the_same_numbers() {
        // (batch 2, heads 3, rows 2, cols 4), value = its index in the 4-D layout.
        let shape = [2, 3, 2, 4];
        let four: Vec<usize> = (0..48).collect();
        let mut three = vec![0; 48];
        let mut view = TensorMut::packed(&mut three, shape).unwrap();
        let source = TensorRef::new(&four, shape).unwrap();
        for (b, h, r) in (0..2).flat_map(|b| (0..3).flat_map(move |h| (0..2).map(move |r| (b, h, r)))) {
            view.row(b, h, r).copy_from_slice(source.matrix(b, h).row(r));
        }
        assert!(view.row(0, 3, 0).is_empty() && view.row(0, 0, 2).is_empty());
        assert_eq!(three[..8], [0, 1, 2, 3, 8, 9, 10, 11]);
        let packed = TensorRef::packed(&three, shape).unwrap();
        assert_eq!(packed.matrix(1, 2).row(1), source.matrix(1, 2).row(1));
        assert_eq!(packed.matrix(2, 0).rows(), 0);
        // Matrices without columns have rows wherever they begin.
        let bare = TensorRef::with_strides(&four[..0], [2, 3, 2, 0], [99, 33, 11]).unwrap();
        assert_eq!(bare.matrix(1, 2).rows(), 2);
    }

    #[test]
    fn writing_through_shared_elements_is_refused() {
        let mut x = vec![0.0f32; 64];
        assert_eq!(
            TensorMut::with_strides(&mut x, [1, 2, 2, 4], [0, 0, 4]).err(),
            Some(Error::Overlap)
        );
        assert_eq!(
            TensorMut::with_strides(&mut x, [1, 2, 2, 4], [0, 3, 8]).err(),
            Some(Error::Overlap)
        );
        assert!(TensorMut::with_strides(&mut x, [2, 2, 2, 4], [16, 4, 8]).is_ok());
        // Nothing is shared where there is nothing.
        assert!(TensorMut::with_strides(&mut x, [2, 2, 2, 0], [0, 0, 0]).is_ok());
        assert!(TensorMut::packed(&mut x, [2, 0, 2, 4]).is_ok());
        assert_eq!(TensorMut::new(&mut x, [1, 2, 8, 5]).err(), Some(Error::Short));
        assert_eq!(TensorRef::new(&x, [usize::MAX, 2, 8, 5]).err(), Some(Error::Overflow));
    }
}

//! The sizes of an attention call, checked against views.

use crate::error::Error;
use crate::view::{RowsRef, TensorRef};

/// Sizes of a call. Query head `h` reads the keys and values of head `h / (query_heads / kv_heads)`, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Independent problems.
    pub batch: usize,
    /// Heads of queries and outputs; a multiple of `kv_heads`.
    pub query_heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Rows of each query matrix.
    pub queries: usize,
    /// Rows of each key and value matrix.
    pub keys: usize,
    /// Columns of queries and keys.
    pub dim: usize,
    /// Columns of values and outputs.
    pub value_dim: usize,
}

impl Shape {
    /// One head: `queries` x `keys`, of size `dim` and `value_dim`.
    #[must_use]
    pub const fn head(queries: usize, keys: usize, dim: usize, value_dim: usize) -> Shape {
        Shape {
            batch: 1,
            query_heads: 1,
            kv_heads: 1,
            queries,
            keys,
            dim,
            value_dim,
        }
    }

    /// The shape that three views have. [`Error::Shape`] if they do not fit each other.
    pub const fn of(q: &TensorRef<'_, f32>, k: &TensorRef<'_, f32>, v: &TensorRef<'_, f32>) -> Result<Shape, Error> {
        let shape = Shape {
            batch: q.batch(),
            query_heads: q.heads(),
            kv_heads: k.heads(),
            queries: q.rows(),
            keys: k.rows(),
            dim: q.cols(),
            value_dim: v.cols(),
        };
        if k.batch() != shape.batch
            || k.cols() != shape.dim
            || v.batch() != shape.batch
            || v.heads() != shape.kv_heads
            || v.rows() != shape.keys
        {
            return Err(Error::Shape);
        }
        match shape.check() {
            Ok(()) => Ok(shape),
            Err(e) => Err(e),
        }
    }

    /// As [`of`](Shape::of), of keys and values in any format.
    pub const fn of_rows(q: &TensorRef<'_, f32>, k: &RowsRef<'_>, v: &RowsRef<'_>) -> Result<Shape, Error> {
        let shape = Shape {
            batch: q.batch(),
            query_heads: q.heads(),
            kv_heads: k.heads(),
            queries: q.rows(),
            keys: k.rows(),
            dim: q.cols(),
            value_dim: v.cols(),
        };
        if k.batch() != shape.batch
            || k.cols() != shape.dim
            || v.batch() != shape.batch
            || v.heads() != shape.kv_heads
            || v.rows() != shape.keys
        {
            return Err(Error::Shape);
        }
        match shape.check() {
            Ok(()) => Ok(shape),
            Err(e) => Err(e),
        }
    }

    /// [`Error::Shape`] unless heads divide, [`Error::Overflow`] where an index would not fit.
    pub(crate) const fn check(&self) -> Result<(), Error> {
        let divides = if self.kv_heads == 0 {
            self.query_heads == 0
        } else {
            self.query_heads.is_multiple_of(self.kv_heads)
        };
        if !divides {
            return Err(Error::Shape);
        }
        // Lanes are (query, head of the group) pairs, and positions are signed.
        match self.queries.checked_mul(self.group()) {
            Some(n) if n <= (i64::MAX / 4) as usize && self.keys <= (i64::MAX / 4) as usize => Ok(()),
            _ => Err(Error::Overflow),
        }
    }

    /// Query heads per key head.
    #[must_use]
    pub const fn group(&self) -> usize {
        match self.query_heads.checked_div(self.kv_heads) {
            Some(n) => n,
            None => 0,
        }
    }
}

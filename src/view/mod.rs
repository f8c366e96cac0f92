//! Borrowed shapes: how a slice of the caller is to be read.

pub(crate) mod check;
mod mat;
mod rows;
mod tensor;

pub(crate) use mat::NextRows;
pub use mat::{MatMut, MatRef};
pub(crate) use rows::RowsMat;
pub use rows::{Format, RowsRef};
pub(crate) use tensor::Layout;
pub use tensor::{TensorMut, TensorRef};

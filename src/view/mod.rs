//! Borrowed shapes: how a slice of the caller is to be read.

pub(crate) mod check;
mod mat;
mod tensor;

pub use mat::{MatMut, MatRef};
pub(crate) use tensor::Layout;
pub use tensor::{TensorMut, TensorRef};

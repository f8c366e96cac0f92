//! Attention, associative memory and regression kernels that allocate nothing.
#![no_std]
#![deny(missing_docs)]

#[cfg(any(feature = "std", test))]
extern crate std;

pub mod attention;
mod bound;
mod error;
#[cfg(feature = "capi")]
pub mod ffi;
pub mod kernels;
mod math;
mod real;
mod report;
pub mod scratch;
pub mod simd;
pub mod view;

pub use bound::Bound;
pub use error::Error;
pub use real::Real;
pub use report::Report;
pub use scratch::{Need, Scratch};
pub use simd::Isa;
pub use view::{MatMut, MatRef, TensorMut, TensorRef};

/// The Rust example of README.md, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

//! Kernels that allocate nothing: attention today, associative memory and regression to come.
//!
//! Everything works on slices of the caller, returns an [`Error`] instead of panicking, and a [`Report`] instead of doing
//! something silently. The few concepts, used everywhere:
//!
//! | concept | type |
//! |---|---|
//! | shape | [`MatRef`], [`MatMut`], [`TensorRef`], [`TensorMut`]: borrowed views, checked once when made |
//! | storage | [`RowsRef`]: rows of f32, f16, bf16 or scaled integers, in a [`Format`] |
//! | memory | [`Scratch`] over bytes at any address, sized by a [`Need`] that each plan states beforehand |
//! | plan | [`attention::Exact`], [`attention::Decode`], [`attention::Gradient`], [`attention::Polynomial`]: shape and rules, checked once, run as often as you like |
//! | choice | [`Isa`]: a back end of this machine, as a value; [`Isa::strict`] is the class of every machine |
//! | promise | [`Bound`]: the largest absolute error of any output, f32 rounding included |
//! | report | [`Report`]: what happened in a call that succeeded |
//! | failure | [`Error`]: without data, the same numbers in C; an error has written nothing |
//!
//! Start at [`attention`]. Floors: `error`, `bound`, `half` and `real` use nothing; `view`, `scratch` and `math` stand on them;
//! then [`simd`], [`kernels`], [`moment`], [`attention`], and `ffi` on top. A module uses only floors below it.
#![no_std]
#![deny(missing_docs)]
// What only the C layer calls is not dead.
#![cfg_attr(not(feature = "capi"), allow(dead_code))]

#[cfg(any(feature = "std", test))]
extern crate std;

pub mod attention;
mod bound;
mod error;
#[cfg(feature = "capi")]
pub mod ffi;
pub mod half;
pub mod kernels;
mod math;
pub mod moment;
mod real;
mod report;
pub mod rng;
pub mod scratch;
pub mod simd;
pub mod view;

pub use bound::Bound;
pub use error::Error;
pub use real::Real;
pub use report::Report;
pub use scratch::{Need, Scratch};
pub use simd::Isa;
pub use view::{Format, MatMut, MatRef, RowsRef, TensorMut, TensorRef};

/// The Rust example of README.md, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

//! Attention in f64, written from the contract and not from the library, and what every integration test needs around
//! it: cases with their data, one way to run them, and the comparison.
//!
//! Plain loops over plain vectors, one row at a time: to be read, not to be fast.
// Every test binary uses its own part of this.
#![allow(dead_code, unused_imports)]

mod call;
mod case;
mod check;
mod gradient;
mod model;
mod numbers;
mod random;

pub use call::{odd_scratch, Layout, Run, STAGES, UNWRITTEN};
pub use case::{head, Case, Grid};
pub use check::{bits, conforms, same_bits, values_without_payload};
pub use gradient::{Back, Kept, Slopes};
pub use model::{Answer, Near, UNIT};
pub use numbers::{noise, read_npy};

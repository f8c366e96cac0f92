//! Random numbers that are a function of a seed and a position: the same on every machine, in any order, without state to
//! carry around.

mod philox;
mod sample;

pub use philox::{hash, Philox};
pub use sample::{distinct, normals};

//! Powers of scores summed over keys.
mod minimax;
mod minimax_table;
pub(crate) mod series;

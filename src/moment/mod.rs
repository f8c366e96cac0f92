//! Sums of monomials: what is left of any number of keys and values, and answers every polynomial of their scores.
//!
//! | | |
//! |---|---|
//! | [`features`] | monomials, their weights, their derivative backwards |
//! | [`State`] | pushes, merges and resets sums of `x^alpha [v, 1]` in the caller's memory |
//! | [`Frozen`] | the sums as queries read them: `N_j = sum over keys of s^j [v, 1]` for every degree j, a block of queries at a time |
//! | [`Attend`] | attention from these, query by query with a promise |
//! | [`Summary`] | what is known of the tokens besides: centre, ranges, norms, and how far f32 takes an answer from the truth |
//! | [`rounding`] | the roundings behind that, counted |
//!
//! With keys `x = (k - c) / rho` and queries `rho tau q`, the score of a query and a key about the centre is `s = <q, x>`,
//! and `<q, x>^j` is an inner product of monomials ([`features`]). So the state does not depend on the polynomial: one
//! asks for the sums of powers and chooses coefficients afterwards, query by query.

mod attend;
pub mod features;
mod frozen;
mod gather;
mod minimax;
mod minimax_table;
#[cfg(test)]
mod promises;
pub mod rounding;
pub mod series;
mod shape;
mod state;
mod summary;
mod waiting;

pub(crate) use attend::need as attend_need;
pub use attend::{Attend, Attended};
pub use frozen::{lanes, Answer, Frozen, Work};
pub use minimax::Minimax;
pub use shape::Shape;
pub use state::{Progress, State};
pub use summary::Summary;

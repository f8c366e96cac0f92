//! Sums of monomials: against f64, against themselves in other cuts and on other back ends, and against their bound.

mod features;
mod model;
mod refusals;
mod sums;

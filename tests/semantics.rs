//! What attention means beyond the operator's contract: kept keys, learned sinks, ALiBi, ragged sequences, odd shapes,
//! equalities that hold bit for bit, numbers that are not finite, limits, refusals.

mod reference;

#[path = "semantics/combinations.rs"]
mod combinations;
#[path = "semantics/equalities.rs"]
mod equalities;
#[path = "semantics/limits.rs"]
mod limits;
#[path = "semantics/merging.rs"]
mod merging;
#[path = "semantics/refusals.rs"]
mod refusals;

//! Rows of partials.

use super::Condition::*;
use super::Expect::{Refused, Runs};
use super::Row::{Case, NotApplicable};
use super::{Contract, Memory, Region, Row, Table};
use std::ptr::{null, null_mut};
use subquad::ffi::*;

/// Arguments of the two functions over partials.
pub struct Partials {
    into: *mut f32,
    from: *const f32,
    value_dim: usize,
    range: f32,
}

fn partials(m: &Memory) -> Partials {
    Partials {
        into: m.at(Region::Partials),
        from: m.at(Region::Q),
        value_dim: 6,
        range: f32::INFINITY,
    }
}

fn merge_rows() -> Vec<Row<Partials>> {
    vec![
        Case(Null, "into", Refused(SUBQUAD_E_NULL), |a| a.into = null_mut()),
        Case(Null, "from", Refused(SUBQUAD_E_NULL), |a| a.from = null()),
        Case(Misaligned, "into", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.into = a.into.wrapping_byte_add(1)
        }),
        Case(Misaligned, "from", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.from = a.from.wrapping_byte_add(2)
        }),
        NotApplicable(ShortScratch, "takes no scratch"),
        Case(ZeroSizes, "value_dim: sums still merge", Runs, |a| a.value_dim = 0),
        Case(OverflowingSizes, "value_dim", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.value_dim = usize::MAX
        }),
        Case(OverflowingSizes, "bytes", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.value_dim = usize::MAX / 4 - 4
        }),
        Case(Overlap, "with itself", Refused(SUBQUAD_E_OVERLAP), |a| a.from = a.into),
        Case(Overlap, "in the last number", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.from = a.into.wrapping_add(9)
        }),
        Case(Overlap, "just beside", Runs, |a| a.from = a.into.wrapping_add(10)),
        Case(NonFinite, "NaN range", Refused(SUBQUAD_E_PARAMETER), |a| {
            a.range = f32::NAN
        }),
        Case(NonFinite, "infinite range is none", Runs, |a| a.range = f32::INFINITY),
        NotApplicable(InnerStride, "takes no stride"),
        NotApplicable(HeadsNotDivisible, "has no heads"),
        Case(BadScaleOrCap, "negative range", Refused(SUBQUAD_E_PARAMETER), |a| {
            a.range = -1.0
        }),
        NotApplicable(MaskLongerThanKeys, "has no mask"),
        NotApplicable(OutOfRange, "has no index"),
        NotApplicable(IntegerLimits, "has no integer but value_dim: see OverflowingSizes"),
        NotApplicable(UnknownNumber, "takes no code"),
    ]
}

fn lse_rows() -> Vec<Row<Partials>> {
    vec![
        Case(Null, "lse", Refused(SUBQUAD_E_NULL), |a| a.into = null_mut()),
        Case(Null, "partial", Refused(SUBQUAD_E_NULL), |a| a.from = null()),
        Case(Misaligned, "lse", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.into = a.into.wrapping_byte_add(1)
        }),
        Case(Misaligned, "partial", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.from = a.from.wrapping_byte_add(2)
        }),
        NotApplicable(ShortScratch, "takes no scratch"),
        NotApplicable(ZeroSizes, "takes no size"),
        Case(OverflowingSizes, "the last address", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.from = (usize::MAX - 3) as *const f32
        }),
        Case(Overlap, "in the head", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.from = a.into.wrapping_sub(3)
        }),
        Case(Overlap, "just beside", Runs, |a| a.from = a.into.wrapping_add(1)),
        NotApplicable(NonFinite, "every partial has a result"),
        NotApplicable(InnerStride, "takes no stride"),
        NotApplicable(HeadsNotDivisible, "has no heads"),
        NotApplicable(BadScaleOrCap, "has no scale"),
        NotApplicable(MaskLongerThanKeys, "has no mask"),
        NotApplicable(OutOfRange, "has no index"),
        NotApplicable(IntegerLimits, "takes no integer"),
        NotApplicable(UnknownNumber, "takes no code"),
    ]
}

pub fn tables() -> Vec<Box<dyn Contract>> {
    // SAFETY: pointers reach over partials inside the block, or are refused.
    let merge = |a: &Partials| unsafe { subquad_partial_merge(a.into, a.from, a.value_dim, a.range) };
    // SAFETY: as above.
    let lse = |a: &Partials| unsafe { subquad_partial_lse(a.from, a.into) };
    vec![
        Box::new(Table {
            function: "subquad_partial_merge",
            good: partials,
            call: merge,
            rows: merge_rows(),
        }),
        Box::new(Table {
            function: "subquad_partial_lse",
            good: partials,
            call: lse,
            rows: lse_rows(),
        }),
    ]
}

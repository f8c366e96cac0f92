//! Rows of turning rows.

use super::memory::set;
use super::Condition::*;
use super::Expect::{Nothing, Refused, Runs};
use super::Row::{Case, NotApplicable};
use super::{Contract, Memory, Region, Row, Table};
use std::ptr::{null, null_mut};
use subquad::ffi::*;

pub struct Args {
    rotary: subquad_rotary,
    rows: subquad_tensor_mut,
    positions: *const u64,
    first: u64,
}

const HEADS: usize = 3;
const ROWS: usize = 5;
const DIM: usize = 8;

fn good(m: &Memory) -> Args {
    Args {
        rotary: subquad_rotary {
            rotary_dim: 6,
            base: 10_000.0,
            position_scale: 2.0,
            pairing: SUBQUAD_PAIRING_HALVES,
            isa: SUBQUAD_ISA_BEST,
        },
        rows: subquad_tensor_mut {
            data: m.at(Region::Out),
            batch: 2,
            heads: HEADS,
            rows: ROWS,
            cols: DIM,
            batch_stride: HEADS * ROWS * DIM,
            head_stride: ROWS * DIM,
            row_stride: DIM,
            col_stride: 1,
        },
        positions: m.at(Region::Lengths),
        first: 0,
    }
}

fn rows() -> Vec<Row<Args>> {
    vec![
        Case(Null, "rows", Refused(SUBQUAD_E_NULL), |a| a.rows.data = null_mut()),
        Case(Null, "positions count from the first", Runs, |a| a.positions = null()),
        Case(Misaligned, "rows", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.rows.data = a.rows.data.wrapping_byte_add(2)
        }),
        Case(Misaligned, "positions", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.positions = a.positions.wrapping_byte_add(4)
        }),
        Case(
            ZeroSizes,
            "all zero: there is nothing to do",
            Refused(SUBQUAD_E_PARAMETER),
            |a| {
                // SAFETY: every field is a number.
                a.rotary = unsafe { std::mem::zeroed() }
            },
        ),
        Case(ZeroSizes, "rotary_dim means all columns", Runs, |a| {
            a.rotary.rotary_dim = 0
        }),
        Case(ZeroSizes, "position_scale means 1", Runs, |a| {
            a.rotary.position_scale = 0.0
        }),
        Case(ZeroSizes, "no rows", Nothing, |a| a.rows.rows = 0),
        Case(ZeroSizes, "no columns", Refused(SUBQUAD_E_SHAPE), |a| a.rows.cols = 0),
        Case(OverflowingSizes, "heads", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.rows.heads = usize::MAX
        }),
        Case(OverflowingSizes, "rows", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.rows.rows = usize::MAX
        }),
        Case(Overlap, "rows and positions", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.positions = a.rows.data.cast_const().cast()
        }),
        Case(Overlap, "heads in one place", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.rows.head_stride = 0
        }),
        Case(NonFinite, "rows are never refused", Runs, |a| {
            set(a.rows.data, f32::NAN)
        }),
        Case(NonFinite, "base", Refused(SUBQUAD_E_PARAMETER), |a| {
            a.rotary.base = f32::NAN
        }),
        Case(InnerStride, "rows", Refused(SUBQUAD_E_SHAPE), |a| a.rows.col_stride = 2),
        Case(HeadsNotDivisible, "an odd rotary_dim", Refused(SUBQUAD_E_SHAPE), |a| {
            a.rotary.rotary_dim = 5
        }),
        Case(BadScaleOrCap, "scale below 1", Refused(SUBQUAD_E_PARAMETER), |a| {
            a.rotary.position_scale = 0.5
        }),
        Case(BadScaleOrCap, "base of 1", Refused(SUBQUAD_E_PARAMETER), |a| {
            a.rotary.base = 1.0
        }),
        Case(OutOfRange, "rotary_dim", Refused(SUBQUAD_E_SHAPE), |a| {
            a.rotary.rotary_dim = DIM + 2
        }),
        Case(IntegerLimits, "the last position", Runs, |a| {
            (a.positions, a.first) = (null(), u64::MAX - ROWS as u64)
        }),
        Case(IntegerLimits, "beyond it", Refused(SUBQUAD_E_OVERFLOW), |a| {
            (a.positions, a.first) = (null(), u64::MAX)
        }),
        Case(IntegerLimits, "rotary_dim", Refused(SUBQUAD_E_SHAPE), |a| {
            a.rotary.rotary_dim = usize::MAX
        }),
        Case(UnknownNumber, "pairing", Refused(SUBQUAD_E_PARAMETER), |a| {
            a.rotary.pairing = 2
        }),
        Case(UnknownNumber, "isa", Refused(SUBQUAD_E_UNSUPPORTED), |a| {
            a.rotary.isa = 99
        }),
        NotApplicable(ShortScratch, "takes no scratch"),
        NotApplicable(MaskLongerThanKeys, "has no mask"),
    ]
}

pub fn tables() -> Vec<Box<dyn Contract>> {
    vec![Box::new(Table {
        function: "subquad_rotary_apply",
        good,
        // SAFETY: pointers reach over what the sizes say inside the block, or are refused before they are followed.
        call: |a| unsafe { subquad_rotary_apply(a.rotary, a.rows, a.positions, a.first) },
        rows: rows(),
    })]
}

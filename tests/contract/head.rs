//! Rows of attention for one head.

use super::memory::{set, SIZE};
use super::Condition::*;
use super::Expect::{Nothing, Refused, Runs};
use super::Row::{Case, NotApplicable};
use super::{Contract, Memory, Region, Row, Table};
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use subquad::ffi::*;

/// The head lies beside its pointer, so that rows can spoil both.
pub struct Args {
    head: subquad_head,
    head_at: *const subquad_head,
    work: *mut c_void,
    work_size: usize,
    report: *mut subquad_report,
}

const QUERIES: usize = 3;
const KEYS: usize = 5;
const DIM: usize = 4;
const VALUE_DIM: usize = 6;

fn good(m: &Memory) -> Args {
    let matrix = |region, rows, cols| subquad_matrix {
        data: m.at(region),
        rows,
        cols,
        stride: cols,
    };
    Args {
        head: subquad_head {
            q: matrix(Region::Q, QUERIES, DIM),
            k: matrix(Region::K, KEYS, DIM),
            v: matrix(Region::V, KEYS, VALUE_DIM),
            out: subquad_matrix_mut {
                data: m.at(Region::Out),
                rows: QUERIES,
                cols: VALUE_DIM,
                stride: VALUE_DIM,
            },
            offset: 1,
            causal: 1,
            scale: 0.0,
            isa: SUBQUAD_ISA_BEST,
        },
        head_at: m.at(Region::Rules),
        work: m.at(Region::Work),
        work_size: SIZE,
        report: m.at(Region::Report),
    }
}

fn head(a: &Args) -> i32 {
    let at = if a.head_at.is_null() || !a.head_at.is_aligned() {
        a.head_at
    } else {
        &a.head
    };
    // SAFETY: pointers reach over what the sizes say inside the block, or are refused before they are followed.
    unsafe { subquad_attention_head(at, a.work, a.work_size, a.report) }
}

fn pointers() -> Vec<Row<Args>> {
    vec![
        Case(Null, "head", Refused(SUBQUAD_E_NULL), |a: &mut Args| a.head_at = null()),
        Case(Null, "q", Refused(SUBQUAD_E_NULL), |a| a.head.q.data = null()),
        Case(Null, "k", Refused(SUBQUAD_E_NULL), |a| a.head.k.data = null()),
        Case(Null, "v", Refused(SUBQUAD_E_NULL), |a| a.head.v.data = null()),
        Case(Null, "out", Refused(SUBQUAD_E_NULL), |a| a.head.out.data = null_mut()),
        Case(Null, "work", Refused(SUBQUAD_E_NULL), |a| a.work = null_mut()),
        Case(Null, "report is not wanted", Runs, |a| a.report = null_mut()),
        Case(Misaligned, "head", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.head_at = a.head_at.wrapping_byte_add(1)
        }),
        Case(Misaligned, "q", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.head.q.data = a.head.q.data.wrapping_byte_add(1)
        }),
        Case(Misaligned, "k", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.head.k.data = a.head.k.data.wrapping_byte_add(2)
        }),
        Case(Misaligned, "v", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.head.v.data = a.head.v.data.wrapping_byte_add(3)
        }),
        Case(Misaligned, "out", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.head.out.data = a.head.out.data.wrapping_byte_add(1)
        }),
        Case(Misaligned, "report", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.report = a.report.wrapping_byte_add(4)
        }),
        Case(Misaligned, "work is free", Runs, |a| {
            (a.work, a.work_size) = (a.work.wrapping_byte_add(1), a.work_size - 1)
        }),
        Case(Overlap, "out and q", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.head.out.data = a.head.q.data.cast_mut()
        }),
        Case(Overlap, "out and the last of k", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.head.out.data = a.head.k.data.wrapping_add(KEYS * DIM - 1).cast_mut()
        }),
        Case(Overlap, "the last of out and v", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.head.v.data = a.head.out.data.wrapping_add(QUERIES * VALUE_DIM - 1)
        }),
        Case(Overlap, "v just after out", Runs, |a| {
            a.head.v.data = a.head.out.data.wrapping_add(QUERIES * VALUE_DIM)
        }),
        Case(Overlap, "out and work", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.work = a.head.out.data.cast()
        }),
        Case(Overlap, "out and report", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.report = a.head.out.data.cast()
        }),
        Case(Overlap, "work and report", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.report = a.work.cast()
        }),
        Case(Overlap, "work and q", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.work = a.head.q.data.cast_mut().cast()
        }),
        Case(Overlap, "report in the head", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.report = (&raw mut a.head).cast()
        }),
        Case(Overlap, "rows of out", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.head.out.stride = VALUE_DIM - 1
        }),
        Case(Overlap, "q, k and v may", Runs, |a| {
            (a.head.k.data, a.head.v.data) = (a.head.q.data, a.head.q.data)
        }),
    ]
}

fn numbers() -> Vec<Row<Args>> {
    vec![
        Case(ShortScratch, "none", Refused(SUBQUAD_E_SHORT), |a| {
            (a.work, a.work_size) = (null_mut(), 0)
        }),
        Case(ShortScratch, "little", Refused(SUBQUAD_E_SHORT), |a| a.work_size = 30),
        Case(ZeroSizes, "queries", Nothing, |a| {
            (a.head.q.rows, a.head.q.data) = (0, null());
            (a.head.out.rows, a.head.out.data) = (0, null_mut());
        }),
        Case(ZeroSizes, "no keys: every row sees none", Runs, |a| {
            (a.head.k.rows, a.head.k.data) = (0, null());
            (a.head.v.rows, a.head.v.data) = (0, null());
        }),
        Case(ZeroSizes, "no dim: every score is 0", Runs, |a| {
            (a.head.q.cols, a.head.k.cols) = (0, 0)
        }),
        Case(ZeroSizes, "no value_dim", Nothing, |a| {
            (a.head.v.cols, a.head.out.cols, a.head.out.data) = (0, 0, null_mut())
        }),
        Case(OverflowingSizes, "q rows", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.head.q.rows = usize::MAX
        }),
        Case(
            OverflowingSizes,
            "q rows without stride",
            Refused(SUBQUAD_E_SHAPE),
            |a| (a.head.q.rows, a.head.q.stride) = (usize::MAX, 0),
        ),
        Case(OverflowingSizes, "k cols", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.head.k.cols = usize::MAX / 2
        }),
        Case(OverflowingSizes, "v stride", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.head.v.stride = usize::MAX / 4
        }),
        Case(OverflowingSizes, "out stride", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.head.out.stride = usize::MAX
        }),
        Case(OverflowingSizes, "work", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.work_size = usize::MAX
        }),
        Case(OverflowingSizes, "the last address", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.head.q.data = (usize::MAX & !15) as *const f32
        }),
        Case(NonFinite, "values are never refused", Runs, |a| {
            set(a.head.v.data, f32::NAN)
        }),
        NotApplicable(InnerStride, "columns are next to each other"),
        Case(HeadsNotDivisible, "keys differ", Refused(SUBQUAD_E_SHAPE), |a| {
            a.head.v.rows = 4
        }),
        Case(HeadsNotDivisible, "dims differ", Refused(SUBQUAD_E_SHAPE), |a| {
            a.head.k.cols = 3
        }),
        Case(HeadsNotDivisible, "out of other rows", Refused(SUBQUAD_E_SHAPE), |a| {
            a.head.out.rows = 2
        }),
        Case(
            HeadsNotDivisible,
            "out of other columns",
            Refused(SUBQUAD_E_SHAPE),
            |a| a.head.out.cols = 5,
        ),
        Case(BadScaleOrCap, "negative", Refused(SUBQUAD_E_PARAMETER), |a| {
            a.head.scale = -1.0
        }),
        Case(BadScaleOrCap, "NaN", Refused(SUBQUAD_E_PARAMETER), |a| {
            a.head.scale = f32::NAN
        }),
        Case(BadScaleOrCap, "infinite", Refused(SUBQUAD_E_PARAMETER), |a| {
            a.head.scale = f32::INFINITY
        }),
        Case(BadScaleOrCap, "infinite in base 2", Refused(SUBQUAD_E_PARAMETER), |a| {
            a.head.scale = f32::MAX
        }),
        NotApplicable(MaskLongerThanKeys, "has no mask"),
        NotApplicable(OutOfRange, "has no index"),
        Case(IntegerLimits, "first offset", Runs, |a| a.head.offset = i64::MIN),
        Case(IntegerLimits, "last offset", Runs, |a| a.head.offset = i64::MAX),
        Case(IntegerLimits, "any causal is causal", Runs, |a| {
            a.head.causal = i32::MIN
        }),
        Case(UnknownNumber, "isa 99", Refused(SUBQUAD_E_UNSUPPORTED), |a| {
            a.head.isa = 99
        }),
        Case(UnknownNumber, "isa -1", Refused(SUBQUAD_E_UNSUPPORTED), |a| {
            a.head.isa = -1
        }),
    ]
}

/// Sizes, and the largest size in place of an error.
fn need(sizes: &[usize; 3]) -> i32 {
    let [keys, dim, value_dim] = *sizes;
    match subquad_attention_head_need(keys, dim, value_dim) {
        usize::MAX => SUBQUAD_E_OVERFLOW,
        _ => SUBQUAD_OK,
    }
}

fn need_rows() -> Vec<Row<[usize; 3]>> {
    let mut rows = vec![
        Case(ZeroSizes, "all", Runs, |a: &mut [usize; 3]| *a = [0; 3]),
        Case(OverflowingSizes, "dim", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a[1] = usize::MAX
        }),
        Case(OverflowingSizes, "value_dim", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a[2] = usize::MAX / 8
        }),
        Case(OverflowingSizes, "keys stop to count", Runs, |a| a[0] = usize::MAX),
    ];
    let others = super::Condition::ALL
        .into_iter()
        .filter(|c| !matches!(c, ZeroSizes | OverflowingSizes));
    rows.extend(others.map(|c| NotApplicable(c, "takes three sizes and no pointer")));
    rows
}

pub fn tables() -> Vec<Box<dyn Contract>> {
    vec![
        Box::new(Table {
            function: "subquad_attention_head",
            good,
            call: head,
            rows: pointers().into_iter().chain(numbers()).collect(),
        }),
        Box::new(Table {
            function: "subquad_attention_head_need",
            good: |_| [KEYS, DIM, VALUE_DIM],
            call: need,
            rows: need_rows(),
        }),
    ]
}

/// What the query says is enough at the worst address.
pub fn check_need(m: &Memory) {
    let mut a = good(m);
    a.work_size = subquad_attention_head_need(KEYS, DIM, VALUE_DIM);
    a.work = a.work.wrapping_byte_add(1);
    assert_eq!(head(&a), SUBQUAD_OK);
}

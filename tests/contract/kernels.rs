//! Rows of the kernels.

use super::Condition::*;
use super::Expect::{Nothing, Refused, Runs};
use super::Row::{Case, NotApplicable};
use super::{Contract, Memory, Region, Row, Table};
use std::ptr::{null, null_mut};
use subquad::ffi::*;

/// Arguments of all kernels: numbers in, numbers out, how many.
pub struct Args<T> {
    isa: i32,
    x: *const T,
    y: *const T,
    n: usize,
    to: *mut T,
}

fn good<T>(memory: &Memory) -> Args<T> {
    Args {
        isa: SUBQUAD_ISA_BEST,
        x: memory.at(Region::Q),
        y: memory.at(Region::K),
        n: 21,
        to: memory.at(Region::Out),
    }
}

/// What all kernels share.
fn with_shared<T: 'static>(mut rows: Vec<Row<Args<T>>>) -> Vec<Row<Args<T>>> {
    rows.extend([
        NotApplicable(ShortScratch, "takes no scratch"),
        NotApplicable(NonFinite, "every number has a result"),
        NotApplicable(InnerStride, "takes no stride"),
        NotApplicable(HeadsNotDivisible, "has no heads"),
        NotApplicable(BadScaleOrCap, "has no scale"),
        NotApplicable(MaskLongerThanKeys, "has no mask"),
        NotApplicable(OutOfRange, "has no index"),
        NotApplicable(IntegerLimits, "has no integer but n: see OverflowingSizes"),
    ]);
    rows.extend([
        Case(
            UnknownNumber,
            "isa 99",
            Refused(SUBQUAD_E_UNSUPPORTED),
            |a: &mut Args<T>| a.isa = 99,
        ),
        Case(UnknownNumber, "isa -1", Refused(SUBQUAD_E_UNSUPPORTED), |a| a.isa = -1),
        Case(OverflowingSizes, "n", Refused(SUBQUAD_E_OVERFLOW), |a| a.n = usize::MAX),
        Case(OverflowingSizes, "n bytes", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.n = usize::MAX / size_of::<T>()
        }),
        Case(OverflowingSizes, "the last address", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.x = (usize::MAX & !63) as *const T;
            a.y = a.x;
            a.to = a.x.cast_mut();
        }),
    ]);
    rows
}

fn map(function: &'static str, call: fn(&Args<f32>) -> i32) -> Box<dyn Contract> {
    let rows = with_shared(vec![
        Case(Null, "x", Refused(SUBQUAD_E_NULL), |a: &mut Args<f32>| a.x = null()),
        Case(Null, "y", Refused(SUBQUAD_E_NULL), |a| a.to = null_mut()),
        Case(Misaligned, "x", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.x = a.x.wrapping_byte_add(2)
        }),
        Case(Misaligned, "y", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.to = a.to.wrapping_byte_add(1)
        }),
        Case(ZeroSizes, "n", Nothing, |a| a.n = 0),
        Case(ZeroSizes, "n, and null", Nothing, |a| {
            (a.n, a.x, a.to) = (0, null(), null_mut())
        }),
        Case(Overlap, "y is x", Refused(SUBQUAD_E_OVERLAP), |a| a.to = a.x.cast_mut()),
        Case(Overlap, "the last of x", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.to = a.x.wrapping_add(a.n - 1).cast_mut()
        }),
        Case(Overlap, "the last of y", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.x = a.to.wrapping_add(a.n - 1)
        }),
        Case(Overlap, "just beside", Runs, |a| a.x = a.to.wrapping_add(a.n)),
    ]);
    Box::new(Table {
        function,
        good,
        call,
        rows,
    })
}

fn product<T: 'static>(function: &'static str, call: fn(&Args<T>) -> i32) -> Box<dyn Contract> {
    let rows = with_shared(vec![
        Case(Null, "x", Refused(SUBQUAD_E_NULL), |a: &mut Args<T>| a.x = null()),
        Case(Null, "y", Refused(SUBQUAD_E_NULL), |a| a.y = null()),
        Case(Null, "result", Refused(SUBQUAD_E_NULL), |a| a.to = null_mut()),
        Case(Misaligned, "x", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.x = a.x.wrapping_byte_add(1)
        }),
        Case(Misaligned, "y", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.y = a.y.wrapping_byte_add(2)
        }),
        Case(Misaligned, "result", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.to = a.to.wrapping_byte_add(3)
        }),
        // The sum of nothing is 0, and that is a result.
        Case(ZeroSizes, "n, and null", Runs, |a| {
            (a.n, a.x, a.y) = (0, null(), null())
        }),
        Case(Overlap, "result in x", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.to = a.x.wrapping_add(20).cast_mut()
        }),
        Case(Overlap, "result in y", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.to = a.y.cast_mut()
        }),
        Case(Overlap, "y is x, both read", Runs, |a| a.y = a.x),
    ]);
    Box::new(Table {
        function,
        good,
        call,
        rows,
    })
}

fn softmax() -> Box<dyn Contract> {
    let rows = with_shared(vec![
        Case(Null, "row", Refused(SUBQUAD_E_NULL), |a: &mut Args<f32>| {
            a.to = null_mut()
        }),
        Case(Misaligned, "row", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.to = a.to.wrapping_byte_add(2)
        }),
        Case(ZeroSizes, "n", Nothing, |a| a.n = 0),
        Case(ZeroSizes, "n, and null", Nothing, |a| (a.n, a.to) = (0, null_mut())),
        NotApplicable(Overlap, "works in place, on one row"),
    ]);
    // SAFETY: the row is in the block, or nowhere.
    let call = |a: &Args<f32>| unsafe { subquad_softmax(a.isa, a.to, a.n) };
    Box::new(Table {
        function: "subquad_softmax",
        good,
        call,
        rows,
    })
}

pub fn tables() -> Vec<Box<dyn Contract>> {
    // SAFETY: pointers reach over n numbers of the block, or are refused.
    let exp = |a: &Args<f32>| unsafe { subquad_exp(a.isa, a.x, a.to, a.n) };
    // SAFETY: as above.
    let tanh = |a: &Args<f32>| unsafe { subquad_tanh(a.isa, a.x, a.to, a.n) };
    // SAFETY: as above.
    let dot = |a: &Args<f32>| unsafe { subquad_dot(a.isa, a.x, a.y, a.n, a.to) };
    // SAFETY: as above.
    let dot_f64 = |a: &Args<f64>| unsafe { subquad_dot_f64(a.isa, a.x, a.y, a.n, a.to) };
    vec![
        map("subquad_exp", exp),
        map("subquad_tanh", tanh),
        softmax(),
        product("subquad_dot", dot),
        product("subquad_dot_f64", dot_f64),
    ]
}

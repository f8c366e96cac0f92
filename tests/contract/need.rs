//! Rows of the size queries of attention.

use super::attention::{self, good, place, Forward};
use super::rules::rules_rows;
use super::Condition::*;
use super::Expect::{Refused, Runs};
use super::Row::{Case, NotApplicable};
use super::{Contract, Memory, Row, Table};
use std::ptr::null_mut;
use subquad::ffi::*;

type Call = fn(&Forward) -> i32;

fn need(a: &Forward) -> i32 {
    // SAFETY: as for `forward`.
    unsafe { subquad_attention_forward_need(place(a), a.shape, a.want_scores, a.bytes) }
}

fn decode_need(a: &Forward) -> i32 {
    // SAFETY: as for `forward`.
    unsafe { subquad_attention_decode_need(place(a), a.shape, a.bytes) }
}

pub fn need_rows() -> Vec<Row<Forward>> {
    let mut rows = vec![
        Case(Null, "bytes", Refused(SUBQUAD_E_NULL), |a: &mut Forward| {
            a.bytes = null_mut()
        }),
        Case(Misaligned, "bytes", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.bytes = a.bytes.wrapping_byte_add(1)
        }),
        NotApplicable(ShortScratch, "takes no scratch"),
        // A size of no work is a number too.
        Case(ZeroSizes, "all", Runs, |a| {
            a.rules_at = null_mut();
            let none = 0;
            a.shape = subquad_shape {
                batch: none,
                query_heads: none,
                kv_heads: none,
                queries: none,
                keys: none,
                dim: none,
                value_dim: none,
            };
        }),
        Case(OverflowingSizes, "dim", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.shape.dim = usize::MAX
        }),
        Case(OverflowingSizes, "value_dim", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.shape.value_dim = usize::MAX / 8
        }),
        Case(OverflowingSizes, "queries", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.shape.queries = usize::MAX
        }),
        Case(OverflowingSizes, "keys", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.shape.keys = usize::MAX
        }),
        Case(Overlap, "bytes in lengths", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.bytes = a.lengths
        }),
        Case(HeadsNotDivisible, "3 for 4", Refused(SUBQUAD_E_SHAPE), |a| {
            a.shape.kv_heads = 3
        }),
        Case(HeadsNotDivisible, "0 for 4", Refused(SUBQUAD_E_SHAPE), |a| {
            a.shape.kv_heads = 0
        }),
        Case(UnknownNumber, "any scores are scores", Runs, |a| {
            a.want_scores = i32::MIN
        }),
    ];
    rows.extend(rules_rows());
    rows
}

/// At the worst address, one past a boundary, a call takes what the query says and not a byte less.
pub fn check_need(m: &Memory) {
    for (want_scores, rules) in [(0, false), (0, true), (1, false), (1, true)] {
        for (need, call) in [
            (need as Call, attention::forward as Call),
            (decode_need, attention::decode),
        ] {
            let mut a = good(m);
            a.want_scores = want_scores;
            if want_scores == 0 {
                a.outputs.scores.data = null_mut();
            }
            if !rules {
                a.rules_at = null_mut();
            }
            assert_eq!(need(&a), SUBQUAD_OK);
            // SAFETY: `need` has just written there.
            a.work_size = unsafe { a.bytes.read() };
            let boundary = a.work as usize;
            a.work = a
                .work
                .wrapping_byte_add(boundary.wrapping_neg() % subquad::scratch::ALIGN + 1);
            assert_eq!(call(&a), SUBQUAD_OK);
            a.work_size -= 1;
            assert_eq!(call(&a), SUBQUAD_E_SHORT);
        }
    }
}

pub fn tables() -> Vec<Box<dyn Contract>> {
    let table = |function, call| -> Box<dyn Contract> {
        Box::new(Table {
            function,
            good,
            call,
            rows: need_rows(),
        })
    };
    vec![
        table("subquad_attention_forward_need", need),
        table("subquad_attention_decode_need", decode_need),
    ]
}

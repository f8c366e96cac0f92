//! Rows of the split into tasks: those of the call, of its size query, and what only tasks have.

use super::attention::{forward, forward_rows, good, no_queries, place, Forward};
use super::rules::rules_rows;
use super::Condition::*;
use super::Expect::{Refused, Runs};
use super::Row::{Case, NotApplicable};
use super::{Contract, Memory, Region, Row, Table};
use std::ptr::null_mut;
use subquad::ffi::*;

fn run(a: &Forward, index: usize) -> i32 {
    let [_, count] = a.tasks;
    // SAFETY: as for `forward`.
    unsafe {
        let rules = place(a);
        let (out, work, size) = (a.outputs, a.work, a.work_size);
        subquad_attention_run_task(index, count, rules, a.q, a.k, a.v, out, work, size, a.report)
    }
}

/// Every task says the same.
fn run_all(a: &Forward) -> i32 {
    let [first, count] = a.tasks;
    let status = run(a, first);
    assert!((first..count).skip(1).all(|index| run(a, index) == status));
    status
}

fn tasks(a: &Forward) -> i32 {
    let [_, wanted] = a.tasks;
    // SAFETY: as for `forward`.
    unsafe { subquad_attention_tasks(place(a), a.shape, a.outputs, wanted, a.bytes) }
}

fn run_rows() -> Vec<Row<Forward>> {
    let mut rows = forward_rows();
    rows.extend([
        Case(OutOfRange, "index", Refused(SUBQUAD_E_RANGE), |a: &mut Forward| {
            a.tasks = [3, 3]
        }),
        Case(IntegerLimits, "index", Refused(SUBQUAD_E_RANGE), |a| {
            a.tasks = [usize::MAX, usize::MAX]
        }),
        Case(IntegerLimits, "more tasks than anybody has", Runs, |a| {
            a.tasks = [usize::MAX - 2, usize::MAX]
        }),
        Case(ZeroSizes, "no tasks", Refused(SUBQUAD_E_PARAMETER), |a| {
            a.tasks = [0, 0]
        }),
    ]);
    rows
}

fn tasks_rows() -> Vec<Row<Forward>> {
    let mut rows = vec![
        Case(Null, "count", Refused(SUBQUAD_E_NULL), |a: &mut Forward| {
            a.bytes = null_mut()
        }),
        Case(Null, "every output", Refused(SUBQUAD_E_NULL), |a| {
            (a.outputs.out.data, a.outputs.lse.data) = (null_mut(), null_mut());
            (a.outputs.partials.data, a.outputs.scores.data) = (null_mut(), null_mut());
        }),
        Case(Misaligned, "count", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.bytes = a.bytes.wrapping_byte_add(1)
        }),
        Case(Misaligned, "lse", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.outputs.lse.data = a.outputs.lse.data.wrapping_byte_add(1)
        }),
        NotApplicable(ShortScratch, "takes no scratch"),
        Case(ZeroSizes, "no tasks", Refused(SUBQUAD_E_PARAMETER), |a| {
            a.tasks = [0, 0]
        }),
        // Nothing to do is one task.
        Case(ZeroSizes, "no queries", Runs, |a| {
            no_queries(a, |t| &mut t.rows);
            a.shape.queries = 0;
        }),
        Case(OverflowingSizes, "keys", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.shape.keys = usize::MAX
        }),
        Case(OverflowingSizes, "out stride", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.outputs.out.row_stride = usize::MAX
        }),
        Case(Overlap, "rows of out", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.outputs.out.row_stride = 1
        }),
        Case(Overlap, "count in lengths", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.bytes = a.lengths
        }),
        Case(InnerStride, "out", Refused(SUBQUAD_E_SHAPE), |a| {
            a.outputs.out.col_stride = 2
        }),
        Case(HeadsNotDivisible, "3 for 4", Refused(SUBQUAD_E_SHAPE), |a| {
            a.shape.kv_heads = 3
        }),
        Case(HeadsNotDivisible, "out of other rows", Refused(SUBQUAD_E_SHAPE), |a| {
            a.outputs.out.rows = 2
        }),
        Case(IntegerLimits, "all that can be had", Runs, |a| {
            a.tasks = [0, usize::MAX]
        }),
        Case(UnknownNumber, "stage 4", Refused(SUBQUAD_E_PARAMETER), |a| {
            a.outputs.scores_stage = 4
        }),
    ];
    rows.extend(rules_rows());
    rows
}

/// For every number of tasks, the last first: the memory that one call leaves, and reports that add up to its own.
pub fn check_tasks(m: &Memory) {
    let written = [Region::Out, Region::Lse, Region::Partials, Region::Scores];
    let mut a = good(m);
    assert_eq!(forward(&a), SUBQUAD_OK);
    // SAFETY: the call has just written there.
    let (after, whole) = (m.copy(), unsafe { a.report.read() });
    for wanted in 1..=16 {
        a.tasks = [0, wanted];
        a.bytes = m.at(Region::Floats);
        let floats = m.copy();
        // The slopes and sink logits of the rules are there.
        a.rules_at = null_mut();
        assert_eq!(tasks(&a), SUBQUAD_OK);
        // SAFETY: the call has just written there.
        let count = unsafe { a.bytes.read() };
        assert_eq!(count, [1, 2, 2, 4, 4, 4, 4, 8][wanted.min(8) - 1]);
        m.put(
            Region::Floats,
            &floats[super::memory::SIZE / 8 * Region::Floats as usize..][..16],
        );
        a = good(m);
        for region in written {
            m.put(region, &[f32::NAN; 1024]);
        }
        for tasks in [wanted, count] {
            a.tasks = [0, tasks];
            let mut sums = [0, 0];
            for index in (0..tasks).rev() {
                assert_eq!(run(&a, index), SUBQUAD_OK);
                // SAFETY: the task has just written there.
                let report = unsafe { a.report.read() };
                sums = [sums[0] + report.masked_rows, sums[1] + report.non_finite_rows];
            }
            assert_eq!(sums, [whole.masked_rows, whole.non_finite_rows]);
        }
        // What lies behind the outputs was not the call's to write.
        for (region, len) in written.into_iter().zip([144, 24, 240, 120]) {
            let words = super::memory::SIZE / 8 * region as usize..;
            let (now, then) = (m.copy(), &after[words.clone()][..len / 2]);
            assert_eq!(now[words][..len / 2], *then, "{region:?}, {wanted} tasks");
        }
    }
}

pub fn tables() -> Vec<Box<dyn Contract>> {
    vec![
        Box::new(Table {
            function: "subquad_attention_run_task",
            good,
            call: run_all,
            rows: run_rows(),
        }),
        Box::new(Table {
            function: "subquad_attention_tasks",
            good,
            call: tasks,
            rows: tasks_rows(),
        }),
    ]
}

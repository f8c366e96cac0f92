//! Rows of the split into tasks: those of the call, of its size query, and what only tasks have.

use super::attention::{decode, forward, forward_rows, good, no_queries, place, tensor_mut, Forward};
use super::bound::forward_with_bound;
use super::gradient::{gradient, gradient_rows, want_bias, want_sinks};
use super::rules::rules_rows;
use super::Condition::*;
use super::Expect::{Refused, Runs};
use super::Row::{Case, NotApplicable};
use super::{Contract, Memory, Region, Row, Table};
use std::ptr::null_mut;
use subquad::ffi::*;

/// The arguments of every task function of a forward call.
macro_rules! run {
    ($name:ident = $function:ident) => {
        fn $name(a: &Forward, index: usize) -> i32 {
            let [_, count] = a.tasks;
            // SAFETY: as for `forward`.
            unsafe {
                let rules = place(a);
                let (out, work, size) = (a.outputs, a.work, a.work_size);
                $function(index, count, rules, a.q, a.k, a.v, out, work, size, a.report)
            }
        }
    };
}

run!(forward_task = subquad_attention_run_task);
run!(forward_task_with_bound = subquad_attention_run_task_with_bound);
run!(decode_task = subquad_attention_decode_run_task);

fn gradient_task(a: &Forward, index: usize) -> i32 {
    let [_, count] = a.tasks;
    // SAFETY: as for `forward`.
    unsafe {
        let rules = place(a);
        let (up, to, work, size) = (a.upstream, a.gradients, a.work, a.work_size);
        subquad_attention_gradient_run_task(index, count, rules, a.q, a.k, a.v, up, to, work, size, a.report)
    }
}

/// Every task says the same.
fn all(a: &Forward, run: fn(&Forward, usize) -> i32) -> i32 {
    let [first, count] = a.tasks;
    let status = run(a, first);
    assert!((first..count).skip(1).all(|index| run(a, index) == status));
    status
}

fn forward_tasks(a: &Forward) -> i32 {
    let [_, wanted] = a.tasks;
    // SAFETY: as for `forward`.
    unsafe { subquad_attention_tasks(place(a), a.shape, a.outputs, wanted, a.bytes) }
}

fn decode_tasks(a: &Forward) -> i32 {
    let [_, wanted] = a.tasks;
    // SAFETY: as for `forward`.
    unsafe { subquad_attention_decode_tasks(place(a), a.shape, a.outputs, wanted, a.bytes) }
}

fn gradient_tasks(a: &Forward) -> i32 {
    let [_, wanted] = a.tasks;
    // SAFETY: as for `forward`.
    unsafe { subquad_attention_gradient_tasks(place(a), a.shape, a.gradients, wanted, a.bytes) }
}

/// What a call refuses, its tasks do.
fn run_rows(mut rows: Vec<Row<Forward>>) -> Vec<Row<Forward>> {
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

fn gradient_tasks_rows() -> Vec<Row<Forward>> {
    let mut rows = vec![
        Case(Null, "count", Refused(SUBQUAD_E_NULL), |a: &mut Forward| {
            a.bytes = null_mut()
        }),
        Case(Null, "every gradient", Refused(SUBQUAD_E_NULL), |a| {
            let to = &mut a.gradients;
            (to.q.data, to.k.data, to.v.data) = (null_mut(), null_mut(), null_mut());
        }),
        Case(Null, "a bias that is none", Refused(SUBQUAD_E_SHAPE), |a| {
            want_bias(a);
            a.rules_at = null_mut();
        }),
        Case(Null, "sinks that are none", Refused(SUBQUAD_E_SHAPE), |a| {
            want_sinks(a);
            a.rules_at = null_mut();
        }),
        Case(Misaligned, "count", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.bytes = a.bytes.wrapping_byte_add(1)
        }),
        Case(Misaligned, "dk", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.gradients.k.data = a.gradients.k.data.wrapping_byte_add(1)
        }),
        NotApplicable(ShortScratch, "takes no scratch"),
        Case(ZeroSizes, "no tasks", Refused(SUBQUAD_E_PARAMETER), |a| {
            a.tasks = [0, 0]
        }),
        // Gradients of keys and values are zeros then, in one task.
        Case(ZeroSizes, "no queries", Runs, |a| {
            a.rules_at = null_mut();
            (a.shape.queries, a.gradients.q.rows) = (0, 0);
        }),
        Case(OverflowingSizes, "keys", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.shape.keys = usize::MAX
        }),
        Case(OverflowingSizes, "dv", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.gradients.v.head_stride = usize::MAX / 4
        }),
        Case(Overlap, "rows of dk", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.gradients.k.row_stride = 3
        }),
        Case(Overlap, "count in lengths", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.bytes = a.lengths
        }),
        Case(InnerStride, "dq", Refused(SUBQUAD_E_SHAPE), |a| {
            a.gradients.q.col_stride = 2
        }),
        Case(HeadsNotDivisible, "3 for 4", Refused(SUBQUAD_E_SHAPE), |a| {
            a.shape.kv_heads = 3
        }),
        Case(HeadsNotDivisible, "dk per query head", Refused(SUBQUAD_E_SHAPE), |a| {
            a.gradients.k = tensor_mut(a.gradients.k.data, [2, 4, 5, 4])
        }),
        Case(IntegerLimits, "all that can be had", Runs, |a| {
            a.tasks = [0, usize::MAX]
        }),
    ];
    rows.extend(rules_rows());
    rows
}

/// A call and its tasks.
struct Split {
    call: fn(&Forward) -> i32,
    task: fn(&Forward, usize) -> i32,
    tasks: fn(&Forward) -> i32,
    /// What else is wanted of good arguments.
    with: fn(&mut Forward),
    /// Into how many tasks it can be split where 1, 2, ... are wanted; no more from 8 on.
    counts: [usize; 8],
    /// Which floats of which regions it writes.
    writes: &'static [(Region, usize, usize)],
}

const FORWARD: &[(Region, usize, usize)] = &[
    (Region::Out, 0, 144),
    (Region::Lse, 0, 24),
    (Region::Partials, 0, 240),
    (Region::Scores, 0, 120),
];

const SPLITS: &[Split] = &[
    Split {
        call: forward,
        task: forward_task,
        tasks: forward_tasks,
        with: |_| (),
        counts: [1, 2, 2, 4, 4, 4, 4, 8],
        writes: FORWARD,
    },
    Split {
        call: forward_with_bound,
        task: forward_task_with_bound,
        tasks: forward_tasks,
        with: |_| (),
        counts: [1, 2, 2, 4, 4, 4, 4, 8],
        writes: FORWARD,
    },
    Split {
        call: decode,
        task: decode_task,
        tasks: decode_tasks,
        with: |_| (),
        counts: [1, 2, 2, 4, 4, 4, 4, 4],
        writes: FORWARD,
    },
    Split {
        call: gradient,
        task: gradient_task,
        tasks: gradient_tasks,
        with: want_sinks,
        counts: [1, 2, 2, 4, 4, 4, 4, 4],
        writes: &[
            (Region::Out, 0, 96),
            (Region::Lse, 0, 80),
            (Region::Partials, 0, 120),
            (Region::Scores, 1024, 4),
        ],
    },
    // Heads share the bias.
    Split {
        call: gradient,
        task: gradient_task,
        tasks: gradient_tasks,
        with: want_bias,
        counts: [1, 2, 2, 2, 2, 2, 2, 2],
        writes: &[
            (Region::Out, 0, 96),
            (Region::Lse, 0, 80),
            (Region::Partials, 0, 120),
            (Region::Scores, 0, 30),
        ],
    },
];

/// For every number of tasks, the last first: the memory that one call leaves, and reports that add up to its own.
pub fn check_tasks(m: &Memory) {
    SPLITS.iter().for_each(|split| check(m, split));
}

fn check(m: &Memory, split: &Split) {
    let written = |m: &Memory| -> Vec<Vec<u64>> {
        let all = m.copy();
        let part = |&(region, start, len): &(Region, usize, usize)| {
            let start = super::memory::SIZE / 8 * region as usize + start / 2;
            all[start..start + len / 2].to_vec()
        };
        split.writes.iter().map(part).collect()
    };
    let mut a = good(m);
    (split.with)(&mut a);
    assert_eq!((split.call)(&a), SUBQUAD_OK);
    // SAFETY: the call has just written there.
    let (after, whole) = (written(m), unsafe { a.report.read() });
    for wanted in 1..=16 {
        a.tasks = [0, wanted];
        a.bytes = m.at(Region::Report);
        assert_eq!((split.tasks)(&a), SUBQUAD_OK);
        // SAFETY: the call has just written there.
        let count = unsafe { a.bytes.read() };
        assert_eq!(count, split.counts[wanted.min(8) - 1]);
        for tasks in [wanted, count] {
            for &(region, ..) in split.writes {
                m.put(region, &[f32::NAN; 2048]);
            }
            a.tasks = [0, tasks];
            let mut sums = [0, 0];
            for index in (0..tasks).rev() {
                assert_eq!((split.task)(&a, index), SUBQUAD_OK);
                // SAFETY: the task has just written there.
                let report = unsafe { a.report.read() };
                sums = [sums[0] + report.masked_rows, sums[1] + report.non_finite_rows];
                assert_eq!(report.bound, whole.bound);
            }
            assert_eq!(sums, [whole.masked_rows, whole.non_finite_rows]);
            assert_eq!(written(m), after, "{wanted} tasks");
        }
    }
}

pub fn tables() -> Vec<Box<dyn Contract>> {
    let table = |function, call, rows| -> Box<dyn Contract> {
        Box::new(Table {
            function,
            good,
            call,
            rows,
        })
    };
    let forward: fn(&Forward) -> i32 = |a| all(a, forward_task);
    vec![
        table("subquad_attention_run_task", forward, run_rows(forward_rows())),
        table(
            "subquad_attention_run_task_with_bound",
            |a| all(a, forward_task_with_bound),
            run_rows(forward_rows()),
        ),
        table(
            "subquad_attention_decode_run_task",
            |a| all(a, decode_task),
            run_rows(forward_rows()),
        ),
        table(
            "subquad_attention_gradient_run_task",
            |a| all(a, gradient_task),
            run_rows(gradient_rows()),
        ),
        table("subquad_attention_tasks", forward_tasks, tasks_rows()),
        table("subquad_attention_decode_tasks", decode_tasks, tasks_rows()),
        table(
            "subquad_attention_gradient_tasks",
            gradient_tasks,
            gradient_tasks_rows(),
        ),
    ]
}

//! Rows of attention and partials.

use super::gradient::{gradients, upstream};
use super::memory::set;
use super::rules::{overlap_rows, rules_rows};
use super::Condition::*;
use super::Expect::{Nothing, Refused, Runs};
use super::Row::Case;
use super::{Contract, Memory, Region, Row, Table};
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use subquad::ffi::*;

pub const SHAPE: subquad_shape = subquad_shape {
    batch: 2,
    query_heads: 4,
    kv_heads: 2,
    queries: 3,
    keys: 5,
    dim: 4,
    value_dim: 6,
};

/// Arguments of a call and of its size query. The rules live beside it and are copied into the block just before the call, so that
/// rows can spoil them.
pub struct Forward {
    pub rules: subquad_attention,
    pub rules_at: *mut subquad_attention,
    pub q: subquad_tensor,
    pub k: subquad_tensor,
    pub v: subquad_tensor,
    pub outputs: subquad_outputs,
    pub upstream: subquad_upstream,
    pub gradients: subquad_gradients,
    pub work: *mut c_void,
    pub work_size: usize,
    pub report: *mut subquad_report,
    pub shape: subquad_shape,
    pub want_scores: i32,
    /// The first task to run, and how many there are.
    pub tasks: [usize; 2],
    pub bytes: *mut usize,
    pub floats: *mut f32,
    pub lengths: *mut usize,
}

pub fn tensor(data: *const f32, [batch, heads, rows, cols]: [usize; 4]) -> subquad_tensor {
    let (batch_stride, head_stride) = (heads * rows * cols, rows * cols);
    subquad_tensor {
        data,
        batch,
        heads,
        rows,
        cols,
        batch_stride,
        head_stride,
        row_stride: cols,
        col_stride: 1,
    }
}

pub fn tensor_mut(data: *mut f32, shape: [usize; 4]) -> subquad_tensor_mut {
    let subquad_tensor {
        batch,
        heads,
        rows,
        cols,
        batch_stride,
        head_stride,
        row_stride,
        col_stride,
        ..
    } = tensor(data, shape);
    subquad_tensor_mut {
        data,
        batch,
        heads,
        rows,
        cols,
        batch_stride,
        head_stride,
        row_stride,
        col_stride,
    }
}

fn mask(data: *const u8, shape: [usize; 4]) -> subquad_mask {
    let subquad_tensor {
        batch,
        heads,
        rows,
        cols,
        batch_stride,
        head_stride,
        row_stride,
        col_stride,
        ..
    } = tensor(null(), shape);
    subquad_mask {
        data,
        batch,
        heads,
        rows,
        cols,
        batch_stride,
        head_stride,
        row_stride,
        col_stride,
    }
}

/// Every rule in use.
fn rules(m: &Memory) -> subquad_attention {
    // SAFETY: all zero is a value of the struct, and means no rules.
    let mut rules: subquad_attention = unsafe { std::mem::zeroed() };
    m.put(Region::Lengths, &[5usize, 4]);
    m.put(Region::QueryStarts, &[0usize, 1, 3]);
    m.put(Region::KeyStarts, &[0usize, 3, 5]);
    rules.mask = mask(m.at(Region::Mask), [2, 4, 3, 5]);
    rules.bias = tensor(m.at(Region::Bias), [2, 1, 3, 5]);
    rules.sink_logits = m.at(Region::Floats);
    rules.slopes = m.at::<f32>(Region::Floats).wrapping_add(8);
    rules.key_lengths = m.at(Region::Lengths);
    rules.query_starts = m.at(Region::QueryStarts);
    rules.key_starts = m.at(Region::KeyStarts);
    rules.segments = 2;
    (rules.causal, rules.offset_to_end) = (1, 1);
    rules
}

pub fn good(m: &Memory) -> Forward {
    let subquad_shape {
        batch,
        query_heads,
        kv_heads,
        queries,
        keys,
        dim,
        value_dim,
    } = SHAPE;
    let outputs = subquad_outputs {
        out: tensor_mut(m.at(Region::Out), [batch, query_heads, queries, value_dim]),
        lse: tensor_mut(m.at(Region::Lse), [batch, query_heads, queries, 1]),
        partials: tensor_mut(
            m.at(Region::Partials),
            [batch, query_heads, queries, SUBQUAD_PARTIAL_HEAD + value_dim],
        ),
        scores: tensor_mut(m.at(Region::Scores), [batch, query_heads, queries, keys]),
        scores_stage: SUBQUAD_STAGE_SOFTMAX,
    };
    Forward {
        rules: rules(m),
        rules_at: m.at(Region::Rules),
        q: tensor(m.at(Region::Q), [batch, query_heads, queries, dim]),
        k: tensor(m.at(Region::K), [batch, kv_heads, keys, dim]),
        v: tensor(m.at(Region::V), [batch, kv_heads, keys, value_dim]),
        outputs,
        upstream: upstream(m),
        gradients: gradients(m),
        work: m.at(Region::Work),
        work_size: super::memory::SIZE,
        report: m.at(Region::Report),
        shape: SHAPE,
        want_scores: 1,
        tasks: [0, 3],
        bytes: m.at(Region::Out),
        floats: m.at(Region::Floats),
        lengths: m.at(Region::Lengths),
    }
}

pub fn forward(a: &Forward) -> i32 {
    // SAFETY: pointers reach over what the sizes say inside the block, or are refused before they are followed.
    unsafe {
        let rules = place(a);
        subquad_attention_forward(rules, a.q, a.k, a.v, a.outputs, a.work, a.work_size, a.report)
    }
}

pub fn decode(a: &Forward) -> i32 {
    // SAFETY: as for `forward`.
    unsafe {
        let rules = place(a);
        subquad_attention_decode(rules, a.q, a.k, a.v, a.outputs, a.work, a.work_size, a.report)
    }
}

/// Rules are not in the block of memory that is compared: they are spoiled after it was filled.
///
/// # Safety
/// The rules live as long as the arguments.
pub unsafe fn place(a: &Forward) -> *const subquad_attention {
    match a.rules_at.is_null() || !a.rules_at.is_aligned() {
        true => a.rules_at,
        false => &a.rules,
    }
}

type Spoil = Row<Forward>;

pub fn forward_rows() -> Vec<Spoil> {
    let mut rows = vec![
        Case(Null, "q", Refused(SUBQUAD_E_NULL), |a: &mut Forward| a.q.data = null()),
        Case(Null, "k", Refused(SUBQUAD_E_NULL), |a| a.k.data = null()),
        Case(Null, "v", Refused(SUBQUAD_E_NULL), |a| a.v.data = null()),
        Case(Null, "every output", Refused(SUBQUAD_E_NULL), |a| {
            (a.outputs.out.data, a.outputs.lse.data) = (null_mut(), null_mut());
            (a.outputs.partials.data, a.outputs.scores.data) = (null_mut(), null_mut());
        }),
        Case(Null, "out alone is not wanted", Runs, |a| {
            a.outputs.out.data = null_mut()
        }),
        Case(Null, "work", Refused(SUBQUAD_E_NULL), |a| a.work = null_mut()),
        Case(Null, "report is not wanted", Runs, |a| a.report = null_mut()),
        Case(Misaligned, "q", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.q.data = a.q.data.wrapping_byte_add(1)
        }),
        Case(Misaligned, "k", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.k.data = a.k.data.wrapping_byte_add(2)
        }),
        Case(Misaligned, "v", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.v.data = a.v.data.wrapping_byte_add(3)
        }),
        Case(Misaligned, "out", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.outputs.out.data = a.outputs.out.data.wrapping_byte_add(1)
        }),
        Case(Misaligned, "lse", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.outputs.lse.data = a.outputs.lse.data.wrapping_byte_add(1)
        }),
        Case(Misaligned, "report", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.report = a.report.wrapping_byte_add(4)
        }),
        Case(Misaligned, "work is free", Runs, |a| {
            (a.work, a.work_size) = (a.work.wrapping_byte_add(1), a.work_size - 1)
        }),
        Case(ShortScratch, "none", Refused(SUBQUAD_E_SHORT), |a| {
            (a.work, a.work_size) = (null_mut(), 0)
        }),
        Case(ShortScratch, "little", Refused(SUBQUAD_E_SHORT), |a| a.work_size = 100),
        Case(ZeroSizes, "queries", Nothing, |a| no_queries(a, |t| &mut t.rows)),
        Case(ZeroSizes, "problems", Nothing, |a| {
            no_queries(a, |t| &mut t.batch);
            (a.k.batch, a.v.batch, a.k.data, a.v.data) = (0, 0, null(), null());
        }),
        Case(ZeroSizes, "heads", Nothing, |a| {
            no_queries(a, |t| &mut t.heads);
            (a.k.heads, a.v.heads, a.k.data, a.v.data) = (0, 0, null(), null());
        }),
        Case(ZeroSizes, "no keys: every row sees none", Runs, |a| {
            a.rules_at = null_mut();
            (a.k.rows, a.v.rows, a.outputs.scores.cols) = (0, 0, 0);
            (a.k.data, a.v.data) = (null(), null());
        }),
        Case(ZeroSizes, "no dim: every score is 0", Runs, |a| {
            (a.q.cols, a.k.cols) = (0, 0)
        }),
        Case(ZeroSizes, "no value_dim, and only out", Nothing, |a| {
            (a.v.cols, a.outputs.out.cols) = (0, 0);
            (a.outputs.lse.data, a.outputs.partials.data, a.outputs.scores.data) = (null_mut(), null_mut(), null_mut());
        }),
        Case(OverflowingSizes, "q rows", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.q.rows = usize::MAX
        }),
        Case(
            OverflowingSizes,
            "q rows without stride",
            Refused(SUBQUAD_E_OVERFLOW),
            |a| (a.q.rows, a.q.row_stride) = (usize::MAX, 0),
        ),
        Case(OverflowingSizes, "k cols", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.k.cols = usize::MAX / 2
        }),
        Case(OverflowingSizes, "v stride", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.v.head_stride = usize::MAX / 4
        }),
        Case(OverflowingSizes, "out stride", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.outputs.out.row_stride = usize::MAX
        }),
        Case(OverflowingSizes, "work", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.work_size = usize::MAX
        }),
        Case(OverflowingSizes, "the last address", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.q.data = (usize::MAX & !63) as *const f32
        }),
        Case(NonFinite, "values are never refused", Runs, |a| set(a.v.data, f32::NAN)),
        Case(InnerStride, "q", Refused(SUBQUAD_E_SHAPE), |a| a.q.col_stride = 2),
        Case(InnerStride, "k", Refused(SUBQUAD_E_SHAPE), |a| a.k.col_stride = 0),
        Case(InnerStride, "v", Refused(SUBQUAD_E_SHAPE), |a| a.v.col_stride = 3),
        Case(InnerStride, "out", Refused(SUBQUAD_E_SHAPE), |a| {
            a.outputs.out.col_stride = usize::MAX
        }),
        Case(InnerStride, "scores", Refused(SUBQUAD_E_SHAPE), |a| {
            a.outputs.scores.col_stride = 0
        }),
        Case(InnerStride, "one column has none", Runs, |a| {
            a.outputs.lse.col_stride = 7
        }),
        Case(HeadsNotDivisible, "3 for 4", Refused(SUBQUAD_E_SHAPE), |a| {
            (a.k.heads, a.v.heads) = (3, 3)
        }),
        Case(HeadsNotDivisible, "0 for 4", Refused(SUBQUAD_E_SHAPE), |a| {
            (a.k.heads, a.v.heads) = (0, 0)
        }),
        Case(HeadsNotDivisible, "k and v differ", Refused(SUBQUAD_E_SHAPE), |a| {
            a.v.heads = 1
        }),
        Case(HeadsNotDivisible, "keys differ", Refused(SUBQUAD_E_SHAPE), |a| {
            a.v.rows = 4
        }),
        Case(HeadsNotDivisible, "dims differ", Refused(SUBQUAD_E_SHAPE), |a| {
            a.k.cols = 3
        }),
        Case(HeadsNotDivisible, "out of other rows", Refused(SUBQUAD_E_SHAPE), |a| {
            a.outputs.out.rows = 2
        }),
        Case(
            HeadsNotDivisible,
            "partials without head",
            Refused(SUBQUAD_E_SHAPE),
            |a| a.outputs.partials.cols = 6,
        ),
        Case(
            HeadsNotDivisible,
            "scores of fewer keys",
            Refused(SUBQUAD_E_SHAPE),
            |a| a.outputs.scores.cols = 4,
        ),
        Case(UnknownNumber, "stage 4", Refused(SUBQUAD_E_PARAMETER), |a| {
            a.outputs.scores_stage = 4
        }),
        Case(UnknownNumber, "stage -1", Refused(SUBQUAD_E_PARAMETER), |a| {
            a.outputs.scores_stage = -1
        }),
        Case(UnknownNumber, "stage of no scores", Runs, |a| {
            (a.outputs.scores_stage, a.outputs.scores.data) = (99, null_mut())
        }),
    ];
    rows.extend(overlap_rows());
    rows.extend(rules_rows());
    rows
}

/// Nothing to do along an axis of the queries: pointers may be null, rules of that size are gone.
pub fn no_queries(a: &mut Forward, axis: fn(&mut subquad_tensor_mut) -> &mut usize) {
    a.rules_at = null_mut();
    let outputs = &mut a.outputs;
    for t in [
        &mut outputs.out,
        &mut outputs.lse,
        &mut outputs.partials,
        &mut outputs.scores,
    ] {
        *axis(t) = 0;
    }
    let t = outputs.out;
    (a.q.batch, a.q.heads, a.q.rows, a.q.data) = (t.batch, t.heads, t.rows, null());
}

pub fn tables() -> Vec<Box<dyn Contract>> {
    let table = |function, call| -> Box<dyn Contract> {
        Box::new(Table {
            function,
            good,
            call,
            rows: forward_rows(),
        })
    };
    vec![
        table("subquad_attention_forward", forward),
        table("subquad_attention_decode", decode),
    ]
}

//! Rows of the gradient of attention.

use super::attention::{good, place, tensor, tensor_mut, Forward, SHAPE};
use super::memory::set;
use super::need::need_rows;
use super::rules::rules_rows;
use super::Condition::*;
use super::Expect::{Refused, Runs};
use super::Row::Case;
use super::{Contract, Memory, Region, Row, Table};
use std::ptr::{null, null_mut};
use subquad::ffi::*;

/// What comes back for a forward call; it lies behind the queries, keys, values and lists.
pub fn upstream(m: &Memory) -> subquad_upstream {
    let behind = |region, cols| {
        let rows = [SHAPE.batch, SHAPE.query_heads, SHAPE.queries];
        tensor(
            m.at::<f32>(region).wrapping_add(1024),
            [rows[0], rows[1], rows[2], cols],
        )
    };
    subquad_upstream {
        out: behind(Region::Q, SHAPE.value_dim),
        d_out: behind(Region::K, SHAPE.value_dim),
        lse: behind(Region::V, 1),
        d_lse: behind(Region::Floats, 1),
        partials: tensor(null(), [0; 4]),
    }
}

/// Partials in place of the log-sum-exp.
fn save_partials(a: &mut Forward) {
    let rows = [SHAPE.batch, SHAPE.query_heads, SHAPE.queries];
    let width = SHAPE.value_dim + SUBQUAD_PARTIAL_HEAD;
    a.upstream.partials = tensor(a.upstream.lse.data, [rows[0], rows[1], rows[2], width]);
    a.upstream.lse.data = null();
}

/// Gradients in the regions of outputs; those of bias and sinks are not wanted, as rows take these rules away.
pub fn gradients(m: &Memory) -> subquad_gradients {
    let (batch, heads) = (SHAPE.batch, SHAPE.kv_heads);
    subquad_gradients {
        q: tensor_mut(m.at(Region::Out), [batch, SHAPE.query_heads, SHAPE.queries, SHAPE.dim]),
        k: tensor_mut(m.at(Region::Lse), [batch, heads, SHAPE.keys, SHAPE.dim]),
        v: tensor_mut(m.at(Region::Partials), [batch, heads, SHAPE.keys, SHAPE.value_dim]),
        bias: tensor_mut(null_mut(), [0; 4]),
        sink_logits: null_mut(),
    }
}

/// That of the bias too.
pub fn want_bias(a: &mut Forward) {
    a.gradients.bias = tensor_mut(a.outputs.scores.data, [2, 1, 3, 5]);
}

/// Those of the sinks too.
pub fn want_sinks(a: &mut Forward) {
    a.gradients.sink_logits = a.outputs.scores.data.wrapping_add(1024);
}

pub fn gradient(a: &Forward) -> i32 {
    let (up, to) = (a.upstream, a.gradients);
    // SAFETY: pointers reach over what the sizes say inside the block, or are refused before they are followed.
    unsafe {
        let rules = place(a);
        subquad_attention_gradient(rules, a.q, a.k, a.v, up, to, a.work, a.work_size, a.report)
    }
}

fn gradient_need(a: &Forward) -> i32 {
    // SAFETY: as for `gradient`.
    unsafe { subquad_attention_gradient_need(place(a), a.shape, a.bytes) }
}

pub fn gradient_rows() -> Vec<Row<Forward>> {
    let mut rows: Vec<Row<Forward>> = vec![
        Case(Null, "q", Refused(SUBQUAD_E_NULL), |a: &mut Forward| a.q.data = null()),
        Case(Null, "k", Refused(SUBQUAD_E_NULL), |a| a.k.data = null()),
        Case(Null, "v", Refused(SUBQUAD_E_NULL), |a| a.v.data = null()),
        Case(Null, "out", Refused(SUBQUAD_E_NULL), |a| a.upstream.out.data = null()),
        Case(Null, "d_out", Refused(SUBQUAD_E_NULL), |a| {
            a.upstream.d_out.data = null()
        }),
        Case(Null, "lse", Refused(SUBQUAD_E_NULL), |a| a.upstream.lse.data = null()),
        Case(Null, "d_lse is nothing", Runs, |a| a.upstream.d_lse.data = null()),
        Case(Null, "lse beside partials", Runs, save_partials),
        Case(Null, "every gradient", Refused(SUBQUAD_E_NULL), |a| {
            let to = &mut a.gradients;
            (to.q.data, to.k.data, to.v.data) = (null_mut(), null_mut(), null_mut());
        }),
        Case(Null, "all but the bias's", Runs, |a| {
            let to = &mut a.gradients;
            (to.q.data, to.k.data, to.v.data) = (null_mut(), null_mut(), null_mut());
            want_bias(a);
        }),
        Case(Null, "all of them", Runs, |a| {
            want_bias(a);
            want_sinks(a);
        }),
        Case(Null, "work", Refused(SUBQUAD_E_NULL), |a| a.work = null_mut()),
        Case(Null, "report is not wanted", Runs, |a| a.report = null_mut()),
        Case(Null, "a bias that is none", Refused(SUBQUAD_E_SHAPE), |a| {
            want_bias(a);
            a.rules.bias.data = null()
        }),
        Case(Null, "sinks that are none", Refused(SUBQUAD_E_SHAPE), |a| {
            want_sinks(a);
            a.rules.sink_logits = null()
        }),
        Case(Misaligned, "out", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.upstream.out.data = a.upstream.out.data.wrapping_byte_add(1)
        }),
        Case(Misaligned, "lse", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.upstream.lse.data = a.upstream.lse.data.wrapping_byte_add(2)
        }),
        Case(Misaligned, "partials", Refused(SUBQUAD_E_MISALIGNED), |a| {
            save_partials(a);
            a.upstream.partials.data = a.upstream.partials.data.wrapping_byte_add(2)
        }),
        Case(Misaligned, "dk", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.gradients.k.data = a.gradients.k.data.wrapping_byte_add(1)
        }),
        Case(Misaligned, "dsinks", Refused(SUBQUAD_E_MISALIGNED), |a| {
            want_sinks(a);
            a.gradients.sink_logits = a.gradients.sink_logits.wrapping_byte_add(3)
        }),
        Case(Misaligned, "report", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.report = a.report.wrapping_byte_add(4)
        }),
        Case(ShortScratch, "none", Refused(SUBQUAD_E_SHORT), |a| {
            (a.work, a.work_size) = (null_mut(), 0)
        }),
        Case(ShortScratch, "little", Refused(SUBQUAD_E_SHORT), |a| a.work_size = 100),
        Case(ZeroSizes, "no dim: dv remains", Runs, |a| {
            (a.q.cols, a.k.cols) = (0, 0);
            (a.gradients.q.cols, a.gradients.k.cols) = (0, 0);
        }),
        Case(ZeroSizes, "no value_dim", Runs, |a| {
            (a.v.cols, a.upstream.out.cols, a.upstream.d_out.cols) = (0, 0, 0);
            (a.gradients.v.cols, a.upstream.out.data) = (0, null());
        }),
        Case(OverflowingSizes, "d_out", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.upstream.d_out.row_stride = usize::MAX
        }),
        Case(OverflowingSizes, "dv", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.gradients.v.head_stride = usize::MAX / 4
        }),
        Case(OverflowingSizes, "work", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.work_size = usize::MAX
        }),
        Case(Overlap, "dq and q", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.gradients.q.data = a.q.data.cast_mut()
        }),
        Case(Overlap, "dv and d_out", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.gradients.v.data = a.upstream.d_out.data.cast_mut()
        }),
        Case(Overlap, "dk and d_lse", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.gradients.k.data = a.upstream.d_lse.data.cast_mut()
        }),
        Case(Overlap, "dk and partials", Refused(SUBQUAD_E_OVERLAP), |a| {
            save_partials(a);
            a.gradients.k.data = a.upstream.partials.data.cast_mut()
        }),
        Case(Overlap, "dk and dv", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.gradients.k.data = a.gradients.v.data.wrapping_add(9)
        }),
        Case(Overlap, "the bias's and the bias", Refused(SUBQUAD_E_OVERLAP), |a| {
            want_bias(a);
            a.gradients.bias.data = a.rules.bias.data.cast_mut()
        }),
        Case(Overlap, "the sinks' and the slopes", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.gradients.sink_logits = a.rules.slopes.cast_mut()
        }),
        Case(Overlap, "dq and work", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.gradients.q.data = a.work.cast()
        }),
        Case(Overlap, "rows of dk", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.gradients.k.row_stride = 3
        }),
        Case(NonFinite, "values are never refused", Runs, |a| {
            set(a.upstream.d_out.data, f32::NAN)
        }),
        Case(InnerStride, "out", Refused(SUBQUAD_E_SHAPE), |a| {
            a.upstream.out.col_stride = 2
        }),
        Case(InnerStride, "dq", Refused(SUBQUAD_E_SHAPE), |a| {
            a.gradients.q.col_stride = 0
        }),
        Case(HeadsNotDivisible, "3 for 4", Refused(SUBQUAD_E_SHAPE), |a| {
            (a.k.heads, a.v.heads) = (3, 3)
        }),
        Case(HeadsNotDivisible, "dk per query head", Refused(SUBQUAD_E_SHAPE), |a| {
            a.gradients.k = tensor_mut(a.gradients.k.data, [2, 4, 5, 4])
        }),
        Case(HeadsNotDivisible, "lse of other rows", Refused(SUBQUAD_E_SHAPE), |a| {
            a.upstream.lse.rows = 2
        }),
        Case(
            HeadsNotDivisible,
            "partials of other columns",
            Refused(SUBQUAD_E_SHAPE),
            |a| {
                save_partials(a);
                a.upstream.partials.cols = 1
            },
        ),
        Case(HeadsNotDivisible, "the whole bias's", Refused(SUBQUAD_E_SHAPE), |a| {
            a.gradients.bias = tensor_mut(a.outputs.scores.data, [2, 4, 3, 5])
        }),
    ];
    rows.extend(rules_rows());
    rows
}

/// At the worst address, one past a boundary, a call takes what the query says and not a byte less.
pub fn check_need(m: &Memory) {
    for rules in [false, true] {
        let mut a = good(m);
        if !rules {
            a.rules_at = null_mut();
        }
        assert_eq!(gradient_need(&a), SUBQUAD_OK);
        // SAFETY: the query has just written there.
        a.work_size = unsafe { a.bytes.read() };
        let boundary = a.work as usize;
        let lost = boundary.wrapping_neg() % subquad::scratch::ALIGN + 1;
        a.work = a.work.wrapping_byte_add(lost);
        assert_eq!(gradient(&a), SUBQUAD_OK);
        a.work_size -= 1;
        assert_eq!(gradient(&a), SUBQUAD_E_SHORT);
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
    vec![
        table(
            "subquad_attention_gradient",
            gradient as fn(&Forward) -> i32,
            gradient_rows(),
        ),
        table("subquad_attention_gradient_need", gradient_need, need_rows()),
    ]
}

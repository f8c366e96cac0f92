//! Rows of attention that its rules and overlaps can get wrong.

use super::attention::Forward;
use super::memory::set;
use super::Condition::*;
use super::Expect::{Refused, Runs};
use super::Row;
use super::Row::Case;
use std::ptr::{null, null_mut};
use subquad::ffi::*;

type Spoil = Row<Forward>;

/// Rows that both the call and its size query have: what the rules can get wrong.
pub fn rules_rows() -> Vec<Spoil> {
    vec![
        Case(Null, "no rules at all", Runs, |a| a.rules_at = null_mut()),
        Case(Null, "no query starts", Refused(SUBQUAD_E_NULL), |a| {
            a.rules.query_starts = null()
        }),
        Case(Null, "no key starts", Refused(SUBQUAD_E_NULL), |a| {
            a.rules.key_starts = null()
        }),
        Case(Null, "every other rule", Runs, |a| {
            (a.rules.mask.data, a.rules.bias.data) = (null(), null());
            (a.rules.sink_logits, a.rules.slopes, a.rules.key_lengths) = (null(), null(), null());
        }),
        Case(Misaligned, "rules", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.rules_at = a.rules_at.wrapping_byte_add(1)
        }),
        Case(Misaligned, "bias", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.rules.bias.data = a.rules.bias.data.wrapping_byte_add(1)
        }),
        Case(Misaligned, "a mask of bytes is free", Runs, |a| {
            a.rules.mask.data = a.rules.mask.data.wrapping_add(1)
        }),
        Case(Misaligned, "logits", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.rules.sink_logits = a.rules.sink_logits.wrapping_byte_add(2)
        }),
        Case(Misaligned, "slopes", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.rules.slopes = a.rules.slopes.wrapping_byte_add(3)
        }),
        Case(Misaligned, "lengths", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.rules.key_lengths = a.rules.key_lengths.wrapping_byte_add(2)
        }),
        Case(Misaligned, "query starts", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.rules.query_starts = a.rules.query_starts.wrapping_byte_add(1)
        }),
        Case(Misaligned, "key starts", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.rules.key_starts = a.rules.key_starts.wrapping_byte_add(1)
        }),
        Case(OverflowingSizes, "segments", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.rules.segments = usize::MAX
        }),
        Case(
            OverflowingSizes,
            "segments in bytes",
            Refused(SUBQUAD_E_OVERFLOW),
            |a| a.rules.segments = usize::MAX / 8,
        ),
        Case(OverflowingSizes, "mask", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.rules.mask.row_stride = usize::MAX
        }),
        Case(OverflowingSizes, "bias", Refused(SUBQUAD_E_OVERFLOW), |a| {
            a.rules.bias.batch_stride = usize::MAX / 4
        }),
        Case(NonFinite, "logit", Refused(SUBQUAD_E_PARAMETER), |a| {
            set(a.floats, f32::INFINITY)
        }),
        Case(NonFinite, "slope", Refused(SUBQUAD_E_PARAMETER), |a| {
            set(a.floats.wrapping_add(8), f32::NAN)
        }),
        Case(InnerStride, "mask", Refused(SUBQUAD_E_SHAPE), |a| {
            a.rules.mask.col_stride = 2
        }),
        Case(InnerStride, "bias", Refused(SUBQUAD_E_SHAPE), |a| {
            a.rules.bias.col_stride = 0
        }),
        Case(BadScaleOrCap, "negative scale", Refused(SUBQUAD_E_PARAMETER), |a| {
            a.rules.scale = -1.0
        }),
        Case(BadScaleOrCap, "NaN scale", Refused(SUBQUAD_E_PARAMETER), |a| {
            a.rules.scale = f32::NAN
        }),
        Case(BadScaleOrCap, "infinite scale", Refused(SUBQUAD_E_PARAMETER), |a| {
            a.rules.scale = f32::INFINITY
        }),
        Case(BadScaleOrCap, "negative cap", Refused(SUBQUAD_E_PARAMETER), |a| {
            a.rules.cap = -f32::MIN_POSITIVE
        }),
        Case(BadScaleOrCap, "NaN cap", Refused(SUBQUAD_E_PARAMETER), |a| {
            a.rules.cap = f32::NAN
        }),
        Case(BadScaleOrCap, "infinite cap", Refused(SUBQUAD_E_PARAMETER), |a| {
            a.rules.cap = f32::INFINITY
        }),
        Case(BadScaleOrCap, "zeros of either sign", Runs, |a| {
            (a.rules.scale, a.rules.cap) = (-0.0, -0.0)
        }),
        Case(MaskLongerThanKeys, "mask", Refused(SUBQUAD_E_SHAPE), |a| {
            (a.rules.mask.cols, a.rules.mask.row_stride) = (6, 6)
        }),
        Case(MaskLongerThanKeys, "bias", Refused(SUBQUAD_E_SHAPE), |a| {
            a.rules.bias.cols = 6
        }),
        Case(MaskLongerThanKeys, "more rows", Refused(SUBQUAD_E_SHAPE), |a| {
            a.rules.mask.rows = 4
        }),
        Case(MaskLongerThanKeys, "other heads", Refused(SUBQUAD_E_SHAPE), |a| {
            a.rules.mask.heads = 3
        }),
        Case(MaskLongerThanKeys, "shorter is legal", Runs, |a| a.rules.mask.cols = 2),
        Case(OutOfRange, "length", Refused(SUBQUAD_E_RANGE), |a| set(a.lengths, 6)),
        Case(OutOfRange, "starts without segments", Refused(SUBQUAD_E_SHAPE), |a| {
            a.rules.segments = 0
        }),
        Case(OutOfRange, "starts that end early", Refused(SUBQUAD_E_RANGE), |a| {
            a.rules.segments = 1
        }),
        Case(OutOfRange, "starts from elsewhere", Refused(SUBQUAD_E_RANGE), |a| {
            a.rules.query_starts = a.rules.key_lengths
        }),
        Case(IntegerLimits, "lowest offset", Runs, |a| {
            (a.rules.offset, a.rules.offset_to_end) = (i64::MIN, 0)
        }),
        Case(IntegerLimits, "highest offset", Runs, |a| {
            (a.rules.offset, a.rules.offset_to_end) = (i64::MAX, 0)
        }),
        Case(IntegerLimits, "widest window", Runs, |a| {
            (a.rules.has_left, a.rules.has_right) = (-1, i32::MAX);
            (a.rules.left, a.rules.right, a.rules.sinks) = (usize::MAX, usize::MAX, usize::MAX);
        }),
        Case(IntegerLimits, "windows from both ends", Runs, |a| {
            (a.rules.offset, a.rules.offset_to_end, a.rules.has_left) = (i64::MIN, 0, 1);
            (a.rules.has_right, a.rules.right) = (1, usize::MAX);
        }),
        Case(IntegerLimits, "longest run", Runs, |a| a.rules.key_run = usize::MAX),
        Case(UnknownNumber, "isa 99", Refused(SUBQUAD_E_UNSUPPORTED), |a| {
            a.rules.isa = 99
        }),
        Case(
            UnknownNumber,
            "isa of another machine",
            Refused(SUBQUAD_E_UNSUPPORTED),
            |a| a.rules.isa = SUBQUAD_ISA_WASM,
        ),
        Case(UnknownNumber, "isa -1", Refused(SUBQUAD_E_UNSUPPORTED), |a| {
            a.rules.isa = i32::MIN
        }),
    ]
}

pub fn overlap_rows() -> Vec<Spoil> {
    fn out(a: &mut Forward, data: *const f32) {
        a.outputs.out.data = data.cast_mut();
    }
    vec![
        Case(Overlap, "out and q", Refused(SUBQUAD_E_OVERLAP), |a| out(a, a.q.data)),
        Case(Overlap, "out and k", Refused(SUBQUAD_E_OVERLAP), |a| {
            out(a, a.k.data.wrapping_add(79))
        }),
        Case(Overlap, "out and v", Refused(SUBQUAD_E_OVERLAP), |a| {
            out(a, a.v.data.wrapping_add(3))
        }),
        Case(Overlap, "out just after v", Runs, |a| {
            a.v.data = a.outputs.out.data.wrapping_add(144)
        }),
        Case(Overlap, "out and mask", Refused(SUBQUAD_E_OVERLAP), |a| {
            out(a, a.rules.mask.data.cast())
        }),
        Case(Overlap, "out and bias", Refused(SUBQUAD_E_OVERLAP), |a| {
            out(a, a.rules.bias.data)
        }),
        Case(Overlap, "out and logits", Refused(SUBQUAD_E_OVERLAP), |a| {
            out(a, a.rules.sink_logits)
        }),
        Case(Overlap, "out and slopes", Refused(SUBQUAD_E_OVERLAP), |a| {
            out(a, a.rules.slopes)
        }),
        Case(Overlap, "out and lengths", Refused(SUBQUAD_E_OVERLAP), |a| {
            out(a, a.lengths.cast())
        }),
        Case(Overlap, "out and query starts", Refused(SUBQUAD_E_OVERLAP), |a| {
            out(a, a.rules.query_starts.cast())
        }),
        Case(Overlap, "out and key starts", Refused(SUBQUAD_E_OVERLAP), |a| {
            out(a, a.rules.key_starts.cast())
        }),
        Case(Overlap, "out and rules", Refused(SUBQUAD_E_OVERLAP), |a| {
            // Tensor and rules both inside the arguments: aligned, readable, and never to be written.
            a.outputs.out.data = (&raw mut a.rules).cast()
        }),
        Case(Overlap, "out and work", Refused(SUBQUAD_E_OVERLAP), |a| {
            out(a, a.work.cast())
        }),
        Case(Overlap, "out and report", Refused(SUBQUAD_E_OVERLAP), |a| {
            out(a, a.report.cast())
        }),
        Case(Overlap, "out and itself", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.outputs.out.row_stride = 5
        }),
        Case(Overlap, "heads of out", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.outputs.out.head_stride = 0
        }),
        Case(Overlap, "lse and out", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.outputs.lse.data = a.outputs.out.data.wrapping_add(143)
        }),
        Case(Overlap, "partials and scores", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.outputs.partials.data = a.outputs.scores.data
        }),
        Case(Overlap, "scores and q", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.outputs.scores.data = a.q.data.cast_mut()
        }),
        Case(Overlap, "work and v", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.work = a.v.data.cast_mut().cast()
        }),
        Case(Overlap, "work and report", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.work = a.report.cast()
        }),
        Case(Overlap, "inputs may", Runs, |a| a.k.data = a.q.data),
    ]
}

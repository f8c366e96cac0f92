//! Attention over C.

use super::types::{isa, stage, subquad_outputs, subquad_report, subquad_rules, subquad_shape, subquad_tensor};
use super::{apart, optional, region, required, slice, slice_mut, status, work_bytes, Region};
use crate::attention::{Decode, Exact, Outputs, Partial, Rules, Shape};
use crate::error::Error;
use crate::report::Report;
use crate::scratch::{Need, Scratch};
use crate::simd::Isa;
use crate::view::TensorRef;
use core::ffi::c_void;

/// Exact attention for many queries: out = softmax(scores) v.
///
/// q is batch x query_heads x queries x dim, k is batch x kv_heads x keys x dim, v is batch x kv_heads x keys x
/// value_dim. `rules` may be NULL for the defaults, `report` may be NULL. `work` is scratch of at least
/// subquad_attention_forward_need bytes at any address; nothing is kept in it. Rows are independent: the bits do not
/// depend on how queries are split among calls or threads.
///
/// Cost: 2 (dim + value_dim) flops and one exponential per query and key; memory beyond the outputs is the scratch.
///
/// Returns 0 or, having written nothing: SUBQUAD_E_NULL, _MISALIGNED, _SHAPE (tensors that do not fit each other, a
/// column stride above 1, heads that do not divide, a mask wider than the keys), _OVERFLOW, _OVERLAP (an output meets
/// an input, another output, itself, the scratch or the report), _SHORT (scratch), _PARAMETER (scale, cap, logits, slopes
/// or stage), _RANGE (key lengths or starts), _UNSUPPORTED (a back end this machine does not have).
///
/// # Safety
/// Every pointer is NULL or valid for what its struct says it reaches.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_attention_forward(
    rules: *const subquad_rules,
    q: subquad_tensor,
    k: subquad_tensor,
    v: subquad_tensor,
    outputs: *const subquad_outputs,
    work: *mut c_void,
    work_size: usize,
    report: *mut subquad_report,
) -> i32 {
    // SAFETY: the caller's promise, word for word.
    status(unsafe {
        call([q, k, v], rules, outputs, (work, work_size), report, |call, scratch| {
            exact(&call)?.run(call.q, call.k, call.v, call.outputs, scratch)
        })
    })
}

/// Scratch of subquad_attention_forward in bytes, written to `bytes`; `want_scores` is not 0 if scores are an output.
///
/// Returns 0 or, having written nothing: SUBQUAD_E_NULL (bytes), and what the call itself would say of shape and rules.
///
/// # Safety
/// As for `subquad_attention_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_attention_forward_need(
    rules: *const subquad_rules,
    shape: subquad_shape,
    want_scores: i32,
    bytes: *mut usize,
) -> i32 {
    // SAFETY: the caller's promise, word for word.
    status(unsafe {
        need(rules, shape, bytes, |shape, rules, isa, run| {
            let plan = with_run(Exact::new(shape)?.with_rules(rules)?.with_isa(isa), run);
            Ok(if want_scores == 0 {
                plan.need()
            } else {
                plan.need_with_scores()
            })
        })
    })
}

/// Exact attention for few queries against many keys: as subquad_attention_forward, with an order of operations (and
/// hence last bits) of its own. It pays while queries times heads of a group are at most 8 or so.
///
/// # Safety
/// As for `subquad_attention_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_attention_decode(
    rules: *const subquad_rules,
    q: subquad_tensor,
    k: subquad_tensor,
    v: subquad_tensor,
    outputs: *const subquad_outputs,
    work: *mut c_void,
    work_size: usize,
    report: *mut subquad_report,
) -> i32 {
    // SAFETY: the caller's promise, word for word.
    status(unsafe {
        call([q, k, v], rules, outputs, (work, work_size), report, |call, scratch| {
            let plan = Decode::new(call.shape)?.with_rules(call.rules)?.with_isa(call.isa);
            plan.run(call.q, call.k, call.v, call.outputs, scratch)
        })
    })
}

/// Scratch of subquad_attention_decode in bytes, written to `bytes`. Errors as for subquad_attention_forward_need.
///
/// # Safety
/// As for `subquad_attention_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_attention_decode_need(
    rules: *const subquad_rules,
    shape: subquad_shape,
    bytes: *mut usize,
) -> i32 {
    // SAFETY: the caller's promise, word for word.
    status(unsafe {
        need(rules, shape, bytes, |shape, rules, isa, _| {
            Ok(Decode::new(shape)?.with_rules(rules)?.with_isa(isa).need())
        })
    })
}

/// Makes `partial`, value_dim + SUBQUAD_PARTIAL_HEAD floats, the row that has seen no key.
///
/// Returns 0, SUBQUAD_E_NULL, _MISALIGNED or _OVERFLOW.
///
/// # Safety
/// `partial` is NULL or valid for that many floats.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_partial_clear(partial: *mut f32, value_dim: usize) -> i32 {
    status((|| {
        let width = width(value_dim)?;
        // SAFETY: the caller's promise, word for word.
        let row = unsafe { slice_mut(partial, width)? };
        row.fill(0.0);
        row.iter_mut().zip(Partial::EMPTY_HEAD).for_each(|(to, x)| *to = x);
        Ok(())
    })())
}

/// Takes the partial `from` into the partial `into`: rows of value_dim + SUBQUAD_PARTIAL_HEAD floats over disjoint keys.
/// `range` bounds how far two values of a column are apart over all keys (it enters the promise); infinity if unknown.
///
/// Returns 0 or, having written nothing: SUBQUAD_E_NULL, _MISALIGNED, _OVERFLOW, _OVERLAP.
///
/// # Safety
/// Both pointers are NULL or valid for that many floats.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_partial_merge(into: *mut f32, from: *const f32, value_dim: usize, range: f32) -> i32 {
    status((|| {
        let width = width(value_dim)?;
        apart(&[region(into, width)?], &[region(from, width)?])?;
        // SAFETY: the caller's promise; the two do not overlap.
        let (into, from) = unsafe { (slice_mut(into, width)?, slice(from, width)?) };
        Partial::from_row(into)?.merge(from, range)
    })())
}

/// Log-sum-exp of a partial, written to `lse`: minus infinity for a row that has seen no key.
///
/// Returns 0 or, having written nothing: SUBQUAD_E_NULL, _MISALIGNED, _OVERLAP.
///
/// # Safety
/// `partial` is NULL or valid for SUBQUAD_PARTIAL_HEAD floats, `lse` for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_partial_lse(partial: *const f32, lse: *mut f32) -> i32 {
    status((|| {
        apart(&[region(lse, 1)?], &[region(partial, Partial::HEAD)?])?;
        // SAFETY: the caller's promise; the two do not overlap.
        let (row, to) = unsafe { (slice(partial, Partial::HEAD)?, slice_mut(lse, 1)?) };
        let mut head = [0.0; Partial::HEAD];
        head.iter_mut().zip(row).for_each(|(to, &x)| *to = x);
        let lse = Partial::from_row(&mut head)?.lse();
        to.fill(lse);
        Ok(())
    })())
}

fn width(value_dim: usize) -> Result<usize, Error> {
    value_dim.checked_add(Partial::HEAD).ok_or(Error::Overflow)
}

/// A call whose arguments are all views by now.
struct Call<'a> {
    shape: Shape,
    rules: Rules<'a>,
    isa: Isa,
    run: usize,
    q: TensorRef<'a, f32>,
    k: TensorRef<'a, f32>,
    v: TensorRef<'a, f32>,
    outputs: Outputs<'a>,
}

fn exact<'a>(call: &Call<'a>) -> Result<Exact<'a>, Error> {
    let plan = Exact::new(call.shape)?.with_rules(call.rules)?.with_isa(call.isa);
    Ok(with_run(plan, call.run))
}

fn with_run(plan: Exact<'_>, run: usize) -> Exact<'_> {
    if run == 0 {
        plan
    } else {
        plan.with_key_run(run)
    }
}

const NO_RULES: subquad_rules = {
    // SAFETY: numbers and null pointers: zeros are a value.
    unsafe { core::mem::zeroed() }
};

/// Checks and views of both plans' calls, then `run`, then the report.
///
/// # Safety
/// Every pointer is NULL or valid for what its struct says it reaches.
unsafe fn call<'a>(
    [q, k, v]: [subquad_tensor; 3],
    rules: *const subquad_rules,
    outputs: *const subquad_outputs,
    (work, work_size): (*mut c_void, usize),
    report: *mut subquad_report,
    run: impl FnOnce(Call<'a>, &mut Scratch<'_>) -> Result<Report, Error>,
) -> Result<(), Error> {
    // SAFETY: the caller's promise, word for word.
    let (rules, outputs) = unsafe { (optional(rules)?.unwrap_or(&NO_RULES), required(outputs)?) };
    let wanted = [outputs.out, outputs.lse, outputs.partials, outputs.scores];
    // SAFETY: the caller's promise, word for word.
    let (q_view, k_view, v_view) = unsafe { (q.view()?, k.view()?, v.view()?) };
    let shape = Shape::of(&q_view, &k_view, &v_view)?;
    let mut written = [Region::EMPTY; 6];
    for (to, tensor) in written.iter_mut().zip(&wanted) {
        if tensor.wanted() {
            *to = tensor.region()?;
            tensor.check()?;
        }
    }
    let rows = shape.batch > 0 && shape.query_heads > 0 && shape.queries > 0;
    if rows && !wanted.iter().any(|t| t.wanted()) {
        return Err(Error::Null);
    }
    let [.., work_region, report_region] = &mut written;
    *work_region = region(work.cast::<u8>(), work_size)?;
    if !report.is_null() {
        *report_region = region(report, 1)?;
    }
    let [a, b, c, d, e, f, g] = rules.regions(&shape)?;
    let rules_region = region(rules, 1)?;
    let outputs_region = region(outputs, 1)?;
    let read = [
        q.region()?,
        k.region()?,
        v.region()?,
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        rules_region,
        outputs_region,
    ];
    apart(&written, &read)?;
    let scores_stage = stage(outputs.stage)?;
    // SAFETY: the caller's promise; nothing that is written overlaps anything else.
    let result = unsafe {
        let call = Call {
            shape,
            rules: rules.rules(&shape)?,
            isa: isa(rules.isa)?,
            run: rules.key_run,
            q: q_view,
            k: k_view,
            v: v_view,
            outputs: Outputs {
                out: outputs.out.view()?,
                lse: outputs.lse.view()?,
                partials: outputs.partials.view()?,
                scores: outputs.scores.view()?.map(|t| (scores_stage, t)),
            },
        };
        run(call, &mut Scratch::new(work_bytes(work, work_size)?))?
    };
    if !report.is_null() {
        // SAFETY: not null and aligned, by `region`; the rest is the caller's promise.
        unsafe { report.write(c_report(&result)) };
    }
    Ok(())
}

fn c_report(report: &Report) -> subquad_report {
    subquad_report {
        isa: report.isa.number(),
        masked_rows: report.masked_rows,
        non_finite_rows: report.non_finite_rows,
        repeated_blocks: report.repeated_blocks,
        bound: report.bound.value,
        bound_failure: report.bound.failure,
    }
}

/// The size query of both plans.
///
/// # Safety
/// Every pointer is NULL or valid for what its struct says it reaches.
unsafe fn need<'a>(
    rules: *const subquad_rules,
    shape: subquad_shape,
    bytes: *mut usize,
    of: impl FnOnce(Shape, Rules<'a>, Isa, usize) -> Result<Need, Error>,
) -> Result<(), Error> {
    let shape = shape.shape();
    shape.check()?;
    // SAFETY: the caller's promise, word for word.
    let rules = unsafe { optional(rules)?.unwrap_or(&NO_RULES) };
    region(bytes, 1)?;
    // SAFETY: the caller's promise, word for word.
    let (safe_rules, to) = unsafe { (rules.rules(&shape)?, slice_mut(bytes, 1)?) };
    let need = of(shape, safe_rules, isa(rules.isa)?, rules.key_run)?;
    to.fill(need.checked_bytes().ok_or(Error::Overflow)?);
    Ok(())
}

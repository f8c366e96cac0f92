//! Attention with a promise. Entries of their own, so that firmware that asks for no bound does not carry it.

use super::attention::{Call, Input, Plan};
use super::{status, subquad_attention, subquad_outputs, subquad_report, subquad_tensor};
use crate::attention::Rounding;
use crate::error::Error;
use core::ffi::c_void;

/// As subquad_attention_forward, with the same arguments, outputs, scratch, errors and bits, and with a promise about
/// rounding.
///
/// No entry of `out` is off from real arithmetic by more than the report's `bound`, for every input that is finite; its
/// bound_failure is 0. Partials carry their own: numbers 2 and 3 bound the errors of the log of sum * 2^max and of the
/// outputs, and subquad_partial_merge keeps them true. The bound is infinity where a number that is not hidden by
/// key_lengths is not finite, or where scores or sums may overflow. Nothing is assumed about how roundings fall, so
/// typical errors are hundreds of times smaller.
///
/// Cost: one more pass over q, k and v, and over all pairs where a bias or slopes are added. No scratch.
///
/// # Safety
/// As for subquad_attention_forward.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)] // the C signature
pub unsafe extern "C" fn subquad_attention_forward_with_bound(
    rules: *const subquad_attention,
    q: subquad_tensor,
    k: subquad_tensor,
    v: subquad_tensor,
    outputs: subquad_outputs,
    work: *mut c_void,
    work_size: usize,
    report: *mut subquad_report,
) -> i32 {
    let call = Call::new(rules, [&q, &k, &v], (work, work_size), report);
    // SAFETY: the caller's promise, word for word; what the first looks at the second does not write.
    status(unsafe {
        call.bound(&outputs, exact)
            .and_then(|bound| call.forward(&outputs, &bound))
    })
}

/// As subquad_attention_run_task, with the promise of subquad_attention_forward_with_bound: that of the whole call, for
/// which every task looks at all of the input.
///
/// # Safety
/// As for subquad_attention_run_task.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)] // the C signature
pub unsafe extern "C" fn subquad_attention_run_task_with_bound(
    index: usize,
    count: usize,
    rules: *const subquad_attention,
    q: subquad_tensor,
    k: subquad_tensor,
    v: subquad_tensor,
    outputs: subquad_outputs,
    work: *mut c_void,
    work_size: usize,
    report: *mut subquad_report,
) -> i32 {
    let call = Call::new(rules, [&q, &k, &v], (work, work_size), report);
    // SAFETY: as for subquad_attention_forward_with_bound.
    status(unsafe {
        let bound = call.bound(&outputs, exact);
        bound.and_then(|bound| call.forward_task(&outputs, index, count, &bound))
    })
}

/// As subquad_attention_decode, with the promise of subquad_attention_forward_with_bound. Scores and sums of weights meet
/// a sixteenth of the roundings, so the bound is another one.
///
/// # Safety
/// As for subquad_attention_forward.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)] // the C signature
pub unsafe extern "C" fn subquad_attention_decode_with_bound(
    rules: *const subquad_attention,
    q: subquad_tensor,
    k: subquad_tensor,
    v: subquad_tensor,
    outputs: subquad_outputs,
    work: *mut c_void,
    work_size: usize,
    report: *mut subquad_report,
) -> i32 {
    let call = Call::new(rules, [&q, &k, &v], (work, work_size), report);
    // SAFETY: as for subquad_attention_forward_with_bound.
    status(unsafe {
        call.bound(&outputs, decode)
            .and_then(|bound| call.decode(&outputs, &bound))
    })
}

fn exact(plan: &Plan<'_>, input: &Input<'_>) -> Result<Rounding, Error> {
    plan.exact.rounding_bound(input.q, input.k, input.v)
}

fn decode(plan: &Plan<'_>, input: &Input<'_>) -> Result<Rounding, Error> {
    plan.decode().rounding_bound(input.q, input.k, input.v)
}

impl Call<'_> {
    /// The promise about a call, all of whose arguments are checked for it.
    ///
    /// # Safety
    /// As for [`forward`](Call::forward).
    unsafe fn bound(
        &self,
        outputs: &subquad_outputs,
        bound: fn(&Plan<'_>, &Input<'_>) -> Result<Rounding, Error>,
    ) -> Result<Rounding, Error> {
        // SAFETY: the caller's promise, word for word.
        unsafe { self.with(|| self.own(outputs), |plan, input, _| bound(plan, &input)) }
    }
}

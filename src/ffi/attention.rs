//! Attention.

use super::{apart, give, info, optional, scratch, status, Extent};
use super::{subquad_attention, subquad_outputs, subquad_report, subquad_shape, subquad_tensor};
use crate::attention::{Decode, Exact, Outputs, Partial, Rounding, Shape};
use crate::error::Error;
use crate::report::Report;
use crate::scratch::{Need, Scratch};
use crate::view::TensorRef;
use core::ffi::c_void;

/// Numbers of a partial row before its value_dim output columns: max, sum, error of lse, error of the outputs.
pub const SUBQUAD_PARTIAL_HEAD: usize = 4;

/// scale * q.k, for every key.
pub const SUBQUAD_STAGE_RAW: i32 = 0;
/// After the soft-cap, for every key.
pub const SUBQUAD_STAGE_CAPPED: i32 = 1;
/// After bias and masks; minus infinity where hidden.
pub const SUBQUAD_STAGE_BIASED: i32 = 2;
/// The probabilities; zeros where hidden.
pub const SUBQUAD_STAGE_SOFTMAX: i32 = 3;

/// Exact attention: out = softmax(scores) v, for all problems and heads.
///
/// q is batch x query_heads x queries x dim, k is batch x kv_heads x keys x dim, v is batch x kv_heads x keys x value_dim.
/// Rows are independent: the same bits however the queries are split among calls or threads, and on every machine of an
/// arithmetic class. Values are never refused: see non_finite_rows of the report. No queries, heads or problems: success,
/// nothing written. No keys: every row is one that sees no key.
///
/// `rules` may be null (no rules), `report` too (not wanted). `work` is `work_size` bytes of scratch at any address, as
/// many as subquad_attention_forward_need says; its contents do not matter, before or after.
///
/// Cost: 2 (dim + value_dim) flops and one exponential per query and key. No allocation, no thread, no lock.
///
/// Returns SUBQUAD_OK, or, with nothing written:
///
/// - SUBQUAD_E_NULL: q, k or v is null where there is something to read, every output is null where there is something
///   to write, work is null and work_size is not 0, or there are segments without their arrays;
/// - SUBQUAD_E_MISALIGNED: a pointer is not aligned for its type;
/// - SUBQUAD_E_SHORT: work_size is less than the need;
/// - SUBQUAD_E_SHAPE: sizes do not fit each other, query_heads is no multiple of kv_heads, a mask or bias has sizes
///   other than 1 and those of the call or more columns than keys, a col_stride is not 1, starts without segments;
/// - SUBQUAD_E_OVERFLOW: a size does not fit the address space;
/// - SUBQUAD_E_OVERLAP: an output, the report or the scratch shares addresses with itself, another of them or an input;
/// - SUBQUAD_E_PARAMETER: scale or cap is negative, NaN or infinite, a slope or sink logit is not finite, a stage is
///   unknown;
/// - SUBQUAD_E_RANGE: key_lengths, query_starts or key_starts leave their sequence;
/// - SUBQUAD_E_UNSUPPORTED: this machine has no such isa.
///
/// Where several apply it is one of them.
///
/// # Safety
/// Every pointer reaches as far as the sizes beside it say, and nobody else writes there during the call.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)] // the C signature
pub unsafe extern "C" fn subquad_attention_forward(
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
    // SAFETY: the caller's promise, word for word.
    status(unsafe { call.forward(&outputs, &Rounding::UNKNOWN) })
}

/// Bytes of scratch that subquad_attention_forward takes for these rules and this shape, written to `bytes`.
///
/// With `want_scores` not 0: for a call that writes scores. The number is exact for the back end that `rules` force, or
/// the best one of this machine, and stops growing beyond some hundred queries or keys. Rules and their arrays are checked
/// as in the call, with its errors; a size beyond the address space is SUBQUAD_E_OVERFLOW, a null `bytes`
/// SUBQUAD_E_NULL.
///
/// # Safety
/// Every pointer in the rules reaches as far as the shape says, and `bytes` points to a size_t.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_attention_forward_need(
    rules: *const subquad_attention,
    shape: subquad_shape,
    want_scores: i32,
    bytes: *mut usize,
) -> i32 {
    let need = |plan: &Plan<'_>| {
        let exact = &plan.exact;
        Ok(if want_scores == 0 {
            exact.need()
        } else {
            exact.need_with_scores()
        })
    };
    // SAFETY: the caller's promise, word for word.
    status(unsafe { bytes_of(rules, shape, bytes, need) })
}

/// Exact attention for few queries against many keys: as subquad_attention_forward, with the same arguments, outputs and
/// errors, and an order of operations, hence last bits, of its own.
///
/// It pays while queries times query_heads / kv_heads are at most 8 or so; its cost is reading the keys and values once.
/// `key_run` is not used. `work` is scratch as subquad_attention_decode_need says.
///
/// # Safety
/// As for subquad_attention_forward.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)] // the C signature
pub unsafe extern "C" fn subquad_attention_decode(
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
    // SAFETY: the caller's promise, word for word.
    status(unsafe { call.decode(&outputs, &Rounding::UNKNOWN) })
}

/// Bytes of scratch that subquad_attention_decode takes for these rules and this shape, written to `bytes`.
///
/// Errors as for subquad_attention_forward_need.
///
/// # Safety
/// Every pointer in the rules reaches as far as the shape says, and `bytes` points to a size_t.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_attention_decode_need(
    rules: *const subquad_attention,
    shape: subquad_shape,
    bytes: *mut usize,
) -> i32 {
    // SAFETY: the caller's promise, word for word.
    status(unsafe { bytes_of(rules, shape, bytes, |plan| Ok(plan.decode().need())) })
}

/// Takes the partial row `from` into the partial row `into`: the result of both sets of keys, which must be disjoint.
///
/// A partial is SUBQUAD_PARTIAL_HEAD + value_dim floats, as subquad_attention_forward writes them. `range` bounds, per
/// column, how far any two values of all those keys are apart; infinity if unknown. It is used for the error bounds only.
///
/// Returns SUBQUAD_OK, or with nothing written SUBQUAD_E_NULL, SUBQUAD_E_MISALIGNED, SUBQUAD_E_OVERFLOW,
/// SUBQUAD_E_OVERLAP (of the two rows), SUBQUAD_E_PARAMETER (range is negative or NaN).
///
/// # Safety
/// Both pointers reach over a partial, and nobody else uses that of `into`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_partial_merge(into: *mut f32, from: *const f32, value_dim: usize, range: f32) -> i32 {
    let merge = || {
        let width = Partial::width(value_dim);
        apart(&[Extent::of(into, width)?], &[Extent::of(from, width)?])?;
        // SAFETY: the caller's promise, word for word; the two do not overlap.
        let (into, from) = unsafe { (super::slice_mut(into, width)?, super::slice(from, width)?) };
        Partial::from_row(into)?.merge(from, range)
    };
    status(merge())
}

/// Natural log of the sum of the exponentiated scores of a partial row; minus infinity where no key was seen.
///
/// Returns SUBQUAD_OK, or with nothing written SUBQUAD_E_NULL, SUBQUAD_E_MISALIGNED, SUBQUAD_E_OVERLAP.
///
/// # Safety
/// `partial` points to at least SUBQUAD_PARTIAL_HEAD floats, `lse` to one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_partial_lse(partial: *const f32, lse: *mut f32) -> i32 {
    let value = || {
        apart(&[Extent::of(lse, 1)?], &[Extent::of(partial, Partial::HEAD)?])?;
        let mut head = Partial::EMPTY_HEAD;
        // SAFETY: the caller's promise, word for word.
        head.copy_from_slice(unsafe { super::slice(partial, Partial::HEAD)? });
        let value = Partial::from_row(&mut head)?.lse();
        // SAFETY: checked to be aligned and apart; the rest is the caller's promise.
        unsafe { give(lse, value) };
        Ok(())
    };
    status(value())
}

/// What a call names beside its outputs, before any of it is believed.
pub(super) struct Call<'c> {
    rules: *const subquad_attention,
    /// Queries, keys, values.
    inputs: [&'c subquad_tensor; 3],
    work: (*mut c_void, usize),
    report: *mut subquad_report,
}

/// What every method of attention is made from. The exact plan is the larger one, and held ready.
pub(super) struct Plan<'a> {
    pub exact: Exact<'a>,
}

pub(super) struct Input<'a> {
    pub q: TensorRef<'a, f32>,
    pub k: TensorRef<'a, f32>,
    pub v: TensorRef<'a, f32>,
}

impl<'a> Plan<'a> {
    /// # Safety
    /// The pointers in `rules` reach as far as the shape says.
    pub(super) unsafe fn new(rules: &subquad_attention, shape: Shape) -> Result<Self, Error> {
        // SAFETY: the caller's promise, word for word.
        let exact = unsafe { Exact::from_parts(shape, rules.read(&shape)?, info::isa(rules.isa)?, rules.key_run)? };
        Ok(Plan { exact })
    }

    pub(super) fn decode(&self) -> Decode<'a> {
        Decode::from_exact(&self.exact)
    }
}

impl<'c> Call<'c> {
    pub(super) const fn new(
        rules: *const subquad_attention,
        inputs: [&'c subquad_tensor; 3],
        work: (*mut c_void, usize),
        report: *mut subquad_report,
    ) -> Self {
        Call {
            rules,
            inputs,
            work,
            report,
        }
    }

    /// Exact attention with a promise from elsewhere: what asks for none links no certificate.
    ///
    /// # Safety
    /// As for [`run`](Call::run), outputs included.
    pub(super) unsafe fn forward(&self, outputs: &subquad_outputs, promise: &Rounding) -> Result<(), Error> {
        let run = |plan: &Plan<'_>, input: Input<'_>, outputs: Outputs<'_>, scratch: &mut Scratch<'_>| {
            let exact = &plan.exact;
            exact.run_promised(input.q, input.k, input.v, outputs, scratch, promise)
        };
        // SAFETY: the caller's promise, word for word.
        unsafe { self.run_to(outputs, run) }
    }

    /// As [`forward`](Call::forward), in the order of decoding.
    ///
    /// # Safety
    /// As for [`forward`](Call::forward).
    pub(super) unsafe fn decode(&self, outputs: &subquad_outputs, promise: &Rounding) -> Result<(), Error> {
        let run = |plan: &Plan<'_>, input: Input<'_>, outputs: Outputs<'_>, scratch: &mut Scratch<'_>| {
            let decode = plan.decode();
            decode.run_promised(input.q, input.k, input.v, outputs, scratch, promise)
        };
        // SAFETY: the caller's promise, word for word.
        unsafe { self.run_to(outputs, run) }
    }

    /// Checks, makes views, runs and reports.
    ///
    /// # Safety
    /// As for [`forward`](Call::forward).
    unsafe fn run_to(
        &self,
        outputs: &subquad_outputs,
        run: impl FnOnce(&Plan<'_>, Input<'_>, Outputs<'_>, &mut Scratch<'_>) -> Result<Report, Error>,
    ) -> Result<(), Error> {
        // SAFETY: the caller's promise; what will be written is apart from everything else.
        unsafe {
            self.run(
                || self.own(outputs),
                |plan, input, scratch| run(plan, input, outputs.view()?, scratch),
            )
        }
    }

    /// What a forward call has of its own; [`Error::Null`] if it should write something and writes nothing.
    pub(super) fn own(&self, outputs: &subquad_outputs) -> Result<([Extent; 4], [Extent; 0]), Error> {
        let [q, _, v] = self.inputs;
        outputs.wanted([q.batch, q.heads, q.rows, v.cols])?;
        Ok((outputs.extents()?, []))
    }

    /// [`with`](Call::with), and a report.
    ///
    /// # Safety
    /// As for [`with`](Call::with).
    pub(super) unsafe fn run<const W: usize, const R: usize>(
        &self,
        own: impl FnOnce() -> Result<([Extent; W], [Extent; R]), Error>,
        run: impl FnOnce(&Plan<'_>, Input<'_>, &mut Scratch<'_>) -> Result<Report, Error>,
    ) -> Result<(), Error> {
        // SAFETY: the caller's promise, word for word.
        let report = unsafe { self.with(own, run)? };
        // SAFETY: checked to be aligned and apart; the rest is the caller's promise.
        unsafe { give(self.report, report.into()) };
        Ok(())
    }

    /// Checks everything, also what is this call's `own` to write and to read, and makes views of the inputs for whatever
    /// is to be done with them.
    ///
    /// # Safety
    /// Every pointer reaches as far as the sizes beside it say, and nobody else writes there.
    pub(super) unsafe fn with<T, const W: usize, const R: usize>(
        &self,
        own: impl FnOnce() -> Result<([Extent; W], [Extent; R]), Error>,
        run: impl FnOnce(&Plan<'_>, Input<'_>, &mut Scratch<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        // SAFETY: the caller's promise, word for word.
        let rules = unsafe { optional(self.rules)? }.unwrap_or(&subquad_attention::NONE);
        self.check(rules, own)?;
        let ([q, k, v], (work, work_size)) = (self.inputs, self.work);
        // SAFETY: the caller's promise; what will be written is apart from everything else.
        let (input, mut scratch) = unsafe {
            let input = Input {
                q: q.view()?,
                k: k.view()?,
                v: v.view()?,
            };
            (input, scratch(work, work_size)?)
        };
        let shape = Shape::of(&input.q, &input.k, &input.v)?;
        // SAFETY: the caller's promise, word for word.
        let plan = unsafe { Plan::new(rules, shape)? };
        run(&plan, input, &mut scratch)
    }

    /// Every pointer is usable, and what will be written is apart from everything else. Not inlined: its frame is gone
    /// when the kernels run.
    #[inline(never)]
    fn check<const W: usize, const R: usize>(
        &self,
        rules: &subquad_attention,
        own: impl FnOnce() -> Result<([Extent; W], [Extent; R]), Error>,
    ) -> Result<(), Error> {
        let ([q, k, v], (work, work_size)) = (self.inputs, self.work);
        let (writes, reads) = own()?;
        let more = [
            Extent::of(work.cast::<u8>(), work_size)?,
            Extent::optional(self.report, 1)?,
        ];
        let arrays = rules.extents(q.batch, q.heads)?;
        let call = [q.extent()?, k.extent()?, v.extent()?, Extent::optional(self.rules, 1)?];
        apart(&writes, &more)?;
        for writes in [&writes[..], &more] {
            for reads in [&reads[..], &call, &arrays] {
                apart(writes, reads)?;
            }
        }
        Ok(())
    }
}

/// # Safety
/// Every pointer in the rules reaches as far as the shape says, and `bytes` points to a number.
pub(super) unsafe fn bytes_of(
    rules: *const subquad_attention,
    shape: subquad_shape,
    bytes: *mut usize,
    need: impl FnOnce(&Plan<'_>) -> Result<Need, Error>,
) -> Result<(), Error> {
    let number = |plan: &Plan<'_>| need(plan)?.checked_bytes().ok_or(Error::Overflow);
    // SAFETY: the caller's promise, word for word.
    unsafe { number_of(rules, shape, bytes, number) }
}

/// Answers a question about a plan.
///
/// # Safety
/// As for [`bytes_of`].
pub(super) unsafe fn number_of(
    rules: *const subquad_attention,
    shape: subquad_shape,
    to: *mut usize,
    number: impl FnOnce(&Plan<'_>) -> Result<usize, Error>,
) -> Result<(), Error> {
    let answer = Extent::of(to, 1)?;
    let at = Extent::optional(rules, 1)?;
    // SAFETY: the caller's promise, word for word.
    let rules = unsafe { optional(rules)? }.unwrap_or(&subquad_attention::NONE);
    apart(&[answer], &rules.extents(shape.batch, shape.query_heads)?)?;
    apart(&[answer], &[at])?;
    // SAFETY: the caller's promise, word for word.
    let plan = unsafe { Plan::new(rules, shape.into())? };
    let number = number(&plan)?;
    // SAFETY: checked to be aligned and apart; the rest is the caller's promise.
    unsafe { give(to, number) };
    Ok(())
}

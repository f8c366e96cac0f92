//! The gradient of attention.

use super::attention::{bytes_of, Call, Plan};
use super::types::{subquad_gradients, subquad_upstream};
use super::{slice_mut, status, Extent};
use super::{subquad_attention, subquad_report, subquad_shape, subquad_tensor};
use crate::attention::{Gradient, Gradients, Saved, Tasks, Upstream};
use crate::error::Error;
use crate::view::Layout;
use core::ffi::c_void;

/// The gradient of subquad_attention_forward, of the same rules, from that of its outputs.
///
/// Scores are computed again; `upstream` has the output and the log-sum-exp (or partials) of the forward call, and what
/// comes back for them. Gradients go to whatever of `gradients` is not null, and are overwritten; that of the bias has the bias's shape,
/// where an axis of 1 is a sum. A key that is hidden gets nothing; a row that sees no key gives zeros; a row with anything
/// that is not finite makes NaN of the gradients of all it sees. Every sum has one order, so bits depend on the arithmetic
/// class only. Problems and key heads (with their query heads) are independent but for a bias that they share:
/// subquad_attention_gradient_tasks splits the work.
///
/// `rules`, `work` and `report` are those of subquad_attention_forward, `work` as many bytes as
/// subquad_attention_gradient_need says. `key_run` is not used.
///
/// Cost: 6 dim + 4 value_dim flops and one exponential per query and key. No allocation, no thread, no lock.
///
/// Returns SUBQUAD_OK, or, with nothing written, the errors of subquad_attention_forward, where `upstream` are inputs
/// (d_lse may be null, and lse or partials) and `gradients` outputs; SUBQUAD_E_SHAPE also for a gradient of a bias or of sink logits that the
/// rules do not have.
///
/// # Safety
/// Every pointer reaches as far as the sizes beside it say, sink_logits over query_heads floats, and nobody else writes
/// there during the call.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)] // the C signature
pub unsafe extern "C" fn subquad_attention_gradient(
    rules: *const subquad_attention,
    q: subquad_tensor,
    k: subquad_tensor,
    v: subquad_tensor,
    upstream: subquad_upstream,
    gradients: subquad_gradients,
    work: *mut c_void,
    work_size: usize,
    report: *mut subquad_report,
) -> i32 {
    let call = Call::new(rules, [&q, &k, &v], (work, work_size), report);
    let own = || {
        Ok((
            gradients.wanted([q.shape(), k.shape(), v.shape()])?,
            upstream.extents()?,
        ))
    };
    // SAFETY: the caller's promise; what will be written is apart from everything else.
    status(unsafe {
        call.run(own, |plan, x, scratch| {
            let to = gradients.view(q.heads)?;
            plan.gradient().run(x.q, x.k, x.v, upstream.view()?, to, scratch)
        })
    })
}

/// Bytes of scratch that subquad_attention_gradient takes for these rules and this shape, written to `bytes`.
///
/// Errors as for subquad_attention_forward_need.
///
/// # Safety
/// Every pointer in the rules reaches as far as the shape says, and `bytes` points to a size_t.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_attention_gradient_need(
    rules: *const subquad_attention,
    shape: subquad_shape,
    bytes: *mut usize,
) -> i32 {
    // SAFETY: the caller's promise, word for word.
    status(unsafe { bytes_of(rules, shape, bytes, |plan| Ok(plan.gradient().need())) })
}

impl<'a> Plan<'a> {
    pub(super) fn gradient(&self) -> Gradient<'a> {
        Gradient::from_exact(&self.exact)
    }
}

impl subquad_upstream {
    /// Partials, or the log-sum-exp where there are none.
    const fn saved(&self) -> subquad_tensor {
        if self.partials.data.is_null() {
            self.lse
        } else {
            self.partials
        }
    }

    pub(super) fn extents(&self) -> Result<[Extent; 4], Error> {
        Ok([
            self.out.extent()?,
            self.d_out.extent()?,
            self.saved().extent()?,
            self.d_lse.optional_extent()?,
        ])
    }

    /// # Safety
    /// The pointers reach as far as the sizes say, and nobody writes there during 'a.
    pub(super) unsafe fn view<'a>(&self) -> Result<Upstream<'a>, Error> {
        // SAFETY: the caller's promise, word for word.
        unsafe {
            Ok(Upstream {
                out: self.out.view()?,
                d_out: self.d_out.view()?,
                saved: if self.partials.data.is_null() {
                    Saved::Lse(self.lse.view()?)
                } else {
                    Saved::Partials(self.partials.view()?)
                },
                d_lse: self.d_lse.optional_view()?,
            })
        }
    }
}

impl subquad_gradients {
    pub(super) const fn tensors(&self) -> [super::subquad_tensor_mut; 4] {
        [self.q, self.k, self.v, self.bias]
    }

    /// What will be written. [`Error::Null`] if nothing is, though inputs of these shapes have an element.
    pub(super) fn wanted(&self, inputs: [[usize; 4]; 3]) -> Result<[Extent; 5], Error> {
        let nothing = self.sink_logits.is_null() && self.tensors().iter().all(|t| t.data.is_null());
        if nothing && inputs.iter().any(|sizes| !sizes.contains(&0)) {
            return Err(Error::Null);
        }
        let [[_, query_heads, ..], ..] = inputs;
        Ok([
            self.q.optional_extent()?,
            self.k.optional_extent()?,
            self.v.optional_extent()?,
            self.bias.optional_extent()?,
            Extent::optional(self.sink_logits, query_heads)?,
        ])
    }

    /// # Safety
    /// The pointers reach as far as the sizes say, and nobody else uses that memory during 'a.
    unsafe fn view<'a>(&self, query_heads: usize) -> Result<Gradients<'a>, Error> {
        // SAFETY: the caller's promise, word for word.
        unsafe {
            let sinks = match self.sink_logits.is_null() {
                true => None,
                false => Some(slice_mut(self.sink_logits, query_heads)?),
            };
            Ok(Gradients {
                q: self.q.optional_view()?,
                k: self.k.optional_view()?,
                v: self.v.optional_view()?,
                bias: self.bias.optional_view()?,
                sink_logits: sinks,
            })
        }
    }

    pub(super) fn tasks(
        &self,
        plan: &Gradient<'_>,
        query_heads: usize,
        layouts: &[Option<Layout>; 4],
        wanted: usize,
    ) -> Result<Tasks, Error> {
        let sinks = (!self.sink_logits.is_null()).then_some(query_heads);
        plan.tasks(&layouts.each_ref().map(Option::as_ref), sinks, wanted)
    }

    /// Views of what a task writes; the first has all sinks.
    ///
    /// # Safety
    /// The pointers reach as far as the sizes say, and nobody else uses the elements of the task during 'a.
    pub(super) unsafe fn windows<'a>(
        &self,
        query_heads: usize,
        layouts: &[Option<Layout>; 4],
        tasks: &Tasks,
        index: usize,
    ) -> Result<Gradients<'a>, Error> {
        let [a, b, c, d] = layouts;
        // SAFETY: the caller's promise, word for word.
        unsafe {
            let sink_logits = match self.sink_logits.is_null() || index != 0 {
                true => None,
                false => Some(slice_mut(self.sink_logits, query_heads)?),
            };
            Ok(Gradients {
                q: self.q.window(a, tasks, index)?,
                k: self.k.window(b, tasks, index)?,
                v: self.v.window(c, tasks, index)?,
                bias: self.bias.window(d, tasks, index)?,
                sink_logits,
            })
        }
    }
}

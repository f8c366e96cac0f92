//! The work of a call in tasks, for the threads of the host.

use super::attention::{number_of, Call};
use super::rules::stage;
use super::{give, slice_mut, status};
use super::{subquad_attention, subquad_outputs, subquad_report, subquad_shape, subquad_tensor, subquad_tensor_mut};
use crate::attention::{Outputs, Rounding, Share, Tasks};
use crate::error::Error;
use crate::view::{Layout, TensorMut};
use core::ffi::c_void;

/// Into how many tasks subquad_attention_forward can be split where `wanted` are, written to `count`: at least one, at
/// most `wanted`.
///
/// Tasks write to memory of their own, one behind the other: heads and then row blocks of a head in the 4-D layout, row
/// blocks of all heads in packed layouts. There are fewer where the layouts of the outputs have no such cuts in common,
/// and where there are fewer rows. Of `outputs` only sizes, strides and which are null are looked at. Several tasks per
/// thread make up for those that take longer, as the last rows of causal attention do.
///
/// Errors as for subquad_attention_forward_need, and with nothing written: SUBQUAD_E_NULL (`count`, or every output where
/// there is something to write), SUBQUAD_E_SHAPE and SUBQUAD_E_OVERLAP (of an output, with the shape and with itself),
/// SUBQUAD_E_PARAMETER (`wanted` is 0).
///
/// # Safety
/// Every pointer in the rules reaches as far as the shape says, and `count` points to a size_t.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_attention_tasks(
    rules: *const subquad_attention,
    shape: subquad_shape,
    outputs: subquad_outputs,
    wanted: usize,
    count: *mut usize,
) -> i32 {
    let subquad_shape {
        batch,
        query_heads,
        queries,
        value_dim,
        ..
    } = shape;
    let checked = || {
        outputs.extents()?;
        outputs.wanted([batch, query_heads, queries, value_dim])?;
        outputs.layouts()
    };
    let number = |layouts: [Option<Layout>; 4]| {
        // SAFETY: the caller's promise, word for word.
        unsafe {
            number_of(rules, shape, count, |plan| {
                Ok(plan
                    .exact
                    .tasks(&layouts.each_ref().map(Option::as_ref), wanted)?
                    .count())
            })
        }
    };
    status(checked().and_then(number))
}

/// Task `index` of `count` of subquad_attention_forward with these arguments: when all have run, in any order and on any
/// threads, the outputs hold the bits that one call gives.
///
/// `count` is any number but 0, the same for all tasks; beyond what subquad_attention_tasks says, tasks have nothing to
/// do. Each task takes scratch of its own, of subquad_attention_forward_need bytes, and may be given a report of its own.
/// masked_rows and non_finite_rows of the reports add up to those of the call; repeated_blocks too, unless heads of one
/// group are in different tasks.
///
/// Every task checks all arguments as subquad_attention_forward does, with its errors; they are the same for all tasks,
/// as long as the scratch is. In addition SUBQUAD_E_PARAMETER if `count` is 0, and SUBQUAD_E_RANGE if `index` is not less.
///
/// # Safety
/// Every pointer reaches as far as the sizes beside it say, and nobody else writes there during the call, but for other
/// tasks of the same split, to the outputs.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)] // the C signature
pub unsafe extern "C" fn subquad_attention_run_task(
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
    let call = Call {
        rules,
        q: &q,
        k: &k,
        v: &v,
        outputs: &outputs,
        work,
        work_size,
        report,
    };
    // SAFETY: the caller's promise, word for word.
    status(unsafe { call.task(index, count) })
}

impl Call<'_> {
    /// One of `count` tasks. No reference is made to what other tasks write.
    ///
    /// # Safety
    /// As for [`subquad_attention_run_task`].
    unsafe fn task(&self, index: usize, count: usize) -> Result<(), Error> {
        // SAFETY: the caller's promise, word for word; the elements of a task are its own.
        let report = unsafe {
            self.with_inputs(|plan, input, scratch| {
                let layouts = self.outputs.layouts()?;
                let tasks = plan.exact.tasks(&layouts.each_ref().map(Option::as_ref), count)?;
                if index >= count {
                    return Err(Error::Range);
                }
                let outputs = self.outputs.windows(&layouts, &tasks, index)?;
                let share = Share::task(tasks, index, outputs);
                let exact = &plan.exact;
                exact.run_share_promised(input.q, input.k, input.v, share, scratch, &Rounding::UNKNOWN)
            })?
        };
        // SAFETY: checked to be aligned and apart; the rest is the caller's promise.
        unsafe { give(self.report, report.into()) };
        Ok(())
    }
}

impl subquad_outputs {
    /// How those that are wanted lie in memory, which is not looked at.
    fn layouts(&self) -> Result<[Option<Layout>; 4], Error> {
        let [out, lse, partials, scores] = self.all();
        if !scores.data.is_null() {
            stage(self.scores_stage)?;
        }
        Ok([out.layout()?, lse.layout()?, partials.layout()?, scores.layout()?])
    }

    /// Views of what a task writes.
    ///
    /// # Safety
    /// The pointers reach as far as the sizes say, and nobody else uses the elements of the task during 'a.
    unsafe fn windows<'a>(
        &self,
        layouts: &[Option<Layout>; 4],
        tasks: &Tasks,
        index: usize,
    ) -> Result<Outputs<'a>, Error> {
        let window = |tensor: subquad_tensor_mut, layout: Option<Layout>| {
            let Some(layout) = layout else { return Ok(None) };
            let elements = tasks.elements(index, &layout);
            // SAFETY: the caller's promise, word for word: elements of a task lie inside the tensor.
            let data = unsafe { slice_mut(tensor.data.wrapping_add(elements.start), elements.len())? };
            Ok(Some(TensorMut::window(data, layout, elements.start)))
        };
        let ([out, lse, partials, scores], &[a, b, c, d]) = (self.all(), layouts);
        let scores = match window(scores, d)? {
            Some(scores) => Some((stage(self.scores_stage)?, scores)),
            None => None,
        };
        Ok(Outputs {
            out: window(out, a)?,
            lse: window(lse, b)?,
            partials: window(partials, c)?,
            scores,
        })
    }
}

impl subquad_tensor_mut {
    /// Sizes and strides, or nothing where the data is null.
    fn layout(&self) -> Result<Option<Layout>, Error> {
        if self.data.is_null() {
            return Ok(None);
        }
        // The stride of columns, which a layout has not, is checked with the length.
        self.len()?;
        Layout::to_write(self.shape(), self.strides()).map(Some)
    }
}

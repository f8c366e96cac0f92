//! The work of a call in tasks, for the threads of the host.

use super::attention::{number_of, Call, Input, Plan};
use super::rules::stage;
use super::{slice_mut, status};
use super::{subquad_attention, subquad_gradients, subquad_outputs, subquad_report, subquad_upstream};
use super::{subquad_shape, subquad_tensor, subquad_tensor_mut};
use crate::attention::{Outputs, Rounding, Share, Tasks};
use crate::error::Error;
use crate::report::Report;
use crate::scratch::Scratch;
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
    // SAFETY: the caller's promise, word for word.
    status(unsafe { forward_count(rules, shape, &outputs, count, |plan, lie| plan.exact.tasks(lie, wanted)) })
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
    let call = Call::new(rules, [&q, &k, &v], (work, work_size), report);
    // SAFETY: the caller's promise, word for word.
    status(unsafe { call.forward_task(&outputs, index, count, &Rounding::UNKNOWN) })
}

/// As subquad_attention_tasks, for subquad_attention_decode: into how many tasks it can be split.
///
/// Keys are not split, nor the query heads that share them, so that each is read once: tasks are problems, key heads and
/// blocks of queries.
///
/// # Safety
/// As for subquad_attention_tasks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_attention_decode_tasks(
    rules: *const subquad_attention,
    shape: subquad_shape,
    outputs: subquad_outputs,
    wanted: usize,
    count: *mut usize,
) -> i32 {
    // SAFETY: the caller's promise, word for word.
    status(unsafe {
        forward_count(rules, shape, &outputs, count, |plan, lie| {
            plan.decode().tasks(lie, wanted)
        })
    })
}

/// As subquad_attention_run_task, for subquad_attention_decode: task `index` of `count`, with scratch of
/// subquad_attention_decode_need bytes.
///
/// # Safety
/// As for subquad_attention_run_task.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)] // the C signature
pub unsafe extern "C" fn subquad_attention_decode_run_task(
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
    // SAFETY: the caller's promise, word for word.
    status(unsafe { call.decode_task(&outputs, index, count) })
}

/// Into how many tasks subquad_attention_gradient can be split where `wanted` are, written to `count`: at least one, at
/// most `wanted`.
///
/// A task is some problems, or some key heads of one, with all their queries and keys. Those that add to the same number
/// of the bias's gradient are never in different tasks: a bias of one problem for all leaves problems together, one of one
/// head leaves heads together. (Gradients of sink logits are all in the first task.) Nor is anything cut that does not lie
/// apart in memory: heads that are packed side by side in rows stay together, and where problems do, so do heads inside of
/// them. Of `gradients` only sizes, strides and which are null are looked at.
///
/// Errors as for subquad_attention_gradient_need, and with nothing written: SUBQUAD_E_NULL (`count`, or every gradient where
/// there is something to write), SUBQUAD_E_SHAPE and SUBQUAD_E_OVERLAP (of a gradient, with the shape and with itself),
/// SUBQUAD_E_PARAMETER (`wanted` is 0).
///
/// # Safety
/// Every pointer in the rules reaches as far as the shape says, and `count` points to a size_t.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_attention_gradient_tasks(
    rules: *const subquad_attention,
    shape: subquad_shape,
    gradients: subquad_gradients,
    wanted: usize,
    count: *mut usize,
) -> i32 {
    let number = || {
        let (batch, kv_heads, keys) = (shape.batch, shape.kv_heads, shape.keys);
        gradients.wanted([
            [batch, shape.query_heads, shape.queries, shape.dim],
            [batch, kv_heads, keys, shape.dim],
            [batch, kv_heads, keys, shape.value_dim],
        ])?;
        let layouts = layouts(gradients.tensors())?;
        let tasks = |plan: &Plan<'_>| gradients.tasks(&plan.gradient(), shape.query_heads, &layouts, wanted);
        // SAFETY: the caller's promise, word for word.
        unsafe { number_of(rules, shape, count, |plan| Ok(tasks(plan)?.count())) }
    };
    status(number())
}

/// Task `index` of `count` of subquad_attention_gradient with these arguments: when all have run, in any order and on any
/// threads, the gradients hold the bits that one call gives.
///
/// `count`, scratch (of subquad_attention_gradient_need bytes for each task), reports and errors are as for
/// subquad_attention_run_task.
///
/// # Safety
/// Every pointer reaches as far as the sizes beside it say, and nobody else writes there during the call, but for other
/// tasks of the same split, to the gradients.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)] // the C signature
pub unsafe extern "C" fn subquad_attention_gradient_run_task(
    index: usize,
    count: usize,
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
    let run = || {
        among(index, count)?;
        let layouts = layouts(gradients.tensors())?;
        let own = || {
            Ok((
                gradients.wanted([q.shape(), k.shape(), v.shape()])?,
                upstream.extents()?,
            ))
        };
        // SAFETY: the caller's promise, word for word; the elements of a task are its own.
        unsafe {
            call.run(own, |plan, x, scratch| {
                let plan = plan.gradient();
                let tasks = gradients.tasks(&plan, q.heads, &layouts, count)?;
                let to = gradients.windows(q.heads, &layouts, &tasks, index)?;
                let share = Share::task(tasks, index, to);
                plan.run_share(x.q, x.k, x.v, upstream.view()?, share, scratch)
            })
        }
    };
    status(run())
}

/// Writes the number of tasks of a forward call.
///
/// # Safety
/// As for [`subquad_attention_tasks`].
unsafe fn forward_count(
    rules: *const subquad_attention,
    shape: subquad_shape,
    outputs: &subquad_outputs,
    count: *mut usize,
    tasks: impl FnOnce(&Plan<'_>, &[Option<&Layout>; 4]) -> Result<Tasks, Error>,
) -> Result<(), Error> {
    outputs.extents()?;
    outputs.wanted([shape.batch, shape.query_heads, shape.queries, shape.value_dim])?;
    let layouts = outputs.layouts()?;
    let number = |plan: &Plan<'_>| Ok(tasks(plan, &layouts.each_ref().map(Option::as_ref))?.count());
    // SAFETY: the caller's promise, word for word.
    unsafe { number_of(rules, shape, count, number) }
}

/// [`Error::Parameter`] if there are no tasks, [`Error::Range`] if there is no such one.
fn among(index: usize, count: usize) -> Result<(), Error> {
    match index < count {
        true => Ok(()),
        false if count == 0 => Err(Error::Parameter),
        false => Err(Error::Range),
    }
}

impl Call<'_> {
    /// One of `count` tasks of a forward call.
    ///
    /// # Safety
    /// As for [`subquad_attention_run_task`].
    pub(super) unsafe fn forward_task(
        &self,
        outputs: &subquad_outputs,
        index: usize,
        count: usize,
        promise: &Rounding,
    ) -> Result<(), Error> {
        among(index, count)?;
        let tasks = |plan: &Plan<'_>, lie: &[Option<&Layout>; 4]| plan.exact.tasks(lie, count);
        // SAFETY: the caller's promise, word for word.
        unsafe {
            self.task(outputs, index, tasks, |plan, x, share, scratch| {
                plan.exact.run_share_promised(x.q, x.k, x.v, share, scratch, promise)
            })
        }
    }

    /// As [`forward_task`](Call::forward_task), in the order of decoding.
    ///
    /// # Safety
    /// As for [`subquad_attention_run_task`].
    unsafe fn decode_task(&self, outputs: &subquad_outputs, index: usize, count: usize) -> Result<(), Error> {
        among(index, count)?;
        let tasks = |plan: &Plan<'_>, lie: &[Option<&Layout>; 4]| plan.decode().tasks(lie, count);
        // SAFETY: the caller's promise, word for word.
        unsafe {
            self.task(outputs, index, tasks, |plan, x, share, scratch| {
                plan.decode()
                    .run_share_promised(x.q, x.k, x.v, share, scratch, &Rounding::UNKNOWN)
            })
        }
    }

    /// One task. No reference is made to what others write.
    ///
    /// # Safety
    /// As for [`subquad_attention_run_task`].
    unsafe fn task<'o>(
        &self,
        outputs: &'o subquad_outputs,
        index: usize,
        tasks: impl FnOnce(&Plan<'_>, &[Option<&Layout>; 4]) -> Result<Tasks, Error>,
        run: impl FnOnce(&Plan<'_>, Input<'_>, Share<Outputs<'o>>, &mut Scratch<'_>) -> Result<Report, Error>,
    ) -> Result<(), Error> {
        let layouts = outputs.layouts()?;
        // SAFETY: the caller's promise, word for word; the elements of a task are its own.
        unsafe {
            self.run(
                || self.own(outputs),
                |plan, input, scratch| {
                    let tasks = tasks(plan, &layouts.each_ref().map(Option::as_ref))?;
                    let outputs = outputs.windows(&layouts, &tasks, index)?;
                    run(plan, input, Share::task(tasks, index, outputs), scratch)
                },
            )
        }
    }
}

/// How those that are wanted lie in memory, which is not looked at.
fn layouts(tensors: [subquad_tensor_mut; 4]) -> Result<[Option<Layout>; 4], Error> {
    let [a, b, c, d] = tensors;
    Ok([a.layout()?, b.layout()?, c.layout()?, d.layout()?])
}

impl subquad_outputs {
    fn layouts(&self) -> Result<[Option<Layout>; 4], Error> {
        if !self.scores.data.is_null() {
            stage(self.scores_stage)?;
        }
        layouts(self.all())
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
        let [a, b, c, d] = layouts;
        // SAFETY: the caller's promise, word for word.
        let (out, lse, partials, scores) = unsafe {
            (
                self.out.window(a, tasks, index)?,
                self.lse.window(b, tasks, index)?,
                self.partials.window(c, tasks, index)?,
                self.scores.window(d, tasks, index)?,
            )
        };
        let scores = match scores {
            Some(scores) => Some((stage(self.scores_stage)?, scores)),
            None => None,
        };
        Ok(Outputs {
            out,
            lse,
            partials,
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

    /// A view of what a task writes.
    ///
    /// # Safety
    /// The pointer reaches as far as the sizes say, and nobody else uses the elements of the task during 'a.
    pub(super) unsafe fn window<'a>(
        &self,
        layout: &Option<Layout>,
        tasks: &Tasks,
        index: usize,
    ) -> Result<Option<TensorMut<'a, f32>>, Error> {
        let Some(layout) = *layout else { return Ok(None) };
        let elements = tasks.elements(index, &layout);
        // SAFETY: the caller's promise, word for word: elements of a task lie inside the tensor.
        let data = unsafe { slice_mut(self.data.wrapping_add(elements.start), elements.len())? };
        Ok(Some(TensorMut::window(data, layout, elements.start)))
    }
}

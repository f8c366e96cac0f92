//! Attention for one head, without the operator behind it: small code, small stack.

use super::{apart, give, info, optional, scratch, status, subquad_report, Extent};
use crate::attention::Head;
use crate::error::Error;
use crate::view::check::{span, Axis};
use crate::view::{MatMut, MatRef};
use core::ffi::c_void;
use core::mem::size_of;

/// A matrix of floats to read: element (r, c) is data[r * stride + c].
///
/// The stride counts elements; 0 repeats one row. `data` must be aligned for float and may be null where there are no
/// elements.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct subquad_matrix {
    /// Element (0, 0).
    pub data: *const f32,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Elements from one row to the next.
    pub stride: usize,
}

/// A matrix of floats to write; as subquad_matrix, but rows may not overlap (SUBQUAD_E_OVERLAP).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct subquad_matrix_mut {
    /// Element (0, 0).
    pub data: *mut f32,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Elements from one row to the next.
    pub stride: usize,
}

/// One head: out = softmax(scale q k^T) v. May lie in flash.
///
/// q is queries x dim, k is keys x dim, v is keys x value_dim, out is queries x value_dim.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct subquad_head {
    /// Queries.
    pub q: subquad_matrix,
    /// Keys.
    pub k: subquad_matrix,
    /// Values.
    pub v: subquad_matrix,
    /// Where the result goes.
    pub out: subquad_matrix_mut,
    /// Query i sees no key beyond number `offset` + i; may be negative. Not read unless `causal` is set.
    pub offset: i64,
    /// Not 0: `offset` limits what a query sees.
    pub causal: i32,
    /// Scores are scale * q.k; 0 means 1 / sqrt(dim). Finite and not negative, or SUBQUAD_E_PARAMETER.
    pub scale: f32,
    /// Back end, SUBQUAD_ISA_...; 0: the best of this machine. One that is not there: SUBQUAD_E_UNSUPPORTED.
    pub isa: i32,
}

/// Exact attention for one head: what firmware links instead of subquad_attention_forward, at a fifth of its code and
/// stack. The bits are those of subquad_attention_forward with the same scale, causal rule and isa.
///
/// `work` is `work_size` bytes of scratch at any address, as many as SUBQUAD_ATTENTION_HEAD_NEED or
/// subquad_attention_head_need say; its contents do not matter. `report` may be null (not wanted).
///
/// A query that sees no key gives zeros; one that sees a score or value that is not finite gives NaN, one bit pattern.
/// No queries or no value_dim: success, nothing written.
///
/// Returns SUBQUAD_OK, or, with nothing written, SUBQUAD_E_NULL, SUBQUAD_E_MISALIGNED, SUBQUAD_E_SHORT (scratch),
/// SUBQUAD_E_SHAPE (sizes do not fit each other), SUBQUAD_E_OVERFLOW, SUBQUAD_E_OVERLAP (out, the report or the scratch
/// shares addresses with itself, another of them or an input), SUBQUAD_E_PARAMETER, SUBQUAD_E_UNSUPPORTED. Where several
/// apply it is one of them.
///
/// # Safety
/// Every pointer reaches as far as the sizes beside it say, and nobody else writes there during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_attention_head(
    head: *const subquad_head,
    work: *mut c_void,
    work_size: usize,
    report: *mut subquad_report,
) -> i32 {
    let run = || {
        // SAFETY: the caller's promise, word for word.
        let head = unsafe { optional(head)? }.ok_or(Error::Null)?;
        let reaches = check(head, work, work_size, report)?;
        // SAFETY: the caller's promise; all was checked, and what will be written is apart from everything else.
        let (mut plan, mut out, mut scratch) = unsafe {
            let [q, k, v, out] = reaches;
            let plan = Head::new(head.q.view(q), head.k.view(k), head.v.view(v))?;
            (plan, head.out.view(out), scratch(work, work_size)?)
        };
        if head.scale != 0.0 {
            plan = plan.with_scale(head.scale)?;
        }
        if head.causal != 0 {
            plan = plan.with_causal(head.offset);
        }
        let happened = plan.with_isa(info::isa(head.isa)?).run(&mut out, &mut scratch)?;
        // SAFETY: checked to be aligned and apart; the rest is the caller's promise.
        unsafe { give(report, happened.into()) };
        Ok(())
    };
    status(run())
}

/// Bytes of scratch that subquad_attention_head takes, for any number of queries and every isa of this library; the
/// largest size_t, which no scratch has, where they do not fit the address space.
///
/// SUBQUAD_ATTENTION_HEAD_NEED is the same as a constant expression, for a static array.
#[unsafe(no_mangle)]
pub extern "C" fn subquad_attention_head_need(keys: usize, dim: usize, value_dim: usize) -> usize {
    Head::need_of(keys, dim, value_dim).bytes()
}

/// Every pointer is usable, and what will be written is apart from everything else. Elements of q, k, v and out.
///
/// Not inlined: its extents would lie in the stack frame of the whole call.
#[inline(never)]
fn check(
    head: &subquad_head,
    work: *mut c_void,
    work_size: usize,
    report: *mut subquad_report,
) -> Result<[usize; 4], Error> {
    let subquad_head { q, k, v, out, .. } = head;
    let (q, k, v) = (
        extent(q.data, q.rows, q.cols, q.stride)?,
        extent(k.data, k.rows, k.cols, k.stride)?,
        extent(v.data, v.rows, v.cols, v.stride)?,
    );
    let to = extent(out.data, out.rows, out.cols, out.stride)?;
    if out.rows > 1 && out.stride < out.cols {
        return Err(Error::Overlap);
    }
    let writes = [
        to,
        Extent::of(work.cast::<u8>(), work_size)?,
        Extent::optional(report, 1)?,
    ];
    apart(&writes, &[q, k, v, Extent::of(head, 1)?])?;
    Ok([q.floats(), k.floats(), v.floats(), to.floats()])
}

/// Where a matrix lies.
fn extent(data: *const f32, rows: usize, cols: usize, stride: usize) -> Result<Extent, Error> {
    Extent::of(
        data,
        span(&[Axis { len: rows, stride }, Axis { len: cols, stride: 1 }])?,
    )
}

impl Extent {
    const fn floats(&self) -> usize {
        (self.end - self.start) / size_of::<f32>()
    }
}

impl subquad_matrix {
    /// # Safety
    /// The matrix was checked to have `len` elements, which nobody writes during 'a.
    unsafe fn view<'a>(&self, len: usize) -> MatRef<'a, f32> {
        let data: &[f32] = match len {
            0 => &[],
            // SAFETY: not null, aligned and not too long by the check; the rest is the caller's promise.
            _ => unsafe { core::slice::from_raw_parts(self.data, len) },
        };
        MatRef::spanning(data, self.rows, self.cols, self.stride)
    }
}

impl subquad_matrix_mut {
    /// # Safety
    /// The matrix was checked to have `len` elements, which nobody else uses during 'a.
    unsafe fn view<'a>(&self, len: usize) -> MatMut<'a, f32> {
        let data: &mut [f32] = match len {
            0 => &mut [],
            // SAFETY: not null, aligned and not too long by the check; the rest is the caller's promise.
            _ => unsafe { core::slice::from_raw_parts_mut(self.data, len) },
        };
        MatMut::spanning(data, self.rows, self.cols, self.stride)
    }
}

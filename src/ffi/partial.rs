//! Unfinished rows of attention.

use super::{apart, give, slice, slice_mut, status, Extent};
use crate::attention::Partial;

/// Numbers of a partial row before its value_dim output columns: max, sum, error of lse, error of the outputs.
pub const SUBQUAD_PARTIAL_HEAD: usize = 4;

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
        let (into, from) = unsafe { (slice_mut(into, width)?, slice(from, width)?) };
        Partial::from_row(into)?.merge_row(from, range)
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
        head.copy_from_slice(unsafe { slice(partial, Partial::HEAD)? });
        let value = Partial::from_row(&mut head)?.lse();
        // SAFETY: checked to be aligned and apart; the rest is the caller's promise.
        unsafe { give(lse, value) };
        Ok(())
    };
    status(value())
}

//! Rows of numbers over C.

use super::{apart, region, slice, slice_mut, status};
use crate::error::Error;
use crate::kernels;
use crate::simd::Isa;

/// Applies a row function from `n` floats at `x` to `n` floats at `y`.
///
/// # Safety
/// Both are NULL or valid for `n` floats.
unsafe fn row(x: *const f32, y: *mut f32, n: usize, f: fn(Isa, &[f32], &mut [f32])) -> Result<(), Error> {
    apart(&[region(y, n)?], &[region(x, n)?])?;
    // SAFETY: the caller's promise; the two do not overlap.
    let (x, y) = unsafe { (slice(x, n)?, slice_mut(y, n)?) };
    f(Isa::best(), x, y);
    Ok(())
}

/// y[i] = exp(x[i]) for n floats: at most 0.79 ULP, specials exact, NaN canonical.
///
/// Returns 0 or, having written nothing: SUBQUAD_E_NULL, _MISALIGNED, _OVERFLOW, _OVERLAP.
///
/// # Safety
/// Both pointers are NULL or valid for n floats.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_exp(x: *const f32, y: *mut f32, n: usize) -> i32 {
    // SAFETY: the caller's promise, word for word.
    status(unsafe { row(x, y, n, kernels::exp) })
}

/// y[i] = tanh(x[i]) for n floats: at most 2 ULP, odd, specials exact, NaN canonical.
///
/// Returns 0 or, having written nothing: SUBQUAD_E_NULL, _MISALIGNED, _OVERFLOW, _OVERLAP.
///
/// # Safety
/// Both pointers are NULL or valid for n floats.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_tanh(x: *const f32, y: *mut f32, n: usize) -> i32 {
    // SAFETY: the caller's promise, word for word.
    status(unsafe { row(x, y, n, kernels::tanh) })
}

/// y = softmax(x) for n floats. Minus infinity gives 0, a row of nothing else zeros; NaN or infinity make the whole row
/// NaN.
///
/// Returns 0 or, having written nothing: SUBQUAD_E_NULL, _MISALIGNED, _OVERFLOW, _OVERLAP.
///
/// # Safety
/// Both pointers are NULL or valid for n floats.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_softmax(x: *const f32, y: *mut f32, n: usize) -> i32 {
    // SAFETY: the caller's promise, word for word.
    status(unsafe { row(x, y, n, kernels::softmax) })
}

/// Sum of x[i] * y[i] over n floats, written to `sum`: sixteen lanes and a halving tree on every machine.
///
/// Returns 0 or, having written nothing: SUBQUAD_E_NULL, _MISALIGNED, _OVERFLOW, _OVERLAP.
///
/// # Safety
/// The pointers are NULL or valid for n floats, and one for `sum`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_dot(x: *const f32, y: *const f32, n: usize, sum: *mut f32) -> i32 {
    status((|| {
        apart(&[region(sum, 1)?], &[region(x, n)?, region(y, n)?])?;
        // SAFETY: the caller's promise; `sum` overlaps neither.
        let (x, y, sum) = unsafe { (slice(x, n)?, slice(y, n)?, slice_mut(sum, 1)?) };
        sum.fill(kernels::dot(Isa::best(), x, y));
        Ok(())
    })())
}

/// As subquad_dot, in double.
///
/// # Safety
/// The pointers are NULL or valid for n doubles, and one for `sum`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_dot_f64(x: *const f64, y: *const f64, n: usize, sum: *mut f64) -> i32 {
    status((|| {
        apart(&[region(sum, 1)?], &[region(x, n)?, region(y, n)?])?;
        // SAFETY: the caller's promise; `sum` overlaps neither.
        let (x, y, sum) = unsafe { (slice(x, n)?, slice(y, n)?, slice_mut(sum, 1)?) };
        sum.fill(kernels::dot_f64(Isa::best(), x, y));
        Ok(())
    })())
}

//! Kernels by themselves.

use super::{apart, give, info, slice, slice_mut, status, Extent};
use crate::error::Error;
use crate::kernels;
use crate::simd::Isa;

/// y[i] = exp(x[i]) for i < n: at most 0.79 ULP, gradual underflow included; NaN gives the canonical NaN.
///
/// `isa` is SUBQUAD_ISA_..., 0 for the best of this machine. n = 0: success, nothing written.
///
/// Returns SUBQUAD_OK, or with nothing written SUBQUAD_E_NULL, SUBQUAD_E_MISALIGNED, SUBQUAD_E_OVERFLOW,
/// SUBQUAD_E_OVERLAP (x and y share an address, also where they are the same), SUBQUAD_E_UNSUPPORTED (no such isa here).
///
/// # Safety
/// `x` and `y` reach over n floats, and nobody else uses those of `y`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_exp(isa: i32, x: *const f32, y: *mut f32, n: usize) -> i32 {
    // SAFETY: the caller's promise, word for word.
    status(unsafe { map(kernels::exp, isa, x, y, n) })
}

/// y[i] = tanh(x[i]) for i < n: at most 2 ULP, odd bit for bit; NaN gives the canonical NaN.
///
/// Arguments and errors as for subquad_exp.
///
/// # Safety
/// `x` and `y` reach over n floats, and nobody else uses those of `y`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_tanh(isa: i32, x: *const f32, y: *mut f32, n: usize) -> i32 {
    // SAFETY: the caller's promise, word for word.
    status(unsafe { map(kernels::tanh, isa, x, y, n) })
}

/// Softmax of a row of n floats, in place: row[i] = exp(row[i]) / sum of exp(row[j]).
///
/// A row with a NaN or plus infinity becomes canonical NaN, one that is minus infinity throughout becomes zeros. Relative
/// error of an entry: (|x - max| + ln n + ceil(n / 16) + 10) 2^-24 to first order, and 2^-149 absolutely.
/// `isa` is SUBQUAD_ISA_..., 0 for the best of this machine. n = 0: success, nothing written.
///
/// Returns SUBQUAD_OK, or with nothing written SUBQUAD_E_NULL, SUBQUAD_E_MISALIGNED, SUBQUAD_E_OVERFLOW,
/// SUBQUAD_E_UNSUPPORTED (no such isa here).
///
/// # Safety
/// `row` reaches over n floats that nobody else uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_softmax(isa: i32, row: *mut f32, n: usize) -> i32 {
    let softmax = || {
        let isa = info::isa(isa)?;
        // SAFETY: the caller's promise, word for word.
        kernels::softmax(isa, unsafe { slice_mut(row, n)? });
        Ok(())
    };
    status(softmax())
}

/// Sum of x[i] * y[i] for i < n, in the fixed order of sixteen running sums, written to `result`; 0 for n = 0.
///
/// Error: at most gamma(ceil(n / 16) + 5) * sum |x[i] y[i]|, gamma(m) = m 2^-24 / (1 - m 2^-24). x and y may be the same.
/// `isa` is SUBQUAD_ISA_..., 0 for the best of this machine.
///
/// Returns SUBQUAD_OK, or with nothing written SUBQUAD_E_NULL, SUBQUAD_E_MISALIGNED, SUBQUAD_E_OVERFLOW,
/// SUBQUAD_E_OVERLAP (result lies in x or y), SUBQUAD_E_UNSUPPORTED (no such isa here).
///
/// # Safety
/// `x` and `y` reach over n floats, `result` points to one that nobody else uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_dot(isa: i32, x: *const f32, y: *const f32, n: usize, result: *mut f32) -> i32 {
    // SAFETY: the caller's promise, word for word.
    status(unsafe { product(kernels::dot, isa, x, y, n, result) })
}

/// As subquad_dot in double, with 2^-53 in place of 2^-24.
///
/// # Safety
/// `x` and `y` reach over n doubles, `result` points to one that nobody else uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_dot_f64(isa: i32, x: *const f64, y: *const f64, n: usize, result: *mut f64) -> i32 {
    // SAFETY: the caller's promise, word for word.
    status(unsafe { product(kernels::dot_f64, isa, x, y, n, result) })
}

/// # Safety
/// `x` and `y` reach over n floats, and nobody else uses those of `y`.
unsafe fn map(f: fn(Isa, &[f32], &mut [f32]), isa: i32, x: *const f32, y: *mut f32, n: usize) -> Result<(), Error> {
    let isa = info::isa(isa)?;
    apart(&[Extent::of(y, n)?], &[Extent::of(x, n)?])?;
    // SAFETY: the caller's promise; x and y do not overlap.
    let (x, y) = unsafe { (slice(x, n)?, slice_mut(y, n)?) };
    f(isa, x, y);
    Ok(())
}

/// # Safety
/// `x` and `y` reach over n numbers, `result` points to one that nobody else uses.
unsafe fn product<T>(
    f: fn(Isa, &[T], &[T]) -> T,
    isa: i32,
    x: *const T,
    y: *const T,
    n: usize,
    result: *mut T,
) -> Result<(), Error> {
    let isa = info::isa(isa)?;
    apart(&[Extent::of(result, 1)?], &[Extent::of(x, n)?, Extent::of(y, n)?])?;
    // SAFETY: the caller's promise, word for word.
    let (x, y) = unsafe { (slice(x, n)?, slice(y, n)?) };
    // SAFETY: checked to be aligned and apart; the rest is the caller's promise.
    unsafe { give(result, f(isa, x, y)) };
    Ok(())
}

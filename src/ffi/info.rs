//! What this library is, and what its numbers mean.

use super::types::isa;
use crate::error::Error;
use crate::simd::Isa;
use core::ffi::{c_char, CStr};

/// Everything went well.
pub const SUBQUAD_OK: i32 = 0;
/// A pointer is null where data is needed.
pub const SUBQUAD_E_NULL: i32 = -1;
/// A typed pointer is not aligned for its element.
pub const SUBQUAD_E_MISALIGNED: i32 = -2;
/// A buffer or the scratch memory is too short.
pub const SUBQUAD_E_SHORT: i32 = -3;
/// Shapes do not fit each other, or a stride is not allowed.
pub const SUBQUAD_E_SHAPE: i32 = -4;
/// A size product does not fit the address space.
pub const SUBQUAD_E_OVERFLOW: i32 = -5;
/// An output overlaps itself, another output or an input.
pub const SUBQUAD_E_OVERLAP: i32 = -6;
/// A value is NaN or infinite where only finite values have a meaning.
pub const SUBQUAD_E_NON_FINITE: i32 = -7;
/// A parameter has no meaning, for example a negative cap.
pub const SUBQUAD_E_PARAMETER: i32 = -8;
/// An index or length lies outside its sequence.
pub const SUBQUAD_E_RANGE: i32 = -9;
/// There is nothing to work on.
pub const SUBQUAD_E_EMPTY: i32 = -10;
/// A fixed-size store has no room left.
pub const SUBQUAD_E_FULL: i32 = -11;
/// A matrix is singular to working precision.
pub const SUBQUAD_E_SINGULAR: i32 = -12;
/// An iteration used up its steps.
pub const SUBQUAD_E_NOT_CONVERGED: i32 = -13;
/// The promised error bound is weaker than the tolerance.
pub const SUBQUAD_E_BOUND_EXCEEDED: i32 = -14;
/// Two states cannot be merged.
pub const SUBQUAD_E_MISMATCH: i32 = -15;
/// Saved bytes are damaged or from another version.
pub const SUBQUAD_E_CORRUPT: i32 = -16;
/// This build or machine does not offer what was asked for.
pub const SUBQUAD_E_UNSUPPORTED: i32 = -17;

/// Major version of the library.
pub const SUBQUAD_VERSION_MAJOR: i32 = 0;
/// Minor version of the library.
pub const SUBQUAD_VERSION_MINOR: i32 = 1;
/// Patch version of the library.
pub const SUBQUAD_VERSION_PATCH: i32 = 0;
/// Changes whenever a struct or a function of this header does.
pub const SUBQUAD_ABI_VERSION: i32 = 1;

/// The version of the linked library: 10000 * major + 100 * minor + patch.
#[unsafe(no_mangle)]
pub extern "C" fn subquad_version() -> i32 {
    10_000 * SUBQUAD_VERSION_MAJOR + 100 * SUBQUAD_VERSION_MINOR + SUBQUAD_VERSION_PATCH
}

/// SUBQUAD_ABI_VERSION of the linked library, to compare with that of the header.
#[unsafe(no_mangle)]
pub extern "C" fn subquad_abi_version() -> i32 {
    SUBQUAD_ABI_VERSION
}

/// What a status means, in a few words that never change place; "unknown status" for other numbers.
#[unsafe(no_mangle)]
pub extern "C" fn subquad_status_message(status: i32) -> *const c_char {
    let error = Error::ALL.into_iter().find(|e| e.code() == status);
    let message: &'static CStr = match error {
        None if status == SUBQUAD_OK => c"success",
        None => c"unknown status",
        Some(Error::Null) => c"null pointer where data is needed",
        Some(Error::Misaligned) => c"pointer not aligned for its element",
        Some(Error::Short) => c"buffer or scratch too short",
        Some(Error::Shape) => c"shapes or strides do not fit",
        Some(Error::Overflow) => c"size does not fit the address space",
        Some(Error::Overlap) => c"an output overlaps another argument or itself",
        Some(Error::NonFinite) => c"NaN or infinity where finite values are needed",
        Some(Error::Parameter) => c"parameter without a meaning",
        Some(Error::Range) => c"index or length out of range",
        Some(Error::Empty) => c"nothing to work on",
        Some(Error::Full) => c"store is full",
        Some(Error::Singular) => c"matrix is singular to working precision",
        Some(Error::NotConverged) => c"iteration did not converge",
        Some(Error::BoundExceeded) => c"error bound weaker than the tolerance",
        Some(Error::Mismatch) => c"states cannot be merged",
        Some(Error::Corrupt) => c"saved bytes are damaged or of another version",
        Some(Error::Unsupported) => c"not offered by this build or machine",
    };
    message.as_ptr()
}

/// The number of the best back end of this machine.
#[unsafe(no_mangle)]
pub extern "C" fn subquad_isa_best() -> i32 {
    Isa::best().number()
}

/// The name of a back end by number (0 for the best), or NULL if this machine does not have it.
#[unsafe(no_mangle)]
pub extern "C" fn subquad_isa_name(number: i32) -> *const c_char {
    match isa(number) {
        Ok(isa) => isa.c_name().as_ptr(),
        Err(_) => core::ptr::null(),
    }
}

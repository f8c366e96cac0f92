//! Numbers and names: statuses, versions, back ends.

use crate::error::Error;
use crate::simd::Isa;
use core::ffi::{c_char, CStr};

/// Version of the library that this header belongs to.
pub const SUBQUAD_VERSION_MAJOR: i32 = 0;
/// See SUBQUAD_VERSION_MAJOR.
pub const SUBQUAD_VERSION_MINOR: i32 = 1;
/// See SUBQUAD_VERSION_MAJOR.
pub const SUBQUAD_VERSION_PATCH: i32 = 0;
/// Number of the binary interface: structs, signatures, constants. Compare with subquad_abi_version().
pub const SUBQUAD_ABI_VERSION: i32 = 1;

/// Success.
pub const SUBQUAD_OK: i32 = 0;
/// A pointer is null where data is needed.
pub const SUBQUAD_E_NULL: i32 = -1;
/// A typed pointer is not aligned for its element.
pub const SUBQUAD_E_MISALIGNED: i32 = -2;
/// The scratch memory is shorter than the shape needs.
pub const SUBQUAD_E_SHORT: i32 = -3;
/// Shapes do not fit each other, or a stride is not allowed.
pub const SUBQUAD_E_SHAPE: i32 = -4;
/// A size product does not fit the address space.
pub const SUBQUAD_E_OVERFLOW: i32 = -5;
/// An output overlaps itself, another output, an input or the scratch.
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
/// The promised error bound is weaker than the tolerance that was asked for.
pub const SUBQUAD_E_BOUND_EXCEEDED: i32 = -14;
/// Two states have different shapes, seeds or parameters and cannot be merged.
pub const SUBQUAD_E_MISMATCH: i32 = -15;
/// Saved bytes are damaged or from another version.
pub const SUBQUAD_E_CORRUPT: i32 = -16;
/// This build or machine does not offer what was asked for.
pub const SUBQUAD_E_UNSUPPORTED: i32 = -17;

/// The best back end of this machine. Back ends that fuse multiply-add give one set of bits, those that do not
/// (SCALAR, WASM and every STRICT one) another, on every machine.
pub const SUBQUAD_ISA_BEST: i32 = 0;
/// Portable lanes: everywhere.
pub const SUBQUAD_ISA_SCALAR: i32 = 1;
/// x86-64, 256-bit vectors, fused.
pub const SUBQUAD_ISA_AVX2: i32 = 2;
/// x86-64, 512-bit vectors, fused.
pub const SUBQUAD_ISA_AVX512: i32 = 3;
/// x86-64, 256-bit vectors, not fused.
pub const SUBQUAD_ISA_AVX2_STRICT: i32 = 4;
/// x86-64, 512-bit vectors, not fused.
pub const SUBQUAD_ISA_AVX512_STRICT: i32 = 5;
/// AArch64, 128-bit vectors, fused.
pub const SUBQUAD_ISA_NEON: i32 = 6;
/// AArch64, 128-bit vectors, not fused.
pub const SUBQUAD_ISA_NEON_STRICT: i32 = 7;
/// WebAssembly, 128-bit vectors, not fused.
pub const SUBQUAD_ISA_WASM: i32 = 8;

/// Name of each back end at the place of its number.
const ISA_NAMES: [&CStr; 9] = [
    c"best",
    c"scalar",
    c"avx2",
    c"avx512",
    c"avx2-strict",
    c"avx512-strict",
    c"neon",
    c"neon-strict",
    c"wasm-simd128",
];

/// Message of each status at the place of its number, without the sign.
const MESSAGES: [&CStr; 1 + Error::ALL.len()] = [
    c"success",
    c"a pointer is null where data is needed",
    c"a typed pointer is not aligned for its element",
    c"a buffer or the scratch memory is shorter than the shape needs",
    c"shapes do not fit each other, or a stride is not allowed",
    c"a size product does not fit the address space",
    c"an output overlaps itself, another output, an input or the scratch",
    c"a value is NaN or infinite where only finite values have a meaning",
    c"a parameter has no meaning",
    c"an index or length lies outside its sequence",
    c"there is nothing to work on",
    c"a fixed-size store has no room left",
    c"a matrix is singular to working precision",
    c"an iteration used up its steps",
    c"the promised error bound is weaker than the tolerance that was asked for",
    c"two states cannot be merged",
    c"saved bytes are damaged or from another version",
    c"this build or machine does not offer what was asked for",
];

/// The back end that a number names. [`Error::Unsupported`] if this machine does not have it.
pub(super) fn isa(number: i32) -> Result<Isa, Error> {
    if number == SUBQUAD_ISA_BEST {
        return Ok(Isa::best());
    }
    let mut all = Isa::all();
    all.find(|&isa| isa.number() == number).ok_or(Error::Unsupported)
}

/// One line of English for a status, without a newline; "unknown status" for a number that is none. Never null; the
/// memory is the library's and stays.
#[unsafe(no_mangle)]
pub extern "C" fn subquad_status_message(status: i32) -> *const c_char {
    let known = (status <= 0)
        .then(|| MESSAGES.get(status.unsigned_abs() as usize))
        .flatten();
    known.map_or(c"unknown status".as_ptr(), |message| message.as_ptr())
}

/// Version of the library that is linked, as "major.minor.patch".
#[unsafe(no_mangle)]
pub extern "C" fn subquad_version() -> *const c_char {
    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"",
    };
    VERSION.as_ptr()
}

/// Number of the binary interface that is linked: must equal SUBQUAD_ABI_VERSION of the header.
#[unsafe(no_mangle)]
pub extern "C" fn subquad_abi_version() -> i32 {
    SUBQUAD_ABI_VERSION
}

/// The back end that runs where a call names none, SUBQUAD_ISA_...
#[unsafe(no_mangle)]
pub extern "C" fn subquad_isa_best() -> i32 {
    Isa::best().number()
}

/// Name of a back end, whether this machine has it or not; "unknown" for a number that is none. Never null.
#[unsafe(no_mangle)]
pub extern "C" fn subquad_isa_name(isa: i32) -> *const c_char {
    let known = usize::try_from(isa).ok().and_then(|n| ISA_NAMES.get(n));
    known.map_or(c"unknown".as_ptr(), |name| name.as_ptr())
}

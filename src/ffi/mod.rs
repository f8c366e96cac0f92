//! The C ABI: pointers become views, the safe function is called, a number is returned. No arithmetic lives here.
//!
//! Every function checks in the same order: null, misaligned, shape and overflow of each argument, then overlap, then what
//! the safe function refuses. A negative status means that nothing was written.
#![allow(unsafe_code)]
// The names are C's.
#![allow(non_camel_case_types)]

mod attention;
mod info;
mod kernels;
mod types;

pub use attention::*;
pub use info::*;
pub use kernels::*;
pub use types::*;

use crate::error::Error;
use core::mem::{align_of, size_of, MaybeUninit};

/// A result as a status: 0, or the negative code of the error.
fn status(result: Result<(), Error>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(e) => e.code(),
    }
}

/// Bytes that an argument reaches, to tell whether two arguments overlap.
#[derive(Clone, Copy)]
struct Region {
    start: usize,
    bytes: usize,
}

impl Region {
    const EMPTY: Region = Region { start: 0, bytes: 0 };

    fn overlaps(&self, other: &Region) -> bool {
        self.bytes > 0
            && other.bytes > 0
            && self.start < other.start.saturating_add(other.bytes)
            && other.start < self.start.saturating_add(self.bytes)
    }
}

/// [`Error::Overlap`] if a written region meets another one.
fn apart(written: &[Region], read: &[Region]) -> Result<(), Error> {
    let mut rest = written;
    while let [first, tail @ ..] = rest {
        if tail.iter().chain(read).any(|other| first.overlaps(other)) {
            return Err(Error::Overlap);
        }
        rest = tail;
    }
    Ok(())
}

/// The region of `len` elements at `p`. [`Error::Null`], [`Error::Misaligned`] or [`Error::Overflow`] if there can be no
/// such slice; a length of 0 makes any pointer an empty region.
fn region<T>(p: *const T, len: usize) -> Result<Region, Error> {
    if len == 0 {
        return Ok(Region::EMPTY);
    }
    if p.is_null() {
        return Err(Error::Null);
    }
    if !(p as usize).is_multiple_of(align_of::<T>()) {
        return Err(Error::Misaligned);
    }
    let bytes = len.checked_mul(size_of::<T>()).filter(|&n| n <= isize::MAX as usize);
    let bytes = bytes.ok_or(Error::Overflow)?;
    // A region that wraps around the address space is no region.
    (p as usize).checked_add(bytes).ok_or(Error::Overflow)?;
    Ok(Region {
        start: p as usize,
        bytes,
    })
}

/// # Safety
/// `len` elements may be read at `p` for `'a`, and nobody writes them meanwhile.
unsafe fn slice<'a, T>(p: *const T, len: usize) -> Result<&'a [T], Error> {
    if region(p, len)?.bytes == 0 {
        return Ok(&[]);
    }
    // SAFETY: not null, aligned and not too long, by `region`; the rest is the caller's promise.
    Ok(unsafe { core::slice::from_raw_parts(p, len) })
}

/// # Safety
/// `len` elements may be read and written at `p` for `'a`, and nobody else touches them meanwhile.
unsafe fn slice_mut<'a, T>(p: *mut T, len: usize) -> Result<&'a mut [T], Error> {
    if region(p, len)?.bytes == 0 {
        return Ok(&mut []);
    }
    // SAFETY: not null, aligned and not too long, by `region`; the rest is the caller's promise.
    Ok(unsafe { core::slice::from_raw_parts_mut(p, len) })
}

/// # Safety
/// As for `slice_mut` of `size` bytes, which may be uninitialised.
unsafe fn work_bytes<'a>(work: *mut core::ffi::c_void, size: usize) -> Result<&'a mut [MaybeUninit<u8>], Error> {
    // SAFETY: the caller's promise, word for word; any bytes are a `MaybeUninit<u8>`.
    unsafe { slice_mut(work.cast::<MaybeUninit<u8>>(), size) }
}

/// # Safety
/// `p` is null or points to a `T` that may be read.
unsafe fn optional<'a, T>(p: *const T) -> Result<Option<&'a T>, Error> {
    if p.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise, word for word.
    unsafe { required(p) }.map(Some)
}

/// # Safety
/// `p` is null or points to a `T` that may be read.
unsafe fn required<'a, T>(p: *const T) -> Result<&'a T, Error> {
    region(p, 1)?;
    // SAFETY: not null and aligned, by `region`; the rest is the caller's promise.
    Ok(unsafe { &*p })
}

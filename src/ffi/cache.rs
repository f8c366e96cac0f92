//! Caches of keys and values.

mod attend;
mod open;

pub use attend::*;

use super::{give, slice, slice_mut, status, subquad_rotary, subquad_tensor, Extent};
use crate::error::Error;
use core::ffi::c_void;
use open::{read, write};

/// Numbers as they are.
pub const SUBQUAD_FORMAT_F32: i32 = 0;
/// IEEE half precision, as uint16_t.
pub const SUBQUAD_FORMAT_F16: i32 = 1;
/// The upper half of a float, as uint16_t.
pub const SUBQUAD_FORMAT_BF16: i32 = 2;
/// int8_t times a float per row.
pub const SUBQUAD_FORMAT_I8: i32 = 3;

/// A sequence's keys and values in the caller's memory, appended one after the other: sizes, memory, and how far it has
/// come. Plain data: begin with zeros and set the first two parts; copy it where you like; nothing has to be freed.
///
/// Memory is a ring of `capacity` rows per head, of which the first `kept` keys never go. Without a table the rows of a head
/// lie next to each other, heads one after the other. With one, row r of head h lies in page table[r / block], row
/// (page * heads + h) * block + r % block of all rows, so that many caches share one pool of pages.
///
/// No two calls may use a cache, or its memory, at the same time.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct subquad_cache {
    /// Heads of keys and values; not 0.
    pub heads: usize,
    /// Columns of keys.
    pub dim: usize,
    /// Columns of values; not 0 if `dim` is.
    pub value_dim: usize,
    /// Keys of each head that there is room for.
    pub capacity: usize,
    /// The first keys that stay; at most `capacity`.
    pub kept: usize,
    /// SUBQUAD_FORMAT_... of the keys.
    pub key_format: i32,
    /// SUBQUAD_FORMAT_... of the values.
    pub value_format: i32,
    /// Not 0: when there is no room the oldest key goes, but for the kept ones.
    pub sliding: i32,
    /// heads * capacity rows of `dim` numbers, or as many as `pages` pages have.
    pub keys: *mut c_void,
    /// A scale per row if the keys are integers; otherwise not read.
    pub key_scales: *mut f32,
    /// As many rows of `value_dim` numbers.
    pub values: *mut c_void,
    /// A scale per row if the values are integers; otherwise not read.
    pub value_scales: *mut f32,
    /// Pages of the ring: capacity / block numbers, rounded up, below `pages`, each different. Null: one piece.
    pub table: *const u32,
    /// Rows of a head in a page; not 0 if there is a table.
    pub block: usize,
    /// Pages in memory.
    pub pages: usize,
    /// Turns each key by its position when it is appended. Queries are compared with it as they are: turn them first, with
    /// subquad_rotary_apply; the position of the key that was appended last is next - 1. All zero: keys stay as they are.
    pub rotary: subquad_rotary,
    /// Room for a turned key and its angles, dim + rotary_dim floats that mean nothing between calls; not read if the base is
    /// 0.
    pub rotary_room: *mut f32,
    /// Written by the library: keys appended since the beginning, the position of the next.
    pub next: u64,
    /// Written by the library: position of the oldest key that may go.
    pub first: u64,
    /// Written by the library: the capacity so far. Until a row is written for a second time `capacity` may be another, with a
    /// table of another length; without a table only of one head, or before anything is appended. SUBQUAD_E_MISMATCH
    /// otherwise.
    pub turned: usize,
    /// Written by the library: the largest Euclidean distance of a stored key from what was appended, turned in
    /// real numbers.
    pub key_loss: f32,
    /// Written by the library: the largest difference of a number of a stored value from what was appended.
    pub value_loss: f32,
}

/// Appends keys (1 x heads x n x dim) and values (1 x heads x n x value_dim) behind those that are there, rounded to the
/// formats of the cache; what that loses goes into the bound of subquad_cache_attend.
///
/// Returns SUBQUAD_OK, or, with nothing written, SUBQUAD_E_NULL, SUBQUAD_E_MISALIGNED, SUBQUAD_E_SHAPE, SUBQUAD_E_OVERFLOW,
/// SUBQUAD_E_OVERLAP (of the cache, its memory, and k or v), SUBQUAD_E_PARAMETER (an unknown format, more keys kept than
/// there is room for, no room to slide in, a block of 0, a loss below 0, or as subquad_rotary says), SUBQUAD_E_RANGE (the
/// table names a page that is not there, or a number is too large for the format, turned or not), SUBQUAD_E_MISMATCH (no
/// cache of this shape comes to these positions), SUBQUAD_E_FULL, SUBQUAD_E_NON_FINITE, SUBQUAD_E_UNSUPPORTED. Where several
/// apply it is one of them.
///
/// # Safety
/// Every pointer reaches as far as the sizes beside it say, and nobody else uses the cache during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_cache_append(cache: *mut subquad_cache, k: subquad_tensor, v: subquad_tensor) -> i32 {
    let append = || {
        // SAFETY: the caller's promise, word for word; what is read is apart from what will be written.
        unsafe {
            let own = read(cache, &[k.extent()?, v.extent()?], &[])?;
            let mut opened = own.open()?;
            opened.append(k.view()?, v.view()?)?;
            write(cache, &own, opened.progress());
        }
        Ok(())
    };
    status(append())
}

/// Lets the `n` oldest keys go, but none of the kept ones: SUBQUAD_E_RANGE if there are fewer. Other errors as for
/// subquad_cache_append.
///
/// # Safety
/// As for subquad_cache_append.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_cache_evict(cache: *mut subquad_cache, n: usize) -> i32 {
    let evict = || {
        // SAFETY: the caller's promise, word for word.
        unsafe {
            let own = read(cache, &[], &[])?;
            let mut opened = own.open()?;
            opened.evict(n)?;
            write(cache, &own, opened.progress());
        }
        Ok(())
    };
    status(evict())
}

/// Writes the number of keys that are there to `keys`. Errors as for subquad_cache_append.
///
/// # Safety
/// As for subquad_cache_append; `keys` points to a size_t.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_cache_length(cache: *const subquad_cache, keys: *mut usize) -> i32 {
    let length = || {
        // SAFETY: the caller's promise, word for word; `keys` is aligned and apart.
        unsafe {
            let own = read(cache, &[], &[Extent::of(keys, 1)?])?;
            give(keys, own.open()?.len());
        }
        Ok(())
    };
    status(length())
}

/// Writes the cache to `to`, as many bytes as subquad_cache_save_need says (SUBQUAD_E_SHORT if `size` is less): keys in the
/// order of their positions, neither ring nor pages, little endian, with a checksum. Errors as for subquad_cache_append.
///
/// # Safety
/// As for subquad_cache_append; `to` reaches over `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_cache_save(cache: *const subquad_cache, to: *mut c_void, size: usize) -> i32 {
    let save = || {
        // SAFETY: the caller's promise, word for word; `to` is apart from the cache.
        unsafe {
            let own = read(cache, &[], &[Extent::of(to.cast::<u8>(), size)?])?;
            own.open()?.save(slice_mut(to.cast::<u8>(), size)?)?;
        }
        Ok(())
    };
    status(save())
}

/// Bytes that subquad_cache_save writes now, written to `bytes`. Errors as for subquad_cache_append.
///
/// # Safety
/// As for subquad_cache_append; `bytes` points to a size_t.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_cache_save_need(cache: *const subquad_cache, bytes: *mut usize) -> i32 {
    let need = || {
        // SAFETY: the caller's promise, word for word; `bytes` is aligned and apart.
        unsafe {
            let own = read(cache, &[], &[Extent::of(bytes, 1)?])?;
            give(bytes, own.open()?.saved_len().ok_or(Error::Overflow)?);
        }
        Ok(())
    };
    status(need())
}

/// Replaces the contents of a cache by what was saved from one of the same shape and formats; capacity and pages may be
/// others. All `size` bytes are one saved cache.
///
/// Returns SUBQUAD_OK, or, with nothing written, SUBQUAD_E_CORRUPT if a byte is wrong, missing or too many,
/// SUBQUAD_E_MISMATCH for another shape, other formats or another rotary, SUBQUAD_E_FULL for more keys than there is room for,
/// SUBQUAD_E_NON_FINITE for numbers that no cache takes, and the errors of subquad_cache_append.
///
/// # Safety
/// As for subquad_cache_append; `from` reaches over `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_cache_load(cache: *mut subquad_cache, from: *const c_void, size: usize) -> i32 {
    let load = || {
        // SAFETY: the caller's promise, word for word; `from` is apart from the cache.
        unsafe {
            let own = read(cache, &[Extent::of(from.cast::<u8>(), size)?], &[])?;
            let mut opened = own.open()?;
            opened.load(slice(from.cast::<u8>(), size)?)?;
            write(cache, &own, opened.progress());
        }
        Ok(())
    };
    status(load())
}

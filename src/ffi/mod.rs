//! The C interface: pointers into views, one call of the safe function, a number back. No arithmetic of its own.
//!
//! `include/subquad.h` is made from these files. Every function is total: a bad argument is a status, and an error
//! writes nothing. What C cannot be asked to prove, that a pointer reaches as far as its sizes say, is the only promise.
#![allow(unsafe_code, non_camel_case_types)]

mod attention;
mod bound;
mod cache;
mod gradient;
mod head;
mod info;
mod kernels;
#[cfg(all(feature = "panic-handler", not(feature = "std"), not(test)))]
mod panic;
mod rotary;
mod rules;
mod tasks;
mod types;

pub use attention::*;
pub use bound::*;
pub use cache::*;
pub use gradient::*;
pub use head::*;
pub use info::*;
pub use kernels::*;
pub use rotary::*;
pub use tasks::*;
pub use types::{
    subquad_attention, subquad_gradients, subquad_mask, subquad_outputs, subquad_report, subquad_shape, subquad_tensor,
    subquad_tensor_mut, subquad_upstream,
};

use crate::error::Error;
use crate::scratch::Scratch;
use crate::view::check::{span, Axis};
use crate::view::{TensorMut, TensorRef};
use core::ffi::c_void;
use core::mem::{align_of, size_of, MaybeUninit};

/// The C status of a result.
fn status(result: Result<(), Error>) -> i32 {
    match result {
        Ok(()) => SUBQUAD_OK,
        Err(e) => e.code(),
    }
}

/// Addresses that an argument covers.
#[derive(Clone, Copy)]
struct Extent {
    start: usize,
    end: usize,
}

impl Extent {
    const NONE: Extent = Extent { start: 0, end: 0 };

    /// `len` elements at `data`: no null, no misalignment, no size beyond the address space. Nothing is asked of a
    /// pointer to no elements.
    fn of<T>(data: *const T, len: usize) -> Result<Extent, Error> {
        if len == 0 {
            return Ok(Extent::NONE);
        }
        if data.is_null() {
            return Err(Error::Null);
        }
        let start = data.addr();
        if !start.is_multiple_of(align_of::<T>()) {
            return Err(Error::Misaligned);
        }
        let bytes = len.checked_mul(size_of::<T>()).filter(|&n| n <= isize::MAX as usize);
        match bytes.and_then(|n| start.checked_add(n)) {
            Some(end) => Ok(Extent { start, end }),
            None => Err(Error::Overflow),
        }
    }

    /// As [`of`](Extent::of); nothing where the data is null.
    fn optional<T>(data: *const T, len: usize) -> Result<Extent, Error> {
        if data.is_null() {
            return Ok(Extent::NONE);
        }
        Extent::of(data, len)
    }

    const fn meets(&self, other: &Extent) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// [`Error::Overlap`] if something to be written shares an address with anything else. Inputs may overlap each other.
fn apart(writes: &[Extent], reads: &[Extent]) -> Result<(), Error> {
    let mut rest = writes;
    while let [write, others @ ..] = rest {
        if others.iter().chain(reads).any(|x| write.meets(x)) {
            return Err(Error::Overlap);
        }
        rest = others;
    }
    Ok(())
}

/// `len` elements to read.
///
/// # Safety
/// `data` reaches over `len` elements that nobody writes during 'a.
unsafe fn slice<'a, T>(data: *const T, len: usize) -> Result<&'a [T], Error> {
    Extent::of(data, len)?;
    if len == 0 {
        return Ok(&[]);
    }
    // SAFETY: not null, aligned and not too long by the check; the rest is the caller's promise.
    Ok(unsafe { core::slice::from_raw_parts(data, len) })
}

/// `len` elements to write.
///
/// # Safety
/// `data` reaches over `len` elements that nobody else reads or writes during 'a.
unsafe fn slice_mut<'a, T>(data: *mut T, len: usize) -> Result<&'a mut [T], Error> {
    Extent::of(data, len)?;
    if len == 0 {
        return Ok(&mut []);
    }
    // SAFETY: not null, aligned and not too long by the check; the rest is the caller's promise.
    Ok(unsafe { core::slice::from_raw_parts_mut(data, len) })
}

/// `len` elements to read, or nothing for null.
///
/// # Safety
/// As for [`slice`], where `data` is not null.
unsafe fn optional_slice<'a, T>(data: *const T, len: usize) -> Result<Option<&'a [T]>, Error> {
    if data.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise, word for word.
    unsafe { slice(data, len) }.map(Some)
}

/// The object at `data`, or nothing for null.
///
/// # Safety
/// A pointer that is not null points to a `T` that nobody writes during 'a.
unsafe fn optional<'a, T>(data: *const T) -> Result<Option<&'a T>, Error> {
    // SAFETY: the caller's promise, word for word.
    let one = unsafe { optional_slice(data, 1)? };
    Ok(one.and_then(<[T]>::first))
}

/// Writes a result where a pointer that the extents have checked points to; null is no wish.
///
/// # Safety
/// `to` is null, or aligned and pointing to a `T` that nobody else uses.
unsafe fn give<T>(to: *mut T, value: T) {
    if !to.is_null() {
        // SAFETY: the caller's promise, word for word.
        unsafe { to.write(value) }
    }
}

/// The caller's scratch: any alignment, contents never read.
///
/// # Safety
/// `work` reaches over `size` bytes that nobody else uses during 'a.
unsafe fn scratch<'a>(work: *mut c_void, size: usize) -> Result<Scratch<'a>, Error> {
    // SAFETY: the caller's promise, word for word.
    Ok(Scratch::new(unsafe {
        slice_mut(work.cast::<MaybeUninit<u8>>(), size)?
    }))
}

/// The three view structs differ in their element only.
macro_rules! layout {
    ($($name:ident($element:ty);)+) => {$(
        impl $name {
            const fn shape(&self) -> [usize; 4] {
                [self.batch, self.heads, self.rows, self.cols]
            }

            const fn strides(&self) -> [usize; 3] {
                [self.batch_stride, self.head_stride, self.row_stride]
            }

            /// Elements from the first to one past the last.
            fn len(&self) -> Result<usize, Error> {
                // A stride has no meaning where there is no second element.
                if self.cols > 1 && self.col_stride != 1 {
                    return Err(Error::Shape);
                }
                span(&[
                    Axis { len: self.batch, stride: self.batch_stride },
                    Axis { len: self.heads, stride: self.head_stride },
                    Axis { len: self.rows, stride: self.row_stride },
                    Axis { len: self.cols, stride: 1 },
                ])
            }

            fn extent(&self) -> Result<Extent, Error> {
                Extent::of::<$element>(self.data, self.len()?)
            }

            /// Nothing at all where the data is null.
            fn optional_extent(&self) -> Result<Extent, Error> {
                if self.data.is_null() {
                    return Ok(Extent::NONE);
                }
                self.extent()
            }
        }
    )+};
}

layout! {
    subquad_tensor(f32);
    subquad_tensor_mut(f32);
    subquad_mask(u8);
}

/// The two structs to read.
macro_rules! reading {
    ($($name:ident($element:ty);)+) => {$(
        impl $name {
            /// Nothing at all.
            const NONE: $name = $name {
                data: core::ptr::null(),
                batch: 0,
                heads: 0,
                rows: 0,
                cols: 0,
                batch_stride: 0,
                head_stride: 0,
                row_stride: 0,
                col_stride: 0,
            };

            /// A view, or nothing where the data is null.
            ///
            /// # Safety
            /// `data` reaches as far as the sizes say, and nobody writes there during 'a.
            unsafe fn optional_view<'a>(&self) -> Result<Option<TensorRef<'a, $element>>, Error> {
                if self.data.is_null() {
                    return Ok(None);
                }
                // SAFETY: the caller's promise, word for word.
                unsafe { self.view() }.map(Some)
            }

            /// # Safety
            /// `data` reaches as far as the sizes say, and nobody writes there during 'a.
            unsafe fn view<'a>(&self) -> Result<TensorRef<'a, $element>, Error> {
                // SAFETY: the caller's promise, word for word.
                let data = unsafe { slice(self.data, self.len()?)? };
                TensorRef::with_strides(data, self.shape(), self.strides())
            }
        }
    )+};
}

reading! {
    subquad_tensor(f32);
    subquad_mask(u8);
}

impl subquad_tensor_mut {
    /// A view, or nothing where the data is null.
    ///
    /// # Safety
    /// `data` reaches as far as the sizes say, and nobody else uses that memory during 'a.
    unsafe fn optional_view<'a>(&self) -> Result<Option<TensorMut<'a, f32>>, Error> {
        if self.data.is_null() {
            return Ok(None);
        }
        // SAFETY: the caller's promise, word for word.
        unsafe { self.view() }.map(Some)
    }

    /// # Safety
    /// `data` reaches as far as the sizes say, and nobody else uses that memory during 'a.
    unsafe fn view<'a>(&self) -> Result<TensorMut<'a, f32>, Error> {
        // SAFETY: the caller's promise, word for word.
        let data = unsafe { slice_mut(self.data, self.len()?)? };
        TensorMut::with_strides(data, self.shape(), self.strides())
    }
}

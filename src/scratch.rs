//! Caller's memory, handed out in aligned pieces.
//!
//! The only module besides the back ends and the C layer that needs `unsafe`: it turns raw bytes into typed slices.
#![allow(unsafe_code)]

use crate::error::Error;
use core::marker::PhantomData;
use core::mem::{align_of, size_of, MaybeUninit};

/// Alignment of every piece: a cache line where vectors are wide, a word on small machines.
///
/// It is a matter of speed only; the caller's buffer may start anywhere.
pub const ALIGN: usize = if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
    64
} else {
    8
};

/// Types for which any bytes, zero bytes included, are a value.
///
/// Sealed: only plain numbers.
pub trait Plain: Copy + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
}

impl Plain for f32 {}
impl Plain for f64 {}
impl Plain for u32 {}
impl Plain for u64 {}

/// How much scratch a call takes. Built by the same sequence of steps that later takes the pieces, so it is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    pieces: Option<usize>,
}

impl Need {
    /// No memory at all.
    pub const NONE: Need = Need { pieces: Some(0) };

    /// One more piece of `len` elements of `T`.
    #[must_use]
    pub const fn and<T: Plain>(self, len: usize) -> Need {
        let pieces = match (self.pieces, piece::<T>(len)) {
            (Some(sum), Some(more)) => sum.checked_add(more),
            _ => None,
        };
        Need { pieces }
    }

    /// All of this, and then calls that ask for `other` themselves, at whatever address is left to them.
    #[must_use]
    pub const fn then(self, other: Need) -> Need {
        let pieces = match (self.pieces, other.checked_bytes()) {
            (Some(a), Some(b)) => match a.checked_add(b) {
                Some(n) => piece::<u8>(n),
                None => None,
            },
            _ => None,
        };
        Need { pieces }
    }

    /// The larger of two needs: for alternatives that share the memory.
    #[must_use]
    pub const fn or(self, other: Need) -> Need {
        match (self.pieces, other.pieces) {
            (Some(a), Some(b)) => Need {
                pieces: Some(if a > b { a } else { b }),
            },
            _ => Need { pieces: None },
        }
    }

    /// As much for each of `users` at the same time, from one buffer that is [split](Scratch::split) among them.
    #[must_use]
    pub const fn times(self, users: usize) -> Need {
        let (Some(one), Some(others)) = (self.checked_bytes(), users.checked_sub(1)) else {
            // No user needs nothing.
            return if users == 0 { Need::NONE } else { self };
        };
        // Each loses bytes to alignment; those of the last are counted where all needs count theirs.
        let pieces = match (one.checked_mul(others), self.pieces) {
            (Some(others), Some(last)) => others.checked_add(last),
            _ => None,
        };
        Need { pieces }
    }

    /// Bytes that suffice for a buffer at any address; `None` when the size does not fit the address space.
    #[must_use]
    pub const fn checked_bytes(self) -> Option<usize> {
        match self.pieces {
            Some(0) => Some(0),
            // A buffer that starts one byte past a boundary loses ALIGN - 1 bytes.
            Some(n) => n.checked_add(ALIGN - 1),
            None => None,
        }
    }

    /// As [`checked_bytes`](Need::checked_bytes), with `usize::MAX` (which no buffer has) where the size overflows.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self.checked_bytes() {
            Some(n) => n,
            None => usize::MAX,
        }
    }
}

/// Bytes of a piece, rounded up so that the next one is aligned.
const fn piece<T>(len: usize) -> Option<usize> {
    const { assert!(align_of::<T>() <= ALIGN) };
    match len.checked_mul(size_of::<T>()) {
        Some(n) => match n.checked_add(ALIGN - 1) {
            Some(n) => Some(n & !(ALIGN - 1)),
            None => None,
        },
        None => None,
    }
}

/// A stack of pieces over the caller's bytes.
pub struct Scratch<'a> {
    next: *mut u8,
    left: usize,
    used: usize,
    bytes: PhantomData<&'a mut [MaybeUninit<u8>]>,
}

// SAFETY: it is an exclusive borrow of plain bytes, and those may be used from any thread.
unsafe impl Send for Scratch<'_> {}

impl<'a> Scratch<'a> {
    /// Takes over `bytes`, which may be uninitialised and start at any address.
    #[must_use]
    pub fn new(bytes: &'a mut [MaybeUninit<u8>]) -> Self {
        Scratch {
            next: bytes.as_mut_ptr().cast(),
            left: bytes.len(),
            used: 0,
            bytes: PhantomData,
        }
    }

    /// Bytes taken so far, the loss to alignment included.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used
    }

    /// [`Error::Short`] unless `need` is still there, whatever the address; nothing is taken. [`Error::Overflow`] where no
    /// buffer could do.
    pub fn check(&self, need: Need) -> Result<(), Error> {
        match need.checked_bytes() {
            Some(n) if n <= self.left => Ok(()),
            Some(_) => Err(Error::Short),
            None => Err(Error::Overflow),
        }
    }

    /// The next `len` elements, all zero.
    pub fn take<T: Plain>(&mut self, len: usize) -> Result<&'a mut [T], Error> {
        let size = piece::<T>(len).ok_or(Error::Overflow)?;
        if size == 0 {
            return Ok(&mut []);
        }
        let lost = self.lost();
        let total = size.checked_add(lost).ok_or(Error::Overflow)?;
        if total > self.left {
            return Err(Error::Short);
        }
        // SAFETY: `total` bytes are left, so both pointers stay inside the caller's buffer or one past its end;
        // `start` is a multiple of ALIGN, hence aligned for T; the pieces are disjoint because `next` only moves up,
        // and exclusive because `new` took the unique borrow for 'a. The bytes are zeroed, and zero is a T.
        unsafe {
            let start = self.next.add(lost);
            self.next = self.next.add(total);
            self.left -= total;
            self.used += total;
            core::ptr::write_bytes(start, 0, len * size_of::<T>());
            Ok(core::slice::from_raw_parts_mut(start.cast::<T>(), len))
        }
    }

    /// The same memory again, for a part of the work that gives it back.
    pub fn scope(&mut self) -> Scratch<'_> {
        Scratch {
            next: self.next,
            left: self.left,
            used: 0,
            bytes: PhantomData,
        }
    }

    /// Takes the next `need` bytes out, to be used at the same time as the rest. [`Error::Short`] if there are fewer,
    /// [`Error::Overflow`] where no buffer could do.
    pub fn split(&mut self, need: Need) -> Result<Scratch<'a>, Error> {
        self.check(need)?;
        let bytes = need.bytes();
        let taken = Scratch {
            next: self.next,
            left: bytes,
            used: 0,
            bytes: PhantomData,
        };
        self.next = self.next.wrapping_add(bytes);
        self.left -= bytes;
        self.used += bytes;
        Ok(taken)
    }

    /// Bytes from here to the next boundary.
    fn lost(&self) -> usize {
        (self.next as usize).wrapping_neg() & (ALIGN - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn need_is_tight_at_the_worst_address_and_enough_at_every_address() {
        let need = Need::NONE.and::<f32>(3).and::<f64>(5).and::<u32>(17);
        let mut bytes = vec![MaybeUninit::uninit(); need.bytes() + 2 * ALIGN];
        let base = bytes.as_ptr() as usize;
        let mut worst = 0;
        for at in 0..ALIGN {
            let mut s = Scratch::new(&mut bytes[at..at + need.bytes()]);
            s.check(need).unwrap();
            assert!(s.take::<f32>(3).unwrap().iter().all(|&x| x == 0.0));
            assert_eq!(s.take::<f64>(5).unwrap().as_ptr() as usize % ALIGN, 0);
            assert_eq!(s.take::<u32>(17).unwrap().len(), 17);
            if (base + at) % ALIGN == 1 {
                assert_eq!(s.used(), need.bytes());
            }
            worst = worst.max(s.used());
        }
        assert_eq!(worst, need.bytes());
    }

    #[test]
    fn parts_are_apart_and_enough_at_the_worst_address() {
        let need = Need::NONE.and::<f32>(3).and::<f64>(5);
        let all = need.times(3);
        assert_eq!(all.bytes(), 3 * need.bytes());
        assert_eq!((need.times(0), need.times(1)), (Need::NONE, need));
        assert_eq!(need.times(usize::MAX / 2).checked_bytes(), None);
        let mut bytes = vec![MaybeUninit::uninit(); all.bytes() + ALIGN];
        let odd = 1 + (bytes.as_ptr() as usize).wrapping_neg() % ALIGN;
        let mut s = Scratch::new(&mut bytes[odd..odd + all.bytes()]);
        let mut parts = [0; 3].map(|_| s.split(need).unwrap());
        assert_eq!(s.split(need).err(), Some(Error::Short));
        let pieces = parts
            .each_mut()
            .map(|s| (s.take::<f32>(3).unwrap(), s.take::<f64>(5).unwrap()));
        for (i, (a, b)) in (1..).zip(pieces) {
            assert!(a.iter().all(|&x| x == 0.0) && b.iter().all(|&x| x == 0.0));
            a.fill(i as f32);
            b.fill(f64::from(i));
        }
    }

    #[test]
    fn short_and_overflowing_requests_take_nothing() {
        let mut bytes = [MaybeUninit::uninit(); 256];
        let mut s = Scratch::new(&mut bytes);
        assert_eq!(s.take::<f32>(1 << 20).err(), Some(Error::Short));
        assert_eq!(s.take::<f64>(usize::MAX / 4).err(), Some(Error::Overflow));
        assert_eq!(s.check(Need::NONE.and::<f64>(usize::MAX)), Err(Error::Overflow));
        assert_eq!(s.used(), 0);
        assert_eq!(Need::NONE.and::<f32>(usize::MAX / 4).bytes(), usize::MAX);
    }
}

//! The saved form of a cache: bytes that say what they are, and refuse to be read when one of them is wrong.
//!
//! ```text
//! byte    what, little endian
//!  0      "subquad", 0
//!  8      version 2, kind 1 (a cache), formats of keys and values: u32 each
//! 24      bytes in all, heads, dim, value_dim, kept, next, first: u64 each
//! 80      loss of keys, loss of values: f32 each
//! 88      how keys were turned: rotary_dim, pairing (1 halves, 2 neighbours): u32 each; base, scale: f32 each; or zeros
//! 104     key by key in the order of positions, head by head: the key, its scale if it has one, the value, its scale
//! last 4  CRC-32C of all that is before
//! ```
//!
//! Neither the turn of the ring, nor the capacity, nor pages are part of it.

use super::{Cache, CacheShape, Progress, Store};
use crate::attention::Loss;
use crate::error::Error;
use crate::view::Format;

const MAGIC: [u8; 8] = *b"subquad\0";
const VERSION: u32 = 2;
const KIND: u32 = 1;
/// Bytes before the keys.
const HEAD: usize = 104;
/// Bytes of the checksum.
const TAIL: usize = 4;

/// What is read first.
struct Head {
    formats: [u32; 2],
    length: u64,
    /// Heads, dim, value_dim, kept.
    shape: [u64; 4],
    progress: Progress,
    rotary: [u32; 4],
}

impl Cache<'_> {
    /// Bytes that [`save`](Cache::save) writes now; `None` if they do not fit the address space.
    #[must_use]
    pub fn saved_len(&self) -> Option<usize> {
        let rows = self.len().checked_mul(self.shape.heads)?;
        rows.checked_mul(self.pair_bytes()?)?.checked_add(HEAD + TAIL)
    }

    /// Bytes of a key and its value.
    fn pair_bytes(&self) -> Option<usize> {
        let CacheShape { dim, value_dim, .. } = self.shape;
        self.keys.row_bytes(dim)?.checked_add(self.values.row_bytes(value_dim)?)
    }

    /// Writes the cache to the front of `to`, and returns how many bytes that took. [`Error::Short`] if there are fewer.
    pub fn save(&self, to: &mut [u8]) -> Result<usize, Error> {
        let length = self.saved_len().ok_or(Error::Overflow)?;
        let to = to.get_mut(..length).ok_or(Error::Short)?;
        let (body, tail) = to
            .split_at_mut_checked(length.saturating_sub(TAIL))
            .ok_or(Error::Short)?;
        let (head, rows) = body.split_at_mut_checked(HEAD).ok_or(Error::Short)?;
        self.head(length).write(head);
        let CacheShape { dim, value_dim, .. } = self.shape;
        let key_bytes = self.keys.row_bytes(dim).unwrap_or(0);
        let pair_bytes = self.pair_bytes().ok_or(Error::Overflow)?;
        let pairs = rows.chunks_exact_mut(pair_bytes.max(1));
        for (at, pair) in self.places().zip(pairs) {
            let Some((key, value)) = pair.split_at_mut_checked(key_bytes) else {
                break;
            };
            self.keys.save(at, dim, key);
            self.values.save(at, value_dim, value);
        }
        let sum = crc32c(body).to_le_bytes();
        tail.iter_mut().zip(sum).for_each(|(to, byte)| *to = byte);
        Ok(length)
    }

    /// Replaces everything by what was saved, from a cache of the same shape and formats; it may have had another capacity
    /// or other pages.
    ///
    /// Errors, with nothing written: [`Error::Corrupt`] if a byte is wrong, missing or too many, [`Error::Mismatch`] for
    /// another shape, other formats, or keys that were turned in another way, [`Error::Full`] for more keys than there is room for, [`Error::NonFinite`] for
    /// numbers that no cache takes.
    pub fn load(&mut self, from: &[u8]) -> Result<(), Error> {
        let (body, sum) = from.split_last_chunk::<TAIL>().ok_or(Error::Corrupt)?;
        let (head, rows) = body.split_at_checked(HEAD).ok_or(Error::Corrupt)?;
        let head = Head::read(head).filter(|head| head.length == from.len() as u64);
        let head = head.ok_or(Error::Corrupt)?;
        if crc32c(body) != u32::from_le_bytes(*sum) {
            return Err(Error::Corrupt);
        }
        let own = self.head(0);
        if (head.shape, head.formats, head.rotary) != (own.shape, own.formats, own.rotary) {
            return Err(Error::Mismatch);
        }
        let Progress { next, first, .. } = head.progress;
        if first > next {
            return Err(Error::Corrupt);
        }
        let held = self.held(&head.progress).ok_or(Error::Full)?;
        let CacheShape {
            heads, dim, value_dim, ..
        } = self.shape;
        let pair_bytes = self.pair_bytes().ok_or(Error::Overflow)?;
        let wanted = held.checked_mul(heads).and_then(|pairs| pairs.checked_mul(pair_bytes));
        if wanted != Some(rows.len()) {
            return Err(Error::Corrupt);
        }
        let key_bytes = self.keys.row_bytes(dim).unwrap_or(0);
        let pairs = || {
            rows.chunks_exact(pair_bytes.max(1))
                .map(|pair| pair.split_at_checked(key_bytes).unwrap_or((&[], &[])))
        };
        let taken = pairs().all(|(key, value)| self.keys.takes(dim, key) && self.values.takes(value_dim, value));
        let Loss { key, value } = head.progress.loss;
        // No loss is negative either.
        if !taken || [key, value].iter().any(|x| x.to_bits() >= f32::INFINITY.to_bits()) {
            return Err(Error::NonFinite);
        }
        self.progress = Progress {
            capacity: self.shape.capacity,
            ..head.progress
        };
        let mut places = 0..held.saturating_mul(heads);
        for (key, value) in pairs() {
            let at = places.next().map_or(0, |n| self.place(n));
            self.keys.load(at, dim, key);
            self.values.load(at, value_dim, value);
        }
        Ok(())
    }

    /// Where the rows lie, key by key, head by head.
    pub(super) fn places(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len().saturating_mul(self.shape.heads)).map(|n| self.place(n))
    }

    fn place(&self, n: usize) -> usize {
        let heads = self.shape.heads.max(1);
        let position = self.position(n / heads).unwrap_or(0);
        self.place_of(self.row_of(position), n % heads)
    }

    fn head(&self, length: usize) -> Head {
        let CacheShape {
            heads,
            dim,
            value_dim,
            kept,
            ..
        } = self.shape;
        Head {
            formats: [self.keys.format() as u32, self.values.format() as u32],
            length: length as u64,
            shape: [heads, dim, value_dim, kept].map(|n| n as u64),
            progress: self.progress,
            rotary: self.turner.as_ref().map_or([0; 4], |turner| turner.rotary.numbers()),
        }
    }
}

impl Head {
    fn write(&self, to: &mut [u8]) {
        let [keys, values] = self.formats;
        let small = [VERSION, KIND, keys, values].map(u32::to_le_bytes);
        let [heads, dim, value_dim, kept] = self.shape;
        let Progress { next, first, loss, .. } = self.progress;
        let large = [self.length, heads, dim, value_dim, kept, next, first].map(u64::to_le_bytes);
        let losses = [loss.key, loss.value].map(f32::to_le_bytes);
        let bytes = MAGIC.iter().chain(small.as_flattened());
        let bytes = bytes.chain(large.as_flattened()).chain(losses.as_flattened());
        let rotary = self.rotary.map(u32::to_le_bytes);
        let bytes = bytes.chain(rotary.as_flattened());
        to.iter_mut().zip(bytes).for_each(|(to, &byte)| *to = byte);
    }

    /// `None` if it is not the head of a cache in this version.
    fn read(from: &[u8]) -> Option<Head> {
        let from = from.strip_prefix(&MAGIC)?;
        let (small, from) = from.split_first_chunk::<16>()?;
        let (large, from) = from.split_first_chunk::<56>()?;
        let (losses, from) = from.split_first_chunk::<8>()?;
        let rotary = from.first_chunk::<16>()?;
        let mut small = small.as_chunks::<4>().0.iter().map(|&x| u32::from_le_bytes(x));
        let mut large = large.as_chunks::<8>().0.iter().map(|&x| u64::from_le_bytes(x));
        let mut rotary = rotary.as_chunks::<4>().0.iter().map(|&x| u32::from_le_bytes(x));
        let mut losses = losses.as_chunks::<4>().0.iter().map(|&x| f32::from_le_bytes(x));
        if (small.next()?, small.next()?) != (VERSION, KIND) {
            return None;
        }
        Some(Head {
            formats: [small.next()?, small.next()?],
            length: large.next()?,
            shape: [large.next()?, large.next()?, large.next()?, large.next()?],
            progress: Progress {
                next: large.next()?,
                first: large.next()?,
                capacity: 0,
                loss: Loss {
                    key: losses.next()?,
                    value: losses.next()?,
                },
            },
            rotary: [rotary.next()?, rotary.next()?, rotary.next()?, rotary.next()?],
        })
    }
}

impl Store<'_> {
    /// Bytes of a saved row.
    fn row_bytes(&self, cols: usize) -> Option<usize> {
        let scale = if self.format() == Format::I8 { 4 } else { 0 };
        cols.checked_mul(self.format().size())?.checked_add(scale)
    }

    fn save(&self, at: usize, cols: usize, to: &mut [u8]) {
        let start = at.wrapping_mul(cols);
        let range = start..start.wrapping_add(cols);
        match self {
            Store::F32(x) => put(x.get(range), to, f32::to_le_bytes),
            Store::F16(x) | Store::Bf16(x) => put(x.get(range), to, u16::to_le_bytes),
            Store::I8(x, scales) => {
                put(x.get(range), to, i8::to_le_bytes);
                put(
                    scales.get(at..=at),
                    to.get_mut(cols..).unwrap_or(&mut []),
                    f32::to_le_bytes,
                );
            }
        }
    }

    fn load(&mut self, at: usize, cols: usize, from: &[u8]) {
        let start = at.wrapping_mul(cols);
        let range = start..start.wrapping_add(cols);
        match self {
            Store::F32(x) => take(x.get_mut(range), from, f32::from_le_bytes),
            Store::F16(x) | Store::Bf16(x) => take(x.get_mut(range), from, u16::from_le_bytes),
            Store::I8(x, scales) => {
                take(x.get_mut(range), from, i8::from_le_bytes);
                take(
                    scales.get_mut(at..=at),
                    from.get(cols..).unwrap_or(&[]),
                    f32::from_le_bytes,
                );
            }
        }
    }

    /// Whether a saved row has only numbers that are written: finite ones, no negative scale, no integer beyond 127 of it.
    fn takes(&self, cols: usize, from: &[u8]) -> bool {
        let halves = |infinite: u16| {
            let mut halves = from.as_chunks::<2>().0.iter().map(|&x| u16::from_le_bytes(x));
            halves.all(|x| x & 0x7fff < infinite)
        };
        match self {
            Store::F32(_) => from
                .as_chunks::<4>()
                .0
                .iter()
                .all(|&x| f32::from_le_bytes(x).is_finite()),
            Store::F16(_) => halves(0x7c00),
            Store::Bf16(_) => halves(0x7f80),
            Store::I8(..) => {
                let (integers, scale) = from.split_at_checked(cols).unwrap_or((&[], &[]));
                let scale = scale.first_chunk().map(|&x| u32::from_le_bytes(x));
                scale.is_some_and(|x| x < f32::INFINITY.to_bits()) && !integers.contains(&0x80)
            }
        }
    }
}

fn put<T: Copy, const N: usize>(from: Option<&[T]>, to: &mut [u8], bytes: fn(T) -> [u8; N]) {
    let to = to.as_chunks_mut::<N>().0.iter_mut();
    to.zip(from.unwrap_or(&[])).for_each(|(to, &x)| *to = bytes(x));
}

fn take<T, const N: usize>(to: Option<&mut [T]>, from: &[u8], number: fn([u8; N]) -> T) {
    let from = from.as_chunks::<N>().0;
    to.unwrap_or(&mut [])
        .iter_mut()
        .zip(from)
        .for_each(|(to, &x)| *to = number(x));
}

/// Castagnoli's polynomial, bits reversed, four bits at a time: a table of 64 bytes. It sees every change of up to 32 bits
/// that lie together.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut rest: &mut [u32] = &mut table;
        let mut n = 0u32;
        while let [first, tail @ ..] = rest {
            let mut x = n;
            let mut bit = 0;
            while bit < 4 {
                x = x >> 1 ^ (0x82f6_3b78 & (x & 1).wrapping_neg());
                bit += 1;
            }
            *first = x;
            n += 1;
            rest = tail;
        }
        table
    };
    let half = |crc: u32, bits: u32| {
        let entry = TABLE.get(((crc ^ bits) & 15) as usize).copied().unwrap_or(0);
        crc >> 4 ^ entry
    };
    !bytes.iter().fold(!0, |crc, &byte| {
        let byte = u32::from(byte);
        half(half(crc, byte), byte >> 4)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_the_published_one() {
        // The check value of CRC-32C, and of thirty-two zeros (RFC 3720).
        assert_eq!(super::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(super::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(super::crc32c(b""), 0);
    }
}

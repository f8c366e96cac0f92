//! From the plain struct to a cache over the memory that it names, and back.

use super::{subquad_cache, SUBQUAD_FORMAT_BF16, SUBQUAD_FORMAT_F16, SUBQUAD_FORMAT_F32, SUBQUAD_FORMAT_I8};
use crate::attention::{Cache, CacheShape, Loss, Progress, Rotary, Store};
use crate::error::Error;
use crate::ffi::{apart, give, optional, optional_slice, slice_mut, Extent};
use core::ffi::c_void;

/// The cache at a pointer. It and its memory are usable, apart from each other, from what will be read besides it, and from
/// what will be written.
///
/// # Safety
/// `cache` is null, misaligned, or points to a cache.
pub(super) unsafe fn read(
    cache: *const subquad_cache,
    reads: &[Extent],
    writes: &[Extent],
) -> Result<subquad_cache, Error> {
    let at = Extent::of(cache, 1)?;
    // SAFETY: the caller's promise, word for word.
    let own = *unsafe { optional(cache)? }.ok_or(Error::Null)?;
    let [keys, key_scales, values, value_scales, room, table] = own.extents()?;
    let memory = [at, keys, key_scales, values, value_scales, room];
    apart(&memory, &[table])?;
    apart(&memory, reads)?;
    apart(writes, &memory)?;
    apart(writes, &[table])?;
    Ok(own)
}

/// The cache as it is after a call.
///
/// # Safety
/// `cache` was read before.
pub(super) unsafe fn write(cache: *mut subquad_cache, own: &subquad_cache, progress: Progress) {
    let Progress {
        next,
        first,
        capacity,
        loss,
    } = progress;
    let after = subquad_cache {
        next,
        first,
        turned: capacity,
        key_loss: loss.key,
        value_loss: loss.value,
        ..*own
    };
    // SAFETY: the caller's promise: not null and aligned.
    unsafe { give(cache, after) };
}

impl subquad_cache {
    /// Rows of keys, and of values, that the memory has.
    fn rows(&self) -> Result<usize, Error> {
        let per_head = if self.table.is_null() {
            Some(self.capacity)
        } else {
            self.pages.checked_mul(self.block)
        };
        let rows = per_head.and_then(|n| n.checked_mul(self.heads));
        rows.ok_or(Error::Overflow)
    }

    /// Entries of the table.
    fn entries(&self) -> Result<usize, Error> {
        if self.table.is_null() {
            return Ok(0);
        }
        // A block of 0 has no entries.
        if self.block == 0 {
            return Err(Error::Parameter);
        }
        Ok(self.capacity.div_ceil(self.block))
    }

    /// How keys are turned, and floats of room for that.
    fn rotary(&self) -> Result<(Option<Rotary>, usize), Error> {
        let rotary = self.rotary.read(self.dim)?;
        let room = rotary.map_or(Some(0), |r| r.dim().checked_add(r.rotary_dim()));
        Ok((rotary, room.ok_or(Error::Overflow)?))
    }

    /// Keys, their scales, values, their scales, the room to turn keys, the table.
    fn extents(&self) -> Result<[Extent; 6], Error> {
        let rows = self.rows()?;
        let numbers = |data: *mut c_void, format: i32, cols: usize| {
            let n = rows.checked_mul(cols).ok_or(Error::Overflow)?;
            match format {
                SUBQUAD_FORMAT_F32 => Extent::of(data.cast::<f32>(), n),
                SUBQUAD_FORMAT_F16 | SUBQUAD_FORMAT_BF16 => Extent::of(data.cast::<u16>(), n),
                SUBQUAD_FORMAT_I8 => Extent::of(data.cast::<i8>(), n),
                _ => Err(Error::Parameter),
            }
        };
        let scales = |data: *mut f32, format: i32| {
            let n = if format == SUBQUAD_FORMAT_I8 { rows } else { 0 };
            Extent::of(data, n)
        };
        Ok([
            numbers(self.keys, self.key_format, self.dim)?,
            scales(self.key_scales, self.key_format)?,
            numbers(self.values, self.value_format, self.value_dim)?,
            scales(self.value_scales, self.value_format)?,
            Extent::of(self.rotary_room, self.rotary()?.1)?,
            Extent::of(self.table, self.entries()?)?,
        ])
    }

    /// The cache over its memory, as far as it has come.
    ///
    /// # Safety
    /// Every pointer reaches as far as the extents say, and nobody else uses that memory during 'a.
    pub(super) unsafe fn open<'a>(&self) -> Result<Cache<'a>, Error> {
        let shape = CacheShape {
            heads: self.heads,
            dim: self.dim,
            value_dim: self.value_dim,
            capacity: self.capacity,
            kept: self.kept,
        };
        let rows = self.rows()?;
        // SAFETY: the caller's promise, word for word; the extents are apart.
        let (keys, values, table) = unsafe {
            (
                store(self.keys, self.key_scales, self.key_format, [rows, self.dim])?,
                store(
                    self.values,
                    self.value_scales,
                    self.value_format,
                    [rows, self.value_dim],
                )?,
                optional_slice(self.table, self.entries()?)?,
            )
        };
        let mut cache = match table {
            None => Cache::new(shape, keys, values)?,
            Some(table) => Cache::with_pages(shape, keys, values, (table, self.block))?,
        };
        if self.sliding != 0 {
            cache = cache.with_sliding()?;
        }
        if let (Some(rotary), room) = self.rotary()? {
            // SAFETY: the caller's promise, word for word; the extents are apart.
            cache = cache.with_rotary(rotary, unsafe { slice_mut(self.rotary_room, room)? })?;
        }
        cache.resume(Progress {
            next: self.next,
            first: self.first,
            capacity: self.turned,
            loss: Loss {
                key: self.key_loss,
                value: self.value_loss,
            },
        })?;
        Ok(cache)
    }
}

/// # Safety
/// `data` reaches over so many rows, `scales` too if the format has any, and nobody else uses that memory during 'a.
unsafe fn store<'a>(
    data: *mut c_void,
    scales: *mut f32,
    format: i32,
    [rows, cols]: [usize; 2],
) -> Result<Store<'a>, Error> {
    let n = rows.checked_mul(cols).ok_or(Error::Overflow)?;
    // SAFETY: the caller's promise, word for word.
    unsafe {
        Ok(match format {
            SUBQUAD_FORMAT_F32 => Store::F32(slice_mut(data.cast(), n)?),
            SUBQUAD_FORMAT_F16 => Store::F16(slice_mut(data.cast(), n)?),
            SUBQUAD_FORMAT_BF16 => Store::Bf16(slice_mut(data.cast(), n)?),
            SUBQUAD_FORMAT_I8 => Store::I8(slice_mut(data.cast(), n)?, slice_mut(scales, rows)?),
            _ => return Err(Error::Parameter),
        })
    }
}

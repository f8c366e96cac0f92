//! The rules of attention, out of their C struct.

use super::{optional_slice, slice, subquad_attention, subquad_mask, subquad_tensor, Extent};
use crate::attention::{Offset, Rules, Segments, Shape};
use crate::error::Error;

impl subquad_attention {
    /// What a null pointer means: all zero.
    pub(super) const NONE: subquad_attention = subquad_attention {
        scale: 0.0,
        cap: 0.0,
        causal: 0,
        offset_to_end: 0,
        offset: 0,
        has_left: 0,
        has_right: 0,
        left: 0,
        right: 0,
        sinks: 0,
        sink_logits: core::ptr::null(),
        slopes: core::ptr::null(),
        mask: subquad_mask::NONE,
        bias: subquad_tensor::NONE,
        key_lengths: core::ptr::null(),
        query_starts: core::ptr::null(),
        key_starts: core::ptr::null(),
        segments: 0,
        key_run: 0,
        isa: 0,
    };

    /// Numbers in `query_starts` and in `key_starts`.
    fn starts(&self) -> Result<usize, Error> {
        if self.segments == 0 {
            let none = self.query_starts.is_null() && self.key_starts.is_null();
            return if none { Ok(0) } else { Err(Error::Shape) };
        }
        self.segments.checked_add(1).ok_or(Error::Overflow)
    }

    /// Memory that the rules point to.
    pub(super) fn extents(&self, batch: usize, query_heads: usize) -> Result<[Extent; 7], Error> {
        let starts = self.starts()?;
        Ok([
            self.mask.optional_extent()?,
            self.bias.optional_extent()?,
            Extent::optional(self.sink_logits, query_heads)?,
            Extent::optional(self.slopes, query_heads)?,
            Extent::optional(self.key_lengths, batch)?,
            Extent::of(self.query_starts, starts)?,
            Extent::of(self.key_starts, starts)?,
        ])
    }

    /// # Safety
    /// The pointers reach as far as the shape says, and nobody writes there during 'a.
    pub(super) unsafe fn read<'a>(&self, shape: &Shape) -> Result<Rules<'a>, Error> {
        let window = |has: i32, keys: usize| (has != 0).then_some(keys);
        let mut rules = Rules::new()
            .with_cap(self.cap)
            .with_window(window(self.has_left, self.left), window(self.has_right, self.right))
            .with_sinks(self.sinks)
            .with_offset(match self.offset_to_end {
                0 => Offset::Keys(self.offset),
                _ => Offset::ToEnd,
            });
        if self.scale != 0.0 {
            rules = rules.with_scale(self.scale);
        }
        if self.causal != 0 {
            rules = rules.with_causal();
        }
        // SAFETY: the caller's promise, word for word.
        unsafe { self.read_arrays(rules, shape) }
    }

    /// # Safety
    /// As for [`read`](subquad_attention::read).
    unsafe fn read_arrays<'a>(&self, mut rules: Rules<'a>, shape: &Shape) -> Result<Rules<'a>, Error> {
        let starts = self.starts()?;
        // SAFETY: the caller's promise, word for word.
        unsafe {
            if let Some(logits) = optional_slice(self.sink_logits, shape.query_heads)? {
                rules = rules.with_sink_logits(logits);
            }
            if let Some(slopes) = optional_slice(self.slopes, shape.query_heads)? {
                rules = rules.with_slopes(slopes);
            }
            if let Some(lengths) = optional_slice(self.key_lengths, shape.batch)? {
                rules = rules.with_key_lengths(lengths);
            }
            if let Some(mask) = self.mask.optional_view()? {
                rules = rules.with_mask(mask);
            }
            if let Some(bias) = self.bias.optional_view()? {
                rules = rules.with_bias(bias);
            }
            if starts != 0 {
                let (queries, keys) = (slice(self.query_starts, starts)?, slice(self.key_starts, starts)?);
                rules = rules.with_segments(Segments { queries, keys });
            }
        }
        Ok(rules)
    }
}

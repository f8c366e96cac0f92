//! C's rules, outputs and reports, turned into ours and back.

use super::attention::{SUBQUAD_STAGE_BIASED, SUBQUAD_STAGE_CAPPED, SUBQUAD_STAGE_RAW, SUBQUAD_STAGE_SOFTMAX};
use super::{optional_slice, Extent};
use super::{subquad_attention, subquad_mask, subquad_outputs, subquad_report, subquad_shape, subquad_tensor};
use crate::attention::{Offset, Outputs, Rules, Segments, Shape, Stage};
use crate::error::Error;
use crate::report::Report;

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
                let (queries, keys) = (
                    super::slice(self.query_starts, starts)?,
                    super::slice(self.key_starts, starts)?,
                );
                rules = rules.with_segments(Segments { queries, keys });
            }
        }
        Ok(rules)
    }
}

impl subquad_outputs {
    pub(super) const fn all(&self) -> [super::subquad_tensor_mut; 4] {
        [self.out, self.lse, self.partials, self.scores]
    }

    #[inline(always)]
    pub(super) fn extents(&self) -> Result<[Extent; 4], Error> {
        Ok([
            self.out.optional_extent()?,
            self.lse.optional_extent()?,
            self.partials.optional_extent()?,
            self.scores.optional_extent()?,
        ])
    }

    /// [`Error::Null`] if there is something to write, by sizes of which none is 0, and nothing is wanted. Inlined like
    /// the extents: firmware has one caller of each, and out of line they cost it a hundred bytes.
    #[inline(always)]
    pub(super) fn wanted(&self, sizes: [usize; 4]) -> Result<(), Error> {
        let something = sizes.iter().all(|&n| n != 0);
        if something && self.all().iter().all(|t| t.data.is_null()) {
            return Err(Error::Null);
        }
        Ok(())
    }

    /// # Safety
    /// The pointers reach as far as the sizes say, and nobody else uses that memory during 'a.
    pub(super) unsafe fn view<'a>(&self) -> Result<Outputs<'a>, Error> {
        // SAFETY: the caller's promise, word for word.
        let (out, lse, partials, scores) = unsafe {
            (
                self.out.optional_view()?,
                self.lse.optional_view()?,
                self.partials.optional_view()?,
                self.scores.optional_view()?,
            )
        };
        let scores = match scores {
            Some(scores) => Some((stage(self.scores_stage)?, scores)),
            None => None,
        };
        Ok(Outputs {
            out,
            lse,
            partials,
            scores,
        })
    }
}

pub(super) fn stage(number: i32) -> Result<Stage, Error> {
    match number {
        SUBQUAD_STAGE_RAW => Ok(Stage::Raw),
        SUBQUAD_STAGE_CAPPED => Ok(Stage::Capped),
        SUBQUAD_STAGE_BIASED => Ok(Stage::Biased),
        SUBQUAD_STAGE_SOFTMAX => Ok(Stage::Softmax),
        _ => Err(Error::Parameter),
    }
}

impl From<subquad_shape> for Shape {
    fn from(shape: subquad_shape) -> Shape {
        let subquad_shape {
            batch,
            query_heads,
            kv_heads,
            queries,
            keys,
            dim,
            value_dim,
        } = shape;
        Shape {
            batch,
            query_heads,
            kv_heads,
            queries,
            keys,
            dim,
            value_dim,
        }
    }
}

impl From<Report> for subquad_report {
    fn from(report: Report) -> subquad_report {
        subquad_report {
            isa: report.isa.number(),
            masked_rows: report.masked_rows,
            non_finite_rows: report.non_finite_rows,
            imprecise_rows: report.imprecise_rows,
            repeated_blocks: report.repeated_blocks,
            bound: report.bound.value,
            bound_failure: report.bound.failure,
        }
    }
}

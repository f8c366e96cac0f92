//! Plain structs, passed by value or filled in by the caller. A struct of zeros is always the default.

use super::{region, slice, slice_mut, Region};
use crate::attention::{Offset, Rules, Segments, Shape, Stage};
use crate::error::Error;
use crate::simd::Isa;
use crate::view::check::{disjoint, span, Axis};
use crate::view::{TensorMut, TensorRef};

/// Matrices to read: batch x heads x rows x cols floats, strides in elements.
///
/// `col_stride` must be 1 (0 is taken as 1). Any other stride may be anything, 0 included (a repeated row). Heads packed
/// side by side in each row are `head_stride = cols`, `row_stride = heads * cols`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct subquad_tensor {
    /// First element; may be NULL only where the tensor is empty.
    pub data: *const f32,
    /// Independent problems.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Rows of each matrix.
    pub rows: usize,
    /// Columns of each matrix.
    pub cols: usize,
    /// Elements from one batch entry to the next.
    pub batch_stride: usize,
    /// Elements from one head to the next.
    pub head_stride: usize,
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Elements from one column to the next: 1 or 0.
    pub col_stride: usize,
}

/// Matrices to write; as `subquad_tensor`, but no two entries may share an element.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct subquad_tensor_mut {
    /// First element; NULL in a tensor of zeros: not wanted.
    pub data: *mut f32,
    /// Independent problems.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Rows of each matrix.
    pub rows: usize,
    /// Columns of each matrix.
    pub cols: usize,
    /// Elements from one batch entry to the next.
    pub batch_stride: usize,
    /// Elements from one head to the next.
    pub head_stride: usize,
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Elements from one column to the next: 1 or 0.
    pub col_stride: usize,
}

/// A boolean mask to read, one byte an entry, not 0 = takes part; otherwise as `subquad_tensor`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct subquad_mask {
    /// First entry; NULL: no mask.
    pub data: *const u8,
    /// Batch entries, or 1 for all.
    pub batch: usize,
    /// Query heads, or 1 for all.
    pub heads: usize,
    /// Queries, or 1 for all.
    pub rows: usize,
    /// Keys; those beyond are masked.
    pub cols: usize,
    /// Entries from one batch entry to the next.
    pub batch_stride: usize,
    /// Entries from one head to the next.
    pub head_stride: usize,
    /// Entries from one row to the next.
    pub row_stride: usize,
    /// Entries from one column to the next: 1 or 0.
    pub col_stride: usize,
}

/// Sizes of an attention call. Query head h uses kv head h / (query_heads / kv_heads).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct subquad_shape {
    /// Independent problems.
    pub batch: usize,
    /// Heads of queries and outputs, a multiple of `kv_heads`.
    pub query_heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Rows of q and out.
    pub queries: usize,
    /// Rows of k and v.
    pub keys: usize,
    /// Columns of q and k.
    pub dim: usize,
    /// Columns of v and out.
    pub value_dim: usize,
}

/// How scores are formed and which keys a query sees. Zeros everywhere: scale 1 / sqrt(dim), every query sees every key.
///
/// Order: scale, cap, bias, masks, softmax. Query i has the position `offset + i` among the keys.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct subquad_rules {
    /// Scores are `scale * q.k`; 0 means 1 / sqrt(dim). Not negative.
    pub scale: f32,
    /// Scores become `cap * tanh(score / cap)`; 0 means no cap. Not negative.
    pub cap: f32,
    /// Not 0: a query sees no key beyond its position.
    pub causal: i32,
    /// Not 0: the last query stands at the last valid key, and `offset` is not used.
    pub offset_to_end: i32,
    /// Keys before query 0; may be negative.
    pub offset: i64,
    /// Not 0: a query sees at most `left` keys before its position.
    pub has_left: i32,
    /// Not 0: a query sees at most `right` keys after its position.
    pub has_right: i32,
    /// See `has_left`.
    pub left: usize,
    /// See `has_right`.
    pub right: usize,
    /// The first keys that the left window never hides.
    pub sinks: usize,
    /// A learned logit per query head, of value 0, or NULL.
    pub sink_logits: *const f32,
    /// ALiBi slopes, one per query head, or NULL: adds `-slope * |position - key|`.
    pub slopes: *const f32,
    /// Valid keys of each batch entry, or NULL.
    pub key_lengths: *const usize,
    /// Ragged sequences: `segments + 1` cumulative query lengths, or NULL.
    pub query_starts: *const usize,
    /// Ragged sequences: `segments + 1` cumulative key lengths, or NULL.
    pub key_starts: *const usize,
    /// Number of ragged sequences.
    pub segments: usize,
    /// Which keys take part, or zeros.
    pub mask: subquad_mask,
    /// Added to the scores after the cap (minus infinity masks), or zeros. Broadcast like `mask`.
    pub bias: subquad_tensor,
    /// A back end by number (`subquad_isa_name`), or 0 for the best.
    pub isa: i32,
    /// Keys scored at a time, or 0 for the default; no bit of a result depends on it. Not used by decode.
    pub key_run: usize,
}

/// Where results go. A tensor of zeros is not wanted; at least one must be.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct subquad_outputs {
    /// batch x query_heads x queries x value_dim.
    pub out: subquad_tensor_mut,
    /// Log-sum-exp: batch x query_heads x queries x 1.
    pub lse: subquad_tensor_mut,
    /// Mergeable rows: batch x query_heads x queries x (value_dim + SUBQUAD_PARTIAL_HEAD).
    pub partials: subquad_tensor_mut,
    /// Scores of one stage: batch x query_heads x queries x keys.
    pub scores: subquad_tensor_mut,
    /// SUBQUAD_STAGE_RAW, _CAPPED, _BIASED or _SOFTMAX.
    pub stage: i32,
}

/// What happened in a call that succeeded.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct subquad_report {
    /// The back end that ran.
    pub isa: i32,
    /// Rows that saw no key: zeros, log-sum-exp minus infinity.
    pub masked_rows: usize,
    /// Rows with a non-finite score or value among the keys they saw: NaN.
    pub non_finite_rows: usize,
    /// Groups of rows that were run twice because their scores spread over more than 100 powers of two.
    pub repeated_blocks: usize,
    /// The promised largest absolute error of an output; infinity if not asked for.
    pub bound: f32,
    /// The probability that the promise does not hold.
    pub bound_failure: f32,
}

/// `scale * q.k`, for every key.
pub const SUBQUAD_STAGE_RAW: i32 = 0;
/// After the cap, for every key.
pub const SUBQUAD_STAGE_CAPPED: i32 = 1;
/// After bias and masks; minus infinity where masked.
pub const SUBQUAD_STAGE_BIASED: i32 = 2;
/// Probabilities; zeros where masked.
pub const SUBQUAD_STAGE_SOFTMAX: i32 = 3;
/// Numbers before the output row in a partial.
pub const SUBQUAD_PARTIAL_HEAD: usize = 4;
const _: () = assert!(SUBQUAD_PARTIAL_HEAD == crate::attention::Partial::HEAD);

/// Shape and strides of one of the three tensor structs.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    shape: [usize; 4],
    strides: [usize; 3],
}

impl Layout {
    fn new(shape: [usize; 4], strides: [usize; 3], col_stride: usize) -> Result<Self, Error> {
        if col_stride > 1 {
            return Err(Error::Shape);
        }
        Ok(Layout { shape, strides })
    }

    fn axes(&self) -> [Axis; 4] {
        let ([b, h, r, c], [bs, hs, rs]) = (self.shape, self.strides);
        let axis = |len, stride| Axis { len, stride };
        [axis(b, bs), axis(h, hs), axis(r, rs), axis(c, 1)]
    }

    fn len(&self) -> Result<usize, Error> {
        span(&self.axes())
    }
}

macro_rules! layout {
    ($($name:ident),+) => {$(
        impl $name {
            fn layout(&self) -> Result<Layout, Error> {
                Layout::new(
                    [self.batch, self.heads, self.rows, self.cols],
                    [self.batch_stride, self.head_stride, self.row_stride],
                    self.col_stride,
                )
            }

            /// The bytes it reaches.
            pub(super) fn region(&self) -> Result<Region, Error> {
                region(self.data, self.layout()?.len()?)
            }
        }
    )+};
}

layout!(subquad_tensor, subquad_tensor_mut, subquad_mask);

impl subquad_tensor {
    /// # Safety
    /// Every element that the strides reach may be read for `'a`.
    pub(super) unsafe fn view<'a>(&self) -> Result<TensorRef<'a, f32>, Error> {
        let layout = self.layout()?;
        // SAFETY: the caller's promise, word for word.
        let data = unsafe { slice(self.data, layout.len()?)? };
        TensorRef::with_strides(data, layout.shape, layout.strides)
    }
}

impl subquad_mask {
    /// # Safety
    /// Every entry that the strides reach may be read for `'a`.
    unsafe fn view<'a>(&self) -> Result<TensorRef<'a, u8>, Error> {
        let layout = self.layout()?;
        // SAFETY: the caller's promise, word for word.
        let data = unsafe { slice(self.data, layout.len()?)? };
        TensorRef::with_strides(data, layout.shape, layout.strides)
    }
}

impl subquad_tensor_mut {
    /// Whether the caller wants it: zeros say no, and so does emptiness.
    pub(super) fn wanted(&self) -> bool {
        !self.data.is_null() || (self.batch > 0 && self.heads > 0 && self.rows > 0 && self.cols > 0)
    }

    /// No two entries share an element.
    pub(super) fn check(&self) -> Result<(), Error> {
        disjoint(self.layout()?.axes())
    }

    /// # Safety
    /// Every element that the strides reach may be written for `'a`, and nobody else touches them meanwhile.
    pub(super) unsafe fn view<'a>(&self) -> Result<Option<TensorMut<'a, f32>>, Error> {
        if !self.wanted() {
            return Ok(None);
        }
        let layout = self.layout()?;
        // SAFETY: the caller's promise, word for word.
        let data = unsafe { slice_mut(self.data, layout.len()?)? };
        TensorMut::with_strides(data, layout.shape, layout.strides).map(Some)
    }
}

impl subquad_shape {
    pub(super) fn shape(&self) -> Shape {
        Shape {
            batch: self.batch,
            query_heads: self.query_heads,
            kv_heads: self.kv_heads,
            queries: self.queries,
            keys: self.keys,
            dim: self.dim,
            value_dim: self.value_dim,
        }
    }
}

impl subquad_rules {
    /// Lengths of the arrays: sink logits, slopes, key lengths, starts.
    fn lengths(&self, shape: &Shape) -> Result<(usize, usize), Error> {
        let starts = self.segments.checked_add(1).ok_or(Error::Overflow)?;
        Ok((shape.query_heads.max(shape.batch), starts))
    }

    /// Everything the rules point at.
    pub(super) fn regions(&self, shape: &Shape) -> Result<[Region; 7], Error> {
        let (_, starts) = self.lengths(shape)?;
        let of = |p: *const f32| {
            if p.is_null() {
                Ok(Region::EMPTY)
            } else {
                region(p, shape.query_heads)
            }
        };
        let at = |p: *const usize, n| if p.is_null() { Ok(Region::EMPTY) } else { region(p, n) };
        Ok([
            of(self.sink_logits)?,
            of(self.slopes)?,
            at(self.key_lengths, shape.batch)?,
            at(self.query_starts, starts)?,
            at(self.key_starts, starts)?,
            if self.mask.data.is_null() {
                Region::EMPTY
            } else {
                self.mask.region()?
            },
            if self.bias.data.is_null() {
                Region::EMPTY
            } else {
                self.bias.region()?
            },
        ])
    }

    /// # Safety
    /// Every array and tensor holds as many elements as the shape asks for, readable for `'a`.
    pub(super) unsafe fn rules<'a>(&self, shape: &Shape) -> Result<Rules<'a>, Error> {
        let (_, starts) = self.lengths(shape)?;
        let mut rules = Rules::new().with_cap(self.cap).with_sinks(self.sinks);
        if self.scale != 0.0 {
            rules = rules.with_scale(self.scale);
        }
        if self.causal != 0 {
            rules = rules.with_causal();
        }
        rules = rules.with_offset(match self.offset_to_end {
            0 => Offset::Keys(self.offset),
            _ => Offset::ToEnd,
        });
        let limit = |flag: i32, n: usize| if flag == 0 { None } else { Some(n) };
        rules = rules.with_window(limit(self.has_left, self.left), limit(self.has_right, self.right));
        // SAFETY (this and the four below): the caller's promise, word for word.
        unsafe {
            if !self.sink_logits.is_null() {
                rules = rules.with_sink_logits(slice(self.sink_logits, shape.query_heads)?);
            }
            if !self.slopes.is_null() {
                rules = rules.with_slopes(slice(self.slopes, shape.query_heads)?);
            }
            if !self.key_lengths.is_null() {
                rules = rules.with_key_lengths(slice(self.key_lengths, shape.batch)?);
            }
            match (self.query_starts.is_null(), self.key_starts.is_null()) {
                (true, true) => {}
                (false, false) => {
                    let (queries, keys) = (slice(self.query_starts, starts)?, slice(self.key_starts, starts)?);
                    rules = rules.with_segments(Segments { queries, keys });
                }
                _ => return Err(Error::Null),
            }
            if !self.mask.data.is_null() {
                rules = rules.with_mask(self.mask.view()?);
            }
            if !self.bias.data.is_null() {
                rules = rules.with_bias(self.bias.view()?);
            }
        }
        Ok(rules)
    }
}

/// The stage of a number. [`Error::Parameter`] if there is none.
pub(super) fn stage(number: i32) -> Result<Stage, Error> {
    match number {
        SUBQUAD_STAGE_RAW => Ok(Stage::Raw),
        SUBQUAD_STAGE_CAPPED => Ok(Stage::Capped),
        SUBQUAD_STAGE_BIASED => Ok(Stage::Biased),
        SUBQUAD_STAGE_SOFTMAX => Ok(Stage::Softmax),
        _ => Err(Error::Parameter),
    }
}

/// The back end of a number: 0 for the best. [`Error::Unsupported`] if this machine does not have it.
pub(super) fn isa(number: i32) -> Result<Isa, Error> {
    match number {
        0 => Ok(Isa::best()),
        _ => Isa::all().find(|isa| isa.number() == number).ok_or(Error::Unsupported),
    }
}

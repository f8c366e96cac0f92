//! How scores are formed, and which keys a query sees.

mod span;

pub(crate) use span::{At, Span};

use super::Shape;
use crate::error::Error;
use crate::math;
use crate::view::TensorRef;

/// Where query 0 stands among the keys: query `i` has position `offset + i`.
///
/// ```text
///   offset 0, 3 queries, 5 keys     offset 2 (past of 2, or ToEnd)
///     key  0 1 2 3 4                  key  0 1 2 3 4
///   q0     x . . . .                q0     x x x . .
///   q1     x x . . .                q1     x x x x .
///   q2     x x x . .                q2     x x x x x      (causal)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offset {
    /// This many keys lie before query 0; may be negative.
    Keys(i64),
    /// The last query stands at the last valid key: valid keys - queries, per batch entry.
    ToEnd,
}

/// Ragged sequences in one call: segment `s` is queries `queries[s]..queries[s + 1]` and keys `keys[s]..keys[s + 1]`.
///
/// Queries see the keys of their segment only; positions count from the start of the segment.
#[derive(Clone, Copy, Debug)]
pub struct Segments<'a> {
    /// Cumulative query lengths: from 0 to the number of queries, not decreasing.
    pub queries: &'a [usize],
    /// Cumulative key lengths: from 0 to at most the number of keys, not decreasing, as long as `queries`.
    pub keys: &'a [usize],
}

/// How scores are formed and which keys take part. Nothing is limited by default.
///
/// score = scale * q.k, then the cap, then the additive bias, then every mask; a key takes part if all masks let it.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    scale: Option<f32>,
    cap: f32,
    causal: bool,
    offset: Offset,
    left: Option<usize>,
    right: Option<usize>,
    sinks: usize,
    sink_logits: Option<&'a [f32]>,
    mask: Option<TensorRef<'a, u8>>,
    bias: Option<TensorRef<'a, f32>>,
    slopes: Option<&'a [f32]>,
    key_lengths: Option<&'a [usize]>,
    segments: Option<Segments<'a>>,
}

impl Default for Rules<'_> {
    fn default() -> Self {
        Rules::new()
    }
}

impl<'a> Rules<'a> {
    /// Every query sees every key; scale 1 / sqrt(dim).
    #[must_use]
    pub const fn new() -> Self {
        Rules {
            scale: None,
            cap: 0.0,
            causal: false,
            offset: Offset::Keys(0),
            left: None,
            right: None,
            sinks: 0,
            sink_logits: None,
            mask: None,
            bias: None,
            slopes: None,
            key_lengths: None,
            segments: None,
        }
    }

    /// Scores are `scale * q.k`. Finite and not negative.
    #[must_use]
    pub const fn with_scale(mut self, scale: f32) -> Self {
        self.scale = Some(scale);
        self
    }

    /// Scores become `cap * tanh(score / cap)`. Finite and not negative; 0 means none.
    #[must_use]
    pub const fn with_cap(mut self, cap: f32) -> Self {
        self.cap = cap;
        self
    }

    /// A query sees no key beyond its position.
    #[must_use]
    pub const fn with_causal(mut self) -> Self {
        self.causal = true;
        self
    }

    /// Where the queries stand among the keys; see [`Offset`].
    #[must_use]
    pub const fn with_offset(mut self, offset: Offset) -> Self {
        self.offset = offset;
        self
    }

    /// A query at position p sees keys from `p - left` to `p + right` only; `None` is no limit.
    #[must_use]
    pub const fn with_window(mut self, left: Option<usize>, right: Option<usize>) -> Self {
        self.left = left;
        self.right = right;
        self
    }

    /// The first `keys` keys are seen whatever the left window says.
    #[must_use]
    pub const fn with_sinks(mut self, keys: usize) -> Self {
        self.sinks = keys;
        self
    }

    /// One learned logit per query head that takes part in the softmax and has the value 0.
    #[must_use]
    pub const fn with_sink_logits(mut self, logits: &'a [f32]) -> Self {
        self.sink_logits = Some(logits);
        self
    }

    /// A key takes part where the mask is not 0. Batch, heads and rows of 1 are repeated; columns that the mask does not
    /// have are masked.
    #[must_use]
    pub const fn with_mask(mut self, mask: TensorRef<'a, u8>) -> Self {
        self.mask = Some(mask);
        self
    }

    /// Added to the scores after the cap; minus infinity masks. Broadcast and short columns as for
    /// [`with_mask`](Rules::with_mask).
    #[must_use]
    pub const fn with_bias(mut self, bias: TensorRef<'a, f32>) -> Self {
        self.bias = Some(bias);
        self
    }

    /// ALiBi: adds `-slope * |position - key|`, one slope per query head.
    #[must_use]
    pub const fn with_slopes(mut self, slopes: &'a [f32]) -> Self {
        self.slopes = Some(slopes);
        self
    }

    /// Valid keys of each batch entry; those beyond are padding.
    #[must_use]
    pub const fn with_key_lengths(mut self, lengths: &'a [usize]) -> Self {
        self.key_lengths = Some(lengths);
        self
    }

    /// Ragged sequences; see [`Segments`].
    #[must_use]
    pub const fn with_segments(mut self, segments: Segments<'a>) -> Self {
        self.segments = Some(segments);
        self
    }

    /// Every array has the length the shape asks for, every parameter a meaning.
    pub(crate) fn check(&self, shape: &Shape) -> Result<(), Error> {
        parameter(self.scale.unwrap_or(0.0))?;
        parameter(self.cap)?;
        for x in [self.sink_logits, self.slopes].into_iter().flatten() {
            if x.len() != shape.query_heads {
                return Err(Error::Shape);
            }
            if x.iter().any(|x| !(x * LOG2_E).is_finite()) {
                return Err(Error::Parameter);
            }
        }
        if let Some(m) = &self.mask {
            broadcasts(shape, m.batch(), m.heads(), m.rows(), m.cols())?;
        }
        if let Some(b) = &self.bias {
            broadcasts(shape, b.batch(), b.heads(), b.rows(), b.cols())?;
        }
        if let Some(lengths) = self.key_lengths {
            if lengths.len() != shape.batch {
                return Err(Error::Shape);
            }
            if lengths.iter().any(|&n| n > shape.keys) {
                return Err(Error::Range);
            }
        }
        match &self.segments {
            Some(s) => s.check(shape),
            None => Ok(()),
        }
    }

    /// The scale as it was given, or 1 / sqrt(dim).
    pub(crate) fn scale_of(&self, dim: usize) -> f32 {
        self.scale.unwrap_or_else(|| 1.0 / math::sqrt(dim.max(1) as f32))
    }

    /// Scale times log2 e: scores live in base 2.
    pub(crate) fn scale2(&self, dim: usize) -> f32 {
        scale2(self.scale, dim)
    }

    /// Roundings between [`scale2`](Rules::scale2) and the true scale times log2 e, but for that of log2 e itself (0.23 of
    /// a whole one).
    pub(crate) const fn scale2_roundings(&self, dim: usize) -> usize {
        let exact = self.scale.is_some() || (dim.is_power_of_two() && dim.trailing_zeros().is_multiple_of(2));
        if exact {
            1
        } else {
            3
        }
    }

    /// The cap in base 2; 0 for none.
    pub(crate) const fn cap2(&self) -> f32 {
        self.cap * LOG2_E
    }

    /// The logit of the head's learned sink, in base 2.
    pub(crate) fn sink_logit2(&self, head: usize) -> Option<f32> {
        self.sink_logits.and_then(|x| x.get(head)).map(|x| x * LOG2_E)
    }

    /// Whether any rule looks at a key and query pair: then runs of keys need a bias tile.
    pub(crate) const fn limits(&self) -> bool {
        self.dense()
            || self.causal
            || self.left.is_some()
            || self.right.is_some()
            || self.key_lengths.is_some()
            || self.segments.is_some()
    }

    /// Whether a bias or mask can be anywhere, not only at the ends of a span.
    pub(crate) const fn dense(&self) -> bool {
        self.mask.is_some() || self.bias.is_some() || self.slopes.is_some()
    }

    /// Whether a bias is added to the scores.
    pub(crate) const fn has_bias(&self) -> bool {
        self.bias.is_some()
    }

    /// Whether scores are capped.
    pub(crate) const fn has_cap(&self) -> bool {
        self.cap != 0.0
    }

    /// The bias.
    pub(crate) const fn bias(&self) -> Option<TensorRef<'a, f32>> {
        self.bias
    }

    /// The learned sinks.
    pub(crate) const fn sink_logits(&self) -> Option<&'a [f32]> {
        self.sink_logits
    }

    /// Whether something that grows with distance is.
    pub(crate) const fn has_slopes(&self) -> bool {
        self.slopes.is_some()
    }

    /// The bias and the slopes apart and unmasked, so that their sizes do not cancel.
    pub(crate) const fn addends(&self) -> [Self; 2] {
        let (mut bias, mut slopes) = (Rules::new(), Rules::new());
        bias.bias = self.bias;
        slopes.slopes = self.slopes;
        [bias, slopes]
    }
}

const LOG2_E: f32 = core::f32::consts::LOG2_E;

/// A scale times log2 e; without one it is 1 / sqrt(dim).
pub(super) fn scale2(scale: Option<f32>, dim: usize) -> f32 {
    scale.unwrap_or_else(|| 1.0 / math::sqrt(dim.max(1) as f32)) * LOG2_E
}

/// [`Error::Parameter`] unless a scale or cap is not negative, and finite even times log2 e.
pub(super) fn parameter(x: f32) -> Result<(), Error> {
    let x = x * LOG2_E;
    if !x.is_finite() || x < 0.0 {
        return Err(Error::Parameter);
    }
    Ok(())
}

impl Segments<'_> {
    fn check(&self, shape: &Shape) -> Result<(), Error> {
        if self.queries.len() != self.keys.len() || self.queries.len() < 2 {
            return Err(Error::Shape);
        }
        let rises = |x: &[usize]| x.first() == Some(&0) && x.iter().zip(x.iter().skip(1)).all(|(a, b)| a <= b);
        let ends = self.queries.last() == Some(&shape.queries) && self.keys.last().is_some_and(|&n| n <= shape.keys);
        if rises(self.queries) && rises(self.keys) && ends {
            Ok(())
        } else {
            Err(Error::Range)
        }
    }
}

/// Batch, heads and rows are those of the call or 1; there are no more columns than keys.
fn broadcasts(shape: &Shape, batch: usize, heads: usize, rows: usize, cols: usize) -> Result<(), Error> {
    let fits = |n: usize, whole: usize| n == whole || n == 1;
    if fits(batch, shape.batch) && fits(heads, shape.query_heads) && fits(rows, shape.queries) && cols <= shape.keys {
        Ok(())
    } else {
        Err(Error::Shape)
    }
}

//! Attention over the keys of a cache.

use super::{Cache, CacheShape};
use crate::attention::outputs::Outputs;
use crate::attention::slots::{Sequence, Slots};
use crate::attention::{Decode, Exact, Offset, Rules, Shape};
use crate::error::Error;
use crate::report::Report;
use crate::scratch::Scratch;
use crate::view::TensorRef;

impl Cache<'_> {
    /// A plan for `queries` new queries of `query_heads` heads against the keys that are there. The last query stands at
    /// the last key, see [`Offset::ToEnd`]; add `with_rules(...)` to limit what the others see. Rules count keys as they
    /// are there, the kept ones first: a window of the cache needs no rule, and slopes measure distances among what is left.
    pub fn decode(&self, query_heads: usize, queries: usize) -> Result<Decode<'static>, Error> {
        Decode::new(self.call(query_heads, queries))?.with_rules(Rules::new().with_offset(Offset::ToEnd))
    }

    /// As [`decode`](Cache::decode), for many queries, as of a prompt.
    pub fn exact(&self, query_heads: usize, queries: usize) -> Result<Exact<'static>, Error> {
        Exact::new(self.call(query_heads, queries))?.with_rules(Rules::new().with_offset(Offset::ToEnd))
    }

    fn call(&self, query_heads: usize, queries: usize) -> Shape {
        Shape {
            batch: 1,
            query_heads,
            kv_heads: self.shape.heads,
            queries,
            keys: self.len(),
            dim: self.shape.dim,
            value_dim: self.shape.value_dim,
        }
    }

    /// Runs a plan made for this many keys; otherwise [`Error::Shape`]. With a bound, it is about the keys and values as
    /// they were appended; keys that are turned are turned in real numbers there.
    pub fn attend(
        &self,
        plan: &Decode<'_>,
        q: TensorRef<'_, f32>,
        outputs: Outputs<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        let shape = self.call_of(&q)?;
        plan.attend(shape, || self.loss(), self.sequences()?, q, outputs, scratch)
    }

    /// As [`attend`](Cache::attend), with a plan for many queries and the scratch of [`Exact::need_rows`].
    pub fn forward(
        &self,
        plan: &Exact<'_>,
        q: TensorRef<'_, f32>,
        outputs: Outputs<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        let shape = self.call_of(&q)?;
        plan.attend(shape, || self.loss(), self.sequences()?, q, outputs, scratch)
    }

    fn call_of(&self, q: &TensorRef<'_, f32>) -> Result<Shape, Error> {
        if (q.batch(), q.cols()) != (1, self.shape.dim) {
            return Err(Error::Shape);
        }
        Ok(self.call(q.heads(), q.rows()))
    }

    /// Keys and values in the order of their positions.
    fn sequences(&self) -> Result<[Sequence<'_>; 2], Error> {
        let CacheShape {
            heads,
            dim,
            value_dim,
            capacity,
            kept,
        } = self.shape;
        let block = self.pages.map_or(capacity, |pages| pages.block);
        let pages = self.pages_in_memory();
        let slots = Slots {
            kept,
            turn: self.row_of(self.oldest()).saturating_sub(kept),
            ring: capacity - kept,
            pages: self.pages,
        };
        let keys = self.keys.view([pages, heads, block, dim])?;
        let values = self.values.view([pages, heads, block, value_dim])?;
        Ok([keys, values].map(|rows| Sequence { rows, slots }))
    }
}

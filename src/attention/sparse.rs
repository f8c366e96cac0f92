//! Attention that reads the keys that matter, and says what the others can weigh at most.

mod cluster;
mod index;
mod mass;
mod row;

use super::block::{load, MOST_LANES};
use super::outputs::Outputs;
use super::{Decode, Rules, Shape};
use crate::bound::{gamma, product_up, Bound};
use crate::error::Error;
use crate::kernels;
use crate::report::Report;
use crate::scratch::{Need, Scratch};
use crate::simd::Isa;
use crate::view::{MatMut, MatRef};
pub use cluster::{cluster, cluster_need};
pub use index::Index;
use row::Reader;

/// Certified block pruning: per query, blocks of keys in the order of what they can weigh at most, until those that are left
/// weigh no more than a share `theta` of the row.
///
/// A row that leaves out a share of at most theta is off by at most `theta` times the range of the values (lemma L4),
/// whatever the input: the bounds of the blocks hold for all of their keys ([`Index`] keeps mean, radius, covariance and
/// box), and f32 rounding is in them. [`Report::bound`] is the worst row; each partial has its own. What is read is
/// read by [`Decode`], promise included.
///
/// How much that saves is a matter of the keys (`examples/sparsity.rs`). With keys in order ([`Index`]) that form clusters,
/// 2 in 100 may be read at theta = 0.01; of independent normal keys in 64 dimensions all are.
/// [`Report::keys_read`] says; rows that have read every key count as [`exact_rows`](Report::exact_rows).
///
/// One head. Causal attention ([`with_causal`](Pruned::with_causal)) reads the block that the edge cuts exactly.
///
/// Cost: `6 dim` flops per query and block of the index (a panel of queries at a time: one query costs as much as a panel),
/// `2 (dim + value_dim)` and the promise, as much again, per query and key that is read. Scratch:
/// [`need`](Pruned::need). Bits do not depend on how queries are put into calls.
///
/// ```
/// use subquad::{attention::{Index, Pruned, Shape}, MatMut, MatRef, Scratch};
/// # fn main() -> Result<(), subquad::Error> {
/// // 512 keys on a line, 32 at each place; the query looks far to the right.
/// let k: Vec<f32> = (0..512).map(|i| (i / 32) as f32).collect();
/// let (k, v, q) = (MatRef::new(&k, 512, 1)?, MatRef::new(&k, 512, 1)?, MatRef::new(&[8.0], 1, 1)?);
/// let mut memory = vec![0.0; Index::len(1, 1, 32, 512)?];
/// let mut index = Index::new(1, 1, 32, &mut memory)?;
/// index.extend(k, v)?;
/// let plan = Pruned::new(Shape::head(1, 512, 1, 1), 32)?.with_share(0.01)?;
/// let mut work = vec![core::mem::MaybeUninit::uninit(); plan.need().bytes()];
/// let mut out = [0.0];
/// let report = plan.forward(&index, [q, k, v], MatMut::new(&mut out, 1, 1)?, &mut Scratch::new(&mut work))?;
/// assert_eq!(report.keys_read, 32);
/// assert!((out[0] - 15.0).abs() <= report.bound.value && report.bound.value <= 0.01 * 15.0 + 1e-4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Pruned {
    shape: Shape,
    block: usize,
    share: f32,
    scale: Option<f32>,
    causal: Option<usize>,
    isa: Option<Isa>,
}

/// Blocks that are gathered and read at once, at most.
const BATCH: usize = 4;

impl Pruned {
    /// A plan for one head and an index with blocks of this size; nothing is left out. [`Error::Parameter`] unless blocks
    /// have 16, 32 or 64 keys, [`Error::Unsupported`] for more than one head.
    pub const fn new(shape: Shape, block: usize) -> Result<Self, Error> {
        if !matches!(block, 16 | 32 | 64) {
            return Err(Error::Parameter);
        }
        if let Err(e) = shape.check() {
            return Err(e);
        }
        if shape.batch != 1 || shape.query_heads != 1 || shape.kv_heads != 1 {
            return Err(Error::Unsupported);
        }
        match Index::len(shape.dim, shape.value_dim, block, shape.keys) {
            Err(e) => Err(e),
            Ok(_) => Ok(Pruned {
                shape,
                block,
                share: 0.0,
                scale: None,
                causal: None,
                isa: None,
            }),
        }
    }

    /// The share of a row's weight that may be left out, theta. [`Error::Parameter`] unless in 0..1.
    pub const fn with_share(mut self, theta: f32) -> Result<Self, Error> {
        if !(theta >= 0.0 && theta < 1.0) {
            return Err(Error::Parameter);
        }
        self.share = theta;
        Ok(self)
    }

    /// What products are multiplied with; `1 / sqrt(dim)` otherwise. [`Error::Parameter`] unless finite and at least 0.
    pub const fn with_scale(mut self, scale: f32) -> Result<Self, Error> {
        if !(scale >= 0.0 && scale.is_finite()) {
            return Err(Error::Parameter);
        }
        self.scale = Some(scale);
        Ok(self)
    }

    /// Query i sees the keys up to `i + offset`.
    #[must_use]
    pub const fn with_causal(mut self, offset: usize) -> Self {
        self.causal = Some(offset);
        self
    }

    /// Forces a back end.
    #[must_use]
    pub const fn with_isa(mut self, isa: Isa) -> Self {
        self.isa = Some(isa);
        self
    }

    /// Scratch of a call: of the forced back end, or enough for any that this build has.
    #[must_use]
    pub const fn need(&self) -> Need {
        let lanes = match self.isa {
            Some(isa) => kernels::block_lanes(isa),
            None => MOST_LANES,
        };
        let blocks = self.blocks();
        Need::NONE
            .and::<f32>(self.shape.dim.saturating_mul(3).saturating_mul(lanes))
            .and::<f32>(blocks.saturating_mul(lanes))
            .and::<f32>(blocks.saturating_mul(lanes))
            .and::<u64>(blocks)
            .then(Reader::need(self))
    }

    const fn blocks(&self) -> usize {
        match self.shape.keys.checked_div(self.block) {
            Some(n) => n,
            None => 0,
        }
    }

    const fn rules(&self) -> Rules<'static> {
        match self.scale {
            Some(scale) => Rules::new().with_scale(scale),
            None => Rules::new(),
        }
    }

    /// Exact attention of one query with some keys.
    const fn decode(&self, keys: usize) -> Result<Decode<'static>, Error> {
        let Shape { dim, value_dim, .. } = self.shape;
        match Decode::new(Shape::head(1, keys, dim, value_dim)) {
            Ok(decode) => Ok(decode),
            Err(e) => Err(e),
        }
    }

    /// `out = softmax(scores) v`, but for the share that is left out.
    pub fn forward(
        &self,
        index: &Index<'_>,
        qkv: [MatRef<'_, f32>; 3],
        out: MatMut<'_, f32>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        let outputs = Outputs {
            out: Some(out.into()),
            ..Outputs::default()
        };
        self.run(index, qkv, outputs, scratch)
    }

    /// Queries, keys and values, with output, log-sum-exp and partials as they are wanted. The keys are those of the index,
    /// in the same order; what it has not closed yet is read by every query that sees it.
    ///
    /// Errors, before anything is written: [`Error::Shape`] if a view or the index does not fit the plan,
    /// [`Error::Mismatch`] if the index has more keys, [`Error::Unsupported`] if scores are wanted, [`Error::NonFinite`],
    /// [`Error::Range`] for numbers beyond 2^60, [`Error::Short`] for less scratch than [`need`](Pruned::need).
    pub fn run(
        &self,
        index: &Index<'_>,
        [q, k, v]: [MatRef<'_, f32>; 3],
        mut outputs: Outputs<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        let shape = Shape::of(&q.into(), &k.into(), &v.into())?;
        if shape != self.shape || index.block() != self.block {
            return Err(Error::Shape);
        }
        if index.dim() != shape.dim || index.value_dim() != shape.value_dim {
            return Err(Error::Shape);
        }
        if index.keys() > shape.keys {
            return Err(Error::Mismatch);
        }
        if outputs.scores.is_some() {
            return Err(Error::Unsupported);
        }
        outputs.check(&shape)?;
        scratch.check(self.need())?;
        let open = index.keys()..shape.keys;
        for rows in [q, k.row_range(open.clone()), v.row_range(open.clone())] {
            index::check(rows)?;
        }
        let range = index.range(v.row_range(open));
        self.panels(index, [q, k, v], range, &mut outputs, scratch)
    }

    /// Panels of queries: their products with all blocks at once, then row by row.
    fn panels(
        &self,
        index: &Index<'_>,
        [q, k, v]: [MatRef<'_, f32>; 3],
        range: f32,
        outputs: &mut Outputs<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<Report, Error> {
        let isa = self.isa.unwrap_or_else(Isa::best);
        let lanes = kernels::block_lanes(isa).max(1);
        let (dim, blocks) = (self.shape.dim, index.keys() / self.block.max(1));
        let [centres, boxes] = index.centres_and_boxes(blocks)?;
        let q_t = scratch.take::<f32>(3 * dim * lanes)?;
        let products = scratch.take::<f32>(blocks * lanes)?;
        let reaches = scratch.take::<f32>(blocks * lanes)?;
        let queue = scratch.take::<u64>(blocks)?;
        let mut reader = Reader::new(self, isa, [k, v], range, scratch)?;
        let scale = self.rules().scale_of(dim);
        let mut report = Report::new(isa);
        report.bound = Bound::certain(0.0);
        for first in (0..q.rows()).step_by(lanes) {
            let used = lanes.min(q.rows() - first);
            let (centred, signed) = q_t.split_at_mut_checked(dim * lanes).ok_or(Error::Short)?;
            for lane in 0..used {
                load(centred, lanes, lane, q.row(first + lane), scale);
            }
            let (above, below) = signed.split_at_mut_checked(dim * lanes).ok_or(Error::Short)?;
            for ((&x, above), below) in centred.iter().zip(above).zip(below) {
                (*above, *below) = (x.max(0.0), x.min(0.0));
            }
            kernels::scores(isa, centred, centres, products);
            kernels::scores(isa, signed, boxes, reaches);
            for lane in 0..used {
                let query = first + lane;
                let length = index::length(q.row(query).iter().copied(), dim);
                // The scale of the plan and its own rounding.
                let length = product_up(product_up(length, scale), 1.0 + gamma(4));
                let seen = match self.causal {
                    None => k.rows(),
                    Some(offset) => query.saturating_add(offset).saturating_add(1).min(k.rows()),
                };
                let column = |tile: &[f32], block: usize| tile.get(block * lanes + lane).copied().unwrap_or(f32::NAN);
                let whole = blocks.min(seen / self.block.max(1));
                let of = |block| mass::Product {
                    centre: column(products, block),
                    // Sums of numbers that are not negative.
                    reach: product_up(column(reaches, block), 1.0 + gamma((2 * dim).saturating_add(8))),
                    length,
                };
                let queue = row::Queue::new(queue, whole, of, index.extents());
                let edge = whole * self.block..seen;
                let centres = |block| column(products, block);
                let (row, read) = reader.read(q.row_range(query..query + 1), queue, centres, edge)?;
                report.keys_read = report.keys_read.saturating_add(read);
                report.exact_rows += usize::from(read == seen && seen > 0);
                let bound = row::finish(outputs, query, row, &mut report)?;
                report.bound = report.bound.or(bound);
            }
        }
        Ok(report)
    }
}

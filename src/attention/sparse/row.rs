//! One query: which blocks to read, in what order, and when to stop.

use super::index::Extent;
use super::mass::{log2_mean_weight, Product};
use super::{Pruned, BATCH};
use crate::attention::outputs::Outputs;
use crate::attention::{Decode, Partial};
use crate::bound::{gamma, product_up, sum_up, up, Bound};
use crate::error::Error;
use crate::kernels;
use crate::report::Report;
use crate::scratch::{Need, Scratch};
use crate::simd::Isa;
use crate::view::{MatMut, MatRef};
use core::f32::consts::LOG2_E;
use core::ops::Range;

/// Blocks that were not read yet: a heap of bounds on their mean weights, over `2^reference`. An entry has the bits of the
/// bound above and the block, inverted, below: the largest is the heaviest, the first of several.
pub(super) struct Queue<'q> {
    heap: &'q mut [u64],
    reference: f32,
}

impl<'q> Queue<'q> {
    /// The first `count` blocks in `room`.
    pub(super) fn new(
        room: &'q mut [u64],
        count: usize,
        of: impl Fn(usize) -> Product,
        extents: impl Iterator<Item = Extent>,
    ) -> Self {
        let heap = room.get_mut(..count).unwrap_or_default();
        let mut most = f32::NEG_INFINITY;
        for ((block, entry), extent) in heap.iter_mut().enumerate().zip(extents) {
            let log2 = log2_mean_weight(&of(block), &extent);
            most = if log2 < f32::INFINITY { most.max(log2) } else { most };
            *entry = entry_of(log2, block);
        }
        let reference = if most.is_finite() { kernels::ceil_of(most) } else { 0.0 };
        for entry in heap.iter_mut() {
            let (log2, block) = parts_of(*entry);
            *entry = entry_of(bound_of(log2, reference), block);
        }
        let mut queue = Queue { heap, reference };
        for at in (0..count / 2).rev() {
            queue.sift(at);
        }
        queue
    }

    /// At least the mean weights of all that are left, summed up.
    fn rest(&self) -> f32 {
        let mut sums = [0.0f32; 8];
        for part in self.heap.chunks(sums.len()) {
            sums.iter_mut()
                .zip(part)
                .for_each(|(sum, &entry)| *sum += parts_of(entry).0);
        }
        let sum = sums.iter().fold(0.0, |sum, x| sum + x);
        product_up(sum, 1.0 + gamma((self.heap.len() / 8).saturating_add(16)))
    }

    /// The heaviest block and its bound.
    fn pop(&mut self) -> Option<(f32, usize)> {
        let heap = core::mem::take(&mut self.heap);
        let (last, rest) = heap.split_last_mut()?;
        if let Some(first) = rest.first_mut() {
            core::mem::swap(first, last);
        }
        let entry = *last;
        self.heap = rest;
        self.sift(0);
        Some(parts_of(entry))
    }

    /// Lets the entry at `at` sink to where it belongs.
    fn sift(&mut self, mut at: usize) {
        while let Some(&left) = self.heap.get(2 * at + 1) {
            let right = self.heap.get(2 * at + 2).copied().unwrap_or(0);
            let (child, larger) = if right > left {
                (2 * at + 2, right)
            } else {
                (2 * at + 1, left)
            };
            match self.heap.get(at) {
                Some(&own) if own < larger => self.heap.swap(at, child),
                _ => return,
            }
            at = child;
        }
    }
}

/// Any number and its block; of numbers that are not negative the order is that of the entries.
fn entry_of(x: f32, block: usize) -> u64 {
    u64::from(x.to_bits()) << 32 | u64::from(!(block as u32))
}

fn parts_of(entry: u64) -> (f32, usize) {
    (f32::from_bits((entry >> 32) as u32), !(entry as u32) as usize)
}

/// At least `2^(log2 - reference)`: the difference rounds, and may be 2^-24 of 100 off; what is cut is below 2^-100.
fn bound_of(log2: f32, reference: f32) -> f32 {
    if log2 < f32::INFINITY {
        sum_up(product_up(kernels::probability_of(log2 - reference), 1.0 + 1e-5), 1e-30)
    } else {
        f32::INFINITY
    }
}

/// `2^(a - b)` for integers, made larger below 2^-100 and infinite above 2^100.
fn ratio(a: f32, b: f32) -> f32 {
    let least = f32::from_bits((127 - 100) << 23);
    let power = kernels::probability_of(-(a - b).abs()).max(least);
    if a <= b {
        power
    } else if a - b <= 100.0 {
        1.0 / power
    } else {
        f32::INFINITY
    }
}

/// Memory in which blocks are gathered, and rows become one.
pub(super) struct Reader<'p, 's> {
    plan: &'p Pruned,
    isa: Isa,
    k: MatRef<'p, f32>,
    v: MatRef<'p, f32>,
    range: f32,
    keys: &'s mut [f32],
    values: &'s mut [f32],
    row: &'s mut [f32],
    other: &'s mut [f32],
    scratch: Scratch<'s>,
}

impl<'p, 's> Reader<'p, 's> {
    pub(super) const fn need(plan: &Pruned) -> Need {
        let width = Partial::width(plan.shape.value_dim);
        let most = BATCH * plan.block;
        let decode = match plan.decode(most) {
            Ok(decode) => decode.need(),
            Err(_) => Need::NONE.and::<f32>(usize::MAX),
        };
        Need::NONE
            .and::<f32>(most.saturating_mul(plan.shape.dim))
            .and::<f32>(most.saturating_mul(plan.shape.value_dim))
            .and::<f32>(width)
            .and::<f32>(width)
            .then(decode)
    }

    pub(super) fn new(
        plan: &'p Pruned,
        isa: Isa,
        [k, v]: [MatRef<'p, f32>; 2],
        range: f32,
        scratch: &mut Scratch<'s>,
    ) -> Result<Self, Error> {
        let mut scratch = scratch.split(Self::need(plan))?;
        let width = Partial::width(plan.shape.value_dim);
        let most = BATCH * plan.block;
        Ok(Reader {
            plan,
            isa,
            k,
            v,
            range,
            keys: scratch.take(most.saturating_mul(plan.shape.dim))?,
            values: scratch.take(most.saturating_mul(plan.shape.value_dim))?,
            row: scratch.take(width)?,
            other: scratch.take(width)?,
            scratch,
        })
    }

    /// The partial of a query: the keys of `edge`, and blocks of the queue until those left weigh little. How many keys it
    /// took.
    pub(super) fn read(
        &mut self,
        q: MatRef<'_, f32>,
        mut queue: Queue<'_>,
        centres: impl Fn(usize) -> f32,
        edge: Range<usize>,
    ) -> Result<(&mut [f32], usize), Error> {
        self.row.fill(0.0);
        self.row.iter_mut().zip(Partial::EMPTY_HEAD).for_each(|(to, x)| *to = x);
        let most = BATCH * self.plan.block;
        for first in edge.clone().step_by(most.max(1)) {
            let keys = first..edge.end.min(first + most);
            let (k, v) = (self.k.row_range(keys.clone()), self.v.row_range(keys));
            decode(self.plan, self.isa, [q, k, v], self.other, &mut self.scratch)?;
            Partial::from_row(self.row)?.merge(self.other, self.range)?;
        }
        let mut read = edge.len();
        let mut odds = self.odds(&queue);
        while odds / (1.0 + odds) > self.plan.share || !odds.is_finite() {
            let count = self.gather(&mut queue, &centres, odds);
            if count == 0 {
                break;
            }
            read += count;
            let k = MatRef::new(self.keys, count, self.plan.shape.dim)?;
            let v = MatRef::new(self.values, count, self.plan.shape.value_dim)?;
            decode(self.plan, self.isa, [q, k, v], self.other, &mut self.scratch)?;
            Partial::from_row(self.row)?.merge(self.other, self.range)?;
            odds = self.odds(&queue);
        }
        self.left_out(odds);
        Ok((self.row, read))
    }

    /// At least the weight of what is left over that of what was read.
    fn odds(&self, queue: &Queue<'_>) -> f32 {
        let rest = product_up(queue.rest(), self.plan.block as f32);
        let Some(&[max, sum, e_lse, _]) = self.row.first_chunk::<4>() else {
            return f32::INFINITY;
        };
        if queue.heap.is_empty() {
            return 0.0;
        }
        if !(sum > 0.0 && e_lse <= 0.5) {
            return f32::INFINITY;
        }
        let odds = up(product_up(rest, ratio(queue.reference, max)) / sum);
        // The log of the sum is off by e_lse: e^x <= 1 + 2 x up to 1.
        product_up(odds, 1.0 + 2.0 * e_lse + 1e-6)
    }

    /// The heaviest blocks, up to where the lower bounds of their weights (by their centres: Jensen) say that they will do.
    /// How many keys that is. The guess decides how much is read at once, and no promise.
    fn gather(&mut self, queue: &mut Queue<'_>, centres: impl Fn(usize) -> f32, odds: f32) -> usize {
        let (dim, value_dim, block) = (self.plan.shape.dim, self.plan.shape.value_dim, self.plan.block);
        let mut rest = queue.rest();
        let mut kept = if odds > 0.0 { rest / odds } else { 0.0 };
        let mut count = 0;
        while count < BATCH {
            if count > 0 && rest <= self.plan.share * (kept + rest) {
                break;
            }
            let Some((bound, number)) = queue.pop() else { break };
            rest -= bound;
            kept += kernels::probability_of(centres(number) * LOG2_E - queue.reference);
            let rows = number * block..(number + 1) * block;
            copy(self.k.row_range(rows.clone()), self.keys, count * block * dim);
            copy(self.v.row_range(rows), self.values, count * block * value_dim);
            count += 1;
        }
        count * block
    }

    /// What is left out, in the promise of the row: `theta range` in the output (lemma L4), `-ln(1 - theta) <= odds` in the
    /// log-sum-exp.
    fn left_out(&mut self, odds: f32) {
        if let Some([_, sum, e_lse, e_out]) = self.row.first_chunk_mut::<4>() {
            if odds == 0.0 || *sum == 0.0 {
                return;
            }
            let theta = up(odds / (1.0 + odds));
            let theta = up(theta).min(1.0);
            *e_lse = Bound::certain(sum_up(*e_lse, odds)).value;
            *e_out = Bound::certain(sum_up(*e_out, product_up(theta, self.range))).value;
        }
    }
}

/// Rows into memory, one after the other.
fn copy(rows: MatRef<'_, f32>, to: &mut [f32], start: usize) {
    let to = to.get_mut(start..).unwrap_or_default();
    for (i, to) in to.chunks_exact_mut(rows.cols().max(1)).take(rows.rows()).enumerate() {
        to.iter_mut().zip(rows.row(i)).for_each(|(to, &x)| *to = x);
    }
}

/// Exact attention of a query, with its promise, as a partial.
fn decode(
    plan: &Pruned,
    isa: Isa,
    [q, k, v]: [MatRef<'_, f32>; 3],
    to: &mut [f32],
    scratch: &mut Scratch<'_>,
) -> Result<(), Error> {
    let decode: Decode<'_> = plan
        .decode(k.rows())?
        .with_rules(plan.rules())?
        .with_isa(isa)
        .with_bound();
    let outputs = Outputs {
        partials: Some(MatMut::new(to, 1, Partial::width(v.cols()))?.into()),
        ..Outputs::default()
    };
    let _ = decode.run(q.into(), k.into(), v.into(), outputs, &mut scratch.scope())?;
    Ok(())
}

/// A partial into whatever is wanted of it. Its promise.
pub(super) fn finish(
    outputs: &mut Outputs<'_>,
    query: usize,
    row: &mut [f32],
    report: &mut Report,
) -> Result<Bound, Error> {
    if let Some(to) = &mut outputs.partials {
        let to = to.row(0, 0, query).iter_mut();
        to.zip(&*row).for_each(|(to, &x)| *to = x);
    }
    let finite = row.iter().all(|x| x.is_finite());
    let partial = Partial::from_row(row)?;
    if let Some(to) = &mut outputs.out {
        let to = to.row(0, 0, query).iter_mut();
        to.zip(partial.out()).for_each(|(to, &x)| *to = x);
    }
    let lse = outputs.lse.as_mut().and_then(|t| t.row(0, 0, query).first_mut());
    if let Some(to) = lse {
        *to = partial.lse();
    }
    report.count(partial.lse() > f32::NEG_INFINITY || !finite, finite);
    Ok(partial.out_bound())
}

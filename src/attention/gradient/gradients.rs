//! Where gradients go, and what a task writes of them.

use crate::attention::block::all_finite;
use crate::attention::rules::Rules;
use crate::attention::split::{Cut, Split, Task};
use crate::attention::Shape;
use crate::error::Error;
use crate::view::{Layout, TensorMut};
use core::ops::Range;

/// Where gradients go; each is optional, and overwritten.
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// Of the queries, in their shape.
    pub q: Option<TensorMut<'a, f32>>,
    /// Of the keys, in their shape.
    pub k: Option<TensorMut<'a, f32>>,
    /// Of the values, in their shape.
    pub v: Option<TensorMut<'a, f32>>,
    /// Of the bias, in its shape, repeated axes of 1 included: there it is a sum.
    pub bias: Option<TensorMut<'a, f32>>,
    /// Of the learned sinks, one per query head.
    pub sink_logits: Option<&'a mut [f32]>,
}

/// [`Error::Shape`] unless every gradient that is wanted has the shape of what it is the gradient of: tensors that lie like
/// this, and so many sinks.
pub(super) fn check(
    layouts: &[Option<&Layout>; 4],
    sinks: Option<usize>,
    shape: &Shape,
    rules: &Rules<'_>,
) -> Result<(), Error> {
    let Shape {
        batch,
        query_heads,
        kv_heads,
        queries,
        keys,
        dim,
        value_dim,
    } = *shape;
    let wanted = [
        Some([batch, query_heads, queries, dim]),
        Some([batch, kv_heads, keys, dim]),
        Some([batch, kv_heads, keys, value_dim]),
        rules.bias().map(|b| [b.batch(), b.heads(), b.rows(), b.cols()]),
    ];
    let mut tensors = layouts.iter().zip(wanted);
    let fits = tensors.all(|(layout, wanted)| layout.is_none_or(|layout| Some(layout.shape()) == wanted));
    if fits && sinks.is_none_or(|n| rules.sink_logits().is_some_and(|x| x.len() == n)) {
        Ok(())
    } else {
        Err(Error::Shape)
    }
}

impl Split for Gradients<'_> {
    /// Sinks go with what is first: it has a task.
    fn split(self, cut: &Cut) -> (Self, Self) {
        let parts = [self.q, self.k, self.v, self.bias].map(|t| cut.apply(t));
        let part = |q, k, v, bias, sink_logits| Gradients {
            q,
            k,
            v,
            bias,
            sink_logits,
        };
        let [[a, b], [c, d], [e, f], [g, h]] = parts;
        (part(a, c, e, g, self.sink_logits), part(b, d, f, h, None))
    }
}

impl Gradients<'_> {
    /// [`check`] of these.
    pub(super) fn check(&self, shape: &Shape, rules: &Rules<'_>) -> Result<(), Error> {
        check(&self.layouts(), self.sinks(), shape, rules)
    }

    /// How those that are wanted lie in memory: of queries, keys, values, bias.
    pub(super) fn layouts(&self) -> [Option<&Layout>; 4] {
        let tensors = [&self.q, &self.k, &self.v, &self.bias];
        tensors.map(|t| t.as_ref().map(TensorMut::layout))
    }

    /// How many sinks, if theirs is wanted.
    pub(super) fn sinks(&self) -> Option<usize> {
        self.sink_logits.as_ref().map(|x| x.len())
    }

    /// What a task sums over queries starts at 0.
    pub(super) fn clear(&mut self, task: &Task, shape: &Shape) {
        for t in [&mut self.k, &mut self.v, &mut self.bias].into_iter().flatten() {
            each_row(t, task, shape, |row| row.fill(0.0));
        }
    }

    /// The sums as they are handed out.
    pub(super) fn settle(&mut self, task: &Task, shape: &Shape, scale: f32) {
        let sums = [(&mut self.k, scale), (&mut self.v, 1.0), (&mut self.bias, 1.0)];
        for (t, scale) in sums {
            if let Some(t) = t {
                each_row(t, task, shape, |row| {
                    settle(row, scale);
                });
            }
        }
    }
}

fn each_row(t: &mut TensorMut<'_, f32>, task: &Task, shape: &Shape, mut f: impl FnMut(&mut [f32])) {
    let [batches, heads, rows] = task.entries(shape, t.layout());
    for batch in batches {
        for head in Range::clone(&heads) {
            for row in Range::clone(&rows) {
                f(t.row(batch, head, row));
            }
        }
    }
}

/// A row of sums, scaled, as it is handed out: one NaN and one zero for all machines. Whether it is finite.
pub(super) fn settle(row: &mut [f32], scale: f32) -> bool {
    for x in row.iter_mut() {
        // A sum that underflowed may be a zero of either sign.
        let y = *x * scale + 0.0;
        *x = if y.is_finite() { y } else { f32::NAN };
    }
    all_finite(row)
}

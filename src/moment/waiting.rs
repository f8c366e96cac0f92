//! Tokens that wait until their block is full.

use super::shape::{Pieces, Shape};
use crate::bound::{product_up, sum_up};
use crate::error::Error;
use crate::kernels::{by_values, push_tokens, Tokens};
use crate::simd::Isa;

/// Tokens in the layout in which they are summed.
#[derive(Debug)]
pub struct Waiting<'a> {
    shape: Shape,
    /// How many.
    pub len: usize,
    /// Sums of powers 0, 1, ... of the squares of their norms, rounded up.
    pub powers: &'a mut [f32],
    /// `[variable][token]`, zeros beyond `len`.
    keys: &'a mut [f32],
    /// As [`Tokens::values`].
    values: &'a mut [f32],
}

impl<'a> Waiting<'a> {
    /// Over the pieces that `next` hands out.
    pub fn new(
        shape: Shape,
        pieces: Pieces,
        len: usize,
        mut next: impl FnMut(usize) -> Result<&'a mut [f32], Error>,
    ) -> Result<Self, Error> {
        Ok(Waiting {
            shape,
            len,
            powers: next(shape.powers())?,
            keys: next(pieces.keys)?,
            values: next(pieces.values)?,
        })
    }

    /// Nobody waits.
    pub fn clear(&mut self) {
        self.len = 0;
        self.powers.fill(0.0);
        self.keys.fill(0.0);
        self.values.fill(0.0);
    }

    /// One more, as there is room; returns the square of its norm.
    #[inline]
    pub fn add(&mut self, x: impl Iterator<Item = f32>, value: impl Iterator<Item = f32>) -> f32 {
        let (block, at) = (self.shape.block.max(1), self.len);
        let mut square = 0.0;
        for (row, x) in self.keys.chunks_exact_mut(block).zip(x) {
            square += x * x;
            row.get_mut(at).into_iter().for_each(|to| *to = x);
        }
        if by_values(self.shape.value_dim) {
            let start = at.wrapping_mul(self.shape.value_dim);
            let row = self.values.get_mut(start..).unwrap_or_default();
            row.iter_mut().zip(value).for_each(|(to, x)| *to = x);
        } else {
            let rows = self.values.chunks_exact_mut(block);
            for (row, x) in rows.zip(value.chain([1.0])) {
                row.get_mut(at).into_iter().for_each(|to| *to = x);
            }
        }
        let mut power = 1.0;
        for sum in self.powers.iter_mut() {
            *sum = sum_up(*sum, power);
            power = product_up(power, square);
        }
        self.len += 1;
        square
    }

    /// The key of token `i`.
    pub fn key(&self, i: usize) -> impl Iterator<Item = f32> + '_ {
        column(self.keys, self.shape.block, i)
    }

    /// The value of token `i`.
    pub fn value(&self, i: usize) -> impl Iterator<Item = f32> + '_ {
        let dim = self.shape.value_dim;
        let (rows, columns) = if by_values(dim) {
            (self.values.get(i.wrapping_mul(dim)..).unwrap_or(&[]), &[][..])
        } else {
            (&[][..], &*self.values)
        };
        let columns = column(columns, self.shape.block, i);
        rows.iter().copied().chain(columns).take(dim)
    }

    /// Adds them to sums. `parents` is as long as [`Shape::need`] says.
    pub fn sum(&self, isa: Isa, parents: &mut [f32], sums: &mut [f32]) {
        let Shape {
            dim,
            value_dim,
            degree,
            block,
        } = self.shape;
        let mut tokens = Tokens {
            dim,
            degree,
            value_dim,
            count: self.len,
            room: block,
            x: self.keys,
            values: self.values,
            parents,
            sums,
        };
        push_tokens(isa, &mut tokens);
    }
}

fn column(rows: &[f32], block: usize, i: usize) -> impl Iterator<Item = f32> + '_ {
    rows.chunks_exact(block.max(1))
        .map(move |row| row.get(i).copied().unwrap_or(0.0))
}

//! Tokens that wait until their block is full.

use super::gather::rows;
use super::shape::{Pieces, Shape};
use crate::bound::{gamma, product_up, sum_up, up};
use crate::error::Error;
use crate::kernels::{by_values, powers, push_tokens, squares, Tokens};
use crate::simd::Isa;
use crate::view::MatRef;

/// Tokens in the layout in which they are summed.
#[derive(Debug)]
pub struct Waiting<'a> {
    shape: Shape,
    /// How many.
    pub len: usize,
    /// `[variable][token]`, zeros beyond `len`.
    keys: &'a mut [f32],
    /// As [`Tokens::values`].
    values: &'a mut [f32],
}

/// Where keys are seen from: `x = (k - centre) * inverse`.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    pub centre: &'a [f32],
    pub inverse: f32,
}

impl Frame<'_> {
    /// The squares of the norms of up to sixteen keys.
    pub fn squares(&self, isa: Isa, k: MatRef<'_, f32>) -> [f32; 16] {
        let mut out = [0.0; 16];
        squares(isa, k, self.centre, self.inverse, &mut out);
        out
    }
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
            keys: next(pieces.keys)?,
            values: next(pieces.values)?,
        })
    }

    /// Nobody waits.
    pub fn clear(&mut self) {
        self.len = 0;
        self.keys.fill(0.0);
        self.values.fill(0.0);
    }

    /// The first rows that there is room for; returns how many that is.
    pub fn add_rows(&mut self, k: MatRef<'_, f32>, v: MatRef<'_, f32>, frame: Frame<'_>) -> usize {
        let count = k.rows().min(self.shape.block - self.len);
        let mut row = 0;
        while row < count {
            // Four at a time where four lie together.
            row += if self.len.is_multiple_of(4) && count - row >= 4 {
                self.add_some::<4>(k, v, row, frame)
            } else {
                self.add_some::<1>(k, v, row, frame)
            };
        }
        count
    }

    /// `N` rows from `first` on; returns `N`.
    fn add_some<const N: usize>(
        &mut self,
        k: MatRef<'_, f32>,
        v: MatRef<'_, f32>,
        first: usize,
        frame: Frame<'_>,
    ) -> usize {
        let (Some(keys), Some(values)) = (rows::<N>(k, first), rows::<N>(v, first)) else {
            return N;
        };
        let mut to = self.keys.get_mut(self.len..).unwrap_or_default();
        for (variable, c) in (0..k.cols()).zip(frame.centre) {
            let x = keys.map(|row| row.get(variable).map_or(0.0, |k| (k - c) * frame.inverse));
            to.first_chunk_mut().into_iter().for_each(|to| *to = x);
            to = to.get_mut(self.shape.block..).unwrap_or_default();
        }
        self.add_values(values);
        N
    }

    /// The values of the next keys.
    fn add_values<const N: usize>(&mut self, rows: [&[f32]; N]) {
        let (dim, at) = (self.shape.value_dim, self.len);
        self.len += N;
        if by_values(dim) {
            let to = self.values.get_mut(at.wrapping_mul(dim)..).unwrap_or_default();
            for (to, row) in to.chunks_exact_mut(dim.max(1)).zip(rows) {
                to.iter_mut().zip(row).for_each(|(to, &x)| *to = x);
            }
            return;
        }
        let panel = (at / 16).wrapping_mul(dim + 1).wrapping_mul(16);
        let mut panel = self.values.get_mut(panel.wrapping_add(at % 16)..).unwrap_or_default();
        for c in 0..=dim {
            // The column beyond the values counts.
            let x = rows.map(|row| row.get(c).copied().unwrap_or(1.0));
            panel.first_chunk_mut().into_iter().for_each(|to| *to = x);
            panel = panel.get_mut(16..).unwrap_or_default();
        }
    }

    /// Token `i` of others of the same shape.
    pub fn add_token(&mut self, other: &Waiting<'_>, i: usize) {
        let (dim, room) = (self.shape.value_dim, self.shape.block.max(1));
        for (to, from) in self.keys.chunks_exact_mut(room).zip(other.keys.chunks_exact(room)) {
            let x = from.get(i).copied().unwrap_or(0.0);
            to.get_mut(self.len).into_iter().for_each(|to| *to = x);
        }
        let columns = if by_values(dim) { dim } else { dim + 1 };
        let lanes = if by_values(dim) { 1 } else { 16 };
        let place = |i: usize| {
            (i / lanes)
                .wrapping_mul(columns)
                .wrapping_mul(lanes)
                .wrapping_add(i % lanes)
        };
        let to = self
            .values
            .get_mut(place(self.len)..)
            .unwrap_or_default()
            .iter_mut()
            .step_by(lanes);
        let from = other.values.get(place(i)..).unwrap_or(&[]).iter().step_by(lanes);
        to.zip(from).take(columns).for_each(|(to, &x)| *to = x);
        self.len += 1;
    }

    /// Adds the powers of the squares of their norms to sums, rounded up; returns the largest square. `work` has rows to
    /// spare.
    pub fn sum_powers(&self, isa: Isa, work: &mut [f32], sums: &mut [f32]) -> f32 {
        let block = self.shape.block.max(1);
        let mut rows = work.chunks_exact_mut(block);
        let (Some(squares), Some(products), Some(own)) = (rows.next(), rows.next(), rows.next()) else {
            return f32::INFINITY;
        };
        // Powers that a row has no room for, of degrees beyond all reason, are unknown.
        let own = own.get_mut(..sums.len().min(block)).unwrap_or_default();
        let largest = powers(isa, self.keys, self.len, [squares, products], own);
        let roundings = (block / 16).saturating_add(sums.len()).saturating_add(5);
        let factor = up(1.0 + gamma(roundings));
        for (i, to) in sums.iter_mut().enumerate() {
            // What products lose to underflow is less than the smallest normal number, even for millions of tokens.
            let more = own.get(i).map_or(f32::INFINITY, |&sum| product_up(sum, factor));
            *to = sum_up(*to, sum_up(more, f32::MIN_POSITIVE));
        }
        largest
    }

    /// Adds them to sums, and what that rounds off to `lost`, if it is not empty. `parents` is as long as [`Shape::need`] says.
    pub fn sum(&self, isa: Isa, parents: &mut [f32], sums: &mut [f32], lost: &mut [f32]) {
        let Shape {
            dim,
            value_dim,
            degree,
            block,
            ..
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
            lost,
        };
        push_tokens(isa, &mut tokens);
    }
}

//! A block of tokens into the sums of a moment state: `sums[alpha][c] += sum over tokens of x^alpha * v[c]`.
//!
//! Two forms, chosen by the number of values alone, so that the order of addition is the same on every machine:
//!
//! - few or odd values: lanes are tokens. Sixteen running sums per number, then halves added to halves.
//! - a multiple of sixteen values: lanes are values. One running sum per number, over the tokens in order; what counts
//!   the tokens is added up in sixteen lanes as above.
//!
//! A monomial is its parent times a variable. Only those below the highest degree are parents, and only those are kept.
// As in `tile`: index loops over small arrays of vectors read like the formula.
#![allow(clippy::needless_range_loop)]

use super::monomials::{groups, Group};
use super::tile::{get, put};
use crate::math::nearest;
use crate::simd::Simd;

/// A block of tokens, and where their sums go.
pub struct Tokens<'a> {
    /// Variables of a token.
    pub dim: usize,
    /// Highest degree.
    pub degree: usize,
    /// Numbers of a token's value.
    pub value_dim: usize,
    /// Tokens in the block.
    pub count: usize,
    /// Tokens there is room for, a multiple of 16: the distance of rows below.
    pub room: usize,
    /// `[variable][token]`, zeros beyond `count`.
    pub x: &'a [f32],
    /// Lanes are tokens: `[sixteen tokens][value, then a one][token]`, zeros beyond `count`. Lanes are values:
    /// `[token][value]`.
    pub values: &'a [f32],
    /// `[monomial below the highest degree, then SPARE more][token]`, to work in.
    pub parents: &'a mut [f32],
    /// `[monomial][value, then the count]`.
    pub sums: &'a mut [f32],
    /// By how much they are too large, or nothing if that is not wanted.
    pub lost: &'a mut [f32],
}

/// Rows beyond the parents that the kernel works in: the largest tile of monomials.
pub const SPARE: usize = 12;

/// Whether lanes are values.
#[must_use]
pub const fn by_values(value_dim: usize) -> bool {
    value_dim > 0 && value_dim.is_multiple_of(16)
}

impl Tokens<'_> {
    /// Monomials below the highest degree.
    #[inline(always)]
    fn below(&self) -> usize {
        let rows = self.parents.len().checked_div(self.room).unwrap_or(0);
        rows.saturating_sub(SPARE)
    }
}

/// Adds the block.
#[inline(always)]
pub fn push<S: Simd<f32>>(s: S, tokens: &mut Tokens<'_>) {
    // The monomial of degree 0: one for every token.
    let (room, count) = (tokens.room, tokens.count);
    let ones = tokens.parents.iter_mut().take(room).enumerate();
    ones.for_each(|(i, one)| *one = if i < count { 1.0 } else { 0.0 });
    if by_values(tokens.value_dim) {
        return push_values(s, tokens);
    }
    let mut col = 0;
    while col <= tokens.value_dim {
        let left = tokens.value_dim + 1 - col;
        // What a machine does not take is not even compiled for it.
        col += if const { S::REGISTERS * S::LANES >= 512 } {
            match left {
                9.. => push_columns::<S, 3, 9>(s, tokens, col),
                5.. => push_columns::<S, 4, 5>(s, tokens, col),
                2.. => push_columns::<S, 4, 2>(s, tokens, col),
                _ => push_columns::<S, 4, 1>(s, tokens, col),
            }
        } else if const { S::REGISTERS * S::LANES >= 128 } {
            match left {
                5.. => push_columns::<S, 1, 5>(s, tokens, col),
                _ => push_columns::<S, 2, 1>(s, tokens, col),
            }
        } else {
            push_columns::<S, 1, 1>(s, tokens, col)
        };
    }
}

/// `MC` columns of all monomials, lanes are tokens; returns `MC`.
#[inline(always)]
fn push_columns<S: Simd<f32>, const MA: usize, const MC: usize>(s: S, tokens: &mut Tokens<'_>, col: usize) -> usize {
    let below = tokens.below();
    lane_tile::<S, 1, MC, false, true>(s, tokens, &Group::ONE, col);
    for group in groups::<MA>(tokens.dim, tokens.degree) {
        let keeps = col == 0 && group.at < below;
        if group.len == MA && (!keeps || group.at + MA <= below) {
            if keeps {
                lane_tile::<S, MA, MC, true, false>(s, tokens, &group, col);
            } else {
                lane_tile::<S, MA, MC, false, false>(s, tokens, &group, col);
            }
            continue;
        }
        for one in (0..group.len).map(|i| group.single(i)) {
            if col == 0 && one.at < below {
                lane_tile::<S, 1, MC, true, false>(s, tokens, &one, col);
            } else {
                lane_tile::<S, 1, MC, false, false>(s, tokens, &one, col);
            }
        }
    }
    MC
}

/// `MA` monomials times `MC` columns, summed over the tokens in sixteen lanes. With `KEEP` the monomials are stored for
/// those they are parents of; `ONE` is the monomial of degree 0, which is there already.
#[inline(always)]
fn lane_tile<S: Simd<f32>, const MA: usize, const MC: usize, const KEEP: bool, const ONE: bool>(
    s: S,
    tokens: &mut Tokens<'_>,
    group: &Group<MA>,
    col: usize,
) {
    let (room, steps) = (tokens.room, tokens.count.div_ceil(16));
    let at = if KEEP {
        group.at.wrapping_mul(room)
    } else {
        tokens.parents.len()
    };
    let Some((parents, own)) = tokens.parents.split_at_mut_checked(at) else {
        return;
    };
    let (mut parent, mut variable) = ([&[][..]; MA], [&[][..]; MA]);
    for m in 0..MA {
        let product = group.products[m];
        let Some(row) = blocks(parents, product.parent, room, steps) else {
            return;
        };
        parent[m] = row;
        let Some(row) = (if ONE {
            Some(row)
        } else {
            blocks(tokens.x, product.variable, room, steps)
        }) else {
            return;
        };
        variable[m] = row;
    }
    let mut keep: [&mut [[f32; 16]]; MA] = core::array::from_fn(|_| Default::default());
    if KEEP {
        let mut rest = own;
        for m in 0..MA {
            let Some((row, tail)) = rest.split_at_mut_checked(room) else {
                return;
            };
            let Some(row) = row.as_chunks_mut().0.get_mut(..steps) else {
                return;
            };
            (keep[m], rest) = (row, tail);
        }
    }
    let columns = tokens.value_dim + 1;
    // Number m * MC + c is monomial m times column c.
    let mut acc = [[s.splat16(0.0); 16]; 2];
    let mut values = tokens.values.as_chunks::<16>().0.get(col..).unwrap_or(&[]);
    for t in 0..steps {
        let Some(v) = values.first_chunk::<MC>() else { return };
        values = values.get(columns..).unwrap_or(&[]);
        let mut f = [s.splat16(0.0); MA];
        for m in 0..MA {
            let (Some(p), Some(x)) = (parent[m].get(t), variable[m].get(t)) else {
                return;
            };
            f[m] = if ONE {
                s.load16(p)
            } else {
                multiply(s, s.load16(p), s.load16(x))
            };
            if KEEP {
                let Some(to) = keep[m].get_mut(t) else { return };
                s.store16(f[m], to);
            }
        }
        for c in 0..MC {
            let v = s.load16(&v[c]);
            for m in 0..MA {
                let at = m * MC + c;
                acc[at / 16][at % 16] = s.mul_add16(f[m], v, acc[at / 16][at % 16]);
            }
        }
    }
    let mut sums = [0.0; 32];
    let (low, high) = sums.split_at_mut(16);
    s.store16(s.sums16(&acc[0]), low);
    if MA * MC > 16 {
        s.store16(s.sums16(&acc[1]), high);
    }
    let to = group.at.wrapping_mul(columns).wrapping_add(col);
    for (m, row) in sums.chunks_exact(MC).take(MA).enumerate() {
        let to = to.wrapping_add(m.wrapping_mul(columns));
        for (c, &sum) in row.iter().enumerate() {
            add_to(tokens.sums, tokens.lost, to.wrapping_add(c), sum);
        }
    }
}

/// Row `row` of `room` numbers each, as far as there are tokens, in sixteens.
#[inline(always)]
fn blocks(rows: &[f32], row: usize, room: usize, steps: usize) -> Option<&[[f32; 16]]> {
    rows.get(row.wrapping_mul(room)..)?.as_chunks().0.get(..steps)
}

/// `a * b` in sixteen lanes.
#[inline(always)]
fn multiply<S: Simd<f32>>(s: S, mut a: S::V16, b: S::V16) -> S::V16 {
    for (a, &b) in a.as_mut().iter_mut().zip(b.as_ref()) {
        *a = s.mul(*a, b);
    }
    a
}

/// `sums[at] += x`, and what that rounds off into `lost[at]`, if it is there (Kahan's summation).
#[inline(always)]
pub fn add_to(sums: &mut [f32], lost: &mut [f32], at: usize, x: f32) {
    let Some(sum) = sums.get_mut(at) else { return };
    match lost.get_mut(at) {
        None => *sum += x,
        Some(lost) => {
            let more = x - *lost;
            let total = *sum + more;
            *lost = (total - *sum) - more;
            *sum = total;
        }
    }
}

/// `a + b` in sixteen lanes.
#[inline(always)]
fn add<S: Simd<f32>>(s: S, mut a: S::V16, b: S::V16) -> S::V16 {
    for (a, &b) in a.as_mut().iter_mut().zip(b.as_ref()) {
        *a = s.add(*a, b);
    }
    a
}

/// All monomials, lanes are values: wide tiles where there are values for them, else high ones.
#[inline(always)]
fn push_values<S: Simd<f32>>(s: S, tokens: &mut Tokens<'_>) {
    value_tiles::<S, 1, 1>(s, tokens, &Group::ONE);
    let count = nearest(tokens.count as u64);
    let to = tokens.sums.get_mut(tokens.value_dim);
    to.into_iter().for_each(|to| *to += count);
    if const { S::REGISTERS >= 32 } {
        match tokens.value_dim / S::LANES {
            4.. => push_groups::<S, 6, 4>(s, tokens),
            2.. => push_groups::<S, 12, 2>(s, tokens),
            _ => push_groups::<S, 12, 1>(s, tokens),
        }
    } else if const { S::REGISTERS >= 16 } {
        push_groups::<S, 6, 2>(s, tokens);
    } else {
        push_groups::<S, 4, 1>(s, tokens);
    }
}

#[inline(always)]
fn push_groups<S: Simd<f32>, const MA: usize, const NC: usize>(s: S, tokens: &mut Tokens<'_>) {
    for group in groups::<MA>(tokens.dim, tokens.degree) {
        make(s, tokens, &group);
        value_tiles::<S, MA, NC>(s, tokens, &group);
    }
}

/// The row of `parents` that monomial `at` is made in, and those after it next to it: what is no parent only passes by.
#[inline(always)]
fn row_of(tokens: &Tokens<'_>, at: usize) -> usize {
    let below = tokens.below();
    if at < below {
        at
    } else {
        below
    }
}

/// Makes the monomials of a group for all tokens, and adds them to what counts the tokens.
#[inline(always)]
fn make<S: Simd<f32>, const MA: usize>(s: S, tokens: &mut Tokens<'_>, group: &Group<MA>) {
    let mut counts = [s.splat16(0.0); 16];
    for quad in 0..MA.div_ceil(4) {
        [
            counts[4 * quad],
            counts[4 * quad + 1],
            counts[4 * quad + 2],
            counts[4 * quad + 3],
        ] = make_four(s, tokens, group, 4 * quad);
    }
    let mut sums = [0.0; 16];
    s.store16(s.sums16(&counts), &mut sums);
    let columns = tokens.value_dim + 1;
    let mut at = group.at.wrapping_mul(columns).wrapping_add(tokens.value_dim);
    for sum in sums.into_iter().take(group.len) {
        add_to(tokens.sums, tokens.lost, at, sum);
        at = at.wrapping_add(columns);
    }
}

/// Monomials `first..first + 4` of a group, in step, as one would wait for its additions, and their sums in sixteen lanes.
/// Beyond the last come some that count for nothing.
#[inline(always)]
fn make_four<S: Simd<f32>, const MA: usize>(
    s: S,
    tokens: &mut Tokens<'_>,
    group: &Group<MA>,
    first: usize,
) -> [S::V16; 4] {
    let (room, steps) = (tokens.room, tokens.count.div_ceil(16));
    let mut sums = [s.splat16(0.0); 4];
    let row = row_of(tokens, group.at).wrapping_add(first).wrapping_mul(room);
    let Some((parents, mut rest)) = tokens.parents.split_at_mut_checked(row) else {
        return sums;
    };
    let (mut parent, mut variable) = ([&[][..]; 4], [&[][..]; 4]);
    let mut own: [&mut [[f32; 16]]; 4] = core::array::from_fn(|_| Default::default());
    for n in 0..4 {
        let product = group.products.get(first + n).copied().unwrap_or_default();
        let (Some(p), Some(x)) = (
            blocks(parents, product.parent, room, steps),
            blocks(tokens.x, product.variable, room, steps),
        ) else {
            return sums;
        };
        let Some((row, tail)) = rest.split_at_mut_checked(room) else {
            return sums;
        };
        let Some(row) = row.as_chunks_mut().0.get_mut(..steps) else {
            return sums;
        };
        (parent[n], variable[n], own[n], rest) = (p, x, row, tail);
    }
    for t in 0..steps {
        for n in 0..4 {
            let (Some(p), Some(x), Some(to)) = (parent[n].get(t), variable[n].get(t), own[n].get_mut(t)) else {
                return sums;
            };
            let f = multiply(s, s.load16(p), s.load16(x));
            sums[n] = add(s, sums[n], f);
            s.store16(f, to);
        }
    }
    sums
}

/// Up to `MA` monomials times all values, in tiles of `NC` vectors.
#[inline(always)]
fn value_tiles<S: Simd<f32>, const MA: usize, const NC: usize>(s: S, tokens: &mut Tokens<'_>, group: &Group<MA>) {
    let mut col = 0;
    while col + NC * S::LANES <= tokens.value_dim {
        value_tile::<S, MA, NC>(s, tokens, group, col);
        col += NC * S::LANES;
    }
    while col < tokens.value_dim {
        value_tile::<S, MA, 1>(s, tokens, group, col);
        col += S::LANES;
    }
}

#[inline(always)]
fn value_tile<S: Simd<f32>, const MA: usize, const NC: usize>(
    s: S,
    tokens: &mut Tokens<'_>,
    group: &Group<MA>,
    col: usize,
) {
    let mut factors = [&[][..]; MA];
    let first = row_of(tokens, group.at);
    for m in 0..MA {
        // A tile is always whole, as one monomial would wait for its additions: rows that are no monomial count for nothing.
        // All are of one length, so that one comparison serves all.
        let row = tokens.parents.get((first + m).wrapping_mul(tokens.room)..);
        let Some(row) = row.and_then(|row| row.get(..tokens.count)) else {
            return;
        };
        factors[m] = row;
    }
    let mut acc = [[s.splat(0.0); NC]; MA];
    let mut rest = tokens.values.get(col..).unwrap_or(&[]);
    for i in 0..tokens.count {
        let Some(row) = rest.get(..NC * S::LANES) else { return };
        rest = rest.get(tokens.value_dim..).unwrap_or(&[]);
        let v = get::<S, NC>(s, row);
        for m in 0..MA {
            let Some(&f) = factors[m].get(i) else { return };
            let f = s.splat(f);
            for n in 0..NC {
                acc[m][n] = s.mul_add(f, v[n], acc[m][n]);
            }
        }
    }
    let columns = tokens.value_dim + 1;
    let to = group.at.wrapping_mul(columns).wrapping_add(col);
    for m in 0..MA {
        let row = tokens.sums.get_mut(to.wrapping_add(m.wrapping_mul(columns))..);
        let Some(row) = row
            .filter(|_| m < group.len)
            .and_then(|row| row.get_mut(..NC * S::LANES))
        else {
            return;
        };
        let sums = get::<S, NC>(s, row);
        let start = to.wrapping_add(m.wrapping_mul(columns));
        let lost = tokens
            .lost
            .get_mut(start..)
            .and_then(|lost| lost.get_mut(..NC * S::LANES));
        let mut total = sums;
        match lost {
            None => {
                for n in 0..NC {
                    total[n] = s.add(sums[n], acc[m][n]);
                }
            }
            Some(lost) => {
                let mut off = get::<S, NC>(s, lost);
                for n in 0..NC {
                    let more = s.sub(acc[m][n], off[n]);
                    total[n] = s.add(sums[n], more);
                    off[n] = s.sub(s.sub(total[n], sums[n]), more);
                }
                put(s, &off, lost);
            }
        }
        put(s, &total, row);
    }
}

//! Shapes and masks that the cases share.

use crate::reference::{conforms, Case, Grid, Layout};
use subquad::attention::{Offset, Shape};
use subquad::TensorRef;

/// As many heads of queries as of keys.
pub const MHA: Shape = Shape {
    batch: 2,
    query_heads: 3,
    kv_heads: 3,
    queries: 4,
    keys: 6,
    dim: 8,
    value_dim: 8,
};
/// Three query heads per key head.
pub const GQA: Shape = Shape { query_heads: 9, ..MHA };
/// Values wider than keys.
pub const WIDE: Shape = Shape { value_dim: 10, ..MHA };
/// Keys that came before, where there is a past.
pub const PAST: usize = 12;

pub fn four(shape: Shape, change: impl FnOnce(&mut Case)) {
    conforms(&Case::new(shape, 4).but(change), Layout::Four);
}

pub fn three(shape: Shape, change: impl FnOnce(&mut Case)) {
    conforms(&Case::new(shape, 3).but(change), Layout::Packed);
}

/// An additive mask; the last of every five entries is minus infinity.
pub fn bias(shape: [usize; 4]) -> Option<Grid<f32>> {
    let mut n = 0;
    Some(Grid::from(shape, |_, _, _, _| {
        n += 1;
        if n % 5 == 0 {
            f32::NEG_INFINITY
        } else {
            (n * 7 % 11) as f32 / 4.0 - 1.25
        }
    }))
}

/// A boolean mask that hides two of five entries.
pub fn mask(shape: [usize; 4]) -> Option<Grid<u8>> {
    let mut n = 0;
    Some(Grid::from(shape, |_, _, _, _| {
        n += 1;
        u8::from(n % 5 > 1)
    }))
}

/// A cache of keys of which each batch entry has its own number, garbage behind them; the last query stands at the end.
pub fn cached(shape: Shape, lengths: &[usize]) -> Case {
    let mut case = Case::new(shape, 24);
    for (b, &n) in lengths.iter().enumerate() {
        for j in n..shape.keys {
            case.poison(b, j, if j % 2 == 0 { f32::NAN } else { f32::INFINITY });
        }
    }
    case.key_lengths = Some(lengths.to_vec());
    case.offset = Offset::ToEnd;
    case
}

/// Past and new keys and values, given apart and put one behind the other: "present" of the operator, which is checked
/// row by row against both parts.
pub fn with_past(new: Shape) -> Case {
    let old = Shape { keys: PAST, ..new };
    let whole = Shape {
        keys: PAST + new.keys,
        ..new
    };
    let (past, now, mut case) = (Case::new(old, 41), Case::new(new, 42), Case::new(whole, 43));
    case.q.clone_from(&now.q);
    case.k = present(&past.k, &now.k, [new.batch, new.kv_heads, new.keys, new.dim]);
    case.v = present(&past.v, &now.v, [new.batch, new.kv_heads, new.keys, new.value_dim]);
    case.offset = Offset::Keys(PAST as i64);
    case
}

fn present(past: &[f32], new: &[f32], shape: [usize; 4]) -> Vec<f32> {
    let [batch, heads, len, cols] = shape;
    let parts = past.chunks(PAST * cols).zip(new.chunks(len * cols));
    let whole: Vec<f32> = parts.flat_map(|(past, new)| past.iter().chain(new)).copied().collect();
    let view = |x, rows| TensorRef::new(x, [batch, heads, rows, cols]).unwrap();
    let (past, new, all) = (view(past, PAST), view(new, len), view(&whole, PAST + len));
    for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
        for j in 0..PAST + len {
            let from = if j < PAST {
                past.matrix(b, h).row(j)
            } else {
                new.matrix(b, h).row(j - PAST)
            };
            assert_eq!(all.matrix(b, h).row(j), from);
        }
    }
    whole
}

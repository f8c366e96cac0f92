//! Turned rows against f64, against the definition of ONNX `RotaryEmbedding`, and against each other.

#[path = "reference/numbers.rs"]
mod numbers;

use numbers::noise;
use subquad::attention::{Pairing, Positions, Rotary};
use subquad::{kernels, Error, Isa, MatMut, TensorMut};

const PAIRINGS: [Pairing; 2] = [Pairing::Halves, Pairing::Neighbours];

/// The columns of pair `i`.
fn columns(rotary: &Rotary, i: usize) -> [usize; 2] {
    match rotary.pairing() {
        Pairing::Halves => [i, i + rotary.rotary_dim() / 2],
        Pairing::Neighbours => [2 * i, 2 * i + 1],
    }
}

/// A row turned in f64.
fn exact(rotary: &Rotary, row: &[f32], position: u64) -> Vec<f64> {
    let mut turned: Vec<f64> = row.iter().map(|&x| x.into()).collect();
    let position = position as f64 / f64::from(rotary.position_scale());
    for i in 0..rotary.rotary_dim() / 2 {
        let power = 2.0 * i as f64 / rotary.rotary_dim() as f64;
        let (sin, cos) = (position / f64::from(rotary.base()).powf(power)).sin_cos();
        let [a, b] = columns(rotary, i);
        let (x, y) = (turned[a], turned[b]);
        (turned[a], turned[b]) = (x * cos - y * sin, x * sin + y * cos);
    }
    turned
}

fn apply(rotary: &Rotary, row: &[f32], position: u64) -> Vec<f32> {
    let mut turned = row.to_vec();
    let rows = MatMut::new(&mut turned, 1, row.len()).unwrap();
    rotary.apply(rows.into(), Positions::From(position)).unwrap();
    turned
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

#[test]
fn rows_are_turned_as_far_as_promised() {
    let mut worst = 0.0f64;
    // (dim, rotary_dim, base, largest position). Base 16 over 8 columns falls by exactly 2, so that f64 knows the angle of
    // any position that it holds.
    for (dim, rotary_dim, base, most) in [
        (64, 64, 10_000.0, 1u64 << 24),
        (128, 128, 500_000.0, 1 << 24),
        (80, 32, 10_000.0, 1 << 24),
        (200, 198, 1e6, 1 << 24),
        (8, 8, 16.0, 1 << 52),
        (9, 2, 10_000.0, 1 << 52),
    ] {
        for pairing in PAIRINGS {
            let rotary = Rotary::new(dim, rotary_dim, base).unwrap().with_pairing(pairing);
            for scale in [1.0, 4.0] {
                let rotary = rotary.with_position_scale(scale).unwrap();
                let spread = (0..40u64).map(|n| most / 40 * n + n * n % 7);
                for position in (0..20).chain(spread).chain([most - 1, most]) {
                    let row = noise(position, dim);
                    let (got, want) = (apply(&rotary, &row, position), exact(&rotary, &row, position));
                    assert!(got[rotary_dim..] == row[rotary_dim..]);
                    let off = norm(got.iter().zip(&want).map(|(&x, &want)| f64::from(x) - want));
                    let size = norm(row[..rotary_dim].iter().map(|&x| x.into()));
                    // f64 has rounded the power, where it is not exact.
                    let oracle = if base == 16.0 {
                        0.0
                    } else {
                        position as f64 * 2f64.powi(-52)
                    };
                    let promise = (f64::from(rotary.relative_error(position)) + oracle) * size;
                    assert!(off <= promise, "{rotary:?} at {position}: {off:e} of {promise:e}");
                    worst = worst.max(off / promise);
                }
            }
        }
    }
    println!("turned rows: {worst:.2} of the promise at worst");
    assert!(worst > 0.2);
}

#[test]
fn scores_depend_on_distances_only() {
    let (q, k) = (noise(1, 64), noise(2, 64));
    for pairing in PAIRINGS {
        let rotary = Rotary::new(64, 64, 10_000.0).unwrap().with_pairing(pairing);
        let score = |p, r| -> f64 {
            let (q, k) = (apply(&rotary, &q, p), apply(&rotary, &k, r));
            q.iter().zip(&k).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
        };
        let size = norm(q.iter().map(|&x| x.into())) * norm(k.iter().map(|&x| x.into()));
        for distance in [0, 1, 17, 4096] {
            let near = score(distance, 0);
            assert!(distance == 0 || (near - score(0, 0)).abs() > 1e-2);
            for r in [1, 1000, (1 << 24) - 4096, 1 << 30] {
                let bound = 2.0 * f64::from(rotary.relative_error(0) + rotary.relative_error(r + distance)) * size;
                let far = score(r + distance, r);
                assert!((far - near).abs() <= bound && bound < 4e-5, "{far} {near} {bound}");
            }
        }
    }
}

/// `onnx.reference.ops.op_rotary_embedding` by its definition, in f64: x of (batch, heads, rows, dim), tables of
/// (positions, pairs), one position per row and batch entry.
fn onnx(x: &[f32], [heads, n, dim]: [usize; 3], tables: [&[f64]; 2], ids: &[u64], interleaved: bool) -> Vec<f64> {
    let pairs = tables[0].len() / (1 + *ids.iter().max().unwrap() as usize);
    let mut out: Vec<f64> = x.iter().map(|&x| x.into()).collect();
    for (at, row) in out.chunks_mut(dim).enumerate() {
        let id = ids[at / (heads * n) * n + at % n] as usize;
        let [cos, sin] = tables.map(|table| &table[id * pairs..][..pairs]);
        let x1: Vec<f64> = (0..pairs).map(|i| row[if interleaved { 2 * i } else { i }]).collect();
        let x2: Vec<f64> = (0..pairs)
            .map(|i| row[if interleaved { 2 * i + 1 } else { pairs + i }])
            .collect();
        for i in 0..pairs {
            let (real, imaginary) = (cos[i] * x1[i] - sin[i] * x2[i], sin[i] * x1[i] + cos[i] * x2[i]);
            if interleaved {
                (row[2 * i], row[2 * i + 1]) = (real, imaginary);
            } else {
                (row[i], row[pairs + i]) = (real, imaginary);
            }
        }
    }
    out
}

#[test]
fn rows_are_what_onnx_defines() {
    let [batch, heads, n] = [2, 3, 5];
    let ids = [4u64, 0, 9, 2, 2, 7, 7, 1, 0, 3];
    for (dim, rotary_dim) in [(8, 8), (12, 4), (70, 66)] {
        let pairs = rotary_dim / 2;
        let angle = |at: usize| (at / pairs) as f64 / 10_000f64.powf((at % pairs) as f64 / pairs as f64);
        let table = |f: fn(f64) -> f64| (0..10 * pairs).map(|at| f(angle(at))).collect::<Vec<_>>();
        let tables = [table(f64::cos), table(f64::sin)];
        for pairing in PAIRINGS {
            let rotary = Rotary::new(dim, rotary_dim, 10_000.0).unwrap().with_pairing(pairing);
            let x = noise(dim as u64, batch * heads * n * dim);
            let interleaved = pairing == Pairing::Neighbours;
            let want = onnx(&x, [heads, n, dim], [&tables[0], &tables[1]], &ids, interleaved);
            let shape = [batch, heads, n, dim];
            let mut four = x.clone();
            let rows = TensorMut::new(&mut four, shape).unwrap();
            rotary.apply(rows, Positions::Each(&ids)).unwrap();
            assert!(four
                .iter()
                .zip(&want)
                .all(|(&x, want)| (f64::from(x) - want).abs() < 4e-7));
            // The 3-D layout, heads side by side: the same bits.
            let mut three = vec![0.0; x.len()];
            let mut rows = TensorMut::packed(&mut three, shape).unwrap();
            let at = |b, h, r| ((b * heads + h) * n + r) * dim;
            let all = || (0..batch).flat_map(move |b| (0..heads).flat_map(move |h| (0..n).map(move |r| (b, h, r))));
            for (b, h, r) in all() {
                rows.row(b, h, r).copy_from_slice(&x[at(b, h, r)..][..dim]);
            }
            rotary.apply(rows.reborrow(), Positions::Each(&ids)).unwrap();
            for (b, h, r) in all() {
                assert_eq!(rows.row(b, h, r), &four[at(b, h, r)..][..dim]);
            }
        }
    }
}

#[test]
fn bits_are_the_same_everywhere() {
    let bits = |row: &[f32]| row.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    for (dim, rotary_dim) in [(2, 2), (7, 6), (64, 64), (131, 98)] {
        for pairing in PAIRINGS {
            let rotary = Rotary::new(dim, rotary_dim, 10_000.0).unwrap().with_pairing(pairing);
            let mut row = noise(7, dim);
            row[0] = f32::from_bits(0xffc0_1234);
            row[dim / 2] = f32::INFINITY;
            let want = bits(&apply(&rotary.with_isa(Isa::SCALAR), &row, 123_456));
            let spoilt = want[..rotary_dim]
                .iter()
                .filter(|&&x| f32::from_bits(x).is_nan())
                .collect::<Vec<_>>();
            assert!(spoilt.iter().all(|&&x| x == 0x7fc0_0000) && spoilt.len() <= 4);
            for isa in Isa::all() {
                assert_eq!(
                    bits(&apply(&rotary.with_isa(isa), &row, 123_456)),
                    want,
                    "{}",
                    isa.name()
                );
                // By hand, from a table.
                let [mut cos, mut sin] = [vec![0.0; rotary_dim / 2], vec![0.0; rotary_dim / 2]];
                rotary.angles(123_456, &mut cos, &mut sin).unwrap();
                let mut turned = row.clone();
                let (x, y) = turned[..rotary_dim].split_at_mut(rotary_dim / 2);
                match pairing {
                    Pairing::Halves => kernels::turn_halves(isa, x, y, &cos, &sin),
                    Pairing::Neighbours => kernels::turn_neighbours(isa, &mut turned[..rotary_dim], &cos, &sin),
                }
                assert_eq!(bits(&turned), want);
            }
        }
    }
}

#[test]
fn bad_calls_are_refused_and_write_nothing() {
    for (dim, rotary_dim) in [(8, 0), (8, 10), (8, 7), (0, 0), (7, 8)] {
        assert_eq!(Rotary::new(dim, rotary_dim, 10_000.0).err(), Some(Error::Shape));
    }
    for base in [0.0, 1.0, -2.0, f32::NAN, f32::INFINITY] {
        assert_eq!(Rotary::new(8, 8, base).err(), Some(Error::Parameter));
    }
    let rotary = Rotary::new(8, 6, 10_000.0).unwrap();
    for scale in [0.0, 0.5, -1.0, f32::NAN, f32::INFINITY] {
        assert_eq!(rotary.with_position_scale(scale).err(), Some(Error::Parameter));
    }
    let mut x = noise(1, 32);
    let before = x.clone();
    let mut apply = |shape, positions: Positions<'_>| rotary.apply(TensorMut::new(&mut x, shape).unwrap(), positions);
    assert_eq!(apply([1, 1, 4, 7], Positions::From(0)), Err(Error::Shape));
    assert_eq!(apply([2, 1, 2, 8], Positions::Each(&[1, 2, 3])), Err(Error::Shape));
    assert_eq!(apply([1, 1, 4, 8], Positions::From(u64::MAX - 2)), Err(Error::Overflow));
    assert_eq!(apply([1, 1, 4, 8], Positions::From(u64::MAX - 4)), Ok(()));
    assert_eq!(apply([0, 1, 4, 8], Positions::Each(&[])), Ok(()));
    assert_ne!(x, before);
    let [mut cos, mut sin] = [[0.5; 3], [0.5; 3]];
    assert_eq!(rotary.angles(1, &mut cos[..2], &mut sin), Err(Error::Short));
    assert_eq!((cos, sin), ([0.5; 3], [0.5; 3]));
    assert_eq!(rotary.angles(0, &mut cos, &mut sin), Ok(()));
    assert_eq!((cos, sin), ([1.0; 3], [0.0; 3]));
}

//! Pruned attention against f64: nothing left out, needles, promises, edges, splits, errors.

use subquad::attention::{cluster, cluster_need, Index, Outputs, Partial, Pruned, Shape};
use subquad::rng::{normals, Philox};
use subquad::{Error, MatMut, MatRef, Report, Scratch};

struct Head {
    shape: Shape,
    scale: f32,
    causal: Option<usize>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

struct Results {
    out: Vec<f32>,
    partials: Vec<f32>,
    report: Report,
}

/// Kinds of keys: normal, clusters, near a line, far from the origin, all the same, a few huge.
const KINDS: usize = 6;

fn head(seed: u64, shape: Shape, kind: usize, scale: f32) -> Head {
    let mut rng = Philox::new(seed, kind as u64);
    let mut rows = |n: usize, dim: usize| {
        let mut x = vec![0.0; n * dim];
        normals(&mut rng, &mut x);
        x
    };
    let Shape {
        queries,
        keys,
        dim,
        value_dim,
        ..
    } = shape;
    let (q, mut k, v) = (rows(queries, dim), rows(keys, dim), rows(keys, value_dim));
    let centres = rows(8, dim);
    for (i, row) in k.chunks_mut(dim.max(1)).enumerate() {
        let near = |c: usize| centres[(i * 8 / keys) * dim + c];
        let along = row[0];
        row.iter_mut().enumerate().for_each(|(c, x)| match kind {
            1 => *x = 3.0 * near(c) + 0.05 * *x,
            2 => *x = along * centres[c] + 0.01 * *x,
            3 => *x += 100.0 * centres[c],
            4 => *x = centres[c],
            5 if i % 37 == 0 => *x *= 1000.0,
            _ => {}
        });
    }
    Head {
        shape,
        scale,
        causal: None,
        q,
        k,
        v,
    }
}

impl Head {
    fn views(&self) -> [MatRef<'_, f32>; 3] {
        let Shape {
            queries,
            keys,
            dim,
            value_dim,
            ..
        } = self.shape;
        [
            MatRef::new(&self.q, queries, dim).unwrap(),
            MatRef::new(&self.k, keys, dim).unwrap(),
            MatRef::new(&self.v, keys, value_dim).unwrap(),
        ]
    }

    fn run(&self, block: usize, theta: f32) -> Results {
        let Shape {
            queries,
            keys,
            dim,
            value_dim,
            ..
        } = self.shape;
        let [q, k, v] = self.views();
        let mut memory = vec![0.0; Index::len(dim, value_dim, block, keys).unwrap()];
        let mut index = Index::new(dim, value_dim, block, &mut memory).unwrap();
        // Two thirds first, then the rest: blocks close as keys come in.
        index
            .extend(k.row_range(0..keys * 2 / 3), v.row_range(0..keys * 2 / 3))
            .unwrap();
        assert_eq!(index.extend(k, v), Ok(keys - keys % block));
        let plan = Pruned::new(self.shape, block).unwrap().with_share(theta).unwrap();
        let plan = plan.with_scale(self.scale).unwrap();
        let plan = self.causal.map_or(plan, |offset| plan.with_causal(offset));
        let width = Partial::width(value_dim);
        let (mut out, mut partials) = (vec![9.0; queries * value_dim], vec![9.0; queries * width]);
        let outputs = Outputs {
            out: Some(MatMut::new(&mut out, queries, value_dim).unwrap().into()),
            partials: Some(MatMut::new(&mut partials, queries, width).unwrap().into()),
            ..Outputs::default()
        };
        let mut bytes = vec![core::mem::MaybeUninit::uninit(); plan.need().bytes()];
        let report = plan
            .run(&index, [q, k, v], outputs, &mut Scratch::new(&mut bytes))
            .unwrap();
        Results { out, partials, report }
    }

    fn seen(&self, i: usize) -> usize {
        self.causal
            .map_or(self.shape.keys, |offset| (i + offset + 1).min(self.shape.keys))
    }

    /// Output and log-sum-exp of a row, in f64.
    fn exact(&self, i: usize) -> (Vec<f64>, f64) {
        let [q, k, v] = self.views();
        let product = |j: usize| {
            let terms = q
                .row(i)
                .iter()
                .zip(k.row(j))
                .map(|(&x, &y)| f64::from(x) * f64::from(y));
            f64::from(self.scale) * terms.sum::<f64>()
        };
        let scores: Vec<f64> = (0..self.seen(i)).map(product).collect();
        let most = scores.iter().fold(f64::NEG_INFINITY, |m, &s| m.max(s));
        let sum: f64 = scores.iter().map(|s| (s - most).exp()).sum();
        let mut out = vec![0.0; self.shape.value_dim];
        for (j, s) in scores.iter().enumerate() {
            let p = (s - most).exp() / sum;
            out.iter_mut()
                .zip(v.row(j))
                .for_each(|(to, &x)| *to += p * f64::from(x));
        }
        (out, most + sum.ln())
    }

    /// Every promise of every row holds: the largest error over the largest promise.
    fn check(&self, got: &Results, theta: f32) {
        let width = Partial::width(self.shape.value_dim);
        for (i, row) in got.partials.chunks(width).enumerate() {
            let (want, lse) = self.exact(i);
            let (e_lse, e_out) = (f64::from(row[2]), f64::from(row[3]));
            assert!(e_out <= f64::from(got.report.bound.value));
            let ours = f64::from(row[0]) * std::f64::consts::LN_2 + f64::from(row[1]).ln();
            // What is left out makes the sum smaller: its share is at most what was asked for, and what was promised.
            let left = 1.0 - (ours - lse).exp();
            // Scores this large are rounded to so much.
            let length = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt();
            let [q, k, _] = self.views();
            let longest = (0..self.shape.keys).map(|j| length(k.row(j))).fold(0.0, f32::max);
            let rounding = 1e-4 + 1e-6 * f64::from(self.scale * length(q.row(i)) * longest);
            assert!(
                (ours - lse).abs() <= e_lse && left <= f64::from(theta) + rounding,
                "row {i}: {left} {e_lse}"
            );
            for (x, y) in row[4..].iter().zip(&want) {
                assert!((f64::from(*x) - y).abs() <= e_out, "row {i}: {x} {y} {e_out}");
            }
        }
    }
}

#[test]
fn every_promise_holds() {
    let mut skipped = [0; KINDS];
    for (kind, skipped) in skipped.iter_mut().enumerate() {
        for (block, dim) in [(16, 1), (32, 7), (64, 16)] {
            for (theta, scale) in [(0.0, 0.3), (0.001, 1.0), (0.1, 0.1), (0.5, 2.0)] {
                let mut of = head(7, Shape::head(5, 419, dim, 3), kind, scale);
                for causal in [None, Some(0), Some(200)] {
                    of.causal = causal;
                    let got = of.run(block, theta);
                    of.check(&got, theta);
                    let all: usize = (0..5).map(|i| of.seen(i)).sum();
                    if theta == 0.0 {
                        assert_eq!((got.report.keys_read, got.report.exact_rows), (all, 5));
                    }
                    *skipped += all - got.report.keys_read;
                }
            }
        }
    }
    // The test is about something: all kinds leave keys out somewhere.
    assert!(skipped.iter().all(|&n| n > 1000), "{skipped:?}");
}

#[test]
fn a_needle_is_found_and_a_hay_key_is_not_read() {
    let mut of = head(3, Shape::head(4, 640, 8, 2), 0, 1.0);
    of.k.iter_mut().for_each(|x| *x *= 0.1);
    for needle in [0, 31, 32, 333, 639] {
        let mut of = Head {
            q: of.q.clone(),
            k: of.k.clone(),
            v: of.v.clone(),
            ..of
        };
        for i in 0..4 {
            // One key, along the query: a score of 20, where the others are near 0; its own value.
            let q = of.q[i * 8..][..8].to_vec();
            let square: f32 = q.iter().map(|x| x * x).sum();
            of.k[needle * 8..][..8]
                .iter_mut()
                .zip(&q)
                .for_each(|(k, q)| *k = 20.0 * q / square);
            of.v[needle * 2..][..2].fill(50.0);
            let got = of.run(32, 0.01);
            of.check(&got, 0.01);
            assert!((got.out[i * 2] - 50.0).abs() < 0.6, "{}", got.out[i * 2]);
            assert!(got.report.keys_read < 4 * 640);
        }
    }
}

#[test]
fn rows_do_not_depend_on_the_call() {
    let of = head(5, Shape::head(70, 300, 5, 4), 1, 0.4);
    let all = of.run(16, 0.05);
    for i in [0, 1, 33, 69] {
        let one = Head {
            shape: Shape::head(1, 300, 5, 4),
            q: of.q[i * 5..][..5].to_vec(),
            k: of.k.clone(),
            v: of.v.clone(),
            ..of
        };
        assert_eq!(one.run(16, 0.05).out, all.out[i * 4..][..4]);
    }
}

#[test]
fn clusters_are_put_together_and_few_keys_are_read() {
    let mut of = head(11, Shape::head(16, 2048, 16, 4), 1, 1.0);
    // Shuffled: key i comes from place 641 i.
    let (k, v) = (of.k.clone(), of.v.clone());
    for i in 0..2048 {
        of.k[i * 16..][..16].copy_from_slice(&k[(i * 641 % 2048) * 16..][..16]);
        of.v[i * 4..][..4].copy_from_slice(&v[(i * 641 % 2048) * 4..][..4]);
    }
    let before = of.run(32, 0.01);
    let mut order = vec![0; 2048];
    let mut bytes = vec![core::mem::MaybeUninit::uninit(); cluster_need(2048, 16, 64).bytes()];
    cluster(of.views()[1], 64, &mut order, &mut Scratch::new(&mut bytes)).unwrap();
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert!(sorted.iter().zip(0..).all(|(&x, i)| x == i));
    let (k, v) = (of.k.clone(), of.v.clone());
    for (i, &from) in order.iter().enumerate() {
        of.k[i * 16..][..16].copy_from_slice(&k[from as usize * 16..][..16]);
        of.v[i * 4..][..4].copy_from_slice(&v[from as usize * 4..][..4]);
    }
    let after = of.run(32, 0.01);
    of.check(&after, 0.01);
    let (before, read) = (before.report.keys_read, after.report.keys_read);
    assert!(read * 5 < before, "{read} of {before}");
    assert!(read * 5 < 16 * 2048, "{read}");
}

#[test]
fn bad_calls_write_nothing() {
    let of = head(1, Shape::head(2, 64, 3, 2), 0, 1.0);
    let [q, k, v] = of.views();
    let mut memory = vec![0.0; Index::len(3, 2, 32, 64).unwrap()];
    assert_eq!(Index::new(3, 2, 31, &mut memory).err(), Some(Error::Parameter));
    assert_eq!(Index::new(3, 9, 32, &mut [0.0; 17]).err(), Some(Error::Short));
    assert_eq!(Index::len(usize::MAX, 2, 32, 64), Err(Error::Overflow));
    let mut small = [0.0; 4];
    assert_eq!(Index::new(3, 2, 32, &mut small).unwrap().extend(k, v), Err(Error::Full));
    let mut index = Index::new(3, 2, 32, &mut memory).unwrap();
    assert_eq!(index.extend(v, k), Err(Error::Shape));
    let mut strange = of.k.clone();
    strange[190] = f32::NAN;
    assert_eq!(
        index.extend(MatRef::new(&strange, 64, 3).unwrap(), v),
        Err(Error::NonFinite)
    );
    strange[190] = 1e30;
    assert_eq!(
        index.extend(MatRef::new(&strange, 64, 3).unwrap(), v),
        Err(Error::Range)
    );
    assert_eq!(index.keys(), 0);
    assert_eq!(index.extend(k, v), Ok(64));
    assert_eq!(
        index.extend(k.row_range(0..31), v.row_range(0..31)),
        Err(Error::Mismatch)
    );

    assert_eq!(Pruned::new(of.shape, 8).err(), Some(Error::Parameter));
    assert_eq!(
        Pruned::new(
            Shape {
                query_heads: 2,
                ..of.shape
            },
            32
        )
        .err(),
        Some(Error::Unsupported)
    );
    let plan = Pruned::new(of.shape, 32).unwrap();
    assert_eq!(plan.with_share(1.0).err(), Some(Error::Parameter));
    assert_eq!(plan.with_scale(f32::NAN).err(), Some(Error::Parameter));
    let mut bytes = vec![core::mem::MaybeUninit::uninit(); plan.need().bytes()];
    let mut out = [9.0; 4];
    let mut run = |plan: &Pruned, qkv, bytes: usize, memory: &mut [core::mem::MaybeUninit<u8>]| {
        let to = MatMut::new(&mut out, 2, 2).unwrap();
        let result = plan.forward(&index, qkv, to, &mut Scratch::new(&mut memory[..bytes]));
        assert!(result.is_ok() || out == [9.0; 4]);
        result.err()
    };
    let full = bytes.len();
    assert_eq!(run(&plan, [q, k, v], full / 2, &mut bytes), Some(Error::Short));
    assert_eq!(run(&plan, [q, v, v], full, &mut bytes), Some(Error::Shape));
    let inf = [f32::INFINITY; 6];
    assert_eq!(
        run(&plan, [MatRef::new(&inf, 2, 3).unwrap(), k, v], full, &mut bytes),
        Some(Error::NonFinite)
    );
    let short = Pruned::new(Shape::head(2, 63, 3, 2), 32).unwrap();
    let less = [q, k.row_range(0..63), v.row_range(0..63)];
    assert_eq!(run(&short, less, full, &mut bytes), Some(Error::Mismatch));
    let other = Pruned::new(of.shape, 16).unwrap();
    assert_eq!(run(&other, [q, k, v], full, &mut bytes), Some(Error::Shape));
    assert_eq!(run(&plan, [q, k, v], full, &mut bytes), None);
}

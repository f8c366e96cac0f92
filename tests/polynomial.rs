//! Polynomial attention against f64: promises, fallbacks, chunks, closed forms.

use subquad::attention::{Outputs, Partial, Polynomial, Shape};
use subquad::rng::{normals, Philox};
use subquad::{Error, Isa, MatMut, MatRef, Report, Scratch, TensorMut, TensorRef};

struct Problem {
    shape: Shape,
    scale: f32,
    causal: Option<usize>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

/// Kinds of keys: normal, on a sphere, far from the origin and close together, on two points, clusters.
const KINDS: usize = 5;

fn problem(rng: &mut Philox, shape: Shape, kind: usize, beta: f32) -> Problem {
    let rows = |rng: &mut Philox, n: usize, dim: usize| {
        let mut x = vec![0.0; n * dim];
        normals(rng, &mut x);
        x
    };
    let Shape {
        batch,
        query_heads,
        kv_heads,
        queries,
        keys,
        dim,
        value_dim,
    } = shape;
    let mut q = rows(rng, batch * query_heads * queries, dim);
    let mut k = rows(rng, batch * kv_heads * keys, dim);
    let mut v = rows(rng, batch * kv_heads * keys, value_dim);
    let mut centre = vec![0.0; dim];
    normals(rng, &mut centre);
    for (i, row) in k.chunks_mut(dim.max(1)).enumerate() {
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-6);
        match kind {
            1 => row.iter_mut().for_each(|x| *x /= norm),
            2 => row.iter_mut().zip(&centre).for_each(|(x, c)| *x += 100.0 * c),
            3 => row.iter_mut().enumerate().for_each(|(c, x)| {
                *x = if c > 0 {
                    0.0
                } else if i % 2 == 0 {
                    1.0
                } else {
                    -1.0
                }
            }),
            4 => row.iter_mut().for_each(|x| *x = *x * 0.05 + (i % 3) as f32),
            _ => {}
        }
    }
    if kind == 3 {
        // The worst values for weights that are off: those of a sign.
        for (v, k) in v.chunks_mut(value_dim.max(1)).zip(k.chunks(dim.max(1))) {
            v.fill(k.first().copied().unwrap_or(1.0));
        }
    }
    let length = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt();
    let longest = q.chunks(dim.max(1)).map(length).fold(1e-9, f32::max);
    let mut mean = vec![0.0; dim];
    k.chunks(dim.max(1)).for_each(|row| {
        mean.iter_mut()
            .zip(row)
            .for_each(|(m, x)| *m += x / (batch * kv_heads * keys.max(1)) as f32)
    });
    let far = k
        .chunks(dim.max(1))
        .map(|row| {
            row.iter()
                .zip(&mean)
                .map(|(x, m)| (x - m) * (x - m))
                .sum::<f32>()
                .sqrt()
        })
        .fold(1e-9, f32::max);
    q.iter_mut().for_each(|x| *x *= beta / (longest * far));
    Problem {
        shape,
        scale: 1.0,
        causal: None,
        q,
        k,
        v,
    }
}

impl Problem {
    fn views(&self) -> [TensorRef<'_, f32>; 3] {
        let Shape {
            batch,
            query_heads,
            kv_heads,
            queries,
            keys,
            dim,
            value_dim,
        } = self.shape;
        [
            TensorRef::new(&self.q, [batch, query_heads, queries, dim]).unwrap(),
            TensorRef::new(&self.k, [batch, kv_heads, keys, dim]).unwrap(),
            TensorRef::new(&self.v, [batch, kv_heads, keys, value_dim]).unwrap(),
        ]
    }

    fn plan(&self, degree: usize, tolerance: f32) -> Polynomial {
        let plan = Polynomial::new(self.shape, degree)
            .unwrap()
            .with_scale(self.scale)
            .unwrap()
            .with_tolerance(tolerance)
            .unwrap();
        match self.causal {
            Some(offset) => plan.with_causal(offset),
            None => plan,
        }
    }

    fn run(&self, plan: &Polynomial) -> (Vec<f32>, Vec<f32>, Vec<f32>, Report) {
        let Shape {
            batch,
            query_heads,
            queries,
            value_dim,
            ..
        } = self.shape;
        let rows = batch * query_heads * queries;
        let width = Partial::width(value_dim);
        let (mut out, mut lse, mut partials) = (vec![9.0; rows * value_dim], vec![9.0; rows], vec![9.0; rows * width]);
        let outputs = Outputs {
            out: Some(TensorMut::new(&mut out, [batch, query_heads, queries, value_dim]).unwrap()),
            lse: Some(TensorMut::new(&mut lse, [batch, query_heads, queries, 1]).unwrap()),
            partials: Some(TensorMut::new(&mut partials, [batch, query_heads, queries, width]).unwrap()),
            scores: None,
        };
        let mut bytes = vec![core::mem::MaybeUninit::uninit(); plan.need().bytes()];
        let [q, k, v] = self.views();
        let report = plan.run(q, k, v, outputs, &mut Scratch::new(&mut bytes)).unwrap();
        (out, lse, partials, report)
    }

    /// Output and log-sum-exp of a row in f64; `None` without keys.
    fn truth(&self, batch: usize, head: usize, query: usize) -> Option<(Vec<f64>, f64)> {
        let Shape {
            query_heads,
            kv_heads,
            queries,
            keys,
            dim,
            value_dim,
            ..
        } = self.shape;
        let kv = batch * kv_heads + head / (query_heads / kv_heads);
        let q = &self.q[((batch * query_heads + head) * queries + query) * dim..][..dim];
        let seen = self.causal.map_or(keys, |offset| keys.min(query + offset + 1));
        let k = &self.k[kv * keys * dim..];
        let score = |j: usize| {
            f64::from(self.scale)
                * q.iter()
                    .zip(&k[j * dim..])
                    .map(|(&a, &b)| f64::from(a) * f64::from(b))
                    .sum::<f64>()
        };
        let scores: Vec<f64> = (0..seen).map(score).collect();
        let max = scores.iter().copied().reduce(f64::max)?;
        let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        let mut out = vec![0.0; value_dim];
        for (j, s) in scores.iter().enumerate() {
            let row = &self.v[(kv * keys + j) * value_dim..][..value_dim];
            out.iter_mut()
                .zip(row)
                .for_each(|(o, &v)| *o += (s - max).exp() / sum * f64::from(v));
        }
        Some((out, max + sum.ln()))
    }

    /// Every row against its promise; the largest share of a promise that was used.
    fn check(&self, plan: &Polynomial, note: &str) -> (f64, Report) {
        let (out, lse, mut partials, report) = self.run(plan);
        let Shape {
            batch,
            query_heads,
            queries,
            value_dim,
            ..
        } = self.shape;
        let mut used = 0.0f64;
        for row in 0..batch * query_heads * queries {
            let (b, h, i) = (row / queries / query_heads, row / queries % query_heads, row % queries);
            let partial = Partial::from_row(&mut partials[row * (value_dim + 4)..][..value_dim + 4]).unwrap();
            let Some((truth, log)) = self.truth(b, h, i) else {
                assert!(partial.out().iter().all(|&x| x == 0.0) && lse[row] == f32::NEG_INFINITY);
                continue;
            };
            let bound = f64::from(partial.out_bound().value);
            assert!(bound <= f64::from(report.bound.value), "{note}");
            for (c, truth) in truth.iter().enumerate() {
                let error = (truth - f64::from(out[row * value_dim + c])).abs();
                assert!(error <= bound + 1e-13, "{note} row {row}: {error:e} > {bound:e}");
                assert_eq!(out[row * value_dim + c], partial.out()[c]);
                if error > 1e-6 {
                    used = used.max(error / bound);
                }
            }
            let bound = f64::from(partial.lse_bound().value);
            let error = (log - f64::from(lse[row])).abs();
            assert!(error <= bound + 1e-13, "{note} row {row}: lse {error:e} > {bound:e}");
        }
        (used, report)
    }
}

#[test]
fn no_row_breaks_its_promise() {
    let mut rng = Philox::new(1, 0);
    let mut used = 0.0f64;
    let mut spread = 0;
    for trial in 0..400 {
        let of = |rng: &mut Philox, from: u32, to: u32| (from + rng.below(to - from)) as usize;
        let group = of(&mut rng, 1, 3);
        let kv_heads = of(&mut rng, 1, 3);
        let shape = Shape {
            batch: of(&mut rng, 1, 3),
            query_heads: group * kv_heads,
            kv_heads,
            queries: of(&mut rng, 0, 70),
            keys: of(&mut rng, 0, 600),
            dim: of(&mut rng, 1, 7),
            value_dim: of(&mut rng, 1, 19),
        };
        let beta = [0.05, 0.5, 1.0, 2.0, 4.0, 9.0][of(&mut rng, 0, 6)];
        let mut p = problem(&mut rng, shape, trial % KINDS, beta);
        p.causal = (trial % 4 == 3).then(|| of(&mut rng, 0, 300));
        let degree = of(&mut rng, 1, 9);
        let tolerance = [f32::INFINITY, 0.0, 1e-3, 1e-1][of(&mut rng, 0, 4)];
        let note = format!(
            "trial {trial} {shape:?} degree {degree} beta {beta} tolerance {tolerance} causal {:?}",
            p.causal
        );
        let (part, report) = p.check(&p.plan(degree, tolerance), &note);
        used = used.max(part);
        spread += usize::from(report.exact_rows > 0);
    }
    // Two points with values of their sign: halved, promises would break.
    assert!(used > 0.5 && used <= 1.0, "{used}");
    assert!(spread > 20);
}

#[test]
fn the_hypercube_has_a_closed_form() {
    // Keys are all sign vectors, values too: the output is tanh of the scaled query, column by column.
    let dim = 5;
    let k: Vec<f32> = (0..32 * dim)
        .map(|i| if ((i / dim) >> (i % dim)) & 1 == 0 { 1.0 } else { -1.0 })
        .collect();
    let q: Vec<f32> = (0..40 * dim).map(|i| ((i * 37 % 101) as f32 - 50.0) / 400.0).collect();
    let (q, k) = (MatRef::new(&q, 40, dim).unwrap(), MatRef::new(&k, 32, dim).unwrap());
    let plan = Polynomial::for_views(q, k, k, 8).unwrap().with_scale(1.0).unwrap();
    let mut out = vec![0.0; 40 * dim];
    let mut bytes = vec![core::mem::MaybeUninit::uninit(); plan.need().bytes()];
    let report = plan
        .forward(
            q,
            k,
            k,
            MatMut::new(&mut out, 40, dim).unwrap(),
            &mut Scratch::new(&mut bytes),
        )
        .unwrap();
    for (i, row) in out.chunks(dim).enumerate() {
        for (o, &x) in row.iter().zip(q.row(i)) {
            assert!((o - x.tanh()).abs() <= report.bound.value);
            assert!((o - x.tanh()).abs() < 1e-5, "{o} {x}");
        }
    }
    assert!(report.bound.value < 1e-3);
}

#[test]
fn a_tolerance_is_kept_or_rows_are_exact() {
    let mut rng = Philox::new(2, 0);
    for kind in 0..KINDS {
        let p = problem(&mut rng, Shape::head(200, 2000, 4, 4), kind, 3.0);
        for tolerance in [1e-1, 1e-2, 1e-3, 1e-5] {
            let (_, report) = p.check(&p.plan(5, tolerance), "");
            let range = (0..4)
                .map(|c| {
                    let column = p.v.iter().skip(c).step_by(4);
                    column.clone().fold(f32::MIN, |a, &b| a.max(b)) - column.fold(f32::MAX, |a, &b| a.min(b))
                })
                .fold(0.0, f32::max);
            assert!(report.bound.value <= tolerance * range * 1.000001 || report.exact_rows > 0);
        }
        // Nothing is good enough: all rows are exact.
        let (_, report) = p.check(&p.plan(5, 0.0), "");
        assert_eq!(report.exact_rows, 200);
    }
}

#[test]
fn bits_do_not_depend_on_the_split_of_queries() {
    let mut rng = Philox::new(3, 0);
    let p = problem(&mut rng, Shape::head(77, 500, 3, 2), 0, 1.0);
    for isa in Isa::all() {
        let plan = p.plan(4, 1e-2).with_isa(isa);
        let (whole, ..) = p.run(&plan);
        for (start, end) in [(0, 1), (1, 34), (34, 77)] {
            let part = Problem {
                shape: Shape {
                    queries: end - start,
                    ..p.shape
                },
                q: p.q[start * 3..end * 3].to_vec(),
                k: p.k.clone(),
                v: p.v.clone(),
                ..p
            };
            let (out, ..) = part.run(&part.plan(4, 1e-2).with_isa(isa));
            assert_eq!(out, whole[start * 2..end * 2], "{isa:?}");
        }
    }
}

#[test]
fn bad_calls_write_nothing() {
    let x = [0.5f32; 12];
    let m = |rows, cols| MatRef::new(&x, rows, cols).unwrap();
    assert_eq!(
        Polynomial::new(Shape::head(1, 1, 1, 1), 0).unwrap_err(),
        Error::Parameter
    );
    assert_eq!(
        Polynomial::new(Shape::head(1, 1, 1, 1), 17).unwrap_err(),
        Error::Parameter
    );
    assert_eq!(
        Polynomial::new(Shape::head(1, 1, 1 << 40, 1), 8).unwrap_err(),
        Error::Overflow
    );
    let plan = Polynomial::for_views(m(2, 3), m(4, 3), m(4, 2), 2).unwrap();
    assert_eq!(plan.with_scale(f32::NAN).unwrap_err(), Error::Parameter);
    assert_eq!(plan.with_tolerance(-1.0).unwrap_err(), Error::Parameter);
    let mut out = [7.0; 4];
    let mut bytes = vec![core::mem::MaybeUninit::uninit(); plan.need().bytes()];
    let mut call = |plan: &Polynomial, q, k, v, short: usize| {
        let len = bytes.len() - short;
        plan.forward(
            q,
            k,
            v,
            MatMut::new(&mut out, 2, 2).unwrap(),
            &mut Scratch::new(&mut bytes[..len]),
        )
        .map(|_| ())
        .unwrap_err()
    };
    assert_eq!(call(&plan, m(3, 3), m(4, 3), m(4, 2), 0), Error::Shape);
    assert_eq!(call(&plan, m(2, 3), m(4, 3), m(4, 2), 1), Error::Short);
    let mut bad = x;
    bad[5] = f32::INFINITY;
    let bad = MatRef::new(&bad, 4, 3).unwrap();
    assert_eq!(call(&plan, m(2, 3), bad, m(4, 2), 0), Error::NonFinite);
    assert_eq!(out, [7.0; 4]);
}

//! Polynomial attention against exact attention: where it pays, and by how much.
//!
//!     cargo bench --bench polynomial
//!
//! Keys and queries are normal, scaled such that `beta = scale max |q| max |k - mean|` is what the table says; values are
//! normal, with as many columns as keys. Exact attention is timed on up to 4096 queries and scaled to n; polynomial attention is
//! timed whole, with the making of its state. Seconds are those of the thread.

mod support;

use subquad::attention::{Exact, Polynomial, Rules, Shape};
use subquad::{Isa, MatMut, MatRef, Scratch};
use support::{memory, race, Aligned};

struct Keys {
    n: usize,
    dim: usize,
    scale: f32,
    q: Aligned,
    k: Aligned,
    v: Aligned,
}

impl Keys {
    fn new(n: usize, dim: usize, beta: f32) -> Keys {
        let [q, k, v] = [1, 2, 3].map(|seed| Aligned::normal(n * dim, seed));
        let longest = |x: &Aligned, centre: &[f32]| {
            let square = |row: &[f32]| row.iter().zip(centre).map(|(x, c)| (x - c) * (x - c)).sum::<f32>();
            x.chunks(dim).map(square).fold(0.0, f32::max).sqrt()
        };
        let mut mean = vec![0.0f64; dim];
        k.chunks(dim).for_each(|row| {
            mean.iter_mut()
                .zip(row)
                .for_each(|(m, &x)| *m += f64::from(x) / n as f64)
        });
        let mean: Vec<f32> = mean.iter().map(|&x| x as f32).collect();
        let scale = beta / (longest(&q, &vec![0.0; dim]) * longest(&k, &mean)) * 0.999;
        Keys { n, dim, scale, q, k, v }
    }

    fn range(&self) -> f32 {
        let column = |c: usize| {
            let column = || self.v.iter().skip(c).step_by(self.dim);
            column().fold(f32::MIN, |a, &b| a.max(b)) - column().fold(f32::MAX, |a, &b| a.min(b))
        };
        (0..self.dim).map(column).fold(0.0, f32::max)
    }

    /// Exact and polynomial attention in turns.
    fn race(&self, degree: usize, tolerance: f32, isa: Isa) -> Outcome {
        let Keys { n, dim, scale, .. } = *self;
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|x| MatRef::new(x, n, dim).unwrap());
        let queries = n.min(4096).min(2e9 as usize / (n * dim)).max(64);
        let rules = Rules::new().with_scale(scale);
        let exact = Exact::new(Shape::head(queries, n, dim, dim))
            .unwrap()
            .with_isa(isa)
            .with_rules(rules)
            .unwrap();
        let plan = Polynomial::for_views(q, k, v, degree).unwrap().with_isa(isa);
        let plan = plan.with_scale(scale).unwrap().with_tolerance(tolerance).unwrap();
        let (mut exact_bytes, mut bytes) = (memory(exact.need()), memory(plan.need()));
        let (mut truth, mut out) = (vec![0.0; queries * dim], vec![0.0; n * dim]);
        let mut report = None;
        let mut one = || {
            let truth = MatMut::new(&mut truth, queries, dim).unwrap();
            assert!(exact
                .forward(
                    q.row_range(0..queries),
                    k,
                    v,
                    truth,
                    &mut Scratch::new(&mut exact_bytes)
                )
                .is_ok());
        };
        let mut other = || {
            let out = MatMut::new(&mut out, n, dim).unwrap();
            report = Some(plan.forward(q, k, v, out, &mut Scratch::new(&mut bytes)).unwrap());
        };
        let [exact, own] = race(0.5, [&mut one, &mut other]);
        let report = report.unwrap();
        let error = truth.iter().zip(&out).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let range = self.range();
        assert!(error <= report.bound.value + 1e-5 * range);
        Outcome {
            exact: exact / queries as f64,
            own: own / n as f64,
            promise: report.bound.value / range,
            error: error / range,
            exact_rows: report.exact_rows,
        }
    }
}

struct Outcome {
    /// Seconds per query.
    exact: f64,
    /// Seconds per token, as key and as query.
    own: f64,
    /// In ranges of the values.
    promise: f32,
    error: f32,
    exact_rows: usize,
}

fn main() {
    let isa = Isa::best();
    println!("polynomial against exact attention, one core, {}\n", isa.name());
    println!(" d  g  beta    tol        n   state, push and query   exact       ratio   promise   error   (in ranges)  exact rows");
    for (dim, degree, beta, tolerance, n) in [
        (4, 8, 4.0, 1e-3, 1_000_000),
        (8, 4, 1.0, 1e-3, 1_000_000),
        (16, 2, 0.5, 1e-2, 100_000),
        (64, 2, 0.5, 1e-2, 100_000),
    ] {
        let keys = Keys::new(n, dim, beta);
        let Outcome {
            exact,
            own,
            promise,
            error,
            exact_rows,
        } = keys.race(degree, tolerance, isa);
        println!(
            "{dim:2} {degree:2} {beta:5.1} {tolerance:6.0e} {n:8} {:14.1} ns/token {:12.0} ns/query {:8.0}x {promise:9.1e} {error:9.1e} {exact_rows:12}",
            own * 1e9, exact * 1e9, exact / own
        );
    }
}

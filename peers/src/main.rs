//! What attention costs when it is composed: scores by a matrix multiplication, a softmax per row, values by another one.
//!
//! ```text
//! cd peers && cargo run --release
//! ```
//!
//! One core, one head, the same inputs, turns taken in one process; each contender is credited with its best turn. The
//! composed form gets what a careful host would give it: its n x n scores are allocated once, and its softmax is this
//! crate's, which is faster than a call of exp per number. Every output is compared with the formula in f64 on a few rows,
//! and the process fails where one is off.

use std::time::Instant;
use subquad::attention::Exact;
use subquad::{kernels, Isa, MatMut, MatRef, Scratch};

/// `c = a b` or `c = a b^T`, row-major, sizes m x k and k x n.
type Multiply = fn(m: usize, k: usize, n: usize, a: &[f32], b: &[f32], transposed: bool, c: &mut [f32]);

/// The crate `gemm`, on one thread.
fn by_gemm(m: usize, k: usize, n: usize, a: &[f32], b: &[f32], transposed: bool, c: &mut [f32]) {
    let (b_row, b_col) = if transposed { (1, k) } else { (n, 1) };
    assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n);
    // SAFETY: the three matrices have just been found to be as long as their sizes say, and `c` is borrowed mutably.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.as_ptr(),
            1,
            k as isize,
            b.as_ptr(),
            b_col as isize,
            b_row as isize,
            0.0f32,
            1.0f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// The crate `matrixmultiply`.
fn by_matrixmultiply(m: usize, k: usize, n: usize, a: &[f32], b: &[f32], transposed: bool, c: &mut [f32]) {
    let (b_row, b_col) = if transposed { (1, k) } else { (n, 1) };
    assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n);
    // SAFETY: as in `by_gemm`.
    unsafe {
        matrixmultiply::sgemm(
            m,
            k,
            n,
            1.0,
            a.as_ptr(),
            k as isize,
            1,
            b.as_ptr(),
            b_row as isize,
            b_col as isize,
            0.0,
            c.as_mut_ptr(),
            n as isize,
            1,
        );
    }
}

struct Head {
    n: usize,
    dim: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Head {
    /// Numbers between -1 and 1, queries times 1 / sqrt(dim).
    fn new(n: usize, dim: usize) -> Head {
        let numbers = |seed: u64, scale: f32| -> Vec<f32> {
            let mut state = seed;
            let mut next = || {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                ((state >> 40) as f32 / 8_388_608.0 - 1.0) * scale
            };
            (0..n * dim).map(|_| next()).collect()
        };
        Head {
            n,
            dim,
            q: numbers(1, 3.0 / (dim as f32).sqrt()),
            k: numbers(2, 1.0),
            v: numbers(3, 1.0),
        }
    }

    fn composed(&self, multiply: Multiply, isa: Isa, scores: &mut [f32], out: &mut [f32]) {
        let Head { n, dim, q, k, v } = self;
        multiply(*n, *dim, *n, q, k, true, scores);
        for row in scores.chunks_exact_mut(*n) {
            kernels::softmax(isa, row);
        }
        multiply(*n, *n, *dim, scores, v, false, out);
    }

    /// Some rows of the output in f64.
    fn check(&self, out: &[f32], who: &str) {
        let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
        for i in [0, self.n / 2, self.n - 1] {
            let rows = |x: &'_ [f32]| x.chunks_exact(self.dim).map(<[f32]>::to_vec).collect::<Vec<_>>();
            let (k, v) = (rows(&self.k), rows(&self.v));
            let q = &self.q[i * self.dim..(i + 1) * self.dim];
            let p: Vec<f64> = k.iter().map(|k| dot(q, k).exp()).collect();
            let sum: f64 = p.iter().sum();
            for c in 0..self.dim {
                let exact: f64 = p.iter().zip(&v).map(|(p, v)| p * f64::from(v[c])).sum::<f64>() / sum;
                let off = (f64::from(out[i * self.dim + c]) - exact).abs();
                // Scores below 10 and sums of n positive weights, |v| <= 1: a few hundred roundings at most.
                assert!(off < 3e-5, "{who}: row {i}, column {c} is off by {off:e}");
            }
        }
    }
}

/// Seconds of each contender's best turn.
fn race<const N: usize>(contenders: [&mut dyn FnMut(); N]) -> [f64; N] {
    let mut best = [f64::INFINITY; N];
    let mut contenders = contenders;
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < 4.0 {
        for (f, best) in contenders.iter_mut().zip(&mut best) {
            let turn = Instant::now();
            f();
            *best = best.min(turn.elapsed().as_secs_f64());
        }
    }
    best
}

fn main() -> Result<(), subquad::Error> {
    let isa = Isa::best();
    println!("one head, one core, {}; GFLOP/s of 4 n^2 d", isa.name());
    println!(
        "{:>6} {:>5} {:>10} {:>10} {:>15} {:>12}",
        "n", "d", "subquad", "gemm", "matrixmultiply", "best of them"
    );
    for (n, dim) in [(512, 32), (1024, 64), (4096, 16), (4096, 64), (4096, 128)] {
        let head = Head::new(n, dim);
        let view = |x: &'static [f32]| MatRef::new(x, n, dim);
        let leak = |x: &Vec<f32>| -> &'static [f32] { Box::leak(x.clone().into_boxed_slice()) };
        let (q, k, v) = (view(leak(&head.q))?, view(leak(&head.k))?, view(leak(&head.v))?);
        let rules = subquad::attention::Rules::new().with_scale(1.0);
        let plan = Exact::for_views(q, k, v)?.with_rules(rules)?;
        let mut work = vec![std::mem::MaybeUninit::uninit(); plan.need().bytes()];
        let mut scores = [vec![0.0f32; n * n], vec![0.0; n * n]];
        let mut out = [vec![0.0f32; n * dim], vec![0.0; n * dim], vec![0.0; n * dim]];
        let [ours, first, second] = &mut out;
        let [scores_1, scores_2] = &mut scores;
        let times = race([
            &mut || {
                let to = MatMut::new(ours, n, dim).expect("a matrix");
                assert!(plan.forward(q, k, v, to, &mut Scratch::new(&mut work)).is_ok());
            },
            &mut || head.composed(by_gemm, isa, scores_1, first),
            &mut || head.composed(by_matrixmultiply, isa, scores_2, second),
        ]);
        for (out, who) in out.iter().zip(["subquad", "gemm", "matrixmultiply"]) {
            head.check(out, who);
        }
        let speed = times.map(|t| 4.0 * (n * n * dim) as f64 / t / 1e9);
        let [ours, first, second] = speed;
        println!(
            "{n:>6} {dim:>5} {ours:>10.1} {first:>10.1} {second:>15.1} {:>11.2}x",
            ours / first.max(second)
        );
    }
    Ok(())
}

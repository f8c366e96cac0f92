//! A loss goes down: `cargo run --release --example gradient`.
//!
//! Queries `A1 X` look for keys, and should find what another, hidden X would find. Gradient descent on
//! `L(X) = 1/2 || attention(A1 X, A2, A3 Y) - E ||^2`, every gradient exact up to rounding.

#[path = "../benches/support/mod.rs"]
mod support;

use subquad::attention::{Fit, FitGradients, FitInputs};
use subquad::{Error, MatMut, MatRef, Scratch};
use support::{memory, Aligned};

const ROWS: usize = 256;
const DIM: usize = 16;
const STEPS: usize = 201;

fn main() -> Result<(), Error> {
    let rows = |seed| Aligned::normal(ROWS * DIM, seed);
    let square = |seed| Aligned::normal(DIM * DIM, seed);
    let (a1, a2, a3) = (rows(1), rows(2), rows(3));
    let (hidden, mut x, y) = (square(4), square(5), square(6));
    let target = found(&a1, &hidden, &a2, &a3, &y);

    let matrix = |x| MatRef::new(x, ROWS, DIM);
    let mut slope = Aligned::zeros(DIM * DIM);
    let (mut first, mut last) = (f32::NAN, f32::NAN);
    let mut bytes = Vec::new();
    for step in 0..STEPS {
        let inputs = FitInputs {
            queries: matrix(&a1)?,
            keys: matrix(&a2)?,
            values: matrix(&a3)?,
            x: MatRef::new(&x, DIM, DIM)?,
            y: MatRef::new(&y, DIM, DIM)?,
            target: matrix(&target)?,
        };
        let plan = Fit::for_inputs(&inputs)?;
        if bytes.is_empty() {
            bytes = memory(plan.need()?);
        }
        let to = FitGradients {
            x: Some(MatMut::new(&mut slope, DIM, DIM)?),
            y: None,
        };
        let (loss, _) = plan.run(&inputs, to, &mut Scratch::new(&mut bytes))?;
        if step == 0 {
            first = loss;
        }
        if step % 40 == 0 {
            println!("step {step:3}: loss {loss:.6}");
        }
        last = loss;
        x.iter_mut().zip(slope.iter()).for_each(|(x, s)| *x -= 0.03 * s);
    }
    assert!(last < 0.01 * first, "from {first} to {last} only");
    Ok(())
}

/// The attention output for parameters X and Y, in f64.
fn found(a1: &[f32], x: &[f32], a2: &[f32], a3: &[f32], y: &[f32]) -> Aligned {
    let product = |a: &[f32], b: &[f32]| -> Vec<f64> {
        let entry = |r: usize, c: usize| {
            (0..DIM)
                .map(|k| f64::from(a[r * DIM + k]) * f64::from(b[k * DIM + c]))
                .sum()
        };
        (0..ROWS * DIM).map(|i| entry(i / DIM, i % DIM)).collect()
    };
    let (q, v) = (product(a1, x), product(a3, y));
    let mut out = Aligned::zeros(ROWS * DIM);
    for (q, out) in q.chunks(DIM).zip(out.chunks_mut(DIM)) {
        let score = |k: &[f32]| q.iter().zip(k).map(|(q, &k)| q * f64::from(k)).sum::<f64>() / DIM as f64;
        let weights: Vec<f64> = a2.chunks(DIM).map(|k| score(k).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for (c, out) in out.iter_mut().enumerate() {
            *out = (weights.iter().zip(v.chunks(DIM)).map(|(w, v)| w * v[c]).sum::<f64>() / sum) as f32;
        }
    }
    out
}

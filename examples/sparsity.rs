//! How many keys a row needs: `cargo run --release --example sparsity`.
//!
//! First what normal scores promise, then what certified pruning reads of keys of several kinds.

#[path = "../benches/support/mod.rs"]
mod support;

use subquad::attention::sparsity::{exponent, kept_for_mass};
use subquad::attention::{cluster, cluster_need, Index, Pruned, Shape};
use subquad::{Error, MatMut, MatRef, Scratch};
use support::{memory, Aligned};

const KEYS: usize = 8192;
const QUERIES: usize = 64;
const BLOCK: usize = 32;
const THETA: f32 = 0.01;

fn main() -> Result<(), Error> {
    println!("share of the keys for all but theta of the weight, normal scores");
    println!("       n  sigma  theta 0.1    0.01   0.001  exponent");
    for (n, sigma) in [
        (10_000, 0.5),
        (10_000, 1.0),
        (10_000, 2.0),
        (10_000, 3.0),
        (1_000_000, 4.0),
    ] {
        let share = |theta| kept_for_mass(n, sigma, theta) / n as f32;
        let [a, b, c] = [share(0.1), share(0.01), share(0.001)];
        println!("{n:8} {sigma:6} {a:10.3} {b:7.3} {c:7.3} {:9.2}", exponent(n, sigma));
    }
    println!("\nshare of {KEYS} keys that is read, theta = {THETA}, keys ordered by k-means");
    println!("keys                 scale 1  scale 4  promise, in ranges of the values");
    for (name, dim, kind) in [
        ("normal, 8", 8, 0),
        ("normal, 64", 64, 0),
        ("64 clusters, 64", 64, 1),
        ("4-plane, 64", 64, 2),
    ] {
        let (one, _) = touched(dim, kind, 1.0)?;
        let (four, bound) = touched(dim, kind, 4.0)?;
        println!("{name:20} {one:7.3} {four:8.3} {bound:8.4}");
    }
    Ok(())
}

/// Normal keys, keys around 64 centres, keys in a plane of four dimensions; queries are like keys.
fn rows(count: usize, dim: usize, kind: usize, seed: u64) -> Aligned {
    let mut x = Aligned::normal(count * dim, seed);
    let (centres, places) = (Aligned::normal(64 * dim, 1), Aligned::normal(count * 4, seed + 1));
    for (i, row) in x.chunks_mut(dim).enumerate() {
        for (c, x) in row.iter_mut().enumerate() {
            match kind {
                // A quarter of the spread is inside a cluster.
                1 => *x = centres[(i * 37 % 64) * dim + c] + 0.25 * *x,
                2 => *x = (0..4).map(|a| places[i * 4 + a] * centres[a * dim + c]).sum::<f32>(),
                _ => {}
            }
        }
    }
    x
}

/// The share of the keys that is read, and the promise in ranges of the values.
fn touched(dim: usize, kind: usize, scale: f32) -> Result<(f64, f32), Error> {
    let (mut q, keys) = (rows(QUERIES, dim, kind, 10), rows(KEYS, dim, kind, 20));
    q.iter_mut().for_each(|x| *x *= scale);
    let mut order = vec![0; KEYS];
    let mut bytes = memory(cluster_need(KEYS, dim, KEYS / BLOCK));
    cluster(
        MatRef::new(&keys, KEYS, dim)?,
        KEYS / BLOCK,
        &mut order,
        &mut Scratch::new(&mut bytes),
    )?;
    let mut k = Aligned::zeros(KEYS * dim);
    for (to, &from) in k.chunks_mut(dim).zip(&order) {
        to.copy_from_slice(&keys[from as usize * dim..][..dim]);
    }
    // Values between -1 and 1: a range of 2.
    let mut v = Aligned::zeros(KEYS * 4);
    v.iter_mut().enumerate().for_each(|(i, x)| *x = (i as f32).sin());
    let (q, k, v) = (
        MatRef::new(&q, QUERIES, dim)?,
        MatRef::new(&k, KEYS, dim)?,
        MatRef::new(&v, KEYS, 4)?,
    );
    let mut room = vec![0.0; Index::len(dim, 4, BLOCK, KEYS)?];
    let mut index = Index::new(dim, 4, BLOCK, &mut room)?;
    index.extend(k, v)?;
    let plan = Pruned::new(Shape::head(QUERIES, KEYS, dim, 4), BLOCK)?.with_share(THETA)?;
    let mut bytes = memory(plan.need());
    let mut out = vec![0.0; QUERIES * 4];
    let out = MatMut::new(&mut out, QUERIES, 4)?;
    let report = plan.forward(&index, [q, k, v], out, &mut Scratch::new(&mut bytes))?;
    Ok((
        report.keys_read as f64 / (QUERIES * KEYS) as f64,
        report.bound.value / 2.0,
    ))
}

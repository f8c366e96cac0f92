//! Runs each kernel and both attention plans on every back end of this machine, and prints one checksum per back end.
//!
//! Back ends of one class (fused, strict) print the same number. `tests/sh/intrinsics.sh` reads the machine code of
//! this program.

use std::mem::MaybeUninit;
use subquad::attention::{Decode, Exact, Outputs, Rules, Stage};
use subquad::{kernels, Error, Isa, MatRef, Scratch, TensorMut};

const QUERIES: usize = 9;
const KEYS: usize = 300;
const DIM: usize = 21;

/// Numbers between -1 and 1 without a pattern.
fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let one = |i: u32| (i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0;
    (0..n as u32).map(one).collect()
}

fn elementary(isa: Isa, x: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; 2 * x.len()];
    let (exp, tanh) = y.split_at_mut(x.len());
    kernels::exp(isa, x, exp);
    kernels::tanh(isa, x, tanh);
    let wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    y.push(kernels::dot(isa, x, x));
    y.push(kernels::dot_f64(isa, &wide, &wide) as f32);
    y
}

fn attention(isa: Isa, rules: Rules<'_>, exact: bool) -> Result<Vec<f32>, Error> {
    let (q, k, v) = (
        numbers(QUERIES * DIM, 1),
        numbers(KEYS * DIM, 2),
        numbers(KEYS * DIM, 3),
    );
    let (q, k) = (MatRef::new(&q, QUERIES, DIM)?, MatRef::new(&k, KEYS, DIM)?);
    let v = MatRef::new(&v, KEYS, DIM)?;
    let (mut out, mut scores) = (vec![0.0; QUERIES * DIM], vec![0.0; QUERIES * KEYS]);
    let outputs = Outputs {
        out: Some(TensorMut::new(&mut out, [1, 1, QUERIES, DIM])?),
        scores: Some((Stage::Softmax, TensorMut::new(&mut scores, [1, 1, QUERIES, KEYS])?)),
        ..Outputs::default()
    };
    let (exact_plan, decode_plan) = (
        Exact::for_views(q, k, v)?.with_rules(rules)?.with_isa(isa),
        Decode::for_views(q, k, v)?.with_rules(rules)?.with_isa(isa),
    );
    let need = exact_plan.need_with_scores().or(decode_plan.need());
    let mut work = vec![MaybeUninit::uninit(); need.bytes()];
    let mut scratch = Scratch::new(&mut work);
    let report = if exact {
        exact_plan.run(q.into(), k.into(), v.into(), outputs, &mut scratch)?
    } else {
        decode_plan.run(q.into(), k.into(), v.into(), outputs, &mut scratch)?
    };
    assert_eq!((report.masked_rows, report.non_finite_rows), (0, 0));
    out.append(&mut scores);
    Ok(out)
}

fn main() -> Result<(), Error> {
    let limited = Rules::new().with_causal().with_cap(3.0);
    for isa in Isa::all() {
        let mut results = elementary(isa, &numbers(1000, 4));
        for exact in [true, false] {
            for rules in [Rules::new(), limited] {
                results.append(&mut attention(isa, rules, exact)?);
            }
        }
        // FNV-1a over the bits: any difference shows.
        let hash = results.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, x| {
            (hash ^ u64::from(x.to_bits())).wrapping_mul(0x0100_0000_01b3)
        });
        println!(
            "{:13} {} {hash:016x}",
            isa.name(),
            if isa.fused() { "fused " } else { "strict" }
        );
    }
    Ok(())
}

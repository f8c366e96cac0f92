//! Runs each kernel, both attention plans, all storage formats, the gradient and moments on every back end of this machine, and prints one checksum per back end.
//!
//! Back ends of one class (fused, strict) print the same number. `tests/sh/intrinsics.sh` reads the machine code of
//! this program.

use std::mem::MaybeUninit;
use subquad::attention::{Decode, Exact, Gradient, Gradients, Outputs, Rules, Saved, Stage, Upstream};
use subquad::attention::{Pairing, Positions, Rotary};
use subquad::{half, kernels, moment, Error, Isa, MatMut, MatRef, RowsRef, Scratch, TensorMut, TensorRef};

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

/// Rows turned by their positions, in both pairings.
fn rotary(isa: Isa) -> Result<Vec<f32>, Error> {
    let mut rows = numbers(KEYS * DIM, 12);
    for pairing in [Pairing::Halves, Pairing::Neighbours] {
        let rotary = Rotary::new(DIM, DIM - 1, 10_000.0)?.with_pairing(pairing).with_isa(isa);
        rotary.apply(MatMut::new(&mut rows, KEYS, DIM)?.into(), Positions::From(1 << 20))?;
    }
    Ok(rows)
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

/// One query against keys and values in each format, by both plans.
fn stored(isa: Isa) -> Result<Vec<f32>, Error> {
    let (q, x) = (numbers(DIM, 5), numbers(KEYS * DIM, 6));
    let f16: Vec<u16> = x.iter().map(|&x| half::f16_from_f32(x)).collect();
    let bf16: Vec<u16> = x.iter().map(|&x| half::bf16_from_f32(x)).collect();
    let i8: Vec<i8> = x.iter().map(|x| (x * 127.0) as i8).collect();
    let scales = vec![1.0 / 127.0; KEYS];
    let shape = [1, 1, KEYS, DIM];
    let formats = [
        RowsRef::f16(TensorRef::new(&f16, shape)?),
        RowsRef::bf16(TensorRef::new(&bf16, shape)?),
        RowsRef::i8(TensorRef::new(&i8, shape)?, TensorRef::new(&scales, [1, 1, 1, KEYS])?)?,
    ];
    let (q, f32) = (MatRef::new(&q, 1, DIM)?, MatRef::new(&x, KEYS, DIM)?);
    let few = Decode::for_views(q, f32, f32)?.with_isa(isa);
    let many = Exact::for_views(q, f32, f32)?.with_isa(isa);
    let mut work = vec![MaybeUninit::uninit(); few.need().or(many.need_rows()).bytes()];
    let mut results = Vec::new();
    for (rows, exact) in formats.into_iter().flat_map(|rows| [(rows, false), (rows, true)]) {
        let mut out = vec![0.0; DIM];
        let outputs = Outputs {
            out: Some(MatMut::new(&mut out, 1, DIM)?.into()),
            ..Outputs::default()
        };
        let mut scratch = Scratch::new(&mut work);
        let report = match exact {
            true => many.run_rows(q.into(), rows, rows, outputs, &mut scratch)?,
            false => few.run_rows(q.into(), rows, rows, outputs, &mut scratch)?,
        };
        assert_eq!(report.non_finite_rows, 0);
        results.append(&mut out);
    }
    Ok(results)
}

/// The gradient for queries, keys and values.
fn gradient(isa: Isa, rules: Rules<'_>) -> Result<Vec<f32>, Error> {
    let x: Vec<Vec<f32>> = (7..11).map(|seed| numbers(KEYS * DIM, seed)).collect();
    let (q, k) = (MatRef::new(&x[0], QUERIES, DIM)?, MatRef::new(&x[1], KEYS, DIM)?);
    let (v, d_out) = (MatRef::new(&x[2], KEYS, DIM)?, MatRef::new(&x[3], QUERIES, DIM)?);
    let forward = Exact::for_views(q, k, v)?.with_rules(rules)?.with_isa(isa);
    let backward = Gradient::for_views(q, k, v)?.with_rules(rules)?.with_isa(isa);
    let mut work = vec![MaybeUninit::uninit(); forward.need().or(backward.need()).bytes()];
    let mut scratch = Scratch::new(&mut work);
    let (mut out, mut lse) = (vec![0.0; QUERIES * DIM], vec![0.0; QUERIES]);
    let outputs = Outputs {
        out: Some(MatMut::new(&mut out, QUERIES, DIM)?.into()),
        lse: Some(MatMut::new(&mut lse, QUERIES, 1)?.into()),
        ..Outputs::default()
    };
    let report = forward.run(q.into(), k.into(), v.into(), outputs, &mut scratch)?;
    let upstream = Upstream {
        out: MatRef::new(&out, QUERIES, DIM)?.into(),
        d_out: d_out.into(),
        saved: Saved::Lse(MatRef::new(&lse, QUERIES, 1)?.into()),
        d_lse: None,
    };
    let (mut dq, mut dk, mut dv) = (vec![0.0; QUERIES * DIM], vec![0.0; KEYS * DIM], vec![0.0; KEYS * DIM]);
    let gradients = Gradients {
        q: Some(MatMut::new(&mut dq, QUERIES, DIM)?.into()),
        k: Some(MatMut::new(&mut dk, KEYS, DIM)?.into()),
        v: Some(MatMut::new(&mut dv, KEYS, DIM)?.into()),
        ..Gradients::default()
    };
    let back = backward.run(q.into(), k.into(), v.into(), upstream, gradients, &mut scratch)?;
    assert_eq!((report.non_finite_rows, back.non_finite_rows), (0, 0));
    Ok([dq, dk, dv].concat())
}

/// Moments of scores, pushed with lanes that are tokens and with lanes that are values.
fn moments(isa: Isa, value_dim: usize) -> Result<Vec<f32>, Error> {
    let (dim, degree) = (5, 3);
    let (k, v, q) = (
        numbers(KEYS * dim, 12),
        numbers(KEYS * value_dim, 13),
        numbers(QUERIES * dim, 14),
    );
    let shape = moment::Shape::new(dim, value_dim, degree);
    let mut memory = vec![0.0; shape.state_len()?];
    let mut bytes = vec![MaybeUninit::uninit(); shape.need().bytes()];
    let mut state = moment::State::new(shape, &[0.25; 5], 4.0, &mut memory)?.with_isa(isa);
    let (k, v) = (MatRef::new(&k, KEYS, dim)?, MatRef::new(&v, KEYS, value_dim)?);
    state.push(k, v, &mut Scratch::new(&mut bytes))?;
    let mut weighted = vec![0.0; shape.frozen_len().unwrap_or(0)];
    let frozen = state.freeze(&mut weighted, &mut Scratch::new(&mut bytes))?;
    let lanes = moment::lanes(isa);
    let mut bytes = vec![MaybeUninit::uninit(); shape.work_need(isa).bytes()];
    let mut work = moment::Work::new(shape, isa, &mut Scratch::new(&mut bytes))?;
    let (mut sums, mut magnitudes) = (vec![0.0; 4 * (value_dim + 1) * lanes], vec![0.0; 4 * lanes]);
    let answer = moment::Answer {
        moments: &mut sums,
        magnitudes: Some(&mut magnitudes),
    };
    frozen.query(MatRef::new(&q, 1, dim)?, 0.5, &mut work, answer)?;
    Ok(sums.into_iter().chain(magnitudes).step_by(lanes).collect())
}

fn main() -> Result<(), Error> {
    let limited = Rules::new().with_causal().with_cap(3.0);
    for isa in Isa::all() {
        let mut results = elementary(isa, &numbers(1000, 4));
        results.append(&mut rotary(isa)?);
        for exact in [true, false] {
            for rules in [Rules::new(), limited] {
                results.append(&mut attention(isa, rules, exact)?);
            }
        }
        results.append(&mut stored(isa)?);
        for rules in [Rules::new(), limited] {
            results.append(&mut gradient(isa, rules)?);
        }
        for value_dim in [5, 16] {
            results.append(&mut moments(isa, value_dim)?);
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

//! Promises of estimates against the truth, from power sums made in f64.

use super::series::{minimax, taylor_rest, TAYLOR};
use crate::bound::gamma;
use crate::kernels::{estimate, estimate_roundings, Estimates, Keys, Polynomials};
use crate::rng::Philox;
use crate::simd::Isa;
use std::{vec, vec::Vec};

/// Uniform and about normal numbers in f64.
struct Random(Philox);

impl Random {
    fn unit(&mut self) -> f64 {
        f64::from(self.0.uniform())
    }
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

struct Case {
    x: Vec<Vec<f64>>,
    v: Vec<Vec<f64>>,
    q: Vec<Vec<f32>>,
    degree: usize,
}

/// Keys in the unit ball, queries of length up to `beta`.
fn case(r: &mut Random, kind: usize, dim: usize, columns: usize, degree: usize, beta: f64) -> Case {
    let n = 1 + (r.unit() * 60.0) as usize;
    let row = |r: &mut Random, length: f64| {
        let x: Vec<f64> = (0..dim).map(|_| r.normal()).collect();
        let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-9);
        x.into_iter()
            .map(|x| f64::from((x / norm * length) as f32))
            .collect::<Vec<_>>()
    };
    let centre = row(r, 0.9);
    let x: Vec<Vec<f64>> = (0..n)
        .map(|i| match kind {
            // On the sphere; inside; far from the origin and close together; on one line.
            0 => row(r, 0.999),
            1 => {
                let length = r.unit();
                row(r, length)
            }
            2 => {
                let d = row(r, 1e-3);
                centre.iter().zip(d).map(|(c, d)| f64::from((c + d) as f32)).collect()
            }
            _ => {
                let mut x = vec![0.0; dim];
                x[0] = if i % 2 == 0 { 0.999 } else { -0.999 };
                x
            }
        })
        .collect();
    let signs = r.unit() < 0.5;
    let v = x
        .iter()
        .map(|x| {
            (0..columns)
                .map(|c| {
                    if signs {
                        if x[0] < 0.0 {
                            -1.0
                        } else {
                            1.0
                        }
                    } else {
                        f64::from((r.normal() + 3.0 * c as f64) as f32)
                    }
                })
                .collect()
        })
        .collect();
    let mut q: Vec<Vec<f32>> = (0..16)
        .map(|_| {
            let length = beta * r.unit();
            row(r, length).iter().map(|&x| x as f32).collect()
        })
        .collect();
    q[0] = vec![0.0; dim];
    q[1] = vec![0.0; dim];
    q[1][0] = beta as f32 * 0.999;
    Case { x, v, q, degree }
}

struct Result {
    out: Vec<f32>,
    out_bound: Vec<f32>,
    mass: Vec<f32>,
    mean: Vec<f32>,
    mass_bound: Vec<f32>,
    range: f64,
}

/// Sums rounded to f32, and the estimates of a back end.
fn run(isa: Isa, case: &Case, wanted: f32) -> Result {
    let (lanes, columns, terms) = (16, case.v[0].len(), case.degree + 1);
    let mut sums = vec![0.0f32; terms * (columns + 1) * lanes];
    for (lane, q) in case.q.iter().enumerate() {
        for j in 0..terms {
            for c in 0..=columns {
                let sum: f64 = case
                    .x
                    .iter()
                    .zip(&case.v)
                    .map(|(x, v)| {
                        let score: f64 = x.iter().zip(q).map(|(x, &q)| x * f64::from(q)).sum();
                        score.powi(j as i32) * v.get(c).copied().unwrap_or(1.0)
                    })
                    .sum();
                sums[(j * (columns + 1) + c) * lanes + lane] = sum as f32;
            }
        }
    }
    let dim = case.x[0].len();
    let q_t: Vec<f32> = (0..dim * lanes).map(|i| case.q[i % lanes][i / lanes]).collect();
    // A sum of f32 has one rounding, and the estimate those that it says.
    let relative = f64::from(gamma(1 + estimate_roundings(case.degree)));
    let length = |x: &Vec<f64>| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let errors: Vec<f32> = (0..terms)
        .map(|i| (case.x.iter().map(|x| length(x).powi(i as i32)).sum::<f64>() * relative * 1.000001) as f32)
        .collect();
    let fold = |c: usize, f: fn(f64, f64) -> f64| case.v.iter().map(|v| v[c]).reduce(f).unwrap() as f32;
    let low: Vec<f32> = (0..columns).map(|c| fold(c, f64::min)).collect();
    let high: Vec<f32> = (0..columns).map(|c| fold(c, f64::max)).collect();
    let range = low.iter().zip(&high).map(|(l, h)| h - l).fold(0.0, f32::max);
    let value = low.iter().chain(&high).map(|x| x.abs()).fold(0.0, f32::max);
    let keys = Keys {
        errors: &errors,
        radius: 1.0,
        low: &low,
        high: &high,
        value,
        range,
        lost: 1e-30,
        wanted,
    };
    let longest = case
        .q
        .iter()
        .map(|q| q.iter().map(|&q| q * q).sum::<f32>().sqrt())
        .fold(0.0, f32::max);
    let of = Polynomials {
        taylor: &TAYLOR[..terms],
        taylor_next: taylor_rest(case.degree, 0.0, 1.0),
        minimax: minimax(case.degree, longest * 1.01).map(|m| (m.reach, m.coefficients, m.share())),
    };
    let mut result = Result {
        out: vec![0.0; columns * lanes],
        out_bound: vec![0.0; lanes],
        mass: vec![0.0; lanes],
        mean: vec![0.0; lanes],
        mass_bound: vec![0.0; lanes],
        range: f64::from(range),
    };
    let mut block = Estimates {
        sums: &sums,
        q_t: &q_t,
        lanes,
        out: &mut result.out,
        mean: &mut result.mean,
        mass: &mut result.mass,
        out_bound: &mut result.out_bound,
        mass_bound: &mut result.mass_bound,
    };
    estimate(isa, &keys, &of, &mut block);
    result
}

#[test]
fn no_promise_is_broken() {
    let mut r = Random(Philox::new(7, 0));
    let (mut tight, mut tight_mass) = (0.0f64, 0.0f64);
    for trial in 0..4000 {
        let (dim, columns, degree) = (1 + trial % 5, 1 + trial % 3, 1 + trial % 9);
        let beta = [0.1, 0.5, 1.0, 2.0, 4.0, 8.0][trial / 7 % 6];
        let case = case(&mut r, trial % 4, dim, columns, degree, beta);
        let wanted = [0.0, 1e-2, f32::INFINITY][trial / 5 % 3];
        let result = run(Isa::best(), &case, wanted);
        for (lane, q) in case.q.iter().enumerate() {
            let weights: Vec<f64> = case
                .x
                .iter()
                .map(|x| x.iter().zip(q).map(|(x, &q)| x * f64::from(q)).sum::<f64>().exp())
                .collect();
            let sum: f64 = weights.iter().sum();
            for c in 0..columns {
                let truth: f64 = weights.iter().zip(&case.v).map(|(w, v)| w * v[c]).sum::<f64>() / sum;
                let error = (truth - f64::from(result.out[c * 16 + lane])).abs();
                let bound = f64::from(result.out_bound[lane]);
                assert!(
                    error <= bound + 1e-13,
                    "trial {trial} lane {lane}: {error:e} > {bound:e}"
                ); // f64 rounds too
                if result.range > 0.0 && error > 1e-5 {
                    tight = tight.max(error / bound);
                }
            }
            let lse = f64::from(result.mean[lane]) + f64::from(result.mass[lane]).ln();
            let error = (lse - sum.ln()).abs();
            let bound = f64::from(result.mass_bound[lane]);
            assert!(
                error <= bound + 1e-13 || bound.is_infinite(),
                "trial {trial} lane {lane}: mass {error:e} > {bound:e}"
            );
            if error > 1e-5 {
                tight_mass = tight_mass.max(error / bound);
            }
        }
    }
    std::println!("tightest {tight} {tight_mass}");
    // Halved, the promise would be broken: keys at two ends with values of their sign.
    assert!(tight > 0.5 && tight <= 1.0, "{tight}");
    assert!(tight_mass > 0.5, "{tight_mass}");
}

#[test]
fn every_back_end_estimates_the_same() {
    let mut r = Random(Philox::new(9, 0));
    for trial in 0..60 {
        let case = case(&mut r, trial % 4, 3, 2, 1 + trial % 8, 2.0);
        let bits = |isa| {
            let result = run(isa, &case, 1e-2);
            let all = [
                result.out,
                result.out_bound,
                result.mass,
                result.mean,
                result.mass_bound,
            ];
            all.concat().iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        for isa in Isa::all() {
            let other = Isa::all().find(|i| i.fused() == isa.fused()).unwrap();
            assert_eq!(bits(isa), bits(other), "{isa:?}");
        }
    }
}

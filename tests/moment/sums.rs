//! Pushing, merging and asking.

use super::model::{Answers, Own, Problem};
use subquad::moment::{Shape, State, Summary};
use subquad::{Isa, MatRef, Scratch};

fn shape(dim: usize, value_dim: usize, degree: usize, block: usize) -> Shape {
    Shape {
        dim,
        value_dim,
        degree,
        block,
        // Both ways of adding.
        compensated: (dim + degree).is_multiple_of(2),
    }
}

/// Odd and even sizes, without columns, without variables, of degree 0; both forms of pushing.
const SHAPES: [(usize, usize, usize, usize); 22] = [
    (4, 4, 8, 256),
    (8, 8, 4, 256),
    (16, 16, 2, 256),
    (64, 64, 2, 64),
    (1, 1, 5, 16),
    (1, 16, 9, 32),
    (2, 3, 5, 48),
    (3, 5, 4, 16),
    (5, 2, 3, 64),
    (6, 7, 2, 16),
    (7, 12, 3, 32),
    (3, 19, 3, 16),
    (5, 32, 2, 16),
    (2, 48, 3, 32),
    (3, 80, 2, 16),
    (2, 0, 4, 16),
    (0, 3, 2, 16),
    (0, 16, 1, 16),
    (0, 0, 0, 16),
    (4, 4, 0, 16),
    (4, 16, 0, 16),
    (9, 6, 1, 32),
];

const TOKENS: [usize; 5] = [0, 1, 15, 77, 530];

/// The members of a class; the first, one lane in software, is the reference of the others.
fn class(fused: bool) -> Vec<Isa> {
    let reference = if fused { "fused-emu1" } else { "emu1" };
    let mut class: Vec<Isa> = Isa::all().filter(|isa| isa.fused() == fused).collect();
    class.sort_by_key(|isa| isa.name() != reference);
    assert_eq!(class[0].name(), reference);
    class
}

fn bits(a: &Answers) -> Vec<Vec<u32>> {
    let rows = a.moments.iter().chain(&a.magnitudes);
    rows.map(|row| row.iter().map(|x| x.to_bits()).collect()).collect()
}

/// Checks answers against f64; returns the largest part of the bound that was used.
fn check(p: &Problem, own: &mut Own, answers: &Answers) -> f64 {
    own.with_summary(|summary| used_of(p, answers, summary))
}

fn used_of(p: &Problem, answers: &Answers, summary: Summary<'_>) -> f64 {
    let columns = p.shape.value_dim + 1;
    let mut used = 0.0f64;
    for i in 0..p.queries {
        let exact = p.moments(i);
        let q = &p.q[i * p.shape.dim..][..p.shape.dim];
        let norm = q.iter().map(|&q| f64::from(q).powi(2)).sum::<f64>().sqrt() * f64::from(p.tau * summary.scale());
        let norm = (norm * 1.000_001) as f32;
        for (at, (&got, &want)) in answers.moments[i].iter().zip(&exact).enumerate() {
            let (degree, column) = (at / columns, at % columns);
            let error = (f64::from(got) - want).abs();
            let bound = |bound: f32| -> f64 {
                assert!(bound.is_finite());
                assert!(
                    error <= f64::from(bound),
                    "{:?} {} tokens, degree {degree}, column {column}: {got} {want}, {bound}",
                    p.shape,
                    p.tokens
                );
                error / f64::from(bound)
            };
            if column < p.shape.value_dim {
                used = used.max(bound(summary.error(degree, norm, 2.0)));
            } else {
                used = used.max(bound(summary.error(degree, norm, 1.0)));
                used = used.max(bound(summary.count_error(degree, norm, answers.magnitudes[i][degree])));
            }
        }
    }
    used
}

#[test]
fn answers_are_within_their_bound_of_f64_and_sums_near() {
    let (mut used, mut worst) = (0.0f64, 0.0f64);
    for (n, (d, dv, g, block)) in SHAPES.into_iter().enumerate() {
        for tokens in TOKENS {
            for isa in [Isa::best(), Isa::SCALAR] {
                let p = Problem::new(shape(d, dv, g, block), tokens, 5, n as u64 + 1);
                let mut own = Own::new(&p, isa);
                own.push(&p, 0..tokens, usize::MAX).unwrap();
                let answers = own.ask(&p, usize::MAX);
                used = used.max(check(&p, &mut own, &answers));
                for i in 0..p.queries {
                    let exact = p.moments(i);
                    for (got, want) in answers.moments[i].iter().zip(&exact) {
                        // Values up to 2, scores up to 1.5.
                        let size = (tokens.max(1) * 2) as f64 * 1.5f64.powi(g as i32);
                        worst = worst.max((f64::from(*got) - want).abs() / size);
                    }
                }
            }
        }
    }
    println!("largest error {worst:.1e} of the largest answer, {used:.3} of its bound");
    assert!(worst < 1e-6 && worst > 0.0 && used > 1e-4, "{worst:e} {used:e}");
}

#[test]
fn every_back_end_of_a_class_has_the_same_bits_for_every_cut() {
    let mut compared = 0;
    for fused in [false, true] {
        let class = class(fused);
        for (n, (d, dv, g, block)) in SHAPES.into_iter().enumerate() {
            // Software lanes are slow.
            let p = Problem::new(
                shape(d, dv, g, block.min(64)),
                if d == 64 { 70 } else { 150 },
                37,
                n as u64,
            );
            let mut first = None;
            for &isa in &class {
                let mut own = Own::new(&p, isa);
                own.push(&p, 0..p.tokens, usize::MAX).unwrap();
                let mut solutions = vec![(own.state().sums().to_vec(), own.ask(&p, usize::MAX))];
                if isa.lanes() > 1 || isa.number() > 0 {
                    for cut in [1, 13, 64] {
                        let mut own = Own::new(&p, isa);
                        own.push(&p, 0..p.tokens, cut).unwrap();
                        solutions.push((own.state().sums().to_vec(), own.ask(&p, cut)));
                    }
                }
                for (sums, answers) in solutions {
                    let sums: Vec<u32> = sums.iter().map(|x| x.to_bits()).collect();
                    let got = (sums, bits(&answers));
                    let want = first.get_or_insert_with(|| got.clone());
                    assert!(&got == want, "{} {:?}", isa.name(), p.shape);
                    compared += 1;
                }
            }
        }
    }
    println!("{compared} runs");
    assert!(compared > 500);
}

#[test]
fn merged_parts_are_the_whole() {
    for (n, (d, dv, g, block)) in SHAPES.into_iter().enumerate() {
        let p = Problem::new(shape(d, dv, g, block), 400, 3, n as u64);
        let mut whole = Own::new(&p, Isa::best());
        whole.push(&p, 0..400, 400).unwrap();
        assert_eq!(whole.state().sums()[dv], (400 / block * block) as f32);
        for cuts in [
            vec![0, 400],
            vec![123, 400],
            vec![0, 0, 400, 400],
            vec![16, 17, 300, 390, 400],
        ] {
            let mut merged = Own::new(&p, Isa::best());
            let mut start = 0;
            for end in cuts {
                let mut part = Own::new(&p, Isa::best());
                part.push(&p, start..end, 50).unwrap();
                merged.merge(&mut part);
                start = end;
            }
            let (w, m) = (whole.progress, merged.progress);
            assert_eq!((w.count, m.count), (400, 400));
            assert!(m.waiting < block && w.additions == 400 / block as u64 && m.additions > 0);
            let (ours, theirs) = (merged.ask(&p, 3), whole.ask(&p, 3));
            check(&p, &mut merged, &ours);
            check(&p, &mut whole, &theirs);
            let facts = |s: Summary<'_>| (s.low().to_vec(), s.high().to_vec(), s.reach(), s.count());
            assert_eq!(merged.with_summary(facts), whole.with_summary(facts));
        }
    }
}

/// Keys on the corners of a cube: odd moments vanish, and `sum of s^j` is known.
#[test]
fn a_cube_has_the_moments_of_its_corners() {
    let d = 5;
    let corners = 1 << d;
    let k: Vec<f32> = (0..corners * d)
        .map(|i| if ((i / d) >> (i % d)) & 1 == 1 { 1.0 } else { -1.0 })
        .collect();
    let p = Problem {
        v: k.clone(),
        k,
        centre: vec![0.0; d],
        radius: 2.5,
        tau: 0.5,
        tokens: corners,
        ..Problem::new(shape(d, d, 4, 16), corners, 4, 9)
    };
    let mut own = Own::new(&p, Isa::best());
    own.push(&p, 0..corners, 7).unwrap();
    let answers = own.ask(&p, 4);
    check(&p, &mut own, &answers);
    for (i, got) in answers.moments.iter().enumerate() {
        let q: Vec<f64> = p.q[i * d..][..d].iter().map(|&q| f64::from(q) * 0.5).collect();
        let [q2, q4] = [2, 4].map(|e| q.iter().map(|q| q.powi(e)).sum::<f64>());
        let n = corners as f64;
        // sum over corners of s^2 and s^4; of s v_c and s^3 v_c.
        let column = |j: usize, c: usize| f64::from(got[j * (d + 1) + c]);
        assert!((column(2, d) - n * q2).abs() < 1e-5 * n);
        assert!((column(4, d) - n * (3.0 * q2 * q2 - 2.0 * q4)).abs() < 1e-5 * n);
        assert_eq!(
            [column(0, d), column(0, 0), column(1, d), column(2, 1), column(3, d)],
            [n, 0.0, 0.0, 0.0, 0.0]
        );
        for (c, q) in q.iter().enumerate() {
            assert!((column(1, c) - n * q).abs() < 1e-5 * n);
            assert!((column(3, c) - n * (3.0 * q * q2 - 2.0 * q.powi(3))).abs() < 1e-5 * n);
        }
    }
}

#[test]
fn the_summary_bounds_norms_and_ranges() {
    let p = Problem::new(shape(6, 3, 5, 32), 333, 1, 4);
    let mut own = Own::new(&p, Isa::best());
    own.push(&p, 0..333, 100).unwrap();
    own.with_summary(|summary| check_summary(&p, summary));
}

fn check_summary(p: &Problem, summary: Summary<'_>) {
    assert_eq!((summary.scale(), summary.count()), (2.0, 333));
    let norms: Vec<f64> =
        p.k.chunks(6)
            .map(|k| {
                k.iter()
                    .zip(&p.centre)
                    .map(|(k, c)| ((f64::from(*k) - f64::from(*c)) / 2.0).powi(2))
                    .sum::<f64>()
                    .sqrt()
            })
            .collect();
    let reach = norms.iter().copied().fold(0.0, f64::max);
    assert!(f64::from(summary.reach()) >= reach && f64::from(summary.reach()) < reach * 1.00001);
    for power in 0..=6 {
        let exact: f64 = norms.iter().map(|n| n.powi(power)).sum();
        let bound = f64::from(summary.power(power as usize));
        // Odd powers by the geometric mean of their neighbours.
        let loose = if power % 2 == 0 { 1.0001 } else { 1.2 };
        assert!(bound >= exact && bound <= exact * loose, "{power}: {exact} {bound}");
    }
    assert_eq!(summary.power(7), f32::INFINITY);
    for c in 0..3 {
        let column = || p.v.iter().skip(c).step_by(3).copied();
        assert_eq!(summary.low()[c], column().fold(f32::INFINITY, f32::min));
        assert_eq!(summary.high()[c], column().fold(f32::NEG_INFINITY, f32::max));
    }
}

#[test]
fn compensated_sums_do_not_drift() {
    // A million times 0.1, sixteen at a time.
    let off = |compensated| {
        let shape = Shape {
            compensated,
            ..shape(1, 1, 1, 16)
        };
        let mut memory = vec![0.0; shape.state_len().unwrap()];
        let mut bytes = vec![core::mem::MaybeUninit::uninit(); shape.need().bytes()];
        let mut state = State::new(shape, &[0.0], 1.0, &mut memory).unwrap();
        let (k, v) = (vec![0.0f32; 1 << 14], vec![0.1f32; 1 << 14]);
        for _ in 0..64 {
            let (k, v) = (
                MatRef::new(&k, 1 << 14, 1).unwrap(),
                MatRef::new(&v, 1 << 14, 1).unwrap(),
            );
            state.push(k, v, &mut Scratch::new(&mut bytes)).unwrap();
        }
        let mut weighted = vec![0.0; shape.frozen_len().unwrap()];
        let frozen = state.freeze(&mut weighted, &mut Scratch::new(&mut bytes)).unwrap();
        let truth = f64::from(0.1f32) * f64::from(1 << 20);
        let error = (f64::from(state.sums()[0]) - truth).abs() / truth;
        let promise = f64::from(frozen.summary().error(0, 1.0, 0.1)) / truth;
        assert!(error <= promise);
        (error, promise)
    };
    let (plain, compensated) = (off(false), off(true));
    assert!(plain.0 > 1e-5 && compensated.0 < 1e-7, "{plain:?} {compensated:?}");
    assert!(plain.1 > 1e-3 && compensated.1 < 1e-6, "{plain:?} {compensated:?}");
}

//! Every step of the rounding bound on a family that is made for it: more than half of the promise is reached, so that
//! half of it would be a lie. `src/attention/certificate.rs` has the steps.

mod promise;

use promise::{By, Kernel, Measured, Problem};
use std::f32::consts::{LN_2, LOG2_E};
use subquad::attention::*;
use subquad::*;

/// A scale that is 1 in base 2, so that the chain starts at a power of two: 1 / log2 e, rounded so that the product with
/// log2 e rounds to 1.
const UNIT_SCALE: f32 = LN_2;

/// Of the numbers just above `from` the one whose product with `by` comes out lowest against that with `truth`. Where the
/// product is just above a power of two, that is a whole rounding.
fn lowest(from: f32, by: f32, truth: f64) -> f32 {
    let near = (from.to_bits()..from.to_bits() + 4000).map(f32::from_bits);
    let off = |x: f32| f64::from(x * by) / (f64::from(x) * truth);
    near.min_by(|&a, &b| off(a).total_cmp(&off(b))).unwrap()
}

/// As `lowest`, of the products with log2 e.
fn lowest_in_base_2(from: f32) -> f32 {
    lowest(from, LOG2_E, std::f64::consts::LOG2_E)
}

/// A query and a key without dimensions to add, one value.
fn lone(q: f32, k: f32) -> Problem {
    let mut p = Problem::new([1, 1, 1, 1], || q, || k, || 1.0);
    p.k[0] = k;
    p
}

/// How far the mass of a lone key, as a partial has it before a log is taken, is off from `score`; as a part of the promise.
fn mass_of(p: &Problem, by: By, rules: Rules<'_>, score: f64) -> f64 {
    let mut row = [0f32; 5];
    let outputs = Outputs {
        partials: Some(MatMut::new(&mut row, 1, 5).unwrap().into()),
        ..Outputs::default()
    };
    let _ = p.run(by, rules, outputs);
    let [max, sum, promise, ..] = row.map(f64::from);
    let off = ((sum.log2() + max) * std::f64::consts::LN_2 - score).abs();
    // A few operations in f64.
    assert!(
        off <= promise + score.abs() * 2f64.powi(-50) + 2f64.powi(-50),
        "{score}: {off:e} {promise:e}"
    );
    off / promise
}

/// The worst of a family is never above its promise, and above half of it. `part` 0 is the output, 1 the log-sum-exp.
fn reach(what: &str, by: By, part: usize, family: impl Iterator<Item = Measured>) {
    let mut worst = 0.0f64;
    for m in family {
        m.check(what);
        worst = worst.max(m.reached()[part]);
    }
    println!("{}: {what}: {worst:.3} of the promise", by.name());
    assert!(worst > 0.5, "{}: {what}: {worst}", by.name());
}

/// The dimensions that meet in the longest path of additions of a dot product, in the order of the path.
fn path(kernel: Kernel, dim: usize) -> Vec<usize> {
    match kernel {
        Kernel::Exact => (0..dim).collect(),
        // Lane 0, and what it meets in the tree.
        Kernel::Decode => (0..dim).step_by(16).chain([8, 4, 2, 1]).filter(|&c| c < dim).collect(),
    }
}

/// Two keys whose scores are `s (1 + (n - 1) u)` in real arithmetic, where n numbers lie on the path. In the chain of the
/// first every addition rounds down, so it stays at `s`; in that of the second every one rounds up, to
/// `s (1 + 2 (n - 1) u)`.
fn chains(kernel: Kernel, dim: usize, s: f32, v: [f32; 2]) -> Problem {
    let (half, step) = (2f32.powi(-12), 1.0 + f32::EPSILON);
    let (mut q, mut down, mut up) = (vec![0.0; dim], vec![0.0; dim], vec![0.0; dim]);
    for c in path(kernel, dim) {
        (q[c], down[c], up[c]) = (half, half * s, half * s * step);
    }
    (q[0], down[0], up[0]) = (1.0, s, s);
    Problem {
        queries: 1,
        keys: 2,
        dim,
        value_dim: 1,
        q,
        k: [down, up].concat(),
        v: v.to_vec(),
    }
}

#[test]
fn score_chains_reach_the_promises() {
    assert_eq!(UNIT_SCALE * LOG2_E, 1.0);
    for by in By::all() {
        // 16: of Decode the tree alone.
        for dim in [16, 64, 256] {
            let m = chains(by.kernel, dim, 256.0, [1.0, -1.0]).plain(by, UNIT_SCALE);
            reach(&format!("chains of {dim}"), by, 0, [m].into_iter());
            if dim == 16 {
                continue; // the log adds a rounding that is not on this path
            }
            let mut p = chains(by.kernel, dim, 256.0, [1.0, 1.0]);
            p.keys = 1;
            let m = p.plain(by, UNIT_SCALE);
            reach(&format!("a chain of {dim}"), by, 1, [m].into_iter());
        }
    }
}

#[test]
fn value_chains_reach_the_promise() {
    // Weights 1, 2^-24, 2^-24, ...: every addition to the sum of weights is a tie and rounds down to 1. Times values
    // one step above 1 they are more than a tie, and every addition rounds up. For Decode sixteen times as many keys, so
    // that the lane of the 1 is as long; the other lanes add up exactly.
    for by in By::all() {
        let n = match by.kernel {
            Kernel::Exact => 1000,
            Kernel::Decode => 16_000,
        };
        let mut p = Problem::new([1, n, 1, 1], || 1.0, || -24.0, || 1.0 + f32::EPSILON);
        (p.k[0], p.v[0]) = (0.0, 1.0);
        for part in [0, 1] {
            reach(
                ["values", "sums of weights"][part],
                by,
                part,
                [p.plain(by, UNIT_SCALE)].into_iter(),
            );
        }
    }
}

#[test]
fn biases_reach_the_promise() {
    // Times log2 e they are just above a power of two, where a rounding is largest; of four thousand neighbours, the one
    // that comes out highest and the one that comes out lowest. Scores of half an ULP of them, a little more and a little
    // less, then round the sums the same ways. What log2 e is off by is common to both and cancels: 4 of 4.5 u promised.
    let from = LN_2 * 4096.0 * (1.0 + f32::EPSILON);
    let near = (from.to_bits()..from.to_bits() + 4000).map(f32::from_bits);
    let off = |b: &f32| f64::from(b * LOG2_E) - f64::from(*b) * std::f64::consts::LOG2_E;
    let highest = near.max_by(|a, b| off(a).total_cmp(&off(b))).unwrap();
    let bias = [highest, lowest_in_base_2(from)];
    let ulp = 4096.0 * f32::EPSILON;
    let mut p = Problem::new([1, 2, 1, 1], || 1.0, || 0.51 * ulp, || 1.0);
    (p.k[1], p.v[1]) = (0.49 * ulp, -1.0);
    for by in By::all() {
        let rules = Rules::new()
            .with_scale(UNIT_SCALE)
            .with_bias(TensorRef::new(&bias, [1, 1, 1, 2]).unwrap());
        let scale = f64::from(UNIT_SCALE);
        let m = p.measure(by, rules, scale, None, |_, j, s| s + f64::from(bias[j]));
        reach("biases", by, 0, [m].into_iter());
    }
}

#[test]
fn a_lone_score_reaches_the_promise_of_its_log() {
    // Scale and query round down by a whole rounding each; of many keys one does, too, and so do the product and the sum
    // that make a natural log of it. Without its last step, the log, the promise would not hold.
    let scale = lowest_in_base_2(LN_2 * (1.0 + f32::EPSILON));
    let truth = f64::from(scale) * std::f64::consts::LOG2_E;
    let scale2 = scale * LOG2_E;
    let q = lowest(1.0 + f32::EPSILON, scale2, truth);
    for by in By::all() {
        for size in [128.0f32, 512.0, 65_536.0] {
            let keys = (0..1500u32).map(|i| f32::from_bits(size.to_bits() + 1 + 97 * i));
            let family = keys.map(|k| lone(q, k).plain(by, scale));
            reach(&format!("a score of {size}"), by, 1, family);
            // Before the log: 3.2 of 3.25 u. Log2 e alone is the quarter.
            let k = lowest(size * (1.0 + f32::EPSILON), q * scale2, truth * f64::from(q));
            let score = f64::from(scale) * f64::from(q) * f64::from(k);
            let mass = mass_of(&lone(q, k), by, Rules::new().with_scale(scale), score);
            println!("{}: mass of {size}: {mass:.3} of the promise", by.name());
            assert!(mass > 0.5, "{}: mass of {size}: {mass}", by.name());
        }
    }
}

#[test]
fn weights_reach_the_promise() {
    // Scores below 1/2 in base 2 are hardly off, but their weights are. A partial has them before a log is taken.
    for by in By::few() {
        let keys = (0..100_000).map(|i| i as f32 / 100_000.0 - 0.5);
        let score = |k: f32| f64::from(k) * f64::from(UNIT_SCALE);
        let parts = keys.map(|k| mass_of(&lone(1.0, k), by, Rules::new().with_scale(UNIT_SCALE), score(k)));
        let worst = parts.fold(0.0, f64::max);
        println!("{}: a weight: {worst:.3} of the promise", by.name());
        assert!(worst > 0.5, "{}: a weight: {worst}", by.name());
    }
}

#[test]
fn default_scales_reach_the_promise() {
    for by in By::all() {
        for dim in [2usize, 3, 5] {
            // What the scale is off by is fixed; everything after it goes the same way.
            let scale2 = 1.0 / (dim as f32).sqrt() * LOG2_E;
            let truth = std::f64::consts::LOG2_E / (dim as f64).sqrt();
            let family = [false, true].into_iter().flat_map(|up| {
                let start = 1.0 / scale2;
                let near = (start.to_bits()..start.to_bits() + 4000).map(f32::from_bits);
                let off = |x: &f32| f64::from(x * scale2) / (f64::from(*x) * truth);
                let near = near.filter(|x| x * scale2 > 1.0);
                let first = match up {
                    true => near.max_by(|a, b| off(a).total_cmp(&off(b))),
                    false => near.min_by(|a, b| off(a).total_cmp(&off(b))),
                };
                let (first, half) = (first.unwrap(), start * 2f32.powi(-12));
                // Half an ULP of the sum, a little more or less.
                let small = 256.0 * 2f32.powi(-12) * if up { 1.01 } else { 0.99 };
                (0..500u32).map(move |i| {
                    let mut p = Problem::new([1, 1, dim, 1], || half, || small, || 1.0);
                    (p.q[0], p.k[0]) = (first, f32::from_bits(256f32.to_bits() + 1 + 97 * i));
                    p.measure(by, Rules::new(), 1.0 / (dim as f64).sqrt(), None, |_, _, s| s)
                })
            });
            reach(&format!("default scale of {dim}"), by, 1, family);
        }
    }
}

#[test]
fn caps_reach_the_promise() {
    // Where tanh is about one half: the score's own error is still hardly flattened, and the cap's roundings are large.
    let scale = lowest_in_base_2(LN_2 * (1.0 + f32::EPSILON));
    let q = lowest(
        1.0 + f32::EPSILON,
        scale * LOG2_E,
        f64::from(scale) * std::f64::consts::LOG2_E,
    );
    let cap = lowest_in_base_2(256.0 * LN_2 * (1.0 + f32::EPSILON));
    let c = f64::from(cap);
    let rules = Rules::new().with_scale(scale).with_cap(cap);
    for by in By::all() {
        let keys = || (0..20_000u32).map(|i| 256.0 * 0.5493 + i as f32 * 0.0007);
        let capped = |s: f64| c * (s / c).tanh();
        let family = keys().map(|k| lone(q, k).measure(by, rules, f64::from(scale), None, |_, _, s| capped(s)));
        reach("cap", by, 1, family);
        // Before the log: without the errors of tanh, or of the cap, the promise would not hold.
        let score = |k: f32| capped(f64::from(scale) * f64::from(q) * f64::from(k));
        let mass = keys()
            .map(|k| mass_of(&lone(q, k), by, rules, score(k)))
            .fold(0.0, f64::max);
        println!("{}: mass below a cap: {mass:.3} of the promise", by.name());
        assert!(mass > 0.5, "{}: mass below a cap: {mass}", by.name());
        // A cap far away changes little, and the promise before it remains.
        let rules = Rules::new().with_scale(UNIT_SCALE).with_cap(65_536.0);
        let p = chains(by.kernel, 256, 256.0, [1.0, -1.0]);
        let far = |_, _, s: f64| 65_536.0 * (s / 65_536.0).tanh();
        let m = p.measure(by, rules, f64::from(UNIT_SCALE), None, far);
        reach("chains below a cap", by, 0, [m].into_iter());
    }
}

#[test]
fn slopes_and_sinks_reach_the_promise() {
    let slope = [lowest_in_base_2(LN_2 * (1.0 + f32::EPSILON))];
    let bias = [-lowest_in_base_2(4096.0 * LN_2 * (1.0 + f32::EPSILON))];
    let logits: Vec<f32> = (0..300)
        .map(|i| lowest_in_base_2(256.0 * LN_2 * (1.0 + i as f32 * 1e-4)))
        .collect();
    let scale = f64::from(UNIT_SCALE);
    // Half an ULP of what is added, and a little more.
    let small = 4096.0 * f32::EPSILON * 0.51;
    for by in By::all() {
        let at = |i: usize| Rules::new().with_scale(UNIT_SCALE).with_offset(Offset::Keys(i as i64));
        let family = (4097..5000).map(|i| {
            let distance = i as f64 * f64::from(slope[0]);
            lone(1.0, small).measure(by, at(i).with_slopes(&slope), scale, None, |_, _, s| s - distance)
        });
        reach("slopes", by, 1, family);
        let family = (4097..5000).map(|i| {
            let added = f64::from(bias[0]) - i as f64 * f64::from(slope[0]);
            let rules = at(i)
                .with_slopes(&slope)
                .with_bias(TensorRef::new(&bias, [1, 1, 1, 1]).unwrap());
            lone(1.0, 2.0 * small).measure(by, rules, scale, None, |_, _, s| s + added)
        });
        reach("bias and slopes", by, 1, family);
        let family = logits.iter().map(|&logit| {
            let rules = Rules::new().with_sink_logits(std::slice::from_ref(&logit));
            lone(0.0, 0.0).measure(by, rules, 1.0, Some(logit), |_, _, s| s)
        });
        reach("a sink", by, 1, family);
    }
}

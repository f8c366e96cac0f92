//! Measured errors against the rounding bound: never larger, and on its worst families more than half of it.

mod promise;

use promise::{noise, Problem};
use subquad::attention::*;
use subquad::*;

#[test]
fn no_error_exceeds_the_promise_on_random_problems() {
    for isa in Isa::all() {
        for (seed, size) in [0.0f32, 1e-3, 0.3, 1.0, 4.0, 30.0, 1000.0, 1e-20, 1e9]
            .into_iter()
            .enumerate()
        {
            for sizes in [[3, 1, 1, 1], [5, 2, 3, 2], [7, 130, 17, 5], [2, 700, 64, 3]] {
                let seed = seed as u64 * 16 + sizes[1] as u64;
                let (mut a, mut b, mut c) = (noise(seed), noise(seed + 1), noise(seed + 2));
                // Values with an offset: the promise is about their range, and their size.
                let p = Problem::new(sizes, || size * a(), || size * b(), || 3.0 + c());
                let scale = 1.0 / (sizes[2] as f64).sqrt();
                let m = p.measure(isa, Rules::new(), scale, None, |_, _, s| s);
                m.check(&format!("{} {sizes:?} {size}", isa.name()));
                p.plain(isa, 0.77).check("scaled");
                assert!(
                    m.bound.out.value <= 8.1,
                    "the range of the values and a little is always a promise"
                );
            }
        }
    }
}

#[test]
fn no_error_exceeds_the_promise_under_rules() {
    let sizes @ [n, keys, dim, _] = [9, 61, 8, 3];
    let scale = 1.0 / (dim as f64).sqrt();
    for (round, isa) in Isa::all().enumerate() {
        for size in [0.5f32, 3.0, 25.0] {
            let (mut a, mut b, mut c, mut d) = (noise(round as u64), noise(77), noise(5), noise(13));
            let p = Problem::new(sizes, || size * a(), || size * b(), &mut c);
            let bias: Vec<f32> = (0..n * keys).map(|_| 10.0 * size * d()).collect();
            let masked: Vec<f32> = bias.iter().map(|&x| if x < 0.0 { -1e9 } else { x }).collect();
            let lowest: Vec<f32> = bias.iter().map(|&x| if x < 0.0 { f32::MIN } else { x }).collect();
            let name = isa.name();
            for cap in [0.01f32, 1.0, 15.0, 1e4] {
                let c = f64::from(cap);
                let rules = Rules::new().with_cap(cap);
                p.measure(isa, rules, scale, None, |_, _, s| c * (s / c).tanh())
                    .check(&format!("{name} cap {cap}"));
            }
            for logit in [-20.0f32, 0.3, 7.7, 300.0] {
                let (logits, rules) = ([logit], Rules::new());
                let m = p.measure(isa, rules.with_sink_logits(&logits), scale, Some(logit), |_, _, s| s);
                m.check(&format!("{name} logit {logit}"));
            }
            for bias in [&bias, &masked, &lowest] {
                let view = TensorRef::new(bias, [1, 1, n, keys]).unwrap();
                let rules = Rules::new()
                    .with_bias(view)
                    .with_cap(15.0)
                    .with_causal()
                    .with_offset(Offset::Keys(30));
                let m = p.measure(isa, rules, scale, None, |i, j, s| {
                    let seen = j <= i + 30;
                    let added = f64::from(bias[i * keys + j]);
                    if seen {
                        15.0 * (s / 15.0).tanh() + added
                    } else {
                        f64::NEG_INFINITY
                    }
                });
                m.check(&format!("{name} bias"));
                // Keys that a huge negative bias hides do not make the promise empty: 250 is the largest other bias.
                assert!(m.bound.out.value < 1e-3 && m.bound.lse.value < 1e-3, "{:?}", m.bound);
            }
            let (slopes, window) = ([0.37f32], Some(20));
            let view = TensorRef::new(&bias, [1, 1, n, keys]).unwrap();
            let rules = Rules::new()
                .with_slopes(&slopes)
                .with_bias(view)
                .with_window(window, None);
            let m = p.measure(isa, rules, scale, None, |i, j, s| {
                let distance = (i as f64 - j as f64).abs();
                let seen = j + 20 >= i;
                let added = f64::from(bias[i * keys + j]) - f64::from(0.37f32) * distance;
                if seen {
                    s + added
                } else {
                    f64::NEG_INFINITY
                }
            });
            m.check(&format!("{name} slopes"));
        }
    }
}

#[test]
fn no_error_exceeds_the_promise_on_data_as_networks_make_it() {
    // A common direction in all keys, one huge column in queries and keys, heavy tails, values with outliers: what
    // attention heads are known for.
    let sizes @ [_, keys, dim, _] = [16, 500, 64, 8];
    for isa in [Isa::SCALAR, Isa::best()] {
        for seed in 0..4 {
            let (mut a, mut b, mut c) = (noise(seed), noise(seed + 10), noise(seed + 20));
            let cube = |x: f32| x * x * x * 3.0;
            let mut p = Problem::new(sizes, || cube(a()), || 0.4 + b(), || c().powi(9) * 20.0);
            for x in p.q.chunks_mut(dim).chain(p.k.chunks_mut(dim)) {
                x[5] *= 12.0;
                x[41] -= 6.0;
            }
            let m = p.measure(isa, Rules::new(), 0.125, None, |_, _, s| s);
            m.check("heads");
            println!(
                "{} {keys} keys: out {:.1e} of {:.1e}, lse {:.1e} of {:.1e}",
                isa.name(),
                m.out,
                m.bound.out.value,
                m.lse,
                m.bound.lse.value
            );
        }
    }
}

#[test]
fn no_mantissa_breaks_the_constants_of_the_rules() {
    // One key: the log-sum-exp is the score, and shows its error whole. Few dimensions, so that the constants count.
    for isa in [Isa::SCALAR, Isa::best()] {
        let mut worst = [0.0f64; 9];
        let mut x = noise(99);
        for round in 0..20_000 {
            let dim = 1 + round % 3;
            let p = Problem::new([1, 1, dim, 1], || 0.0, || 0.0, || 1.0);
            let side = 8.0 * (1.0 + x().abs());
            let p = Problem {
                q: (0..dim).map(|_| side + x()).collect(),
                k: (0..dim).map(|_| side + x()).collect(),
                ..p
            };
            let (scale, other) = (1.0 + x().abs(), [64.0 * (1.0 + x().abs())]);
            let (s, o) = (f64::from(scale), f64::from(other[0]));
            let rules = Rules::new().with_scale(scale);
            let bias = TensorRef::new(&other, [1, 1, 1, 1]).unwrap();
            let position = 1 + round % 100;
            let away = rules.with_offset(Offset::Keys(position as i64));
            let zero = Problem::new([1, 1, dim, 1], || 0.0, || 0.0, || 1.0);
            let sum = move |_, _, s| s + o;
            let cap = move |_, _, s: f64| 4.0 * o * (s / (4.0 * o)).tanh();
            let far = move |_, _, s| s - o * position as f64;
            let both = move |_, _, s| s + o - o * position as f64;
            let all = [
                p.measure(isa, rules, s, None, |_, _, s| s),
                p.measure(isa, Rules::new(), 1.0 / (dim as f64).sqrt(), None, |_, _, s| s),
                p.measure(isa, rules.with_cap(4.0 * other[0]), s, None, cap),
                p.measure(isa, rules.with_bias(bias), s, None, sum),
                p.measure(isa, away.with_slopes(&other), s, None, far),
                p.measure(isa, away.with_slopes(&other).with_bias(bias), s, None, both),
                zero.measure(isa, rules.with_bias(bias), s, None, sum),
                zero.measure(isa, away.with_slopes(&other), s, None, far),
                zero.measure(isa, rules.with_sink_logits(&other), s, Some(other[0]), |_, _, s| s),
            ];
            for (worst, m) in worst.iter_mut().zip(all) {
                m.check("constants");
                *worst = worst.max(m.lse / f64::from(m.bound.lse.value));
            }
        }
        let what = "scale, default scale, cap, bias, slopes, both, bias alone, slopes alone, sink alone";
        println!("{}: {what}: {worst:.2?} of the promise", isa.name());
    }
}

#[test]
fn a_call_promises_what_its_worst_head_does() {
    let (mut a, mut b, mut c) = (noise(1), noise(2), noise(3));
    let [q, k, v] = [(8, &mut a), (4, &mut b), (4, &mut c)]
        .map(|(heads, x)| -> Vec<f32> { (0..heads * 5 * 4).map(|i| x() * (1 + i / 20) as f32).collect() });
    let view = |x, heads| TensorRef::new(x, [2, heads, 5, 4]).unwrap();
    let (qs, ks, vs) = (view(&q, 4), view(&k, 2), view(&v, 2));
    let whole = Exact::for_views(qs, ks, vs)
        .unwrap()
        .rounding_bound(qs, ks, vs)
        .unwrap();
    let heads = (0..8).map(|h| {
        let (q, k, v) = (
            qs.matrix(h / 4, h % 4),
            ks.matrix(h / 4, h % 4 / 2),
            vs.matrix(h / 4, h % 4 / 2),
        );
        Exact::for_views(q, k, v).unwrap().rounding_bound(q, k, v).unwrap()
    });
    let [out, lse] = heads.fold([0.0f32; 2], |[o, l], h| [o.max(h.out.value), l.max(h.lse.value)]);
    assert_eq!([whole.out.value, whole.lse.value], [out, lse]);
}

/// Two keys whose scores are `s (1 + (d - 1) u)` in real arithmetic. In the chain of the first every step rounds down,
/// so it stays at `s`; in that of the second every step rounds up, to `s (1 + 2 (d - 1) u)`.
fn chains(dim: usize, s: f32, v: [f32; 2]) -> Problem {
    let (half, step) = (2f32.powi(-12), 1.0 + f32::EPSILON);
    let mut q = vec![half; dim];
    let (mut down, mut up) = (vec![half * s; dim], vec![half * s * step; dim]);
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
/// A scale that is 1 in base 2, so that the chain starts at a power of two: 1 / log2 e, rounded so that the product with
/// log2 e rounds to 1.
const UNIT_SCALE: f32 = std::f32::consts::LN_2;

#[test]
fn score_chains_reach_the_promises() {
    assert_eq!(UNIT_SCALE * std::f32::consts::LOG2_E, 1.0);
    for isa in Isa::all() {
        for dim in [64, 256] {
            let m = chains(dim, 256.0, [1.0, -1.0]).plain(isa, UNIT_SCALE);
            m.check("chains");
            let (out, lse) = (
                m.out / f64::from(m.bound.out.value),
                m.lse / f64::from(m.bound.lse.value),
            );
            println!("{} dim {dim}: out {out:.3} lse {lse:.3} of the promise", isa.name());
            assert!(out > 0.5, "{out}");
        }
    }
}

#[test]
fn a_single_score_chain_reaches_the_lse_promise() {
    for isa in Isa::all() {
        let mut p = chains(256, 256.0, [1.0, 1.0]);
        p.keys = 1;
        let m = p.plain(isa, UNIT_SCALE);
        m.check("chain");
        let lse = m.lse / f64::from(m.bound.lse.value);
        println!("{}: lse {lse:.3} of the promise", isa.name());
        assert!(lse > 0.5, "{lse}");
    }
}

#[test]
fn biases_reach_the_promise() {
    // Times log2 e they are just above a power of two, where a rounding is largest; of a thousand neighbours, the one
    // that comes out highest and the one that comes out lowest.
    let first = (std::f32::consts::LN_2 * 4096.0).to_bits() + 1;
    let off = |b: f32| f64::from(b * std::f32::consts::LOG2_E) - f64::from(b) * std::f64::consts::LOG2_E;
    let mut near: Vec<f32> = (first..first + 1000).map(f32::from_bits).collect();
    near.sort_by(|&a, &b| off(a).total_cmp(&off(b)));
    let bias = [near[0], near[999]];
    let mut p = Problem::new([1, 2, 1, 1], || 0.0, || 0.0, || 1.0);
    p.v[1] = -1.0;
    for isa in Isa::all() {
        let rules = Rules::new()
            .with_scale(1.0)
            .with_bias(TensorRef::new(&bias, [1, 1, 1, 2]).unwrap());
        let m = p.measure(isa, rules, 1.0, None, |_, j, s| s + f64::from(bias[j]));
        m.check("biases");
        // One is rounded up by u, the other down by u; what log2 e is off by is common to both and cancels. That is 1 of
        // 2.25 u promised: the constant of log2 e counts where scores differ, and the sum with the score is exact at 0.
        let out = m.out / f64::from(m.bound.out.value);
        println!("{}: out {out:.3} of the promise", isa.name());
        assert!(out > 0.42, "{out}");
    }
}

#[test]
fn value_chains_reach_the_promise() {
    // Weights 1, 2^-24, 2^-24, ...: every addition to the sum of weights is a tie and rounds down to 1. Times values
    // one step above 1 they are more than a tie, and every addition rounds up.
    let n = 1000;
    let mut p = Problem::new([1, n, 1, 1], || 1.0, || -24.0, || 1.0 + f32::EPSILON);
    (p.k[0], p.v[0]) = (0.0, 1.0);
    for isa in Isa::all() {
        let m = p.plain(isa, UNIT_SCALE);
        m.check("sums");
        let (out, lse) = (
            m.out / f64::from(m.bound.out.value),
            m.lse / f64::from(m.bound.lse.value),
        );
        println!("{}: out {out:.3} lse {lse:.3} of the promise", isa.name());
        assert!(out > 0.5 && lse > 0.5, "{out} {lse}");
    }
}

#[test]
fn what_is_not_finite_gets_no_promise_and_padding_does_not_count() {
    let bound = |q: f32, k: f32, v: f32, rules: Rules<'_>| {
        let mut p = Problem::new([2, 4, 3, 2], || 1.0, || 1.0, || 1.0);
        (p.q[0], p.k[9], p.v[6]) = (q, k, v);
        let [q, k, v] = p.views();
        Exact::for_views(q, k, v)
            .unwrap()
            .with_rules(rules)
            .unwrap()
            .rounding_bound(q, k, v)
            .unwrap()
    };
    let plain = bound(1.0, 1.0, 1.0, Rules::new());
    assert!(plain.out.value < 1e-5 && plain.lse.value < 1e-5, "{plain:?}");
    for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38] {
        for b in [bound(x, 1.0, 1.0, Rules::new()), bound(1.0, x, 1.0, Rules::new())] {
            assert_eq!((b.out, b.lse), (Bound::UNKNOWN, Bound::UNKNOWN));
        }
        assert_eq!(bound(1.0, 1.0, x, Rules::new()).out, Bound::UNKNOWN);
        assert!(bound(1.0, x, x, Rules::new().with_key_lengths(&[3])).out.value < 1e-5);
    }
    assert_eq!(bound(1.0, 1.0, 1.0, Rules::new().with_cap(1e-39)).out, Bound::UNKNOWN);
}

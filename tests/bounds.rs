//! Measured errors against the rounding bound: never larger. `tests/steps.rs` reaches it.

mod promise;

use promise::{noise, By, Problem};
use subquad::attention::*;
use subquad::*;

#[test]
fn no_error_exceeds_the_promise_on_random_problems() {
    for by in By::all() {
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
                let m = p.measure(by, Rules::new(), scale, None, |_, _, s| s);
                m.check(&format!("{} {sizes:?} {size}", by.name()));
                p.plain(by, 0.77).check("scaled");
                assert!(
                    m.bound.out.value <= 8.1,
                    "the range of the values and a little is always a promise"
                );
            }
        }
    }
}

#[test]
fn no_error_exceeds_the_promise_on_thousands_of_small_calls() {
    // Any size below 48 keys, so that lanes are empty, half full and full twice; kept first keys and a window, so that a
    // lane may have one key more; a cap, a sink, and numbers over five orders of magnitude.
    const CALLS: usize = 1500;
    for (round, by) in By::all().enumerate() {
        let mut x = noise(1000 + round as u64);
        for _ in 0..CALLS {
            let mut below = |n: usize| ((x() + 1.0) * 0.5 * n as f32) as usize;
            let sizes = [1 + below(3), 1 + below(47), 1 + below(40), 1 + below(3)];
            let (left, kept, what) = (below(20), below(20), below(4));
            let size = 10f32.powf(2.5 * x() - 0.5);
            let [n, keys, dim, _] = sizes;
            let value = size * x();
            let mut y = noise(x().to_bits().into());
            let mut p = Problem::new(sizes, || 0.0, || 0.0, || 0.0);
            p.q.iter_mut().chain(&mut p.k).for_each(|to| *to = size * y());
            p.v.iter_mut().for_each(|to| *to = value + y());
            let cap = 20.0 * (1.0 + x().abs());
            let logit = [size * x()];
            let offset = keys as i64 - n as i64;
            let rules = Rules::new().with_offset(Offset::Keys(offset)).with_causal();
            let rules = rules.with_window(Some(left), None).with_sinks(kept);
            let rules = match what {
                0 => rules.with_cap(cap),
                1 => rules.with_sink_logits(&logit),
                _ => rules,
            };
            let score = |i: usize, j: usize, s: f64| {
                let position = offset + i as i64;
                let near = j as i64 <= position && (j < kept || j as i64 >= position - left as i64);
                match (near, what) {
                    (false, _) => f64::NEG_INFINITY,
                    (true, 0) => f64::from(cap) * (s / f64::from(cap)).tanh(),
                    (true, _) => s,
                }
            };
            let sink = (what == 1).then_some(logit[0]);
            let scale = 1.0 / (dim as f64).sqrt();
            let m = p.measure(by, rules, scale, sink, score);
            m.check(&format!(
                "{} {sizes:?} left {left}, kept {kept}, rule {what}",
                by.name()
            ));
        }
    }
}

#[test]
fn no_error_exceeds_the_promise_under_rules() {
    let sizes @ [n, keys, dim, _] = [9, 61, 8, 3];
    let scale = 1.0 / (dim as f64).sqrt();
    for (round, by) in By::all().enumerate() {
        for size in [0.5f32, 3.0, 25.0] {
            let (mut a, mut b, mut c, mut d) = (noise(round as u64), noise(77), noise(5), noise(13));
            let p = Problem::new(sizes, || size * a(), || size * b(), &mut c);
            let bias: Vec<f32> = (0..n * keys).map(|_| 10.0 * size * d()).collect();
            let masked: Vec<f32> = bias.iter().map(|&x| if x < 0.0 { -1e9 } else { x }).collect();
            let lowest: Vec<f32> = bias.iter().map(|&x| if x < 0.0 { f32::MIN } else { x }).collect();
            let name = by.name();
            for cap in [0.01f32, 1.0, 15.0, 1e4] {
                let c = f64::from(cap);
                let rules = Rules::new().with_cap(cap);
                p.measure(by, rules, scale, None, |_, _, s| c * (s / c).tanh())
                    .check(&format!("{name} cap {cap}"));
            }
            for logit in [-20.0f32, 0.3, 7.7, 300.0] {
                let (logits, rules) = ([logit], Rules::new());
                let m = p.measure(by, rules.with_sink_logits(&logits), scale, Some(logit), |_, _, s| s);
                m.check(&format!("{name} logit {logit}"));
            }
            for bias in [&bias, &masked, &lowest] {
                let view = TensorRef::new(bias, [1, 1, n, keys]).unwrap();
                let rules = Rules::new()
                    .with_bias(view)
                    .with_cap(15.0)
                    .with_causal()
                    .with_offset(Offset::Keys(30));
                let m = p.measure(by, rules, scale, None, |i, j, s| {
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
            let m = p.measure(by, rules, scale, None, |i, j, s| {
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
    for by in By::few() {
        for seed in 0..4 {
            let (mut a, mut b, mut c) = (noise(seed), noise(seed + 10), noise(seed + 20));
            let cube = |x: f32| x * x * x * 3.0;
            let mut p = Problem::new(sizes, || cube(a()), || 0.4 + b(), || c().powi(9) * 20.0);
            for x in p.q.chunks_mut(dim).chain(p.k.chunks_mut(dim)) {
                x[5] *= 12.0;
                x[41] -= 6.0;
            }
            let m = p.measure(by, Rules::new(), 0.125, None, |_, _, s| s);
            m.check("heads");
            println!(
                "{} {keys} keys: out {:.1e} of {:.1e}, lse {:.1e} of {:.1e}",
                by.name(),
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
    for by in By::few() {
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
                p.measure(by, rules, s, None, |_, _, s| s),
                p.measure(by, Rules::new(), 1.0 / (dim as f64).sqrt(), None, |_, _, s| s),
                p.measure(by, rules.with_cap(4.0 * other[0]), s, None, cap),
                p.measure(by, rules.with_bias(bias), s, None, sum),
                p.measure(by, away.with_slopes(&other), s, None, far),
                p.measure(by, away.with_slopes(&other).with_bias(bias), s, None, both),
                zero.measure(by, rules.with_bias(bias), s, None, sum),
                zero.measure(by, away.with_slopes(&other), s, None, far),
                zero.measure(by, rules.with_sink_logits(&other), s, Some(other[0]), |_, _, s| s),
            ];
            for (worst, m) in worst.iter_mut().zip(all) {
                m.check("constants");
                *worst = worst.max(m.reached()[1]);
            }
        }
        let what = "scale, default scale, cap, bias, slopes, both, bias alone, slopes alone, sink alone";
        println!("{}: {what}: {worst:.2?} of the promise", by.name());
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

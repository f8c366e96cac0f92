//! Partials over disjoint keys: what merging adds to their errors is promised, and the promise is reached.

mod promise;

use promise::{noise, within, By, Problem};
use subquad::attention::*;
use subquad::*;

/// A partial row of one column.
fn row(max: f32, sum: f32, e_lse: f32, e_out: f32, out: f32) -> [f32; 5] {
    [max, sum, e_lse, e_out, out]
}

/// (error of the output, error of the log-sum-exp, the merged row), against what the two rows are in truth.
fn merged(mut a: [f32; 5], b: [f32; 5], truth: [[f64; 3]; 2], range: f32) -> (f64, f64, [f32; 5]) {
    Partial::from_row(&mut a).unwrap().merge(&b, range).unwrap();
    let [[m1, s1, o1], [m2, s2, o2]] = truth;
    let max = m1.max(m2);
    let (w1, w2) = (s1 * (m1 - max).exp2(), s2 * (m2 - max).exp2());
    let out = (f64::from(a[4]) - (w1 * o1 + w2 * o2) / (w1 + w2)).abs();
    let lse = (f64::from(a[1]).log2() + f64::from(a[0]) - (w1 + w2).log2() - max).abs() * std::f64::consts::LN_2;
    (out, lse, a)
}

fn exact(r: [f32; 5]) -> [f64; 3] {
    [r[0], r[1], r[4]].map(f64::from)
}

#[test]
fn merging_rounds_within_its_promise_and_reaches_it() {
    let (mut x, mut worst_out, mut worst_lse) = (noise(3), 0.0f64, 0.0f64);
    for i in 0..400_000 {
        // Equal signs, so that nothing cancels; every fourth pair apart in weight, up to where one is cut off.
        let apart = if i % 4 == 0 { (i % 320 - 160) as f32 } else { 0.0 };
        let a = row(0.0, 1.0 + x().abs(), 0.0, 0.0, 1.0 + x().abs() / 64.0);
        let b = row(apart, 1.0 + x().abs(), 0.0, 0.0, 1.0 + x().abs() / 64.0);
        let (out, lse, m) = merged(a, b, [exact(a), exact(b)], 2.0);
        assert!(within(out, Bound::certain(m[3])), "{a:?} {b:?} {out:e} {:e}", m[3]);
        // log2 in f64 is good to 2^-46 for numbers up to 2^7.
        assert!(
            lse <= f64::from(m[2]) + 2f64.powi(-45),
            "{a:?} {b:?} {lse:e} {:e}",
            m[2]
        );
        worst_out = worst_out.max(out / f64::from(m[3]));
        worst_lse = worst_lse.max(lse / f64::from(m[2]));
    }
    println!("merge: rounding {worst_out:.3}, lse {worst_lse:.3} of the promise");
    assert!(worst_out > 0.5 && worst_lse > 0.5, "{worst_out} {worst_lse}");
}

#[test]
fn the_log_sum_exp_rounds_within_its_promise_and_reaches_it() {
    let (mut x, mut worst) = (noise(8), [0.0f64; 3]);
    for i in 0..200_000i32 {
        // No reference; references whose product with ln 2 is exact; and larger ones, for which it rounds.
        for (worst, max) in worst.iter_mut().zip([0, i % 1024 - 512, i * 41 - 4_000_000]) {
            let mut head = row(max as f32, (20.0 * x()).exp2(), 0.0, 0.0, 0.0);
            let want = f64::from(max) * std::f64::consts::LN_2 + f64::from(head[1]).ln();
            let partial = Partial::from_row(&mut head).unwrap();
            let (off, bound) = ((f64::from(partial.lse()) - want).abs(), partial.lse_bound());
            // ln in f64 is good to one ULP of what is at most 2^22.
            assert!(
                off <= f64::from(bound.value) + want.abs() * f64::EPSILON,
                "{max} {want}: {off:e} {bound:?}"
            );
            *worst = worst.max(off / f64::from(bound.value));
        }
    }
    println!("lse: {worst:.3?} of the promise");
    // Without a reference only ln rounds, and the promise has room for two sums: 0.84 ULP of 4.
    let [alone, exact, rounded] = worst;
    assert!(alone > 0.25 && exact > 0.5 && rounded > 0.5, "{worst:?}");
}

#[test]
fn merging_carries_the_errors_of_its_parts() {
    // Values two apart, log odds e in truth and -e as given, so that each weight is off by e. Then outputs off by e.
    for e in [1e-4f32, 0.01, 0.3, 2.0] {
        let d = f64::from(e);
        let (low, high) = ((-e / 2.0).exp(), (e / 2.0).exp());
        let (a, b) = (row(0.0, low, e, 0.0, 1.0), row(0.0, high, e, 0.0, -1.0));
        let truth = [
            [0.0, f64::from(low) * d.exp(), 1.0],
            [0.0, f64::from(high) * (-d).exp(), -1.0],
        ];
        let (out, _, m) = merged(a, b, truth, 2.0);
        assert!(within(out, Bound::certain(m[3])), "{e}: {out:e} {:e}", m[3]);
        assert!(out > 0.5 * f64::from(m[3]), "{e}: {out:e} {:e}", m[3]);

        let (a, b) = (row(0.0, 1.0, e, 0.0, 1.0), row(0.0, 1.0, e, 0.0, -1.0));
        let (_, lse, m) = merged(a, b, [[0.0, d.exp(), 1.0], [0.0, d.exp(), -1.0]], 2.0);
        assert!(
            lse <= f64::from(m[2]) && lse > 0.5 * f64::from(m[2]),
            "{e}: {lse:e} {:e}",
            m[2]
        );

        let (a, b) = (row(0.0, 1.0, 0.0, e, 1.0), row(0.0, 3.0, 0.0, e, -1.0));
        let (out, _, m) = merged(a, b, [[0.0, 1.0, 1.0 + d], [0.0, 3.0, -1.0 + d]], 2.0 + e);
        assert!(
            within(out, Bound::certain(m[3])) && out > 0.5 * f64::from(m[3]),
            "{e}: {out:e}"
        );
    }
    // What nothing is known about stays so.
    let unknown = row(0.0, 1.0, f32::INFINITY, f32::INFINITY, 1.0);
    let (_, _, m) = merged(row(300.0, 1.0, 0.0, 0.0, 1.0), unknown, [[0.0; 3]; 2], 0.0);
    assert_eq!(m[2..4], [f32::INFINITY; 2]);
}

#[test]
fn partials_of_a_call_carry_its_promise_through_merges() {
    let (n, keys, dim) = (4, 96, 16);
    let (mut a, mut b, mut c) = (noise(21), noise(22), noise(23));
    let p = Problem::new([n, keys, dim, 1], || 6.0 * a(), || 6.0 * b(), &mut c);
    let [q, k, _] = p.views();
    for by in By::all() {
        let mut parts = Vec::new();
        for range in [0..5, 5..64, 64..96] {
            let part = Problem {
                keys: range.len(),
                q: p.q.clone(),
                k: p.k[range.start * dim..range.end * dim].to_vec(),
                v: p.v[range].to_vec(),
                ..p
            };
            let mut rows = vec![0f32; n * 5];
            let outputs = Outputs {
                partials: Some(MatMut::new(&mut rows, n, 5).unwrap().into()),
                ..Outputs::default()
            };
            let (report, _) = part.run(by, Rules::new(), outputs);
            assert_eq!((report.bound.failure, rows[3]), (0.0, report.bound.value));
            parts.push(rows);
        }
        for i in 0..n {
            let mut rows: Vec<[f32; 5]> = parts.iter().map(|p| p[i * 5..][..5].try_into().unwrap()).collect();
            let (first, rest) = rows.split_first_mut().unwrap();
            let mut all = Partial::from_row(first).unwrap();
            for other in rest {
                all.merge(other, 2.0).unwrap();
            }
            let scores = (0..keys).map(|j| {
                let terms = q
                    .row(i)
                    .iter()
                    .zip(k.row(j))
                    .map(|(&a, &b)| f64::from(a) * f64::from(b));
                terms.sum::<f64>() / 4.0
            });
            let weights: Vec<f64> = scores.map(f64::exp).collect();
            let sum: f64 = weights.iter().sum();
            let want = weights.iter().zip(&p.v).map(|(w, &v)| w * f64::from(v)).sum::<f64>() / sum;
            assert!(within((f64::from(all.out()[0]) - want).abs(), all.out_bound()));
            assert!(within((f64::from(all.lse()) - sum.ln()).abs(), all.lse_bound()));
            assert!(all.out_bound().value < 1e-3 && all.lse_bound().value < 1e-3);
        }
    }
}

use std::mem::MaybeUninit;
use subquad::attention::*;
use subquad::*;

#[test]
fn all_agree() {
    let (n, m, d, e) = (37, 401, 21, 19);
    let x = |n: usize, s: u32| -> Vec<f32> {
        (0..n)
            .map(|i| (((i as u32 + s).wrapping_mul(2654435761) >> 8) as f32 / 8388608.0 - 1.0) * 3.0)
            .collect()
    };
    let (q, k, v) = (x(n * d, 1), x(m * d, 7), x(m * e, 99));
    let (qv, kv, vv) = (
        MatRef::new(&q, n, d).unwrap(),
        MatRef::new(&k, m, d).unwrap(),
        MatRef::new(&v, m, e).unwrap(),
    );
    for causal in [false, true] {
        let mut want = vec![0f64; n * e];
        for i in 0..n {
            let s: Vec<f64> = (0..m)
                .map(|j| {
                    if causal && j > i + 5 {
                        f64::NEG_INFINITY
                    } else {
                        (0..d).map(|c| q[i * d + c] as f64 * k[j * d + c] as f64).sum::<f64>() / (d as f64).sqrt()
                    }
                })
                .collect();
            let mx = s.iter().cloned().fold(f64::NEG_INFINITY, f64::max);
            let z: f64 = s.iter().map(|s| (s - mx).exp()).sum();
            for j in 0..m {
                for c in 0..e {
                    want[i * e + c] += (s[j] - mx).exp() / z * v[j * e + c] as f64;
                }
            }
        }
        let mut seen: Vec<(bool, Vec<u32>)> = vec![];
        for isa in Isa::all() {
            for run in [1, 7, 32, 192, 1000] {
                let rules = if causal {
                    Rules::new().with_causal().with_offset(Offset::Keys(5))
                } else {
                    Rules::new()
                };
                let plan = Exact::for_views(qv, kv, vv)
                    .unwrap()
                    .with_rules(rules)
                    .unwrap()
                    .with_isa(isa)
                    .with_key_run(run);
                let mut work = vec![MaybeUninit::uninit(); plan.need().bytes()];
                let mut out = vec![0f32; n * e];
                let r = plan
                    .forward(
                        qv,
                        kv,
                        vv,
                        MatMut::new(&mut out, n, e).unwrap(),
                        &mut Scratch::new(&mut work),
                    )
                    .unwrap();
                let err = out
                    .iter()
                    .zip(&want)
                    .map(|(a, b)| (*a as f64 - b).abs())
                    .fold(0., f64::max);
                println!(
                    "{} run {run} causal {causal} err {err:.2e} rep {}",
                    isa.name(),
                    r.repeated_blocks
                );
                assert!(err < 1e-5);
                seen.push((isa.fused(), out.iter().map(|x| x.to_bits()).collect()));
            }
        }
        let mut dec: Vec<(bool, Vec<u32>)> = vec![];
        for isa in Isa::all() {
            for rows in [1usize, 3, 8, 37] {
                let mut bits = vec![];
                for i0 in (0..n).step_by(rows) {
                    let r = rows.min(n - i0);
                    let rules = if causal {
                        Rules::new().with_causal().with_offset(Offset::Keys(5 + i0 as i64))
                    } else {
                        Rules::new()
                    };
                    let qq = qv.row_range(i0..i0 + r);
                    let plan = Decode::for_views(qq, kv, vv)
                        .unwrap()
                        .with_rules(rules)
                        .unwrap()
                        .with_isa(isa);
                    let mut work = vec![MaybeUninit::uninit(); plan.need().bytes()];
                    let mut out = vec![0f32; r * e];
                    let o = Outputs {
                        out: Some(TensorMut::new(&mut out, [1, 1, r, e]).unwrap()),
                        ..Default::default()
                    };
                    let _ = plan
                        .run(qq.into(), kv.into(), vv.into(), o, &mut Scratch::new(&mut work))
                        .unwrap();
                    let err = out
                        .iter()
                        .zip(&want[i0 * e..])
                        .map(|(a, b)| (*a as f64 - b).abs())
                        .fold(0., f64::max);
                    assert!(err < 1e-5, "{} {err}", isa.name());
                    bits.extend(out.iter().map(|x| x.to_bits()));
                }
                dec.push((isa.fused(), bits));
            }
        }
        for f in [false, true] {
            let mut it = dec.iter().filter(|s| s.0 == f);
            let first = it.next();
            for o in it {
                assert!(o.1 == first.unwrap().1);
            }
        }
        for f in [false, true] {
            let mut it = seen.iter().filter(|s| s.0 == f);
            let first = it.next();
            for o in it {
                assert!(o.1 == first.unwrap().1);
            }
        }
    }
}

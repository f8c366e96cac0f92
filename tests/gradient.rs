//! The gradient of attention: against f64, whose gradient is held to finite differences; on real heads; the same bits on
//! every back end of a class; what a mask hides, and what is not finite.

mod reference;

#[path = "gradient/call.rs"]
mod call;

use call::{back, conforms, Slope, Way};
use proptest::prelude::*;
use reference::{bits, head, noise, read_npy, Back, Case, Grid, Kept, Near, UNWRITTEN};
use subquad::attention::{Offset, Shape};
use subquad::Isa;

fn shapes() -> impl Strategy<Value = Shape> {
    (
        1..3usize,
        1..3usize,
        1..4usize,
        1..12usize,
        0..40usize,
        0..9usize,
        0..9usize,
    )
        .prop_map(|(batch, kv_heads, group, queries, keys, dim, value_dim)| Shape {
            batch,
            query_heads: kv_heads * group,
            kv_heads,
            queries,
            keys,
            dim,
            value_dim,
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("SUBQUAD_LONG").is_some() { 20_000 } else { 300 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn all_rules_together(shape in shapes(), on in any::<u16>(), seed in 0..1000u64) {
        let case = Case::random(shape, on, seed);
        let mut back = back(&case, seed, on >> 14 & 1 == 1);
        if on >> 15 == 1 && !back.d_out.is_empty() {
            // A row whose gradient is not finite.
            let at = seed as usize % back.d_out.len();
            back.d_out[at] = [f32::INFINITY, f32::NAN][seed as usize % 2];
        }
        conforms(&case, &back);
    }
}

/// Every entry of every input of the f64 gradient against a difference quotient with an error of order 4.
fn differences(case: &Case, back: &Back) {
    const STEP: f64 = 1.0 / 256.0;
    let slopes = case.slopes(back, Kept::Lse);
    type Field = fn(&mut Case) -> Option<&mut Vec<f32>>;
    let fields: [(&str, Field, &[Near]); 5] = [
        ("q", |c| Some(&mut c.q), &slopes.q),
        ("k", |c| Some(&mut c.k), &slopes.k),
        ("v", |c| Some(&mut c.v), &slopes.v),
        ("bias", |c| c.bias.as_mut().map(|b| &mut b.data), &slopes.bias),
        ("sinks", |c| c.sink_logits.as_mut(), &slopes.sinks),
    ];
    for (name, field, slopes) in fields {
        for (n, slope) in slopes.iter().enumerate() {
            let at = |steps: f64| {
                let mut moved = case.clone();
                let x = &mut field(&mut moved).unwrap()[n];
                // Inputs are multiples of 2^-12, so this is exact.
                *x = (f64::from(*x) + steps * STEP) as f32;
                moved.objective(back)
            };
            let quotient = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * STEP);
            let error = (quotient - slope.value).abs();
            assert!(
                error < 2e-6 * (1.0 + slope.value.abs()),
                "{name}[{n}]: {quotient} {slope:?}"
            );
        }
    }
}

#[test]
fn the_reference_is_the_gradient_of_the_reference() {
    let shape = Shape {
        batch: 2,
        query_heads: 4,
        kv_heads: 2,
        queries: 3,
        keys: 5,
        dim: 3,
        value_dim: 2,
    };
    let coarse = |x: &mut Vec<f32>| x.iter_mut().for_each(|x| *x = (*x * 4096.0).round() / 4096.0);
    for seed in 0..24 {
        // All rules but the poison, some of the time each.
        let on = (noise(seed, 1)[0].to_bits() >> 3) as u16 & 0x1fff;
        let mut case = Case::random(shape, on, seed);
        [&mut case.q, &mut case.k, &mut case.v].into_iter().for_each(coarse);
        // Moved, a bias of minus infinity stays one.
        differences(&case, &back(&case, seed, seed % 2 == 0));
    }
}

#[test]
fn long_heads_conform() {
    // More queries than a block and more keys than a run on every back end; wide heads take larger blocks.
    for (n, (queries, keys, dim, value_dim)) in [(230, 210, 20, 33), (100, 97, 64, 64), (210, 110, 90, 80)]
        .into_iter()
        .enumerate()
    {
        let mut case = Case::new(head(queries, keys, dim, value_dim), n as u64);
        case.q.iter_mut().for_each(|x| *x *= 0.5);
        conforms(&case, &back(&case, 3, false));
        case.causal = true;
        conforms(&case, &back(&case, 4, true));
        (case.left, case.sinks) = (Some(40), 3);
        conforms(&case, &back(&case, 5, false));
    }
}

#[test]
fn real_heads_conform() {
    for name in ["layer0_head7", "layer4_head9", "layer0_head2"] {
        let read = |x: &str| read_npy(&format!("tests/data/{name}_{x}.npy"));
        let ((q, rows, dim), (k, ..), (v, ..)) = (read("q"), read("k"), read("v"));
        // The first 160 rows: more than a block.
        let rows = rows.min(160);
        let mut case = Case::new(head(rows, rows, dim, dim), 0);
        let first = |x: Vec<f32>| x[..rows * dim].to_vec();
        (case.q, case.k, case.v) = (first(q), first(k), first(v));
        for causal in [false, true] {
            case.causal = causal;
            conforms(&case, &back(&case, 6, false));
        }
    }
}

#[test]
fn what_a_mask_hides_gets_nothing_and_changes_nothing() {
    let mut case = Case::new(head(40, 50, 6, 5), 9);
    case.causal = true;
    let back = back(&case, 1, true);
    let clean = Slope::of(&case, &back, Isa::best());
    // Keys 40 to 49 are beyond every query.
    for (j, with) in [(41, f32::NAN), (45, f32::INFINITY)] {
        case.poison(0, j, with);
    }
    let hidden = Slope::of(&case, &back, Isa::best());
    assert_eq!(clean.bits(), hidden.bits());
    assert!(clean.k[40 * 6..]
        .iter()
        .chain(&clean.v[40 * 5..])
        .all(|x| x.to_bits() == 0));
    // Key 20 is hidden from the first twenty queries, and spoils all others.
    case.poison(0, 20, f32::NAN);
    let spoiled = Slope::of(&case, &back, Isa::best());
    assert_eq!(spoiled.q[..20 * 6], clean.q[..20 * 6]);
    assert!(spoiled.q[20 * 6..].iter().all(|x| x.is_nan()));
    assert!(spoiled.k[..40 * 6].iter().all(|x| x.is_nan()) && spoiled.k[40 * 6..].iter().all(|&x| x == 0.0));
    assert_eq!(spoiled.report.non_finite_rows, 20);
}

/// Slopes of a case from both that may be kept.
fn both(case: &Case, back: &Back, isa: Isa) -> [Slope; 2] {
    [Kept::Lse, Kept::Partials].map(|kept| {
        let way = Way {
            kept,
            ..Way::plain(isa)
        };
        Slope::by(case, back, way)
    })
}

#[test]
fn what_is_not_wanted_and_where_tensors_lie_changes_no_bit() {
    for seed in 0..60 {
        let sizes: Vec<usize> = noise(seed + 77, 8)
            .iter()
            .map(|x| ((x + 1.0) * 500.0) as usize)
            .collect();
        let kv_heads = 1 + sizes[0] % 3;
        let shape = Shape {
            batch: 1 + sizes[1] % 2,
            query_heads: kv_heads * (1 + sizes[2] % 3),
            kv_heads,
            queries: [0, 1, 7, 17, 33][sizes[3] % 5],
            keys: [0, 1, 8, 31, 97][sizes[4] % 5],
            dim: [0, 1, 4, 17][sizes[5] % 4],
            value_dim: [0, 1, 3, 16][sizes[6] % 4],
        };
        let case = Case::random(shape, (sizes[7] as u16).wrapping_mul(67), seed);
        let back = back(&case, seed, seed % 2 == 0);
        for isa in [Isa::SCALAR, Isa::best()] {
            let whole = both(&case, &back, isa);
            for (kept, whole) in [Kept::Lse, Kept::Partials].into_iter().zip(whole) {
                let subset = (seed as usize * 13 + isa.lanes()) % 32;
                let wanted = [0, 1, 2, 3, 4].map(|n| subset >> n & 1 == 1);
                let lie = seed as usize;
                let part = Slope::by(&case, &back, Way { isa, kept, wanted, lie });
                for ((part, whole), wanted) in part.fields().into_iter().zip(whole.fields()).zip(wanted) {
                    if wanted {
                        assert_eq!(bits(part), bits(whole), "{seed} {shape:?} {}", isa.name());
                    } else {
                        assert!(part.iter().all(|&x| x == UNWRITTEN));
                    }
                }
            }
        }
    }
}

#[test]
fn scores_far_from_zero_have_a_gradient() {
    let far = |scale: f32| {
        let mut case = Case::new(head(1, 2, 1, 1), 5);
        (case.scale, case.q, case.k, case.v) = (Some(1.0), vec![scale], vec![1.0; 2], vec![1.0, 2.0]);
        case
    };
    let bias = |x: f32, sink: Option<f32>| {
        let mut case = Case::new(head(1, 4, 2, 1), 5);
        case.bias = Some(Grid::from([1, 1, 1, 4], |_, _, _, _| x));
        case.sink_logits = sink.map(|x| vec![x]);
        case
    };
    let up = Back {
        d_out: vec![1.0],
        d_lse: None,
    };
    let cases = [
        far(1.82e8),
        far(1.94e9),
        far(-3e30),
        bias(-1e9, None),
        bias(-183_000.0, None),
        bias(5e6, Some(5e6)),
    ];
    for case in cases {
        for isa in Isa::all() {
            let [lse, partials] = both(&case, &up, isa);
            assert_eq!((lse.report.imprecise_rows, partials.report.imprecise_rows), (1, 0));
            assert!(lse.v.iter().all(|&x| (0.0..=1.0).contains(&x)), "{:?}", lse.v);
            // What the sink does not have the keys share.
            let sum = |slope: &Slope| slope.v.iter().sum::<f32>();
            match &case.sink_logits {
                None => assert!((sum(&partials) - 1.0).abs() < 1e-6, "{:?}", partials.v),
                Some(_) => {
                    let out = case.run(isa, reference::Layout::Four, None).out[0];
                    let dot: f32 = partials.v.iter().zip(&case.v).map(|(p, v)| p * v).sum();
                    assert!((dot - out).abs() < 1e-6 && sum(&partials) < 0.95);
                    let sink = (1.0 - sum(&partials)) * -out;
                    assert!((partials.sinks[0] - sink).abs() < 1e-6);
                }
            }
        }
    }
    // Near 0 nothing is counted.
    assert_eq!(both(&far(16_000.0), &up, Isa::best())[0].report.imprecise_rows, 0);
}

#[test]
fn an_infinite_score_shows_through_the_cap() {
    for with in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
        for causal in [false, true] {
            let mut case = Case::new(head(1, 3, 1, 1), 5);
            (case.cap, case.scale, case.offset) = (2.0, Some(1.0), Offset::Keys(2));
            (case.q, case.k, case.v) = (vec![1.0], vec![1.0, with, 0.5], vec![1.0, 2.0, 3.0]);
            case.causal = causal;
            if causal {
                // Bias in memory, so that no run of keys is whole.
                case.bias = Some(Grid::from([1, 1, 1, 3], |_, _, _, _| 0.0));
            }
            let up = Back {
                d_out: vec![1.0],
                d_lse: None,
            };
            conforms(&case, &up);
            for isa in Isa::all() {
                for wanted in 0..8u8 {
                    let wanted = [0, 1, 2, 3, 4].map(|n| wanted >> n & 1 == 1);
                    let way = Way {
                        wanted,
                        ..Way::plain(isa)
                    };
                    let part = Slope::by(&case, &up, way);
                    assert_eq!(part.report.non_finite_rows, 1);
                    for (part, wanted) in part.fields().into_iter().zip(wanted).take(3) {
                        assert!(part.iter().all(|x| x.is_nan() == wanted));
                    }
                }
            }
        }
    }
}

#[test]
fn what_falls_below_the_smallest_numbers_is_in_the_bound() {
    // A product of the output's gradient with a value, and a share that is cut.
    for (q, k, v, d_out) in [
        (0.0, [1e30, -1e30], [1e-20, -1e-20], 1e-28),
        (1.0, [0.0, -75.0], [0.0, 1e32], 1.0),
        (1e-30, [1e-20, 1e20], [1e-30, 2e-30], 1e-12),
        (1.0, [0.5, 0.25], [1.0, 3.0], 1e-41),
    ] {
        let mut case = Case::new(head(1, 2, 1, 1), 5);
        (case.scale, case.q, case.k, case.v) = (Some(1.0), vec![q], k.into(), v.into());
        let up = Back {
            d_out: vec![d_out],
            d_lse: None,
        };
        conforms(&case, &up);
    }
}

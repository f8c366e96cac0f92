//! The gradient of attention: against f64, whose gradient is held to finite differences; on real heads; the same bits on
//! every back end of a class; what a mask hides, and what is not finite.

mod reference;

#[path = "gradient/call.rs"]
mod call;

use call::{back, conforms, Slope};
use proptest::prelude::*;
use reference::{head, noise, read_npy, Back, Case, Near};
use subquad::attention::Shape;

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
    let slopes = case.slopes(back);
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
    let clean = Slope::of(&case, &back, subquad::Isa::best());
    // Keys 40 to 49 are beyond every query.
    for (j, with) in [(41, f32::NAN), (45, f32::INFINITY)] {
        case.poison(0, j, with);
    }
    let hidden = Slope::of(&case, &back, subquad::Isa::best());
    assert_eq!(clean.bits(), hidden.bits());
    assert!(clean.k[40 * 6..]
        .iter()
        .chain(&clean.v[40 * 5..])
        .all(|x| x.to_bits() == 0));
    // Key 20 is hidden from the first twenty queries, and spoils all others.
    case.poison(0, 20, f32::NAN);
    let spoiled = Slope::of(&case, &back, subquad::Isa::best());
    assert_eq!(spoiled.q[..20 * 6], clean.q[..20 * 6]);
    assert!(spoiled.q[20 * 6..].iter().all(|x| x.is_nan()));
    assert!(spoiled.k[..40 * 6].iter().all(|x| x.is_nan()) && spoiled.k[40 * 6..].iter().all(|&x| x == 0.0));
    assert_eq!(spoiled.report.non_finite_rows, 20);
}

//! Calls that must give the same bits as other calls.

use crate::reference::{bits, conforms, same_bits, Case, Layout, Run};
use subquad::attention::{Offset, Shape};
use subquad::Isa;

const SHAPE: Shape = Shape {
    batch: 2,
    query_heads: 6,
    kv_heads: 2,
    queries: 7,
    keys: 37,
    dim: 5,
    value_dim: 3,
};

fn run(case: &Case, isa: Isa) -> Run {
    case.run(isa, Layout::Four, None)
}

#[test]
fn sinks_are_kept_outside_the_window() {
    for (left, right, sinks) in [(3, Some(0), 2), (0, Some(0), 40), (5, None, 1), (2, Some(2), 30)] {
        let mut case = Case::new(SHAPE, 1).but(|c| c.offset = Offset::Keys(25));
        (case.left, case.right, case.sinks) = (Some(left), right, sinks);
        conforms(&case, Layout::Four);
    }
}

#[test]
fn a_learned_sink_takes_weight_and_has_no_value() {
    let logits = vec![0.0, 2.5, -3.0, 80.0, -200.0, 0.5];
    let case = Case::new(SHAPE, 2).but(|c| c.sink_logits = Some(logits));
    conforms(&case, Layout::Packed);
    // Also where it is alone: zeros, and its logit is the log-sum-exp.
    conforms(&case.but(|c| c.key_lengths = Some(vec![0, 3])), Layout::Four);
}

#[test]
fn slopes_fall_off_with_distance() {
    let slopes = vec![0.5, 0.25, 0.125, 0.0, 1.0, -0.5];
    let case = Case::new(SHAPE, 3).but(|c| (c.slopes, c.offset) = (Some(slopes), Offset::ToEnd));
    conforms(&case, Layout::Four);
    conforms(&case.but(|c| (c.causal, c.left) = (true, Some(9))), Layout::Packed);
}

#[test]
fn ragged_sequences_equal_separate_calls() {
    let (queries, keys) = (vec![0, 3, 3, 10, 14], vec![0, 5, 9, 9, 30]);
    let shape = Shape {
        batch: 1,
        queries: 14,
        ..SHAPE
    };
    let mut case = Case::new(shape, 4).but(|c| (c.causal, c.offset, c.sinks) = (true, Offset::ToEnd, 1));
    (case.left, case.segments) = (Some(4), Some((queries.clone(), keys.clone())));
    case.slopes = Some(vec![0.1, 0.2, 0.3, 0.4, 0.5, 0.6]);
    conforms(&case, Layout::Four);
    for isa in Isa::all() {
        let whole = run(&case, isa);
        for s in 0..4 {
            let (q, k) = (queries[s]..queries[s + 1], keys[s]..keys[s + 1]);
            let part = Case {
                shape: Shape {
                    queries: q.len(),
                    keys: k.len(),
                    ..shape
                },
                q: rows(&case.q, shape.queries, shape.dim, q.clone()),
                k: rows(&case.k, shape.keys, shape.dim, k.clone()),
                v: rows(&case.v, shape.keys, shape.value_dim, k),
                segments: None,
                ..case.clone()
            };
            let part = run(&part, isa);
            assert_eq!(
                bits(&rows(&whole.out, 14, shape.value_dim, q.clone())),
                bits(&part.out),
                "{s}"
            );
            assert_eq!(bits(&rows(&whole.lse, 14, 1, q)), bits(&part.lse), "{s}");
        }
    }
}

/// Some rows of every head.
fn rows(x: &[f32], rows: usize, cols: usize, range: std::ops::Range<usize>) -> Vec<f32> {
    let heads = if cols == 0 { 0 } else { x.len() / (rows * cols) };
    (0..heads)
        .flat_map(|h| x[(h * rows + range.start) * cols..(h * rows + range.end) * cols].to_vec())
        .collect()
}

#[test]
fn heads_and_groups_equal_single_heads() {
    let case = Case::new(SHAPE, 5).but(|c| (c.causal, c.offset, c.cap) = (true, Offset::Keys(28), 3.0));
    let group = SHAPE.query_heads / SHAPE.kv_heads;
    for isa in Isa::all() {
        let whole = run(&case, isa);
        for head in 0..SHAPE.batch * SHAPE.query_heads {
            let (size, kv) = (SHAPE.queries * SHAPE.dim, head / group);
            let one = Case {
                shape: Shape {
                    batch: 1,
                    query_heads: 1,
                    kv_heads: 1,
                    ..SHAPE
                },
                q: case.q[head * size..][..size].to_vec(),
                k: case.k[kv * SHAPE.keys * SHAPE.dim..][..SHAPE.keys * SHAPE.dim].to_vec(),
                v: case.v[kv * SHAPE.keys * SHAPE.value_dim..][..SHAPE.keys * SHAPE.value_dim].to_vec(),
                ..case.clone()
            };
            let (one, size) = (run(&one, isa), SHAPE.queries * SHAPE.value_dim);
            assert_eq!(
                bits(&whole.out[head * size..][..size]),
                bits(&one.out),
                "{} head {head}",
                isa.name()
            );
        }
        // Keys and values repeated for every query head.
        let expand =
            |x: &[f32], size: usize| -> Vec<f32> { x.chunks(size).flat_map(|head| head.repeat(group)).collect() };
        let expanded = Case {
            shape: Shape {
                kv_heads: SHAPE.query_heads,
                ..SHAPE
            },
            k: expand(&case.k, SHAPE.keys * SHAPE.dim),
            v: expand(&case.v, SHAPE.keys * SHAPE.value_dim),
            ..case.clone()
        };
        same_bits(&whole, &run(&expanded, isa), isa.name());
    }
}

#[test]
fn how_keys_are_cut_into_runs_leaves_no_trace() {
    // Scores that spread over far more than 100 powers of two, rising, so that references are raised late.
    let mut case = Case::new(SHAPE, 6).but(|c| c.scale = Some(40.0));
    case.k
        .chunks_mut(SHAPE.dim)
        .enumerate()
        .for_each(|(j, row)| row.iter_mut().for_each(|x| *x *= 0.05 * (j % 37) as f32));
    conforms(&case, Layout::Four);
    for isa in Isa::all() {
        let whole = run(&case, isa);
        for keys in [1, 2, 7, 32, 1000] {
            let cut = case
                .run_plan(case.plan(isa).with_key_run(keys), Layout::Four, None)
                .unwrap();
            same_bits(&whole, &cut, isa.name());
        }
    }
}

#[test]
fn sizes_of_nothing_and_one() {
    let sizes = [0, 1, 2];
    for n in sizes {
        for shape in [
            Shape { batch: n, ..SHAPE },
            Shape {
                query_heads: n,
                kv_heads: n,
                ..SHAPE
            },
            Shape { queries: n, ..SHAPE },
            Shape { keys: n, ..SHAPE },
            Shape { dim: n, ..SHAPE },
            Shape { value_dim: n, ..SHAPE },
        ] {
            conforms(&Case::new(shape, 7), Layout::Four);
            conforms(&Case::new(shape, 7).but(|c| c.causal = true), Layout::Packed);
        }
    }
}

#[test]
fn not_finite_where_seen_is_one_nan_and_counted_and_other_rows_are_untouched() {
    let shape = Shape {
        batch: 1,
        query_heads: 2,
        kv_heads: 2,
        ..SHAPE
    };
    let clean = Case::new(shape, 8).but(|c| (c.causal, c.offset) = (true, Offset::Keys(20)));
    for with in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for values in [false, true] {
            // Key 23 of head 1, seen by queries 3 to 6.
            let mut case = clean.clone();
            let (x, cols) = if values {
                (&mut case.v, shape.value_dim)
            } else {
                (&mut case.k, shape.dim)
            };
            x[(shape.keys + 23) * cols] = with;
            conforms(&case, Layout::Four);
            for isa in Isa::all() {
                let (bad, good) = (run(&case, isa), run(&clean, isa));
                assert_eq!(bad.report.non_finite_rows, 4);
                let row = |x: &Run, n: usize| bits(&x.out[n * shape.value_dim..][..shape.value_dim]);
                for n in 0..14 {
                    let hit = n >= 7 + 3;
                    let want = if hit {
                        vec![0x7fc0_0000; shape.value_dim]
                    } else {
                        row(&good, n)
                    };
                    assert_eq!(row(&bad, n), want, "{} {with} row {n}", isa.name());
                    assert_eq!(
                        bad.lse[n].to_bits(),
                        if hit { 0x7fc0_0000 } else { good.lse[n].to_bits() }
                    );
                }
            }
        }
    }
}

//! Every mistake has its error, and an error writes nothing.

use crate::reference::{head, odd_scratch, Case, Grid, Layout, UNWRITTEN};
use subquad::attention::{Exact, Outputs, Rules, Segments, Shape, Stage};
use subquad::{Error, Isa, Scratch, TensorMut, TensorRef};

const SHAPE: Shape = Shape {
    batch: 2,
    query_heads: 4,
    kv_heads: 2,
    queries: 3,
    keys: 5,
    dim: 4,
    value_dim: 2,
};

fn refusal(rules: Rules<'_>) -> Option<Error> {
    Exact::new(SHAPE).unwrap().with_rules(rules).err()
}

#[test]
fn rules_that_make_no_sense() {
    let rules = Rules::new();
    for x in [-1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(refusal(rules.with_scale(x)), Some(Error::Parameter));
        assert_eq!(refusal(rules.with_cap(x)), Some(Error::Parameter));
    }
    for x in [f32::NAN, f32::INFINITY, f32::MAX] {
        assert_eq!(refusal(rules.with_slopes(&[0.0, 0.0, x, 0.0])), Some(Error::Parameter));
        assert_eq!(
            refusal(rules.with_sink_logits(&[0.0, 0.0, 0.0, x])),
            Some(Error::Parameter)
        );
    }
    assert_eq!(refusal(rules.with_slopes(&[0.0; 2])), Some(Error::Shape));
    assert_eq!(refusal(rules.with_sink_logits(&[0.0; 5])), Some(Error::Shape));
    assert_eq!(refusal(rules.with_key_lengths(&[1])), Some(Error::Shape));
    assert_eq!(refusal(rules.with_key_lengths(&[1, 6])), Some(Error::Range));
    for shape in [[3, 4, 3, 5], [2, 2, 3, 5], [2, 4, 2, 5], [2, 4, 3, 6]] {
        let (mask, bias) = (
            Grid::from(shape, |_, _, _, _| 1u8),
            Grid::from(shape, |_, _, _, _| 0.0f32),
        );
        assert_eq!(
            refusal(rules.with_mask(TensorRef::new(&mask.data, shape).unwrap())),
            Some(Error::Shape)
        );
        assert_eq!(
            refusal(rules.with_bias(TensorRef::new(&bias.data, shape).unwrap())),
            Some(Error::Shape)
        );
    }
    fn segments(queries: &[usize], keys: &[usize]) -> Option<Error> {
        refusal(Rules::new().with_segments(Segments { queries, keys }))
    }
    assert_eq!(segments(&[0, 3], &[0, 1, 5]), Some(Error::Shape));
    assert_eq!(segments(&[0], &[0]), Some(Error::Shape));
    for (queries, keys) in [
        ([0, 2, 1], [0, 2, 5]),
        ([1, 2, 3], [0, 2, 5]),
        ([0, 2, 3], [0, 6, 5]),
        ([0, 2, 3], [0, 2, 6]),
    ] {
        assert_eq!(segments(&queries, &keys), Some(Error::Range), "{queries:?} {keys:?}");
    }
    assert_eq!(segments(&[0, 2, 3], &[0, 2, 5]), None);
}

#[test]
fn shapes_that_do_not_fit() {
    assert_eq!(
        Exact::new(Shape {
            query_heads: 3,
            ..SHAPE
        })
        .err(),
        Some(Error::Shape)
    );
    assert_eq!(Exact::new(Shape { kv_heads: 0, ..SHAPE }).err(), Some(Error::Shape));
    assert_eq!(Exact::new(head(usize::MAX, 1, 1, 1)).err(), Some(Error::Overflow));
    assert_eq!(Exact::new(head(1, usize::MAX, 1, 1)).err(), Some(Error::Overflow));
    let x = [0.0; 64];
    let (q, k) = (
        TensorRef::new(&x, [1, 2, 2, 4]).unwrap(),
        TensorRef::new(&x, [1, 2, 3, 4]).unwrap(),
    );
    for wrong in [[2, 2, 3, 2], [1, 1, 3, 2], [1, 2, 2, 2]] {
        assert_eq!(
            Exact::for_views(q, k, TensorRef::new(&x, wrong).unwrap()).err(),
            Some(Error::Shape)
        );
    }
    assert_eq!(
        Exact::for_views(TensorRef::new(&x, [1, 2, 2, 5]).unwrap(), k, k).err(),
        Some(Error::Shape)
    );
    let mut y = [0.0f32; 64];
    assert_eq!(
        TensorMut::with_strides(&mut y, [1, 2, 3, 4], [0, 2, 4]).err(),
        Some(Error::Overlap)
    );
    assert_eq!(
        TensorMut::new(&mut y, [usize::MAX, 2, 3, 4]).err(),
        Some(Error::Overflow)
    );
    assert_eq!(TensorMut::new(&mut y, [4, 2, 3, 4]).err(), Some(Error::Short));
    // Scratch that no machine has.
    let plan = Exact::new(head(1, 1, usize::MAX / 8, 1)).unwrap();
    assert_eq!(plan.need().bytes(), usize::MAX);
}

#[test]
fn an_error_writes_nothing() {
    let case = Case::new(SHAPE, 1).but(|c| c.causal = true);
    let (q, k) = (
        TensorRef::new(&case.q, [2, 4, 3, 4]).unwrap(),
        TensorRef::new(&case.k, [2, 2, 5, 4]).unwrap(),
    );
    let v = TensorRef::new(&case.v, [2, 2, 5, 2]).unwrap();
    let attempt = |isa: Isa, out_shape, lse_shape, scores_shape, spare: usize| {
        let mut written = [vec![UNWRITTEN; 256], vec![UNWRITTEN; 256], vec![UNWRITTEN; 256]];
        let [out, lse, scores] = &mut written;
        let outputs = Outputs {
            out: Some(TensorMut::new(out, out_shape).unwrap()),
            lse: Some(TensorMut::new(lse, lse_shape).unwrap()),
            partials: None,
            scores: Some((Stage::Raw, TensorMut::new(scores, scores_shape).unwrap())),
        };
        let plan = case.plan(isa);
        let mut result = None;
        let run = |s: &mut Scratch<'_>| result = plan.run(q, k, v, outputs, s).err();
        odd_scratch(plan.need_with_scores().bytes() - spare, run);
        if result.is_some() {
            assert!(written.iter().flatten().all(|&x| x == UNWRITTEN));
        }
        result
    };
    let (out, lse, scores) = ([2, 4, 3, 2], [2, 4, 3, 1], [2, 4, 3, 5]);
    for isa in Isa::all() {
        assert_eq!(attempt(isa, out, lse, scores, 0), None, "{}", isa.name());
        // Not one byte less.
        assert_eq!(attempt(isa, out, lse, scores, 1), Some(Error::Short), "{}", isa.name());
        assert_eq!(attempt(isa, [2, 4, 3, 3], lse, scores, 0), Some(Error::Shape));
        assert_eq!(attempt(isa, out, [2, 4, 2, 1], scores, 0), Some(Error::Shape));
        assert_eq!(attempt(isa, out, lse, [2, 4, 3, 4], 0), Some(Error::Shape));
        // A plan for another shape.
        let other = Case::new(Shape { keys: 4, ..SHAPE }, 1);
        assert_eq!(
            case.run_plan(other.plan(isa), Layout::Four, None).err(),
            Some(Error::Shape)
        );
    }
}

#[test]
fn strides_of_nothing_and_odd_strides() {
    // Seven keys that are the same row in memory, values nine apart, outputs eleven apart.
    let plain = Case::new(head(5, 7, 3, 2), 2);
    let row = &plain.k[..3];
    let same = Case {
        k: row.repeat(7),
        ..plain.clone()
    };
    let mut spread = vec![f32::NAN; 7 * 9];
    plain
        .v
        .chunks(2)
        .enumerate()
        .for_each(|(j, v)| spread[j * 9..][..2].copy_from_slice(v));
    for isa in Isa::all() {
        let want = same.run(isa, Layout::Four, None).out;
        let mut out = vec![UNWRITTEN; 5 * 11];
        let plan = same.plan(isa);
        let outputs = Outputs {
            out: Some(TensorMut::with_strides(&mut out, [1, 1, 5, 2], [0, 0, 11]).unwrap()),
            ..Outputs::default()
        };
        odd_scratch(plan.need().bytes(), |scratch| {
            let q = TensorRef::new(&plain.q, [1, 1, 5, 3]).unwrap();
            let k = TensorRef::with_strides(row, [1, 1, 7, 3], [0, 0, 0]).unwrap();
            let v = TensorRef::with_strides(&spread, [1, 1, 7, 2], [0, 0, 9]).unwrap();
            assert_eq!(plan.run(q, k, v, outputs, scratch).unwrap().masked_rows, 0);
        });
        for (got, want) in out.chunks(11).zip(want.chunks(2)) {
            assert_eq!(got[..2], *want);
            assert!(
                got[2..].iter().all(|&x| x == UNWRITTEN),
                "between rows nothing is written"
            );
        }
    }
}

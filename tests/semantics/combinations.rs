//! All rules at once, at random, against the reference. `SUBQUAD_LONG` tries many more.

use crate::reference::{conforms, noise, Case, Grid, Layout};
use proptest::prelude::*;
use subquad::attention::{Offset, Shape};

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

/// Which rules there are: one bit each. Their numbers come from the seed.
fn cases() -> impl Strategy<Value = (Case, Layout)> {
    let layout = prop_oneof![Just(Layout::Four), Just(Layout::Packed), Just(Layout::PackedOverCache)];
    (shapes(), any::<u16>(), 0..1000u64, layout).prop_map(|(s, on, seed, layout)| (case(s, on, seed), layout))
}

fn case(s: Shape, on: u16, seed: u64) -> Case {
    let has = |rule: u16| on >> rule & 1 == 1;
    let mut draws = noise(seed ^ 0x5eed, 4096).into_iter().map(|x| f64::from(x) / 2.0 + 0.5);
    let mut below = |n: usize| (draws.next().unwrap_or(0.0) * n as f64) as usize;
    let mut case = Case::new(s, seed);
    case.causal = has(0);
    case.offset = if has(1) {
        Offset::ToEnd
    } else {
        Offset::Keys(below(30) as i64 - 8)
    };
    case.left = has(2).then(|| below(12));
    case.right = has(3).then(|| below(12));
    case.sinks = if has(4) { below(6) } else { 0 };
    case.scale = has(5).then(|| below(30) as f32 / 10.0);
    case.cap = if has(6) { 0.5 + below(8) as f32 } else { 0.0 };
    case.sink_logits = has(7).then(|| (0..s.query_heads).map(|_| below(16) as f32 - 8.0).collect());
    case.slopes = has(8).then(|| (0..s.query_heads).map(|_| below(8) as f32 / 8.0).collect());
    case.key_lengths = has(9).then(|| (0..s.batch).map(|_| below(s.keys + 1)).collect());
    let mut mask_shape = || {
        let full = [s.batch, s.query_heads, s.queries];
        let [b, h, r] = full.map(|n| if below(2) == 0 { 1 } else { n });
        [b, h, r, s.keys - below(s.keys.min(3) + 1)]
    };
    let (mask, bias) = (mask_shape(), mask_shape());
    case.mask = has(10).then(|| Grid::from(mask, |_, _, _, _| u8::from(below(5) > 0)));
    case.bias = has(11).then(|| {
        Grid::from(bias, |_, _, _, _| {
            if below(6) == 0 {
                f32::NEG_INFINITY
            } else {
                below(16) as f32 / 4.0 - 2.0
            }
        })
    });
    if has(12) {
        let (query, key) = (below(s.queries + 1), below(s.keys + 1));
        case.segments = Some((vec![0, query, query, s.queries], vec![0, key / 2, key, s.keys]));
    }
    if has(13) && s.keys > 0 {
        let (b, j) = (below(s.batch), below(s.keys));
        case.poison(b, j, f32::NAN);
    }
    case
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("SUBQUAD_LONG").is_some() { 20_000 } else { 200 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn all_rules_together((case, layout) in cases()) {
        conforms(&case, layout);
    }
}

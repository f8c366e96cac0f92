//! All rules at once, at random, against the reference. `SUBQUAD_LONG` tries many more.

use crate::reference::{conforms, Case, Layout};
use proptest::prelude::*;
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

/// Which rules there are: one bit each. Their numbers come from the seed.
fn cases() -> impl Strategy<Value = (Case, Layout)> {
    let layout = prop_oneof![Just(Layout::Four), Just(Layout::Packed), Just(Layout::PackedOverCache)];
    (shapes(), any::<u16>(), 0..1000u64, layout).prop_map(|(s, on, seed, layout)| (Case::random(s, on, seed), layout))
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

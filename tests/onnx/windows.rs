//! Local windows: alone, with masks, with a past, over an external cache.

use crate::fixture::{bias, cached, mask, with_past, GQA, MHA, PAST};
use crate::reference::{conforms, Case, Grid, Layout};
use subquad::attention::Shape;
use subquad::Isa;

const LONG: Shape = Shape {
    queries: 10,
    keys: 10,
    ..MHA
};
const CACHE: Shape = Shape { keys: 14, ..MHA };

/// A window that looks back only, or both ways.
fn window(mut case: Case, left: usize, right: Option<usize>) -> Case {
    (case.left, case.right) = (Some(left), right);
    case
}

cases! {
    fn attention_local_window() {
        let case = window(Case::new(LONG, 1), 2, Some(0));
        conforms(&case, Layout::Four);
        // To the right nothing: the same as causal, bit for bit.
        let causal = case.clone().but(|c| (c.right, c.causal) = (None, true));
        for isa in Isa::all() {
            let runs = (case.run(isa, Layout::Four, None), causal.run(isa, Layout::Four, None));
            crate::reference::same_bits(&runs.0, &runs.1, isa.name());
        }
    }
    fn attention_bidirectional_window() { conforms(&window(Case::new(LONG, 2), 2, Some(3)), Layout::Four); }
    fn attention_local_window_default() {
        // Unbounded on both sides: no window at all.
        let case = Case::new(LONG, 3);
        assert_eq!((case.left, case.right), (None, None));
        conforms(&case, Layout::Four);
        let wide = window(case.clone(), 10, Some(10));
        for isa in Isa::all() {
            let runs = (case.run(isa, Layout::Four, None), wide.run(isa, Layout::Four, None));
            crate::reference::same_bits(&runs.0, &runs.1, isa.name());
        }
    }
    fn attention_local_window_rank1_boolean_mask() {
        conforms(&window(Case::new(LONG, 4), 3, Some(0)).but(|c| c.mask = mask([1, 1, 1, 10])), Layout::Four);
    }
    fn attention_local_window_with_past() { conforms(&window(with_past(MHA), 3, Some(1)), Layout::Four); }
    fn attention_local_window_ext_cache_rank3_head_mask() {
        let case = window(cached(CACHE, &[9, 14]), 4, Some(0)).but(|c| c.bias = bias([1, 3, 4, 14]));
        conforms(&case, Layout::Four);
    }
    fn attention_local_window_ext_cache_rank4_batch_mask() {
        let case = window(cached(CACHE, &[9, 14]), 4, Some(0)).but(|c| c.bias = bias([2, 1, 4, 14]));
        conforms(&case, Layout::Four);
    }
    fn attention_local_window_ext_cache_rank2_mask() {
        let case = window(cached(CACHE, &[6, 11]), 4, Some(0)).but(|c| c.bias = bias([1, 1, 4, 14]));
        conforms(&case, Layout::Four);
    }
    fn attention_3d_local_window() { conforms(&window(Case::new(LONG, 5), 2, Some(0)), Layout::Packed); }
    fn attention_local_window_gqa_rank4_mask() {
        let case = window(with_past(GQA), 5, None).but(|c| c.causal = true);
        let visible = |b: usize, h: usize, i: usize, j: usize| u8::from((b + 2 * h + 3 * i + 5 * j) % 7 > 1);
        conforms(&case.but(|c| c.mask = Some(Grid::from([2, 9, 4, PAST + 6], visible))), Layout::Four);
    }
}

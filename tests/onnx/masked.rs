//! What masks hide never shows: padded caches, rows without keys, garbage behind a mask.

use crate::fixture::{bias, cached, mask, GQA, MHA, WIDE};
use crate::reference::{conforms, Case, Grid, Layout};
use subquad::attention::{Offset, Shape};
use subquad::Isa;

/// Conforms, and has as many rows without keys as the test counted by hand: zeros, log-sum-exp minus infinity.
fn empty_rows(case: &Case, count: usize) {
    conforms(case, Layout::Four);
    let run = case.run(Isa::best(), Layout::Four, None);
    assert_eq!(run.report.masked_rows, count);
    let empty = run
        .lse
        .iter()
        .zip(run.out.chunks(case.shape.value_dim))
        .filter(|(&lse, _)| lse == f32::NEG_INFINITY);
    assert_eq!(empty.clone().count(), count);
    assert!(empty.flat_map(|(_, out)| out).all(|&x| x == 0.0));
}

/// Rows 1 of every head see nothing.
fn second_row_hidden(_: usize, _: usize, i: usize, j: usize) -> u8 {
    u8::from(i != 1 && j != 2)
}

const HEAD_ROWS: usize = MHA.batch * MHA.query_heads;

cases! {
    fn attention_4d_diff_heads_mask4d_padded_kv() {
        // The mask has four columns for six keys; three and four keys are valid.
        let case = cached(WIDE, &[3, 4]).but(|c| c.bias = bias([2, 3, 4, 4]));
        conforms(&case, Layout::Four);
    }
    fn attention_4d_softcap_neginf_mask() {
        // The mask comes after the cap: capped, minus infinity would be a finite score.
        let case = Case::new(MHA, 5).but(|c| (c.cap, c.bias) = (0.5, bias([1, 1, 4, 6])));
        conforms(&case, Layout::Four);
        let run = case.run(Isa::best(), Layout::Four, Some(subquad::attention::Stage::Softmax));
        assert!(run.scores.chunks(24).all(|head| head[4] == 0.0 && head[9] == 0.0), "every fifth is hidden");
    }
    fn attention_4d_softcap_neginf_mask_poison() {
        for with in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38] {
            let mut case = Case::new(MHA, 6).but(|c| c.cap = 0.5);
            case.bias = Some(Grid::from([1, 1, 4, 6], |_, _, _, j| if j > 3 { f32::NEG_INFINITY } else { 0.25 }));
            case.poison(0, 4, with);
            case.poison(1, 5, with);
            assert_eq!(case.answer().non_finite_rows, 0);
            let clean = Case { k: Case::new(MHA, 6).k, v: Case::new(MHA, 6).v, ..case.clone() };
            for isa in Isa::all() {
                let (a, b) = (case.run(isa, Layout::Four, None), clean.run(isa, Layout::Four, None));
                crate::reference::same_bits(&a, &b, isa.name());
            }
            if with.is_nan() {
                conforms(&case, Layout::Four);
            }
        }
    }
    fn attention_4d_gqa_causal_nonpad_decode() {
        let one = Shape { queries: 1, keys: 9, ..GQA };
        empty_rows(&cached(one, &[5, 9]).but(|c| c.causal = true), 0);
    }
    fn attention_4d_causal_nonpad_continued_prefill() {
        empty_rows(&cached(Shape { keys: 12, ..MHA }, &[7, 10]).but(|c| c.causal = true), 0);
    }
    fn attention_4d_causal_nonpad_batch_prefill() {
        // All four queries are new: offset 0 in one entry, 2 in the other.
        empty_rows(&cached(MHA, &[4, 6]).but(|c| c.causal = true), 0);
    }
    fn attention_4d_causal_nonpad_negative_offset_structural_empty() {
        // Two valid keys, four queries: the first two queries stand before every key. In the other entry, all do.
        let case = cached(MHA, &[2, 0]).but(|c| c.causal = true);
        empty_rows(&case, 3 * 2 + 3 * 4);
    }
    fn attention_4d_causal_nonpad_attn_mask_composition() {
        conforms(&cached(MHA, &[5, 6]).but(|c| (c.causal, c.bias) = (true, bias([2, 1, 4, 6]))), Layout::Four);
    }
    fn attention_causal_boolmask_nan_robustness() {
        let mut case = Case::new(MHA, 7).but(|c| c.causal = true);
        // Key 0 is all that the causal query 0 could see.
        case.mask = Some(Grid::from([1, 1, 4, 6], |_, _, _, j| u8::from(j != 0)));
        for b in 0..2 {
            for j in [0, 4, 5] {
                case.poison(b, j, f32::NAN);
            }
        }
        empty_rows(&case, HEAD_ROWS);
    }
    fn attention_23_boolmask_fullymasked_row_nan_robustness() {
        let mut case = Case::new(MHA, 8);
        case.mask = Some(Grid::from([1, 1, 4, 6], second_row_hidden));
        case.poison(0, 2, f32::NAN);
        case.poison(1, 2, f32::INFINITY);
        assert_eq!(case.answer().non_finite_rows, 0);
        case.poison(1, 2, f32::NAN);
        empty_rows(&case, HEAD_ROWS);
    }
    fn attention_23_fullymasked_qk_matmul_output_mode3_zero() {
        let case = Case::new(MHA, 9).but(|c| c.mask = Some(Grid::from([1, 1, 4, 6], second_row_hidden)));
        empty_rows(&case, HEAD_ROWS);
        let run = case.run(Isa::best(), Layout::Four, Some(subquad::attention::Stage::Softmax));
        assert!(run.scores.chunks(24).all(|head| head[6..12] == [0.0; 6]));
    }
    fn attention_24_fullymasked_qk_matmul_output_mode3_zero() {
        let hidden = |_, _, i, _| if i == 1 { f32::NEG_INFINITY } else { 0.5 };
        let case = Case::new(MHA, 10).but(|c| c.bias = Some(Grid::from([1, 1, 4, 6], hidden)));
        empty_rows(&case, HEAD_ROWS);
        let run = case.run(Isa::best(), Layout::Four, Some(subquad::attention::Stage::Softmax));
        assert!(run.scores.chunks(24).all(|head| head[6..12] == [0.0; 6]));
    }
    fn attention_24_qk_matmul_output_mode3_softmax_precision() {
        // Scores far apart and large: the probabilities of each row still sum to 1, to n + 3 roundings.
        let case = Case::new(MHA, 11).but(|c| (c.scale, c.offset) = (Some(30.0), Offset::Keys(0)));
        conforms(&case, Layout::Four);
        let run = case.run(Isa::best(), Layout::Four, Some(subquad::attention::Stage::Softmax));
        for row in run.scores.chunks(6) {
            let sum: f64 = row.iter().map(|&x| f64::from(x)).sum();
            assert!((sum - 1.0).abs() <= 9.0 * crate::reference::UNIT, "{sum}");
        }
        conforms(&Case::new(MHA, 11).but(|c| c.mask = mask([2, 3, 1, 6])), Layout::Four);
    }
}

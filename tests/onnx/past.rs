//! Past keys and values in front of the new ones.

use crate::fixture::{bias, with_past, GQA, MHA, PAST, WIDE};
use crate::reference::{conforms, Case, Layout};
use subquad::attention::Shape;

const TOTAL: usize = PAST + MHA.keys;

fn four(shape: Shape, change: impl FnOnce(&mut Case)) {
    conforms(&with_past(shape).but(change), Layout::Four);
}

/// The operator keeps the past in four axes although queries are packed.
fn three(shape: Shape, change: impl FnOnce(&mut Case)) {
    conforms(&with_past(shape).but(change), Layout::PackedOverCache);
}

cases! {
    fn attention_4d_with_past_and_present() { four(MHA, |c| c.bias = bias([1, 1, 4, TOTAL])); }
    fn attention_4d_gqa_with_past_and_present() { four(GQA, |c| c.bias = bias([1, 1, 4, TOTAL])); }
    fn attention_4d_diff_heads_with_past_and_present() { four(WIDE, |c| c.bias = bias([1, 1, 4, TOTAL])); }
    fn attention_4d_diff_heads_with_past_and_present_mask3d() {
        four(WIDE, |c| c.bias = bias([1, 3, 4, TOTAL]));
    }
    fn attention_4d_diff_heads_with_past_and_present_mask4d() {
        four(WIDE, |c| c.bias = bias([2, 3, 4, TOTAL]));
    }
    fn attention_4d_with_past_and_present_qk_matmul() { four(MHA, |_| ()); }
    fn attention_4d_with_past_and_present_qk_matmul_bias() { four(MHA, |c| c.bias = bias([1, 1, 4, TOTAL])); }
    fn attention_4d_with_past_and_present_qk_matmul_bias_3d_mask() {
        four(MHA, |c| c.bias = bias([1, 3, 4, TOTAL]));
    }
    fn attention_4d_with_past_and_present_qk_matmul_bias_4d_mask() {
        four(MHA, |c| c.bias = bias([2, 3, 4, TOTAL]));
    }
    fn attention_4d_with_past_and_present_qk_matmul_bias_3d_mask_causal() {
        four(MHA, |c| (c.bias, c.causal) = (bias([1, 3, 4, TOTAL]), true));
    }
    fn attention_4d_with_past_and_present_qk_matmul_bias_4d_mask_causal() {
        four(MHA, |c| (c.bias, c.causal) = (bias([2, 3, 4, TOTAL]), true));
    }
    fn attention_4d_causal_with_past_and_present() { four(MHA, |c| c.causal = true); }
    fn attention_3d_with_past_and_present() { three(MHA, |c| c.bias = bias([1, 1, 4, TOTAL])); }
    fn attention_3d_gqa_with_past_and_present() { three(GQA, |c| c.bias = bias([1, 1, 4, TOTAL])); }
    fn attention_3d_diff_heads_with_past_and_present() { three(WIDE, |c| c.bias = bias([1, 1, 4, TOTAL])); }
    fn attention_3d_with_past_and_present_qk_matmul() { three(MHA, |_| ()); }
    fn attention_3d_with_past_and_present_qk_matmul_bias() { three(MHA, |c| c.bias = bias([1, 1, 4, TOTAL])); }
    fn attention_3d_with_past_and_present_qk_matmul_softcap() {
        three(MHA, |c| (c.cap, c.bias) = (2.0, bias([1, 1, 4, TOTAL])));
    }
    fn attention_3d_with_past_and_present_qk_matmul_softmax() {
        three(MHA, |c| (c.cap, c.bias) = (1.0, bias([2, 1, 4, TOTAL])));
    }
}

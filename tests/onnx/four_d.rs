//! (batch, heads, rows, cols), no past.

use crate::fixture::{bias, four, mask, GQA, MHA, WIDE};

cases! {
    fn attention_4d() { four(MHA, |_| ()); }
    fn attention_4d_gqa() { four(GQA, |_| ()); }
    fn attention_4d_diff_heads_sizes() { four(WIDE, |_| ()); }
    fn attention_4d_scaled() { four(MHA, |c| c.scale = Some(0.01)); }
    fn attention_4d_gqa_scaled() { four(GQA, |c| c.scale = Some(0.01)); }
    fn attention_4d_diff_heads_sizes_scaled() { four(WIDE, |c| c.scale = Some(0.01)); }
    fn attention_4d_causal() { four(MHA, |c| c.causal = true); }
    fn attention_4d_gqa_causal() { four(GQA, |c| c.causal = true); }
    fn attention_4d_diff_heads_sizes_causal() { four(WIDE, |c| c.causal = true); }
    fn attention_4d_attn_mask() { four(MHA, |c| c.bias = bias([1, 1, 4, 6])); }
    fn attention_4d_attn_mask_3d() { four(MHA, |c| c.bias = bias([1, 3, 4, 6])); }
    fn attention_4d_attn_mask_3d_causal() {
        four(MHA, |c| (c.bias, c.causal) = (bias([1, 3, 4, 6]), true));
    }
    fn attention_4d_attn_mask_4d() { four(MHA, |c| c.bias = bias([2, 3, 4, 6])); }
    fn attention_4d_attn_mask_4d_causal() {
        four(MHA, |c| (c.bias, c.causal) = (bias([2, 3, 4, 6]), true));
    }
    fn attention_4d_attn_mask_bool() { four(MHA, |c| c.mask = mask([1, 1, 4, 6])); }
    fn attention_4d_attn_mask_bool_4d() { four(MHA, |c| c.mask = mask([2, 3, 4, 6])); }
    fn attention_4d_gqa_attn_mask() { four(GQA, |c| c.bias = bias([1, 1, 4, 6])); }
    fn attention_4d_diff_heads_sizes_attn_mask() { four(WIDE, |c| c.bias = bias([1, 1, 4, 6])); }
    fn attention_4d_softcap() { four(MHA, |c| c.cap = 2.0); }
    fn attention_4d_gqa_softcap() { four(GQA, |c| c.cap = 2.0); }
    fn attention_4d_diff_heads_sizes_softcap() { four(WIDE, |c| c.cap = 2.0); }
    // Every call of this suite writes all score outputs in turn: with these names, the rules that tell them apart.
    fn attention_4d_with_qk_matmul() { four(MHA, |c| c.scale = Some(0.7)); }
    fn attention_4d_with_qk_matmul_bias() { four(MHA, |c| c.bias = bias([1, 1, 4, 6])); }
    fn attention_4d_with_qk_matmul_softcap() {
        four(MHA, |c| (c.cap, c.bias) = (2.0, bias([1, 1, 4, 6])));
    }
    fn attention_4d_with_qk_matmul_softmax() {
        four(MHA, |c| (c.cap, c.bias) = (0.5, bias([2, 1, 4, 6])));
    }
}

//! (batch, rows, heads * cols), no past.

use crate::fixture::{bias, three, GQA, MHA, WIDE};
use crate::reference::odd_scratch;
use subquad::attention::{Exact, Outputs};
use subquad::{TensorMut, TensorRef};

cases! {
    fn attention_3d() { three(MHA, |_| ()); }
    fn attention_3d_gqa() { three(GQA, |_| ()); }
    fn attention_3d_diff_heads_sizes() { three(WIDE, |_| ()); }
    fn attention_3d_scaled() { three(MHA, |c| c.scale = Some(0.01)); }
    fn attention_3d_gqa_scaled() { three(GQA, |c| c.scale = Some(0.01)); }
    fn attention_3d_diff_heads_sizes_scaled() { three(WIDE, |c| c.scale = Some(0.01)); }
    fn attention_3d_causal() { three(MHA, |c| c.causal = true); }
    fn attention_3d_gqa_causal() { three(GQA, |c| c.causal = true); }
    fn attention_3d_diff_heads_sizes_causal() { three(WIDE, |c| c.causal = true); }
    fn attention_3d_attn_mask() { three(MHA, |c| c.bias = bias([1, 1, 4, 6])); }
    fn attention_3d_gqa_attn_mask() { three(GQA, |c| c.bias = bias([1, 1, 4, 6])); }
    fn attention_3d_diff_heads_sizes_attn_mask() { three(WIDE, |c| c.bias = bias([1, 1, 4, 6])); }
    fn attention_3d_softcap() { three(MHA, |c| c.cap = 3.0); }
    fn attention_3d_gqa_softcap() { three(GQA, |c| c.cap = 3.0); }
    fn attention_3d_diff_heads_sizes_softcap() { three(WIDE, |c| c.cap = 3.0); }
    fn attention_3d_transpose_verification() {
        // Two heads of two columns side by side. One key: every output is that key's value, head by head; so the
        // order of the packed axis can be read off the whole part (w v / w has two roundings).
        let (q, k) = ([0.5; 12], [0.25; 4]);
        let v = [10.0, 11.0, 20.0, 21.0];
        let mut out = [0.0; 12];
        let views = (
            TensorRef::packed(&q, [1, 2, 3, 2]).unwrap(),
            TensorRef::packed(&k, [1, 2, 1, 2]).unwrap(),
            TensorRef::packed(&v, [1, 2, 1, 2]).unwrap(),
        );
        let plan = Exact::for_views(views.0, views.1, views.2).unwrap();
        let outputs = Outputs {
            out: Some(TensorMut::packed(&mut out, [1, 2, 3, 2]).unwrap()),
            ..Outputs::default()
        };
        odd_scratch(plan.need().bytes(), |scratch| {
            let report = plan.run(views.0, views.1, views.2, outputs, scratch).unwrap();
            assert_eq!(report.masked_rows, 0);
        });
        assert_eq!(out.map(f32::round), [10.0, 11.0, 20.0, 21.0, 10.0, 11.0, 20.0, 21.0, 10.0, 11.0, 20.0, 21.0]);
    }
}

//! Decoding over rows in any format: which kernel, and where the scales of integers go.
//!
//! A score is the sum of `q * integer` in the order of all scores, then times the scale of the row: one rounding more. A
//! weight is multiplied by the scale of its value before it meets the integers: one rounding more, too.

use super::{row, Rows};
use crate::simd::{dispatch, Isa};
use crate::view::{MatRef, RowsMat};

/// `out.row(i)[j] = q.row(i) . k.row(j)`, rows of `out` `stride` apart; see `row::row_scores`.
pub(crate) fn row_scores(isa: Isa, q: MatRef<'_, f32>, k: RowsMat<'_>, out: &mut [f32], stride: usize) {
    match k {
        RowsMat::F32(k) => scores(isa, q, k, out, stride),
        RowsMat::F16(k) => f16_scores(isa, q, k, out, stride),
        RowsMat::Bf16(k) => bf16_scores(isa, q, k, out, stride),
        RowsMat::I8(k, scales) => {
            i8_scores(isa, q, k, out, stride);
            let scales = scales.get(..k.rows()).unwrap_or(&[]);
            for row in out.chunks_mut(stride.max(1)).take(q.rows()) {
                row.iter_mut().zip(scales).for_each(|(x, &scale)| *x *= scale);
            }
        }
    }
}

/// `out.row(i) = out.row(i) * factor[i] + sum over keys of w.row(i)[key] * v.row(key)`; with `masked`, keys of negative
/// weight do not take part. The weights are spoiled.
pub(crate) fn row_values(isa: Isa, rows: &mut Rows<'_>, v: RowsMat<'_>, masked: bool) {
    match (v, masked) {
        (RowsMat::F32(v), false) => values(isa, rows, v),
        (RowsMat::F32(v), true) => masked_values(isa, rows, v),
        (RowsMat::F16(v), false) => f16_values(isa, rows, v),
        (RowsMat::F16(v), true) => masked_f16_values(isa, rows, v),
        (RowsMat::Bf16(v), false) => bf16_values(isa, rows, v),
        (RowsMat::Bf16(v), true) => masked_bf16_values(isa, rows, v),
        (RowsMat::I8(v, scales), _) => {
            let scales = scales.get(..v.rows()).unwrap_or(&[]);
            for row in rows.weights.chunks_mut(rows.weight_stride.max(1)).take(rows.count) {
                let weights = row.iter_mut().zip(scales);
                // What is masked stays below 0.
                weights.for_each(|(w, &scale)| *w = if *w < 0.0 { *w } else { *w * scale });
            }
            if masked {
                masked_i8_values(isa, rows, v);
            } else {
                i8_values(isa, rows, v);
            }
        }
    }
}

dispatch! {
    fn scores(q: MatRef<'_, f32>, k: MatRef<'_, f32>, out: &mut [f32], stride: usize) = row::row_scores::<_, F32>;
    fn f16_scores(q: MatRef<'_, f32>, k: MatRef<'_, u16>, out: &mut [f32], stride: usize) = row::row_scores::<_, F16>;
    fn bf16_scores(q: MatRef<'_, f32>, k: MatRef<'_, u16>, out: &mut [f32], stride: usize) = row::row_scores::<_, Bf16>;
    fn i8_scores(q: MatRef<'_, f32>, k: MatRef<'_, i8>, out: &mut [f32], stride: usize) = row::row_scores::<_, I8>;
    fn values(rows: &mut Rows<'_>, v: MatRef<'_, f32>) = row::row_values::<_, F32, false>;
    fn f16_values(rows: &mut Rows<'_>, v: MatRef<'_, u16>) = row::row_values::<_, F16, false>;
    fn bf16_values(rows: &mut Rows<'_>, v: MatRef<'_, u16>) = row::row_values::<_, Bf16, false>;
    fn i8_values(rows: &mut Rows<'_>, v: MatRef<'_, i8>) = row::row_values::<_, I8, false>;
    fn masked_values(rows: &mut Rows<'_>, v: MatRef<'_, f32>) = row::row_values::<_, F32, true>;
    fn masked_f16_values(rows: &mut Rows<'_>, v: MatRef<'_, u16>) = row::row_values::<_, F16, true>;
    fn masked_bf16_values(rows: &mut Rows<'_>, v: MatRef<'_, u16>) = row::row_values::<_, Bf16, true>;
    fn masked_i8_values(rows: &mut Rows<'_>, v: MatRef<'_, i8>) = row::row_values::<_, I8, true>;
}

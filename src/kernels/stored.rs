//! Rows in any format: which kernel, and where the scales of integers go.
//!
//! In decoding a score is the sum of `q * integer` in the order of all scores, then times the scale of the row: one rounding more. A
//! weight is multiplied by the scale of its value before it meets the integers: one rounding more, too. Widened into memory,
//! an integer is multiplied by its scale itself, and rounded there.

use super::{row, Rows};
use crate::simd::{dispatch, Isa, Stored, Widen};
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

/// All numbers of `rows` as f32, one row after the other; those of integers times their scale.
pub(crate) fn widen(isa: Isa, rows: RowsMat<'_>, to: &mut [f32]) {
    match rows {
        RowsMat::F32(rows) => widen_f32(isa, rows, &[], to),
        RowsMat::F16(rows) => widen_f16(isa, rows, &[], to),
        RowsMat::Bf16(rows) => widen_bf16(isa, rows, &[], to),
        RowsMat::I8(rows, scales) => widen_i8(isa, rows, scales, to),
    }
}

/// That, for rows that have a scale each, or, without `scales`, 1. No number changes when it is multiplied by 1.
#[inline(always)]
fn widen_rows<S: Widen, T: Stored>(s: S, rows: MatRef<'_, T::Bits>, scales: &[f32], to: &mut [f32]) {
    for (i, to) in to.chunks_exact_mut(rows.cols().max(1)).take(rows.rows()).enumerate() {
        let scale = s.splat(scales.get(i).copied().unwrap_or(1.0));
        let (mut to, mut from) = (to.chunks_exact_mut(S::LANES), rows.row(i).chunks_exact(S::LANES));
        for (to, from) in to.by_ref().zip(from.by_ref()) {
            s.store(s.mul(T::load(s, from), scale), to);
        }
        if !from.remainder().is_empty() {
            let last = s.mul(T::load_part(s, from.remainder()), scale);
            s.store_part(last, to.into_remainder());
        }
    }
}

dispatch! {
    fn widen_f32(rows: MatRef<'_, f32>, scales: &[f32], to: &mut [f32]) = widen_rows::<_, F32>;
    fn widen_f16(rows: MatRef<'_, u16>, scales: &[f32], to: &mut [f32]) = widen_rows::<_, F16>;
    fn widen_bf16(rows: MatRef<'_, u16>, scales: &[f32], to: &mut [f32]) = widen_rows::<_, Bf16>;
    fn widen_i8(rows: MatRef<'_, i8>, scales: &[f32], to: &mut [f32]) = widen_rows::<_, I8>;
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

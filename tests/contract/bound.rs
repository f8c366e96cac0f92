//! Attention with a promise: the rows of attention, and what the report and the partials then say.

use super::attention::{decode, forward, forward_rows, good, place, Forward};
use super::memory::set;
use super::{Contract, Memory, Table};
use subquad::ffi::*;

pub fn forward_with_bound(a: &Forward) -> i32 {
    // SAFETY: as for `forward`.
    unsafe {
        let rules = place(a);
        subquad_attention_forward_with_bound(rules, a.q, a.k, a.v, a.outputs, a.work, a.work_size, a.report)
    }
}

fn decode_with_bound(a: &Forward) -> i32 {
    // SAFETY: as for `forward`.
    unsafe {
        let rules = place(a);
        subquad_attention_decode_with_bound(rules, a.q, a.k, a.v, a.outputs, a.work, a.work_size, a.report)
    }
}

/// The report's bound is what was asked for: infinity without a question, a number with one, also in the partials,
/// infinity again where a value is not finite; and asking changes no bit of the output.
pub fn check_bounds(m: &Memory) {
    let plain: [fn(&Forward) -> i32; 2] = [forward, decode];
    for (plain, bounded) in plain.into_iter().zip([forward_with_bound, decode_with_bound]) {
        let a = good(m);
        // SAFETY: regions of the block, aligned, of plain numbers; no reference outlives the line.
        let (report, partial, out) = (
            || unsafe { a.report.read() },
            || unsafe { a.outputs.partials.data.cast::<[f32; SUBQUAD_PARTIAL_HEAD]>().read() },
            || unsafe { std::slice::from_raw_parts(a.outputs.out.data, 144) }.to_vec(),
        );
        assert_eq!(plain(&a), SUBQUAD_OK);
        let without = out();
        assert_eq!((report().bound, report().bound_failure), (f32::INFINITY, 0.0));
        assert_eq!(partial()[2..], [f32::INFINITY; 2]);
        assert_eq!(bounded(&a), SUBQUAD_OK);
        assert_eq!(out(), without);
        let (bound, failure) = (report().bound, report().bound_failure);
        assert!(bound > 0.0 && bound < 1e-3 && failure == 0.0, "{bound:e} {failure}");
        assert_eq!(partial()[3], bound);
        assert!(partial()[2] > 0.0 && partial()[2] < 1e-3);
        set(a.v.data, f32::NAN);
        assert_eq!(bounded(&a), SUBQUAD_OK);
        assert_eq!(report().bound, f32::INFINITY);
        set(a.v.data, 1.0);
    }
}

pub fn tables() -> Vec<Box<dyn Contract>> {
    let table = |function, call| -> Box<dyn Contract> {
        Box::new(Table {
            function,
            good,
            call,
            rows: forward_rows(),
        })
    };
    vec![
        table("subquad_attention_forward_with_bound", forward_with_bound),
        table("subquad_attention_decode_with_bound", decode_with_bound),
    ]
}

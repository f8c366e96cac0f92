//! Partials over parts of the keys become the whole.

use crate::reference::{bits, head, Case, Layout, UNIT};
use subquad::attention::Partial;
use subquad::Isa;

const KEYS: usize = 50;
const COLS: usize = 3;

/// The case over some of its keys.
fn part(case: &Case, keys: std::ops::Range<usize>) -> Case {
    let s = case.shape;
    let mut part = case.clone();
    part.shape.keys = keys.len();
    part.k = case.k[keys.start * s.dim..keys.end * s.dim].to_vec();
    part.v = case.v[keys.start * s.value_dim..keys.end * s.value_dim].to_vec();
    part
}

#[test]
fn parts_merge_into_the_whole_and_keep_their_promise() {
    let case = Case::new(head(6, KEYS, 8, COLS), 1).but(|c| c.scale = Some(2.0));
    let whole = case.answer();
    let width = Partial::width(COLS);
    // Largest |v| is 1, so two values are at most 2 apart.
    let range = 2.0;
    for isa in Isa::all() {
        for cuts in [vec![0, KEYS], vec![0, 20, KEYS], vec![0, 0, 1, 7, 7, 30, 31, KEYS]] {
            let mut merged = vec![0.0; 6 * width];
            merged
                .chunks_mut(width)
                .for_each(|row| row[..4].copy_from_slice(&Partial::EMPTY_HEAD));
            for cut in cuts.windows(2) {
                let part = part(&case, cut[0]..cut[1]);
                let (answer, run) = (part.answer(), part.run(isa, Layout::Four, None));
                let mut partials = run.partials;
                for (i, (row, into)) in partials.chunks_mut(width).zip(merged.chunks_mut(width)).enumerate() {
                    if cut[0] < cut[1] {
                        // What the reference proves about the part, rounded up.
                        row[2] = (answer.lse[i].error * 1.001) as f32;
                        row[3] = answer.out[i * COLS..][..COLS]
                            .iter()
                            .fold(0.0, |a: f32, x| a.max(1.001 * x.error as f32));
                    }
                    let mut into = Partial::from_row(into).unwrap();
                    into.merge(row, range).unwrap();
                }
            }
            for (i, row) in merged.chunks_mut(width).enumerate() {
                let partial = Partial::from_row(row).unwrap();
                let (lse_bound, bound) = (
                    f64::from(partial.lse_bound().value),
                    f64::from(partial.out_bound().value),
                );
                // Log-sum-exp is rounded once more when it is read: 5 roundings of |lse| + 1 + ln n.
                let read = 5.0 * UNIT * (whole.lse[i].value.abs() + 1.0 + 2.0 * (KEYS as f64).ln());
                assert!((f64::from(partial.lse()) - whole.lse[i].value).abs() <= lse_bound + read);
                for (want, &x) in whole.out[i * COLS..].iter().zip(partial.out()) {
                    let off = (f64::from(x) - want.value).abs();
                    assert!(off <= bound, "{} {cuts:?}: {off:e} > {bound:e}", isa.name());
                }
                // A promise of more than that would be of no use: the parts' own errors, twice, and seven merges.
                assert!(bound <= 64.0 * (whole.out[i * COLS].error + 1e-6), "{bound:e}");
            }
        }
    }
}

#[test]
fn the_identity_is_exact_on_both_sides() {
    let case = Case::new(head(4, KEYS, 8, COLS), 2);
    let nothing = Case {
        key_lengths: Some(vec![0]),
        ..case.clone()
    };
    let width = Partial::width(COLS);
    for isa in Isa::all() {
        let some = case.run(isa, Layout::Four, None).partials;
        let none = nothing.run(isa, Layout::Four, None).partials;
        for (some, none) in some.chunks(width).zip(none.chunks(width)) {
            assert_eq!(bits(&none[..4]), bits(&Partial::EMPTY_HEAD));
            for (a, b) in [(some, none), (none, some), (none, none)] {
                let (mut into, other) = (a.to_vec(), b.to_vec());
                let mut partial = Partial::from_row(&mut into).unwrap();
                partial.merge(&other, f32::INFINITY).unwrap();
                let want = if a == none && b == none { none } else { some };
                assert_eq!(bits(&into), bits(want));
            }
        }
    }
}

#[test]
fn widths_must_agree() {
    let (mut a, b) = ([0.0f32; 6], [0.0f32; 7]);
    let mut partial = Partial::from_row(&mut a).unwrap();
    assert_eq!(partial.merge(&b, 1.0), Err(subquad::Error::Mismatch));
    assert_eq!(Partial::from_row(&mut [0.0; 3]).err(), Some(subquad::Error::Short));
}

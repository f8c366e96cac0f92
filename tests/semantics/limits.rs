//! The ends of the number line.

use crate::reference::{conforms, head, Case, Grid, Layout};
use subquad::attention::Offset;
use subquad::Isa;

#[test]
fn lowest_finite_masks_hide_beside_others_and_share_when_alone() {
    for low in [-f32::MAX, -1e9, -3e38] {
        // Row 0: some keys hidden; row 1: all.
        let bias = Grid::from([1, 1, 2, 6], |_, _, i, j| if i == 1 || j % 2 == 0 { low } else { 0.0 });
        let case = Case::new(head(2, 6, 4, 3), 1).but(|c| c.bias = Some(bias));
        conforms(&case, Layout::Four);
        let strict = Case {
            mask: Some(Grid::from([1, 1, 1, 6], |_, _, _, j| (j % 2) as u8)),
            bias: None,
            ..case.clone()
        };
        for isa in Isa::all() {
            let run = case.run(isa, Layout::Four, None);
            assert_eq!(
                run.out[..3],
                strict.run(isa, Layout::Four, None).out[..3],
                "{low:e}: as a mask"
            );
            if low < -1e30 {
                // No score is large enough to show: the mean of the values, six additions and a division.
                for c in 0..3 {
                    let mean = (0..6).map(|j| f64::from(case.v[j * 3 + c])).sum::<f64>() / 6.0;
                    assert!(
                        (f64::from(run.out[3 + c]) - mean).abs() <= 14.0 * crate::reference::UNIT,
                        "{low:e}"
                    );
                }
            }
        }
    }
}

#[test]
fn positions_and_windows_at_the_limits_of_integers() {
    let offsets = [i64::MIN, i64::MIN + 1, -9, 0, 9, i64::MAX - 1, i64::MAX];
    let sides = [None, Some(0), Some(3), Some(i64::MAX as usize), Some(usize::MAX)];
    for offset in offsets.map(Offset::Keys).into_iter().chain([Offset::ToEnd]) {
        for left in sides {
            for right in sides {
                let mut case = Case::new(head(3, 5, 2, 2), 2);
                (case.offset, case.left, case.right) = (offset, left, right);
                for (causal, sinks) in [(false, 0), (true, 0), (false, usize::MAX), (true, 2)] {
                    (case.causal, case.sinks) = (causal, sinks);
                    let (answer, run) = (case.answer(), case.run(Isa::best(), Layout::Four, None));
                    let admitted = answer.out.iter().zip(&run.out).all(|(want, &x)| want.admits(x));
                    assert!(admitted, "{offset:?} {left:?} {right:?} causal {causal} sinks {sinks}");
                    assert_eq!(answer.masked_rows, run.report.masked_rows);
                }
            }
        }
    }
}

#[test]
fn scores_far_from_zero() {
    for (scale, cap) in [
        (1e5, 0.0),
        (1e30, 0.0),
        (1e-30, 0.0),
        (0.0, 0.0),
        (1e30, 5.0),
        (3.0, 1e-3),
        (3.0, 1e6),
    ] {
        let case = Case::new(head(5, 40, 3, 2), 3).but(|c| (c.scale, c.cap) = (Some(scale), cap));
        conforms(&case, Layout::Four);
    }
    let slopes =
        Case::new(head(5, 40, 3, 2), 4).but(|c| (c.slopes, c.offset) = (Some(vec![1.0]), Offset::Keys(1 << 40)));
    conforms(&slopes, Layout::Four);
}

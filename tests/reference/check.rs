//! A case on every back end against the answer, and against itself.

use super::call::{Layout, Run, STAGES};
use super::case::Case;
use super::model::Near;
use subquad::attention::Stage;
use subquad::Isa;

/// The one NaN of results.
const CANONICAL: u32 = 0x7fc0_0000;

pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// As [`bits`] for scores on their way, where a NaN is as the machine made it.
pub fn values_without_payload(x: &[f32]) -> Vec<u32> {
    x.iter()
        .map(|x| if x.is_nan() { CANONICAL } else { x.to_bits() })
        .collect()
}

/// Every output has the same bits.
pub fn same_bits(a: &Run, b: &Run, what: &str) {
    assert_eq!(bits(&a.out), bits(&b.out), "{what}: out");
    assert_eq!(bits(&a.lse), bits(&b.lse), "{what}: lse");
    assert_eq!(bits(&a.partials), bits(&b.partials), "{what}: partials");
}

fn admits(want: &[Near], got: &[f32], what: &str) {
    assert_eq!(want.len(), got.len(), "{what}: length");
    for (n, (want, &got)) in want.iter().zip(got).enumerate() {
        assert!(want.admits(got), "{what}[{n}] is {got:e}, not {want:?}");
    }
}

/// Runs the case on every back end, with and without every score output: the right answer everywhere, the same bits
/// inside an arithmetic class, and no bit of the output depends on what else was asked for.
pub fn conforms(case: &Case, layout: Layout) {
    let answer = case.answer();
    let stages = [None].into_iter().chain(STAGES.map(Some));
    for (index, stage) in stages.enumerate() {
        let mut first: [Option<Run>; 2] = [None, None];
        for isa in Isa::all() {
            let what = format!("{} {layout:?} {stage:?}", isa.name());
            let run = case.run(isa, layout, stage);
            admits(&answer.out, &run.out, &format!("{what} out"));
            admits(&answer.lse, &run.lse, &format!("{what} lse"));
            let results = run.out.iter().chain(&run.lse);
            assert!(
                results.clone().all(|x| !x.is_nan() || x.to_bits() == CANONICAL),
                "{what}: NaN"
            );
            if index > 0 {
                admits(&answer.scores[index - 1], &run.scores, &format!("{what} scores"));
            }
            if stage == Some(Stage::Softmax) {
                assert!(
                    run.scores.iter().all(|x| !x.is_nan() || x.to_bits() == CANONICAL),
                    "{what}: NaN"
                );
            }
            let rows = (run.report.masked_rows, run.report.non_finite_rows);
            assert_eq!(
                rows,
                (answer.masked_rows, answer.non_finite_rows),
                "{what}: counted rows"
            );
            match &first[usize::from(isa.fused())] {
                Some(first) => {
                    same_bits(first, &run, &what);
                    let (a, b) = (
                        values_without_payload(&first.scores),
                        values_without_payload(&run.scores),
                    );
                    assert_eq!(a, b, "{what}: scores");
                }
                none => {
                    // The first of its class also against the plain call.
                    if none.is_none() && stage.is_some() {
                        same_bits(&case.run(isa, layout, None), &run, &what);
                    }
                    first[usize::from(isa.fused())] = Some(run);
                }
            }
        }
    }
}

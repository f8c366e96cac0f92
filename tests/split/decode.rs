//! Decoding in pieces: batch entries, key heads and queries, never the keys.

use super::reference::Case;
use super::{cases, shape, views, Lie, Memory};
use std::mem::MaybeUninit;
use subquad::attention::{Decode, Stage};
use subquad::{Isa, Report, Scratch};

fn plan(case: &Case, isa: Isa) -> Decode<'_> {
    let plan = Decode::new(case.shape).unwrap().with_rules(case.rules()).unwrap();
    plan.with_isa(isa)
}

fn memory(plan: &Decode<'_>) -> Vec<MaybeUninit<u8>> {
    vec![MaybeUninit::uninit(); plan.need().bytes()]
}

fn whole(case: &Case, isa: Isa, lies: [Lie; 4], stage: Option<Stage>) -> (Vec<u32>, Report) {
    let (mut to, plan, [q, k, v]) = (Memory::new(case.shape, lies), plan(case, isa), views(case));
    let report = plan.run(q, k, v, to.outputs(stage), &mut Scratch::new(&mut memory(&plan)));
    (to.bits(), report.unwrap())
}

/// In tasks of one, the last first; how many there were.
fn pieces(case: &Case, isa: Isa, lies: [Lie; 4], stage: Option<Stage>, wanted: usize) -> (Vec<u32>, Report, usize) {
    let (mut to, plan, [q, k, v]) = (Memory::new(case.shape, lies), plan(case, isa), views(case));
    let mut rest = plan.share(to.outputs(stage), wanted).unwrap();
    let (count, mut reports, mut work) = (rest.len(), Vec::new(), memory(&plan));
    assert!(count >= 1 && count <= wanted);
    while !rest.is_empty() {
        let before = rest.len() - 1;
        let (others, task) = rest.split_at(before);
        let scratch = &mut Scratch::new(&mut work);
        reports.push(plan.run_share(q, k.into(), v.into(), task, scratch).unwrap());
        rest = others;
    }
    (to.bits(), reports.into_iter().reduce(Report::and).unwrap(), count)
}

#[test]
fn any_number_of_tasks_gives_the_bits_of_one_call() {
    for case in cases() {
        for isa in Isa::all() {
            for (lie, stage) in Lie::ALL
                .into_iter()
                .zip([None, Some(Stage::Softmax), Some(Stage::Raw), None])
            {
                let (want, report) = whole(&case, isa, [lie; 4], stage);
                for wanted in (1..=8).chain([31, 1000]) {
                    let (got, reports, _) = pieces(&case, isa, [lie; 4], stage, wanted);
                    let what = format!("{} {:?} {lie:?} {wanted}", isa.name(), case.shape);
                    assert!(got == want, "{what}");
                    assert_eq!(reports.masked_rows, report.masked_rows, "{what}");
                    assert_eq!(reports.non_finite_rows, report.non_finite_rows, "{what}");
                }
            }
        }
    }
}

/// Keys are read once: by all heads that share them, and by eight rows at a time.
#[test]
fn keys_are_not_cut() {
    let count = |shape, lie, wanted| pieces(&Case::new(shape, 1), Isa::SCALAR, [lie; 4], None, wanted).2;
    for wanted in 1..=8 {
        assert_eq!(count(shape(1, 8, 8, 1), Lie::Four, wanted), wanted);
        assert_eq!(count(shape(8, 8, 1, 1), Lie::Four, wanted), wanted);
        assert_eq!(count(shape(1, 1, 1, 64), Lie::Four, wanted), wanted);
    }
    assert_eq!(count(shape(1, 8, 1, 1), Lie::Four, 8), 1);
    assert_eq!(count(shape(1, 1, 1, 8), Lie::Four, 8), 1);
    assert_eq!(count(shape(1, 4, 2, 8), Lie::Packed, 8), 2);
}

#[cfg(feature = "parallel")]
#[test]
fn workers_give_the_bits_of_one_call() {
    use subquad::Error;
    for case in cases() {
        for lie in Lie::ALL {
            let (plan, [q, k, v]) = (plan(&case, Isa::best()).with_bound(), views(&case));
            let mut one = Memory::new(case.shape, [lie; 4]);
            let mut work = memory(&plan);
            let report = plan
                .run(q, k, v, one.outputs(None), &mut Scratch::new(&mut work))
                .unwrap();
            for workers in 1..=8 {
                let mut to = Memory::new(case.shape, [lie; 4]);
                let mut work = vec![MaybeUninit::uninit(); plan.need_for(workers).bytes()];
                let mut run = |workers| {
                    let scratch = &mut Scratch::new(&mut work);
                    plan.run_parallel(q, k.into(), v.into(), to.outputs(None), workers, scratch)
                };
                assert_eq!(run(workers + 1).err(), Some(Error::Short));
                assert_eq!(run(0).err(), Some(Error::Parameter));
                let done = run(workers).unwrap();
                assert!(to.bits() == one.bits(), "{workers} {lie:?}");
                assert_eq!((done.masked_rows, done.bound), (report.masked_rows, report.bound));
            }
        }
    }
}

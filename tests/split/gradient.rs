//! The gradient in pieces: batch entries and heads, but for those that share a bias.

use super::reference::{noise, Case, Grid, Layout, Run, UNWRITTEN};
use super::{cases, shape, views, Lie};
use std::mem::MaybeUninit;
use subquad::attention::{Gradient, Gradients, Saved, Shape, Share, Upstream};
use subquad::{Error, Isa, Report, Scratch, TensorMut, TensorRef};

/// Memory of all gradients, in which what nobody writes can be told.
struct Memory {
    lies: [Lie; 4],
    shapes: [[usize; 4]; 4],
    data: [Vec<f32>; 4],
    sinks: Option<Vec<f32>>,
}

impl Memory {
    fn new(case: &Case, lies: [Lie; 4]) -> Memory {
        let s = case.shape;
        let shapes = [
            [s.batch, s.query_heads, s.queries, s.dim],
            [s.batch, s.kv_heads, s.keys, s.dim],
            [s.batch, s.kv_heads, s.keys, s.value_dim],
            case.bias.as_ref().map_or([0; 4], |bias| bias.shape),
        ];
        Memory {
            lies,
            shapes,
            data: shapes.map(|[b, h, r, c]| vec![UNWRITTEN; b * h * r * (c + 3)]),
            sinks: case.sink_logits.as_ref().map(|x| vec![UNWRITTEN; x.len()]),
        }
    }

    fn gradients(&mut self) -> Gradients<'_> {
        let [a, b, c, d] = &mut self.data;
        let view =
            |x, i: usize| TensorMut::with_strides(x, self.shapes[i], self.lies[i].strides(self.shapes[i])).unwrap();
        Gradients {
            q: Some(view(a, 0)),
            k: Some(view(b, 1)),
            v: Some(view(c, 2)),
            bias: (self.shapes[3] != [0; 4]).then(|| view(d, 3)),
            sink_logits: self.sinks.as_deref_mut(),
        }
    }

    fn bits(&self) -> Vec<u32> {
        let all = self.data.iter().chain(&self.sinks).flatten();
        all.map(|x| x.to_bits()).collect()
    }
}

/// A call: what comes back for a forward one, and the plan.
struct Call<'c> {
    case: &'c Case,
    forward: Run,
    d_out: Vec<f32>,
    plan: Gradient<'c>,
}

impl<'c> Call<'c> {
    fn new(case: &'c Case, isa: Isa) -> Call<'c> {
        let forward = case.run(isa, Layout::Four, None);
        let plan = Gradient::new(case.shape).unwrap().with_rules(case.rules()).unwrap();
        Call {
            case,
            d_out: noise(9, forward.out.len()),
            forward,
            plan: plan.with_isa(isa),
        }
    }

    fn upstream(&self) -> Upstream<'_> {
        let s = self.case.shape;
        let view = |x, cols| TensorRef::new(x, [s.batch, s.query_heads, s.queries, cols]).unwrap();
        Upstream {
            out: view(&self.forward.out, s.value_dim),
            d_out: view(&self.d_out, s.value_dim),
            saved: Saved::Lse(view(&self.forward.lse, 1)),
            d_lse: None,
        }
    }

    fn memory(&self) -> Vec<MaybeUninit<u8>> {
        vec![MaybeUninit::uninit(); self.plan.need().bytes()]
    }

    fn whole(&self, lies: [Lie; 4]) -> (Vec<u32>, Report) {
        let (mut to, [q, k, v]) = (Memory::new(self.case, lies), views(self.case));
        let mut work = self.memory();
        let scratch = &mut Scratch::new(&mut work);
        let report = self.plan.run(q, k, v, self.upstream(), to.gradients(), scratch);
        (to.bits(), report.unwrap())
    }

    fn run(&self, share: Share<Gradients<'_>>, work: &mut [MaybeUninit<u8>]) -> Result<Report, Error> {
        let [q, k, v] = views(self.case);
        self.plan
            .run_share(q, k, v, self.upstream(), share, &mut Scratch::new(work))
    }

    /// In tasks of one, the last first; how many there were.
    fn pieces(&self, lies: [Lie; 4], wanted: usize) -> (Vec<u32>, Report, usize) {
        let (mut to, mut work) = (Memory::new(self.case, lies), self.memory());
        let mut rest = self.plan.share(to.gradients(), wanted).unwrap();
        let (count, mut reports) = (rest.len(), Vec::new());
        assert!(count >= 1 && count <= wanted);
        while !rest.is_empty() {
            let before = rest.len() - 1;
            let (others, task) = rest.split_at(before);
            assert_eq!(task.len(), 1);
            reports.push(self.run(task, &mut work).unwrap());
            rest = others;
        }
        (to.bits(), reports.into_iter().reduce(Report::and).unwrap(), count)
    }
}

/// The same case with a bias that is repeated along the axes of these.
fn with_bias(case: Case, shared: [bool; 3]) -> Case {
    let s = case.shape;
    let mut shape = [s.batch, s.query_heads, s.queries, s.keys];
    for (len, shared) in shape.iter_mut().zip(shared) {
        *len = if shared { 1 } else { *len };
    }
    case.but(|c| {
        c.bias = Some(Grid::from(shape, |b, h, i, j| {
            0.1 * ((3 * b + h + 2 * i + j) % 9) as f32
        }))
    })
}

fn all_cases() -> Vec<Case> {
    let mut all = cases();
    for n in 0..8 {
        let case = Case::new(shape(3, 4, 2, 19), 6).but(|c| c.sink_logits = Some(noise(7, 4)));
        all.push(with_bias(case, [n & 1, n & 2, n & 4].map(|bit| bit != 0)));
    }
    all
}

#[test]
fn any_number_of_tasks_gives_the_bits_of_one_call() {
    for case in all_cases() {
        for isa in Isa::all() {
            let call = Call::new(&case, isa);
            for lie in Lie::ALL {
                let (want, report) = call.whole([lie; 4]);
                for wanted in (1..=8).chain([31, 1000]) {
                    let (got, reports, _) = call.pieces([lie; 4], wanted);
                    let what = format!("{} {:?} {lie:?} {wanted}", isa.name(), case.shape);
                    assert!(got == want, "{what}");
                    assert_eq!(reports.masked_rows, report.masked_rows, "{what}");
                    assert_eq!(reports.non_finite_rows, report.non_finite_rows, "{what}");
                }
            }
        }
    }
}

/// Gradients that lie differently are cut along the axes that they have in common, or not at all.
#[test]
fn gradients_need_not_lie_alike() {
    for case in all_cases() {
        let call = Call::new(&case, Isa::best());
        for n in 0..4usize.pow(4) {
            let lies = [0, 1, 2, 3].map(|digit| Lie::ALL[n / 4usize.pow(digit) % 4]);
            let (want, _) = call.whole(lies);
            for wanted in [2, 5, 40] {
                let (got, ..) = call.pieces(lies, wanted);
                assert!(got == want, "{:?} {lies:?} {wanted}", case.shape);
            }
        }
    }
}

#[test]
fn there_is_work_for_all() {
    let count = |case: &Case, lie: Lie, wanted: usize| Call::new(case, Isa::SCALAR).pieces([lie; 4], wanted).2;
    let plain = |batch, query_heads, kv_heads| Case::new(shape(batch, query_heads, kv_heads, 9), 1);
    for wanted in 1..=8 {
        assert_eq!(count(&plain(1, 8, 8), Lie::Four, wanted), wanted);
        assert_eq!(count(&plain(8, 2, 2), Lie::Four, wanted), wanted);
        assert_eq!(count(&plain(8, 4, 1), Lie::Packed, wanted), wanted);
    }
    assert_eq!(count(&plain(2, 6, 3), Lie::Four, 100), 6);
    // The batch entries of a query head lie between those of the others that share its keys.
    assert_eq!(count(&plain(2, 6, 3), Lie::HeadsFirst, 100), 3);
    assert_eq!(count(&plain(2, 3, 3), Lie::HeadsFirst, 100), 6);
    // Heads side by side in rows are not apart in memory; query heads of a group add to the same keys.
    assert_eq!(count(&plain(2, 6, 3), Lie::Packed, 100), 2);
    assert_eq!(count(&plain(1, 8, 1), Lie::Four, 100), 1);
    // Sinks keep nobody together, but a bias does.
    let sinks = plain(2, 6, 3).but(|c| c.sink_logits = Some(noise(7, 6)));
    assert_eq!(count(&sinks, Lie::Four, 100), 6);
    assert_eq!(count(&with_bias(sinks.clone(), [false; 3]), Lie::Four, 100), 6);
    assert_eq!(
        count(&with_bias(sinks.clone(), [false, false, true]), Lie::Four, 100),
        6
    );
    assert_eq!(
        count(&with_bias(sinks.clone(), [false, true, false]), Lie::Four, 100),
        2
    );
    assert_eq!(
        count(&with_bias(sinks.clone(), [true, false, false]), Lie::HeadsFirst, 100),
        3
    );
    // Heads lie inside of batch entries that are together.
    assert_eq!(
        count(&with_bias(sinks.clone(), [true, false, false]), Lie::Four, 100),
        1
    );
    assert_eq!(count(&with_bias(sinks, [true; 3]), Lie::HeadsFirst, 100), 1);
}

#[test]
fn a_share_of_another_plan_is_refused() {
    let case = with_bias(Case::new(shape(2, 4, 2, 9), 1), [false; 3]);
    let (call, mut to) = (Call::new(&case, Isa::best()), Memory::new(&case, [Lie::Four; 4]));
    let (before, mut work) = (to.bits(), call.memory());
    assert_eq!(call.plan.share(to.gradients(), 0).err(), Some(Error::Parameter));
    // Another shape, and the same without the bias.
    for (shape, error) in [
        (Shape { keys: 20, ..case.shape }, Some(Error::Shape)),
        (case.shape, Some(Error::Shape)),
    ] {
        let other = Gradient::new(shape).unwrap();
        assert_eq!(other.share(to.gradients(), 2).err(), error);
    }
    let bare = Case {
        bias: None,
        ..case.clone()
    };
    let share = call.plan.share(to.gradients(), 2).unwrap();
    assert_eq!(share.len(), 2);
    assert_eq!(
        Call::new(&bare, Isa::best()).run(share, &mut work).err(),
        Some(Error::Shape)
    );
    let longer = Case::new(shape(2, 4, 2, 10), 1);
    let share = call.plan.share(to.gradients(), 2).unwrap();
    let other = Call::new(&longer, Isa::best());
    assert_eq!(other.run(share, &mut other.memory()).err(), Some(Error::Shape));
    let share = call.plan.share(to.gradients(), 2).unwrap();
    assert_eq!(call.run(share, &mut work[..16]).err(), Some(Error::Short));
    assert_eq!(to.bits(), before);
}

/// Without queries the gradients of keys and values are zeros, by whomever.
#[test]
fn a_share_of_nothing_is_done() {
    for empty in [
        shape(0, 4, 2, 9),
        shape(2, 0, 0, 9),
        shape(2, 0, 2, 9),
        shape(2, 4, 2, 0),
    ] {
        let case = Case::new(empty, 1);
        let call = Call::new(&case, Isa::best());
        for lie in Lie::ALL {
            let (want, _) = call.whole([lie; 4]);
            let (got, report, count) = call.pieces([lie; 4], 5);
            assert_eq!((report.masked_rows, count), (0, 1));
            assert_eq!(got, want);
            let zeros = empty.batch * empty.kv_heads * empty.keys * (empty.dim + empty.value_dim);
            assert_eq!(got.iter().filter(|&&x| x == 0).count(), zeros);
        }
    }
}

#[cfg(feature = "parallel")]
#[test]
fn workers_give_the_bits_of_one_call() {
    for case in all_cases() {
        for lie in Lie::ALL {
            let (call, inputs) = (Call::new(&case, Isa::best()), views(&case));
            let (want, report) = call.whole([lie; 4]);
            for workers in 1..=8 {
                let mut to = Memory::new(&case, [lie; 4]);
                let (size, untouched) = (call.plan.need_for(workers).bytes(), to.bits());
                let mut work = vec![MaybeUninit::uninit(); size];
                let mut run = |workers, size: usize| {
                    let scratch = &mut Scratch::new(&mut work[..size]);
                    let done = call
                        .plan
                        .run_parallel(inputs, call.upstream(), to.gradients(), workers, scratch);
                    (done, to.bits())
                };
                let (refused, after) = run(workers, size - 1);
                assert_eq!((refused.err(), after), (Some(Error::Short), untouched));
                let (done, after) = run(workers, size);
                assert!(after == want, "{workers} {lie:?}");
                assert_eq!(done.unwrap().masked_rows, report.masked_rows);
                assert_eq!(run(0, size).0.err(), Some(Error::Parameter));
            }
        }
    }
}

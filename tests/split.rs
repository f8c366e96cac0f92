//! The work of a call in pieces: whoever does them, in whatever order, the bits are those of one call.

mod reference;

#[path = "split/decode.rs"]
mod decode;
#[path = "split/gradient.rs"]
mod gradient;

use reference::{head, noise, Case, Grid, UNWRITTEN};
use std::mem::MaybeUninit;
use subquad::attention::{Exact, Offset, Outputs, Partial, Shape, Stage};
use subquad::{Error, Isa, Report, Scratch, TensorMut, TensorRef};

/// Where the rows of an output lie: strides of batch, head and row for these sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// (batch, heads, rows, cols).
    Four,
    /// (batch, rows, heads, cols).
    Packed,
    /// (heads, batch, rows, cols), with room between the rows.
    HeadsFirst,
    /// (rows, batch, heads, cols).
    RowsFirst,
}

impl Lie {
    const ALL: [Lie; 4] = [Lie::Four, Lie::Packed, Lie::HeadsFirst, Lie::RowsFirst];

    fn strides(self, [batch, heads, rows, cols]: [usize; 4]) -> [usize; 3] {
        match self {
            Lie::Four => [heads * rows * cols, rows * cols, cols],
            Lie::Packed => [rows * heads * cols, cols, heads * cols],
            Lie::HeadsFirst => [rows * (cols + 3), batch * rows * (cols + 3), cols + 3],
            Lie::RowsFirst => [heads * cols, cols, batch * heads * cols],
        }
    }
}

/// Memory of all outputs, in which what nobody writes can be told.
#[derive(Clone, PartialEq)]
struct Memory {
    lies: [Lie; 4],
    shapes: [[usize; 4]; 4],
    data: [Vec<f32>; 4],
}

impl Memory {
    fn new(s: Shape, lies: [Lie; 4]) -> Memory {
        let cols = [s.value_dim, 1, Partial::width(s.value_dim), s.keys];
        let shapes = cols.map(|cols| [s.batch, s.query_heads, s.queries, cols]);
        // Room for the widest of the layouts.
        let data = shapes.map(|[b, h, r, c]| vec![UNWRITTEN; b * h * r * (c + 3)]);
        Memory { lies, shapes, data }
    }

    fn outputs(&mut self, stage: Option<Stage>) -> Outputs<'_> {
        let [a, b, c, d] = &mut self.data;
        let view =
            |x, i: usize| TensorMut::with_strides(x, self.shapes[i], self.lies[i].strides(self.shapes[i])).unwrap();
        Outputs {
            out: Some(view(a, 0)),
            lse: Some(view(b, 1)),
            partials: Some(view(c, 2)),
            scores: stage.map(|stage| (stage, view(d, 3))),
        }
    }

    fn bits(&self) -> Vec<u32> {
        self.data.iter().flatten().map(|x| x.to_bits()).collect()
    }
}

fn views(case: &Case) -> [TensorRef<'_, f32>; 3] {
    let s = case.shape;
    let (q, k) = (
        [s.batch, s.query_heads, s.queries, s.dim],
        [s.batch, s.kv_heads, s.keys, s.dim],
    );
    let v = [s.batch, s.kv_heads, s.keys, s.value_dim];
    [(&case.q, q), (&case.k, k), (&case.v, v)].map(|(x, shape)| TensorRef::new(x, shape).unwrap())
}

fn memory(plan: &Exact<'_>) -> Vec<MaybeUninit<u8>> {
    vec![MaybeUninit::uninit(); plan.need_with_scores().bytes()]
}

fn whole(case: &Case, isa: Isa, lies: [Lie; 4], stage: Option<Stage>) -> (Vec<u32>, Report) {
    let (mut to, plan, [q, k, v]) = (Memory::new(case.shape, lies), case.plan(isa), views(case));
    let report = plan.run(q, k, v, to.outputs(stage), &mut Scratch::new(&mut memory(&plan)));
    (to.bits(), report.unwrap())
}

/// In tasks of one, the last first; how many there were.
fn pieces(case: &Case, isa: Isa, lies: [Lie; 4], stage: Option<Stage>, wanted: usize) -> (Vec<u32>, Report, usize) {
    let (mut to, plan, [q, k, v]) = (Memory::new(case.shape, lies), case.plan(isa), views(case));
    let mut rest = plan.share(to.outputs(stage), wanted).unwrap();
    let (count, mut reports, mut work) = (rest.len(), Vec::new(), memory(&plan));
    assert!(count >= 1 && count <= wanted);
    while !rest.is_empty() {
        let before = rest.len() - 1;
        let (others, task) = rest.split_at(before);
        assert_eq!(task.len(), 1);
        reports.push(plan.run_share(q, k, v, task, &mut Scratch::new(&mut work)).unwrap());
        rest = others;
    }
    (to.bits(), reports.into_iter().reduce(Report::and).unwrap(), count)
}

/// Batches, grouped heads, rows that end within a block of every back end.
fn shape(batch: usize, query_heads: usize, kv_heads: usize, queries: usize) -> Shape {
    Shape {
        batch,
        query_heads,
        kv_heads,
        ..head(queries, 21, 5, 3)
    }
}

fn cases() -> Vec<Case> {
    let ruled = |c: &mut Case| {
        let s = c.shape;
        (c.causal, c.offset, c.cap) = (true, Offset::Keys(3), 4.0);
        c.sink_logits = Some(noise(7, s.query_heads));
        c.slopes = Some(noise(8, s.query_heads));
        c.key_lengths = Some((0..s.batch).map(|b| s.keys - 2 * b).collect());
        let mask = |b, h, i, j| u8::from((b + 3 * h + 5 * i + 7 * j) % 4 != 0);
        c.mask = Some(Grid::from([s.batch, s.query_heads, s.queries, s.keys], mask));
        c.bias = Some(Grid::from([1, s.query_heads, s.queries, s.keys], |_, h, i, j| {
            0.1 * ((h + 2 * i + j) % 9) as f32
        }));
        // A row that is not finite, and one that sees nothing.
        c.q[0] = f32::NAN;
    };
    let segments = |c: &mut Case| {
        let n = c.shape.queries;
        c.segments = Some((vec![0, n / 3, n], vec![0, 4, 19]));
    };
    vec![
        Case::new(shape(1, 1, 1, 150), 1),
        Case::new(shape(1, 8, 8, 37), 2).but(ruled),
        Case::new(shape(3, 6, 2, 70), 3).but(ruled),
        Case::new(shape(1, 6, 1, 70), 4),
        Case::new(shape(2, 1, 1, 133), 5).but(segments),
    ]
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

/// Outputs that lie differently are cut along the axes that they have in common, or not at all.
#[test]
fn outputs_need_not_lie_alike() {
    let isa = Isa::best();
    for case in cases() {
        for n in 0..4usize.pow(3) {
            let lies = [0, 1, 2, 0].map(|digit| Lie::ALL[n / 4usize.pow(digit) % 4]);
            let (want, _) = whole(&case, isa, lies, Some(Stage::Biased));
            for wanted in [2, 5, 40] {
                let (got, ..) = pieces(&case, isa, lies, Some(Stage::Biased), wanted);
                assert!(got == want, "{:?} {lies:?} {wanted}", case.shape);
            }
        }
    }
}

/// As many tasks as were wanted where there is enough to cut, in every layout.
#[test]
fn there_is_work_for_all() {
    let count = |shape, lie, wanted| pieces(&Case::new(shape, 1), Isa::SCALAR, [lie; 4], None, wanted).2;
    for wanted in 1..=8 {
        assert_eq!(count(shape(1, 1, 1, 150), Lie::Four, wanted), wanted);
        assert_eq!(count(shape(1, 8, 8, 37), Lie::Four, wanted), wanted);
        assert_eq!(count(shape(8, 4, 2, 3), Lie::Four, wanted), wanted);
        // All query heads read one head of keys.
        assert_eq!(count(shape(1, 8, 1, 1), Lie::Four, wanted), wanted);
        assert_eq!(count(shape(1, 8, 8, 150), Lie::Packed, wanted), wanted);
        assert_eq!(count(shape(1, 8, 2, 150), Lie::Packed, wanted), wanted);
    }
    // Three heads, halved.
    assert_eq!(count(shape(1, 3, 3, 150), Lie::Four, 8), 6);
    // A block is not cut.
    assert_eq!(count(shape(1, 1, 1, 3), Lie::Four, 8), 1);
}

#[test]
fn a_share_of_another_plan_is_refused() {
    let case = Case::new(shape(2, 4, 2, 9), 1);
    let [q, k, v] = views(&case);
    let (plan, mut to) = (case.plan(Isa::best()), Memory::new(case.shape, [Lie::Four; 4]));
    let before = to.bits();
    assert_eq!(plan.share(to.outputs(None), 0).err(), Some(Error::Parameter));
    let other = Shape {
        queries: 8,
        ..case.shape
    };
    let other = Exact::new(other).unwrap();
    assert_eq!(other.share(to.outputs(None), 2).err(), Some(Error::Shape));
    let share = plan.share(to.outputs(None), 2).unwrap();
    assert_eq!(share.len(), 2);
    let mut work = memory(&plan);
    let narrow = Exact::new(Shape { dim: 4, ..case.shape }).unwrap();
    let (x, y, z) = (&noise(1, 400), &noise(2, 400), &noise(3, 400));
    let (x, y) = (
        TensorRef::new(x, [2, 4, 9, 4]).unwrap(),
        TensorRef::new(y, [2, 2, 21, 4]).unwrap(),
    );
    let z = TensorRef::new(z, [2, 2, 21, 3]).unwrap();
    assert_eq!(
        narrow.run_share(x, y, z, share, &mut Scratch::new(&mut work)).err(),
        Some(Error::Shape)
    );
    let share = plan.share(to.outputs(None), 2).unwrap();
    assert_eq!(
        plan.run_share(q, k, k, share, &mut Scratch::new(&mut work)).err(),
        Some(Error::Shape)
    );
    let share = plan.share(to.outputs(None), 2).unwrap();
    let mut short = Scratch::new(&mut work[..16]);
    assert_eq!(plan.run_share(q, k, v, share, &mut short).err(), Some(Error::Short));
    assert_eq!(to.bits(), before);
}

#[test]
fn a_share_of_nothing_is_done() {
    for empty in [shape(0, 4, 2, 9), shape(2, 0, 0, 9), shape(2, 4, 2, 0)] {
        let case = Case::new(empty, 1);
        for lie in Lie::ALL {
            let (_, report, count) = pieces(&case, Isa::best(), [lie; 4], None, 5);
            assert_eq!((report.masked_rows, count), (0, 1));
        }
    }
}

#[cfg(feature = "parallel")]
mod parallel {
    use super::*;

    #[test]
    fn workers_give_the_bits_of_one_call() {
        for case in cases() {
            for (lie, isa) in Lie::ALL
                .into_iter()
                .flat_map(|lie| Isa::all().map(move |isa| (lie, isa)))
            {
                let stage = (lie == Lie::Packed).then_some(Stage::Softmax);
                let (want, report) = whole(&case, isa, [lie; 4], stage);
                for workers in 1..=8 {
                    let (mut to, plan, [q, k, v]) = (Memory::new(case.shape, [lie; 4]), case.plan(isa), views(&case));
                    let need = if stage.is_some() {
                        plan.need_for_with_scores(workers)
                    } else {
                        plan.need_for(workers)
                    };
                    let mut work = vec![MaybeUninit::uninit(); need.bytes()];
                    // One byte less is refused, and then nothing is written.
                    let untouched = to.bits();
                    let mut run = |size: usize| {
                        let mut scratch = Scratch::new(&mut work[..size]);
                        plan.run_parallel(q, k, v, to.outputs(stage), workers, &mut scratch)
                    };
                    assert_eq!(run(need.bytes() - 1).err(), Some(Error::Short));
                    let done = run(need.bytes()).unwrap();
                    assert!(
                        to.bits() == want && want != untouched,
                        "{} {workers} {lie:?}",
                        isa.name()
                    );
                    assert_eq!(done.masked_rows, report.masked_rows);
                    assert_eq!(done.non_finite_rows, report.non_finite_rows);
                    let mut none = Scratch::new(&mut work);
                    let refused = plan.run_parallel(q, k, v, to.outputs(stage), 0, &mut none);
                    assert_eq!(refused.err(), Some(Error::Parameter));
                }
            }
        }
    }

    #[test]
    fn the_promise_is_that_of_one_call() {
        let case = Case::new(shape(2, 4, 2, 99), 6);
        let (plan, [q, k, v]) = (case.plan(Isa::best()).with_bound(), views(&case));
        let mut to = [(); 2].map(|()| Memory::new(case.shape, [Lie::Packed; 4]));
        let mut work = vec![MaybeUninit::uninit(); plan.need_for(3).bytes()];
        let [a, b] = &mut to;
        let one = plan
            .run(q, k, v, a.outputs(None), &mut Scratch::new(&mut work))
            .unwrap();
        let three = plan
            .run_parallel(q, k, v, b.outputs(None), 3, &mut Scratch::new(&mut work))
            .unwrap();
        assert!(one.bound.value < 1e-3 && one.bound == three.bound);
        // Partials carry it too.
        assert!(a.bits() == b.bits());
    }
}

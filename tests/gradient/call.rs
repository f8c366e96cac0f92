//! One way to run a case forwards and back, and the comparison.

use crate::reference::{bits, noise, odd_scratch, Back, Case, Kept, Layout, Near, UNWRITTEN};
use subquad::attention::{Gradient, Gradients, Partial, Saved, Upstream};
use subquad::{Error, Isa, Report, TensorMut, TensorRef};

/// What the library says, in the shapes of the inputs.
#[derive(Clone, Debug)]
pub struct Slope {
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub bias: Vec<f32>,
    pub sinks: Vec<f32>,
    pub report: Report,
}

/// Random gradients of the outputs.
pub fn back(case: &Case, seed: u64, of_lse: bool) -> Back {
    let s = case.shape;
    let rows = s.batch * s.query_heads * s.queries;
    Back {
        d_out: noise(seed ^ 0xbac4, rows * s.value_dim),
        d_lse: of_lse.then(|| noise(seed ^ 0x15e, rows)),
    }
}

/// Numbers with others between them, which nobody may touch.
struct Strided {
    data: Vec<f32>,
    shape: [usize; 4],
    strides: [usize; 3],
}

impl Strided {
    /// The `lie`-th of four layouts; the first has nothing in between.
    fn new(x: &[f32], shape: [usize; 4], lie: usize) -> Strided {
        let [batch, heads, rows, cols] = shape;
        let strides = match lie % 4 {
            0 => [heads * rows * cols, rows * cols, cols],
            1 => [heads * rows * (cols + 3), rows * (cols + 3), cols + 3],
            2 => [rows * (heads * cols + 5), cols, heads * cols + 5],
            _ => [rows * cols, batch * rows * cols, cols],
        };
        let reach: usize = shape.iter().zip(strides).map(|(n, stride)| n * stride).sum();
        let mut to = Strided {
            data: vec![UNWRITTEN; reach + cols],
            shape,
            strides,
        };
        to.each().into_iter().zip(x).for_each(|(at, &x)| to.data[at] = x);
        to
    }

    /// Where the numbers lie.
    fn each(&self) -> Vec<usize> {
        let [batch, heads, rows, cols] = self.shape;
        let [b, h, r] = self.strides;
        let places = (0..batch * heads * rows * cols).map(|n| {
            let (n, col) = (n / cols, n % cols);
            n / rows / heads * b + n / rows % heads * h + n % rows * r + col
        });
        places.collect()
    }

    fn view(&self) -> TensorRef<'_, f32> {
        TensorRef::with_strides(&self.data, self.shape, self.strides).unwrap()
    }

    fn view_mut(&mut self) -> TensorMut<'_, f32> {
        TensorMut::with_strides(&mut self.data, self.shape, self.strides).unwrap()
    }

    /// The numbers; what lies between them is as it was.
    fn dense(mut self) -> Vec<f32> {
        let places = self.each();
        let dense = places.iter().map(|&at| self.data[at]).collect();
        places.iter().for_each(|&at| self.data[at] = UNWRITTEN);
        assert!(self.data.iter().all(|&x| x == UNWRITTEN));
        dense
    }
}

/// How a call is made.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub isa: Isa,
    pub kept: Kept,
    /// Which of the gradients: of queries, keys, values, bias, sinks.
    pub wanted: [bool; 5],
    /// How the first tensor lies; each of the others lies as another number says.
    pub lie: usize,
}

impl Way {
    pub fn plain(isa: Isa) -> Way {
        Way {
            isa,
            kept: Kept::Lse,
            wanted: [true; 5],
            lie: 0,
        }
    }
}

impl Slope {
    /// Forwards on the same back end, then back.
    pub fn of(case: &Case, back: &Back, isa: Isa) -> Slope {
        Slope::by(case, back, Way::plain(isa))
    }

    /// In some other way; what is not wanted stays as it was.
    pub fn by(case: &Case, back: &Back, way: Way) -> Slope {
        let Way { isa, kept, wanted, lie } = way;
        let s = case.shape;
        let forward = case.run(isa, Layout::Four, None);
        let [b, h, n] = [s.batch, s.query_heads, s.queries];
        let (of_row, of_key) = (|cols| [b, h, n, cols], |cols| [b, s.kv_heads, s.keys, cols]);
        let lies = |x: &[f32], shape, number: usize| {
            let lie = if lie == 0 { 0 } else { lie + number };
            Strided::new(x, shape, lie)
        };
        let room = |shape: [usize; 4], number| lies(&vec![UNWRITTEN; shape.iter().product()], shape, number);
        let bias_shape = case.bias.as_ref().map_or([0; 4], |b| b.shape);
        let mut to_q = room(of_row(s.dim), 1);
        let mut to_k = room(of_key(s.dim), 2);
        let mut to_v = room(of_key(s.value_dim), 3);
        let mut to_bias = room(bias_shape, 0);
        let mut sinks = vec![UNWRITTEN; case.sink_logits.as_ref().map_or(0, Vec::len)];
        let [wants_q, wants_k, wants_v, wants_bias, wants_sinks] = wanted;
        let to = Gradients {
            q: wants_q.then(|| to_q.view_mut()),
            k: wants_k.then(|| to_k.view_mut()),
            v: wants_v.then(|| to_v.view_mut()),
            bias: (wants_bias && case.bias.is_some()).then(|| to_bias.view_mut()),
            sink_logits: (wants_sinks && case.sink_logits.is_some()).then_some(&mut sinks[..]),
        };
        let out = lies(&forward.out, of_row(s.value_dim), 2);
        let d_out = lies(&back.d_out, of_row(s.value_dim), 1);
        let lse = lies(&forward.lse, of_row(1), 3);
        let partials = lies(&forward.partials, of_row(Partial::width(s.value_dim)), 1);
        let d_lse = back.d_lse.as_ref().map(|d| lies(d, of_row(1), 0));
        let upstream = Upstream {
            out: out.view(),
            d_out: d_out.view(),
            saved: match kept {
                Kept::Lse => Saved::Lse(lse.view()),
                Kept::Partials => Saved::Partials(partials.view()),
            },
            d_lse: d_lse.as_ref().map(Strided::view),
        };
        let (q, k, v) = (
            lies(&case.q, of_row(s.dim), 0),
            lies(&case.k, of_key(s.dim), 3),
            lies(&case.v, of_key(s.value_dim), 2),
        );
        let (q, k, v) = (q.view(), k.view(), v.view());
        let plan = Gradient::for_views(q, k, v).unwrap().with_rules(case.rules()).unwrap();
        let any = plan.need().bytes();
        let plan = plan.with_isa(isa);
        assert!(plan.need().bytes() <= any);
        let mut report = Err(Error::Empty);
        odd_scratch(plan.need().bytes(), |scratch| {
            report = plan.run(q, k, v, upstream, to, scratch);
        });
        Slope {
            q: to_q.dense(),
            k: to_k.dense(),
            v: to_v.dense(),
            bias: to_bias.dense(),
            sinks,
            report: report.unwrap(),
        }
    }

    /// The gradients, in the order of [`Way::wanted`].
    pub fn fields(&self) -> [&[f32]; 5] {
        [&self.q, &self.k, &self.v, &self.bias, &self.sinks]
    }

    pub fn bits(&self) -> Vec<u32> {
        self.fields().into_iter().flat_map(bits).collect()
    }
}

/// The right gradient on every back end, from both that may be kept, and the same bits inside a class.
pub fn conforms(case: &Case, back: &Back) {
    for kept in [Kept::Lse, Kept::Partials] {
        conforms_from(kept, case, back);
    }
}

fn conforms_from(kept: Kept, case: &Case, back: &Back) {
    let want = case.slopes(back, kept);
    let mut first: [Option<Slope>; 2] = [None, None];
    for isa in Isa::all() {
        let way = Way {
            kept,
            ..Way::plain(isa)
        };
        let got = Slope::by(case, back, way);
        let wanted: [&[Near]; 5] = [&want.q, &want.k, &want.v, &want.bias, &want.sinks];
        for (name, (want, got)) in ["q", "k", "v", "bias", "sinks"]
            .iter()
            .zip(wanted.iter().zip(got.fields()))
        {
            assert_eq!(want.len(), got.len());
            for (n, (want, &got)) in want.iter().zip(got).enumerate() {
                assert!(
                    want.admits(got),
                    "{} {kept:?} d{name}[{n}] is {got:e}, not {want:?}",
                    isa.name()
                );
            }
        }
        let rows = (got.report.masked_rows, got.report.non_finite_rows);
        assert_eq!(
            rows,
            (want.masked_rows, want.non_finite_rows),
            "{}: counted rows",
            isa.name()
        );
        match &first[usize::from(isa.fused())] {
            Some(first) => assert_eq!(first.bits(), got.bits(), "{}: bits", isa.name()),
            none => {
                debug_assert!(none.is_none());
                first[usize::from(isa.fused())] = Some(got);
            }
        }
    }
}

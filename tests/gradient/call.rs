//! One way to run a case forwards and back, and the comparison.

use crate::reference::{bits, noise, odd_scratch, Back, Case, Layout, Near, UNWRITTEN};
use subquad::attention::{Gradient, Gradients, Upstream};
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

impl Slope {
    /// Forwards on the same back end, then back.
    pub fn of(case: &Case, back: &Back, isa: Isa) -> Slope {
        let s = case.shape;
        let forward = case.run(isa, Layout::Four, None);
        let rows = [s.batch, s.query_heads, s.queries];
        let [b, h, n] = rows;
        let unwritten = |n: usize| vec![UNWRITTEN; n];
        let (mut q, mut k, mut v) = (
            unwritten(case.q.len()),
            unwritten(case.k.len()),
            unwritten(case.v.len()),
        );
        let mut bias = unwritten(case.bias.as_ref().map_or(0, |b| b.data.len()));
        let mut sinks = unwritten(case.sink_logits.as_ref().map_or(0, Vec::len));
        let (q_shape, k_shape) = ([b, h, n, s.dim], [b, s.kv_heads, s.keys, s.dim]);
        let (v_shape, out_shape) = ([b, s.kv_heads, s.keys, s.value_dim], [b, h, n, s.value_dim]);
        let to = Gradients {
            q: Some(TensorMut::new(&mut q, q_shape).unwrap()),
            k: Some(TensorMut::new(&mut k, k_shape).unwrap()),
            v: Some(TensorMut::new(&mut v, v_shape).unwrap()),
            bias: case.bias.as_ref().map(|b| TensorMut::new(&mut bias, b.shape).unwrap()),
            sink_logits: case.sink_logits.is_some().then_some(&mut sinks[..]),
        };
        let upstream = Upstream {
            out: TensorRef::new(&forward.out, out_shape).unwrap(),
            d_out: TensorRef::new(&back.d_out, out_shape).unwrap(),
            lse: TensorRef::new(&forward.lse, [b, h, n, 1]).unwrap(),
            d_lse: back.d_lse.as_ref().map(|d| TensorRef::new(d, [b, h, n, 1]).unwrap()),
        };
        let (tq, tk, tv) = (
            TensorRef::new(&case.q, q_shape).unwrap(),
            TensorRef::new(&case.k, k_shape).unwrap(),
            TensorRef::new(&case.v, v_shape).unwrap(),
        );
        let plan = Gradient::for_views(tq, tk, tv)
            .unwrap()
            .with_rules(case.rules())
            .unwrap();
        let any = plan.need().bytes();
        let plan = plan.with_isa(isa);
        assert!(plan.need().bytes() <= any);
        let mut report = Err(Error::Empty);
        odd_scratch(plan.need().bytes(), |scratch| {
            report = plan.run(tq, tk, tv, upstream, to, scratch);
        });
        Slope {
            q,
            k,
            v,
            bias,
            sinks,
            report: report.unwrap(),
        }
    }

    pub fn bits(&self) -> Vec<u32> {
        [&self.q, &self.k, &self.v, &self.bias, &self.sinks]
            .into_iter()
            .flat_map(|x| bits(x))
            .collect()
    }
}

/// The right gradient on every back end, and the same bits inside a class.
pub fn conforms(case: &Case, back: &Back) {
    let want = case.slopes(back);
    let mut first: [Option<Slope>; 2] = [None, None];
    for isa in Isa::all() {
        let got = Slope::of(case, back, isa);
        let fields: [(&str, &[Near], &[f32]); 5] = [
            ("q", &want.q, &got.q),
            ("k", &want.k, &got.k),
            ("v", &want.v, &got.v),
            ("bias", &want.bias, &got.bias),
            ("sinks", &want.sinks, &got.sinks),
        ];
        for (name, want, got) in fields {
            assert_eq!(want.len(), got.len());
            for (n, (want, &got)) in want.iter().zip(got).enumerate() {
                assert!(want.admits(got), "{} d{name}[{n}] is {got:e}, not {want:?}", isa.name());
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

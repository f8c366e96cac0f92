//! One way to run a case through the library.

use super::case::Case;
use std::mem::MaybeUninit;
use subquad::attention::{Exact, Outputs, Partial, Stage};
use subquad::{Error, Isa, Report, Scratch, TensorMut, TensorRef};

/// All score outputs.
pub const STAGES: [Stage; 4] = [Stage::Raw, Stage::Capped, Stage::Biased, Stage::Softmax];

/// What outputs hold before a call.
pub const UNWRITTEN: f32 = -12345.0;

/// How the tensors of a call lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// (batch, heads, rows, cols).
    Four,
    /// (batch, rows, heads * cols).
    Packed,
    /// Queries and output packed; keys and values, as a cache keeps them, in four axes.
    PackedOverCache,
}

/// Outputs of a call, all in the 4-D layout.
#[derive(Clone, Debug)]
pub struct Run {
    pub out: Vec<f32>,
    pub lse: Vec<f32>,
    pub partials: Vec<f32>,
    pub scores: Vec<f32>,
    pub report: Report,
}

/// Memory in which `n` bytes begin one past a cache line: the worst address there is.
pub fn odd_scratch(n: usize, f: impl FnOnce(&mut Scratch<'_>)) {
    let mut bytes = vec![MaybeUninit::uninit(); n + 128];
    let start = 1 + (bytes.as_ptr() as usize).wrapping_neg() % 64;
    f(&mut Scratch::new(&mut bytes[start..start + n]));
}

/// From (batch, heads, rows, cols) to (batch, rows, heads, cols).
fn pack(x: &[f32], [batch, heads, rows, cols]: [usize; 4]) -> Vec<f32> {
    let mut packed = Vec::with_capacity(x.len());
    for b in 0..batch {
        for r in 0..rows {
            for h in 0..heads {
                packed.extend_from_slice(&x[((b * heads + h) * rows + r) * cols..][..cols]);
            }
        }
    }
    packed
}

fn view(data: &[f32], shape: [usize; 4], packed: bool) -> TensorRef<'_, f32> {
    if packed {
        TensorRef::packed(data, shape).unwrap()
    } else {
        TensorRef::new(data, shape).unwrap()
    }
}

impl Case {
    /// The plan that a back end runs.
    pub fn plan(&self, isa: Isa) -> Exact<'_> {
        Exact::new(self.shape)
            .unwrap()
            .with_rules(self.rules())
            .unwrap()
            .with_isa(isa)
    }

    /// Every output, the scores of one stage if asked for.
    pub fn run(&self, isa: Isa, layout: Layout, stage: Option<Stage>) -> Run {
        self.run_plan(self.plan(isa), layout, stage).unwrap()
    }

    /// As [`Case::run`] with a plan of the test's own.
    pub fn run_plan(&self, plan: Exact<'_>, layout: Layout, stage: Option<Stage>) -> Result<Run, Error> {
        let s = self.shape;
        let (q_packed, k_packed) = (layout != Layout::Four, layout == Layout::Packed);
        let q_shape = [s.batch, s.query_heads, s.queries, s.dim];
        let k_shape = [s.batch, s.kv_heads, s.keys, s.dim];
        let v_shape = [s.batch, s.kv_heads, s.keys, s.value_dim];
        let out_shape = [s.batch, s.query_heads, s.queries, s.value_dim];
        let laid = |x: &[f32], shape, packed| if packed { pack(x, shape) } else { x.to_vec() };
        let q = laid(&self.q, q_shape, q_packed);
        let k = laid(&self.k, k_shape, k_packed);
        let v = laid(&self.v, v_shape, k_packed);

        let rows = s.batch * s.query_heads * s.queries;
        let [_, heads, queries, _] = out_shape;
        let of_row = |cols: usize| (vec![UNWRITTEN; rows * cols], [s.batch, heads, queries, cols]);
        let ((mut out, _), (mut lse, lse_shape)) = (of_row(s.value_dim), of_row(1));
        let (mut partials, partials_shape) = of_row(Partial::width(s.value_dim));
        let (mut scores, scores_shape) = of_row(if stage.is_some() { s.keys } else { 0 });
        let out_view = if q_packed { TensorMut::packed } else { TensorMut::new };
        let outputs = Outputs {
            out: Some(out_view(&mut out, out_shape).unwrap()),
            lse: Some(TensorMut::new(&mut lse, lse_shape).unwrap()),
            partials: Some(TensorMut::new(&mut partials, partials_shape).unwrap()),
            scores: stage.map(|stage| (stage, TensorMut::new(&mut scores, scores_shape).unwrap())),
        };
        let need = if stage.is_some() {
            plan.need_with_scores()
        } else {
            plan.need()
        };
        let mut report = Err(Error::Empty);
        odd_scratch(need.bytes(), |scratch| {
            let (k, v) = (view(&k, k_shape, k_packed), view(&v, v_shape, k_packed));
            report = plan.run(view(&q, q_shape, q_packed), k, v, outputs, scratch);
        });
        // Packing (batch, rows, heads, cols) once more gives (batch, heads, rows, cols).
        let out = laid(&out, [s.batch, s.queries, heads, s.value_dim], q_packed);
        Ok(Run {
            out,
            lse,
            partials,
            scores,
            report: report?,
        })
    }
}

//! Keys and values in any format have the bits of the f32 numbers that they stand for, whatever the rules.

use crate::problem::{Engine, Problem, Random, Solution, Tensor};
use crate::{any_isa, many, Tally};
use std::mem::MaybeUninit;
use subquad::attention::{Exact, Outputs, Stage};
use subquad::half::{bf16_from_f32, f16_from_f32, f32_from_bf16, f32_from_f16};
use subquad::{Format, Isa, RowsRef, Scratch, TensorMut};

/// Rows in a format.
#[derive(Debug)]
enum Rows {
    F32(Tensor<f32>),
    F16(Tensor<u16>),
    Bf16(Tensor<u16>),
    I8(Tensor<i8>, Tensor<f32>),
}

impl Rows {
    /// Numbers like those of `x`, and now and then any bits at all: infinities, NaN, subnormals.
    fn new(r: &mut Random, x: &Tensor<f32>, format: Format) -> Rows {
        let wild = r.once_in(8);
        let mut bits = |usual: u16| {
            if wild && r.once_in(200) {
                r.bits() as u16
            } else {
                usual
            }
        };
        match format {
            Format::F32 => Rows::F32(x.map(|_, &x| x)),
            Format::F16 => Rows::F16(x.map(|_, &x| bits(f16_from_f32(x)))),
            Format::Bf16 => Rows::Bf16(x.map(|_, &x| bits(bf16_from_f32(x)))),
            Format::I8 => {
                let size = [1.0 / 127.0, 1.0, 1e-40, 0.0][r.size(3)];
                let scales = x.per_row(|| size * r.unit().abs());
                Rows::I8(x.map(|_, &x| (x * 127.0) as i8), scales)
            }
        }
    }

    fn view(&self) -> RowsRef<'_> {
        match self {
            Rows::F32(x) => x.view().into(),
            Rows::F16(x) => RowsRef::f16(x.view()),
            Rows::Bf16(x) => RowsRef::bf16(x.view()),
            Rows::I8(x, scales) => RowsRef::i8(x.view(), scales.view()).unwrap(),
        }
    }

    /// What they stand for.
    fn numbers(&self) -> Tensor<f32> {
        match self {
            Rows::F32(x) => x.map(|_, &x| x),
            Rows::F16(x) => x.map(|_, &x| f32_from_f16(x)),
            Rows::Bf16(x) => x.map(|_, &x| f32_from_bf16(x)),
            Rows::I8(x, scales) => {
                let scales = scales.view();
                x.map(|[b, h, row], &x| f32::from(x) * scales.matrix(b, h).row(0)[row])
            }
        }
    }
}

fn solve(p: &Problem, [k, v]: &[Rows; 2], isa: Isa, run: usize) -> Solution {
    p.solve_by(0..p.queries(), |shape, rules, q, outputs| {
        let plan = Exact::new(shape).unwrap().with_rules(rules).unwrap().with_isa(isa);
        let plan = if run == 0 { plan } else { plan.with_key_run(run) };
        let mut work = vec![MaybeUninit::uninit(); plan.need_rows().bytes()];
        plan.run_rows(q, k.view(), v.view(), outputs, &mut Scratch::new(&mut work))
    })
}

#[test]
fn stored_rows_have_the_bits_of_their_numbers() {
    let mut tally = Tally::default();
    let mut r = Random(6);
    for i in 0..many(5000) {
        let mut p = Problem::random(&mut r);
        let [k, v] = [Format::ALL[i % 4], Format::ALL[i / 4 % 4]];
        let stored = [Rows::new(&mut r, &p.k, k), Rows::new(&mut r, &p.v, v)];
        [p.k, p.v] = [stored[0].numbers(), stored[1].numbers()];
        for _ in 0..3 {
            let (isa, run) = (any_isa(&mut r), [0, 0, 1, 7, 32][r.below(5)]);
            let want = p.solve(Engine::Exact { run }, isa);
            let got = solve(&p, &stored, isa, run);
            tally.compare(&got, &want, || {
                format!("runs of {run}, {} {stored:?} {p:?}", isa.name())
            });
        }
        tally.problems += 1;
    }
    tally.close("stored rows");
}

#[test]
fn scores_of_stored_rows_are_those_of_their_numbers() {
    let mut r = Random(7);
    for i in 0..many(200) {
        let mut p = Problem::random(&mut r);
        let k = Rows::new(&mut r, &p.k, Format::ALL[i % 4]);
        // Values are not looked at; those of the keys' shape will do.
        [p.k, p.v] = [k.numbers(), k.numbers()];
        let isa = any_isa(&mut r);
        for stage in [Stage::Raw, Stage::Capped, Stage::Biased, Stage::Softmax] {
            let scores = |widened: bool| {
                let mut scores = vec![];
                p.solve_by(0..p.queries(), |s, rules, q, _| {
                    let shape = [s.batch, s.query_heads, s.queries, s.keys];
                    scores = vec![0.5; shape.iter().product()];
                    let outputs = Outputs {
                        scores: Some((stage, TensorMut::new(&mut scores, shape).unwrap())),
                        ..Outputs::default()
                    };
                    let plan = Exact::new(s).unwrap().with_rules(rules).unwrap().with_isa(isa);
                    let mut work = vec![MaybeUninit::uninit(); plan.need_rows_with_scores().bytes()];
                    let mut scratch = Scratch::new(&mut work);
                    match widened {
                        true => plan.run(q, p.k.view(), p.v.view(), outputs, &mut scratch),
                        false => plan.run_rows(q, k.view(), k.view(), outputs, &mut scratch),
                    }
                });
                scores.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
            };
            assert_eq!(scores(false), scores(true), "{stage:?} on {} {p:?}", isa.name());
        }
    }
}

//! Queries, keys, values and what the gradient is of, run through the plan and through the models.

use super::model::{dot, Answer, Problem};
use subquad::attention::{Aim, PolynomialGradient, PolynomialGradients, Shape};
use subquad::rng::{normals, Philox};
use subquad::{MatMut, MatRef, Report, Scratch};

pub struct Case {
    pub shape: Shape,
    pub scale: f32,
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub given: Vec<f32>,
}

pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

pub fn draw(rng: &mut Philox, n: usize, by: f32) -> Vec<f32> {
    let mut x = vec![0.0; n];
    normals(rng, &mut x);
    x.iter_mut().for_each(|x| *x *= by);
    x
}

pub fn norm(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}

pub fn apart(a: &[f64], b: &[f64]) -> f64 {
    norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>())
}

impl Case {
    /// Normal keys; with `aligned`, keys on two points with values of their sign. Scores up to about `beta`.
    pub fn new(seed: u64, [n, m, d, e]: [usize; 4], beta: f32, aligned: bool) -> Case {
        let mut rng = Philox::new(seed, 0);
        let mut q = draw(&mut rng, n * d, 1.0);
        let mut k = draw(&mut rng, m * d, 1.0);
        let mut v = draw(&mut rng, m * e, 1.0);
        if aligned {
            k.iter_mut().enumerate().for_each(|(i, x)| {
                *x = if i % d > 0 { 0.0 } else { 1.0 - 2.0 * (i / d % 2) as f32 };
            });
            v.iter_mut()
                .enumerate()
                .for_each(|(i, x)| *x = 1.0 - 2.0 * (i / e % 2) as f32);
        }
        let longest = |x: &[f32]| x.chunks(d).map(|x| norm(&wide(x))).fold(0.0, f64::max) as f32;
        let by = beta / (longest(&q) * longest(&k));
        q.iter_mut().for_each(|x| *x *= by);
        Case {
            shape: Shape::head(n, m, d, e),
            scale: 1.0,
            q,
            k,
            v,
            given: draw(&mut rng, n * e, 1.0),
        }
    }

    pub fn plan(&self, degree: usize) -> PolynomialGradient {
        let plan = PolynomialGradient::new(self.shape, degree).unwrap();
        plan.with_scale(self.scale).unwrap()
    }

    pub fn run(&self, plan: &PolynomialGradient, aimed: bool) -> (Answer, Report) {
        let Shape {
            queries: n,
            keys: m,
            dim: d,
            value_dim: e,
            ..
        } = self.shape;
        let (mut out, mut dq, mut dk, mut dv) =
            (vec![9.0; n * e], vec![9.0; n * d], vec![9.0; m * d], vec![9.0; m * e]);
        let to = PolynomialGradients {
            out: Some(MatMut::new(&mut out, n, e).unwrap().into()),
            q: Some(MatMut::new(&mut dq, n, d).unwrap().into()),
            k: Some(MatMut::new(&mut dk, m, d).unwrap().into()),
            v: Some(MatMut::new(&mut dv, m, e).unwrap().into()),
        };
        let view = |x, rows, cols| MatRef::new(x, rows, cols).unwrap().into();
        let given = view(&self.given, n, e);
        let aim = if aimed {
            Aim::Target(given)
        } else {
            Aim::Upstream(given)
        };
        let mut bytes = vec![core::mem::MaybeUninit::uninit(); plan.need().bytes()];
        let report = plan.run(
            view(&self.q, n, d),
            view(&self.k, m, d),
            view(&self.v, m, e),
            aim,
            to,
            &mut Scratch::new(&mut bytes),
        );
        let [out, dq, dk, dv] = [out, dq, dk, dv].map(|x| wide(&x));
        (Answer { out, dq, dk, dv }, report.unwrap())
    }

    /// In f64; the centre is where the plan has it, as the mean is rounded there.
    pub fn model(&self) -> Problem {
        let (d, m) = (self.shape.dim, self.shape.keys);
        let mut centre = vec![0.0f32; d];
        for row in self.k.chunks_exact(d) {
            let share = 1.0 / m as f32;
            centre.iter_mut().zip(row).for_each(|(c, k)| *c += k * share);
        }
        Problem {
            dim: d,
            value_dim: self.shape.value_dim,
            tau: f64::from(self.scale),
            centre: wide(&centre),
            q: wide(&self.q),
            k: wide(&self.k),
            v: wide(&self.v),
            d_out: wide(&self.given),
        }
    }

    /// Exact gradients, with d_out from the exact output if that is aimed at a target.
    pub fn truth(&self, aimed: bool) -> Answer {
        let mut model = self.model();
        if aimed {
            let out = model.by_scores(f64::exp, f64::exp).out;
            model.d_out = out.iter().zip(&model.d_out).map(|(o, e)| o - e).collect();
        }
        model.by_scores(f64::exp, f64::exp)
    }
}

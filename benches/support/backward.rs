//! Attention backwards, with its memory and what it is checked against.

use super::{memory, Aligned, Bytes};
use subquad::attention::{Exact, Gradient, Gradients, Outputs, Rules, Shape, Upstream};
use subquad::{Isa, MatMut, MatRef, Scratch};

/// One head, run forwards once.
pub struct Backward {
    shape: Shape,
    causal: bool,
    forward: Exact<'static>,
    plan: Gradient<'static>,
    /// Queries, keys, values and the gradient of the output.
    inputs: [Aligned; 4],
    out: Aligned,
    lse: Aligned,
    /// Gradients of queries, keys and values.
    pub gradients: [Aligned; 3],
    bytes: Bytes,
}

impl Backward {
    pub fn new(n: usize, dim: usize, isa: Isa, causal: bool) -> Backward {
        let shape = Shape::head(n, n, dim, dim);
        let rules = if causal {
            Rules::new().with_causal()
        } else {
            Rules::new()
        };
        let forward = Exact::new(shape)
            .and_then(|plan| plan.with_rules(rules))
            .unwrap()
            .with_isa(isa);
        let plan = Gradient::new(shape)
            .and_then(|plan| plan.with_rules(rules))
            .unwrap()
            .with_isa(isa);
        let mut call = Backward {
            shape,
            causal,
            forward,
            plan,
            inputs: [1, 2, 3, 4].map(|seed| Aligned::normal(n * dim, seed)),
            out: Aligned::zeros(n * dim),
            lse: Aligned::zeros(n),
            gradients: [0; 3].map(|_| Aligned::zeros(n * dim)),
            bytes: memory(forward.need().or(plan.need())),
        };
        call.forward();
        call
    }

    pub fn forward(&mut self) {
        let (n, dim) = (self.shape.queries, self.shape.dim);
        let [q, k, v, _] = self.inputs.each_ref().map(|x| MatRef::new(x, n, dim).unwrap().into());
        let outputs = Outputs {
            out: Some(MatMut::new(&mut self.out, n, dim).unwrap().into()),
            lse: Some(MatMut::new(&mut self.lse, n, 1).unwrap().into()),
            ..Outputs::default()
        };
        let report = self.forward.run(q, k, v, outputs, &mut Scratch::new(&mut self.bytes));
        assert!(report.is_ok());
    }

    pub fn run(&mut self) {
        let (n, dim) = (self.shape.queries, self.shape.dim);
        let [q, k, v, d_out] = self.inputs.each_ref().map(|x| MatRef::new(x, n, dim).unwrap().into());
        let upstream = Upstream {
            out: MatRef::new(&self.out, n, dim).unwrap().into(),
            d_out,
            lse: MatRef::new(&self.lse, n, 1).unwrap().into(),
            d_lse: None,
        };
        let [dq, dk, dv] = self
            .gradients
            .each_mut()
            .map(|x| Some(MatMut::new(x, n, dim).unwrap().into()));
        let to = Gradients {
            q: dq,
            k: dk,
            v: dv,
            ..Gradients::default()
        };
        let report = self.plan.run(q, k, v, upstream, to, &mut Scratch::new(&mut self.bytes));
        assert!(report.is_ok());
    }

    /// Useful flops: five products per pair of query and key that sees it.
    pub fn flops(&self) -> f64 {
        let n = self.shape.queries;
        let pairs = if self.causal { n * (n + 1) / 2 } else { n * n };
        10.0 * (pairs * self.shape.dim) as f64
    }

    /// Along a few directions, the gradient against the slope of `sum of out * d_out` in f64.
    ///
    /// Per direction, all queries (keys, values) move together: a number with every entry of a gradient in it.
    pub fn check(&self, what: &str) {
        let dim = self.shape.dim;
        for (which, gradient) in self.gradients.iter().enumerate() {
            let direction = Aligned::normal(gradient.len(), 9);
            let wide = |x: &f32| f64::from(*x);
            let slope: f64 = gradient
                .iter()
                .zip(direction.iter())
                .map(|(g, d)| wide(g) * wide(d))
                .sum();
            let size: f64 = gradient
                .iter()
                .zip(direction.iter())
                .map(|(g, d)| (wide(g) * wide(d)).powi(2))
                .sum();
            const STEP: f64 = 1e-4;
            let at = |step: f64| {
                self.objective(|x, i| {
                    wide(&self.inputs[x][i]) + if x == which { step * wide(&direction[i]) } else { 0.0 }
                })
            };
            let quotient = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            let error = (quotient - slope).abs();
            assert!(
                error < 1e-4 * size.sqrt(),
                "{what}, d = {dim}, gradient {which}: {slope} instead of {quotient}"
            );
        }
    }

    /// Sum of out * d_out in f64, for inputs that `number` gives.
    fn objective(&self, number: impl Fn(usize, usize) -> f64) -> f64 {
        let (n, dim) = (self.shape.queries, self.shape.dim);
        let scale = 1.0 / (dim as f64).sqrt();
        let all = |x: usize| -> Vec<f64> { (0..n * dim).map(|i| number(x, i)).collect() };
        let [q, k, v, d_out] = [0, 1, 2, 3].map(all);
        let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        let row = |i: usize| {
            let seen = if self.causal { i + 1 } else { n };
            let (mut sum, mut total) = (0.0, 0.0);
            for j in 0..seen {
                let part = |x: &[f64], i: usize| x[i * dim..(i + 1) * dim].to_vec();
                let weight = (scale * dot(&part(&q, i), &part(&k, j))).exp();
                sum += weight;
                total += weight * dot(&part(&d_out, i), &part(&v, j));
            }
            total / sum
        };
        (0..n).map(row).sum()
    }
}

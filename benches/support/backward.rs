//! Attention backwards, with its memory and what it is checked against.

use super::{memory, Aligned, Bytes};
use subquad::attention::{Exact, Gradient, Gradients, Outputs, Rules, Saved, Shape, Upstream};
use subquad::{Error, Isa, Report, Scratch, TensorMut, TensorRef};

/// Some heads, run forwards once.
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
    /// Scratch of one thread, and of another.
    bytes: [Bytes; 2],
}

impl Backward {
    /// As many queries as keys, as many key heads as query heads, and values as wide as keys.
    pub fn new(shape: Shape, isa: Isa, causal: bool) -> Backward {
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
        let rows = shape.query_heads * shape.queries;
        let mut call = Backward {
            shape,
            causal,
            forward,
            plan,
            inputs: [1, 2, 3, 4].map(|seed| Aligned::normal(rows * shape.dim, seed)),
            out: Aligned::zeros(rows * shape.dim),
            lse: Aligned::zeros(rows),
            gradients: [0; 3].map(|_| Aligned::zeros(rows * shape.dim)),
            bytes: [0; 2].map(|_| memory(forward.need().or(plan.need()))),
        };
        call.forward(1);
        call
    }

    /// The attention itself, by one thread or two.
    pub fn forward(&mut self, threads: usize) {
        let plan = &self.forward;
        let [q, k, v, _] = self.inputs.each_ref().map(|x| view(x, self.shape, self.shape.dim));
        let outputs = Outputs {
            out: Some(view_mut(&mut self.out, self.shape, self.shape.dim)),
            lse: Some(view_mut(&mut self.lse, self.shape, 1)),
            ..Outputs::default()
        };
        let (one, other) = plan.share(outputs, threads).unwrap().split_at(1);
        let [a, b] = &mut self.bytes;
        both(
            || plan.run_share(q, k, v, one, &mut Scratch::new(a)),
            (!other.is_empty()).then_some(|| plan.run_share(q, k, v, other, &mut Scratch::new(b))),
        );
    }

    /// The gradient, by one thread or two.
    pub fn run(&mut self, threads: usize) {
        let (plan, shape) = (&self.plan, self.shape);
        let [q, k, v, d_out] = self.inputs.each_ref().map(|x| view(x, shape, shape.dim));
        let upstream = Upstream {
            out: view(&self.out, shape, shape.dim),
            d_out,
            saved: Saved::Lse(view(&self.lse, shape, 1)),
            d_lse: None,
        };
        let [dq, dk, dv] = self.gradients.each_mut().map(|x| Some(view_mut(x, shape, shape.dim)));
        let to = Gradients {
            q: dq,
            k: dk,
            v: dv,
            ..Gradients::default()
        };
        let (one, other) = plan.share(to, threads).unwrap().split_at(1);
        let [a, b] = &mut self.bytes;
        both(
            || plan.run_share(q, k, v, upstream, one, &mut Scratch::new(a)),
            (!other.is_empty()).then_some(|| plan.run_share(q, k, v, upstream, other, &mut Scratch::new(b))),
        );
    }

    /// Bits of all that was computed.
    pub fn bits(&self) -> Vec<u32> {
        let all = self.gradients.iter().chain([&self.out, &self.lse]);
        all.flat_map(|x| x.iter().map(|x| x.to_bits())).collect()
    }

    /// Useful flops: five products per pair of query and key that sees it.
    pub fn flops(&self) -> f64 {
        10.0 * self.products()
    }

    /// Useful flops of the attention itself: two products.
    pub fn forward_flops(&self) -> f64 {
        4.0 * self.products()
    }

    fn products(&self) -> f64 {
        let n = self.shape.queries;
        let pairs = if self.causal { n * (n + 1) / 2 } else { n * n };
        (self.shape.query_heads * pairs * self.shape.dim) as f64
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
        let (n, heads, dim) = (self.shape.queries, self.shape.query_heads, self.shape.dim);
        let scale = 1.0 / (dim as f64).sqrt();
        let all = |x: usize| -> Vec<f64> { (0..heads * n * dim).map(|i| number(x, i)).collect() };
        let [q, k, v, d_out] = [0, 1, 2, 3].map(all);
        let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        let row = |i: usize| {
            let first = i / n * n;
            let end = if self.causal { i + 1 } else { first + n };
            let (mut sum, mut total) = (0.0, 0.0);
            for j in first..end {
                let part = |x: &[f64], i: usize| x[i * dim..(i + 1) * dim].to_vec();
                let weight = (scale * dot(&part(&q, i), &part(&k, j))).exp();
                sum += weight;
                total += weight * dot(&part(&d_out, i), &part(&v, j));
            }
            total / sum
        };
        (0..heads * n).map(row).sum()
    }
}

fn view(x: &[f32], shape: Shape, cols: usize) -> TensorRef<'_, f32> {
    TensorRef::new(x, [1, shape.query_heads, shape.queries, cols]).unwrap()
}

fn view_mut(x: &mut [f32], shape: Shape, cols: usize) -> TensorMut<'_, f32> {
    TensorMut::new(x, [1, shape.query_heads, shape.queries, cols]).unwrap()
}

/// Both at the same time, if there are two.
fn both<A, B>(one: A, other: Option<B>)
where
    A: FnOnce() -> Result<Report, Error>,
    B: FnOnce() -> Result<Report, Error> + Send,
{
    match other {
        None => assert!(one().is_ok()),
        Some(other) => std::thread::scope(|scope| {
            let other = scope.spawn(other);
            assert!(one().is_ok() && other.join().unwrap().is_ok());
        }),
    }
}

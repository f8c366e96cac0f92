//! What tests of promises share: an oracle, a problem, and how the two are compared.
//!
//! The oracle is plain f64. Its own error has the shape of the promise with u = 2^-53 in place of 2^-24 (the same chains,
//! exp and division at a few of its ULP), so it is below 2^-27 of the promise; `within` allows for that.
#![allow(dead_code)] // each file of tests uses a part

use std::mem::MaybeUninit;
use subquad::attention::*;
use subquad::*;

/// What computes: a kernel on a back end.
#[derive(Clone, Copy)]
pub struct By {
    pub kernel: Kernel,
    pub isa: Isa,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    Exact,
    Decode,
}

impl By {
    /// Both kernels on every back end.
    pub fn all() -> impl Iterator<Item = By> {
        Isa::all().flat_map(By::both)
    }

    /// Both kernels on the portable back end and on the best one: one of each class, where there are two.
    pub fn few() -> impl Iterator<Item = By> {
        [Isa::SCALAR, Isa::best()].into_iter().flat_map(By::both)
    }

    fn both(isa: Isa) -> [By; 2] {
        [Kernel::Exact, Kernel::Decode].map(|kernel| By { kernel, isa })
    }

    pub fn name(&self) -> String {
        format!("{:?} on {}", self.kernel, self.isa.name())
    }
}

/// No more than promised, but for the oracle's own error.
pub fn within(measured: f64, bound: Bound) -> bool {
    measured * (1.0 - 2f64.powi(-27)) <= f64::from(bound.value)
}

/// One head in its plainest form: what the rules do is written out by the tests, not read from `Rules`.
pub struct Problem {
    pub queries: usize,
    pub keys: usize,
    pub dim: usize,
    pub value_dim: usize,
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
}

/// What the kernel gave and what f64 says, per row and entry.
pub struct Measured {
    pub out: f64,
    pub lse: f64,
    pub bound: Rounding,
}

impl Problem {
    pub fn new(
        sizes: [usize; 4],
        mut q: impl FnMut() -> f32,
        mut k: impl FnMut() -> f32,
        mut v: impl FnMut() -> f32,
    ) -> Self {
        let [queries, keys, dim, value_dim] = sizes;
        Problem {
            queries,
            keys,
            dim,
            value_dim,
            q: (0..queries * dim).map(|_| q()).collect(),
            k: (0..keys * dim).map(|_| k()).collect(),
            v: (0..keys * value_dim).map(|_| v()).collect(),
        }
    }

    pub fn views(&self) -> [MatRef<'_, f32>; 3] {
        [
            MatRef::new(&self.q, self.queries, self.dim).unwrap(),
            MatRef::new(&self.k, self.keys, self.dim).unwrap(),
            MatRef::new(&self.v, self.keys, self.value_dim).unwrap(),
        ]
    }

    /// One call with a bound, and that bound.
    pub fn run(&self, by: By, rules: Rules<'_>, outputs: Outputs<'_>) -> (Report, Rounding) {
        let [q, k, v] = self.views();
        // The two plans have the same methods, and no trait says so.
        macro_rules! run {
            ($plan:ident) => {{
                let plan = $plan::for_views(q, k, v).unwrap().with_isa(by.isa).with_bound();
                let plan = plan.with_rules(rules).unwrap();
                let mut work = vec![MaybeUninit::uninit(); plan.need().bytes()];
                let scratch = &mut Scratch::new(&mut work);
                let report = plan.run(q.into(), k.into(), v.into(), outputs, scratch).unwrap();
                (report, plan.rounding_bound(q, k, v).unwrap())
            }};
        }
        match by.kernel {
            Kernel::Exact => run!(Exact),
            Kernel::Decode => run!(Decode),
        }
    }

    /// Largest errors under `rules`, where `score(i, j, product)` is what they mean (minus infinity masks), `scale` the
    /// true scale and `sink` the learned logit.
    pub fn measure(
        &self,
        by: By,
        rules: Rules<'_>,
        scale: f64,
        sink: Option<f32>,
        score: impl Fn(usize, usize, f64) -> f64,
    ) -> Measured {
        let [q, k, v] = self.views();
        let (mut out, mut lse) = (vec![0f32; self.queries * self.value_dim], vec![0f32; self.queries]);
        let outputs = Outputs {
            out: Some(MatMut::new(&mut out, self.queries, self.value_dim).unwrap().into()),
            lse: Some(MatMut::new(&mut lse, self.queries, 1).unwrap().into()),
            ..Outputs::default()
        };
        let (report, bound) = self.run(by, rules, outputs);
        assert_eq!(report.bound, bound.out);
        let mut measured = Measured {
            out: 0.0,
            lse: 0.0,
            bound,
        };
        for i in 0..self.queries {
            let scores: Vec<f64> = (0..self.keys)
                .map(|j| {
                    let terms = q
                        .row(i)
                        .iter()
                        .zip(k.row(j))
                        .map(|(&a, &b)| f64::from(a) * f64::from(b));
                    score(i, j, scale * terms.sum::<f64>())
                })
                .collect();
            let logits = scores.iter().copied().chain(sink.map(f64::from));
            let max = logits.clone().fold(f64::NEG_INFINITY, f64::max);
            if max == f64::NEG_INFINITY {
                continue;
            }
            let sum: f64 = logits.map(|s| (s - max).exp()).sum();
            measured.lse = measured.lse.max((f64::from(lse[i]) - (max + sum.ln())).abs());
            for c in 0..self.value_dim {
                let terms = scores
                    .iter()
                    .enumerate()
                    .map(|(j, s)| (s - max).exp() * f64::from(v.row(j)[c]));
                let want = terms.sum::<f64>() / sum;
                measured.out = measured.out.max((f64::from(out[i * self.value_dim + c]) - want).abs());
            }
        }
        measured
    }

    pub fn plain(&self, by: By, scale: f32) -> Measured {
        self.measure(by, Rules::new().with_scale(scale), f64::from(scale), None, |_, _, s| s)
    }
}

impl Measured {
    /// The errors as parts of their promises.
    pub fn reached(&self) -> [f64; 2] {
        [
            self.out / f64::from(self.bound.out.value),
            self.lse / f64::from(self.bound.lse.value),
        ]
    }

    pub fn check(&self, what: &str) {
        assert!(
            within(self.out, self.bound.out),
            "{what}: out {:e} {:?}",
            self.out,
            self.bound.out
        );
        assert!(
            within(self.lse, self.bound.lse),
            "{what}: lse {:e} {:?}",
            self.lse,
            self.bound.lse
        );
    }
}

/// Weyl sequence through a multiplicative hash: uniform in -1..1.
pub fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (state ^ (state >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        ((x >> 40) as f32 - 8_388_608.0) / 8_388_608.0
    }
}

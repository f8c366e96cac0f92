//! Tokens, a state over memory of its own, and the same in f64.

use std::mem::MaybeUninit;
use subquad::moment::{lanes, Answer, Progress, Shape, State, Summary, Work};
use subquad::{Error, Isa, MatRef, Scratch};

/// Numbers between -1 and 1, the same in every run.
pub fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

pub fn scratch(bytes: usize) -> Vec<MaybeUninit<u8>> {
    vec![MaybeUninit::uninit(); bytes]
}

/// Tokens and queries about a centre.
pub struct Problem {
    pub shape: Shape,
    pub tokens: usize,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub centre: Vec<f32>,
    pub radius: f32,
    pub queries: usize,
    pub q: Vec<f32>,
    pub tau: f32,
}

impl Problem {
    /// Keys within 1.5 of a centre, values about 1, scores of a few.
    pub fn new(shape: Shape, tokens: usize, queries: usize, seed: u64) -> Problem {
        let d = shape.dim;
        let centre = noise(d, seed ^ 1);
        let size = 1.5 / (d.max(1) as f32).sqrt();
        let offsets = noise(tokens * d, seed);
        Problem {
            shape,
            tokens,
            k: offsets
                .iter()
                .enumerate()
                .map(|(i, x)| centre[i % d.max(1)] + size * x)
                .collect(),
            v: noise(tokens * shape.value_dim, seed ^ 2)
                .iter()
                .map(|x| 1.0 + x)
                .collect(),
            centre,
            radius: 1.6,
            queries,
            q: noise(queries * d, seed ^ 3),
            tau: 0.9,
        }
    }

    pub fn keys(&self, range: std::ops::Range<usize>) -> MatRef<'_, f32> {
        MatRef::new(&self.k, self.tokens, self.shape.dim)
            .unwrap()
            .row_range(range)
    }

    pub fn values(&self, range: std::ops::Range<usize>) -> MatRef<'_, f32> {
        MatRef::new(&self.v, self.tokens, self.shape.value_dim)
            .unwrap()
            .row_range(range)
    }

    /// `sum over tokens of s^j [v, 1]`, `[degree][column]`, of one query, in f64.
    pub fn moments(&self, query: usize) -> Vec<f64> {
        let Shape {
            dim, value_dim, degree, ..
        } = self.shape;
        let mut sums = vec![0.0; (degree + 1) * (value_dim + 1)];
        for i in 0..self.tokens {
            let score: f64 = (0..dim)
                .map(|c| {
                    let x = f64::from(self.k[i * dim + c]) - f64::from(self.centre[c]);
                    f64::from(self.tau) * f64::from(self.q[query * dim + c]) * x
                })
                .sum();
            let mut power = 1.0;
            for row in sums.chunks_mut(value_dim + 1) {
                let value = self.v[i * value_dim..][..value_dim].iter().map(|&v| f64::from(v));
                row.iter_mut()
                    .zip(value.chain([1.0]))
                    .for_each(|(to, v)| *to += power * v);
                power *= score;
            }
        }
        sums
    }
}

/// A state with its memory.
pub struct Own {
    pub isa: Isa,
    pub shape: Shape,
    pub radius: f32,
    pub memory: Vec<f32>,
    pub progress: Progress,
}

/// The answers to all queries, `[query][degree][column]`, and their magnitudes `[query][degree]`.
pub struct Answers {
    pub moments: Vec<Vec<f32>>,
    pub magnitudes: Vec<Vec<f32>>,
}

impl Own {
    pub fn new(p: &Problem, isa: Isa) -> Own {
        let mut memory = vec![f32::NAN; p.shape.state_len().unwrap()];
        State::new(p.shape, &p.centre, p.radius, &mut memory).unwrap();
        Own {
            isa,
            shape: p.shape,
            radius: p.radius,
            memory,
            progress: Progress::default(),
        }
    }

    pub fn state(&mut self) -> State<'_> {
        let state = State::open(self.shape, self.radius, self.progress, &mut self.memory).unwrap();
        state.with_isa(self.isa)
    }

    /// Pushes tokens of a problem, in calls of `cut` tokens.
    pub fn push(&mut self, p: &Problem, range: std::ops::Range<usize>, cut: usize) -> Result<(), Error> {
        let mut bytes = scratch(self.shape.need().bytes());
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + cut);
            let mut state = self.state();
            state.push(p.keys(start..end), p.values(start..end), &mut Scratch::new(&mut bytes))?;
            self.progress = state.progress();
            start = end;
        }
        Ok(())
    }

    pub fn merge(&mut self, other: &mut Own) {
        let mut bytes = scratch(self.shape.need().bytes());
        let mut state = self.state();
        state.merge(&other.state(), &mut Scratch::new(&mut bytes)).unwrap();
        self.progress = state.progress();
    }

    /// What is known of the tokens.
    pub fn with_summary<T>(&mut self, f: impl FnOnce(Summary<'_>) -> T) -> T {
        let shape = self.shape;
        let mut bytes = scratch(shape.need().bytes());
        let mut weighted = vec![f32::NAN; shape.frozen_len().unwrap()];
        let state = self.state();
        let frozen = state.freeze(&mut weighted, &mut Scratch::new(&mut bytes)).unwrap();
        f(frozen.summary())
    }

    /// All queries, `block` at a time.
    pub fn ask(&mut self, p: &Problem, block: usize) -> Answers {
        let (isa, shape) = (self.isa, self.shape);
        let lanes = lanes(isa);
        let block = block.min(lanes);
        let mut bytes = scratch(shape.need().bytes());
        let mut weighted = vec![f32::NAN; shape.frozen_len().unwrap()];
        let state = self.state();
        let frozen = state.freeze(&mut weighted, &mut Scratch::new(&mut bytes)).unwrap();
        let mut bytes = scratch(shape.work_need(isa).bytes());
        let mut work = Work::new(shape, isa, &mut Scratch::new(&mut bytes)).unwrap();
        let rows = (shape.degree + 1) * (shape.value_dim + 1);
        let (mut moments, mut magnitudes) = (vec![f32::NAN; rows * lanes], vec![f32::NAN; (shape.degree + 1) * lanes]);
        let mut all = Answers {
            moments: Vec::new(),
            magnitudes: Vec::new(),
        };
        let q = MatRef::new(&p.q, p.queries, shape.dim).unwrap();
        for start in (0..p.queries).step_by(block) {
            let q = q.row_range(start..start + block);
            let answer = Answer {
                moments: &mut moments,
                magnitudes: Some(&mut magnitudes),
            };
            frozen.query(q, p.tau, &mut work, answer).unwrap();
            let of_lane = |x: &[f32], lane: usize| x.iter().skip(lane).step_by(lanes).copied().collect::<Vec<f32>>();
            for lane in 0..q.rows() {
                all.moments.push(of_lane(&moments, lane));
                all.magnitudes.push(of_lane(&magnitudes, lane));
            }
        }
        all
    }
}

//! Pushing into sums of monomials and asking them: `cargo bench --bench moment`.
//!
//! Every line is a race as in `benches/attention.rs`: multiply-adds, a push of all tokens, and all queries without and with
//! their magnitudes take turns, and each is credited with its best. Columns: nanoseconds per token or query, and
//! `2 t (dv + 1)` flops as a share of the multiply-adds of the same race. Answers are checked against f64 first.

mod support;

use subquad::moment::{lanes, Answer, Frozen, Shape, State, Work};
use subquad::{Isa, MatRef, Scratch};
use support::{memory, peak, race, Aligned};

/// Seconds per race.
const PATIENCE: f64 = 2.0;
const TOKENS: usize = 8192;
const QUERIES: usize = 2048;

/// Tokens of norm about 1/2 and queries of scores about 1/2.
struct Problem {
    shape: Shape,
    k: Aligned,
    v: Aligned,
    q: Aligned,
}

impl Problem {
    fn new(dim: usize, degree: usize) -> Problem {
        let size = 0.5 / (dim as f32).sqrt();
        let mut k = Aligned::normal(TOKENS * dim, 1);
        k.iter_mut().for_each(|x| *x *= size);
        Problem {
            shape: Shape::new(dim, dim, degree),
            k,
            v: Aligned::normal(TOKENS * dim, 2),
            q: Aligned::normal(QUERIES * dim, 3),
        }
    }

    fn push(&self, isa: Isa, state: &mut [f32], bytes: &mut support::Bytes) -> subquad::moment::Progress {
        let dim = self.shape.dim;
        let (k, v) = (
            MatRef::new(&self.k, TOKENS, dim).unwrap(),
            MatRef::new(&self.v, TOKENS, dim).unwrap(),
        );
        let state = State::new(self.shape, &vec![0.0; dim], 4.0, state);
        let mut state = state.unwrap().with_isa(isa);
        state.push(k, v, &mut Scratch::new(bytes)).unwrap();
        state.progress()
    }

    fn ask(
        &self,
        frozen: &Frozen<'_>,
        work: &mut Work<'_>,
        lanes: usize,
        moments: &mut [f32],
        with: Option<&mut [f32]>,
    ) {
        let q = MatRef::new(&self.q, QUERIES, self.shape.dim).unwrap();
        let mut magnitudes = with;
        for first in (0..QUERIES).step_by(lanes) {
            let answer = Answer {
                moments,
                magnitudes: magnitudes.as_deref_mut(),
            };
            frozen
                .query(q.row_range(first..first + lanes), 0.5, work, answer)
                .unwrap();
        }
    }

    /// The last query's last lane against its moments in f64.
    fn check(&self, lanes: usize, moments: &[f32]) {
        let Shape { dim, degree, .. } = self.shape;
        let q = &self.q[(QUERIES - 1) * dim..];
        let mut exact = vec![0.0; (degree + 1) * (dim + 1)];
        let mut size = vec![0.0; degree + 1];
        for (k, v) in self.k.chunks(dim).zip(self.v.chunks(dim)) {
            let score: f64 = q.iter().zip(k).map(|(q, k)| 0.5 * f64::from(*q) * f64::from(*k)).sum();
            let mut power = 1.0;
            for (row, size) in exact.chunks_mut(dim + 1).zip(&mut size) {
                let values = v.iter().map(|&v| f64::from(v)).chain([1.0]);
                row.iter_mut().zip(values).for_each(|(to, v)| *to += power * v);
                *size += power.abs();
                power *= score;
            }
        }
        for (at, want) in exact.iter().enumerate() {
            let (got, size) = (f64::from(moments[at * lanes + lanes - 1]), size[at / (dim + 1)]);
            assert!(
                (got - want).abs() <= 1e-5 * (size + TOKENS as f64 * 1e-2),
                "{got} instead of {want}"
            );
        }
    }
}

fn main() {
    let isas: Vec<Isa> = match std::env::var("SUBQUAD_ISA") {
        Ok(name) => Isa::all().filter(|isa| isa.name() == name).collect(),
        Err(_) => vec![Isa::best()],
    };
    println!(
        "{:<14}{:>5}{:>5}{:>7}  {:>12}{:>7}  {:>12}{:>7}  {:>15}",
        "back end", "d", "g", "t", "push ns", "peak", "query ns", "peak", "with magnitudes"
    );
    for isa in isas {
        for (dim, degree) in [(4, 8), (8, 4), (16, 2), (16, 4), (32, 2), (64, 2)] {
            let p = Problem::new(dim, degree);
            let shape = p.shape;
            let lanes = lanes(isa);
            let mut state = vec![0.0; shape.state_len().unwrap()];
            let mut bytes = memory(shape.need());
            let progress = p.push(isa, &mut state, &mut bytes);
            let mut other = state.clone();
            let mut weighted = vec![0.0; shape.frozen_len().unwrap()];
            let state = State::open(shape, 4.0, progress, &mut state).unwrap().with_isa(isa);
            let frozen = state.freeze(&mut weighted, &mut Scratch::new(&mut bytes)).unwrap();
            let mut moments = [0; 2].map(|_| vec![0.0; (degree + 1) * (dim + 1) * lanes]);
            let mut magnitudes = vec![0.0; (degree + 1) * lanes];
            let mut rooms = [0; 2].map(|_| memory(shape.work_need(isa)));
            let [mut a, mut b] = rooms
                .each_mut()
                .map(|room| Work::new(shape, isa, &mut Scratch::new(room)).unwrap());
            let [plain, full] = &mut moments;
            p.ask(&frozen, &mut a, lanes, plain, None);
            p.check(lanes, plain);
            let mut flops = 0.0;
            let [peak, push, query, both] = race(
                PATIENCE,
                [
                    &mut || flops = peak::multiply_adds(isa),
                    &mut || {
                        p.push(isa, &mut other, &mut bytes);
                    },
                    &mut || p.ask(&frozen, &mut a, lanes, plain, None),
                    &mut || p.ask(&frozen, &mut b, lanes, full, Some(&mut magnitudes)),
                ],
            );
            let t = shape.features().unwrap();
            let (push, query) = (push / TOKENS as f64, query / QUERIES as f64);
            let share = |time: f64| 2.0 * (t * (dim + 1)) as f64 / time / (flops / peak);
            println!(
                "{:<14}{dim:>5}{degree:>5}{t:>7}  {:>12.1}{:>7.2}  {:>12.1}{:>7.2}  {:>15.2}",
                isa.name(),
                1e9 * push,
                share(push),
                1e9 * query,
                share(query),
                both / QUERIES as f64 / query,
            );
        }
    }
}

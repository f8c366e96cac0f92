//! Equal bits: on every back end of a class, for every split of the rows, for every cut of the keys.
//!
//! `SUBQUAD_LONG=1` runs ten times as many problems.

#[path = "bits/problem.rs"]
mod problem;
#[path = "bits/stored.rs"]
mod stored;

use problem::{Engine, Problem, Random, Solution, Tensor};
use subquad::{kernels, Isa};

/// What was compared, and whether it was the same.
#[derive(Default)]
struct Tally {
    problems: usize,
    comparisons: usize,
    numbers: usize,
    differing: usize,
    repeated: usize,
    non_finite: usize,
}

impl Tally {
    /// The first difference is shown, all are counted.
    fn compare(&mut self, got: &Solution, want: &Solution, what: impl Fn() -> String) {
        self.comparisons += 1;
        self.repeated += usize::from(got.repeated > 0);
        self.non_finite += got.non_finite;
        let counts = |s: &Solution| (s.rows.len(), s.masked, s.non_finite);
        if counts(got) != counts(want) {
            self.differing += 1;
            println!(
                "{:?} instead of {:?} (rows, masked, non-finite): {}",
                counts(got),
                counts(want),
                what()
            );
        }
        for (row, (a, b)) in got.rows.iter().zip(&want.rows).enumerate() {
            assert_eq!(a.len(), b.len());
            self.numbers += a.len();
            for (column, (&a, &b)) in a.iter().zip(b).enumerate().filter(|(_, (a, b))| a != b) {
                self.differing += 1;
                if self.differing == 1 {
                    let (a, b) = (f32::from_bits(a), f32::from_bits(b));
                    println!("row {row}, number {column}: {a:e} instead of {b:e}: {}", what());
                }
            }
        }
    }

    fn close(&self, title: &str) {
        println!(
            "{title}: {} problems, {} comparisons ({} with a second pass), {} numbers, {} non-finite rows, {} differing",
            self.problems, self.comparisons, self.repeated, self.numbers, self.non_finite, self.differing
        );
        assert_eq!(self.differing, 0, "{title}");
    }
}

/// The members of a class; the first, one lane in software, is the reference of the others.
fn class(fused: bool) -> Vec<Isa> {
    let reference = if fused { "fused-emu1" } else { "emu1" };
    let mut class: Vec<Isa> = Isa::all().filter(|isa| isa.fused() == fused).collect();
    class.sort_by_key(|isa| isa.name() != reference);
    assert_eq!(class[0].name(), reference);
    class
}

fn many(n: usize) -> usize {
    if std::env::var_os("SUBQUAD_LONG").is_some() {
        10 * n
    } else {
        n
    }
}

#[test]
fn kernels_have_one_result_per_class() {
    let mut r = Random(1);
    let mut differing = 0;
    let mut compared = 0;
    for n in (0..=70).chain([255, 1000, 4099, 20_000]) {
        let (x, y) = (r.numbers(n, 90.0), r.numbers(n, 2.0));
        // Any bits at all for the functions: infinities, NaN, subnormals.
        let any: Vec<f32> = (0..n).map(|_| f32::from_bits(r.bits() as u32)).collect();
        let wide = |x: &[f32]| -> Vec<f64> { x.iter().map(|&x| f64::from(x) / 3.0).collect() };
        let (xd, yd) = (wide(&x), wide(&y));
        for fused in [true, false] {
            let all = class(fused).into_iter().map(|isa| {
                let mut bits = vec![u64::from(kernels::dot(isa, &x, &y).to_bits())];
                bits.push(kernels::dot_f64(isa, &xd, &yd).to_bits());
                let mut z = vec![0.5; n];
                for x in [&x, &y, &any] {
                    kernels::exp(isa, x, &mut z);
                    bits.extend(z.iter().map(|z| u64::from(z.to_bits())));
                    kernels::tanh(isa, x, &mut z);
                    bits.extend(z.iter().map(|z| u64::from(z.to_bits())));
                }
                bits
            });
            let all: Vec<Vec<u64>> = all.collect();
            for other in &all[1..] {
                compared += other.len();
                differing += other.iter().zip(&all[0]).filter(|(a, b)| a != b).count();
            }
        }
    }
    println!("kernels: {compared} numbers, {differing} differing");
    assert_eq!(differing, 0);
}

/// Two of the others against the reference of each class, in turn.
fn back_ends(engine: Engine, seed: u64) {
    let mut tally = Tally::default();
    let mut r = Random(seed);
    let classes = [class(true), class(false)];
    for _ in 0..many(10_000) {
        let p = Problem::random(&mut r);
        for class in &classes {
            let want = p.solve(engine, class[0]);
            for turn in 0..2 {
                let isa = class[1 + (2 * tally.problems + turn) % (class.len() - 1)];
                tally.compare(&p.solve(engine, isa), &want, || {
                    format!("{} {engine:?} {p:?}", isa.name())
                });
            }
        }
        tally.problems += 1;
    }
    tally.close(&format!("back ends, {engine:?}"));
}

#[test]
fn exact_has_one_result_per_class() {
    back_ends(Engine::Exact { run: 0 }, 2);
}

#[test]
fn decode_has_one_result_per_class() {
    back_ends(Engine::Decode, 3);
}

fn any_isa(r: &mut Random) -> Isa {
    let all: Vec<Isa> = Isa::all().collect();
    all[r.below(all.len())]
}

/// One call, against calls for pieces of the rows.
fn splits(tally: &mut Tally, r: &mut Random, p: &Problem) {
    let isa = any_isa(r);
    let n = p.queries();
    for engine in [Engine::Exact { run: 0 }, Engine::Decode] {
        let want = p.solve(engine, isa);
        for pieces in [2, 3, 7, n] {
            let mut got = Solution::default();
            for piece in 0..pieces {
                got.append(p.solve_rows(engine, isa, n * piece / pieces..n * (piece + 1) / pieces));
            }
            tally.compare(&got, &want, || {
                format!("{pieces} pieces, {} {engine:?} {p:?}", isa.name())
            });
        }
    }
    tally.problems += 1;
}

#[test]
fn rows_do_not_depend_on_each_other() {
    let mut tally = Tally::default();
    let mut r = Random(4);
    for _ in 0..many(1000) {
        let p = Problem::random(&mut r).splittable();
        splits(&mut tally, &mut r, &p);
        // Longer than a run, so that there is something to rescale.
        let keys = if r.once_in(3) {
            1 + r.below(60)
        } else {
            180 + r.below(400)
        };
        let p = adversary(&mut r, keys);
        splits(&mut tally, &mut r, &p);
    }
    tally.close("row splits");
}

/// The runs of keys that must agree.
const RUNS: [usize; 8] = [1, 2, 3, 7, 16, 32, 192, 1000];

#[test]
fn keys_may_be_cut_anywhere() {
    let mut tally = Tally::default();
    let mut r = Random(5);
    for i in 0..many(4000) {
        let keys = if i % 32 == 1 { 300 } else { 1 + r.below(60) };
        let p = if i % 4 == 0 {
            Problem::random(&mut r)
        } else {
            adversary(&mut r, keys)
        };
        let isa = any_isa(&mut r);
        let want = p.solve(Engine::Exact { run: 0 }, isa);
        for run in RUNS {
            let got = p.solve(Engine::Exact { run }, isa);
            tally.compare(&got, &want, || format!("run {run}, {} {p:?}", isa.name()));
        }
        tally.problems += 1;
    }
    tally.close("key runs");
    // The families below must reach what they are made for.
    assert!(
        tally.repeated * 4 > tally.comparisons,
        "second passes: {}",
        tally.repeated
    );
}

/// A problem whose scores are hard on the running reference: scores in base 2 are what `scores` says, up to the last
/// rounding, because the only query entry is 1 over log2 e and the scale 1.
fn adversary(r: &mut Random, keys: usize) -> Problem {
    let (queries, columns) = (1 + r.size(9), 1 + r.below(12));
    let scores = hard_scores(r, keys);
    // Values are 0, +-1, multiples of 2^-23, or so large that sums overflow under a reference that is too low.
    let values: Vec<f32> = match r.below(4) {
        // Column c is the weight of key c, and of c + columns, ...
        0 => (0..keys * columns)
            .map(|i| f32::from(u8::from(i / columns % columns == i % columns)))
            .collect(),
        1 => (0..keys * columns).map(|_| r.below(3) as f32 - 1.0).collect(),
        2 => (0..keys * columns).map(|_| r.unit() * f32::MAX).collect(),
        _ => r.numbers(keys * columns, 1.0),
    };
    // Rows differ by small factors, so that lanes raise their references in different runs.
    let q = (0..queries)
        .map(|i| (1.0 - i as f32 / 16.0) / std::f32::consts::LOG2_E)
        .collect();
    let mut p = Problem::plain(
        Tensor::dense([1, 1, queries, 1], q),
        Tensor::dense([1, 1, keys, 1], scores),
        Tensor::dense([1, 1, keys, columns], values),
    );
    p.scale = Some(1.0);
    p.causal = r.once_in(3);
    p.window = (r.once_in(3).then(|| r.below(keys)), None);
    p.offset = subquad::attention::Offset::Keys(r.below(keys + 1) as i64);
    if r.once_in(3) {
        let hidden = (0..keys)
            .map(|_| if r.once_in(4) { f32::NEG_INFINITY } else { 0.0 })
            .collect();
        p.bias = Some(Tensor::dense([1, 1, 1, keys], hidden));
    }
    p
}

fn hard_scores(r: &mut Random, keys: usize) -> Vec<f32> {
    let top = [0.0, 1.0, 300.0, 2_097_152.0, 4_194_304.0, 8_388_608.0, 1e12, 3e38][r.below(8)];
    let sign = if r.once_in(2) { 1.0 } else { -1.0 };
    let base = top * sign;
    let family = r.below(6);
    let spread = [60.0, 100.0, 126.0, 127.0, 150.0, 400.0][r.below(6)];
    let mut scores: Vec<f32> = (0..keys)
        .map(|j| match family {
            // Ascending: the reference rises with every key, or late.
            0 => base - spread + spread * j as f32 / keys as f32,
            1 => base - if j + 1 < keys { spread + 4.0 * r.unit() } else { 0.0 },
            // Ties at half integers.
            2 => base - r.below(2 * spread as usize) as f32 / 2.0,
            // Around the borders of the safe range and of what a weight can be.
            3 => base - [0.0, 99.5, 100.0, 100.5, 125.5, 126.0, 126.5, 127.0][r.below(8)] + r.unit(),
            // Both sides of where the rounding constant has room.
            4 => {
                [
                    2_097_152.0,
                    2_097_152.0 - 0.25,
                    2_097_152.0 + 0.25,
                    4_194_303.5,
                    4_194_304.5,
                    8_388_607.5,
                    1.5,
                    -2_097_152.5,
                ][r.below(8)]
                    - r.below(300) as f32 / 4.0
            }
            _ => base + r.unit() * spread,
        })
        .collect();
    if r.once_in(3) {
        (1..keys).rev().for_each(|j| scores.swap(j, r.below(j + 1)));
    }
    scores
}

//! The gradient of polynomial attention: models in f64, finite differences, closed forms, promises, fallbacks.

mod case;
mod model;

use case::{apart, draw, norm, wide, Case};
use model::{dot, Problem};
use subquad::attention::{Aim, PolynomialGradient, PolynomialGradients, Shape};
use subquad::moment::series::{minimax, TAYLOR};
use subquad::rng::Philox;
use subquad::{Error, Isa, MatMut, MatRef, Scratch};

fn taylor(degree: usize) -> Vec<f64> {
    wide(&TAYLOR[..=degree])
}

#[test]
fn the_model_is_the_gradient_of_its_own_loss() {
    let case = Case::new(1, [5, 9, 3, 2], 1.5, false);
    let mut model = case.model();
    let c = taylor(5);
    let own = model.recursion(&c);
    let step = 1e-5;
    let slope = |model: &mut Problem, field: fn(&mut Problem) -> &mut Vec<f64>, i: usize| {
        let mut loss = |by: f64| {
            field(model)[i] += by;
            let out = model.recursion(&c).out;
            field(model)[i] -= by;
            dot(&out, &model.d_out)
        };
        (loss(step) - loss(-step)) / (2.0 * step)
    };
    type Field = fn(&mut Problem) -> &mut Vec<f64>;
    let fields: [(Field, &[f64]); 3] = [
        (|p| &mut p.q, &own.dq),
        (|p| &mut p.k, &own.dk),
        (|p| &mut p.v, &own.dv),
    ];
    for (field, gradient) in fields {
        for (i, &g) in gradient.iter().enumerate() {
            let d = slope(&mut model, field, i);
            assert!((d - g).abs() <= 1e-6 * (norm(gradient) + 1e-3), "{i}: {d} {g}");
        }
    }
    // And it is what every score by itself gives.
    let sum = |c: &[f64], s: f64| c.iter().rev().fold(0.0, |sum, c| sum * s + c);
    let derivative: Vec<f64> = c.iter().enumerate().skip(1).map(|(j, c)| j as f64 * c).collect();
    let direct = model.by_scores(|s| sum(&c, s), |s| sum(&derivative, s));
    for (a, b) in [(&own.dq, &direct.dq), (&own.dk, &direct.dk), (&own.dv, &direct.dv)] {
        assert!(apart(a, b) <= 1e-12 * norm(a));
    }
}

#[test]
fn kernels_are_the_model_on_every_back_end() {
    for (seed, sizes, degree) in [
        (2, [70, 300, 3, 2], 4),
        (3, [33, 40, 1, 1], 7),
        (4, [5, 601, 6, 16], 2),
        (5, [40, 33, 4, 15], 5),
        (6, [1, 1, 2, 3], 1),
        (7, [65, 97, 5, 4], 3),
    ] {
        let case = Case::new(seed, sizes, 1.0, false);
        let model = case.model().recursion(&taylor(degree));
        for isa in Isa::all() {
            let (own, report) = case.run(&case.plan(degree).with_isa(isa), false);
            assert_eq!((report.exact_rows, report.non_finite_rows), (0, 0), "{isa:?} {sizes:?}");
            for (what, a, b) in [
                ("out", &own.out, &model.out),
                ("dq", &own.dq, &model.dq),
                ("dk", &own.dk, &model.dk),
                ("dv", &own.dv, &model.dv),
            ] {
                let off = apart(a, b);
                assert!(
                    off <= 2e-5 * norm(b) + 1e-6,
                    "{isa:?} {sizes:?} {what} {off:e} {:e}",
                    norm(b)
                );
            }
        }
    }
}

#[test]
fn minimax_polynomials_have_their_own_gradient() {
    let case = Case::new(8, [50, 200, 3, 3], 1.9, false);
    let c = wide(minimax(6, 4.0).unwrap().coefficients);
    let model = case.model().recursion(&c);
    let (own, report) = case.run(&case.plan(6).with_minimax(4.0).unwrap(), false);
    assert_eq!(report.exact_rows, 0);
    assert!(apart(&own.dq, &model.dq) <= 2e-5 * norm(&model.dq));
    assert!(apart(&own.dk, &model.dk) <= 2e-5 * norm(&model.dk));
}

/// The largest share of its promise that a row used.
fn check(case: &Case, plan: &PolynomialGradient, aimed: bool, note: &str) -> f64 {
    let (own, report) = case.run(plan, aimed);
    let truth = case.truth(aimed);
    let d = case.shape.dim;
    let mut used = 0.0f64;
    for (row, (a, b)) in own.dq.chunks(d).zip(truth.dq.chunks(d)).enumerate() {
        let off = apart(a, b);
        let bound = f64::from(report.bound.value);
        // Exact rows have an error of their own.
        let own = if report.exact_rows > 0 {
            1e-4 * norm(&truth.dq)
        } else {
            0.0
        };
        assert!(off <= bound + own + 1e-12, "{note} row {row}: {off:e} > {bound:e}");
        used = used.max(off / bound.max(1e-30));
    }
    used
}

#[test]
fn no_row_breaks_its_promise() {
    let mut used = 0.0f64;
    for trial in 0..120u64 {
        let of = |rng: &mut Philox, n: u32| (1 + rng.below(n)) as usize;
        let mut rng = Philox::new(100 + trial, 1);
        let aligned = trial % 3 == 0;
        // One row alone: the promise of the call is its own.
        let sizes = [1, of(&mut rng, 120), of(&mut rng, 5), of(&mut rng, 6)];
        let beta = [0.05, 0.3, 1.0, 2.0, 4.0][of(&mut rng, 5) - 1];
        let degree = of(&mut rng, 8);
        let case = Case::new(trial, sizes, beta, aligned);
        let note = format!("trial {trial} {sizes:?} degree {degree} beta {beta}");
        let mut plan = case.plan(degree);
        if trial % 4 == 1 {
            plan = plan.with_minimax(2.0 * beta).unwrap_or(plan);
        }
        for aimed in [false, true] {
            let (_, report) = case.run(&plan, aimed);
            if report.exact_rows == 0 {
                used = used.max(check(&case, &plan, aimed, &note));
            }
        }
    }
    // Two points with values of their sign: a tenth of the promise would break.
    assert!(used > 0.1 && used <= 1.0, "{used}");
}

#[test]
fn rows_that_keep_no_tolerance_are_exact() {
    let case = Case::new(9, [300, 200, 3, 2], 3.0, false);
    for aimed in [false, true] {
        let truth = case.truth(aimed);
        let mut mixed = 0;
        for tolerance in [0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1] {
            let plan = case.plan(5).with_tolerance(tolerance).unwrap();
            let (own, report) = case.run(&plan, aimed);
            if tolerance == 0.0 {
                assert_eq!((report.exact_rows, report.bound.value), (300, 0.0));
            }
            check(&case, &plan, aimed, "mixed");
            mixed += usize::from(report.exact_rows > 0 && report.exact_rows < 300);
            let most = if report.exact_rows == 300 { 1e-5 } else { 3e-2 };
            for (a, b) in [
                (&own.dq, &truth.dq),
                (&own.dk, &truth.dk),
                (&own.dv, &truth.dv),
                (&own.out, &truth.out),
            ] {
                assert!(apart(a, b) <= most * norm(b), "{tolerance} {:e}", apart(a, b) / norm(b));
            }
        }
        assert!(mixed > 0);
    }
    // A sum of weights that is not positive promises nothing, whatever is allowed.
    let case = Case::new(10, [20, 40, 2, 1], 30.0, false);
    let (own, report) = case.run(&case.plan(1), false);
    assert!(report.exact_rows > 0);
    assert!(own.dq.iter().all(|x| x.is_finite()));
}

#[test]
fn the_hypercube_has_a_closed_form() {
    // Keys are all sign vectors, values too: the output is tanh of the query, column by column.
    let d = 4;
    let k: Vec<f32> = (0..16 * d)
        .map(|i| if ((i / d) >> (i % d)) & 1 == 0 { 1.0 } else { -1.0 })
        .collect();
    let mut case = Case::new(11, [30, 16, d, d], 0.6, false);
    (case.k, case.v) = (k.clone(), k);
    let (own, report) = case.run(&case.plan(8), false);
    for ((x, d_out), dq) in case.q.iter().zip(&case.given).zip(&own.dq) {
        let sech = 1.0 / f64::from(*x).cosh();
        let off = (dq - sech * sech * f64::from(*d_out)).abs();
        assert!(off <= f64::from(report.bound.value) && off < 1e-5, "{off:e}");
    }
    assert!(report.bound.value < 1e-1 && report.exact_rows == 0);
}

#[test]
fn constant_values_and_no_upstream_move_nothing() {
    let mut case = Case::new(12, [40, 60, 3, 2], 1.0, false);
    case.v.fill(0.75);
    let (own, report) = case.run(&case.plan(4), false);
    assert!(norm(&own.dq) <= 1e-5 && norm(&own.dk) <= 1e-4);
    assert_eq!(report.exact_rows, 0);
    case.given.fill(0.0);
    let (own, report) = case.run(&case.plan(4).with_tolerance(0.0).unwrap(), false);
    assert!(own.dq.iter().chain(&own.dk).chain(&own.dv).all(|&x| x == 0.0));
    assert_eq!((report.exact_rows, report.bound.value), (0, 0.0));
}

/// dL/dX of `1/2 || softmax(A1 X A2^T / d) A3 Y - E ||^2` at X = 0.
#[test]
fn no_parameters_have_a_closed_form() {
    let (n, m, d) = (12, 25, 3);
    let mut case = Case::new(13, [n, m, d, d], 1.0, false);
    case.scale = 1.0 / d as f32;
    let a = wide(&draw(&mut Philox::new(14, 0), n * d, 1.0));
    case.q.fill(0.0);
    let (own, report) = case.run(&case.plan(3), true);
    assert_eq!(report.exact_rows, 0);
    let (k, v, target) = (wide(&case.k), wide(&case.v), wide(&case.given));
    let mean: Vec<f64> = (0..d)
        .map(|c| v.iter().skip(c).step_by(d).sum::<f64>() / m as f64)
        .collect();
    for x in 0..d * d {
        let (row, col) = (x / d, x % d);
        let mut wanted = 0.0;
        for i in 0..n {
            for j in 0..m {
                let product: f64 = (0..d)
                    .map(|c| (mean[c] - target[i * d + c]) * (v[j * d + c] - mean[c]))
                    .sum();
                wanted += a[i * d + row] * product * k[j * d + col] / (d * m) as f64;
            }
        }
        let found: f64 = (0..n).map(|i| a[i * d + row] * own.dq[i * d + col]).sum();
        assert!((found - wanted).abs() < 1e-5, "{x}: {found} {wanted}");
    }
}

/// The other route has p where this has p', and one degree more is what that costs.
#[test]
fn the_route_of_kronecker_products_agrees() {
    let case = Case::new(15, [20, 40, 3, 2], 1.5, false);
    let model = case.model();
    let a = wide(&draw(&mut Philox::new(16, 0), 20 * 3, 1.0));
    let of = |dq: &[f64]| -> Vec<f64> {
        let entry = |x: usize| (0..20).map(|i| a[i * 3 + x / 3] * dq[i * 3 + x % 3]).sum();
        (0..9).map(entry).collect()
    };
    let c = taylor(4);
    let p = |s: f64| c.iter().rev().fold(0.0, |sum, c| sum * s + c);
    let truth = of(&model.by_scores(f64::exp, f64::exp).dq);
    let kronecker = model.by_kronecker(&c, &a);
    assert!(apart(&kronecker, &of(&model.by_scores(p, p).dq)) <= 1e-12 * norm(&truth));
    // Its rows sum to nothing: the same number added to every key moves nothing.
    let mut moved = case.model();
    moved.centre.iter_mut().for_each(|c| *c = 0.0);
    moved.k.fill(0.5);
    assert!(norm(&moved.by_kronecker(&c, &a)) < 1e-12);
    let same = apart(&kronecker, &truth) / norm(&truth);
    let (more, _) = case.run(&case.plan(5), false);
    let more = apart(&of(&more.dq), &truth) / norm(&truth);
    assert!(same < 2e-2 && more < 4.0 * same + 1e-5, "{same:e} {more:e}");
}

#[test]
fn bits_do_not_depend_on_the_split_of_queries() {
    let case = Case::new(17, [77, 90, 3, 2], 1.0, false);
    for isa in Isa::all() {
        let (whole, _) = case.run(&case.plan(4).with_isa(isa), false);
        for (start, end) in [(0, 1), (1, 34), (34, 77)] {
            let part = Case {
                shape: Shape::head(end - start, 90, 3, 2),
                q: case.q[start * 3..end * 3].to_vec(),
                k: case.k.clone(),
                v: case.v.clone(),
                given: case.given[start * 2..end * 2].to_vec(),
                ..case
            };
            let (own, _) = part.run(&part.plan(4).with_isa(isa), false);
            assert_eq!(own.dq, whole.dq[start * 3..end * 3], "{isa:?}");
        }
    }
}

#[test]
fn bad_calls_write_nothing() {
    let shape = Shape::head(2, 4, 3, 2);
    assert_eq!(PolynomialGradient::new(shape, 0).unwrap_err(), Error::Parameter);
    assert_eq!(PolynomialGradient::new(shape, 17).unwrap_err(), Error::Parameter);
    let huge = Shape::head(1, 1, 1 << 40, 1);
    assert_eq!(PolynomialGradient::new(huge, 8).unwrap_err(), Error::Overflow);
    let plan = PolynomialGradient::new(shape, 2).unwrap();
    assert_eq!(plan.with_scale(f32::NAN).unwrap_err(), Error::Parameter);
    assert_eq!(plan.with_tolerance(-1.0).unwrap_err(), Error::Parameter);
    assert_eq!(plan.with_minimax(1e9).unwrap_err(), Error::Parameter);
    let mut dq = [7.0; 6];
    let mut bytes = vec![core::mem::MaybeUninit::uninit(); plan.need().bytes()];
    let mut call = |q: &[f32], k: &[f32], rows: usize, short: usize| {
        let view = |x, rows, cols| MatRef::new(x, rows, cols).unwrap().into();
        let to = PolynomialGradients {
            q: Some(MatMut::new(&mut dq, 2, 3).unwrap().into()),
            ..PolynomialGradients::default()
        };
        let (v, given) = ([0.5; 8], [0.5; 6]);
        let len = bytes.len() - short;
        let aim = Aim::Upstream(view(&given, rows, 2));
        let scratch = &mut Scratch::new(&mut bytes[..len]);
        let result = plan.run(view(q, 2, 3), view(k, 4, 3), view(&v, 4, 2), aim, to, scratch);
        result.map(|_| ()).unwrap_err()
    };
    let good = [0.5; 12];
    let with = |x: f32| {
        let mut bad = good;
        bad[4] = x;
        bad
    };
    assert_eq!(call(&good, &good, 3, 0), Error::Shape);
    assert_eq!(call(&good, &good, 2, 1), Error::Short);
    assert_eq!(call(&with(f32::NAN), &good, 2, 0), Error::NonFinite);
    assert_eq!(call(&good, &with(f32::INFINITY), 2, 0), Error::NonFinite);
    assert_eq!(call(&with(1e30), &good, 2, 0), Error::Range);
    assert_eq!(call(&good, &with(1e30), 2, 0), Error::Range);
    assert_eq!(dq, [7.0; 6]);
}

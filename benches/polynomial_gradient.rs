//! The gradient of polynomial attention against that of exact attention: from how many tokens on it pays.
//!
//!     cargo bench --bench polynomial_gradient
//!
//! Queries, keys and values are normal, as many columns each, with scores small enough that no row falls back. Both are whole:
//! forward call and gradient of all three. t is the number of monomials; by flops the crossover is near 1.3 t. Seconds are
//! those of the thread.

mod support;

use subquad::attention::{
    Aim, Exact, Gradient, Gradients, Outputs, Partial, PolynomialGradient, PolynomialGradients, Rules, Saved, Shape,
    Upstream,
};
use subquad::moment::features::count;
use subquad::{Isa, MatMut, MatRef, Scratch};
use support::{memory, race, Aligned};

/// Seconds of exact and polynomial gradients of n queries and keys, and how far apart their dq are, relatively.
fn both(n: usize, dim: usize, degree: usize) -> ([f64; 2], f64) {
    let [q, k, v, d_out] = [1, 2, 3, 4].map(|seed| Aligned::normal(n * dim, seed));
    let [q, k, v, d_out] = [&q, &k, &v, &d_out].map(|x| MatRef::new(x, n, dim).unwrap());
    let scale = 0.2 / dim as f32;
    let (shape, rules, width) = (
        Shape::head(n, n, dim, dim),
        Rules::new().with_scale(scale),
        Partial::width(dim),
    );
    let exact = Exact::new(shape).unwrap().with_rules(rules).unwrap();
    let gradient = Gradient::new(shape).unwrap().with_rules(rules).unwrap();
    let plan = PolynomialGradient::new(shape, degree)
        .unwrap()
        .with_scale(scale)
        .unwrap();
    let (mut exact_bytes, mut bytes) = (memory(exact.need().or(gradient.need())), memory(plan.need()));
    let [mut a, mut b] = [0, 1].map(|_| [0, 1, 2].map(|_| vec![0.0f32; n * dim]));
    let mut partials = vec![0.0f32; n * width];
    let mut one = || {
        let outputs = Outputs {
            partials: Some(MatMut::new(&mut partials, n, width).unwrap().into()),
            ..Outputs::default()
        };
        let scratch = &mut Scratch::new(&mut exact_bytes);
        let done = exact.run(q.into(), k.into(), v.into(), outputs, scratch);
        assert!(done.is_ok());
        let partials = MatRef::new(&partials, n, width).unwrap();
        let upstream = Upstream {
            out: partials.col_range(Partial::HEAD..width).into(),
            d_out: d_out.into(),
            saved: Saved::Partials(partials.into()),
            d_lse: None,
        };
        let [dq, dk, dv] = a.each_mut().map(|x| Some(MatMut::new(x, n, dim).unwrap().into()));
        let to = Gradients {
            q: dq,
            k: dk,
            v: dv,
            ..Gradients::default()
        };
        let done = gradient.run(q.into(), k.into(), v.into(), upstream, to, scratch);
        assert!(done.is_ok());
    };
    let mut other = || {
        let [q_to, k_to, v_to] = b.each_mut().map(|x| Some(MatMut::new(x, n, dim).unwrap().into()));
        let to = PolynomialGradients {
            out: None,
            q: q_to,
            k: k_to,
            v: v_to,
        };
        let aim = Aim::Upstream(d_out.into());
        let report = plan.run(q.into(), k.into(), v.into(), aim, to, &mut Scratch::new(&mut bytes));
        assert_eq!(report.unwrap().exact_rows, 0);
    };
    let seconds = race(0.2, [&mut one, &mut other]);
    let square = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    let [a, b] = [&a[0], &b[0]];
    let off = square(&mut a.iter().zip(b).map(|(a, b)| a - b)) / square(&mut a.iter().copied());
    assert!(off < 0.5, "{off}");
    (seconds, off)
}

fn main() {
    println!("gradients, one core, {}\n", Isa::best().name());
    println!(" d  g     t        n    n/t    exact ms  polynomial ms    ratio   |dq~ - dq| / |dq|");
    for (dim, degree) in [(4, 4), (8, 2), (8, 4), (16, 2)] {
        let t = count(dim, degree).unwrap();
        for part in [0.65, 1.3, 2.6, 5.2, 10.4] {
            let n = ((t as f64 * part) as usize).next_multiple_of(32);
            let ([exact, own], off) = both(n, dim, degree);
            println!(
                "{dim:2} {degree:2} {t:5} {n:8} {:6.2} {:11.3} {:14.3} {:8.2} {off:19.1e}",
                n as f64 / t as f64,
                exact * 1e3,
                own * 1e3,
                exact / own
            );
        }
    }
}

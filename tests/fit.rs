//! Parameters of attention: the loss and its gradient against f64 finite differences, on every back end.

mod reference;

use reference::{bits, noise, odd_scratch};
use subquad::attention::{
    Exact, Fit, FitGradients, FitInputs, Gradient, Gradients, Outputs, Rules, Saved, Shape, Upstream,
};
use subquad::{Error, Isa, MatMut, MatRef};

/// Queries, keys, dim, value_dim, rows of X and of Y.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    n: usize,
    m: usize,
    d: usize,
    e: usize,
    a: usize,
    b: usize,
}

/// A1, A2, A3, X, Y, E.
struct Problem {
    s: Sizes,
    data: [Vec<f32>; 6],
    causal: bool,
}

impl Problem {
    fn new(s: Sizes, causal: bool) -> Problem {
        let Sizes { n, m, d, e, a, b } = s;
        let sizes = [n * a, m * d, m * b, a * d, b * e, n * e];
        Problem {
            s,
            data: std::array::from_fn(|x| noise(40 + x as u64, sizes[x])),
            causal,
        }
    }

    fn inputs(&self) -> FitInputs<'_> {
        let Sizes { n, m, d, e, a, b } = self.s;
        let view = |x: usize, rows, cols| MatRef::new(&self.data[x], rows, cols).unwrap();
        FitInputs {
            queries: view(0, n, a),
            keys: view(1, m, d),
            values: view(2, m, b),
            x: view(3, a, d),
            y: view(4, b, e),
            target: view(5, n, e),
        }
    }

    fn rules(&self) -> Rules<'static> {
        let rules = Rules::new().with_scale(1.0 / self.s.d as f32);
        if self.causal {
            rules.with_causal()
        } else {
            rules
        }
    }

    /// Loss and gradients.
    fn fit(&self, isa: Isa) -> (f32, Vec<f32>, Vec<f32>) {
        let plan = Fit::for_inputs(&self.inputs()).unwrap().with_isa(isa);
        let plan = if self.causal {
            plan.with_rules(self.rules()).unwrap()
        } else {
            plan
        };
        let Sizes { d, e, a, b, .. } = self.s;
        let (mut x, mut y) = (vec![0.5; a * d], vec![0.5; b * e]);
        let mut loss = Err(Error::Empty);
        odd_scratch(plan.need().unwrap().bytes(), |scratch| {
            let to = FitGradients {
                x: Some(MatMut::new(&mut x, a, d).unwrap()),
                y: Some(MatMut::new(&mut y, b, e).unwrap()),
            };
            loss = plan.run(&self.inputs(), to, scratch);
        });
        (loss.unwrap().0, x, y)
    }

    /// The formula in f64, with parameter `i` of X or Y moved.
    fn loss(&self, moved: usize, i: usize, by: f64) -> f64 {
        let Sizes { n, m, d, e, a, b } = self.s;
        let mut data = self
            .data
            .clone()
            .map(|x| x.into_iter().map(f64::from).collect::<Vec<f64>>());
        if let Some(x) = data[moved].get_mut(i) {
            *x += by;
        }
        let [a1, a2, a3, x, y, target] = data;
        let product = |p: &[f64], q: &[f64], rows: usize, inner: usize, cols: usize| -> Vec<f64> {
            let entry = |r: usize, c: usize| (0..inner).map(|k| p[r * inner + k] * q[k * cols + c]).sum();
            (0..rows * cols).map(|i| entry(i / cols, i % cols)).collect()
        };
        let (q, v) = (product(&a1, &x, n, a, d), product(&a3, &y, m, b, e));
        let mut loss = 0.0;
        for i in 0..n {
            let seen = if self.causal { (i + 1).min(m) } else { m };
            let score = |j: usize| (0..d).map(|c| q[i * d + c] * a2[j * d + c]).sum::<f64>() / d as f64;
            let weights: Vec<f64> = (0..seen).map(|j| score(j).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for c in 0..e {
                let out: f64 = weights.iter().enumerate().map(|(j, w)| w / sum * v[j * e + c]).sum();
                loss += 0.5 * (out - target[i * e + c]).powi(2);
            }
        }
        loss
    }
}

#[test]
fn gradients_are_those_of_the_loss() {
    let small = Sizes {
        n: 7,
        m: 9,
        d: 4,
        e: 3,
        a: 5,
        b: 6,
    };
    // More rows of X than lanes, more rows of the inputs than a tile.
    let large = Sizes {
        n: 110,
        m: 100,
        d: 5,
        e: 2,
        a: 40,
        b: 35,
    };
    let square = Sizes {
        n: 20,
        m: 20,
        d: 8,
        e: 8,
        a: 8,
        b: 8,
    };
    for (s, causal) in [(small, false), (small, true), (square, false), (large, false)] {
        let p = Problem::new(s, causal);
        let mut first: [Option<Vec<u32>>; 2] = [None, None];
        for isa in Isa::all() {
            let (loss, x, y) = p.fit(isa);
            let truth = p.loss(3, usize::MAX, 0.0);
            assert!((f64::from(loss) - truth).abs() < 1e-5 * truth, "{s:?}: {loss} {truth}");
            let got = [&[loss][..], &x, &y].concat();
            let first = &mut first[usize::from(isa.fused())];
            match first {
                Some(first) => assert_eq!(*first, bits(&got), "{}", isa.name()),
                None => {
                    for (which, gradient) in [(3, &x), (4, &y)] {
                        let size = gradient.iter().fold(0.0, |a: f64, &g| a.max(f64::from(g).abs()));
                        for (i, &g) in gradient.iter().enumerate().step_by(1 + gradient.len() / 30) {
                            let h = 1e-5;
                            let slope = (p.loss(which, i, h) - p.loss(which, i, -h)) / (2.0 * h);
                            assert!(
                                (f64::from(g) - slope).abs() < 2e-5 * size,
                                "{s:?} {which}[{i}]: {g} {slope}"
                            );
                        }
                    }
                    *first = Some(bits(&got));
                }
            }
        }
    }
}

#[test]
fn a_step_against_the_gradient_lowers_the_loss() {
    let mut p = Problem::new(
        Sizes {
            n: 16,
            m: 12,
            d: 4,
            e: 4,
            a: 4,
            b: 4,
        },
        false,
    );
    let (mut last, first) = (f32::INFINITY, p.fit(Isa::best()).0);
    for _ in 0..50 {
        let (loss, x, y) = p.fit(Isa::best());
        assert!(loss < last, "{loss} {last}");
        last = loss;
        for (to, by) in [(3, x), (4, y)] {
            p.data[to].iter_mut().zip(by).for_each(|(p, g)| *p -= 0.2 * g);
        }
    }
    assert!(last < 0.9 * first, "{first} {last}");
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let p = Problem::new(
        Sizes {
            n: 3,
            m: 4,
            d: 2,
            e: 2,
            a: 2,
            b: 3,
        },
        false,
    );
    let plan = Fit::for_inputs(&p.inputs()).unwrap();
    let mut wrong = p.inputs();
    wrong.target = p.inputs().keys;
    assert_eq!(Fit::for_inputs(&wrong).err(), Some(Error::Shape));
    odd_scratch(plan.need().unwrap().bytes(), |scratch| {
        let mut x = [7.0; 6];
        let to = |x| FitGradients {
            x: Some(MatMut::new(x, 3, 2).unwrap()),
            y: None,
        };
        assert_eq!(plan.run(&p.inputs(), to(&mut x), scratch).err(), Some(Error::Shape));
        assert_eq!(
            plan.run(&wrong, FitGradients::default(), scratch).err(),
            Some(Error::Shape)
        );
        assert_eq!(x, [7.0; 6]);
        assert!(plan.run(&p.inputs(), FitGradients::default(), scratch).is_ok());
    });
    odd_scratch(100, |scratch| {
        let short = plan.run(&p.inputs(), FitGradients::default(), scratch);
        assert_eq!(short.err(), Some(Error::Short));
    });
}

/// The product of the first input with dQ is a chain over the queries: off by no more than that many roundings, and by more
/// than as many as X has rows.
#[test]
fn products_are_chains_over_what_they_sum() {
    let n = 3000;
    fn view(x: &[f32], rows: usize, cols: usize) -> MatRef<'_, f32> {
        MatRef::new(x, rows, cols).unwrap()
    }
    // Equal terms are rounded the same way again and again.
    let queries = vec![1.3; n];
    let (pair, target) = ([1.0, -1.0], vec![-5.0; n]);
    let (x, y) = ([0.3], [0.7]);
    let inputs = FitInputs {
        queries: view(&queries, n, 1),
        keys: view(&pair, 2, 1),
        values: view(&pair, 2, 1),
        x: view(&x, 1, 1),
        y: view(&y, 1, 1),
        target: view(&target, n, 1),
    };
    let plan = Fit::for_inputs(&inputs).unwrap();
    let mut dx = [0.0];
    odd_scratch(plan.need().unwrap().bytes(), |scratch| {
        let to = FitGradients {
            x: Some(MatMut::new(&mut dx, 1, 1).unwrap()),
            y: None,
        };
        let _ = plan.run(&inputs, to, scratch).unwrap();
    });
    // The two plans by hand: dQ has the same bits.
    let (q, v): (Vec<f32>, _) = (queries.iter().map(|a| a * x[0]).collect(), pair.map(|a| a * y[0]));
    let (mut out, mut lse, mut dq) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    let rules = Rules::new().with_scale(1.0);
    let shape = Shape::head(n, 2, 1, 1);
    let forward = Exact::new(shape).unwrap().with_rules(rules).unwrap();
    let backward = Gradient::new(shape).unwrap().with_rules(rules).unwrap();
    odd_scratch(forward.need().or(backward.need()).bytes(), |scratch| {
        let (q, k, v) = (view(&q, n, 1), view(&pair, 2, 1), view(&v, 2, 1));
        let outputs = Outputs {
            out: Some(MatMut::new(&mut out, n, 1).unwrap().into()),
            lse: Some(MatMut::new(&mut lse, n, 1).unwrap().into()),
            ..Outputs::default()
        };
        let _ = forward.run(q.into(), k.into(), v.into(), outputs, scratch).unwrap();
        let d_out: Vec<f32> = out.iter().zip(&target).map(|(out, e)| out - e).collect();
        let upstream = Upstream {
            out: view(&out, n, 1).into(),
            d_out: view(&d_out, n, 1).into(),
            saved: Saved::Lse(view(&lse, n, 1).into()),
            d_lse: None,
        };
        let to = Gradients {
            q: Some(MatMut::new(&mut dq, n, 1).unwrap().into()),
            ..Gradients::default()
        };
        let _ = backward
            .run(q.into(), k.into(), v.into(), upstream, to, scratch)
            .unwrap();
    });
    let terms = || queries.iter().zip(&dq).map(|(&a, &d)| f64::from(a) * f64::from(d));
    let (sum, size) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
    let error = (f64::from(dx[0]) - sum).abs() / (reference::UNIT * size);
    println!("{error:.0} roundings, of {n}");
    assert!(error <= n as f64 && error > 10.0, "{error} roundings");
}

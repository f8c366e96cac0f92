//! `Head` is `Exact` without the rest: the same bits, rows and counts on every back end, errors that write nothing.

#[path = "bits/problem.rs"]
#[allow(dead_code)] // its problems have rules that a head does not know
mod problem;

use problem::Random;
use std::mem::MaybeUninit;
use subquad::attention::{Exact, Head, Offset, Rules};
use subquad::{Error, Isa, MatMut, MatRef, Report, Scratch};

/// What an output holds before a call.
const UNWRITTEN: f32 = -12345.0;

/// A matrix with gaps between its rows, or with one row for all.
struct Matrix {
    data: Vec<f32>,
    rows: usize,
    cols: usize,
    stride: usize,
}

impl Matrix {
    fn random(r: &mut Random, rows: usize, cols: usize, may_repeat: bool, number: impl Fn(&mut Random) -> f32) -> Self {
        let stride = match r.below(8) {
            0 if may_repeat => 0,
            1 | 2 => cols + r.below(9),
            _ => cols,
        };
        let len = rows.saturating_sub(1) * stride + cols;
        Matrix {
            data: (0..len).map(|_| number(r)).collect(),
            rows,
            cols,
            stride,
        }
    }

    fn view(&self) -> MatRef<'_, f32> {
        MatRef::with_stride(&self.data, self.rows, self.cols, self.stride).unwrap()
    }
}

struct Problem {
    q: Matrix,
    k: Matrix,
    v: Matrix,
    scale: Option<f32>,
    causal: Option<i64>,
    out_stride: usize,
}

impl Problem {
    /// Sizes at the borders of blocks of `lanes` queries and of runs of keys, scores of any spread, and now and then a
    /// number that is none.
    fn random(r: &mut Random, lanes: usize) -> Problem {
        let near = |r: &mut Random, n: usize| (n + r.below(3)).saturating_sub(1);
        let queries = match r.below(4) {
            0 => r.below(3),
            1 => near(r, lanes),
            2 => near(r, 2 * lanes),
            _ => r.size(50),
        };
        let keys = match r.below(8) {
            0 => r.below(3),
            1 => near(r, 192),
            2 => 190 + r.below(230),
            _ => r.size(70),
        };
        let (dim, value_dim) = (r.size(40), r.size(40));
        let loud = [0.1, 1.0, 3.0, 30.0, 400.0, 1e6, 1e37][r.below(7)];
        let rare = [0, 0, 0, 40, 4000][r.below(5)];
        let number = move |r: &mut Random, size: f32| {
            if rare > 0 && r.once_in(rare) {
                [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -0.0][r.below(5)]
            } else {
                r.unit() * size
            }
        };
        let huge = if r.once_in(8) { f32::MAX } else { 1.0 };
        Problem {
            q: Matrix::random(r, queries, dim, true, |r| number(r, loud)),
            k: Matrix::random(r, keys, dim, true, |r| number(r, 1.0)),
            v: Matrix::random(r, keys, value_dim, true, |r| number(r, huge)),
            scale: r.once_in(2).then(|| r.unit().abs()),
            causal: r.once_in(2).then(|| match r.below(8) {
                0 => i64::MIN,
                1 => i64::MAX,
                _ => r.below(keys + 20) as i64 - 10,
            }),
            out_stride: value_dim + [0, 0, 7][r.below(3)],
        }
    }

    /// Runs with an output and scratch of its own; the bits of the output, gaps included.
    fn run(
        &self,
        need: usize,
        f: impl FnOnce(MatMut<'_, f32>, &mut Scratch<'_>) -> Result<Report, Error>,
    ) -> (Vec<u32>, Result<[usize; 3], Error>) {
        let (rows, cols) = (self.q.rows, self.v.cols);
        let mut out = vec![UNWRITTEN; rows * self.out_stride];
        // One past a boundary, the worst address, and full of what must not be read.
        let mut bytes = vec![MaybeUninit::new(0xff); need + 128];
        let start = 1 + (bytes.as_ptr() as usize).wrapping_neg() % 64;
        let view = MatMut::with_stride(&mut out, rows, cols, self.out_stride).unwrap();
        let report = f(view, &mut Scratch::new(&mut bytes[start..start + need]));
        let counts = report.map(|r| [r.masked_rows, r.non_finite_rows, r.repeated_blocks]);
        (out.iter().map(|x| x.to_bits()).collect(), counts)
    }

    fn head(&self, isa: Isa) -> Head<'_> {
        let mut head = Head::new(self.q.view(), self.k.view(), self.v.view())
            .unwrap()
            .with_isa(isa);
        if let Some(scale) = self.scale {
            head = head.with_scale(scale).unwrap();
        }
        if let Some(offset) = self.causal {
            head = head.with_causal(offset);
        }
        head
    }

    fn exact(&self, isa: Isa) -> (Vec<u32>, Result<[usize; 3], Error>) {
        let (q, k, v) = (self.q.view(), self.k.view(), self.v.view());
        let mut rules = Rules::new();
        if let Some(scale) = self.scale {
            rules = rules.with_scale(scale);
        }
        if let Some(offset) = self.causal {
            rules = rules.with_causal().with_offset(Offset::Keys(offset));
        }
        let plan = Exact::for_views(q, k, v).unwrap().with_rules(rules).unwrap();
        let plan = plan.with_isa(isa);
        self.run(plan.need().bytes(), |out, scratch| plan.forward(q, k, v, out, scratch))
    }
}

#[test]
fn a_head_has_the_bits_of_exact() {
    let mut r = Random(11);
    let (mut numbers, mut counts) = (0, [0; 3]);
    let rounds = if std::env::var_os("SUBQUAD_LONG").is_some() {
        5000
    } else {
        500
    };
    for isa in Isa::all() {
        for _ in 0..rounds {
            let p = Problem::random(&mut r, isa.lanes());
            let head = p.head(isa);
            let need = head.need().bytes();
            let want = p.exact(isa);
            let got = p.run(need, |out, scratch| head.forward(out, scratch));
            let sizes = (p.q.rows, p.k.rows, p.k.cols, p.v.cols);
            assert_eq!(
                got,
                want,
                "{} {sizes:?} scale {:?} causal {:?}",
                isa.name(),
                p.scale,
                p.causal
            );
            numbers += got.0.len();
            counts.iter_mut().zip(got.1.unwrap()).for_each(|(sum, n)| *sum += n);
            // Not one byte less, and then nothing is written.
            if need > 0 {
                let (out, refused) = p.run(need - 1, |out, scratch| head.forward(out, scratch));
                assert_eq!(refused, Err(Error::Short));
                assert!(out.iter().all(|&x| x == UNWRITTEN.to_bits()));
            }
            assert!(need <= Head::need_of(p.k.rows, p.k.cols, p.v.cols).bytes());
        }
    }
    let [masked, non_finite, repeated] = counts;
    println!("{numbers} numbers, {masked} masked rows, {non_finite} not finite, {repeated} blocks run twice");
    assert!(counts.iter().all(|&n| n > 1000), "{counts:?}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let x = [0.5f32; 64];
    let of = |rows, cols| MatRef::new(&x, rows, cols).unwrap();
    let shape = |q, k, v| Head::new(q, k, v).err();
    assert_eq!(shape(of(2, 3), of(4, 3), of(4, 5)), None);
    assert_eq!(shape(of(2, 3), of(4, 2), of(4, 5)), Some(Error::Shape));
    assert_eq!(shape(of(2, 3), of(4, 3), of(3, 5)), Some(Error::Shape));
    let head = Head::new(of(2, 3), of(4, 3), of(4, 5)).unwrap();
    for scale in [-1.0, f32::NAN, f32::INFINITY, f32::MAX] {
        assert_eq!(head.with_scale(scale).err(), Some(Error::Parameter));
    }
    for (rows, cols, refused) in [(2, 5, None), (2, 4, Some(Error::Shape)), (3, 5, Some(Error::Shape))] {
        let mut out = [UNWRITTEN; 16];
        let mut work = vec![MaybeUninit::uninit(); head.need().bytes()];
        let result = head.forward(MatMut::new(&mut out, rows, cols).unwrap(), &mut Scratch::new(&mut work));
        assert_eq!(result.err(), refused);
        assert_eq!(out.contains(&UNWRITTEN) && out[0] == UNWRITTEN, refused.is_some());
    }
    assert_eq!(Head::need_of(usize::MAX, usize::MAX, 1).bytes(), usize::MAX);
    assert_eq!(Head::need_of(1, usize::MAX / 8, 1).bytes(), usize::MAX);
}

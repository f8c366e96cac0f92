//! No public entry point allocates: every one of them runs here under an allocator that counts.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::mem::MaybeUninit;
use subquad::attention::{
    Cache, CacheShape, Decode, Exact, Fit, FitGradients, FitInputs, Gradient, Gradients, Head, Offset,
};
use subquad::attention::{Outputs, Partial, Rotary, Rules, Saved, Segments, Shape, Stage, Store, Upstream};
use subquad::{kernels, Error, Isa, MatMut, MatRef, Scratch, TensorMut, TensorRef};

thread_local! {
    /// Requests of this thread: the test harness has threads of its own.
    static REQUESTS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        REQUESTS.set(REQUESTS.get() + 1);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `f`, which must not allocate.
fn without_memory<R>(what: &str, f: impl FnOnce() -> Result<R, Error>) -> R {
    let before = REQUESTS.get();
    let result = f();
    let requests = REQUESTS.get() - before;
    assert_eq!(requests, 0, "{what} allocates");
    result.unwrap_or_else(|e| panic!("{what}: {e:?}"))
}

/// Two batch entries, grouped heads, more queries than a block of the small back ends, more keys than a run.
const SHAPE: Shape = Shape {
    batch: 2,
    query_heads: 4,
    kv_heads: 2,
    queries: 11,
    keys: 300,
    dim: 5,
    value_dim: 3,
};

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.37).sin()).collect()
}

/// Room for every output at once.
struct Results {
    out: Vec<f32>,
    lse: Vec<f32>,
    partials: Vec<f32>,
    scores: Vec<f32>,
}

impl Results {
    fn new() -> Self {
        let rows = SHAPE.batch * SHAPE.query_heads * SHAPE.queries;
        let room = |cols: usize| vec![0.0; rows * cols];
        Results {
            out: room(SHAPE.value_dim),
            lse: room(1),
            partials: room(Partial::width(SHAPE.value_dim)),
            scores: room(SHAPE.keys),
        }
    }

    fn outputs(&mut self, stage: Stage) -> Result<Outputs<'_>, Error> {
        let shape = |cols: usize| [SHAPE.batch, SHAPE.query_heads, SHAPE.queries, cols];
        Ok(Outputs {
            out: Some(TensorMut::new(&mut self.out, shape(SHAPE.value_dim))?),
            lse: Some(TensorMut::new(&mut self.lse, shape(1))?),
            partials: Some(TensorMut::new(
                &mut self.partials,
                shape(Partial::width(SHAPE.value_dim)),
            )?),
            scores: Some((stage, TensorMut::new(&mut self.scores, shape(SHAPE.keys))?)),
        })
    }
}

/// Arrays that rules refer to.
struct Lists {
    logits: Vec<f32>,
    mask: Vec<u8>,
    bias: Vec<f32>,
    lengths: Vec<usize>,
    queries: Vec<usize>,
    keys: Vec<usize>,
}

impl Lists {
    fn new() -> Self {
        Lists {
            logits: numbers(SHAPE.query_heads),
            mask: (0..SHAPE.queries * SHAPE.keys).map(|i| u8::from(i % 3 > 0)).collect(),
            bias: numbers(SHAPE.queries * SHAPE.keys),
            lengths: vec![250, 17],
            queries: vec![0, 4, SHAPE.queries],
            keys: vec![0, 100, SHAPE.keys],
        }
    }

    /// Every rule by itself, and most of them together.
    fn rules(&self) -> Result<[Rules<'_>; 12], Error> {
        let all = [1, 1, SHAPE.queries, SHAPE.keys];
        let (mask, bias) = (TensorRef::new(&self.mask, all)?, TensorRef::new(&self.bias, all)?);
        let segments = Segments {
            queries: &self.queries,
            keys: &self.keys,
        };
        let new = Rules::new();
        let together = new
            .with_causal()
            .with_offset(Offset::ToEnd)
            .with_cap(2.0)
            .with_sink_logits(&self.logits)
            .with_bias(bias);
        Ok([
            new,
            new.with_scale(0.3),
            new.with_cap(2.0),
            new.with_causal().with_offset(Offset::Keys(7)),
            new.with_window(Some(20), Some(3)).with_sinks(2),
            new.with_sink_logits(&self.logits),
            new.with_mask(mask),
            new.with_bias(bias),
            new.with_slopes(&self.logits),
            new.with_key_lengths(&self.lengths),
            new.with_segments(segments),
            together
                .with_mask(mask)
                .with_slopes(&self.logits)
                .with_key_lengths(&self.lengths),
        ])
    }
}

#[test]
fn the_counter_counts() {
    let before = REQUESTS.get();
    std::hint::black_box(vec![0u8; 100]);
    assert_eq!(REQUESTS.get() - before, 1);
}

#[test]
fn kernels_allocate_nothing() {
    let (x, mut y) = (numbers(1000), vec![0.0; 1000]);
    let wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    without_memory("the choice of a back end", || Ok((Isa::best(), Isa::all().count())));
    for isa in Isa::all() {
        without_memory(isa.name(), || {
            kernels::exp(isa, &x, &mut y);
            kernels::tanh(isa, &x, &mut y);
            Ok(kernels::dot_f64(isa, &wide, &wide) + f64::from(kernels::dot(isa, &x, &x)))
        });
    }
}

#[test]
fn attention_allocates_nothing() {
    let s = SHAPE;
    let (q, k, v) = (
        numbers(s.batch * s.query_heads * s.queries * s.dim),
        numbers(s.batch * s.kv_heads * s.keys * s.dim),
        numbers(s.batch * s.kv_heads * s.keys * s.value_dim),
    );
    let (lists, mut results) = (Lists::new(), Results::new());
    let most = Exact::new(s)
        .unwrap()
        .need_with_scores()
        .or(Decode::new(s).unwrap().need());
    let mut work = vec![MaybeUninit::uninit(); most.bytes()];
    for isa in Isa::all() {
        for stage in [Stage::Raw, Stage::Capped, Stage::Biased, Stage::Softmax] {
            for number in 0..12 {
                let what = format!("{} {stage:?} rule {number}", isa.name());
                let rows = without_memory(&what, || {
                    let rules = lists.rules()?[number];
                    let q = TensorRef::new(&q, [s.batch, s.query_heads, s.queries, s.dim])?;
                    let k = TensorRef::new(&k, [s.batch, s.kv_heads, s.keys, s.dim])?;
                    let v = TensorRef::new(&v, [s.batch, s.kv_heads, s.keys, s.value_dim])?;
                    let exact = Exact::for_views(q, k, v)?.with_rules(rules)?.with_isa(isa);
                    let decode = Decode::for_views(q, k, v)?.with_rules(rules)?.with_isa(isa);
                    let enough = exact.need_with_scores().or(exact.need()).or(decode.need());
                    assert!(enough.bytes() <= most.bytes());
                    let mut scratch = Scratch::new(&mut work);
                    let a = exact.run(q, k, v, results.outputs(stage)?, &mut scratch)?;
                    let b = decode.run(q, k, v, results.outputs(stage)?, &mut scratch)?;
                    Ok(a.non_finite_rows + b.non_finite_rows)
                });
                assert_eq!(rows, 0, "{what}");
            }
        }
    }
}

#[test]
fn a_cache_allocates_nothing() {
    let shape = CacheShape {
        heads: 2,
        dim: 5,
        value_dim: 3,
        capacity: 40,
        kept: 2,
    };
    let (rows, tokens) = (2 * 40, 100);
    let (mut k, mut scales, mut v) = (vec![0i8; rows * 5], vec![0.0; rows], vec![0u16; rows * 3]);
    let (new_k, new_v, q) = (numbers(2 * tokens * 5), numbers(2 * tokens * 3), numbers(4 * 5));
    let (mut out, mut saved, mut work) = (vec![0.0; 4 * 3], vec![0; 1 << 14], vec![MaybeUninit::uninit(); 1 << 16]);
    let (rotary, mut room) = (Rotary::new(5, 4, 10_000.0).unwrap(), [0.0; 9]);
    let bound = without_memory("a cache", || {
        let cache = Cache::new(shape, Store::I8(&mut k, &mut scales), Store::F16(&mut v))?.with_sliding()?;
        let mut cache = cache.with_rotary(rotary, &mut room)?;
        cache.append(
            TensorRef::new(&new_k, [1, 2, tokens, 5])?,
            TensorRef::new(&new_v, [1, 2, tokens, 3])?,
        )?;
        cache.evict(3)?;
        let n = cache.save(&mut saved)?;
        cache.load(saved.get(..n).ok_or(Error::Short)?)?;
        let plan = cache.decode(4, 1)?.with_bound();
        let outputs = Outputs {
            out: Some(TensorMut::new(&mut out, [1, 4, 1, 3])?),
            ..Outputs::default()
        };
        let q = TensorRef::new(&q, [1, 4, 1, 5])?;
        let few = cache.attend(&plan, q, outputs, &mut Scratch::new(&mut work))?;
        let plan = cache.exact(4, 1)?.with_bound();
        let outputs = Outputs {
            out: Some(TensorMut::new(&mut out, [1, 4, 1, 3])?),
            ..Outputs::default()
        };
        let many = cache.forward(&plan, q, outputs, &mut Scratch::new(&mut work))?;
        Ok(few.bound.value + many.bound.value)
    });
    assert!(bound.is_finite());
}

#[test]
fn gradients_allocate_nothing() {
    let (n, m, d, e) = (40, 50, 4, 3);
    let (q, k, v, d_out) = (numbers(n * d), numbers(m * d), numbers(m * e), numbers(n * e));
    let (a, x, y) = (numbers(n * 5), numbers(5 * d), numbers(d * e));
    let inputs = || -> Result<FitInputs<'_>, Error> {
        Ok(FitInputs {
            queries: MatRef::new(&a, n, 5)?,
            keys: MatRef::new(&k, m, d)?,
            values: MatRef::new(&k, m, d)?,
            x: MatRef::new(&x, 5, d)?,
            y: MatRef::new(&y, d, e)?,
            target: MatRef::new(&d_out, n, e)?,
        })
    };
    let fit = Fit::for_inputs(&inputs().unwrap()).unwrap();
    let capped = Rules::new().with_causal().with_cap(3.0);
    let plan = Gradient::new(Shape::head(n, m, d, e)).unwrap();
    let plan = plan.with_rules(capped).unwrap();
    let need = plan.need().or(fit.need().unwrap());
    let mut work = vec![MaybeUninit::uninit(); need.bytes()];
    let (mut dq, mut dk, mut dv, mut dx) = (vec![0.0; n * d], vec![0.0; m * d], vec![0.0; m * e], vec![0.0; 5 * d]);
    let lse = numbers(n);
    for isa in Isa::all() {
        without_memory(isa.name(), || {
            let out = MatRef::new(&d_out, n, e)?.into();
            let upstream = Upstream {
                out,
                d_out: out,
                saved: Saved::Lse(MatRef::new(&lse, n, 1)?.into()),
                d_lse: None,
            };
            let to = Gradients {
                q: Some(MatMut::new(&mut dq, n, d)?.into()),
                k: Some(MatMut::new(&mut dk, m, d)?.into()),
                v: Some(MatMut::new(&mut dv, m, e)?.into()),
                ..Gradients::default()
            };
            let (q, k, v) = (MatRef::new(&q, n, d)?, MatRef::new(&k, m, d)?, MatRef::new(&v, m, e)?);
            let mut scratch = Scratch::new(&mut work);
            let (q, k, v) = (q.into(), k.into(), v.into());
            let report = plan.with_isa(isa).run(q, k, v, upstream, to, &mut scratch)?;
            let to = FitGradients {
                x: Some(MatMut::new(&mut dx, 5, d)?),
                y: None,
            };
            let (loss, _) = fit.with_isa(isa).run(&inputs()?, to, &mut scratch)?;
            Ok(report.masked_rows as f32 + loss)
        });
    }
}

#[test]
fn one_head_and_merging_allocate_nothing() {
    let (q, k, v) = (numbers(33 * 4), numbers(500 * 4), numbers(500 * 2));
    let plan = Exact::new(Shape::head(33, 500, 4, 2)).unwrap();
    let (mut out, mut work) = (vec![0.0; 33 * 2], vec![MaybeUninit::uninit(); plan.need().bytes()]);
    let report = without_memory("forward", || {
        let (q, k, v) = (
            MatRef::new(&q, 33, 4)?,
            MatRef::new(&k, 500, 4)?,
            MatRef::new(&v, 500, 2)?,
        );
        plan.forward(q, k, v, MatMut::new(&mut out, 33, 2)?, &mut Scratch::new(&mut work))
    });
    assert_eq!(report.non_finite_rows, 0);
    let report = without_memory("a head", || {
        let (q, k, v) = (
            MatRef::new(&q, 33, 4)?,
            MatRef::new(&k, 500, 4)?,
            MatRef::new(&v, 500, 2)?,
        );
        let head = Head::new(q, k, v)?.with_causal(470);
        head.forward(MatMut::new(&mut out, 33, 2)?, &mut Scratch::new(&mut work))
    });
    assert_eq!(report.non_finite_rows, 0);
    let (mut a, b) = ([3.0, 1.5, 0.0, 0.0, 1.0, 2.0], [5.0, 1.0, 0.0, 0.0, -1.0, 4.0]);
    let lse = without_memory("merge", || {
        let mut a = Partial::from_row(&mut a)?;
        a.merge(&b, 3.0)?;
        Ok(a.lse() + a.lse_bound().value + a.out_bound().value + a.out().iter().sum::<f32>())
    });
    assert!(lse.is_finite());
}

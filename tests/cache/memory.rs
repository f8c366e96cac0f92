//! Memory for caches, in every format, and a row of attention from one.

use std::mem::MaybeUninit;
use subquad::attention::{Cache, CacheShape, Outputs, Partial, Store};
use subquad::{Error, Format, Isa, MatMut, Need, Report, Scratch, TensorRef};

/// Room for rows in one format.
pub struct Room {
    format: Format,
    f32: Vec<f32>,
    half: Vec<u16>,
    i8: Vec<i8>,
}

impl Room {
    pub fn new(format: Format, rows: usize, cols: usize) -> Room {
        Room {
            format,
            f32: vec![0.25; rows * cols.max(1)],
            half: vec![1; rows * cols],
            i8: vec![1; rows * cols],
        }
    }

    pub fn store(&mut self) -> Store<'_> {
        match self.format {
            Format::F32 => Store::F32(&mut self.f32),
            Format::F16 => Store::F16(&mut self.half),
            Format::Bf16 => Store::Bf16(&mut self.half),
            Format::I8 => Store::I8(&mut self.i8, &mut self.f32),
        }
    }
}

/// Memory of a cache that begins as one piece.
pub struct Rooms(pub Room, pub Room);

impl Rooms {
    pub fn new([k, v]: [Format; 2], s: CacheShape) -> Rooms {
        Rooms::of_rows([k, v], s, s.heads * s.capacity)
    }

    pub fn of_rows([k, v]: [Format; 2], s: CacheShape, rows: usize) -> Rooms {
        Rooms(Room::new(k, rows, s.dim), Room::new(v, rows, s.value_dim))
    }

    pub fn cache(&mut self, s: CacheShape) -> Cache<'_> {
        Cache::new(s, self.0.store(), self.1.store()).unwrap()
    }
}

/// Every pair of formats.
pub fn pairs() -> impl Iterator<Item = [Format; 2]> {
    Format::ALL.into_iter().flat_map(|k| Format::ALL.map(|v| [k, v]))
}

/// Outputs and report of one call.
pub struct Answer {
    pub out: Vec<f32>,
    pub partials: Vec<f32>,
    pub report: Report,
}

impl Answer {
    pub fn bits(&self) -> Vec<u32> {
        self.out.iter().chain(&self.partials).map(|x| x.to_bits()).collect()
    }
}

/// Runs a plan in scratch of exactly its need.
pub fn run(
    need: Need,
    [rows, value_dim]: [usize; 2],
    f: impl FnOnce(Outputs<'_>, &mut Scratch<'_>) -> Result<Report, Error>,
) -> Answer {
    let width = Partial::width(value_dim);
    let (mut out, mut partials) = (vec![0.0; rows * value_dim], vec![0.0; rows * width]);
    let mut work = vec![MaybeUninit::uninit(); need.bytes()];
    let outputs = Outputs {
        out: Some(MatMut::new(&mut out, rows, value_dim).unwrap().into()),
        partials: Some(MatMut::new(&mut partials, rows, width).unwrap().into()),
        ..Outputs::default()
    };
    let report = f(outputs, &mut Scratch::new(&mut work)).unwrap();
    Answer { out, partials, report }
}

/// Queries `(queries, dim)` of one head against a cache of one head.
pub fn attend(cache: &Cache<'_>, isa: Isa, q: &[f32]) -> Answer {
    let s = cache.shape();
    let queries = q.len() / s.dim;
    let plan = cache.decode(1, queries).unwrap().with_isa(isa).with_bound();
    let q = TensorRef::new(q, [1, 1, queries, s.dim]).unwrap();
    run(plan.need(), [queries, s.value_dim], |outputs, scratch| {
        cache.attend(&plan, q, outputs, scratch)
    })
}

/// As `attend`, by the plan for many queries.
pub fn forward(cache: &Cache<'_>, isa: Isa, q: &[f32]) -> Answer {
    let s = cache.shape();
    let queries = q.len() / s.dim;
    let plan = cache.exact(1, queries).unwrap().with_isa(isa).with_bound();
    let q = TensorRef::new(q, [1, 1, queries, s.dim]).unwrap();
    run(plan.need_rows(), [queries, s.value_dim], |outputs, scratch| {
        cache.forward(&plan, q, outputs, scratch)
    })
}

/// Appends one row to each head.
pub fn append(cache: &mut Cache<'_>, k: &[f32], v: &[f32]) -> Result<(), Error> {
    let s = cache.shape();
    let n = k.len() / (s.heads * s.dim);
    let k = TensorRef::new(k, [1, s.heads, n, s.dim]).unwrap();
    let v = TensorRef::new(v, [1, s.heads, n, s.value_dim]).unwrap();
    cache.append(k, v).map(|_| ())
}

//! Decoding over keys and values in every format: `cargo bench --bench decode [-- --csv]`.
//!
//! Every line is a race as in `benches/attention.rs`: the formats of one shape take turns, and each is credited with its
//! best. Columns: microseconds, gigabytes of keys and values per second, and the time as a share of that of f32 in the
//! same race. Rows are checked against the f32 values that the stored numbers stand for before anything is timed.

mod support;

use subquad::attention::{Decode, Shape};
use subquad::half::{bf16_from_f32, f16_from_f32, f32_from_bf16, f32_from_f16};
use subquad::{Format, Isa, MatRef, RowsRef, Scratch, TensorRef};
use support::oracle::Row;
use support::{memory, output, race, Aligned};

/// Seconds per race.
const PATIENCE: f64 = 2.0;

/// One matrix in every format.
struct Rows {
    rows: usize,
    cols: usize,
    f32: Aligned,
    f16: Vec<u16>,
    bf16: Vec<u16>,
    i8: Vec<i8>,
    scales: Vec<f32>,
}

impl Rows {
    fn new(rows: usize, cols: usize, seed: u64) -> Rows {
        let f32 = Aligned::normal(rows * cols, seed);
        let (mut i8, mut scales) = (Vec::with_capacity(rows * cols), Vec::with_capacity(rows));
        for row in f32.chunks(cols) {
            let scale = row.iter().fold(0.0f32, |a, x| a.max(x.abs())) / 127.0;
            i8.extend(row.iter().map(|x| (x / scale).round_ties_even() as i8));
            scales.push(scale);
        }
        Rows {
            rows,
            cols,
            f16: f32.iter().map(|&x| f16_from_f32(x)).collect(),
            bf16: f32.iter().map(|&x| bf16_from_f32(x)).collect(),
            f32,
            i8,
            scales,
        }
    }

    fn view(&self, format: Format) -> RowsRef<'_> {
        let shape = [1, 1, self.rows, self.cols];
        match format {
            Format::F32 => TensorRef::new(&self.f32, shape).unwrap().into(),
            Format::F16 => RowsRef::f16(TensorRef::new(&self.f16, shape).unwrap()),
            Format::Bf16 => RowsRef::bf16(TensorRef::new(&self.bf16, shape).unwrap()),
            Format::I8 => {
                let scales = TensorRef::new(&self.scales, [1, 1, 1, self.rows]).unwrap();
                RowsRef::i8(TensorRef::new(&self.i8, shape).unwrap(), scales).unwrap()
            }
        }
    }

    /// What the stored numbers stand for.
    fn meaning(&self, format: Format) -> Vec<f32> {
        match format {
            Format::F32 => self.f32.to_vec(),
            Format::F16 => self.f16.iter().map(|&x| f32_from_f16(x)).collect(),
            Format::Bf16 => self.bf16.iter().map(|&x| f32_from_bf16(x)).collect(),
            Format::I8 => {
                let rows = self.i8.chunks(self.cols).zip(&self.scales);
                rows.flat_map(|(row, &scale)| row.iter().map(move |&n| f32::from(n) * scale))
                    .collect()
            }
        }
    }

    fn bytes(&self, format: Format) -> usize {
        self.rows * (self.cols * format.size() + if format == Format::I8 { 4 } else { 0 })
    }
}

fn main() {
    let csv = std::env::args().any(|a| a == "--csv");
    // One shape, as it is printed: `cargo bench --bench decode -- "1 of 1000000 d=64"`.
    let only = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    let isas: Vec<Isa> = match std::env::var("SUBQUAD_ISA") {
        Ok(name) => Isa::all().filter(|isa| isa.name() == name).collect(),
        Err(_) => vec![Isa::best()],
    };
    if csv {
        println!("shape,isa,format,us,GB/s,of f32");
    } else {
        println!(
            "{:<26}{:<14}{:<8}{:>12}{:>9}{:>9}",
            "shape", "back end", "format", "us", "GB/s", "of f32"
        );
    }
    for isa in isas {
        for (queries, keys, dim) in [
            (1, 4096, 64),
            (1, 65_536, 64),
            (1, 1_000_000, 64),
            (1, 1_000_000, 128),
            (8, 1_000_000, 64),
        ] {
            let shape = format!("{queries} of {keys} d={dim}");
            if only.as_ref().is_some_and(|only| *only != shape) {
                continue;
            }
            let (k, v) = (Rows::new(keys, dim, 2), Rows::new(keys, dim, 3));
            let q = Aligned::normal(queries * dim, 1);
            let plan = Decode::new(Shape::head(queries, keys, dim, dim)).unwrap().with_isa(isa);
            let views = Format::ALL.map(|format| (k.view(format), v.view(format)));
            let call = |format: Format, out: &mut [f32], bytes: &mut support::Bytes| {
                let outputs = output(out, [1, 1, queries, dim]).unwrap();
                let q = TensorRef::new(&q, [1, 1, queries, dim]).unwrap();
                let (k, v) = views[format as usize];
                assert!(plan.run_rows(q, k, v, outputs, &mut Scratch::new(bytes)).is_ok());
            };
            for format in Format::ALL {
                let (mut out, mut bytes) = (vec![0.0; queries * dim], memory(plan.need()));
                call(format, &mut out, &mut bytes);
                let (k, v) = (k.meaning(format), v.meaning(format));
                let (k, v) = (MatRef::new(&k, keys, dim).unwrap(), MatRef::new(&v, keys, dim).unwrap());
                let row = Row::of(&q[..dim], k, v, 1.0 / (dim as f64).sqrt(), keys);
                row.check(&out[..dim], "decode");
            }
            let mut room = [0; 4].map(|_| (vec![0.0; queries * dim], memory(plan.need())));
            let [a, b, c, d] = &mut room;
            let times = race(
                PATIENCE,
                [
                    &mut || call(Format::F32, &mut a.0, &mut a.1),
                    &mut || call(Format::F16, &mut b.0, &mut b.1),
                    &mut || call(Format::Bf16, &mut c.0, &mut c.1),
                    &mut || call(Format::I8, &mut d.0, &mut d.1),
                ],
            );
            for (format, time) in Format::ALL.into_iter().zip(times) {
                let speed = (k.bytes(format) + v.bytes(format)) as f64 / time / 1e9;
                let (name, format, us, ratio) = (
                    isa.name(),
                    format!("{format:?}").to_lowercase(),
                    1e6 * time,
                    time / times[0],
                );
                if csv {
                    println!("{shape},{name},{format},{us:.1},{speed:.1},{ratio:.3}");
                } else {
                    println!("{shape:<26}{name:<14}{format:<8}{us:>12.1}{speed:>9.1}{ratio:>9.3}");
                }
            }
        }
    }
}

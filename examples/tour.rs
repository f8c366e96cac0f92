//! A tour of attention on real data: `cargo run --release --example tour`.
//!
//! Queries, keys and values come from three heads of a sentence encoder (see `tests/data/README.md`). Every result is
//! compared with f64, so the tour ends with an error or with the truth.

#[path = "../benches/support/mod.rs"]
mod support;

use std::mem::MaybeUninit;
use std::path::Path;
use subquad::attention::{Decode, Exact, Rules};
use subquad::{Error, Isa, MatMut, MatRef, Report, Scratch, TensorRef};
use support::oracle::Row;
use support::{memory, output, peak, race, read_npy, Aligned, Bytes};

/// Seconds to measure one thing for.
const PATIENCE: f64 = 0.3;

/// One attention head, as the encoder computed it.
struct Head {
    name: &'static str,
    /// Queries, keys, values.
    data: [Aligned; 3],
    rows: usize,
    dim: usize,
}

impl Head {
    fn read(name: &'static str, file: &str) -> Head {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let [q, k, v] = ["q", "k", "v"].map(|x| read_npy(&data.join(format!("{file}_{x}.npy"))));
        Head {
            name,
            rows: q.1,
            dim: q.2,
            data: [q.0, k.0, v.0],
        }
    }

    fn views(&self) -> [MatRef<'_, f32>; 3] {
        let view = |x| MatRef::new(x, self.rows, self.dim).expect("the numbers of a file");
        self.data.each_ref().map(|x| view(x))
    }

    /// Largest error of `out` against f64. `seen` says how many keys a query sees.
    fn error(&self, out: &[f32], seen: impl Fn(usize) -> usize) -> f64 {
        let [q, k, v] = self.views();
        let scale = 1.0 / (self.dim as f64).sqrt();
        let row_error = |(i, row): (usize, &[f32])| Row::of(q.row(i), k, v, scale, seen(i)).check(row, self.name);
        out.chunks(self.dim).enumerate().map(row_error).fold(0.0, f64::max)
    }

    /// Exact attention on one back end. `bytes` grow to what the call needs.
    fn exact(&self, isa: Isa, rules: Rules<'_>, out: &mut [f32], bytes: &mut Bytes) -> Result<Report, Error> {
        let [q, k, v] = self.views();
        let plan = Exact::for_views(q, k, v)?.with_rules(rules)?.with_isa(isa);
        bytes.resize(plan.need().bytes(), MaybeUninit::uninit());
        plan.forward(
            q,
            k,
            v,
            MatMut::new(out, self.rows, self.dim)?,
            &mut Scratch::new(bytes),
        )
    }
}

fn main() -> Result<(), Error> {
    let isa = Isa::best();
    let heads = [
        Head::read("flat", "layer0_head7"),
        Head::read("peaked", "layer4_head9"),
        Head::read("extreme", "layer0_head2"),
    ];
    let (rows, dim) = (heads[0].rows, heads[0].dim);
    let mut flops = 0.0;
    let [time] = race(PATIENCE, [&mut || flops = peak::multiply_adds(isa)]);
    let (name, peak) = (isa.name(), flops / time / 1e9);
    println!("subquad on {name}; multiply-adds alone reach {peak:.0} GFLOP/s on one core\n");

    println!("Attention, {rows} queries and keys of size {dim}, from a sentence encoder");
    println!("  head                       time          speed   peak max error  repeated");
    for head in &heads {
        one_head(head, isa, head.name, Rules::new(), |_| rows)?;
    }
    one_head(&heads[0], isa, "flat, causal", Rules::new().with_causal(), |i| i + 1)?;
    all_heads(&heads, isa)?;
    one_query(&heads[1], isa)?;
    println!("  peak: share of what multiply-adds alone reach, measured in turns with the call");
    println!("  max error: against f64; repeated: blocks of queries that took a second pass\n");

    println!("Bits of all three heads, back end by back end: one fingerprint for each class");
    for fused in [true, false] {
        same_bits(&heads, fused)?;
    }
    Ok(())
}

/// One line of the tour: runs `call` once for its result, then again and again for its time.
fn line(
    what: &str,
    flops: f64,
    out: &mut [f32],
    mut call: impl FnMut(&mut [f32]) -> Result<Report, Error>,
    error: impl Fn(&[f32]) -> f64,
) -> Result<(), Error> {
    let report = call(out)?;
    let error = error(out);
    let mut again = || assert!(call(out).is_ok());
    let mut peak_flops = 0.0;
    let mut peak = || peak_flops = peak::multiply_adds(report.isa);
    let [time, peak_time] = race(PATIENCE, [&mut again, &mut peak]);
    let (micros, speed) = (time * 1e6, flops / time / 1e9);
    let share = 100.0 * (flops / time) / (peak_flops / peak_time);
    let repeated = report.repeated_blocks;
    println!("  {what:<21}{micros:>7.0} us{speed:>7.1} GFLOP/s{share:>5.0} %{error:>10.1e}{repeated:>10}");
    Ok(())
}

/// `seen` says how many keys a query sees under the rules.
fn one_head(head: &Head, isa: Isa, what: &str, rules: Rules<'_>, seen: impl Fn(usize) -> usize) -> Result<(), Error> {
    let pairs: usize = (0..head.rows).map(&seen).sum();
    let flops = 4.0 * (pairs * head.dim) as f64;
    let (mut out, mut bytes) = (Aligned::zeros(head.rows * head.dim), Bytes::new());
    let call = |out: &mut [f32]| head.exact(isa, rules, out, &mut bytes);
    line(what, flops, &mut out, call, |out| head.error(out, &seen))
}

/// The heads as one tensor, and one call for all of them.
fn all_heads(heads: &[Head; 3], isa: Isa) -> Result<(), Error> {
    let (rows, dim) = (heads[0].rows, heads[0].dim);
    let shape = [1, heads.len(), rows, dim];
    let stacks = [0, 1, 2].map(|i| Aligned::copy(&heads.each_ref().map(|head| &head.data[i][..]).concat()));
    let [q, k, v] = stacks.each_ref().map(|x| TensorRef::new(x, shape));
    let (q, k, v) = (q?, k?, v?);
    let plan = Exact::for_views(q, k, v)?.with_isa(isa);
    let (mut out, mut bytes) = (Aligned::zeros(heads.len() * rows * dim), memory(plan.need()));
    let flops = 4.0 * (heads.len() * rows * rows * dim) as f64;
    let call = |out: &mut [f32]| plan.run(q, k, v, output(out, shape)?, &mut Scratch::new(&mut bytes));
    line("all three in one call", flops, &mut out, call, |out| {
        let parts = heads.iter().zip(out.chunks(rows * dim));
        parts.map(|(head, out)| head.error(out, |_| rows)).fold(0.0, f64::max)
    })
}

/// As when a model generates: the last query against all keys.
fn one_query(head: &Head, isa: Isa) -> Result<(), Error> {
    let [q, k, v] = head.views();
    let q = q.row_range(head.rows - 1..head.rows);
    let plan = Decode::for_views(q, k, v)?.with_isa(isa);
    let (mut out, mut bytes) = (Aligned::zeros(head.dim), memory(plan.need()));
    let flops = 4.0 * (head.rows * head.dim) as f64;
    let call = |out: &mut [f32]| {
        let outputs = output(out, [1, 1, 1, head.dim])?;
        plan.run(q.into(), k.into(), v.into(), outputs, &mut Scratch::new(&mut bytes))
    };
    let row = Row::of(q.row(0), k, v, 1.0 / (head.dim as f64).sqrt(), head.rows);
    line("one query (Decode)", flops, &mut out, call, |out| {
        row.check(out, "one query")
    })
}

/// Back ends that round alike give the same bits.
fn same_bits(heads: &[Head; 3], fused: bool) -> Result<(), Error> {
    let mut first: Option<Vec<u32>> = None;
    for isa in Isa::all().filter(|isa| isa.fused() == fused) {
        let mut bits = Vec::new();
        for head in heads {
            let mut out = vec![0.0; head.rows * head.dim];
            let _ = head.exact(isa, Rules::new(), &mut out, &mut Bytes::new())?;
            bits.extend(out.iter().map(|x| x.to_bits()));
        }
        let mix = |h: u64, b: &u32| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        let (class, print) = (if fused { "fused" } else { "strict" }, bits.iter().fold(0, mix));
        println!("  {class:<8}{:<15}{print:016x}", isa.name());
        let same = *first.get_or_insert_with(|| bits.clone()) == bits;
        assert!(same, "{} differs", isa.name());
    }
    Ok(())
}

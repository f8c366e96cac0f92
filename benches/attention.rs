//! How fast attention is, and how fast it could be: `cargo bench --bench attention [-- --csv]`.
//!
//! Every line is a race: the kernels of one shape, the multiply-add peak, the attainable ceiling or a read loop take
//! turns of equal length, and each is credited with its best. Nothing more clever than that: a disturbance only ever
//! adds time, so the best is the least disturbed, whereas means, and intervals around them, describe the neighbours.
//! What is compared has run within the same second, on the same core, by the thread's own clock.
//!
//! Columns: `peak` is the share of the peak of the widest vectors of this machine, `own` that of the back end's own
//! vectors, `bare` the share of the peak that attention's arithmetic reaches in registers (see `support::peak`), hence
//! what `peak` could be at most; `threads` is how much faster two threads are (by the clock on the wall); `read` compares bytes per second with a loop that sums the same bytes in one stream.
//!
//! Before anything is timed, some rows are checked against f64.

mod support;

use subquad::attention::{Decode, Exact, Rules, Shape};
use subquad::{Isa, Scratch, TensorRef};
use support::backward::Backward;
use support::oracle::Row;
use support::record::{Line, Records};
use support::{memory, output, peak, race, race_of_threads, Aligned, Bytes};

/// Seconds per race.
const PATIENCE: f64 = 1.5;

/// Random inputs of a shape.
struct Inputs {
    shape: Shape,
    q: Aligned,
    /// Keys, then values: one stream for the read loop.
    kv: Aligned,
    keys_len: usize,
}

impl Inputs {
    fn new(shape: Shape) -> Inputs {
        let keys_len = shape.kv_heads * shape.keys * shape.dim;
        Inputs {
            shape,
            q: Aligned::normal(shape.query_heads * shape.queries * shape.dim, 1),
            kv: Aligned::normal(keys_len + shape.kv_heads * shape.keys * shape.value_dim, 2),
            keys_len,
        }
    }

    /// Queries from row `start` on, keys and values.
    fn views(&self, shape: Shape, start: usize) -> [TensorRef<'_, f32>; 3] {
        let Shape {
            query_heads,
            kv_heads,
            queries,
            keys,
            dim,
            value_dim,
            ..
        } = shape;
        let (k, v) = self.kv.split_at(self.keys_len);
        [
            TensorRef::new(&self.q[start * dim..], [1, query_heads, queries, dim]).unwrap(),
            TensorRef::new(k, [1, kv_heads, keys, dim]).unwrap(),
            TensorRef::new(v, [1, kv_heads, keys, value_dim]).unwrap(),
        ]
    }

    /// Useful flops of a call: two products per pair of query and key that sees it.
    fn flops(&self, causal: bool) -> f64 {
        let Shape {
            query_heads,
            queries,
            keys,
            dim,
            value_dim,
            ..
        } = self.shape;
        let pairs = if causal {
            queries * (queries + 1) / 2
        } else {
            queries * keys
        };
        2.0 * (query_heads * pairs * (dim + value_dim)) as f64
    }

    /// A few rows of every head against f64.
    fn check(&self, out: &[f32], causal: bool, what: &str) {
        let [q, k, v] = self.views(self.shape, 0);
        let Shape {
            queries,
            keys,
            value_dim,
            dim,
            ..
        } = self.shape;
        for (head, out) in out.chunks(queries * value_dim).enumerate() {
            for i in [0, queries / 3, queries - 1] {
                let (q, k, v) = (q.matrix(0, head), k.matrix(0, head), v.matrix(0, head));
                let seen = if causal { i + 1 } else { keys };
                let row = Row::of(q.row(i), k, v, 1.0 / (dim as f64).sqrt(), seen);
                row.check(&out[i * value_dim..(i + 1) * value_dim], what);
            }
        }
    }
}

/// Either plan, with its memory.
struct Call<'a> {
    inputs: &'a Inputs,
    plan: Plan,
    shape: Shape,
    start: usize,
    out: Aligned,
    bytes: Bytes,
}

#[derive(Clone, Copy)]
enum Plan {
    Exact(Exact<'static>),
    Decode(Decode<'static>),
}

impl<'a> Call<'a> {
    fn exact(inputs: &'a Inputs, isa: Isa, rules: Rules<'static>) -> Call<'a> {
        let plan = Exact::new(inputs.shape)
            .and_then(|plan| plan.with_rules(rules))
            .unwrap()
            .with_isa(isa);
        Self::new(inputs, inputs.shape, 0, Plan::Exact(plan))
    }

    fn decode(inputs: &'a Inputs, isa: Isa) -> Call<'a> {
        let plan = Decode::new(inputs.shape).unwrap().with_isa(isa);
        Self::new(inputs, inputs.shape, 0, Plan::Decode(plan))
    }

    /// The queries `start..start + queries` of a single head.
    fn part(inputs: &'a Inputs, isa: Isa, start: usize, queries: usize) -> Call<'a> {
        let shape = Shape {
            queries,
            ..inputs.shape
        };
        Self::new(
            inputs,
            shape,
            start,
            Plan::Exact(Exact::new(shape).unwrap().with_isa(isa)),
        )
    }

    fn new(inputs: &'a Inputs, shape: Shape, start: usize, plan: Plan) -> Call<'a> {
        let bytes = memory(match plan {
            Plan::Exact(plan) => plan.need(),
            Plan::Decode(plan) => plan.need(),
        });
        let out = Aligned::zeros(shape.query_heads * shape.queries * shape.value_dim);
        Call {
            inputs,
            plan,
            shape,
            start,
            out,
            bytes,
        }
    }

    fn run(&mut self) {
        let [q, k, v] = self.inputs.views(self.shape, self.start);
        let shape = [1, self.shape.query_heads, self.shape.queries, self.shape.value_dim];
        let (outputs, mut scratch) = (output(&mut self.out, shape).unwrap(), Scratch::new(&mut self.bytes));
        let report = match self.plan {
            Plan::Exact(plan) => plan.run(q, k, v, outputs, &mut scratch),
            Plan::Decode(plan) => plan.run(q, k, v, outputs, &mut scratch),
        };
        assert!(report.is_ok());
    }

    fn checked(mut self, causal: bool, what: &str) -> Call<'a> {
        self.run();
        self.inputs.check(&self.out, causal, what);
        self
    }
}

fn main() {
    let mut records = Records::begin();
    let find = |name: &str| Isa::all().find(|isa| isa.name() == name);
    let best = Isa::best();
    let fused: Vec<Isa> = ["avx512", "avx2", "neon"].into_iter().filter_map(find).collect();

    records.section("one head, 4096 queries and keys");
    for dim in [8, 16, 32, 64, 128] {
        let inputs = Inputs::new(Shape::head(4096, 4096, dim, dim));
        let shape = format!("n=4096 d={dim}");
        fused
            .iter()
            .for_each(|&isa| records.add(exact(&shape, &inputs, isa, best, false)));
    }
    let inputs = Inputs::new(Shape::head(4096, 4096, 64, 64));
    for isa in [best.strict(), Isa::SCALAR] {
        records.add(exact("n=4096 d=64", &inputs, isa, best, false));
    }
    for dim in [64, 16] {
        let inputs = Inputs::new(Shape::head(4096, 4096, dim, dim));
        records.add(exact(&format!("n=4096 d={dim} causal"), &inputs, best, best, true));
    }
    two_threads(&mut records, &inputs, best);

    records.section("eight heads, and small ones");
    let heads = Shape {
        query_heads: 8,
        kv_heads: 8,
        ..Shape::head(2048, 2048, 64, 64)
    };
    let inputs = Inputs::new(heads);
    records.add(exact("8 heads n=2048 d=64", &inputs, best, best, false));
    for (queries, keys, dim) in [(32, 32, 32), (128, 128, 64)] {
        let inputs = Inputs::new(Shape::head(queries, keys, dim, dim));
        records.add(exact(&format!("{queries}x{keys}x{dim}"), &inputs, best, best, false));
    }

    records.section("backward, one head of 4096 queries and keys");
    for dim in [16, 32, 64, 128] {
        records.add(backward(&format!("n=4096 d={dim}"), dim, best, false));
    }
    for dim in [16, 64] {
        records.add(backward(&format!("n=4096 d={dim} causal"), dim, best, true));
    }
    for isa in fused.iter().copied().filter(|isa| isa.name() != best.name()) {
        records.add(backward("n=4096 d=64", 64, isa, false));
    }

    records.section("eight heads of size 64 on two threads");
    for n in [1024, 2048, 4096] {
        two_shares(&mut records, n, best);
    }

    records.section("decode");
    for (queries, keys, dim) in [
        (1, 4096, 64),
        (1, 65_536, 64),
        (1, 65_536, 128),
        (1, 1_000_000, 64),
        (1, 1_000_000, 128),
        (8, 4096, 64),
        (8, 65_536, 64),
        (8, 1_000_000, 64),
    ] {
        let inputs = Inputs::new(Shape::head(queries, keys, dim, dim));
        records.add(decode(&format!("{queries} of {keys} d={dim}"), &inputs, best));
    }
}

/// Exact attention on `isa` against what `isa` and `best` could do.
fn exact(shape: &str, inputs: &Inputs, isa: Isa, best: Isa, causal: bool) -> Line {
    let rules = if causal {
        Rules::new().with_causal()
    } else {
        Rules::new()
    };
    let mut call = Call::exact(inputs, isa, rules).checked(causal, shape);
    let (mut widest, mut own, mut bare) = (0.0, 0.0, 0.0);
    let dim = inputs.shape.dim;
    let [time, widest_time, own_time, bare_time] = race(
        PATIENCE,
        [
            &mut || call.run(),
            &mut || widest = peak::multiply_adds(best),
            &mut || own = peak::multiply_adds(isa),
            &mut || bare = peak::attention_arithmetic(isa, dim),
        ],
    );
    let speed = inputs.flops(causal) / time;
    let (widest, own, bare) = (widest / widest_time, own / own_time, bare / bare_time);
    Line {
        peak: speed / widest,
        own: if isa.name() == best.name() {
            speed / widest
        } else {
            speed / own
        },
        bare: bare / widest,
        ..Line::new(shape, isa, speed)
    }
}

/// The gradient, against what multiply-adds alone reach.
fn backward(shape: &str, dim: usize, isa: Isa, causal: bool) -> Line {
    let mut small = Backward::new(Shape::head(200, 200, dim, dim), isa, causal);
    small.run(1);
    small.check(shape);
    let mut call = Backward::new(Shape::head(4096, 4096, dim, dim), isa, causal);
    let (mut widest, mut own) = (0.0, 0.0);
    let [time, widest_time, own_time] = race(
        PATIENCE,
        [
            &mut || call.run(1),
            &mut || widest = peak::multiply_adds(Isa::best()),
            &mut || own = peak::multiply_adds(isa),
        ],
    );
    let speed = call.flops() / time;
    Line {
        peak: speed / (widest / widest_time),
        own: speed / (own / own_time),
        ..Line::new(shape, isa, speed)
    }
}

/// The queries of one head, halved between two threads, against all of them on one.
fn two_threads(records: &mut Records, inputs: &Inputs, isa: Isa) {
    let half = inputs.shape.queries / 2;
    let mut one = Call::exact(inputs, isa, Rules::new()).checked(false, "one thread");
    let mut halves = [0, half].map(|start| Call::part(inputs, isa, start, half));
    let mut both = || {
        let [a, b] = &mut halves;
        std::thread::scope(|scope| {
            scope.spawn(|| a.run());
            b.run();
        });
    };
    // What the machine itself makes of two threads: processors may be halves of one core. Long enough to outlast a start.
    let peak = || (0..1000).map(|_| peak::multiply_adds(isa)).sum::<f64>();
    let mut flops = 0.0;
    let mut both_peaks = || {
        std::thread::scope(|scope| {
            scope.spawn(peak);
            flops = 2.0 * peak();
        });
    };
    let [one_time, both_time, peak_time, peaks_time] = race_of_threads(
        PATIENCE,
        [
            &mut || one.run(),
            &mut both,
            &mut || assert!(peak() > 0.0),
            &mut both_peaks,
        ],
    );
    assert!(
        halves.iter().flat_map(|half| half.out.iter()).eq(one.out.iter()),
        "threads change bits"
    );
    let shape = format!("n={} d={} two threads", inputs.shape.queries, inputs.shape.dim);
    records.add(Line {
        threads: one_time / both_time,
        ..Line::new(&shape, isa, inputs.flops(false) / both_time)
    });
    records.add(Line {
        threads: 2.0 * peak_time / peaks_time,
        ..Line::new("multiply-adds two threads", isa, flops / peaks_time)
    });
}

/// Eight heads in two shares, one per thread, against all of them on one, forwards and back; the line of multiply-adds is
/// the machine's own.
fn two_shares(records: &mut Records, n: usize, isa: Isa) {
    let heads = |n: usize| Shape {
        query_heads: 8,
        kv_heads: 8,
        ..Shape::head(n, n, 64, 64)
    };
    let mut small = Backward::new(heads(40), isa, false);
    small.run(2);
    small.check("two shares");
    let [mut one, mut two] = [0; 2].map(|_| Backward::new(heads(n), isa, false));
    let forward = race_of_threads(PATIENCE, [&mut || one.forward(1), &mut || two.forward(2)]);
    let back = race_of_threads(PATIENCE, [&mut || one.run(1), &mut || two.run(2)]);
    assert!(one.bits() == two.bits(), "threads change bits");
    let lines = [("forward", one.forward_flops(), forward), ("back", one.flops(), back)];
    for (what, flops, [one_time, both_time]) in lines {
        records.add(Line {
            threads: one_time / both_time,
            ..Line::new(&format!("8 heads n={n} {what}"), isa, flops / both_time)
        });
    }
}

/// Few queries against a loop that only reads.
fn decode(shape: &str, inputs: &Inputs, isa: Isa) -> Line {
    let mut call = Call::decode(inputs, isa).checked(false, shape);
    let mut flops = 0.0;
    let [time, read_time, peak_time] = race(
        PATIENCE,
        [&mut || call.run(), &mut || peak::read(isa, &inputs.kv), &mut || {
            flops = peak::multiply_adds(isa)
        }],
    );
    let speed = inputs.flops(false) / time;
    let share = speed / (flops / peak_time);
    Line {
        peak: share,
        own: share,
        bytes: (size_of::<f32>() * inputs.kv.len()) as f64 / time,
        read: read_time / time,
        ..Line::new(shape, isa, speed)
    }
}

//! exp and tanh against f64, in units in the last place, per arithmetic class.
//!
//! ```text
//! cargo test --features emulation --test ulp -- --nocapture                     every 257th f32
//! SUBQUAD_LONG=1 cargo test --features emulation --test ulp -- --nocapture      all 2^32, some minutes
//! SUBQUAD_LONG=1 cargo test --features emulation --lib sweep -- --nocapture     the same for the softmax weight
//! ```
//!
//! The oracle is the f64 function of the standard library: its error, at most a few units in the 53rd bit, is below
//! 2^-27 f32 ULP and does not show in any figure here.

use std::sync::Mutex;
use subquad::{kernels, Isa};

/// The only NaN that the library returns.
const NAN: u32 = 0x7fc0_0000;

/// Inputs per call of a kernel.
const BATCH: u64 = 1 << 12;

/// Emulated back ends are slow: they see one batch in this many.
const EMULATED_EVERY: u64 = 16;

/// A function under test.
struct Function {
    name: &'static str,
    kernel: fn(Isa, &[f32], &mut [f32]),
    exact: fn(f64) -> f64,
    /// The promise, in ULP.
    limit: f64,
}

/// The limit is what the library promises.
const EXP: Function = Function {
    name: "exp",
    kernel: kernels::exp,
    exact: f64::exp,
    limit: 0.79,
};

const TANH: Function = Function {
    name: "tanh",
    kernel: kernels::tanh,
    exact: f64::tanh,
    limit: 2.0,
};

/// One line of the table.
#[derive(Clone, Copy, Default)]
struct Tally {
    inputs: u64,
    worst: f64,
    at: u32,
    misrounded: u64,
}

impl Tally {
    fn add(&mut self, x: f32, error: f64) {
        self.inputs += 1;
        self.misrounded += u64::from(error > 0.5);
        if error > self.worst {
            (self.worst, self.at) = (error, x.to_bits());
        }
    }

    fn join(&mut self, other: Tally) {
        self.inputs += other.inputs;
        self.misrounded += other.misrounded;
        if other.worst > self.worst {
            (self.worst, self.at) = (other.worst, other.at);
        }
    }
}

/// Distance in ULP of the exact result: 2^-23 of its power of two, and never less than the smallest subnormal.
fn ulps(got: f32, exact: f64) -> f64 {
    let exponent = ((exact.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    (f64::from(got) - exact).abs() / f64::from(exponent.max(-126) - 23).exp2()
}

fn long() -> bool {
    std::env::var_os("SUBQUAD_LONG").is_some()
}

/// The back ends of a class; the first one is measured, the others must give its bits.
fn class(fused: bool) -> Vec<Isa> {
    Isa::all().filter(|isa| isa.fused() == fused).collect()
}

/// Bit patterns of one batch: every `step`-th, in order.
fn fill(x: &mut Vec<f32>, batch: u64, step: u64) {
    x.clear();
    let patterns = (batch * BATCH..(batch + 1) * BATCH).map(|i| i * step);
    let patterns = patterns.map_while(|bits| u32::try_from(bits).ok());
    x.extend(patterns.map(f32::from_bits));
}

/// Checks one batch of results of the measured back end.
fn measure(f: &Function, x: &[f32], y: &[f32], tally: &mut Tally) {
    for (&x, &y) in x.iter().zip(y) {
        let exact = (f.exact)(f64::from(x));
        if x.is_nan() {
            assert_eq!(y.to_bits(), NAN, "{}({:#010x})", f.name, x.to_bits());
        } else if (exact as f32).is_infinite() || y.is_infinite() {
            // Overflow is where the correctly rounded result overflows, and nowhere else.
            assert_eq!(y, exact as f32, "{}({x:e})", f.name);
        } else {
            tally.add(x, ulps(y, exact));
        }
    }
}

/// Batches `first`, `first + 2`, ... in one class.
fn sweep(f: &Function, isas: &[Isa], first: u64, step: u64) -> Tally {
    let mut tally = Tally::default();
    let (mut x, mut y, mut z) = (Vec::new(), vec![0.0; BATCH as usize], vec![0.0; BATCH as usize]);
    let batches = (1u64 << 32).div_ceil(step * BATCH);
    for batch in (first..batches).step_by(2) {
        fill(&mut x, batch, step);
        let Some((measured, others)) = isas.split_first() else {
            break;
        };
        let (y, z) = (&mut y[..x.len()], &mut z[..x.len()]);
        (f.kernel)(*measured, &x, y);
        measure(f, &x, y, &mut tally);
        let slow = (batch / 2) % EMULATED_EVERY == 0;
        for isa in others.iter().filter(|isa| slow || !isa.name().contains("emu")) {
            (f.kernel)(*isa, &x, z);
            let differs = y.iter().zip(&*z).position(|(y, z)| y.to_bits() != z.to_bits());
            assert_eq!(differs.map(|i| x[i]), None, "{} on {}", f.name, isa.name());
        }
    }
    tally
}

fn check(f: &Function) {
    let step = if long() { 1 } else { 257 };
    for fused in [false, true] {
        let isas = class(fused);
        let total = Mutex::new(Tally::default());
        std::thread::scope(|scope| {
            for first in 0..2 {
                let (isas, total) = (&isas, &total);
                scope.spawn(move || {
                    let part = sweep(f, isas, first, step);
                    total.lock().unwrap().join(part);
                });
            }
        });
        let t = *total.lock().unwrap();
        println!(
            "{:6} {:6} {:10} inputs, max {:.4} ULP at {:e} ({:#010x}), {:9} above 0.5 ULP",
            f.name,
            if fused { "fused" } else { "strict" },
            t.inputs,
            t.worst,
            f32::from_bits(t.at),
            t.at,
            t.misrounded
        );
        // Every finite result was measured: for exp that is all below 88.7, for tanh all but the NaNs.
        assert!(t.inputs > (1 << 31) / step, "{} inputs", t.inputs);
        assert!(t.worst <= f.limit, "{}: {} ULP", f.name, t.worst);
    }
}

#[test]
fn exp_keeps_its_promise() {
    check(&EXP);
}

#[test]
fn tanh_keeps_its_promise() {
    check(&TANH);
}

/// `f` on each of a few inputs, on one back end.
fn on(f: &Function, isa: Isa, x: &[f32]) -> Vec<u32> {
    let mut y = vec![0.0; x.len()];
    (f.kernel)(isa, x, &mut y);
    y.iter().map(|y| y.to_bits()).collect()
}

#[test]
fn specials_are_exact() {
    let nans = [NAN, 0x7f80_0001, 0x7fff_ffff, 0xffc0_0000, 0xff80_0001, 0xffff_ffff].map(f32::from_bits);
    // ln of the largest f32, and the next number: the last finite and the first infinite result.
    let edge = f32::from_bits(0x42b1_7217);
    let over = f32::from_bits(0x42b1_7218);
    assert!((f64::from(edge).exp() as f32).is_finite() && (f64::from(over).exp() as f32).is_infinite());
    for isa in Isa::all() {
        assert!(on(&EXP, isa, &nans).iter().all(|&y| y == NAN), "{}", isa.name());
        assert!(on(&TANH, isa, &nans).iter().all(|&y| y == NAN), "{}", isa.name());

        let x = [
            f32::NEG_INFINITY,
            f32::MIN,
            -200.0,
            0.0,
            -0.0,
            over,
            f32::MAX,
            f32::INFINITY,
        ];
        let want = [0.0, 0.0, 0.0, 1.0, 1.0, f32::INFINITY, f32::INFINITY, f32::INFINITY].map(f32::to_bits);
        assert_eq!(on(&EXP, isa, &x), want, "{}", isa.name());
        assert!(f32::from_bits(on(&EXP, isa, &[edge])[0]).is_finite(), "{}", isa.name());

        let x = [
            0.0,
            -0.0,
            1e-45,
            -1e-45,
            20.0,
            -20.0,
            f32::MAX,
            f32::INFINITY,
            f32::NEG_INFINITY,
        ];
        let want = [0.0, -0.0, 1e-45, -1e-45, 1.0, -1.0, 1.0, 1.0, -1.0].map(f32::to_bits);
        assert_eq!(on(&TANH, isa, &x), want, "{}", isa.name());
    }
}

#[test]
fn tanh_is_odd_bit_for_bit() {
    let step = if long() { 1 } else { 257 };
    for fused in [false, true] {
        // Enough on one back end of a class: the others give its bits.
        let Some(isa) = class(fused).into_iter().next() else {
            continue;
        };
        let (mut x, mut seen) = (Vec::new(), 0);
        for batch in 0..(1u64 << 31).div_ceil(step * BATCH) {
            fill(&mut x, batch, step);
            x.retain(|x| x.is_sign_positive() && !x.is_nan());
            let minus: Vec<f32> = x.iter().map(|x| -x).collect();
            let flipped: Vec<u32> = on(&TANH, isa, &minus).iter().map(|y| y ^ 0x8000_0000).collect();
            assert!(on(&TANH, isa, &x) == flipped, "{}", isa.name());
            seen += x.len() as u64;
        }
        // Half the sweep, minus a few NaNs.
        assert!(seen > (1 << 30) / step);
    }
}

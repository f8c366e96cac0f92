//! What this machine could do: the yardsticks that kernels are measured against.
//!
//! Written over the library's own vectors, so that they exist for every back end.
#![allow(unsafe_code)]

use std::hint::black_box;
#[cfg(all(target_arch = "x86_64", feature = "simd"))]
use subquad::simd::{Avx2, Avx512, Strict};
use subquad::simd::{Emu, Simd};
use subquad::Isa;

/// A loop over some machine's vectors. `run` must be `#[inline(always)]`; it returns the flops that count.
trait Work {
    fn run<S: Simd<f32>>(self, s: S) -> f64;
}

/// Runs the loop compiled for the back end's instructions.
fn on(isa: Isa, work: impl Work) -> f64 {
    match isa {
        #[cfg(all(target_arch = "x86_64", feature = "simd"))]
        Isa::Avx512(s) => {
            #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
            fn run(s: Avx512, work: impl Work) -> f64 {
                work.run(s)
            }
            // SAFETY: `s` exists, so this machine has AVX-512 F, DQ, BW and VL, AVX2 and FMA.
            unsafe { run(s, work) }
        }
        #[cfg(all(target_arch = "x86_64", feature = "simd"))]
        Isa::Avx2(s) => {
            #[target_feature(enable = "avx2,fma")]
            fn run(s: Avx2, work: impl Work) -> f64 {
                work.run(s)
            }
            // SAFETY: `s` exists, so this machine has AVX2 and FMA.
            unsafe { run(s, work) }
        }
        #[cfg(all(target_arch = "x86_64", feature = "simd"))]
        Isa::StrictAvx512(s) => {
            #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
            fn run(s: Strict<Avx512>, work: impl Work) -> f64 {
                work.run(s)
            }
            // SAFETY: as for `Avx512`.
            unsafe { run(s, work) }
        }
        #[cfg(all(target_arch = "x86_64", feature = "simd"))]
        Isa::StrictAvx2(s) => {
            #[target_feature(enable = "avx2,fma")]
            fn run(s: Strict<Avx2>, work: impl Work) -> f64 {
                work.run(s)
            }
            // SAFETY: as for `Avx2`.
            unsafe { run(s, work) }
        }
        #[cfg(all(target_arch = "aarch64", target_feature = "neon", feature = "simd"))]
        Isa::Neon(s) => work.run(s),
        #[cfg(all(target_arch = "aarch64", target_feature = "neon", feature = "simd"))]
        Isa::StrictNeon(s) => work.run(s),
        _ => work.run(Emu::<4>),
    }
}

/// Independent chains: as many as the registers hold beside the constants. Latency times width of the multiply-add
/// units is 8 on the machines we know, so both keep them full.
const fn chains(registers: usize) -> usize {
    if registers >= 32 {
        24
    } else {
        12
    }
}

/// Calls `$f::<S, chains>`.
macro_rules! with_chains {
    ($s:ident: $S:ident, $f:ident($($arg:expr),*)) => {
        if <$S as Simd<f32>>::REGISTERS >= 32 {
            $f::<$S, { chains(32) }>($s, $($arg),*)
        } else {
            $f::<$S, { chains(16) }>($s, $($arg),*)
        }
    };
}

const STEPS: usize = 4096;

/// Multiply-adds and nothing else (multiplications and additions on strict back ends). Returns the flops.
pub fn multiply_adds(isa: Isa) -> f64 {
    struct MultiplyAdds;
    impl Work for MultiplyAdds {
        #[inline(always)]
        fn run<S: Simd<f32>>(self, s: S) -> f64 {
            with_chains!(s: S, multiply_add_chains())
        }
    }
    on(isa, MultiplyAdds)
}

/// What attention cannot do without, in registers: per vector of scores `2 dim` multiply-adds and the softmax (max, min,
/// add, sub, sub, five multiply-adds, shift, mul, add), no load, no store. Returns the useful flops, `4 dim` per score:
/// divided by the peak they are the fraction that is attainable on this machine.
pub fn attention_arithmetic(isa: Isa, dim: usize) -> f64 {
    struct Bare {
        dim: usize,
    }
    impl Work for Bare {
        #[inline(always)]
        fn run<S: Simd<f32>>(self, s: S) -> f64 {
            with_chains!(s: S, bare_tiles(self.dim))
        }
    }
    on(isa, Bare { dim })
}

/// Reads the numbers once, in order, in one stream.
pub fn read(isa: Isa, x: &[f32]) {
    struct Read<'a>(&'a [f32]);
    impl Work for Read<'_> {
        #[inline(always)]
        fn run<S: Simd<f32>>(self, s: S) -> f64 {
            let mut sums = [s.splat(0.0); 8];
            for part in self.0.chunks_exact(8 * S::LANES) {
                for (sum, x) in sums.iter_mut().zip(part.chunks_exact(S::LANES)) {
                    *sum = s.add(*sum, s.load(x));
                }
            }
            keep(s, &sums);
            self.0.len() as f64
        }
    }
    on(isa, Read(x));
}

/// `x = x a + b` again and again: the numbers stay between 0 and 1, neither subnormal nor infinite.
#[inline(always)]
fn multiply_add_chains<S: Simd<f32>, const N: usize>(s: S) -> f64 {
    let (a, b) = (s.splat(black_box(0.75)), s.splat(black_box(0.125)));
    let mut x = [s.splat(0.5); N];
    for _ in 0..STEPS {
        for x in &mut x {
            *x = s.mul_add(*x, a, b);
        }
    }
    keep(s, &x);
    (2 * STEPS * N * S::LANES) as f64
}

#[inline(always)]
fn bare_tiles<S: Simd<f32>, const N: usize>(s: S, dim: usize) -> f64 {
    let (a, b) = (s.splat(black_box(0.75)), s.splat(black_box(0.125)));
    // 1.5 * 2^23 with the exponent bias in its low bits, less a reference of 1.
    let c = s.splat(black_box(12_583_039.0 - 1.0));
    // The shape of a polynomial for 2^r; the values do not matter here.
    let power = black_box([0.001f32, 0.01, 0.05, 0.24, 0.69, 1.0]);
    let mut x = [s.splat(0.5); N];
    // Two of each, as there are two query vectors in a block.
    let (mut high, mut low, mut sum) = ([s.splat(0.0); 2], [s.splat(1.0); 2], [s.splat(0.0); 2]);
    let tiles = (STEPS / 2 / dim.max(1)).max(1);
    for _ in 0..tiles {
        for _ in 0..dim {
            for x in &mut x {
                *x = s.mul_add(*x, a, b);
            }
        }
        for pair in x.chunks_exact_mut(2) {
            for (n, x) in pair.iter_mut().enumerate() {
                high[n] = s.max(*x, high[n]);
                low[n] = s.min(*x, low[n]);
                let t = s.add(*x, c);
                let r = s.sub(*x, s.sub(t, c));
                let [first, rest @ ..] = power;
                let p = rest.iter().fold(s.splat(first), |p, &k| s.mul_add(p, r, s.splat(k)));
                *x = s.mul(p, s.exponent(t));
                sum[n] = s.add(sum[n], *x);
            }
        }
        for _ in 0..dim {
            for x in &mut x {
                *x = s.mul_add(*x, a, b);
            }
        }
    }
    keep(s, &x);
    [high, low, sum].iter().for_each(|x| keep(s, x));
    (4 * dim * tiles * N * S::LANES) as f64
}

/// Shows the sum to the optimiser's outside, so that nothing that led to it may be left out.
#[inline(always)]
fn keep<S: Simd<f32>, const N: usize>(s: S, x: &[S::V; N]) {
    let sum = x.iter().fold(s.splat(0.0), |sum, &x| s.add(sum, x));
    let mut lanes = [0.0; 16];
    s.store(sum, &mut lanes);
    black_box(lanes);
}

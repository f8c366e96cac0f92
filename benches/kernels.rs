//! The public kernels, back end by back end: `cargo bench --bench kernels`.
//!
//! Short runs by criterion, for comparing one version of a kernel with the next. Answers are checked first.

mod support;

use criterion::{criterion_group, criterion_main, BenchmarkId, Criterion, Throughput};
use std::hint::black_box;
use std::time::Duration;
use subquad::{kernels, Isa};
use support::Aligned;

const SIZES: [usize; 2] = [256, 4096];

/// One function of one number over a row, in f32 and, to compare, in f64.
fn map(c: &mut Criterion, name: &str, ulps: f64, kernel: fn(Isa, &[f32], &mut [f32]), exact: fn(f64) -> f64) {
    let mut group = c.benchmark_group(name);
    for (n, isa) in SIZES.into_iter().flat_map(|n| Isa::all().map(move |isa| (n, isa))) {
        let (x, mut y) = (Aligned::normal(n, 1), Aligned::zeros(n));
        kernel(isa, &x, &mut y);
        for (&x, &y) in x.iter().zip(y.iter()) {
            let want = exact(f64::from(x));
            // An ULP of a number is at most 2^-23 of it; the libraries' f64 functions are exact beside that.
            let tolerance = ulps * want.abs() * f64::from(f32::EPSILON);
            assert!((f64::from(y) - want).abs() <= tolerance, "{name} {x} on {}", isa.name());
        }
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(BenchmarkId::new(isa.name(), n), |b| {
            b.iter(|| kernel(isa, black_box(&x), black_box(&mut y)));
        });
    }
    group.finish();
}

/// Dot products in either type. `unit` is the type's unit roundoff.
fn dot<T: Copy + Into<f64>>(
    c: &mut Criterion,
    name: &str,
    unit: f64,
    number: fn(f32) -> T,
    kernel: fn(Isa, &[T], &[T]) -> T,
) {
    let mut group = c.benchmark_group(name);
    for (n, isa) in SIZES.into_iter().flat_map(|n| Isa::all().map(move |isa| (n, isa))) {
        let random = |seed| Aligned::normal(n, seed).iter().map(|&x| number(x)).collect::<Vec<T>>();
        let (x, y) = (random(1), random(2));
        let products = || x.iter().zip(&y).map(|(&x, &y)| x.into() * y.into());
        let (want, size) = (products().sum::<f64>(), products().map(f64::abs).sum::<f64>());
        // The kernel promises gamma(n / 16 + 5) of `size`; the sum here is itself off by gamma(n) of f64. A hundredth
        // covers the difference between gamma(n) and n u.
        let tolerance = 1.01 * size * ((n / 16 + 5) as f64 * unit + n as f64 * f64::EPSILON / 2.0);
        let error = (kernel(isa, &x, &y).into() - want).abs();
        assert!(error <= tolerance, "{name} on {}: {error:e}", isa.name());
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(BenchmarkId::new(isa.name(), n), |b| {
            b.iter(|| kernel(isa, black_box(&x), black_box(&y)));
        });
    }
    group.finish();
}

fn all(c: &mut Criterion) {
    map(c, "exp", 0.79, kernels::exp, f64::exp);
    map(c, "tanh", 2.0, kernels::tanh, f64::tanh);
    dot(c, "dot", f64::from(f32::EPSILON) / 2.0, |x| x, kernels::dot);
    dot(c, "dot_f64", f64::EPSILON / 2.0, f64::from, kernels::dot_f64);
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(20))
        .measurement_time(Duration::from_millis(100))
        .sample_size(20)
        .without_plots();
    targets = all
}
criterion_main!(benches);

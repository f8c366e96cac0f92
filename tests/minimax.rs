//! The table of minimax polynomials, found again by the exchange algorithm of Remez and compared with what is checked in.
//!
//!     SUBQUAD_BLESS=1 cargo test --test minimax      rewrites src/moment/minimax_table.rs

use std::fmt::Write as _;

/// Reaches in the table, each a little more than the round number, so that what is rounded up to it still fits.
const REACHES: [f64; 20] = [
    0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0,
];
const MARGIN: f64 = 1.0 + 1.0 / 16384.0;
const DEGREES: core::ops::RangeInclusive<usize> = 1..=12;
/// Errors outside are not worth a row: nobody wants the first, and rounding hides the second.
const WORTH: core::ops::Range<f64> = 3e-8..0.5;
const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/moment/minimax_table.rs");

/// Solves a square system by elimination with pivots.
#[allow(clippy::needless_range_loop)] // two rows of one matrix at a time
fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for i in 0..n {
        let pivot = (i..n).max_by(|&x, &y| a[x][i].abs().total_cmp(&a[y][i].abs())).unwrap();
        a.swap(i, pivot);
        b.swap(i, pivot);
        for r in i + 1..n {
            let f = a[r][i] / a[i][i];
            for c in i..n {
                a[r][c] -= f * a[i][c];
            }
            b[r] -= f * b[i];
        }
    }
    for i in (0..n).rev() {
        for c in i + 1..n {
            b[i] -= a[i][c] * b[c];
        }
        b[i] /= a[i][i];
    }
    b
}

fn at(p: &[f64], x: f64) -> f64 {
    p.iter().rev().fold(0.0, |y, &c| y * x + c)
}

/// `1 - p(x) e^(-reach x)` for x in [-1, 1].
fn miss(p: &[f64], reach: f64, x: f64) -> f64 {
    1.0 - at(p, x) * (-reach * x).exp()
}

/// Coefficients in `x = s / reach` that make the largest miss smallest.
fn remez(degree: usize, reach: f64) -> Vec<f64> {
    let points = degree + 2;
    let mut x: Vec<f64> = (0..points)
        .map(|i| -(core::f64::consts::PI * i as f64 / (points - 1) as f64).cos())
        .collect();
    let mut p = vec![];
    for _ in 0..40 {
        let rows = x.iter().enumerate().map(|(i, &x)| {
            let mut row: Vec<f64> = (0..=degree).map(|k| x.powi(k as i32) * (-reach * x).exp()).collect();
            row.push(if i % 2 == 0 { 1.0 } else { -1.0 });
            row
        });
        p = solve(rows.collect(), vec![1.0; points]);
        let level = p.pop().unwrap().abs();
        // The largest miss of every stretch of one sign.
        let grid = 20_000;
        let mut peaks: Vec<(f64, f64)> = vec![];
        for i in 0..=grid {
            let x = -1.0 + 2.0 * i as f64 / grid as f64;
            let y = miss(&p, reach, x);
            match peaks.last_mut() {
                Some(last) if last.1 * y > 0.0 => {
                    if y.abs() > last.1.abs() {
                        *last = (x, y);
                    }
                }
                _ => peaks.push((x, y)),
            }
        }
        while peaks.len() > points {
            let (first, last) = (peaks[0].1.abs(), peaks[peaks.len() - 1].1.abs());
            peaks.remove(if first < last { 0 } else { peaks.len() - 1 });
        }
        let largest = peaks.iter().fold(0.0f64, |m, p| m.max(p.1.abs()));
        if peaks.len() < points || largest < level * (1.0 + 1e-7) {
            break;
        }
        x = peaks.iter().map(|p| p.0).collect();
    }
    p
}

/// At least the largest miss of f32 coefficients in s: on a grid, plus what can happen between its points.
fn verified(c: &[f32], reach: f64) -> f64 {
    let c: Vec<f64> = c.iter().map(|&c| f64::from(c)).collect();
    let slope: Vec<f64> = c.iter().enumerate().skip(1).map(|(j, &c)| j as f64 * c).collect();
    let curve: Vec<f64> = slope.iter().enumerate().skip(1).map(|(j, &c)| j as f64 * c).collect();
    let steps = 100_000;
    let h = 2.0 * reach / f64::from(steps);
    let (mut largest, mut bend) = (0.0f64, 0.0f64);
    for i in 0..=steps {
        let s = -reach + h * f64::from(i);
        let e = (-s).exp();
        largest = largest.max((1.0 - at(&c, s) * e).abs());
        bend = bend.max((at(&curve, s) - 2.0 * at(&slope, s) + at(&c, s)).abs() * e);
    }
    // Between two points the miss leaves its chord by at most h^2 / 8 times its second derivative, which is taken at the
    // points and doubled. The rest is for the rounding of this sum.
    largest + h * h / 8.0 * 2.0 * bend + 1e-13
}

/// The next f32 that is not below.
fn ceil32(x: f64) -> f32 {
    let y = x as f32;
    if f64::from(y) < x {
        f32::from_bits(y.to_bits() + 1)
    } else {
        y
    }
}

fn table() -> String {
    let mut text = String::from(
        "//! Written by `SUBQUAD_BLESS=1 cargo test --test minimax`. Do not edit.\n\nuse super::minimax::Minimax;\n\n\
         /// By reach, then by degree.\n#[rustfmt::skip]\npub(super) static TABLE: &[Minimax] = &[\n",
    );
    for reach in REACHES.map(|r| r * MARGIN) {
        for degree in DEGREES {
            let p = remez(degree, reach);
            let c: Vec<f32> = p
                .iter()
                .enumerate()
                .map(|(k, c)| (c / reach.powi(k as i32)) as f32)
                .collect();
            let reach = reach as f32; // exact: a few bits
            let error = verified(&c, f64::from(reach));
            if error < WORTH.start {
                break; // more terms are noise
            }
            if error > WORTH.end {
                continue;
            }
            let list: Vec<String> = c.iter().map(|c| format!("{c:?}")).collect();
            writeln!(
                text,
                "    Minimax {{ reach: {reach:?}, error: {:?}, coefficients: &[{}] }},",
                ceil32(error),
                list.join(", ")
            )
            .unwrap();
        }
    }
    text.push_str("];\n");
    text
}

#[test]
fn the_table_is_what_the_algorithm_finds() {
    let table = table();
    if std::env::var_os("SUBQUAD_BLESS").is_some() {
        std::fs::write(PATH, &table).unwrap();
    }
    let kept = std::fs::read_to_string(PATH).unwrap();
    assert!(
        kept == table,
        "src/moment/minimax_table.rs is not what the algorithm finds"
    );
}

#[test]
fn errors_are_those_of_the_literature() {
    // Degrees and errors of best relative approximation, by an independent program.
    let known = [
        (0.5, 2, 5.1e-3),
        (1.0, 4, 5.0e-4),
        (2.0, 6, 3.6e-4),
        (4.0, 8, 2.0e-3),
        (6.0, 10, 4.4e-3),
    ];
    for (reach, degree, error) in known {
        let p = remez(degree, reach);
        let worst = (0..=10_000)
            .map(|i| miss(&p, reach, -1.0 + f64::from(i) / 5000.0).abs())
            .fold(0.0, f64::max);
        assert!(
            (worst / error - 1.0).abs() < 2.5e-2,
            "{reach} {degree}: {worst:e} {error:e}"
        );
    }
}

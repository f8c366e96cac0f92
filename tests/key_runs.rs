//! How keys are cut into runs changes no bit, whatever the scores: rising late, spread over hundreds of powers of two, at
//! ties, or so large that f32 runs out of fractions.
//!
//! The promise has a condition. A weight that is rescaled is at least 2^-100, hence a multiple of 2^-123; times a value
//! that is a multiple of 2^-26 (any value of at least 1/8 is) it is a multiple of 2^-149. Sums below 2^-126 hold such
//! numbers without rounding, so scaling by a power of two commutes with every addition, whatever cancels. Finer values
//! can leave a difference in the fused class, whose products are exact: where low keys cancel and the high ones, which
//! came later, have the value 0. What differs then is below 2^-126; the last test shows both sides of the border.

#[path = "key_runs/scores.rs"]
mod scores;

use scores::{Problem, Rng, ORDERS, SPREADS, VALUES};
use subquad::Isa;

const RUNS: [usize; 8] = [1, 2, 3, 7, 16, 32, 192, 1000];

fn class(fused: bool) -> Vec<Isa> {
    Isa::all().filter(|isa| isa.fused() == fused).collect()
}

fn rounds(gate: u64) -> u64 {
    if std::env::var_os("SUBQUAD_LONG").is_some() {
        gate * 10
    } else {
        gate
    }
}

#[test]
fn no_cut_changes_a_bit() {
    let (mut problems, mut comparisons, mut numbers, mut differing, mut repeated) = (0, 0, 0, 0, 0);
    for (spread, order) in SPREADS.iter().flat_map(|&s| ORDERS.map(|o| (s, o))) {
        for (carried, seed) in VALUES.iter().flat_map(|&v| (0..rounds(20)).map(move |seed| (v, seed))) {
            let mut rng = Rng(seed ^ 0x5678_0000);
            let p = Problem::chosen(&mut rng, (spread, order, carried));
            for isas in [class(false), class(true)] {
                problems += 1;
                let isa = isas[rng.below(isas.len())];
                let whole = p.solve(isas[0], 1000).0;
                for run in RUNS {
                    let (found, twice) = p.solve(isa, run);
                    let differ = found.iter().zip(&whole).filter(|(a, b)| a != b).count();
                    if differ > 0 && differing == 0 {
                        println!(
                            "first: {spread:?} {order:?} {carried:?} {seed}, runs of {run} on {}",
                            isa.name()
                        );
                    }
                    comparisons += 1;
                    numbers += whole.len();
                    differing += differ;
                    repeated += twice;
                }
            }
        }
    }
    println!("{problems} problems, {comparisons} comparisons of {numbers} numbers, {differing} differ");
    println!("{repeated} blocks were run twice");
    assert!(differing == 0 && repeated > problems);
}

/// Pairs of low keys whose values cancel, then a key of value 0 that raises the reference by 98.
fn cancelling(rng: &mut Rng, mut value: impl FnMut(&mut Rng) -> f32) -> Problem {
    let (mut s, mut v) = (vec![], vec![]);
    for _ in 0..2 + rng.below(6) {
        let (score, value) = (-98.0 - rng.below(1000) as f32 / 1000.0, value(rng));
        s.extend([score, score]);
        v.extend([value, -value]);
    }
    s.push(0.0);
    v.push(0.0);
    Problem::row(s, v)
}

#[test]
fn values_finer_than_promised_differ_below_the_smallest_normal_number() {
    let mantissa = |rng: &mut Rng| 1.0 + rng.below(1 << 23) as f32 / 8_388_608.0;
    for (fused, promised) in [(false, true), (false, false), (true, true), (true, false)] {
        let isa = class(fused)[0];
        let (mut differing, mut largest) = (0, 0.0f32);
        for seed in 0..4000 {
            let p = cancelling(&mut Rng(seed), |rng| {
                if promised {
                    // From 1/8 up, all 24 bits.
                    mantissa(rng) * if rng.once_in(2) { 0.125 } else { 0.5 }
                } else {
                    mantissa(rng) * 0.01
                }
            });
            let ((whole, _), (cut, repeated)) = (p.solve(isa, 1000), p.solve(isa, 1));
            // Spread less than 100: nothing is run twice, or this would show nothing.
            assert_eq!(repeated, 0);
            for (a, b) in whole.into_iter().zip(cut).filter(|(a, b)| a != b) {
                differing += 1;
                largest = largest.max(f32::from_bits(a).abs()).max(f32::from_bits(b).abs());
            }
        }
        println!("fused {fused}, values of at least 1/8 {promised}: {differing} numbers differ, largest {largest:e}");
        assert!(largest < f32::MIN_POSITIVE);
        // In the strict class products are rounded first, to multiples of 2^-149 as long as they are normal.
        assert_eq!(differing > 0, fused && !promised);
    }
}

//! The softmax weight, over its whole range, against f64. `tests/ulp.rs` does the same for what is public.
//!
//! ```text
//! cargo test --features emulation --lib sweep -- --nocapture     every 257th f32; all of them with SUBQUAD_LONG=1
//! ```

use super::elementary::power;
use super::weight::weight;
use crate::simd::{Emu, FusedEmu, Simd};
use std::println;

/// What the error bounds of attention take the relative error of a weight to be. The sweep over every f32 finds
/// 1.54e-7 fused and 1.63e-7 strict.
const LIMIT: f64 = 1.63e-7;

const HALF: u32 = 0x3f00_0000;

/// Largest relative error of `2^r` over r of one sign, and where.
fn worst<S: Simd<f32, V = [f32; 8]>>(s: S, sign: u32, step: u32) -> (f64, f32) {
    let mut found = (0.0, 0.0);
    let mut first = 0;
    while first <= HALF {
        // Beyond 1/2 the last vector repeats the end.
        let lane = |i: usize| f32::from_bits((first + i as u32 * step).min(HALF) | sign);
        let r = core::array::from_fn(lane);
        let p = power(s, r);
        // At the reference 1 the weight is 2^(r - 1): the same polynomial at the same r, but where a tie is rounded.
        let w = weight(s, r, [1.0; 8]);
        for (r, (p, w)) in r.into_iter().zip(p.into_iter().zip(w)) {
            assert_eq!(w, p * 0.5, "2^({r:e} - 1)");
            assert!(if r < 0.0 { p <= 1.0 } else { p >= 1.0 }, "2^{r:e} = {p:e}");
            let exact = f64::from(r).exp2();
            let error = (f64::from(p) - exact).abs() / exact;
            if error > found.0 {
                found = (error, r);
            }
        }
        first += 8 * step;
    }
    found
}

fn check<S: Simd<f32, V = [f32; 8]> + Send>(s: S, name: &str) {
    let step = if std::env::var_os("SUBQUAD_LONG").is_some() {
        1
    } else {
        257
    };
    let (minus, plus) = std::thread::scope(|scope| {
        let minus = scope.spawn(move || worst(s, 0x8000_0000, step));
        let plus = worst(s, 0, step);
        (minus.join().unwrap(), plus)
    });
    let (error, at) = if minus.0 > plus.0 { minus } else { plus };
    println!(
        "weight {name:6} max relative error {error:.4e} at {at:e} ({:#010x})",
        at.to_bits()
    );
    // A polynomial of degree 5 in f32 cannot be better than half a unit: less means that nothing was measured.
    assert!(error > 5e-8 && error <= LIMIT, "{error:e}");

    let [up, down, zero, ..] = power(s, [0.5, -0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!((up, zero), (2.0 * down, 1.0));
}

#[test]
fn strict_weights_keep_their_promise() {
    check(Emu::<8>, "strict");
}

#[test]
fn fused_weights_keep_their_promise() {
    check(FusedEmu::<8>, "fused");
}

//! The laws of a back end: every operation of every machine against plain Rust, lane by lane.

mod widening;

use super::*;
use std::{vec, vec::Vec};

/// A number with awkward examples of itself.
trait Number: Real {
    /// Signed zeros, infinities, NaNs with payloads, subnormals, the ends of the range, neighbours of 1, and ordinary
    /// numbers.
    fn awkward() -> Vec<Self>;
    fn bits(self) -> u64;
    /// `2^n`, and 0 one below the smallest exponent of a normal number.
    fn power_of_two(n: i32) -> Self;
    /// Exponents of normal numbers, and the one below.
    fn exponents() -> core::ops::RangeInclusive<i32>;
    fn whole(n: i32) -> Self;
    fn epsilon() -> Self;
}

macro_rules! number {
    ($t:ident) => {
        impl Number for $t {
            fn awkward() -> Vec<Self> {
                let tiny = $t::from_bits(1);
                let subnormal = $t::from_bits($t::MIN_POSITIVE.to_bits() - 1);
                let nan = $t::from_bits($t::NAN.to_bits() | 5);
                let positive = [
                    0.0,
                    1.0,
                    tiny,
                    subnormal,
                    $t::MIN_POSITIVE,
                    $t::MAX,
                    $t::INFINITY,
                    nan,
                    1.0 + $t::EPSILON,
                    1.0 - $t::EPSILON / 2.0,
                    $t::EPSILON,
                    1.0 / 3.0,
                    2.5,
                    1e10,
                    1e-10,
                    $t::MAX.sqrt(),
                ];
                positive.into_iter().flat_map(|x| [x, -x]).collect()
            }
            fn bits(self) -> u64 {
                self.to_bits().into()
            }
            fn power_of_two(n: i32) -> Self {
                if n < $t::MIN_EXP - 1 {
                    0.0
                } else {
                    (2.0 as $t).powi(n)
                }
            }
            fn exponents() -> core::ops::RangeInclusive<i32> {
                $t::MIN_EXP - 2..=$t::MAX_EXP - 1
            }
            fn whole(n: i32) -> Self {
                n as $t
            }
            fn epsilon() -> Self {
                $t::EPSILON
            }
        }
    };
}

number!(f32);
number!(f64);

/// Calls a law for both numbers on every machine that runs here.
macro_rules! everywhere {
    ($law:ident) => {
        everywhere!($law, f32);
        everywhere!($law, f64);
    };
    ($law:ident, $t:ty) => {
        $law::<$t, _>(Emu::<1>);
        $law::<$t, _>(Emu::<4>);
        $law::<$t, _>(Emu::<8>);
        $law::<$t, _>(Emu::<16>);
        $law::<$t, _>(FusedEmu::<1>);
        $law::<$t, _>(FusedEmu::<4>);
        $law::<$t, _>(FusedEmu::<8>);
        $law::<$t, _>(FusedEmu::<16>);
        #[cfg(isa_x86)]
        if let Some(s) = Avx2::detect() {
            $law::<$t, _>(s);
            $law::<$t, _>(Strict(s));
        }
        #[cfg(isa_x86)]
        if let Some(s) = Avx512::detect() {
            $law::<$t, _>(s);
            $law::<$t, _>(Strict(s));
        }
        #[cfg(isa_neon)]
        {
            $law::<$t, _>(Neon::detect());
            $law::<$t, _>(Strict(Neon::detect()));
        }
        #[cfg(isa_wasm)]
        $law::<$t, _>(Wasm::detect());
    };
}

/// A vector whose lane `l` is `x(l)`.
fn vector<T: Number, S: Simd<T>>(s: S, x: impl Fn(usize) -> T) -> S::V {
    let lanes: Vec<T> = (0..S::LANES).map(x).collect();
    s.load(&lanes)
}

fn lanes<T: Number, S: Simd<T>>(s: S, v: S::V) -> Vec<T> {
    let mut lanes = vec![T::ONE; S::LANES];
    s.store(v, &mut lanes);
    lanes
}

fn bits<T: Number>(x: &[T]) -> Vec<u64> {
    x.iter().map(|x| x.bits()).collect()
}

/// Equal bits; which NaN an arithmetic operation makes is not promised.
#[allow(clippy::eq_op)] // only a NaN differs from itself
fn same<T: Number>(a: T, b: T) -> bool {
    a.bits() == b.bits() || (a != a && b != b)
}

/// Every pair of awkward numbers in every lane, and every triple in some.
fn arithmetic<T: Number, S: Simd<T>>(s: S) {
    let x = T::awkward();
    let n = x.len();
    let first = |i: usize| x[i % n];
    let second = |i: usize| x[i / n % n];
    let third = |i: usize| x[i / n / n % n];
    let binary = |name: &str, f: &dyn Fn(S::V, S::V) -> S::V, plain: &dyn Fn(T, T) -> T, exact: bool| {
        for i in 0..n * n {
            let got = lanes(s, f(vector(s, |l| first(i + l)), vector(s, |l| second(i + l))));
            for (l, &got) in got.iter().enumerate() {
                let (a, b) = (first(i + l), second(i + l));
                let want = plain(a, b);
                let right = if exact {
                    got.bits() == want.bits()
                } else {
                    same(got, want)
                };
                assert!(right, "{name}({a:?}, {b:?}) = {got:?}, not {want:?}");
            }
        }
    };
    binary("add", &|a, b| s.add(a, b), &|a, b| a + b, false);
    binary("sub", &|a, b| s.sub(a, b), &|a, b| a - b, false);
    binary("mul", &|a, b| s.mul(a, b), &|a, b| a * b, false);
    binary("div", &|a, b| s.div(a, b), &|a, b| a / b, false);
    // These choose one of their arguments, NaN payload and sign of zero included.
    binary("max", &|a, b| s.max(a, b), &|a, b| if a > b { a } else { b }, true);
    binary("min", &|a, b| s.min(a, b), &|a, b| if a < b { a } else { b }, true);
    let (yes, no) = (s.splat(T::ONE), s.splat(T::ZERO));
    let truth = |x: bool| if x { T::ONE } else { T::ZERO };
    binary(
        "less",
        &|a, b| s.select(s.less(a, b), yes, no),
        &|a, b| truth(a < b),
        true,
    );
    binary(
        "equal",
        &|a, b| s.select(s.equal(a, b), yes, no),
        &|a, b| truth(a == b),
        true,
    );
    binary(
        "select",
        &|a, b| s.select(s.less(a, b), a, b),
        &|a, b| if a < b { a } else { b },
        true,
    );
    for i in (0..n * n * n).step_by(S::LANES) {
        let (a, b, c) = (
            vector(s, |l| first(i + l)),
            vector(s, |l| second(i + l)),
            vector(s, |l| third(i + l)),
        );
        for (l, got) in lanes(s, s.mul_add(a, b, c)).into_iter().enumerate() {
            let (a, b, c) = (first(i + l), second(i + l), third(i + l));
            let want = if S::FUSED { a.fused(b, c) } else { a * b + c };
            assert!(same(got, want), "mul_add({a:?}, {b:?}, {c:?}) = {got:?}, not {want:?}");
        }
    }
}

/// Operations on the representation.
fn representation<T: Number, S: Simd<T>>(s: S) {
    let x = T::awkward();
    // Awkward numbers come in pairs: x at even places, -x behind it.
    for i in 0..x.len() {
        for (l, got) in lanes(s, s.abs(vector(s, |l| x[(i + l) % x.len()])))
            .into_iter()
            .enumerate()
        {
            assert_eq!(got.bits(), x[((i + l) % x.len()) & !1].bits());
        }
        assert_eq!(bits(&lanes(s, s.splat(x[i]))), vec![x[i].bits(); S::LANES]);
    }
    let powers: Vec<i32> = T::exponents().collect();
    for i in 0..powers.len() {
        let n = |l: usize| powers[(i + l) % powers.len()];
        let got = lanes(s, s.exponent(vector(s, |l| T::MAGIC + T::whole(n(l)))));
        for (l, got) in got.into_iter().enumerate() {
            assert_eq!(got.bits(), T::power_of_two(n(l)).bits(), "2^{}", n(l));
        }
    }
    let n = x.len();
    for i in 0..n * n {
        let (seen, a, b) = (
            |l: usize| x[(i + l) % n],
            |l: usize| x[(i / n + l) % n],
            |l: usize| x[(3 * i + l) % n],
        );
        let got = lanes(s, s.differences(vector(s, seen), vector(s, a), vector(s, b)));
        for (l, got) in got.into_iter().enumerate() {
            assert_eq!(got.bits(), seen(l).bits() | (a(l).bits() ^ b(l).bits()));
        }
        let shared = (0..S::LANES).any(|l| seen(l).bits() & a(l).bits() != 0);
        assert_eq!(s.any_bit(vector(s, seen), vector(s, a)), shared);
    }
    // All lanes, none, all but one, one only.
    let zero = s.splat(T::ZERO);
    assert!(s.all(s.equal(zero, zero)));
    assert!(!s.all(s.less(zero, zero)));
    for at in 0..S::LANES {
        let one = vector(s, |l| if l == at { T::ONE } else { T::ZERO });
        assert!(!s.all(s.equal(one, zero)));
        assert_eq!(s.all(s.less(zero, one)), S::LANES == 1);
    }
}

/// Loads and stores of every length.
fn memory<T: Number, S: Simd<T>>(s: S) {
    let x: Vec<T> = T::awkward().into_iter().cycle().skip(3).take(40).collect();
    let (fill, old) = (T::whole(7), T::whole(9));
    for start in 0..4 {
        for n in 0..=S::LANES + 3 {
            let part = &x[start..start + n];
            let fits = n >= S::LANES;
            let whole: Vec<T> = if fits {
                part[..S::LANES].to_vec()
            } else {
                vec![T::ZERO; S::LANES]
            };
            assert_eq!(bits(&lanes(s, s.load(part))), bits(&whole), "load {n}");

            let some: Vec<T> = (0..S::LANES).map(|l| part.get(l).copied().unwrap_or(fill)).collect();
            assert_eq!(bits(&lanes(s, s.load_part(part, fill))), bits(&some), "load_part {n}");

            let v = s.load(&x[start..]);
            let (mut all, mut few) = (vec![old; n], vec![old; n]);
            s.store(v, &mut all);
            s.store_part(v, &mut few);
            for l in 0..n {
                let (to_all, to_few) = (fits && l < S::LANES, l < S::LANES);
                assert_eq!(
                    all[l].bits(),
                    if to_all { x[start + l] } else { old }.bits(),
                    "store {n}"
                );
                assert_eq!(
                    few[l].bits(),
                    if to_few { x[start + l] } else { old }.bits(),
                    "store_part {n}"
                );
            }
        }
        // Sixteen lanes, and nothing beyond them.
        let mut out = vec![old; 20];
        s.store16(s.load16(&x[start..]), &mut out);
        assert_eq!(bits(&out[..16]), bits(&x[start..start + 16]));
        assert_eq!(bits(&out[16..]), bits(&[old; 4]));
        s.store16(s.splat16(x[start]), &mut out);
        assert_eq!(bits(&out[..16]), bits(&[x[start]; 16]));
    }
}

/// Halves added to halves, one addition after the other.
fn halving<T: Number>(mut x: [T; 16]) -> T {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            x[i] = x[i] + x[i + half];
        }
    }
    x[0]
}

/// Numbers of many sizes with all their digits, so that every order of additions has bits of its own.
fn uneven<T: Number>(seed: u32) -> [T; 16] {
    core::array::from_fn(|i| {
        let mix = (seed * 16 + i as u32 + 1).wrapping_mul(2_654_435_761);
        let mix = (mix ^ (mix >> 15)).wrapping_mul(2_246_822_519);
        T::whole((mix >> 8) as i32 - (1 << 23)) / T::whole(3) * T::power_of_two((mix % 13) as i32 - 30)
    })
}

fn reductions<T: Number, S: Simd<T>>(s: S) {
    let awkward = T::awkward();
    for seed in 0..200 {
        let mut rows: [[T; 16]; 16] = core::array::from_fn(|r| uneven(seed * 16 + r as u32));
        // One awkward number, in every place of every row over the seeds.
        let (seed, at) = (seed as usize, |n: usize| n % 16);
        rows[at(seed)][at(seed / 16 + seed)] = awkward[seed % awkward.len()];
        let sums = s.sums16(&core::array::from_fn(|r| s.load16(&rows[r])));
        let mut got = [T::ZERO; 16];
        s.store16(sums, &mut got);
        for (r, row) in rows.iter().enumerate() {
            let want = halving(*row);
            let one = s.sum16(s.load16(row));
            assert!(same(one, want), "sum16 {one:?} {want:?}");
            assert!(same(got[r], want), "sums16, row {r}: {:?} {want:?}", got[r]);
        }
        let [a, b, c, ..] = rows;
        let mut got = [T::ZERO; 16];
        s.store16(s.mul_add16(s.load16(&a), s.load16(&b), s.load16(&c)), &mut got);
        for l in 0..16 {
            let want = if S::FUSED {
                a[l].fused(b[l], c[l])
            } else {
                a[l] * b[l] + c[l]
            };
            assert!(same(got[l], want), "mul_add16 {:?} {want:?}", got[l]);
        }
    }
    // The tree is not the order of reading, or the test above would prove little.
    let differs = |seed| {
        let x = uneven::<T>(seed);
        halving(x).bits() != x.into_iter().fold(T::ZERO, |sum, x| sum + x).bits()
    };
    assert!((0..200).filter(|&seed| differs(seed)).count() > 50);
}

/// (1 + e)(1 - e) - 1 is -e^2 with one rounding, and 0 with two.
fn fusion<T: Number, S: Simd<T>>(s: S) {
    let e = T::epsilon();
    let v = s.mul_add(s.splat(T::ONE + e), s.splat(T::ONE - e), s.splat(T::ZERO - T::ONE));
    let want = if S::FUSED { T::ZERO - e * e } else { T::ZERO };
    assert_eq!(bits(&lanes(s, v)), vec![want.bits(); S::LANES]);
    // The cut of the sixteen is that of the vectors.
    assert_eq!(s.splat16(T::ZERO).as_ref().len() * S::LANES, 16);
}

#[test]
fn arithmetic_is_ieee_754() {
    everywhere!(arithmetic);
}

#[test]
fn representations_are_those_of_scalars() {
    everywhere!(representation);
}

#[test]
fn loads_and_stores_are_total() {
    everywhere!(memory);
}

#[test]
fn sixteen_lanes_add_up_in_halves() {
    everywhere!(reductions);
}

#[test]
fn fused_fuses_and_strict_does_not() {
    everywhere!(fusion);
    #[cfg(isa_x86)]
    if let Some(s) = Avx2::detect() {
        const { assert!(<Avx2 as Simd<f32>>::FUSED && !<Strict<Avx2> as Simd<f32>>::FUSED) };
        assert!(Isa::Avx2(s).fused() && !Isa::Avx2(s).strict().fused());
    }
}

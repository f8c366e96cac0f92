//! Loads that widen, against the meaning of each stored number.

use super::*;

/// Loads that widen, of every number there is, and of every length.
fn widening<S: Widen>(s: S) {
    fn law<S: Widen, K: Stored>(s: S, all: &[K::Bits], meaning: fn(K::Bits) -> f32) {
        let means: Vec<f32> = all.iter().map(|&x| meaning(x)).collect();
        for (part, want) in all.chunks_exact(16).zip(means.chunks_exact(16)) {
            let mut got = [7.0; 16];
            s.store16(K::load16(s, part), &mut got);
            assert_eq!(bits(&got), bits(want));
        }
        for n in 0..S::LANES + 3 {
            let (part, lane) = (&all[5..5 + n], |l: usize| if l < n { means[5 + l] } else { 0.0 });
            let want: Vec<f32> = (0..S::LANES).map(lane).collect();
            assert_eq!(bits(&lanes(s, K::load_part(s, part))), bits(&want), "load_part {n}");
            let want = if n < S::LANES { vec![0.0; S::LANES] } else { want };
            assert_eq!(bits(&lanes(s, K::load(s, part))), bits(&want), "load {n}");
        }
    }
    let all: Vec<u16> = (0..=u16::MAX).collect();
    law::<S, F16>(s, &all, crate::half::f32_from_f16);
    law::<S, Bf16>(s, &all, crate::half::f32_from_bf16);
    let all: Vec<i8> = (i8::MIN..=i8::MAX).collect();
    law::<S, I8>(s, &all, f32::from);
}

#[test]
fn widening_is_exact() {
    macro_rules! on {
        ($($s:expr),+) => {$( widening($s); )+};
    }
    on!(
        Emu::<1>,
        Emu::<4>,
        Emu::<8>,
        Emu::<16>,
        FusedEmu::<1>,
        FusedEmu::<4>,
        FusedEmu::<8>,
        FusedEmu::<16>
    );
    #[cfg(isa_x86)]
    if let Some(s) = Avx2::detect() {
        on!(s, Strict(s));
    }
    #[cfg(isa_x86)]
    if let Some(s) = Avx512::detect() {
        on!(s, Strict(s));
    }
    #[cfg(isa_neon)]
    on!(Neon::detect(), Strict(Neon::detect()));
    #[cfg(isa_wasm)]
    on!(Wasm::detect());
}

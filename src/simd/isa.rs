//! Which back end: a value that names one, and the macro that turns it into code.
#![allow(unsafe_code)]

use super::{Scalar, Simd};

#[cfg(isa_neon)]
use super::Neon;
#[cfg(any(isa_x86, isa_neon))]
use super::Strict;
#[cfg(isa_wasm)]
use super::Wasm;
#[cfg(isa_x86)]
use super::{Avx2, Avx512};
#[cfg(any(test, feature = "emulation"))]
use super::{Emu, FusedEmu};

/// The list of back ends: variant, token, number in the C interface, name, and where it exists.
macro_rules! isas {
    ($($(#[doc = $doc:literal])* $(#[cfg($cfg:meta)])* $variant:ident($token:ty) = $number:literal, $name:literal;)+) => {
        /// A back end that this machine has.
        ///
        /// Plans hold one; [`Isa::best`] is the default, and anything in [`Isa::all`] may be forced. Two machines of the
        /// same [class](Isa::fused) give the same bits.
        #[derive(Clone, Copy, Debug)]
        #[non_exhaustive]
        pub enum Isa {
            $($(#[doc = $doc])* $(#[cfg($cfg)])* $variant($token),)+
        }

        impl Isa {
            /// A short name, as the examples and benches print it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $($(#[cfg($cfg)])* Isa::$variant(_) => $name,)+
                }
            }

            /// The number in the C interface, which never changes; 0 for those that only tests have.
            #[must_use]
            pub const fn number(self) -> i32 {
                match self {
                    $($(#[cfg($cfg)])* Isa::$variant(_) => $number,)+
                }
            }

            /// Lanes of f32 in one vector.
            #[must_use]
            pub const fn lanes(self) -> usize {
                match self {
                    $($(#[cfg($cfg)])* Isa::$variant(_) => <$token as Simd<f32>>::LANES,)+
                }
            }

            /// Vector registers.
            #[must_use]
            pub const fn registers(self) -> usize {
                match self {
                    $($(#[cfg($cfg)])* Isa::$variant(_) => <$token as Simd<f32>>::REGISTERS,)+
                }
            }

            /// The arithmetic class: true where multiply-add rounds once. Inside a class results are equal, bit for bit.
            #[must_use]
            pub const fn fused(self) -> bool {
                match self {
                    $($(#[cfg($cfg)])* Isa::$variant(_) => <$token as Simd<f32>>::FUSED,)+
                }
            }
        }
    };
}

isas! {
    /// Portable lanes: everywhere, strict.
    Scalar(Scalar) = 1, "scalar";
    /// 256-bit vectors, fused.
    #[cfg(isa_x86)]
    Avx2(Avx2) = 2, "avx2";
    /// 512-bit vectors, fused.
    #[cfg(isa_x86)]
    Avx512(Avx512) = 3, "avx512";
    /// 256-bit vectors, strict.
    #[cfg(isa_x86)]
    StrictAvx2(Strict<Avx2>) = 4, "avx2-strict";
    /// 512-bit vectors, strict.
    #[cfg(isa_x86)]
    StrictAvx512(Strict<Avx512>) = 5, "avx512-strict";
    /// 128-bit vectors, fused.
    #[cfg(isa_neon)]
    Neon(Neon) = 6, "neon";
    /// 128-bit vectors, strict.
    #[cfg(isa_neon)]
    StrictNeon(Strict<Neon>) = 7, "neon-strict";
    /// 128-bit vectors, strict (wasm has no deterministic fused multiply-add).
    #[cfg(isa_wasm)]
    Wasm(Wasm) = 8, "wasm-simd128";
    /// One lane in software, strict. For tests, like all that follow: every width that no machine at hand may have, but not
    /// every width in both classes, as each takes a compiler ten seconds.
    #[cfg(any(test, feature = "emulation"))]
    Emu1(Emu<1>) = 0, "emu1";
    /// Sixteen lanes, strict.
    #[cfg(any(test, feature = "emulation"))]
    Emu16(Emu<16>) = 0, "emu16";
    /// One lane, fused.
    #[cfg(any(test, feature = "emulation"))]
    FusedEmu1(FusedEmu<1>) = 0, "fused-emu1";
    /// Four lanes, fused.
    #[cfg(any(test, feature = "emulation"))]
    FusedEmu4(FusedEmu<4>) = 0, "fused-emu4";
}

impl Isa {
    /// Portable lanes, on every machine.
    pub const SCALAR: Isa = Isa::Scalar(super::emu::Emu);

    /// The fastest back end of this machine.
    #[must_use]
    pub fn best() -> Isa {
        #[cfg(isa_x86)]
        {
            if let Some(s) = Avx512::detect() {
                return Isa::Avx512(s);
            }
            if let Some(s) = Avx2::detect() {
                return Isa::Avx2(s);
            }
        }
        #[cfg(isa_neon)]
        return Isa::Neon(Neon::detect());
        #[cfg(isa_wasm)]
        return Isa::Wasm(Wasm::detect());
        #[cfg(not(any(isa_neon, isa_wasm)))]
        Isa::SCALAR
    }

    /// Every back end of this machine, the portable one first.
    pub fn all() -> impl Iterator<Item = Isa> {
        let all = [
            Some(Isa::SCALAR),
            #[cfg(isa_x86)]
            Avx2::detect().map(Isa::Avx2),
            #[cfg(isa_x86)]
            Avx512::detect().map(Isa::Avx512),
            #[cfg(isa_x86)]
            Avx2::detect().map(|s| Isa::StrictAvx2(Strict(s))),
            #[cfg(isa_x86)]
            Avx512::detect().map(|s| Isa::StrictAvx512(Strict(s))),
            #[cfg(isa_neon)]
            Some(Isa::Neon(Neon::detect())),
            #[cfg(isa_neon)]
            Some(Isa::StrictNeon(Strict(Neon::detect()))),
            #[cfg(isa_wasm)]
            Some(Isa::Wasm(Wasm::detect())),
            #[cfg(any(test, feature = "emulation"))]
            Some(Isa::Emu1(Emu)),
            #[cfg(any(test, feature = "emulation"))]
            Some(Isa::Emu16(Emu)),
            #[cfg(any(test, feature = "emulation"))]
            Some(Isa::FusedEmu1(FusedEmu)),
            #[cfg(any(test, feature = "emulation"))]
            Some(Isa::FusedEmu4(FusedEmu)),
        ];
        all.into_iter().flatten()
    }

    /// The same vectors without fusing: the arithmetic class of every machine.
    #[must_use]
    pub const fn strict(self) -> Isa {
        match self {
            #[cfg(isa_x86)]
            Isa::Avx2(s) => Isa::StrictAvx2(Strict(s)),
            #[cfg(isa_x86)]
            Isa::Avx512(s) => Isa::StrictAvx512(Strict(s)),
            #[cfg(isa_neon)]
            Isa::Neon(s) => Isa::StrictNeon(Strict(s)),
            #[cfg(any(test, feature = "emulation"))]
            Isa::FusedEmu1(_) => Isa::Emu1(Emu),
            #[cfg(any(test, feature = "emulation"))]
            Isa::FusedEmu4(_) => Isa::SCALAR,
            strict => strict,
        }
    }
}

/// Calls `$f(token, args)` with the token that `$isa` holds, compiled for its instructions.
///
/// `f` and all it calls with vectors must be `#[inline(always)]`: only then do they end up in the function that
/// carries the target feature. A test of the release binary counts what was forgotten.
macro_rules! dispatch {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $path:path;)+) => {$(
        $(#[$meta])*
        #[allow(unsafe_code)]
        $vis fn $name(isa: $crate::simd::Isa, $($arg: $ty),*) $(-> $ret)? {
            use $crate::simd::*;
            match isa {
                Isa::Scalar(s) => $path(s, $($arg),*),
                #[cfg(isa_x86)]
                Isa::Avx2(s) => {
                    #[target_feature(enable = "avx2,fma")]
                    fn on(s: Avx2, $($arg: $ty),*) $(-> $ret)? { $path(s, $($arg),*) }
                    // SAFETY: `s` exists, so this machine has AVX2 and FMA.
                    unsafe { on(s, $($arg),*) }
                }
                #[cfg(isa_x86)]
                Isa::StrictAvx2(s) => {
                    #[target_feature(enable = "avx2,fma")]
                    fn on(s: Strict<Avx2>, $($arg: $ty),*) $(-> $ret)? { $path(s, $($arg),*) }
                    // SAFETY: `s` exists, so this machine has AVX2 and FMA.
                    unsafe { on(s, $($arg),*) }
                }
                #[cfg(isa_x86)]
                Isa::Avx512(s) => {
                    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
                    fn on(s: Avx512, $($arg: $ty),*) $(-> $ret)? { $path(s, $($arg),*) }
                    // SAFETY: `s` exists, so this machine has AVX-512 F, DQ, BW and VL, AVX2 and FMA.
                    unsafe { on(s, $($arg),*) }
                }
                #[cfg(isa_x86)]
                Isa::StrictAvx512(s) => {
                    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
                    fn on(s: Strict<Avx512>, $($arg: $ty),*) $(-> $ret)? { $path(s, $($arg),*) }
                    // SAFETY: `s` exists, so this machine has AVX-512 F, DQ, BW and VL, AVX2 and FMA.
                    unsafe { on(s, $($arg),*) }
                }
                #[cfg(isa_neon)]
                Isa::Neon(s) => $path(s, $($arg),*),
                #[cfg(isa_neon)]
                Isa::StrictNeon(s) => $path(s, $($arg),*),
                #[cfg(isa_wasm)]
                Isa::Wasm(s) => $path(s, $($arg),*),
                #[cfg(any(test, feature = "emulation"))]
                Isa::Emu1(s) => $path(s, $($arg),*),
                #[cfg(any(test, feature = "emulation"))]
                Isa::Emu16(s) => $path(s, $($arg),*),
                #[cfg(any(test, feature = "emulation"))]
                Isa::FusedEmu1(s) => $path(s, $($arg),*),
                #[cfg(any(test, feature = "emulation"))]
                Isa::FusedEmu4(s) => $path(s, $($arg),*),
            }
        }
    )+};
}
pub(crate) use dispatch;

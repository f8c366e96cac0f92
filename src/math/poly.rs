//! Coefficients, each found by an exchange algorithm and a search over the last bits, and checked over every f32.
//!
//! `sh tests/long.sh` repeats the sweeps and prints the table of errors.

/// log2 e.
pub const LOG2_E: f32 = core::f32::consts::LOG2_E;
/// ln 2 with nine low bits free: times an integer below 2^9 it is exact.
pub const LN2_HIGH: f32 = f32::from_bits(0x3f31_7200);
/// ln 2 - `LN2_HIGH`.
pub const LN2_LOW: f32 = f32::from_bits(0x35bf_be8e);
/// The first two bits of `LN2_LOW`, so that products with an exponent are exact.
pub const LN2_MIDDLE: f32 = 1.430_511_5e-6;
/// ln 2 - `LN2_HIGH` - `LN2_MIDDLE` (negative).
pub const LN2_TINY: f32 = -f32::from_bits(0x3102_e308);

/// 2^r on [-1/2, 1/2], constant term first.
///
/// Relative error with rounding: 1.54e-7 fused, 1.63e-7 strict. `p(0) = 1`, and `p(1/2) = 2 p(-1/2)` bit for bit in
/// both classes: how a tie is rounded, which depends on the reference, leaves no trace in the weight.
pub const WEIGHT: [f32; 6] = [
    1.0,
    f32::from_bits(0x3f31_7214),
    f32::from_bits(0x3e75_fcd3),
    f32::from_bits(0x3d63_5ca5),
    f32::from_bits(0x3c1e_7864),
    f32::from_bits(0x3aad_6a1a),
];

/// (e^r - 1 - r) / r^2 on |r| <= ln 2 / 2, constant term first.
pub const EXP: [f32; 5] = [
    f32::from_bits(0x3eff_ffff),
    f32::from_bits(0x3e2a_aa44),
    f32::from_bits(0x3d2a_ac2c),
    f32::from_bits(0x3c09_2064),
    f32::from_bits(0x3ab5_11ba),
];

/// As [`EXP`], tuned for the relative error of e^r - 1, of which tanh is made.
pub const TANH: [f32; 5] = [
    f32::from_bits(0x3f00_0001),
    f32::from_bits(0x3e2a_aa5e),
    f32::from_bits(0x3d2a_aa7f),
    f32::from_bits(0x3c09_1199),
    f32::from_bits(0x3ab5_f5f3),
];

/// (2 artanh u / u - 2) / u^2 in powers of u^2 for |u| <= 1/5, constant term first.
pub const LN: [f32; 4] = [
    f32::from_bits(0x3f2a_aaaa),
    f32::from_bits(0x3ecc_ce06),
    f32::from_bits(0x3e91_f021),
    f32::from_bits(0x3e77_4ff3),
];

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

/// (e^r - 1 - r) / r^2 on |r| <= ln 2 / 2, constant term first: exp and tanh are made of it.
pub const EXP: [f32; 5] = [
    f32::from_bits(0x3eff_fffe),
    f32::from_bits(0x3e2a_aa46),
    f32::from_bits(0x3d2a_ac2d),
    f32::from_bits(0x3c09_1eb8),
    f32::from_bits(0x3ab5_5c6a),
];

/// (2 artanh u / u - 2) / u^2 in powers of u^2 for |u| <= 0.172, constant term first.
pub const LN: [f32; 3] = [
    f32::from_bits(0x3f2a_aabd),
    f32::from_bits(0x3ecc_af6a),
    f32::from_bits(0x3e98_f06c),
];

/// (sin x - x) / x^3 in powers of x^2 for |x| <= pi / 4, constant term first; sin is off by 0.12 of 2^-24 of itself.
pub const SIN: [f32; 3] = [
    f32::from_bits(0xbe2a_aaa3),
    f32::from_bits(0x3c08_83a0),
    f32::from_bits(0xb94c_a1ed),
];

/// (cos x - 1 + x^2 / 2) / x^4, likewise; cos is off by 0.002 of 2^-24.
pub const COS: [f32; 3] = [
    f32::from_bits(0x3d2a_aaa5),
    f32::from_bits(0xbab6_0618),
    f32::from_bits(0x37cc_f5d0),
];

//! What the benches and the tour share: inputs, clocks and yardsticks.
#![allow(dead_code)] // every target uses its part of it

pub mod backward;
mod clock;
pub mod oracle;
pub mod peak;
pub mod record;

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use subquad::attention::Outputs;
use subquad::{Error, Need, TensorMut};

/// Numbers that start on a cache line, so that no run is lucky or unlucky with its addresses.
pub struct Aligned {
    data: Vec<f32>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub fn zeros(len: usize) -> Aligned {
        let data = vec![0.0; len + 15];
        let start = data.as_ptr().align_offset(64);
        Aligned { data, start, len }
    }

    pub fn copy(from: &[f32]) -> Aligned {
        let mut to = Aligned::zeros(from.len());
        to.copy_from_slice(from);
        to
    }

    /// Standard normal numbers, the same for the same seed.
    pub fn normal(len: usize, seed: u64) -> Aligned {
        let mut to = Aligned::zeros(len);
        let mut uniform = Uniform(seed);
        for pair in to.chunks_mut(2) {
            // Box and Muller. 1 - u is never 0.
            let (radius, turn) = ((-2.0 * (1.0 - uniform.next()).ln()).sqrt(), uniform.next());
            let angle = turn * std::f64::consts::TAU;
            let two = [(radius * angle.cos()) as f32, (radius * angle.sin()) as f32];
            pair.copy_from_slice(&two[..pair.len()]);
        }
        to
    }
}

impl Deref for Aligned {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.data[self.start..self.start + self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[self.start..self.start + self.len]
    }
}

/// SplitMix64, as numbers in [0, 1).
struct Uniform(u64);

impl Uniform {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Outputs that are nothing but the attention itself.
pub fn output(out: &mut [f32], shape: [usize; 4]) -> Result<Outputs<'_>, Error> {
    let out = Some(TensorMut::new(out, shape)?);
    Ok(Outputs {
        out,
        ..Outputs::default()
    })
}

/// What scratch is made of.
pub type Bytes = Vec<MaybeUninit<u8>>;

/// Bytes for a call's scratch.
pub fn memory(need: Need) -> Bytes {
    vec![MaybeUninit::uninit(); need.bytes()]
}

/// A matrix from a `.npy` file of little-endian f32 in C order: numbers, rows, columns.
pub fn read_npy(path: &Path) -> (Aligned, usize, usize) {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(
        &bytes[..8],
        b"\x93NUMPY\x01\x00",
        "{}: not .npy, version 1",
        path.display()
    );
    let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8_lossy(&bytes[10..end]);
    assert!(
        header.contains("'<f4'") && header.contains("'fortran_order': False"),
        "{header}"
    );
    let shape = header.split(['(', ')']).nth(1).expect("a shape");
    let sizes: Vec<usize> = shape.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let numbers: Vec<f32> = bytes[end..]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    assert_eq!(numbers.len(), sizes[0] * sizes[1]);
    (Aligned::copy(&numbers), sizes[0], sizes[1])
}

/// Seconds per call of each contender: the best of many turns, taken one after the other, round after round.
///
/// A disturbance only ever adds time, so the best turn is the one that was least disturbed; and turns that alternate
/// and last equally long meet the same clock frequency and the same neighbours, so that ratios hold on a busy machine.
pub fn race<const N: usize>(seconds: f64, contenders: [&mut dyn FnMut(); N]) -> [f64; N] {
    race_by(clock::of_thread, seconds, contenders)
}

/// As [`race`], for work that other threads share: by the clock on the wall.
pub fn race_of_threads<const N: usize>(seconds: f64, contenders: [&mut dyn FnMut(); N]) -> [f64; N] {
    race_by(clock::on_the_wall, seconds, contenders)
}

fn race_by<const N: usize>(clock: fn() -> f64, seconds: f64, mut contenders: [&mut dyn FnMut(); N]) -> [f64; N] {
    const SHORTEST_TURN: f64 = 1e-3;
    const FEWEST_ROUNDS: usize = 5;
    let turn = |f: &mut dyn FnMut(), calls: usize| {
        let start = clock();
        (0..calls).for_each(|_| f());
        (clock() - start) / calls as f64
    };
    // The first call warms the caches up. A call may be shorter than the clock's tick.
    let once = contenders.each_mut().map(|f| turn(f, 1).min(turn(f, 3)).max(1e-8));
    let length = once.iter().copied().fold(SHORTEST_TURN, f64::max);
    let calls = once.map(|once| (length / once).ceil() as usize);
    let mut best = [f64::INFINITY; N];
    let start = clock();
    let mut rounds = 0;
    while rounds < FEWEST_ROUNDS || clock() - start < seconds {
        for ((f, &calls), best) in contenders.iter_mut().zip(&calls).zip(&mut best) {
            *best = best.min(turn(f, calls));
        }
        rounds += 1;
    }
    best
}

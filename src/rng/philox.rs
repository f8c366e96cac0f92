//! Philox 4x32-10: ten rounds of multiplications over a counter (Salmon, Moraes, Dror and Shaw, SC 2011).

/// Multipliers of the two halves, and what is added to the key after every round.
const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

/// The four words of one counter under one key.
#[must_use]
pub const fn block(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    let mut round = 0;
    while round < 10 {
        let a = c0 as u64 * MULTIPLIERS[0] as u64;
        let b = c2 as u64 * MULTIPLIERS[1] as u64;
        (c0, c1, c2, c3) = (
            (b >> 32) as u32 ^ c1 ^ k0,
            b as u32,
            (a >> 32) as u32 ^ c3 ^ k1,
            a as u32,
        );
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
        round += 1;
    }
    [c0, c1, c2, c3]
}

const fn halves(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}

/// Sixty-four bits for place `index` of `stream` under `seed`: what every sketch of this crate calls a hash.
#[must_use]
pub const fn hash(seed: u64, stream: u64, index: u64) -> u64 {
    let ([i0, i1], [s0, s1]) = (halves(index), halves(stream));
    let [low, high, ..] = block([i0, i1, s0, s1], halves(seed));
    low as u64 | (high as u64) << 32
}

/// A stream of numbers: four words per counter, in order.
///
/// Streams with different numbers under one seed do not overlap. With the feature `rand` it is a `rand_core` generator.
///
/// ```
/// use subquad::rng::Philox;
/// let (mut a, mut b) = (Philox::new(42, 0), Philox::new(42, 0));
/// b.seek(1000);
/// for _ in 0..1000 {
///     a.word();
/// }
/// assert_eq!(a.word(), b.word());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Philox {
    seed: u64,
    stream: u64,
    /// Words that have been taken.
    position: u64,
    words: [u32; 4],
}

impl Philox {
    /// The start of a stream.
    #[must_use]
    pub const fn new(seed: u64, stream: u64) -> Self {
        Philox {
            seed,
            stream,
            position: 0,
            words: [0; 4],
        }
    }

    /// Goes to the word that is number `position`. Any order costs the same.
    pub const fn seek(&mut self, position: u64) {
        self.position = position;
        self.words = self.at(position);
    }

    /// How many words have been taken, or were passed over.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    const fn at(&self, position: u64) -> [u32; 4] {
        let ([i0, i1], [s0, s1]) = (halves(position / 4), halves(self.stream));
        block([i0, i1, s0, s1], halves(self.seed))
    }

    /// Thirty-two random bits.
    pub const fn word(&mut self) -> u32 {
        if self.position.is_multiple_of(4) {
            self.words = self.at(self.position);
        }
        let [a, b, c, d] = self.words;
        let word = match self.position % 4 {
            0 => a,
            1 => b,
            2 => c,
            _ => d,
        };
        self.position = self.position.wrapping_add(1);
        word
    }

    /// Sixty-four random bits: two words, the low one first.
    pub const fn double_word(&mut self) -> u64 {
        let low = self.word() as u64;
        low | (self.word() as u64) << 32
    }

    /// Uniform in [0, 1): a multiple of 2^-24.
    pub const fn uniform(&mut self) -> f32 {
        (self.word() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in 0..n without bias (Lemire's rejection); 0 if n is 0.
    pub const fn below(&mut self, n: u32) -> u32 {
        let mut product = self.word() as u64 * n as u64;
        if (product as u32) < n {
            // 2^32 mod n numbers would come once too often.
            let rest = n.wrapping_neg().checked_rem(n);
            let rest = match rest {
                Some(rest) => rest,
                None => 0,
            };
            while (product as u32) < rest {
                product = self.word() as u64 * n as u64;
            }
        }
        (product >> 32) as u32
    }

    /// 1 or -1.
    pub const fn sign(&mut self) -> f32 {
        if self.word() >> 31 == 0 {
            1.0
        } else {
            -1.0
        }
    }
}

#[cfg(feature = "rand")]
impl rand_core::TryRng for Philox {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(self.word())
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(self.double_word())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        for piece in bytes.chunks_mut(4) {
            let word = self.word().to_le_bytes();
            piece.iter_mut().zip(word).for_each(|(to, byte)| *to = byte);
        }
        Ok(())
    }
}

#[cfg(feature = "rand")]
impl rand_core::SeedableRng for Philox {
    type Seed = [u8; 16];

    /// Seed, then stream, little endian.
    fn from_seed(bytes: Self::Seed) -> Self {
        let all = u128::from_le_bytes(bytes);
        Philox::new(all as u64, (all >> 64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn known_answers_of_random123() {
        let ones = u32::MAX;
        let known = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            (
                [ones; 4],
                [ones; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, answer) in known {
            assert_eq!(block(counter, key), answer);
        }
    }

    #[test]
    fn any_place_of_a_stream_is_where_walking_there_ends() {
        let mut walk = Philox::new(7, 3);
        let all: Vec<u32> = (0..64).map(|_| walk.word()).collect();
        for (i, &word) in all.iter().enumerate() {
            let mut jump = Philox::new(7, 3);
            jump.seek(i as u64);
            assert_eq!((jump.word(), jump.position()), (word, i as u64 + 1));
        }
        assert_eq!(hash(7, 3, 0), u64::from(all[0]) | u64::from(all[1]) << 32);
        assert_ne!(Philox::new(7, 4).word(), all[0]);
    }

    #[test]
    fn below_is_uniform_and_stays_below() {
        let mut rng = Philox::new(1, 0);
        assert_eq!((rng.below(0), rng.below(1)), (0, 0));
        let mut counts = [0u32; 6];
        for _ in 0..60_000 {
            counts[rng.below(6) as usize] += 1;
        }
        // Chi squared with five degrees of freedom: above 25.7 once in ten thousand seeds.
        let chi: f64 = counts.iter().map(|&c| (f64::from(c) - 1e4).powi(2) / 1e4).sum();
        assert!(chi < 25.7, "{chi}");
        assert!((0..1000).all(|_| rng.below(u32::MAX - 5) < u32::MAX - 5));
        assert!((0..1000).map(|_| rng.uniform()).all(|x| (0.0..1.0).contains(&x)));
    }
}

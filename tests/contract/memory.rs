//! One block of memory that all arguments point into, so that "nothing written" is one comparison.

/// A part of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    Q,
    K,
    V,
    Rules,
    Mask,
    Bias,
    Floats,
    Lengths,
    QueryStarts,
    KeyStarts,
    Out,
    Lse,
    Partials,
    Scores,
    Report,
    Work,
}

impl Region {
    const ALL: [Region; 16] = [
        Region::Q,
        Region::K,
        Region::V,
        Region::Rules,
        Region::Mask,
        Region::Bias,
        Region::Floats,
        Region::Lengths,
        Region::QueryStarts,
        Region::KeyStarts,
        Region::Out,
        Region::Lse,
        Region::Partials,
        Region::Scores,
        Region::Report,
        Region::Work,
    ];

    /// What a call that succeeds may change.
    pub const WRITTEN: [Region; 6] = [
        Region::Out,
        Region::Lse,
        Region::Partials,
        Region::Scores,
        Region::Report,
        Region::Work,
    ];
}

const WORDS: usize = 4096;

/// Bytes of a region.
pub const SIZE: usize = WORDS * 8;

pub struct Memory {
    words: *mut u64,
}

impl Memory {
    /// A pattern in which every four bytes are a small positive float.
    pub fn new() -> Memory {
        let byte = |i: usize| 0x21 + (i * 7 % 29) as u8;
        let word = |i: usize| u64::from_ne_bytes(std::array::from_fn(|b| byte(8 * i + b)));
        let words: Box<[u64]> = (0..WORDS * Region::ALL.len()).map(word).collect();
        Memory {
            words: Box::into_raw(words).cast(),
        }
    }

    /// Start of a region, aligned for everything that the interface has.
    pub fn at<T>(&self, region: Region) -> *mut T {
        self.words.wrapping_add(WORDS * region as usize).cast()
    }

    pub fn put<T: Copy>(&self, region: Region, values: &[T]) {
        assert!(size_of_val(values) <= SIZE && align_of::<T>() <= 8);
        // SAFETY: inside the region, aligned, and nobody holds a reference into the block.
        unsafe {
            self.at::<T>(region)
                .copy_from_nonoverlapping(values.as_ptr(), values.len())
        }
    }

    pub fn copy(&self) -> Vec<u64> {
        // SAFETY: the whole block, which is always initialised; no reference into it lives across a call.
        unsafe { std::slice::from_raw_parts(self.words, WORDS * Region::ALL.len()) }.to_vec()
    }

    /// Regions that differ from a copy taken before.
    pub fn changed(&self, before: &[u64]) -> Vec<Region> {
        let now = self.copy();
        let differs = |r: &&Region| {
            let range = WORDS * **r as usize..WORDS * (**r as usize + 1);
            now[range.clone()] != before[range]
        };
        Region::ALL.iter().filter(differs).copied().collect()
    }
}

/// Spoils one number of the block.
pub fn set<T>(at: *const T, value: T) {
    // SAFETY: rows pass pointers into the block, which nobody holds a reference into.
    unsafe { at.cast_mut().write(value) }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let block = std::ptr::slice_from_raw_parts_mut(self.words, WORDS * Region::ALL.len());
        // SAFETY: made by `new` with this length.
        drop(unsafe { Box::from_raw(block) });
    }
}

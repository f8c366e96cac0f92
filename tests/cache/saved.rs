//! Saved caches: what comes back, and what is refused.

use crate::memory::{append, attend, pairs, Rooms};
use crate::numbers::noise;
use subquad::attention::{Cache, CacheShape};
use subquad::{Error, Format, Isa};

const SHAPE: CacheShape = CacheShape {
    heads: 2,
    dim: 5,
    value_dim: 3,
    capacity: 12,
    kept: 2,
};

fn saved(cache: &Cache<'_>) -> Vec<u8> {
    let mut bytes = vec![0xee; cache.saved_len().unwrap() + 3];
    let n = cache.save(&mut bytes).unwrap();
    assert_eq!((n, &bytes[n..]), (bytes.len() - 3, &[0xee; 3][..]));
    assert_eq!(cache.save(&mut bytes[..n - 1]), Err(Error::Short));
    bytes.truncate(n);
    bytes
}

/// Turned one and a half times.
fn filled(rooms: &mut Rooms) -> Cache<'_> {
    let mut cache = rooms.cache(SHAPE).with_sliding().unwrap();
    append(&mut cache, &noise(1, 2 * 20 * 5), &noise(2, 2 * 20 * 3)).unwrap();
    cache
}

/// The published definition, a bit at a time.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |x, _| {
            x >> 1 ^ if x & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

fn signed(mut bytes: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    change(&mut bytes);
    let end = bytes.len() - 4;
    let sum = crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

#[test]
fn what_is_loaded_is_what_was_saved() {
    for formats in pairs() {
        let mut rooms = Rooms::new(formats, SHAPE);
        let cache = filled(&mut rooms);
        let bytes = saved(&cache);
        // Into another capacity, whose ring turns elsewhere.
        for capacity in [12, 13, 40] {
            let s = CacheShape { capacity, ..SHAPE };
            let mut rooms = Rooms::new(formats, s);
            let mut other = rooms.cache(s);
            other.load(&bytes).unwrap();
            assert_eq!(saved(&other), bytes);
            let positions = |cache: &Cache<'_>| (0..13).map(|key| cache.position(key)).collect::<Vec<_>>();
            assert_eq!(positions(&other), positions(&cache));
            let progress = other.progress();
            assert_eq!(progress.loss, cache.progress().loss);
            other.resume(progress).unwrap();
        }
        let one = CacheShape { heads: 1, ..SHAPE };
        let mut rooms = Rooms::new(formats, one);
        let mut cache = rooms.cache(one).with_sliding().unwrap();
        append(&mut cache, &noise(3, 20 * 5), &noise(4, 20 * 3)).unwrap();
        let mut rooms = Rooms::new(formats, one);
        let mut other = rooms.cache(one);
        other.load(&saved(&cache)).unwrap();
        let q = noise(5, 5);
        assert_eq!(
            attend(&cache, Isa::best(), &q).bits(),
            attend(&other, Isa::best(), &q).bits()
        );
    }
}

#[test]
fn every_damage_is_refused() {
    for formats in [[Format::F32, Format::I8], [Format::I8, Format::F16], [Format::Bf16; 2]] {
        let mut rooms = Rooms::new(formats, SHAPE);
        let cache = filled(&mut rooms);
        let bytes = saved(&cache);
        let mut rooms = Rooms::new(formats, SHAPE);
        let mut target = rooms.cache(SHAPE);
        append(&mut target, &noise(7, 2 * 5), &noise(8, 2 * 3)).unwrap();
        let before = saved(&target);
        for at in 0..bytes.len() {
            for change in 1..=255u8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= change;
                assert_eq!(target.load(&damaged), Err(Error::Corrupt), "byte {at} by {change}");
            }
            assert_eq!(target.load(&bytes[..at]), Err(Error::Corrupt), "cut to {at}");
        }
        for more in 1..5 {
            let longer = [&bytes[..], &vec![0; more]].concat();
            assert_eq!(target.load(&longer), Err(Error::Corrupt));
        }
        assert_eq!(saved(&target), before);
    }
}

#[test]
fn whole_bytes_of_something_else_are_refused() {
    let formats = [Format::I8, Format::F16];
    let mut rooms = Rooms::new(formats, SHAPE);
    let cache = filled(&mut rooms);
    let bytes = saved(&cache);
    let load = |s: CacheShape, formats: [Format; 2], bytes: &[u8]| {
        let mut rooms = Rooms::new(formats, s);
        let result = rooms.cache(s).load(bytes);
        result
    };
    assert_eq!(load(SHAPE, formats, &signed(bytes.clone(), |_| ())), Ok(()));
    for s in [
        CacheShape { heads: 1, ..SHAPE },
        CacheShape { dim: 6, ..SHAPE },
        CacheShape { value_dim: 2, ..SHAPE },
        CacheShape { kept: 3, ..SHAPE },
    ] {
        assert_eq!(load(s, formats, &bytes), Err(Error::Mismatch), "{s:?}");
    }
    assert_eq!(load(SHAPE, [Format::I8, Format::Bf16], &bytes), Err(Error::Mismatch));
    let less = CacheShape { capacity: 11, ..SHAPE };
    assert_eq!(load(less, formats, &bytes), Err(Error::Full));

    // Whoever signs nonsense is not believed either. The first key begins at 104, its scale at 109, the value at 113.
    type Change = fn(&mut [u8]);
    let nonsense: [(&str, Change, Error); 9] = [
        ("version", |b| b[8] = 1, Error::Corrupt),
        ("kind", |b| b[12] = 9, Error::Corrupt),
        ("an integer that is never written", |b| b[104] = 0x80, Error::NonFinite),
        (
            "an infinite scale",
            |b| b[109..113].copy_from_slice(&f32::INFINITY.to_le_bytes()),
            Error::NonFinite,
        ),
        (
            "a negative scale",
            |b| b[109..113].copy_from_slice(&(-1f32).to_le_bytes()),
            Error::NonFinite,
        ),
        (
            "an f16 that is no number",
            |b| b[113..115].copy_from_slice(&0x7e00u16.to_le_bytes()),
            Error::NonFinite,
        ),
        (
            "a loss that is no number",
            |b| b[80..84].copy_from_slice(&f32::NAN.to_le_bytes()),
            Error::NonFinite,
        ),
        (
            "first behind next",
            |b| b[72..80].copy_from_slice(&21u64.to_le_bytes()),
            Error::Corrupt,
        ),
        (
            "fewer keys than rows",
            |b| b[72..80].copy_from_slice(&11u64.to_le_bytes()),
            Error::Corrupt,
        ),
    ];
    for (what, change, error) in nonsense {
        assert_eq!(
            load(SHAPE, formats, &signed(bytes.clone(), change)),
            Err(error),
            "{what}"
        );
    }
}

//! A cache is the keys that are in it: the same bits as from plain memory, wherever they lie and whatever came before.

mod heads;
mod memory;
mod rotary;
mod saved;
mod soak;

#[path = "../reference/numbers.rs"]
mod numbers;

use memory::{append, attend, forward, pairs, run, Room, Rooms};
use numbers::noise;
use subquad::attention::{Cache, CacheShape, Decode, Exact, Store};
use subquad::{Error, Format, Isa, MatRef, TensorRef};

const SHAPE: CacheShape = CacheShape {
    heads: 1,
    dim: 19,
    value_dim: 21,
    capacity: 300,
    kept: 5,
};

#[test]
fn a_ring_has_the_bits_of_plain_memory() {
    let (rows, q) = (777, noise(1, 3 * SHAPE.dim));
    let (k, v) = (noise(2, rows * SHAPE.dim), noise(3, rows * SHAPE.value_dim));
    for formats in pairs() {
        let mut ring = Rooms::new(formats, SHAPE);
        let mut ring = ring.cache(SHAPE).with_sliding().unwrap();
        append(&mut ring, &k, &v).unwrap();
        assert_eq!(
            (ring.len(), ring.position(5), ring.position(299)),
            (300, Some(482), Some(776))
        );
        // The keys that are there, in another cache that has never been full.
        let plain_shape = CacheShape {
            capacity: 400,
            kept: 0,
            ..SHAPE
        };
        let mut plain = Rooms::new(formats, plain_shape);
        let mut plain = plain.cache(plain_shape);
        let (mut live_k, mut live_v) = (vec![], vec![]);
        for key in 0..ring.len() {
            let p = ring.position(key).unwrap() as usize;
            live_k.extend_from_slice(&k[p * SHAPE.dim..][..SHAPE.dim]);
            live_v.extend_from_slice(&v[p * SHAPE.value_dim..][..SHAPE.value_dim]);
        }
        append(&mut plain, &live_k, &live_v).unwrap();
        for isa in Isa::all() {
            let answers = [attend, forward].map(|call| (call(&ring, isa, &q), call(&plain, isa, &q)));
            for (a, b) in &answers {
                let out = |bits: Vec<u32>| bits[..3 * SHAPE.value_dim].to_vec();
                assert_eq!(out(a.bits()), out(b.bits()), "{formats:?} on {}", isa.name());
                // What went has left its loss.
                assert!(a.report.bound.value >= b.report.bound.value && a.report.bound.value < 1.0);
            }
            if formats == [Format::F32; 2] {
                let (k, v) = (
                    MatRef::new(&live_k, 300, SHAPE.dim).unwrap(),
                    MatRef::new(&live_v, 300, SHAPE.value_dim).unwrap(),
                );
                let q = MatRef::new(&q, 3, SHAPE.dim).unwrap();
                let few = Decode::for_views(q, k, v).unwrap().with_isa(isa).with_bound();
                let few = run(few.need(), [3, SHAPE.value_dim], |outputs, scratch| {
                    few.run(q.into(), k.into(), v.into(), outputs, scratch)
                });
                let many = Exact::for_views(q, k, v).unwrap().with_isa(isa).with_bound();
                let many = run(many.need(), [3, SHAPE.value_dim], |outputs, scratch| {
                    many.run(q.into(), k.into(), v.into(), outputs, scratch)
                });
                assert_eq!(answers.map(|(ring, _)| ring.bits()), [few.bits(), many.bits()]);
            }
        }
    }
}

#[test]
fn a_bound_forgets_the_loss_of_rows_that_went() {
    let s = CacheShape {
        capacity: 20,
        kept: 0,
        ..SHAPE
    };
    let (q, n) = (noise(10, 3 * s.dim), 20);
    let (k, v) = (noise(11, n * s.dim), noise(12, n * s.value_dim));
    let loud = |x: &[f32], cols: usize| -> Vec<f32> { x[..cols].iter().map(|x| 100.0 * x).collect() };
    let mut rooms = Rooms::new([Format::I8; 2], s);
    let mut cache = rooms.cache(s).with_sliding().unwrap();
    append(&mut cache, &loud(&k, s.dim), &loud(&v, s.value_dim)).unwrap();
    append(&mut cache, &k[s.dim..], &v[s.value_dim..]).unwrap();
    let before = cache.loss();
    assert_eq!(before, cache.progress().loss);
    append(&mut cache, &k[..s.dim], &v[..s.value_dim]).unwrap();
    let after = cache.loss();
    assert_eq!(before, cache.progress().loss);
    assert!(after.key < before.key / 30.0 && after.value < before.value / 80.0);
    // What those rows have really lost, in a cache that has seen no others.
    let mut rooms = Rooms::new([Format::I8; 2], s);
    let mut fresh = rooms.cache(s);
    append(&mut fresh, &k[s.dim..], &v[s.value_dim..]).unwrap();
    append(&mut fresh, &k[..s.dim], &v[..s.value_dim]).unwrap();
    let least = fresh.progress().loss;
    assert!(after.key >= least.key && after.value >= least.value);
    assert!(after.key < 2.0 * least.key && after.value < 1.1 * least.value);
    for call in [attend, forward] {
        let [old, new] = [&cache, &fresh].map(|cache| call(cache, Isa::best(), &q));
        assert_eq!(old.out, new.out);
        let (old, new) = (old.report.bound.value, new.report.bound.value);
        assert!(new <= old && old < 2.0 * new, "{old:e} after eviction, {new:e} without");
    }
}

#[test]
fn pages_have_the_bits_of_one_piece() {
    let s = CacheShape {
        heads: 2,
        capacity: 100,
        ..SHAPE
    };
    let q = noise(4, 4 * s.dim);
    let (k, v) = (noise(5, 2 * 170 * s.dim), noise(6, 2 * 170 * s.value_dim));
    for formats in pairs() {
        let mut whole = Rooms::new(formats, s);
        let mut whole = whole.cache(s).with_sliding().unwrap();
        append(&mut whole, &k, &v).unwrap();
        for block in [1, 7, 16, 99, 100, 130] {
            let count = s.capacity.div_ceil(block);
            // From the back, every second page of a pool.
            let table: Vec<u32> = (0..count as u32).rev().map(|n| 2 * n + 1).collect();
            let mut pool = Rooms::of_rows(formats, s, 2 * count * s.heads * block);
            let Rooms(keys, values) = &mut pool;
            let paged = Cache::with_pages(s, keys.store(), values.store(), (&table, block)).unwrap();
            let mut paged = paged.with_sliding().unwrap();
            append(&mut paged, &k, &v).unwrap();
            let answer = |cache: &Cache<'_>| {
                let few = cache.decode(4, 1).unwrap().with_bound();
                let many = cache.exact(4, 1).unwrap().with_bound();
                let q = TensorRef::new(&q, [1, 4, 1, s.dim]).unwrap();
                [few.need(), many.need_rows()].map(|need| {
                    let mut out = vec![0.0; 4 * s.value_dim];
                    let mut work = vec![std::mem::MaybeUninit::uninit(); need.bytes()];
                    let outputs = subquad::attention::Outputs {
                        out: Some(subquad::TensorMut::new(&mut out, [1, 4, 1, s.value_dim]).unwrap()),
                        ..Default::default()
                    };
                    let mut scratch = subquad::Scratch::new(&mut work);
                    let report = match need == few.need() {
                        true => cache.attend(&few, q, outputs, &mut scratch),
                        false => cache.forward(&many, q, outputs, &mut scratch),
                    };
                    (out, report.unwrap().bound)
                })
            };
            assert_eq!(answer(&whole), answer(&paged), "{formats:?} block {block}");
        }
    }
}

#[test]
fn a_host_keeps_the_progress_and_may_add_pages() {
    let small = CacheShape {
        capacity: 32,
        kept: 0,
        ..SHAPE
    };
    let large = CacheShape { capacity: 48, ..small };
    let formats = [Format::I8, Format::Bf16];
    let (k, v) = (noise(7, 48 * SHAPE.dim), noise(8, 48 * SHAPE.value_dim));
    let mut pool = Rooms::of_rows(formats, SHAPE, 64);
    let Rooms(keys, values) = &mut pool;
    let mut cache = Cache::with_pages(small, keys.store(), values.store(), (&[3, 0], 16)).unwrap();
    append(&mut cache, &k[..32 * SHAPE.dim], &v[..32 * SHAPE.value_dim]).unwrap();
    let one = append(&mut cache, &k[..SHAPE.dim], &v[..SHAPE.value_dim]);
    assert_eq!(one, Err(Error::Full));
    let progress = cache.progress();
    let mut cache = Cache::with_pages(large, keys.store(), values.store(), (&[3, 0, 2], 16)).unwrap();
    cache.resume(progress).unwrap();
    append(&mut cache, &k[32 * SHAPE.dim..], &v[32 * SHAPE.value_dim..]).unwrap();
    let mut plain = Rooms::new(formats, large);
    let mut plain = plain.cache(large);
    append(&mut plain, &k, &v).unwrap();
    let q = noise(9, SHAPE.dim);
    let (a, b) = (attend(&cache, Isa::best(), &q), attend(&plain, Isa::best(), &q));
    assert_eq!(a.bits(), b.bits());
    // Once the ring has turned, its length is part of where the keys are.
    cache.evict(7).unwrap();
    append(&mut cache, &k[..SHAPE.dim], &v[..SHAPE.value_dim]).unwrap();
    let turned = cache.progress();
    let mut rooms = Rooms::new(formats, SHAPE);
    let mut other = rooms.cache(CacheShape { kept: 0, ..SHAPE });
    assert_eq!(other.resume(turned), Err(Error::Mismatch));
}

#[test]
fn rows_that_would_move_are_no_progress() {
    let small = CacheShape {
        capacity: 2,
        kept: 0,
        ..SHAPE
    };
    for heads in [1, 2] {
        let (small, large) = (
            CacheShape { heads, ..small },
            CacheShape {
                heads,
                capacity: 4,
                ..small
            },
        );
        let mut rooms = Rooms::new([Format::F32; 2], large);
        let empty = rooms.cache(small).progress();
        rooms.cache(large).resume(empty).unwrap();
        let mut cache = rooms.cache(small);
        let (k, v) = (noise(13, heads * 2 * SHAPE.dim), noise(14, heads * 2 * SHAPE.value_dim));
        append(&mut cache, &k, &v).unwrap();
        let progress = cache.progress();
        rooms.cache(small).resume(progress).unwrap();
        // The rows of one head stay where they are, though it is full; the second head of a larger cache begins elsewhere.
        let wanted = if heads == 1 { Ok(()) } else { Err(Error::Mismatch) };
        assert_eq!(rooms.cache(large).resume(progress), wanted);
    }
}

#[test]
fn bad_calls_are_refused_and_change_nothing() {
    let s = CacheShape {
        heads: 2,
        dim: 4,
        value_dim: 3,
        capacity: 6,
        kept: 2,
    };
    let mut rooms = Rooms::new([Format::F16, Format::Bf16], s);
    let mut cache = rooms.cache(s);
    append(&mut cache, &noise(1, 2 * 4 * 4), &noise(2, 2 * 4 * 3)).unwrap();
    let mut before = vec![0; cache.saved_len().unwrap()];
    cache.save(&mut before).unwrap();
    let (good_k, good_v) = (noise(3, 8), noise(4, 6));
    let with = |x: f32, row: &[f32], at: usize| {
        let mut row = row.to_vec();
        row[at] = x;
        row
    };
    assert_eq!(
        append(&mut cache, &with(f32::NAN, &good_k, 7), &good_v),
        Err(Error::NonFinite)
    );
    assert_eq!(
        append(&mut cache, &good_k, &with(f32::INFINITY, &good_v, 5)),
        Err(Error::NonFinite)
    );
    assert_eq!(
        append(&mut cache, &with(65520.0, &good_k, 7), &good_v),
        Err(Error::Range)
    );
    assert_eq!(
        append(&mut cache, &good_k, &with(f32::MAX, &good_v, 0)),
        Err(Error::Range)
    );
    assert_eq!(append(&mut cache, &noise(3, 24), &noise(4, 18)), Err(Error::Full));
    let (k, v) = (
        TensorRef::new(&good_k, [1, 2, 1, 4]).unwrap(),
        TensorRef::new(&good_v, [1, 1, 2, 3]).unwrap(),
    );
    assert_eq!(cache.append(k, v), Err(Error::Shape));
    assert_eq!(cache.evict(3), Err(Error::Range));
    let mut after = vec![0; before.len()];
    cache.save(&mut after).unwrap();
    assert_eq!(before, after);
    cache.evict(2).unwrap();
    assert_eq!((cache.len(), cache.position(2)), (2, None));
    append(&mut cache, &good_k, &good_v).unwrap();
    assert_eq!((cache.len(), cache.position(2)), (3, Some(4)));
    let mut progress = cache.progress();
    progress.next = 100;
    assert_eq!(cache.resume(progress), Err(Error::Mismatch));
    cache.reset();
    assert!(cache.is_empty());

    let mut few = Room::new(Format::F32, 11, 4);
    let mut enough = Room::new(Format::F32, 12, 3);
    let none = Cache::new(s, few.store(), enough.store()).err();
    assert_eq!(none, Some(Error::Short));
    let (mut numbers, mut scales) = (vec![0; 48], vec![0.0; 11]);
    let none = Cache::new(s, Store::I8(&mut numbers, &mut scales), enough.store()).err();
    assert_eq!(none, Some(Error::Short));
    let mut pool = Rooms::of_rows([Format::F32; 2], s, 16);
    let Rooms(k, v) = &mut pool;
    for (table, block, error) in [
        (&[0u32, 4][..], 4, Error::Range),
        (&[0], 4, Error::Shape),
        (&[0, 1], 0, Error::Parameter),
        (&[0, 1], 8, Error::Shape),
    ] {
        assert_eq!(
            Cache::with_pages(s, k.store(), v.store(), (table, block)).err(),
            Some(error)
        );
    }
    // There would be no end to such rows.
    let none = CacheShape {
        dim: 0,
        value_dim: 0,
        ..s
    };
    let cache = Cache::new(none, Store::F32(&mut []), Store::F32(&mut []));
    assert_eq!(cache.err(), Some(Error::Shape));
    let full = CacheShape { kept: 6, ..s };
    assert_eq!(
        Rooms::new([Format::F32; 2], s).cache(full).with_sliding().err(),
        Some(Error::Parameter)
    );
}

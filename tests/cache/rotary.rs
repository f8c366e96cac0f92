//! Caches that turn their keys: against attention in f64 over keys that are turned in f64.

use crate::memory::{append, pairs, run, Answer, Rooms};
use crate::numbers::noise;
use subquad::attention::{Cache, CacheShape, Loss, Offset, Pairing, Partial, Positions, Rotary, Rules};
use subquad::{Error, Format, MatMut, TensorRef};

const SHAPE: CacheShape = CacheShape {
    heads: 1,
    dim: 24,
    value_dim: 5,
    capacity: 40,
    kept: 3,
};
const BASE: f32 = 100.0;

fn rotary(pairing: Pairing) -> Rotary {
    Rotary::new(SHAPE.dim, 20, BASE).unwrap().with_pairing(pairing)
}

fn room() -> Vec<f32> {
    vec![f32::NAN; SHAPE.dim + 20]
}

/// A row turned in f64.
fn turned(rotary: &Rotary, row: &[f32], position: u64) -> Vec<f64> {
    let mut out: Vec<f64> = row.iter().map(|&x| x.into()).collect();
    for i in 0..10 {
        let (sin, cos) = (position as f64 / f64::from(BASE).powf(i as f64 / 10.0)).sin_cos();
        let (a, b) = match rotary.pairing() {
            Pairing::Halves => (i, i + 10),
            Pairing::Neighbours => (2 * i, 2 * i + 1),
        };
        (out[a], out[b]) = (out[a] * cos - out[b] * sin, out[a] * sin + out[b] * cos);
    }
    out
}

/// Attention of one query over `(position, number)` of keys, in f64.
fn exact(rotary: &Rotary, q: &[f64], k: &[f32], v: &[f32], keys: &[(u64, usize)]) -> Vec<f64> {
    let mut sums = vec![0.0; SHAPE.value_dim + 1];
    for &(position, number) in keys {
        let key = turned(rotary, &k[number * SHAPE.dim..][..SHAPE.dim], position);
        let dot: f64 = q.iter().zip(&key).map(|(x, y)| x * y).sum();
        let weight = (dot / (SHAPE.dim as f64).sqrt()).exp();
        let values = v[number * SHAPE.value_dim..][..SHAPE.value_dim].iter();
        sums.iter_mut()
            .zip(values.map(|&x| f64::from(x)).chain([1.0]))
            .for_each(|(sum, x)| *sum += weight * x);
    }
    let sum = sums.pop().unwrap();
    sums.iter().map(|x| x / sum).collect()
}

fn query(rotary: &Rotary, q: &[f32], position: u64) -> Vec<f32> {
    let mut q = q.to_vec();
    let rows = MatMut::new(&mut q, 1, SHAPE.dim).unwrap();
    rotary.apply(rows.into(), Positions::From(position)).unwrap();
    q
}

/// What turning a query has lost, as keys that are off by so much.
fn query_loss(rotary: &Rotary, position: u64, k: &[f32]) -> Loss {
    let norms = k.chunks(SHAPE.dim).map(|k| k.iter().map(|x| x * x).sum::<f32>().sqrt());
    let key = rotary.relative_error(position) * norms.fold(0.0, f32::max) * 1.01;
    Loss { key, ..Loss::NONE }
}

fn attend(cache: &Cache<'_>, rules: Rules<'_>, loss: Loss, q: &[f32]) -> Answer {
    let plan = cache.decode(1, 1).unwrap().with_rules(rules).unwrap();
    let plan = plan.with_loss(loss).with_bound();
    let q = TensorRef::new(q, [1, 1, 1, SHAPE.dim]).unwrap();
    run(plan.need(), [1, SHAPE.value_dim], |outputs, scratch| {
        cache.attend(&plan, q, outputs, scratch)
    })
}

fn largest_difference(got: &[f32], want: &[f64]) -> f64 {
    let off = got.iter().zip(want).map(|(&x, want)| (f64::from(x) - want).abs());
    off.fold(0.0, f64::max)
}

/// Keys and values of a sequence, and a query.
fn sequence(n: usize) -> [Vec<f32>; 3] {
    let scaled = |seed, n, by: f32| noise(seed, n).iter().map(|x| x * by).collect();
    [
        scaled(1, n * SHAPE.dim, 2.0),
        noise(2, n * SHAPE.value_dim),
        scaled(3, SHAPE.dim, 2.0),
    ]
}

#[test]
fn the_bound_is_about_keys_turned_in_real_numbers() {
    let n = 130;
    let [k, v, q] = sequence(n);
    for (formats, pairing) in pairs().zip([Pairing::Halves, Pairing::Neighbours].into_iter().cycle()) {
        let rotary = rotary(pairing);
        let (mut rooms, mut room) = (Rooms::new(formats, SHAPE), room());
        let cache = rooms.cache(SHAPE).with_rotary(rotary, &mut room).unwrap();
        let mut cache = cache.with_sliding().unwrap();
        append(&mut cache, &k, &v).unwrap();
        let keys: Vec<_> = (0..cache.len()).map(|key| cache.position(key).unwrap()).collect();
        let keys: Vec<_> = keys.iter().map(|&p| (p, p as usize)).collect();
        let position = cache.progress().next - 1;
        let rules = Rules::new().with_offset(Offset::ToEnd);
        let given = query(&rotary, &q, position);
        // About the query as it was given,
        let answer = attend(&cache, rules, Loss::NONE, &given);
        let as_given: Vec<f64> = given.iter().map(|&x| x.into()).collect();
        let error = largest_difference(&answer.out, &exact(&rotary, &as_given, &k, &v, &keys));
        let bound = f64::from(answer.report.bound.value);
        assert!(error <= bound, "{formats:?}: {error:e} above {bound:e}");
        // and with what turning it has lost, about the query before.
        let answer = attend(&cache, rules, query_loss(&rotary, position, &k), &given);
        let error = largest_difference(
            &answer.out,
            &exact(&rotary, &turned(&rotary, &q, position), &k, &v, &keys),
        );
        let bound = f64::from(answer.report.bound.value);
        assert!(error <= bound && error > 0.0, "{formats:?}: {error:e} above {bound:e}");
        assert!(formats != [Format::F32; 2] || bound < 1e-4, "{bound:e}");
        // Positions matter: keys as they were give something else.
        let still: Vec<_> = keys.iter().map(|&(_, number)| (position, number)).collect();
        let other = exact(&rotary, &as_given, &k, &v, &still);
        assert!(largest_difference(&answer.out, &other) > 1e-2);
    }
}

#[test]
fn keys_are_the_rows_that_apply_gives() {
    let n = 100;
    let [k, v, q] = sequence(n);
    for formats in pairs() {
        let rotary = rotary(Pairing::Halves);
        let (mut rooms, mut room) = (Rooms::new(formats, SHAPE), room());
        let cache = rooms.cache(SHAPE).with_rotary(rotary, &mut room).unwrap();
        let mut cache = cache.with_sliding().unwrap();
        // In pieces, so that positions go on.
        for (k, v) in k.chunks(7 * SHAPE.dim).zip(v.chunks(7 * SHAPE.value_dim)) {
            append(&mut cache, k, v).unwrap();
        }
        let mut rows = k.clone();
        let all = MatMut::new(&mut rows, n, SHAPE.dim).unwrap();
        rotary.apply(all.into(), Positions::From(0)).unwrap();
        let mut rooms = Rooms::new(formats, SHAPE);
        let mut plain = rooms.cache(SHAPE).with_sliding().unwrap();
        append(&mut plain, &rows, &v).unwrap();
        let rules = Rules::new();
        let (a, b) = (
            attend(&cache, rules, Loss::NONE, &q),
            attend(&plain, rules, Loss::NONE, &q),
        );
        assert_eq!(a.out, b.out);
        assert!(a.report.bound.value > b.report.bound.value);
    }
}

#[test]
fn kept_keys_can_stay_near() {
    let n = 1000;
    let [k, v, q] = sequence(n);
    let rotary = rotary(Pairing::Halves);
    let (mut rooms, mut room) = (Rooms::new([Format::F32; 2], SHAPE), room());
    let cache = rooms.cache(SHAPE).with_rotary(rotary, &mut room).unwrap();
    let mut cache = cache.with_sliding().unwrap();
    let (mut rows, mut values) = (k.chunks(SHAPE.dim), v.chunks(SHAPE.value_dim));
    for step in 1..=n {
        append(&mut cache, rows.next().unwrap(), values.next().unwrap()).unwrap();
        if step % 111 != 0 && step > 4 {
            continue;
        }
        let (len, last, kept) = (cache.len(), cache.progress().next - 1, SHAPE.kept.min(cache.len()));
        assert_eq!(cache.gone(), (step - len) as u64);
        let loss = query_loss(&rotary, last, &k);
        let near = Rules::new()
            .with_offset(Offset::Keys(0))
            .with_window(None, Some(kept - 1));
        let mut parts = vec![attend(
            &cache,
            near,
            Loss::NONE,
            &query(&rotary, &q, last - cache.gone()),
        )];
        if len > kept {
            let rest = Rules::new().with_offset(Offset::ToEnd);
            let rest = rest.with_window(Some(len - 1 - kept), None);
            parts.push(attend(&cache, rest, loss, &query(&rotary, &q, last)));
        }
        let mut merged = parts.remove(0).partials;
        let mut merged = Partial::from_row(&mut merged).unwrap();
        parts.iter().for_each(|part| merged.merge(&part.partials, 2.0).unwrap());
        // As if the cache were all there ever was: key number j stands at position j.
        let keys: Vec<_> = (0..len)
            .map(|key| (key as u64, cache.position(key).unwrap() as usize))
            .collect();
        let want = exact(&rotary, &turned(&rotary, &q, len as u64 - 1), &k, &v, &keys);
        let (error, bound) = (largest_difference(merged.out(), &want), merged.out_bound().value);
        assert!(
            error <= f64::from(bound) && bound < 1e-4,
            "step {step}: {error:e} above {bound:e}"
        );
        // Not what it gives at the distances that the kept keys really have.
        let keys: Vec<_> = keys.iter().map(|&(_, number)| (number as u64, number)).collect();
        let far = exact(&rotary, &turned(&rotary, &q, last), &k, &v, &keys);
        assert!(step == len || largest_difference(merged.out(), &far) > 1e-3);
    }
}

#[test]
fn a_saved_cache_goes_on_with_the_same_turns_only() {
    let [k, v, q] = sequence(60);
    let formats = [Format::Bf16, Format::I8];
    let good = rotary(Pairing::Halves);
    let (mut rooms, mut own) = (Rooms::new(formats, SHAPE), room());
    let cache = rooms.cache(SHAPE).with_rotary(good, &mut own).unwrap();
    let mut cache = cache.with_sliding().unwrap();
    append(&mut cache, &k, &v).unwrap();
    let mut bytes = vec![0; cache.saved_len().unwrap()];
    cache.save(&mut bytes).unwrap();
    let others = [
        good.with_pairing(Pairing::Neighbours),
        good.with_position_scale(2.0).unwrap(),
        Rotary::new(SHAPE.dim, 20, 101.0).unwrap(),
        Rotary::new(SHAPE.dim, 18, BASE).unwrap(),
    ];
    let (mut rooms, mut other_room) = (Rooms::new(formats, SHAPE), room());
    for other in others {
        let cache = Cache::new(SHAPE, rooms.0.store(), rooms.1.store()).unwrap();
        let mut cache = cache.with_rotary(other, &mut other_room).unwrap();
        assert_eq!(cache.load(&bytes), Err(Error::Mismatch), "{other:?}");
    }
    assert_eq!(rooms.cache(SHAPE).load(&bytes), Err(Error::Mismatch));
    let mut loaded = rooms.cache(SHAPE).with_rotary(good, &mut other_room).unwrap();
    loaded.load(&bytes).unwrap();
    let rules = Rules::new();
    let (a, b) = (
        attend(&cache, rules, Loss::NONE, &q),
        attend(&loaded, rules, Loss::NONE, &q),
    );
    assert_eq!(a.bits(), b.bits());
    let mut again = vec![0; bytes.len()];
    loaded.save(&mut again).unwrap();
    assert_eq!(again, bytes);
}

#[test]
fn what_turning_makes_too_large_is_refused() {
    let rotary = rotary(Pairing::Neighbours);
    let mut rooms = Rooms::new([Format::F16; 2], SHAPE);
    let short = Cache::new(SHAPE, rooms.0.store(), rooms.1.store()).unwrap();
    assert_eq!(short.with_rotary(rotary, &mut room()[1..]).err(), Some(Error::Short));
    let (other, mut large) = (Rotary::new(26, 20, BASE).unwrap(), vec![0.0; 99]);
    let cache = rooms.cache(SHAPE).with_rotary(other, &mut large);
    assert_eq!(cache.err(), Some(Error::Shape));

    let mut room = room();
    let mut cache = rooms.cache(SHAPE).with_rotary(rotary, &mut room).unwrap();
    let value = vec![0.5; SHAPE.value_dim];
    let mut key = vec![0.0; SHAPE.dim];
    (key[0], key[1]) = (60_000.0, 60_000.0);
    // As it is at position 0; at position 1 one of the pair becomes 82 900.
    append(&mut cache, &key, &value).unwrap();
    let before = cache.progress();
    assert_eq!(append(&mut cache, &key, &value), Err(Error::Range));
    // It is what is stored that must fit: 70 000 along one axis does not, 1 radian further both do.
    (key[0], key[1]) = (70_000.0, 0.0);
    append(&mut cache, &key, &value).unwrap();
    key[3] = f32::NAN;
    assert_eq!(append(&mut cache, &key, &value), Err(Error::NonFinite));
    assert_eq!((before.next, cache.progress().next), (1, 2));

    let mut rooms = Rooms::new([Format::F32; 2], SHAPE);
    let mut cache = rooms.cache(SHAPE).with_rotary(rotary, &mut room).unwrap();
    (key[0], key[1], key[3]) = (f32::MAX, f32::MAX, 0.0);
    append(&mut cache, &[0.0; SHAPE.dim], &value).unwrap();
    assert_eq!(append(&mut cache, &key, &value), Err(Error::Range));
}

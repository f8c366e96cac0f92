//! Appending and evicting for a long time, beside a model that is a list. A million steps with `SUBQUAD_LONG=1`.

use crate::memory::{append, attend, Rooms};
use crate::numbers::noise;
use std::collections::VecDeque;
use subquad::attention::CacheShape;
use subquad::{Error, Format, Isa};

/// What a cache is: the first keys, and a list.
struct Model {
    shape: CacheShape,
    next: u64,
    kept: Vec<u64>,
    list: VecDeque<u64>,
}

impl Model {
    fn push(&mut self) {
        if self.kept.len() < self.shape.kept {
            self.kept.push(self.next);
        } else {
            self.list.push_back(self.next);
        }
        self.next += 1;
    }

    fn len(&self) -> usize {
        self.kept.len() + self.list.len()
    }

    fn keys(&self) -> impl Iterator<Item = u64> + '_ {
        self.kept.iter().chain(&self.list).copied()
    }
}

/// The rows of a position, whenever they are asked for.
fn rows(s: CacheShape, position: u64) -> (Vec<f32>, Vec<f32>) {
    (noise(2 * position, s.dim), noise(2 * position + 1, s.value_dim))
}

fn soak(s: CacheShape, sliding: bool, formats: [Format; 2], steps: usize) {
    let mut rooms = Rooms::new(formats, s);
    let mut cache = rooms.cache(s);
    if sliding {
        cache = cache.with_sliding().unwrap();
    }
    let mut model = Model {
        shape: s,
        next: 0,
        kept: vec![],
        list: VecDeque::new(),
    };
    let (mut refused, mut looked) = (0, 0);
    for step in 0..steps {
        let dice = noise(step as u64 ^ 0xabcd, 2);
        let n = ((dice[1] + 1.0) * 3.0) as usize;
        if dice[0] < -0.7 {
            let result = cache.evict(n);
            assert_eq!(
                result,
                if n > model.list.len() {
                    Err(Error::Range)
                } else {
                    Ok(())
                }
            );
            if result.is_ok() {
                model.list.drain(..n);
            }
        } else {
            let (k, v) = rows(s, model.next);
            match append(&mut cache, &k, &v) {
                Ok(()) => {
                    if model.len() == s.capacity {
                        assert!(sliding);
                        model.list.pop_front();
                    }
                    model.push();
                }
                Err(error) => {
                    assert!(error == Error::Full && !sliding && model.len() == s.capacity);
                    refused += 1;
                }
            }
        }
        assert_eq!(cache.len(), model.len());
        let last = cache.len().saturating_sub(1);
        for key in [0, s.kept, last / 2, last] {
            assert_eq!(cache.position(key), model.keys().nth(key));
        }
        if step % 1009 == 0 || step + 1 == steps {
            // All of it, against a cache that has seen nothing but these keys.
            looked += 1;
            let mut rooms = Rooms::new(formats, s);
            let mut fresh = rooms.cache(s);
            for position in model.keys() {
                let (k, v) = rows_of(s, position);
                append(&mut fresh, &k, &v).unwrap();
            }
            let q = noise(step as u64, s.dim);
            let (a, b) = (attend(&cache, Isa::best(), &q), attend(&fresh, Isa::best(), &q));
            assert_eq!(a.out, b.out, "step {step}");
        }
    }
    assert!(looked >= 3 && (sliding || refused > 0));
}

use rows as rows_of;

#[test]
fn a_long_life_leaves_no_trace() {
    let long = std::env::var_os("SUBQUAD_LONG").is_some();
    let steps = if long { 1_000_000 } else { 20_000 };
    let s = CacheShape {
        heads: 1,
        dim: 5,
        value_dim: 3,
        capacity: 71,
        kept: 4,
    };
    soak(s, true, [Format::I8, Format::F16], steps);
    soak(s, false, [Format::F32, Format::Bf16], steps);
    soak(CacheShape { kept: 0, ..s }, true, [Format::F16, Format::I8], steps / 10);
}

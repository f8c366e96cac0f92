//! What is refused, and that nothing was written.

use super::model::{scratch, Own, Problem};
use subquad::moment::{lanes, Answer, Progress, Shape, State, Work};
use subquad::{Error, Isa, MatRef, Scratch};

fn problem() -> Problem {
    let shape = Shape {
        block: 16,
        ..Shape::new(3, 2, 2)
    };
    Problem::new(shape, 40, 2, 3)
}

#[test]
fn sizes() {
    let shape = problem().shape;
    for block in [0, 1, 8, 17] {
        assert_eq!(Shape { block, ..shape }.state_len(), Err(Error::Parameter));
    }
    for huge in [
        Shape::new(1000, 1, 1000),
        Shape::new(1, usize::MAX, 1),
        Shape::new(usize::MAX, 1, 0),
        Shape::new(0, 0, usize::MAX),
    ] {
        assert_eq!(huge.state_len(), Err(Error::Overflow), "{huge:?}");
        assert_eq!(huge.features().is_none(), huge.degree > 0 && huge.dim > 1, "{huge:?}");
    }
    assert_eq!(Shape::new(1000, 1, 1000).need().checked_bytes(), None);
    // t (dv + 1), block (d + dv + 1), d + 2 dv + ceil(g / 2) + 1.
    assert_eq!(shape.state_len(), Ok(10 * 3 + 16 * 6 + 3 + 4 + 2));
    assert_eq!(shape.frozen_len(), Some(10 * 3 + 1));
}

#[test]
fn states() {
    let p = problem();
    let len = p.shape.state_len().unwrap();
    let mut memory = vec![1.0; len];
    let mut new = |centre: &[f32], radius, len: usize| State::new(p.shape, centre, radius, &mut memory[..len]).err();
    assert_eq!(new(&[0.0; 2], 1.0, len), Some(Error::Shape));
    assert_eq!(new(&[0.0, f32::NAN, 0.0], 1.0, len), Some(Error::NonFinite));
    for radius in [0.0, -1.0, 1e-30, 1e30, f32::NAN, f32::INFINITY] {
        assert_eq!(new(&[0.0; 3], radius, len), Some(Error::Parameter));
    }
    assert_eq!(new(&[0.0; 3], 1.0, len - 1), Some(Error::Short));
    assert!(memory.iter().all(|&x| x == 1.0));
    for (count, waiting) in [(100, 16), (3, 4)] {
        let progress = Progress {
            count,
            waiting,
            additions: 9,
        };
        assert_eq!(
            State::open(p.shape, 1.0, progress, &mut memory).err(),
            Some(Error::Mismatch)
        );
    }
}

#[test]
fn tokens() {
    let p = problem();
    let mut own = Own::new(&p, Isa::best());
    own.push(&p, 0..20, 20).unwrap();
    let before = own.memory.clone();
    let progress = own.progress;
    let mut bytes = scratch(p.shape.need().bytes());
    let mut state = own.state();
    let mut refused = |k: &[f32], v: &[f32], cols: usize, room: usize| {
        let (k, v) = (
            MatRef::new(k, k.len() / cols, cols).unwrap(),
            MatRef::new(v, v.len() / 2, 2).unwrap(),
        );
        state.push(k, v, &mut Scratch::new(&mut bytes[..room])).err()
    };
    let room = p.shape.need().bytes();
    let good = &p.k[..6];
    assert_eq!(refused(good, &[0.0; 2], 3, room), Some(Error::Shape));
    assert_eq!(refused(&good[..4], &[0.0; 4], 2, room), Some(Error::Shape));
    assert_eq!(refused(good, &[0.0; 4], 3, room - 1), Some(Error::Short));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(refused(good, &[0.0, 1.0, 2.0, bad], 3, room), Some(Error::NonFinite));
        assert_eq!(
            refused(&[good[0], good[1], good[2], 0.0, 0.0, bad], &[0.0; 4], 3, room),
            Some(Error::NonFinite)
        );
    }
    for far in [9.0, -1e30, f32::MAX] {
        assert_eq!(
            refused(&[good[0], good[1], good[2], 0.0, 0.0, far], &[0.0; 4], 3, room),
            Some(Error::Range)
        );
    }
    assert_eq!(refused(&[], &[], 3, room), None);
    let far = [&p.k[..12], &[9.0; 3], &p.k[..3]].concat();
    assert_eq!(state.leading(MatRef::new(&far, 6, 3).unwrap()), 4);
    assert_eq!(state.leading(MatRef::new(&far, 9, 2).unwrap()), 0);
    assert_eq!(state.progress(), progress);
    assert_eq!(own.memory, before);
}

#[test]
fn other_states() {
    let p = problem();
    let mut own = Own::new(&p, Isa::best());
    own.push(&p, 0..20, 20).unwrap();
    let before = own.memory.clone();
    let mut bytes = scratch(p.shape.need().bytes());
    let other = |shape: Shape, centre: &[f32], radius: f32| {
        let mut memory = vec![0.0; shape.state_len().unwrap()];
        State::new(shape, centre, radius, &mut memory).unwrap();
        Own {
            isa: Isa::best(),
            shape,
            radius,
            memory,
            progress: Progress::default(),
        }
    };
    let mut moved = p.centre.clone();
    moved[2] += 0.5;
    let mut others = [
        other(p.shape, &moved, p.radius),
        other(p.shape, &p.centre, 1.5),
        other(Shape { degree: 3, ..p.shape }, &p.centre, p.radius),
        other(Shape { block: 32, ..p.shape }, &p.centre, p.radius),
        other(
            Shape {
                value_dim: 3,
                ..p.shape
            },
            &p.centre,
            p.radius,
        ),
    ];
    for other in &mut others {
        let other = other.state();
        let merged = own.state().merge(&other, &mut Scratch::new(&mut bytes));
        assert_eq!(merged, Err(Error::Mismatch));
    }
    let mut same = other(p.shape, &p.centre, p.radius);
    let merged = own.state().merge(&same.state(), &mut Scratch::new(&mut bytes[1..]));
    assert_eq!(merged, Err(Error::Short));
    assert_eq!(own.memory, before);
}

#[test]
fn questions() {
    let p = problem();
    let isa = Isa::best();
    let mut own = Own::new(&p, isa);
    own.push(&p, 0..20, 20).unwrap();
    let state = own.state();
    let mut bytes = scratch(p.shape.need().bytes());
    let mut weighted = vec![0.0; 31];
    assert_eq!(
        state.freeze(&mut weighted[1..], &mut Scratch::new(&mut bytes)).err(),
        Some(Error::Short)
    );
    assert_eq!(
        state.freeze(&mut weighted, &mut Scratch::new(&mut bytes[1..])).err(),
        Some(Error::Short)
    );
    let frozen = state.freeze(&mut weighted, &mut Scratch::new(&mut bytes)).unwrap();
    let lanes = lanes(isa);
    let mut bytes = scratch(p.shape.work_need(isa).bytes());
    assert_eq!(
        Work::new(p.shape, isa, &mut Scratch::new(&mut bytes[1..])).err(),
        Some(Error::Short)
    );
    let mut work = Work::new(p.shape, isa, &mut Scratch::new(&mut bytes)).unwrap();
    let (mut moments, mut magnitudes) = (vec![7.0; 9 * lanes], vec![7.0; 3 * lanes]);
    let mut ask = |q: &[f32], cols: usize, tau: f32, short: [usize; 2]| {
        let answer = Answer {
            moments: &mut moments[short[0]..],
            magnitudes: Some(&mut magnitudes[short[1]..]),
        };
        frozen
            .query(MatRef::new(q, q.len() / cols, cols).unwrap(), tau, &mut work, answer)
            .err()
    };
    assert_eq!(ask(&[0.0; 4], 2, 1.0, [0, 0]), Some(Error::Shape));
    assert_eq!(ask(&vec![0.0; 3 * lanes + 3], 3, 1.0, [0, 0]), Some(Error::Shape));
    assert_eq!(ask(&[0.0; 3], 3, 1.0, [1, 0]), Some(Error::Short));
    assert_eq!(ask(&[0.0; 3], 3, 1.0, [0, 1]), Some(Error::Short));
    for tau in [f32::NAN, f32::INFINITY, f32::MAX] {
        assert_eq!(ask(&[0.0; 3], 3, tau, [0, 0]), Some(Error::Parameter));
    }
    assert_eq!(ask(&[0.0, f32::NAN, 0.0], 3, 1.0, [0, 0]), Some(Error::NonFinite));
    assert!(moments.iter().chain(&magnitudes).all(|&x| x == 7.0));
    let mut bytes = scratch(4096 * 16);
    let other = Shape { degree: 1, ..p.shape };
    let mut work = Work::new(other, isa, &mut Scratch::new(&mut bytes)).unwrap();
    let answer = Answer {
        moments: &mut moments,
        magnitudes: None,
    };
    assert_eq!(
        frozen.query(MatRef::new(&[0.0; 3], 1, 3).unwrap(), 1.0, &mut work, answer),
        Err(Error::Shape)
    );
}

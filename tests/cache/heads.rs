//! Twelve heads of a real network, stored in fewer bits, against f64 on the numbers as they were.

use crate::memory::{append, attend, forward, Rooms};
use crate::numbers::read_npy;
use subquad::attention::CacheShape;
use subquad::{Format, Isa};

const HEADS: [&str; 12] = [
    "layer0_head2",
    "layer0_head7",
    "layer1_head3",
    "layer1_head8",
    "layer2_head6",
    "layer2_head11",
    "layer3_head2",
    "layer3_head5",
    "layer4_head0",
    "layer4_head9",
    "layer5_head2",
    "layer5_head9",
];
const ROWS: usize = 512;
const DIM: usize = 32;

/// Attention in f64.
fn exact(q: &[f32], k: &[f32], v: &[f32]) -> Vec<f64> {
    let mut out = vec![];
    for q in q.chunks(DIM) {
        let dot = |k: &[f32]| -> f64 { q.iter().zip(k).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
        let scores: Vec<f64> = k.chunks(DIM).map(|k| dot(k) / (DIM as f64).sqrt()).collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for c in 0..DIM {
            let column = weights.iter().zip(v.chunks(DIM)).map(|(w, v)| w * f64::from(v[c]));
            out.push(column.sum::<f64>() / sum);
        }
    }
    out
}

#[test]
fn errors_stay_below_their_bounds_on_real_heads() {
    let data: Vec<[Vec<f32>; 3]> = HEADS
        .iter()
        .map(|head| ["q", "k", "v"].map(|x| read_npy(&format!("tests/data/{head}_{x}.npy")).0))
        .collect();
    let answers: Vec<Vec<f64>> = data.iter().map(|[q, k, v]| exact(q, k, v)).collect();
    let s = CacheShape {
        heads: 1,
        dim: DIM,
        value_dim: DIM,
        capacity: ROWS,
        kept: 0,
    };
    for formats in [
        [Format::F16; 2],
        [Format::Bf16; 2],
        [Format::I8; 2],
        [Format::I8, Format::F16],
        [Format::F32, Format::I8],
    ] {
        let mut tightness = vec![];
        let (mut worst, mut loosest) = (0.0f64, 0.0f64);
        for (name, ([q, k, v], exact)) in HEADS.iter().zip(data.iter().zip(&answers)) {
            let mut rooms = Rooms::new(formats, s);
            let mut cache = rooms.cache(s);
            append(&mut cache, k, v).unwrap();
            for (isa, call) in [Isa::SCALAR, Isa::best()].into_iter().zip([attend, forward]) {
                let answer = call(&cache, isa, q);
                let errors = answer
                    .out
                    .iter()
                    .zip(exact)
                    .map(|(&x, want)| (f64::from(x) - want).abs());
                let error = errors.fold(0.0, f64::max);
                let bound = f64::from(answer.report.bound.value);
                assert!(error <= bound, "{name} {formats:?}: {error:e} above {bound:e}");
                // Storing has lost something, and the oracle sees it: f32 alone is off by a few 1e-6 at most.
                assert!(error > 1e-6, "{name} {formats:?}: {error:e}");
                tightness.push(bound / error);
                worst = worst.max(error);
                loosest = loosest.max(bound);
            }
        }
        tightness.sort_by(f64::total_cmp);
        let median = tightness[tightness.len() / 2];
        println!("{formats:?}: error {worst:.1e}, bound {loosest:.1e}, bound / error {median:.0} in the median of twelve heads");
        // A bound of a thousand times the error would not be worth its name.
        assert!(median < 1000.0);
    }
}

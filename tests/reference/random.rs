//! All rules at random.

use super::case::{Case, Grid};
use super::numbers::noise;
use subquad::attention::{Offset, Shape};

impl Case {
    /// Random data with the rules that `on` has, one bit each. Their numbers come from the seed.
    pub fn random(s: Shape, on: u16, seed: u64) -> Case {
        let has = |rule: u16| on >> rule & 1 == 1;
        let mut draws = noise(seed ^ 0x5eed, 4096).into_iter().map(|x| f64::from(x) / 2.0 + 0.5);
        let mut below = |n: usize| (draws.next().unwrap_or(0.0) * n as f64) as usize;
        let mut case = Case::new(s, seed);
        case.causal = has(0);
        case.offset = if has(1) {
            Offset::ToEnd
        } else {
            Offset::Keys(below(30) as i64 - 8)
        };
        case.left = has(2).then(|| below(12));
        case.right = has(3).then(|| below(12));
        case.sinks = if has(4) { below(6) } else { 0 };
        case.scale = has(5).then(|| below(30) as f32 / 10.0);
        case.cap = if has(6) { 0.5 + below(8) as f32 } else { 0.0 };
        case.sink_logits = has(7).then(|| (0..s.query_heads).map(|_| below(16) as f32 - 8.0).collect());
        case.slopes = has(8).then(|| (0..s.query_heads).map(|_| below(8) as f32 / 8.0).collect());
        case.key_lengths = has(9).then(|| (0..s.batch).map(|_| below(s.keys + 1)).collect());
        let mut mask_shape = || {
            let full = [s.batch, s.query_heads, s.queries];
            let [b, h, r] = full.map(|n| if below(2) == 0 { 1 } else { n });
            [b, h, r, s.keys - below(s.keys.min(3) + 1)]
        };
        let (mask, bias) = (mask_shape(), mask_shape());
        case.mask = has(10).then(|| Grid::from(mask, |_, _, _, _| u8::from(below(5) > 0)));
        case.bias = has(11).then(|| {
            Grid::from(bias, |_, _, _, _| {
                if below(6) == 0 {
                    f32::NEG_INFINITY
                } else {
                    below(16) as f32 / 4.0 - 2.0
                }
            })
        });
        if has(12) {
            let (query, key) = (below(s.queries + 1), below(s.keys + 1));
            case.segments = Some((vec![0, query, query, s.queries], vec![0, key / 2, key, s.keys]));
        }
        if has(13) && s.keys > 0 {
            let (b, j) = (below(s.batch), below(s.keys));
            case.poison(b, j, f32::NAN);
        }
        case
    }
}

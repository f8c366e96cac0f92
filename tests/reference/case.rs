//! A call with its data: what the contract calls inputs and attributes, owned, in the 4-D layout.

use super::numbers::noise;
use subquad::attention::{Offset, Rules, Segments, Shape};
use subquad::TensorRef;

/// A tensor of four axes that is repeated along axes of length 1.
#[derive(Clone, Debug)]
pub struct Grid<T> {
    pub shape: [usize; 4],
    pub data: Vec<T>,
}

impl<T: Copy> Grid<T> {
    /// Every entry by its index.
    pub fn from(shape: [usize; 4], mut entry: impl FnMut(usize, usize, usize, usize) -> T) -> Self {
        let mut data = vec![];
        for b in 0..shape[0] {
            for h in 0..shape[1] {
                for i in 0..shape[2] {
                    for j in 0..shape[3] {
                        data.push(entry(b, h, i, j));
                    }
                }
            }
        }
        Grid { shape, data }
    }

    /// The entry for (batch, head, query, key), the first three repeated as needed; nothing beyond the last column.
    pub fn at(&self, b: usize, h: usize, i: usize, j: usize) -> Option<T> {
        (j < self.shape[3]).then(|| self.data[self.index(b, h, i, j)])
    }

    /// Where that entry lies.
    pub fn index(&self, b: usize, h: usize, i: usize, j: usize) -> usize {
        let [batch, heads, rows, cols] = self.shape;
        let repeat = |n: usize, x: usize| if n == 1 { 0 } else { x };
        ((repeat(batch, b) * heads + repeat(heads, h)) * rows + repeat(rows, i)) * cols + j
    }
}

/// Inputs and rules of a call. Fields are public: a test says what differs from the default.
#[derive(Clone, Debug)]
pub struct Case {
    pub shape: Shape,
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub scale: Option<f32>,
    pub cap: f32,
    pub causal: bool,
    pub offset: Offset,
    pub left: Option<usize>,
    pub right: Option<usize>,
    pub sinks: usize,
    pub sink_logits: Option<Vec<f32>>,
    pub mask: Option<Grid<u8>>,
    pub bias: Option<Grid<f32>>,
    pub slopes: Option<Vec<f32>>,
    pub key_lengths: Option<Vec<usize>>,
    pub segments: Option<(Vec<usize>, Vec<usize>)>,
}

/// One head.
pub fn head(queries: usize, keys: usize, dim: usize, value_dim: usize) -> Shape {
    Shape::head(queries, keys, dim, value_dim)
}

impl Case {
    /// Random data, no rules.
    pub fn new(shape: Shape, seed: u64) -> Case {
        let s = shape;
        let spread = |seed: u64, n: usize, by: f32| noise(seed, n).iter().map(|x| x * by).collect();
        Case {
            shape,
            q: spread(3 * seed, s.batch * s.query_heads * s.queries * s.dim, 3.0),
            k: spread(3 * seed + 1, s.batch * s.kv_heads * s.keys * s.dim, 2.0),
            v: spread(3 * seed + 2, s.batch * s.kv_heads * s.keys * s.value_dim, 1.0),
            scale: None,
            cap: 0.0,
            causal: false,
            offset: Offset::Keys(0),
            left: None,
            right: None,
            sinks: 0,
            sink_logits: None,
            mask: None,
            bias: None,
            slopes: None,
            key_lengths: None,
            segments: None,
        }
    }

    /// The same case with something changed.
    pub fn but(mut self, change: impl FnOnce(&mut Case)) -> Case {
        change(&mut self);
        self
    }

    /// Overwrites key and value `j` of every head of a batch entry.
    pub fn poison(&mut self, b: usize, j: usize, with: f32) {
        let s = self.shape;
        for h in 0..s.kv_heads {
            let row = (b * s.kv_heads + h) * s.keys + j;
            self.k[row * s.dim..][..s.dim].fill(with);
            self.v[row * s.value_dim..][..s.value_dim].fill(with);
        }
    }

    /// The rules as the library takes them.
    pub fn rules(&self) -> Rules<'_> {
        let mut rules = Rules::new()
            .with_cap(self.cap)
            .with_offset(self.offset)
            .with_window(self.left, self.right)
            .with_sinks(self.sinks);
        if let Some(scale) = self.scale {
            rules = rules.with_scale(scale);
        }
        if self.causal {
            rules = rules.with_causal();
        }
        if let Some(x) = &self.sink_logits {
            rules = rules.with_sink_logits(x);
        }
        if let Some(x) = &self.mask {
            rules = rules.with_mask(TensorRef::new(&x.data, x.shape).unwrap());
        }
        if let Some(x) = &self.bias {
            rules = rules.with_bias(TensorRef::new(&x.data, x.shape).unwrap());
        }
        if let Some(x) = &self.slopes {
            rules = rules.with_slopes(x);
        }
        if let Some(x) = &self.key_lengths {
            rules = rules.with_key_lengths(x);
        }
        if let Some((queries, keys)) = &self.segments {
            rules = rules.with_segments(Segments { queries, keys });
        }
        rules
    }
}

//! The half-precision cases: tensors stored as f16 or bf16, arithmetic in f32. Keys and values are read where they lie, as
//! bits, or appended to a cache, by both plans; the result is rounded to the format once, at the end.

use crate::fixture::{bias, cached, with_past, GQA, MHA, PAST};
use crate::reference::{odd_scratch, Case};
use subquad::attention::{Cache, CacheShape, Decode, Exact, Outputs, Shape, Store};
use subquad::half::{bf16_from_f32, f16_from_f32, f32_from_bf16, f32_from_f16};
use subquad::{Error, Format, Isa, RowsRef, TensorMut, TensorRef};

/// f16 or bf16: to bits, from bits, and the view.
#[derive(Clone, Copy)]
struct Half {
    format: Format,
    to: fn(f32) -> u16,
    from: fn(u16) -> f32,
}

const F16: Half = Half {
    format: Format::F16,
    to: f16_from_f32,
    from: f32_from_f16,
};
const BF16: Half = Half {
    format: Format::Bf16,
    to: bf16_from_f32,
    from: f32_from_bf16,
};

impl Half {
    fn bits(&self, x: &[f32]) -> Vec<u16> {
        x.iter().map(|&x| (self.to)(x)).collect()
    }

    fn rows<'a>(&self, bits: TensorRef<'a, u16>) -> RowsRef<'a> {
        match self.format {
            Format::F16 => RowsRef::f16(bits),
            _ => RowsRef::bf16(bits),
        }
    }

    /// The case as its tensors are: every number rounded to the format.
    fn case(&self, case: Case) -> Case {
        case.but(|c| {
            for x in [&mut c.q, &mut c.k, &mut c.v] {
                x.iter_mut().for_each(|x| *x = (self.from)((self.to)(*x)));
            }
        })
    }

    /// The right answer as f32, and still after it is rounded to the format.
    fn admits(&self, case: &Case, out: &[f32]) {
        for (n, (near, &got)) in case.answer().out.iter().zip(out).enumerate() {
            assert!(near.admits(got), "out[{n}] is {got:e}, not {near:?}");
            let stored = f64::from((self.from)((self.to)(got)));
            // Half a unit in the last of 11 or 8 digits, or of a subnormal.
            let digits = if self.format == Format::F16 { 11 } else { 8 };
            let unit = near.value.abs() * 2f64.powi(-digits) + 2f64.powi(-25);
            assert!((stored - near.value).abs() <= 1.01 * (near.error + unit));
        }
    }
}

/// Stored bits on every back end, in either layout: the right answer, and the bits of the f32 numbers they stand for.
fn conforms(case: Case, half: Half, packed: bool) {
    let case = half.case(case);
    let s = case.shape;
    let order = |x: &[f32], heads: usize, rows: usize, cols: usize| -> Vec<f32> {
        if !packed {
            return x.to_vec();
        }
        let at = |b, r, h| ((b * heads + h) * rows + r) * cols;
        let rows = (0..s.batch).flat_map(|b| (0..rows).flat_map(move |r| (0..heads).map(move |h| at(b, r, h))));
        rows.flat_map(|at| &x[at..at + cols]).copied().collect()
    };
    let (k, v) = (
        order(&case.k, s.kv_heads, s.keys, s.dim),
        order(&case.v, s.kv_heads, s.keys, s.value_dim),
    );
    let (k_bits, v_bits) = (half.bits(&k), half.bits(&v));
    let (k_shape, v_shape) = (
        [s.batch, s.kv_heads, s.keys, s.dim],
        [s.batch, s.kv_heads, s.keys, s.value_dim],
    );
    fn view<T>(data: &[T], shape: [usize; 4], packed: bool) -> TensorRef<'_, T> {
        let made = if packed {
            TensorRef::packed(data, shape)
        } else {
            TensorRef::new(data, shape)
        };
        made.unwrap()
    }
    for isa in Isa::all() {
        let few = Decode::new(s).unwrap().with_rules(case.rules()).unwrap().with_isa(isa);
        let many = Exact::new(s).unwrap().with_rules(case.rules()).unwrap().with_isa(isa);
        let run = |exact: bool, k: RowsRef<'_>, v: RowsRef<'_>| {
            let mut out = vec![0.0; s.batch * s.query_heads * s.queries * s.value_dim];
            let shape = [s.batch, s.query_heads, s.queries, s.value_dim];
            let q = TensorRef::new(&case.q, [s.batch, s.query_heads, s.queries, s.dim]).unwrap();
            let outputs = Outputs {
                out: Some(TensorMut::new(&mut out, shape).unwrap()),
                ..Outputs::default()
            };
            let mut result = Err(Error::Empty);
            let need = if exact { many.need_rows() } else { few.need() };
            odd_scratch(need.bytes(), |scratch| {
                result = match exact {
                    true => many.run_rows(q, k, v, outputs, scratch),
                    false => few.run_rows(q, k, v, outputs, scratch),
                }
            });
            assert_eq!(result.unwrap().non_finite_rows, 0);
            out
        };
        for exact in [false, true] {
            let stored = run(
                exact,
                half.rows(view(&k_bits, k_shape, packed)),
                half.rows(view(&v_bits, v_shape, packed)),
            );
            let (k, v) = (view(&k, k_shape, packed), view(&v, v_shape, packed));
            assert_eq!(stored, run(exact, k.into(), v.into()), "{}", isa.name());
            half.admits(&case, &stored);
        }
    }
}

/// Past and new keys into one cache per batch entry: its rows are "present".
fn conforms_from_caches(case: Case, half: Half) {
    let case = half.case(case);
    let s = case.shape;
    let shape = CacheShape {
        heads: s.kv_heads,
        dim: s.dim,
        value_dim: s.value_dim,
        capacity: s.keys,
        kept: 0,
    };
    let mut all = [vec![], vec![]];
    for b in 0..s.batch {
        let rows = s.kv_heads * s.keys;
        let (mut k, mut v) = (vec![0; rows * s.dim], vec![0; rows * s.value_dim]);
        fn store(format: Format, bits: &mut [u16]) -> Store<'_> {
            match format {
                Format::F16 => Store::F16(bits),
                _ => Store::Bf16(bits),
            }
        }
        let mut cache = Cache::new(shape, store(half.format, &mut k), store(half.format, &mut v)).unwrap();
        let part = |x: &[f32], cols: usize, rows: std::ops::Range<usize>| -> Vec<f32> {
            let heads = x[b * s.kv_heads * s.keys * cols..]
                .chunks(s.keys * cols)
                .take(s.kv_heads);
            heads
                .flat_map(|head| &head[rows.start * cols..rows.end * cols])
                .copied()
                .collect()
        };
        for rows in [0..PAST, PAST..s.keys] {
            let n = rows.len();
            let (k, v) = (part(&case.k, s.dim, rows.clone()), part(&case.v, s.value_dim, rows));
            let k = TensorRef::new(&k, [1, s.kv_heads, n, s.dim]).unwrap();
            let v = TensorRef::new(&v, [1, s.kv_heads, n, s.value_dim]).unwrap();
            cache.append(k, v).unwrap();
        }
        assert_eq!(cache.progress().loss, subquad::attention::Loss::NONE);
        let q_len = s.query_heads * s.queries * s.dim;
        let q = TensorRef::new(&case.q[b * q_len..][..q_len], [1, s.query_heads, s.queries, s.dim]).unwrap();
        let few = cache.decode(s.query_heads, s.queries).unwrap();
        let few = few.with_rules(case.rules()).unwrap();
        let many = cache.exact(s.query_heads, s.queries).unwrap();
        let many = many.with_rules(case.rules()).unwrap();
        for (all, need) in all.iter_mut().zip([few.need(), many.need_rows()]) {
            let mut out = vec![0.0; s.query_heads * s.queries * s.value_dim];
            let outputs = Outputs {
                out: Some(TensorMut::new(&mut out, [1, s.query_heads, s.queries, s.value_dim]).unwrap()),
                ..Outputs::default()
            };
            let mut result = Err(Error::Empty);
            odd_scratch(need.bytes(), |scratch| {
                result = match need == few.need() {
                    true => cache.attend(&few, q, outputs, scratch),
                    false => cache.forward(&many, q, outputs, scratch),
                }
            });
            assert_eq!(result.unwrap().non_finite_rows, 0);
            all.extend(out);
        }
    }
    for out in &all {
        half.admits(&case, out);
    }
    // The cache holds the bits that the tensors have.
    assert_eq!(
        case.k,
        half.bits(&case.k).iter().map(|&x| (half.from)(x)).collect::<Vec<_>>()
    );
}

/// An external cache, as in the f32 cases.
const CACHE: Shape = Shape { keys: 14, ..MHA };

cases! {
    fn attention_4d_fp16() { conforms(Case::new(MHA, 4), F16, false); }
    fn attention_4d_gqa_with_past_and_present_fp16() {
        let total = PAST + GQA.keys;
        conforms_from_caches(with_past(GQA).but(|c| c.bias = bias([1, 1, 4, total])), F16);
    }
    fn attention_4d_causal_bf16() { conforms(Case::new(MHA, 4).but(|c| c.causal = true), BF16, false); }
    fn attention_4d_causal_fp16() { conforms(Case::new(MHA, 4).but(|c| c.causal = true), F16, false); }
    fn attention_4d_padded_kv_bf16() { conforms(cached(MHA, &[3, 4]), BF16, false); }
    fn attention_4d_causal_padded_kv_bf16() {
        conforms(cached(MHA, &[4, 6]).but(|c| c.causal = true), BF16, false);
    }
    fn attention_4d_attn_mask_causal_bf16() {
        conforms(Case::new(MHA, 4).but(|c| (c.bias, c.causal) = (bias([1, 1, 4, 6]), true)), BF16, false);
    }
    fn attention_3d_causal_bf16() { conforms(Case::new(MHA, 3).but(|c| c.causal = true), BF16, true); }
    fn attention_4d_gqa_causal_nonpad_decode_fp16() {
        let one = Shape { queries: 1, keys: 9, ..GQA };
        conforms(cached(one, &[5, 9]).but(|c| c.causal = true), F16, false);
    }
    fn attention_local_window_ext_cache_float16_mask() {
        let window = |c: &mut Case| (c.left, c.right, c.bias) = (Some(4), Some(0), bias([1, 1, 4, 14]));
        conforms(cached(CACHE, &[6, 11]).but(window), F16, false);
    }
}

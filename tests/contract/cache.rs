//! Rows of caches. The cache itself lies in the block, like all its memory: in regions that a call which succeeds may write.

mod common;

use super::memory::{set, SIZE};
use super::Condition::*;
use super::Expect::{Refused, Runs};
use super::Row::{Case, NotApplicable};
use super::{Condition, Contract, Memory, Region, Row, Table};
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use subquad::ffi::*;

/// Arguments of every function over a cache.
pub struct Args {
    cache: *mut subquad_cache,
    k: subquad_tensor,
    v: subquad_tensor,
    q: subquad_tensor,
    rules: *const subquad_attention,
    outputs: subquad_outputs,
    work: *mut c_void,
    work_size: usize,
    report: *mut subquad_report,
    n: usize,
    query_heads: usize,
    to: *mut usize,
    saved: *mut c_void,
    from: *const c_void,
    size: usize,
    table: *mut u32,
}

const HEADS: usize = 2;
const DIM: usize = 4;
const VALUE_DIM: usize = 3;
const CAPACITY: usize = 6;
const KEYS: usize = 4;
/// Head, rows of five and twelve bytes and a scale each, checksum.
const SAVED: usize = 104 + KEYS * HEADS * (DIM + 4 + 4 * VALUE_DIM) + 4;

fn good(m: &Memory) -> Args {
    let cache = subquad_cache {
        heads: HEADS,
        dim: DIM,
        value_dim: VALUE_DIM,
        capacity: CAPACITY,
        kept: 1,
        key_format: SUBQUAD_FORMAT_I8,
        value_format: SUBQUAD_FORMAT_F32,
        sliding: 1,
        keys: m.at(Region::Partials),
        key_scales: m.at::<f32>(Region::Partials).wrapping_add(1024),
        values: m.at(Region::Scores),
        value_scales: null_mut(),
        table: null(),
        block: 0,
        pages: 0,
        rotary: subquad_rotary {
            rotary_dim: 2,
            base: 10_000.0,
            position_scale: 0.0,
            pairing: SUBQUAD_PAIRING_NEIGHBOURS,
            isa: SUBQUAD_ISA_BEST,
        },
        rotary_room: m.at::<f32>(Region::Partials).wrapping_add(2048),
        next: KEYS as u64,
        first: 1,
        turned: CAPACITY,
        key_loss: 0.1,
        value_loss: 0.0,
    };
    m.put(Region::Lse, &[cache]);
    m.put::<u32>(Region::Lengths, &[1, 0, 2]);
    let tensor = |region, heads, cols| subquad_tensor {
        data: m.at(region),
        batch: 1,
        heads,
        rows: 1,
        cols,
        batch_stride: 0,
        head_stride: cols,
        row_stride: cols,
        col_stride: 1,
    };
    // SAFETY: every field of both is a number or a pointer, and zero means nothing special.
    let (mut outputs, rules): (subquad_outputs, subquad_attention) = unsafe { std::mem::zeroed() };
    outputs.out = subquad_tensor_mut {
        data: m.at(Region::Out),
        batch: 1,
        heads: 4,
        rows: 1,
        cols: VALUE_DIM,
        batch_stride: 0,
        head_stride: VALUE_DIM,
        row_stride: VALUE_DIM,
        col_stride: 1,
    };
    m.put(Region::Rules, &[rules]);
    let args = Args {
        cache: m.at(Region::Lse),
        k: tensor(Region::K, HEADS, DIM),
        v: tensor(Region::V, HEADS, VALUE_DIM),
        q: tensor(Region::Q, 4, DIM),
        rules: m.at(Region::Rules),
        outputs,
        work: m.at(Region::Work),
        work_size: SIZE,
        report: m.at(Region::Report),
        n: 1,
        query_heads: 4,
        to: m.at(Region::Out),
        saved: m.at(Region::Work),
        from: m.at(Region::Bias),
        size: SAVED,
        table: m.at(Region::Lengths),
    };
    // SAFETY: a good cache, and room for it.
    let status = unsafe { subquad_cache_save(args.cache, args.from.cast_mut(), SAVED) };
    assert_eq!(status, SUBQUAD_OK);
    args
}

/// Changes the cache where it lies.
fn spoil(a: &mut Args, change: fn(&mut subquad_cache)) {
    // SAFETY: the block holds a cache there, and nobody a reference.
    let mut cache = unsafe { a.cache.read() };
    change(&mut cache);
    set(a.cache, cache);
}

macro_rules! calls {
    ($($name:ident = |$a:ident| $call:expr;)+) => {$(
        fn $name($a: &Args) -> i32 {
            // SAFETY: pointers reach over what the sizes say inside the block, or are refused before they are followed.
            unsafe { $call }
        }
    )+};
}

calls! {
    append = |a| subquad_cache_append(a.cache, a.k, a.v);
    evict = |a| subquad_cache_evict(a.cache, a.n);
    length = |a| subquad_cache_length(a.cache, a.to);
    attend = |a| subquad_cache_attend(a.cache, a.rules, a.q, a.outputs, 1, a.work, a.work_size, a.report);
    attend_need = |a| subquad_cache_attend_need(a.cache, a.query_heads, 1, a.to);
    forward = |a| subquad_cache_forward(a.cache, a.rules, a.q, a.outputs, 1, a.work, a.work_size, a.report);
    forward_need = |a| subquad_cache_forward_need(a.cache, a.rules, a.query_heads, 1, 0, a.to);
    save = |a| subquad_cache_save(a.cache, a.saved, a.size);
    save_need = |a| subquad_cache_save_need(a.cache, a.to);
    load = |a| subquad_cache_load(a.cache, a.from, a.size);
}

fn none(conditions: &[Condition], reason: &'static str) -> Vec<Row<Args>> {
    conditions.iter().map(|&c| NotApplicable(c, reason)).collect()
}

fn number_rows() -> Vec<Row<Args>> {
    let mut rows = none(
        &[ShortScratch, InnerStride, HeadsNotDivisible],
        "takes a cache and gives a number",
    );
    rows.extend([
        Case(Null, "the number", Refused(SUBQUAD_E_NULL), |a: &mut Args| {
            a.to = null_mut()
        }),
        Case(Misaligned, "the number", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.to = a.to.wrapping_byte_add(1)
        }),
        Case(Overlap, "the number in the cache", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.to = a.cache.cast()
        }),
    ]);
    rows
}

fn append_rows() -> Vec<Row<Args>> {
    vec![
        NotApplicable(ShortScratch, "takes no scratch"),
        Case(Null, "k", Refused(SUBQUAD_E_NULL), |a: &mut Args| a.k.data = null()),
        Case(Misaligned, "v", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.v.data = a.v.data.wrapping_byte_add(1)
        }),
        Case(ZeroSizes, "no rows", Runs, |a| (a.k.rows, a.v.rows) = (0, 0)),
        Case(Overlap, "k in the cache", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.k.data = a.cache.cast_const().cast()
        }),
        Case(NonFinite, "a key", Refused(SUBQUAD_E_NON_FINITE), |a| {
            set(a.k.data.wrapping_add(HEADS * DIM - 1), f32::NAN)
        }),
        Case(NonFinite, "a value", Refused(SUBQUAD_E_NON_FINITE), |a| {
            set(a.v.data, f32::INFINITY)
        }),
        Case(InnerStride, "k", Refused(SUBQUAD_E_SHAPE), |a| a.k.col_stride = 2),
        Case(HeadsNotDivisible, "other heads", Refused(SUBQUAD_E_SHAPE), |a| {
            a.k.heads = 1
        }),
        Case(HeadsNotDivisible, "other columns", Refused(SUBQUAD_E_SHAPE), |a| {
            a.v.cols = 2
        }),
        Case(OutOfRange, "no room", Refused(SUBQUAD_E_FULL), |a| {
            spoil(a, |c| (c.sliding, c.next) = (0, CAPACITY as u64))
        }),
        Case(Null, "no room is needed where nothing is turned", Runs, |a| {
            spoil(a, |c| (c.rotary.base, c.rotary_room) = (0.0, null_mut()))
        }),
        Case(OutOfRange, "beyond f16", Refused(SUBQUAD_E_RANGE), |a| {
            set(a.v.data, 1e5);
            spoil(a, |c| c.value_format = SUBQUAD_FORMAT_F16)
        }),
    ]
}

fn attend_rows() -> Vec<Row<Args>> {
    vec![
        Case(Null, "rules are none", Runs, |a: &mut Args| a.rules = null()),
        Case(Null, "report is not wanted", Runs, |a| a.report = null_mut()),
        Case(Null, "q", Refused(SUBQUAD_E_NULL), |a| a.q.data = null()),
        Case(Null, "every output", Refused(SUBQUAD_E_NULL), |a| {
            a.outputs.out.data = null_mut()
        }),
        Case(Misaligned, "rules", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.rules = a.rules.wrapping_byte_add(1)
        }),
        Case(ShortScratch, "little", Refused(SUBQUAD_E_SHORT), |a| a.work_size = 30),
        Case(ZeroSizes, "no keys: every row sees none", Runs, |a| {
            spoil(a, |c| (c.next, c.first) = (0, 0))
        }),
        Case(Overlap, "out and the keys", Refused(SUBQUAD_E_OVERLAP), |a| {
            // SAFETY: as in `spoil`.
            a.outputs.out.data = unsafe { a.cache.read() }.keys.cast()
        }),
        Case(Overlap, "work and the cache", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.work = a.cache.cast()
        }),
        Case(NonFinite, "queries are never refused", Runs, |a| {
            set(a.q.data, f32::NAN)
        }),
        Case(InnerStride, "q", Refused(SUBQUAD_E_SHAPE), |a| a.q.col_stride = 2),
        Case(HeadsNotDivisible, "three of two", Refused(SUBQUAD_E_SHAPE), |a| {
            (a.q.heads, a.outputs.out.heads) = (3, 3)
        }),
        Case(HeadsNotDivisible, "other columns", Refused(SUBQUAD_E_SHAPE), |a| {
            a.q.cols = 3
        }),
        Case(UnknownNumber, "isa", Refused(SUBQUAD_E_UNSUPPORTED), |a| {
            // SAFETY: the block holds rules there.
            let rules = unsafe { a.rules.read() };
            set(a.rules, subquad_attention { isa: 99, ..rules })
        }),
    ]
}

fn need_rows() -> Vec<Row<Args>> {
    let mut rows = number_rows();
    rows.retain(|row| !matches!(row, NotApplicable(HeadsNotDivisible, _)));
    rows.push(Case(HeadsNotDivisible, "three of two", Refused(SUBQUAD_E_SHAPE), |a| {
        a.query_heads = 3
    }));
    rows
}

fn forward_need_rows() -> Vec<Row<Args>> {
    let mut rows = need_rows();
    rows.extend([
        Case(Null, "rules are none", Runs, |a: &mut Args| a.rules = null()),
        Case(Misaligned, "rules", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.rules = a.rules.wrapping_byte_add(1)
        }),
        Case(Overlap, "the number in the rules", Refused(SUBQUAD_E_OVERLAP), |a| {
            a.to = a.rules.cast_mut().cast()
        }),
    ]);
    rows
}

fn bytes_rows() -> Vec<Row<Args>> {
    let mut rows = none(
        &[ShortScratch, InnerStride, HeadsNotDivisible],
        "takes a cache and bytes",
    );
    rows.extend([
        Case(
            OverflowingSizes,
            "bytes",
            Refused(SUBQUAD_E_OVERFLOW),
            |a: &mut Args| a.size = usize::MAX,
        ),
        Case(Overlap, "bytes and the keys", Refused(SUBQUAD_E_OVERLAP), |a| {
            // SAFETY: as in `spoil`.
            a.saved = unsafe { a.cache.read() }.keys;
            a.from = a.saved;
        }),
    ]);
    rows
}

pub fn tables() -> Vec<Box<dyn Contract>> {
    let table = |function, call, own: Vec<Row<Args>>| -> Box<dyn Contract> {
        let rows = common::rows().into_iter().chain(own).collect();
        Box::new(Table {
            function,
            good,
            call,
            rows,
        })
    };
    let mut few = none(
        &[ShortScratch, InnerStride, HeadsNotDivisible],
        "takes a cache and a number",
    );
    few.push(Case(OutOfRange, "more than there are", Refused(SUBQUAD_E_RANGE), |a| {
        a.n = KEYS
    }));
    let (mut to, mut from) = (bytes_rows(), bytes_rows());
    to.push(Case(Null, "bytes", Refused(SUBQUAD_E_NULL), |a| a.saved = null_mut()));
    to.push(Case(ShortScratch, "one byte less", Refused(SUBQUAD_E_SHORT), |a| {
        a.size -= 1
    }));
    from.push(Case(Null, "bytes", Refused(SUBQUAD_E_NULL), |a| a.from = null()));
    from.push(Case(ZeroSizes, "no bytes", Refused(SUBQUAD_E_CORRUPT), |a| a.size = 0));
    from.push(Case(OutOfRange, "one byte less", Refused(SUBQUAD_E_CORRUPT), |a| {
        a.size -= 1
    }));
    from.push(Case(OutOfRange, "one bit", Refused(SUBQUAD_E_CORRUPT), |a| {
        // SAFETY: inside the saved bytes.
        let byte = unsafe { a.from.cast::<u8>().wrapping_add(100).read() };
        set(a.from.cast::<u8>().wrapping_add(100), byte ^ 16)
    }));
    from.push(Case(OutOfRange, "too many keys", Refused(SUBQUAD_E_FULL), |a| {
        spoil(a, |c| (c.capacity, c.turned, c.next) = (3, 3, 1))
    }));
    from.push(Case(BadScaleOrCap, "another base", Refused(SUBQUAD_E_MISMATCH), |a| {
        spoil(a, |c| c.rotary.base = 5_000.0)
    }));
    from.push(Case(
        HeadsNotDivisible,
        "another shape",
        Refused(SUBQUAD_E_MISMATCH),
        |a| spoil(a, |c| c.heads = 1),
    ));
    vec![
        table("subquad_cache_append", append, append_rows()),
        table("subquad_cache_evict", evict, few),
        table("subquad_cache_length", length, number_rows()),
        table("subquad_cache_attend", attend, attend_rows()),
        table("subquad_cache_attend_need", attend_need, need_rows()),
        table("subquad_cache_forward", forward, attend_rows()),
        table("subquad_cache_forward_need", forward_need, forward_need_rows()),
        table("subquad_cache_save", save, to),
        table("subquad_cache_save_need", save_need, number_rows()),
        table("subquad_cache_load", load, from),
    ]
}

/// Sizes are as large as they must be, and no larger.
pub fn check_need(m: &Memory) {
    type Call = fn(&Args) -> i32;
    for [need, call] in [[attend_need as Call, attend], [forward_need, forward]] {
        let mut a = good(m);
        assert_eq!(need(&a), SUBQUAD_OK);
        // SAFETY: written by the call before.
        a.work_size = unsafe { a.to.read() };
        a.work = a.work.wrapping_byte_add(1);
        assert_eq!(call(&a), SUBQUAD_OK);
        a.work_size -= 1;
        assert_eq!(call(&a), SUBQUAD_E_SHORT);
    }
    let a = good(m);
    assert_eq!(save_need(&a), SUBQUAD_OK);
    // SAFETY: written by the call before.
    assert_eq!(unsafe { a.to.read() }, SAVED);
    assert_eq!(length(&a), SUBQUAD_OK);
    // SAFETY: written by the call before.
    assert_eq!(unsafe { a.to.read() }, KEYS);
}

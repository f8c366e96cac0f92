//! What every function over a cache refuses.

use super::super::memory::set;
use super::super::Condition::*;
use super::super::Expect::Refused;
use super::super::Row::{self, Case, NotApplicable};
use super::{spoil, Args, CAPACITY};
use std::ptr::null_mut;
use subquad::ffi::*;

pub fn rows() -> Vec<Row<Args>> {
    vec![
        Case(Null, "cache", Refused(SUBQUAD_E_NULL), |a| a.cache = null_mut()),
        Case(Null, "keys", Refused(SUBQUAD_E_NULL), |a| {
            spoil(a, |c| c.keys = null_mut())
        }),
        Case(Null, "scales", Refused(SUBQUAD_E_NULL), |a| {
            spoil(a, |c| c.key_scales = null_mut())
        }),
        Case(Null, "values", Refused(SUBQUAD_E_NULL), |a| {
            spoil(a, |c| c.values = null_mut())
        }),
        Case(Null, "room to turn keys", Refused(SUBQUAD_E_NULL), |a| {
            spoil(a, |c| c.rotary_room = null_mut())
        }),
        Case(Misaligned, "cache", Refused(SUBQUAD_E_MISALIGNED), |a| {
            a.cache = a.cache.wrapping_byte_add(4)
        }),
        Case(Misaligned, "scales", Refused(SUBQUAD_E_MISALIGNED), |a| {
            spoil(a, |c| c.key_scales = c.key_scales.wrapping_byte_add(1))
        }),
        Case(Misaligned, "values", Refused(SUBQUAD_E_MISALIGNED), |a| {
            spoil(a, |c| c.values = c.values.wrapping_byte_add(2))
        }),
        Case(ZeroSizes, "heads", Refused(SUBQUAD_E_SHAPE), |a| {
            spoil(a, |c| c.heads = 0)
        }),
        Case(ZeroSizes, "columns", Refused(SUBQUAD_E_SHAPE), |a| {
            spoil(a, |c| (c.dim, c.value_dim, c.rotary.base) = (0, 0, 0.0))
        }),
        Case(OverflowingSizes, "capacity", Refused(SUBQUAD_E_OVERFLOW), |a| {
            spoil(a, |c| c.capacity = usize::MAX)
        }),
        Case(OverflowingSizes, "dim", Refused(SUBQUAD_E_OVERFLOW), |a| {
            spoil(a, |c| c.dim = usize::MAX / 2)
        }),
        Case(Overlap, "keys and values", Refused(SUBQUAD_E_OVERLAP), |a| {
            spoil(a, |c| c.keys = c.values)
        }),
        Case(
            Overlap,
            "room to turn keys in the keys",
            Refused(SUBQUAD_E_OVERLAP),
            |a| spoil(a, |c| c.rotary_room = c.keys.cast()),
        ),
        Case(Overlap, "values in the cache", Refused(SUBQUAD_E_OVERLAP), |a| {
            let at = a.cache;
            // SAFETY: as in `spoil`.
            let mut cache = unsafe { at.read() };
            cache.values = at.cast();
            set(at, cache);
        }),
        Case(NonFinite, "a loss", Refused(SUBQUAD_E_PARAMETER), |a| {
            spoil(a, |c| c.key_loss = f32::NAN)
        }),
        Case(BadScaleOrCap, "a loss below 0", Refused(SUBQUAD_E_PARAMETER), |a| {
            spoil(a, |c| c.value_loss = -1.0)
        }),
        Case(BadScaleOrCap, "a base of 1", Refused(SUBQUAD_E_PARAMETER), |a| {
            spoil(a, |c| c.rotary.base = 1.0)
        }),
        Case(
            OutOfRange,
            "more turned columns than there are",
            Refused(SUBQUAD_E_SHAPE),
            |a| spoil(a, |c| c.rotary.rotary_dim = 6),
        ),
        Case(UnknownNumber, "pairing", Refused(SUBQUAD_E_PARAMETER), |a| {
            spoil(a, |c| c.rotary.pairing = 2)
        }),
        Case(BadScaleOrCap, "a block of 0", Refused(SUBQUAD_E_PARAMETER), |a| {
            let table = a.table;
            // SAFETY: as in `spoil`.
            let mut cache = unsafe { a.cache.read() };
            (cache.table, cache.pages) = (table, 3);
            set(a.cache, cache);
        }),
        Case(BadScaleOrCap, "no room to slide", Refused(SUBQUAD_E_PARAMETER), |a| {
            spoil(a, |c| c.kept = CAPACITY)
        }),
        Case(OutOfRange, "a page", Refused(SUBQUAD_E_RANGE), |a| {
            let table = a.table;
            // SAFETY: as in `spoil`.
            let mut cache = unsafe { a.cache.read() };
            (cache.table, cache.pages, cache.block) = (table, 2, 2);
            set(a.cache, cache);
        }),
        Case(OutOfRange, "more keys than room", Refused(SUBQUAD_E_MISMATCH), |a| {
            spoil(a, |c| c.next = 100)
        }),
        Case(
            OutOfRange,
            "rows of the second head elsewhere",
            Refused(SUBQUAD_E_MISMATCH),
            |a| spoil(a, |c| c.turned = CAPACITY + 1),
        ),
        Case(IntegerLimits, "next", Refused(SUBQUAD_E_MISMATCH), |a| {
            spoil(a, |c| c.next = u64::MAX)
        }),
        Case(IntegerLimits, "first", Refused(SUBQUAD_E_MISMATCH), |a| {
            spoil(a, |c| c.first = u64::MAX)
        }),
        Case(IntegerLimits, "kept", Refused(SUBQUAD_E_PARAMETER), |a| {
            spoil(a, |c| c.kept = usize::MAX)
        }),
        Case(UnknownNumber, "format of keys", Refused(SUBQUAD_E_PARAMETER), |a| {
            spoil(a, |c| c.key_format = 4)
        }),
        Case(UnknownNumber, "format of values", Refused(SUBQUAD_E_PARAMETER), |a| {
            spoil(a, |c| c.value_format = -1)
        }),
        NotApplicable(MaskLongerThanKeys, "a mask is a part of rules"),
    ]
}

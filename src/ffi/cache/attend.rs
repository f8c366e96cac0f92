//! Attention over the keys of a cache.

use super::open::read;
use super::subquad_cache;
use crate::attention::{Cache, CacheShape, Decode, Exact, Offset, Outputs, Rules, Shape};
use crate::error::Error;
use crate::ffi::{apart, give, info, optional, scratch, status, Extent};
use crate::ffi::{subquad_attention, subquad_outputs, subquad_report, subquad_tensor};
use crate::report::Report;
use crate::scratch::Scratch;
use crate::simd::Isa;
use core::ffi::c_void;

/// Attention of a few new queries (1 x query_heads x queries x dim) over the keys that are there, read where they lie, in
/// the order of their positions: the bits of subquad_attention_decode over the same keys in plain memory.
///
/// `rules` count the keys that are there, the kept ones first; null: the last query stands at the last key, and every query
/// sees every key. `rules` for a call of one problem, without segments or key_lengths (SUBQUAD_E_SHAPE). With `want_bound`
/// not 0 the report's bound, at the cost of one more pass, is about the keys and values as they were appended.
///
/// `work` is scratch as subquad_cache_attend_need says, `report` may be null. Errors as for subquad_attention_decode and
/// subquad_cache_append.
///
/// # Safety
/// As for subquad_attention_decode and subquad_cache_append.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)] // the C signature
pub unsafe extern "C" fn subquad_cache_attend(
    cache: *const subquad_cache,
    rules: *const subquad_attention,
    q: subquad_tensor,
    outputs: subquad_outputs,
    want_bound: i32,
    work: *mut c_void,
    work_size: usize,
    report: *mut subquad_report,
) -> i32 {
    let call = Call {
        cache,
        rules,
        q: &q,
        outputs: &outputs,
        work,
        work_size,
        report,
    };
    let attend = |opened: &Cache<'_>, plan: Exact<'_>, outputs: Outputs<'_>, scratch: &mut Scratch<'_>| {
        let mut plan = Decode::from_exact(&plan);
        if want_bound != 0 {
            plan = plan.with_bound();
        }
        // SAFETY: the caller's promise, word for word; the extents were checked.
        opened.attend(&plan, unsafe { q.view()? }, outputs, scratch)
    };
    // SAFETY: the caller's promise, word for word.
    status(unsafe { call.run(attend) })
}

/// As subquad_cache_attend, for many queries, as of a prompt: the bits of subquad_attention_forward over the same keys as
/// f32 in plain memory. Keys and values are turned into f32 a run at a time, once for a block of queries.
///
/// `work` is scratch as subquad_cache_forward_need says.
///
/// # Safety
/// As for subquad_cache_attend.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)] // the C signature
pub unsafe extern "C" fn subquad_cache_forward(
    cache: *const subquad_cache,
    rules: *const subquad_attention,
    q: subquad_tensor,
    outputs: subquad_outputs,
    want_bound: i32,
    work: *mut c_void,
    work_size: usize,
    report: *mut subquad_report,
) -> i32 {
    let call = Call {
        cache,
        rules,
        q: &q,
        outputs: &outputs,
        work,
        work_size,
        report,
    };
    let forward = |opened: &Cache<'_>, mut plan: Exact<'_>, outputs: Outputs<'_>, scratch: &mut Scratch<'_>| {
        if want_bound != 0 {
            plan = plan.with_bound();
        }
        // SAFETY: the caller's promise, word for word; the extents were checked.
        opened.forward(&plan, unsafe { q.view()? }, outputs, scratch)
    };
    // SAFETY: the caller's promise, word for word.
    status(unsafe { call.run(forward) })
}

/// Bytes of scratch that subquad_cache_attend takes now for so many query heads and queries, written to `bytes`. Errors as
/// for subquad_cache_append.
///
/// # Safety
/// As for subquad_cache_append; `bytes` points to a size_t.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_cache_attend_need(
    cache: *const subquad_cache,
    query_heads: usize,
    queries: usize,
    bytes: *mut usize,
) -> i32 {
    let need = || {
        // SAFETY: the caller's promise, word for word; `bytes` is aligned and apart.
        unsafe {
            let own = read(cache, &[], &[Extent::of(bytes, 1)?])?;
            let need = own.open()?.decode(query_heads, queries)?.need();
            give(bytes, need.checked_bytes().ok_or(Error::Overflow)?);
        }
        Ok(())
    };
    status(need())
}

/// Bytes of scratch that subquad_cache_forward takes now for these rules and so many query heads and queries, written to
/// `bytes`; with `want_scores` not 0, for a call that writes scores. Exact for the back end that `rules` force, or the best
/// one of this machine. Errors as for subquad_cache_forward.
///
/// # Safety
/// As for subquad_cache_append; every pointer in the rules reaches as far as subquad_cache_forward reads, and `bytes`
/// points to a size_t.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_cache_forward_need(
    cache: *const subquad_cache,
    rules: *const subquad_attention,
    query_heads: usize,
    queries: usize,
    want_scores: i32,
    bytes: *mut usize,
) -> i32 {
    let need = || {
        let answer = Extent::of(bytes, 1)?;
        apart(&[answer], &[Extent::optional(rules, 1)?])?;
        // SAFETY: the caller's promise, word for word; `bytes` is aligned and apart.
        unsafe {
            let own = read(cache, &[], &[answer])?;
            let rules = optional(rules)?;
            if let Some(rules) = rules {
                apart(&[answer], &rules.extents(1, query_heads)?)?;
            }
            let plan = plan(&own.open()?, rules, query_heads, queries)?;
            let need = if want_scores == 0 {
                plan.need_rows()
            } else {
                plan.need_rows_with_scores()
            };
            give(bytes, need.checked_bytes().ok_or(Error::Overflow)?);
        }
        Ok(())
    };
    status(need())
}

/// What a call names, before any of it is believed.
struct Call<'c> {
    cache: *const subquad_cache,
    rules: *const subquad_attention,
    q: &'c subquad_tensor,
    outputs: &'c subquad_outputs,
    work: *mut c_void,
    work_size: usize,
    report: *mut subquad_report,
}

impl Call<'_> {
    /// Checks, makes views, runs and reports.
    ///
    /// # Safety
    /// Every pointer reaches as far as the sizes beside it say, and nobody else writes there.
    unsafe fn run(
        &self,
        run: impl FnOnce(&Cache<'_>, Exact<'_>, Outputs<'_>, &mut Scratch<'_>) -> Result<Report, Error>,
    ) -> Result<(), Error> {
        let Call { q, outputs, .. } = self;
        let [out, lse, partials, scores] = outputs.extents()?;
        let work = Extent::of(self.work.cast::<u8>(), self.work_size)?;
        let writes = [out, lse, partials, scores, work, Extent::optional(self.report, 1)?];
        apart(&writes, &[q.extent()?, Extent::optional(self.rules, 1)?])?;
        // SAFETY: the caller's promise, word for word; what will be written is apart from everything else.
        unsafe {
            let own = read(self.cache, &[], &writes)?;
            let opened = own.open()?;
            let rules = optional(self.rules)?;
            if let Some(rules) = rules {
                apart(&writes, &rules.extents(1, q.heads)?)?;
            }
            outputs.wanted([q.batch, q.heads, q.rows, own.value_dim])?;
            let plan = plan(&opened, rules, q.heads, q.rows)?;
            let mut scratch = scratch(self.work, self.work_size)?;
            let happened = run(&opened, plan, outputs.view()?, &mut scratch)?;
            give(self.report, happened.into());
        }
        Ok(())
    }
}

/// The plan of a call.
///
/// # Safety
/// The pointers in `rules` reach as far as one problem of so many query heads says, and nobody writes there during 'a.
unsafe fn plan<'a>(
    cache: &Cache<'_>,
    rules: Option<&subquad_attention>,
    query_heads: usize,
    queries: usize,
) -> Result<Exact<'a>, Error> {
    let CacheShape {
        heads, dim, value_dim, ..
    } = cache.shape();
    let shape = Shape {
        batch: 1,
        query_heads,
        kv_heads: heads,
        queries,
        keys: cache.len(),
        dim,
        value_dim,
    };
    let Some(rules) = rules else {
        return Exact::from_parts(shape, Rules::new().with_offset(Offset::ToEnd), Isa::best(), 0);
    };
    if rules.segments != 0 || !rules.key_lengths.is_null() {
        return Err(Error::Shape);
    }
    // SAFETY: the caller's promise, word for word.
    unsafe { Exact::from_parts(shape, rules.read(&shape)?, info::isa(rules.isa)?, rules.key_run) }
}

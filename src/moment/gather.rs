//! Rows of the caller, a few at a time, so that what lies below each other there lies next to each other here.

use crate::view::MatRef;

/// `N` rows from `first` on, all of one length; beyond the last the last again. `None` where there is none.
#[inline(always)]
pub fn rows<'a, const N: usize>(of: MatRef<'a, f32>, first: usize) -> Option<[&'a [f32]; N]> {
    let (last, cols) = (of.rows().checked_sub(1)?, of.cols());
    let mut rows = [&[][..]; N];
    for (i, row) in rows.iter_mut().enumerate() {
        *row = of.row(last.min(first.saturating_add(i))).get(..cols)?;
    }
    Some(rows)
}

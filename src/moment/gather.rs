//! Rows of the caller, a few at a time, so that what lies below each other there lies next to each other here.

use crate::view::MatRef;

/// Where keys are seen from: `x = (k - centre) * inverse`.
pub struct Frame<'a> {
    pub centre: &'a [f32],
    pub inverse: f32,
}

impl Frame<'_> {
    /// Hands out the x of `N` keys from `first` on, variable by variable, and returns the squares of their norms: plain
    /// multiplications and additions, the same on every machine.
    #[inline(always)]
    pub fn columns<const N: usize>(
        &self,
        k: MatRef<'_, f32>,
        first: usize,
        mut take: impl FnMut([f32; N]),
    ) -> [f32; N] {
        let mut squares = [0.0; N];
        let dim = k.cols();
        if let (Some(rows), Some(centre)) = (rows::<N>(k, first), self.centre.get(..dim)) {
            for variable in 0..dim {
                let c = centre.get(variable).copied().unwrap_or(0.0);
                let x = rows.map(|row| row.get(variable).map_or(0.0, |k| (k - c) * self.inverse));
                squares.iter_mut().zip(x).for_each(|(square, x)| *square += x * x);
                take(x);
            }
        }
        squares
    }
}

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

/// Whether all numbers are finite: adding one to an exponent of all ones reaches the sign.
pub fn finite(row: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    const ONE: u32 = 0x0080_0000;
    let over = |x: &f32| (x.to_bits() & EXPONENT).wrapping_add(ONE);
    row.iter().fold(0, |any, x| any | over(x)) & (1 << 31) == 0
}

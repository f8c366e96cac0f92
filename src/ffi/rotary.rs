//! Rotary position embedding.

use super::{apart, Extent};
use super::{info, optional_slice, status, subquad_tensor_mut};
use crate::attention::{Pairing, Positions, Rotary};
use crate::error::Error;

/// Column i is turned with column i + rotary_dim / 2.
pub const SUBQUAD_PAIRING_HALVES: i32 = 0;
/// Column 2 i is turned with column 2 i + 1.
pub const SUBQUAD_PAIRING_NEIGHBOURS: i32 = 1;

/// How rows are turned: pair i of the first rotary_dim columns by position / position_scale * base^(-2 i / rotary_dim)
/// radians, (x, y) into (x cos - y sin, x sin + y cos). The columns behind stay as they are. All zero: not at all.
///
/// A row has the same bits on every machine, and is off by at most 4.5 * 2^-24 + position * rotary_dim * 2^-60 of the
/// Euclidean norm of its first rotary_dim columns.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct subquad_rotary {
    /// Columns that are turned: even, at most those of a row; 0: all of them. Otherwise SUBQUAD_E_SHAPE.
    pub rotary_dim: usize,
    /// Finite and above 1, or SUBQUAD_E_PARAMETER; 10000 as a rule. 0: rows are not turned.
    pub base: f32,
    /// Positions are divided by it. Finite and not below 1, or SUBQUAD_E_PARAMETER; 0 means 1.
    pub position_scale: f32,
    /// SUBQUAD_PAIRING_...; unknown: SUBQUAD_E_PARAMETER.
    pub pairing: i32,
    /// Back end, SUBQUAD_ISA_...; 0: the best of this machine. One that is not there: SUBQUAD_E_UNSUPPORTED.
    pub isa: i32,
}

impl subquad_rotary {
    /// For rows of so many columns; `None` if they are not to be turned.
    pub(super) fn read(&self, dim: usize) -> Result<Option<Rotary>, Error> {
        if self.base == 0.0 {
            return Ok(None);
        }
        let rotary_dim = if self.rotary_dim == 0 { dim } else { self.rotary_dim };
        let mut rotary = Rotary::new(dim, rotary_dim, self.base)?.with_isa(info::isa(self.isa)?);
        if self.position_scale != 0.0 {
            rotary = rotary.with_position_scale(self.position_scale)?;
        }
        match self.pairing {
            SUBQUAD_PAIRING_HALVES => Ok(Some(rotary)),
            SUBQUAD_PAIRING_NEIGHBOURS => Ok(Some(rotary.with_pairing(Pairing::Neighbours))),
            _ => Err(Error::Parameter),
        }
    }
}

/// Turns rows in place: row r of batch entry b, in all heads, by positions[b * rows + r], or by first + r if `positions` is
/// null. What is not finite spoils its pair, and NaN is canonical.
///
/// Returns SUBQUAD_OK, or, with nothing written, SUBQUAD_E_NULL, SUBQUAD_E_MISALIGNED, SUBQUAD_E_SHAPE,
/// SUBQUAD_E_OVERFLOW (of a size, or of first + rows), SUBQUAD_E_OVERLAP, SUBQUAD_E_PARAMETER (a base of 0 too: there is
/// nothing to do), SUBQUAD_E_UNSUPPORTED.
///
/// # Safety
/// `rows` is as subquad_tensor_mut says, `positions` null or batch * rows long, and nobody else uses the rows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn subquad_rotary_apply(
    rotary: subquad_rotary,
    rows: subquad_tensor_mut,
    positions: *const u64,
    first: u64,
) -> i32 {
    let apply = || {
        let n = rows.batch.checked_mul(rows.rows).ok_or(Error::Overflow)?;
        apart(&[rows.extent()?], &[Extent::optional(positions, n)?])?;
        let rotary = rotary.read(rows.cols)?.ok_or(Error::Parameter)?;
        // SAFETY: the caller's promise, word for word; the positions are apart from the rows.
        let (rows, positions) = unsafe { (rows.view()?, optional_slice(positions, n)?) };
        rotary.apply(rows, positions.map_or(Positions::From(first), Positions::Each))
    };
    status(apply())
}

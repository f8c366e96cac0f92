//! Monomials of one vector: the map under which a polynomial of an inner product is an inner product.
//!
//! `<q, k>^j = sum over |alpha| = j of (j! / alpha!) q^alpha k^alpha`: with [`monomials`] m and [`weights`] w,
//! `p(<q, k>) = sum over alpha of p_|alpha| w_alpha m_alpha(q) m_alpha(k)` for every polynomial p, whatever the signs of
//! its coefficients. There are `C(d + g, g)` monomials of degree up to g in d variables ([`count`]).
//!
//! Their order: by degree, inside a degree by the largest variable. The monomials of degree j whose largest variable is v
//! are x_v times the first `C(v + j - 1, j - 1)` of degree j - 1, so nothing needs a table.
//!
//! These are for one vector at a time and for checking; a [`State`](super::State) makes its monomials many at a time.

pub use crate::kernels::monomials::count;

use crate::error::Error;
use crate::kernels::monomials::{runs, Run};

/// Where degree `degree` begins among the monomials in `dim` variables. `None` where that does not fit.
#[must_use]
pub const fn offset(dim: usize, degree: usize) -> Option<usize> {
    match degree.checked_sub(1) {
        None => Some(0),
        Some(below) => count(dim, below),
    }
}

/// `out = x^alpha` for all alpha of degree up to `degree`, by one multiplication each.
///
/// [`Error::Short`] if `out` has fewer than [`count`] numbers, [`Error::Overflow`] where no memory has so many. Relative
/// error of a monomial of degree j: `gamma(j - 1)`, as long as nothing underflows.
pub fn monomials(x: &[f32], degree: usize, out: &mut [f32]) -> Result<(), Error> {
    let out = front(x.len(), degree, out)?;
    out.iter_mut().take(1).for_each(|one| *one = 1.0);
    for run in runs(x.len(), degree) {
        let factor = x.get(run.variable).copied().unwrap_or(0.0);
        let (parents, own) = parents_and_own(out, &run);
        own.iter_mut()
            .zip(parents)
            .for_each(|(to, parent)| *to = *parent * factor);
    }
    Ok(())
}

/// The multinomial coefficients `j! / alpha!` in the order of the monomials. Exact up to degree 13.
///
/// Errors as for [`monomials`]. Beyond degree 13 a weight of degree j has a relative error of `gamma(2 j)`.
pub fn weights(dim: usize, degree: usize, out: &mut [f32]) -> Result<(), Error> {
    let out = front(dim, degree, out)?;
    out.iter_mut().take(1).for_each(|one| *one = 1.0);
    for run in runs(dim, degree) {
        let (parents, own) = parents_and_own(out, &run);
        let mut pairs = own.iter_mut().zip(parents);
        // Parents without the variable come first, then those with its first power, and so on.
        for power in 1..=run.degree {
            let len = with_power(&run, power);
            let (j, e) = (run.degree as f32, power as f32);
            pairs.by_ref().take(len).for_each(|(to, parent)| *to = *parent * j / e);
        }
    }
    Ok(())
}

/// The derivative of [`monomials`] backwards: `dx[v] += sum over alpha of adjoint[alpha] * d x^alpha / d x_v`.
///
/// `monomials` are those of `x`; `adjoint` is the derivative by each of them, and is used up. Four operations per monomial.
/// Errors as for [`monomials`], and [`Error::Shape`] unless `dx` is as long as `x`.
pub fn reverse(x: &[f32], degree: usize, monomials: &[f32], adjoint: &mut [f32], dx: &mut [f32]) -> Result<(), Error> {
    let adjoint = front(x.len(), degree, adjoint)?;
    if monomials.len() < adjoint.len() {
        return Err(Error::Short);
    }
    if dx.len() != x.len() {
        return Err(Error::Shape);
    }
    // Runs come in one direction only; what a degree hands down has to be whole before, so degrees go backwards.
    for degree in (1..=degree).rev() {
        for run in runs(x.len(), degree).filter(|run| run.degree == degree) {
            let (Some(&factor), Some(to)) = (x.get(run.variable), dx.get_mut(run.variable)) else {
                continue;
            };
            let (parents, own) = parents_and_own(adjoint, &run);
            let values = monomials.get(run.parent..).unwrap_or(&[]);
            for ((parent, &own), &value) in parents.iter_mut().zip(own.iter()).zip(values) {
                *to += own * value;
                *parent += own * factor;
            }
        }
    }
    Ok(())
}

/// The numbers of all monomials.
fn front(dim: usize, degree: usize, all: &mut [f32]) -> Result<&mut [f32], Error> {
    let count = count(dim, degree).ok_or(Error::Overflow)?;
    all.get_mut(..count).ok_or(Error::Short)
}

/// A run and what it is made of; both of the same length.
fn parents_and_own<'a>(all: &'a mut [f32], run: &Run) -> (&'a mut [f32], &'a mut [f32]) {
    let (before, own) = all.split_at_mut_checked(run.at).unwrap_or_default();
    let parents = before.get_mut(run.parent..).unwrap_or_default();
    (
        parents.get_mut(..run.len).unwrap_or_default(),
        own.get_mut(..run.len).unwrap_or_default(),
    )
}

/// Monomials of a run in which the largest variable has this power: `C(v - 1 + j - e, j - e)`.
fn with_power(run: &Run, power: usize) -> usize {
    match run.variable.checked_sub(1) {
        None => usize::from(power == run.degree),
        Some(below) => count(below, run.degree - power).unwrap_or(0),
    }
}

//! Rows of results.

use crate::attention::outputs::Outputs;
use crate::attention::Partial;
use crate::bound::{gamma, product_up, sum_up, UNIT};
use crate::error::Error;
use crate::kernels;
use crate::math;
use crate::moment::Attended;

/// A row of the call.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub head: usize,
    pub query: usize,
}

/// The output of a lane, where it is wanted.
pub(super) fn write_out(outputs: &mut Outputs<'_>, batch: usize, at: Place, answers: &Attended<'_>, lane: usize) {
    if let Some(out) = &mut outputs.out {
        copy(out.row(batch, at.head, at.query), answers, lane);
    }
}

fn copy(to: &mut [f32], answers: &Attended<'_>, lane: usize) {
    let column = answers
        .out
        .get(lane..)
        .unwrap_or(&[])
        .iter()
        .step_by(answers.lanes.max(1));
    to.iter_mut().zip(column).for_each(|(to, &x)| *to = x);
}

/// A lane as a partial, of all keys of the state.
///
/// The log of its weights is `L = tau <q, c> + mean + ln mass`, with one chain for the product, three roundings of the sum
/// and one of the logarithm; times log2 e and split into a whole number and a power of two that is off by 1.63e-7.
pub(super) fn far(
    row: &mut [f32],
    answers: &Attended<'_>,
    lane: usize,
    tau: f32,
    q: &[f32],
    centre: &[f32],
    bound: f32,
) -> Result<(), Error> {
    let of = |x: &[f32]| x.get(lane).copied().unwrap_or(0.0);
    let (mean, log) = (of(answers.mean), math::ln(of(answers.mass)));
    let terms = || q.iter().zip(centre).map(|(q, c)| q * c);
    let shift = tau * terms().fold(0.0, |sum, x| sum + x);
    let parts = tau.abs() * terms().fold(0.0, |sum, x| sum + x.abs());
    let lse = (shift + mean + log) * core::f32::consts::LOG2_E;
    let max = kernels::ceil_of(lse);
    let sizes = sum_up(sum_up(parts, mean.abs()), log.abs());
    let rounding = product_up(gamma(q.len().saturating_add(12)), sizes);
    let mass_bound = sum_up(of(answers.mass_bound), sum_up(rounding, 4.0 * UNIT));
    let head = [max, kernels::probability_of(lse - max), mass_bound, bound];
    let (to, out) = row.split_first_chunk_mut::<4>().ok_or(Error::Short)?;
    *to = head;
    copy(out, answers, lane);
    Ok(())
}

/// A partial into whatever is wanted of it.
pub(super) fn finish(outputs: &mut Outputs<'_>, batch: usize, at: Place, row: &mut [f32]) -> Result<(), Error> {
    if let Some(to) = &mut outputs.partials {
        let to = to.row(batch, at.head, at.query);
        to.iter_mut().zip(&*row).for_each(|(to, &x)| *to = x);
    }
    let partial = Partial::from_row(row)?;
    if let Some(to) = &mut outputs.out {
        let to = to.row(batch, at.head, at.query);
        to.iter_mut().zip(partial.out()).for_each(|(to, &x)| *to = x);
    }
    if let Some(to) = outputs
        .lse
        .as_mut()
        .and_then(|t| t.row(batch, at.head, at.query).first_mut())
    {
        *to = partial.lse();
    }
    Ok(())
}

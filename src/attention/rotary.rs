//! Rotary position embedding: rows turned by angles that grow with their position, so that a score of a query and a key
//! depends on how far apart they are.

use super::certificate::largest_norm;
use crate::bound::{product_up, sum_up, UNIT};
use crate::error::Error;
use crate::kernels;
use crate::math::nearest;
use crate::math::turn::Frequencies;
use crate::simd::Isa;
use crate::view::{MatRef, TensorMut};

/// Which columns form a pair that is turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// Column `i` and column `i + rotary_dim / 2`.
    Halves,
    /// Columns `2 i` and `2 i + 1`: what ONNX calls interleaved.
    Neighbours,
}

/// Where rows stand.
#[derive(Clone, Copy, Debug)]
pub enum Positions<'a> {
    /// Row `r` of every batch entry at this position + `r`.
    From(u64),
    /// Row `r` of batch entry `b` at number `b * rows + r` of these.
    Each(&'a [u64]),
}

/// How a row is turned: pair `i` of the first `rotary_dim` columns by `position / scale * base^(-2 i / rotary_dim)` radians,
/// `(x, y)` into `(x cos - y sin, x sin + y cos)`. The columns behind stay as they are.
///
/// Angles are integers, 2^64 in a whole turn: they wrap without loss, so that a position may be as large as you like, and a
/// row has the same bits on every machine, in both arithmetic classes. [`relative_error`](Rotary::relative_error) says how
/// far it is from the one that real numbers would give.
///
/// ```
/// use subquad::attention::{Pairing, Positions, Rotary};
/// use subquad::MatMut;
/// # fn main() -> Result<(), subquad::Error> {
/// let rotary = Rotary::new(4, 4, 10_000.0)?.with_pairing(Pairing::Neighbours);
/// let mut q = [1.0, 0.0, 0.0, 1.0];
/// rotary.apply(MatMut::new(&mut q, 1, 4)?.into(), Positions::From(3))?;
/// let want = [3f32.cos(), 3f32.sin(), -(0.03f32.sin()), 0.03f32.cos()];
/// assert!(q.iter().zip(want).all(|(x, want)| (x - want).abs() < 2e-7));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Rotary {
    dim: usize,
    rotary_dim: usize,
    base: f32,
    scale: f32,
    pairing: Pairing,
    frequencies: Frequencies,
    isa: Option<Isa>,
}

/// The largest `rotary_dim`: the saved form of a cache has 32 bits for it.
const MOST: usize = u32::MAX as usize;
/// Pairs whose angles are on the stack at a time.
const PAIRS: usize = 32;

impl Rotary {
    /// For rows of `dim` columns, halves paired, positions not scaled.
    ///
    /// [`Error::Shape`] if `rotary_dim` is odd, 0 or more than `dim`; [`Error::Parameter`] if `base` is not finite, or not
    /// above 1.
    pub fn new(dim: usize, rotary_dim: usize, base: f32) -> Result<Self, Error> {
        if rotary_dim == 0 || !rotary_dim.is_multiple_of(2) || rotary_dim > dim.min(MOST) {
            return Err(Error::Shape);
        }
        if !(base > 1.0 && base.is_finite()) {
            return Err(Error::Parameter);
        }
        Ok(Rotary {
            dim,
            rotary_dim,
            base,
            scale: 1.0,
            pairing: Pairing::Halves,
            frequencies: Frequencies::new(base, (rotary_dim / 2) as u64, 1.0),
            isa: None,
        })
    }

    /// Which columns are paired.
    #[must_use]
    pub const fn with_pairing(mut self, pairing: Pairing) -> Self {
        self.pairing = pairing;
        self
    }

    /// Divides positions by `scale`, to make a sequence look shorter. [`Error::Parameter`] if it is not finite, or below 1.
    pub fn with_position_scale(mut self, scale: f32) -> Result<Self, Error> {
        if !(scale >= 1.0 && scale.is_finite()) {
            return Err(Error::Parameter);
        }
        self.scale = scale;
        self.frequencies = Frequencies::new(self.base, self.pairs() as u64, scale);
        Ok(self)
    }

    /// Forces a back end: a matter of speed, and of no bit.
    #[must_use]
    pub const fn with_isa(mut self, isa: Isa) -> Self {
        self.isa = Some(isa);
        self
    }

    /// Columns of a row.
    #[must_use]
    pub const fn dim(&self) -> usize {
        self.dim
    }

    /// Columns that are turned: the first of a row.
    #[must_use]
    pub const fn rotary_dim(&self) -> usize {
        self.rotary_dim
    }

    /// The base of the frequencies.
    #[must_use]
    pub const fn base(&self) -> f32 {
        self.base
    }

    /// What positions are divided by.
    #[must_use]
    pub const fn position_scale(&self) -> f32 {
        self.scale
    }

    /// Which columns are paired.
    #[must_use]
    pub const fn pairing(&self) -> Pairing {
        self.pairing
    }

    fn isa(&self) -> Isa {
        self.isa.unwrap_or_else(Isa::best)
    }

    const fn pairs(&self) -> usize {
        self.rotary_dim / 2
    }

    /// Cosines and sines of a position, pair by pair: a row of the tables that ONNX `RotaryEmbedding` takes.
    /// [`Error::Short`] if there is no room for `rotary_dim / 2` of each.
    pub fn angles(&self, position: u64, cos: &mut [f32], sin: &mut [f32]) -> Result<(), Error> {
        let pairs = self.pairs();
        match (cos.get_mut(..pairs), sin.get_mut(..pairs)) {
            (Some(cos), Some(sin)) => {
                self.fill(position, cos, sin);
                Ok(())
            }
            _ => Err(Error::Short),
        }
    }

    /// As many as there is room for.
    pub(super) fn fill(&self, position: u64, cos: &mut [f32], sin: &mut [f32]) {
        let mut frequencies = self.frequencies;
        frequencies.angles(position, cos, sin);
    }

    /// Turns rows in place. A number that is not finite spoils its pair, and NaN is canonical.
    ///
    /// Errors, with nothing written: [`Error::Shape`] if a row has not `dim` columns, or there is not one position for each;
    /// [`Error::Overflow`] if positions end before the rows.
    pub fn apply(&self, mut rows: TensorMut<'_, f32>, positions: Positions<'_>) -> Result<(), Error> {
        let (batch, n) = (rows.batch(), rows.rows());
        if rows.cols() != self.dim {
            return Err(Error::Shape);
        }
        match positions {
            Positions::From(first) if first.checked_add(n as u64).is_none() => return Err(Error::Overflow),
            Positions::Each(each) if Some(each.len()) != batch.checked_mul(n) => return Err(Error::Shape),
            _ => {}
        }
        for (entry, row) in (0..batch).flat_map(|entry| (0..n).map(move |row| (entry, row))) {
            let position = match positions {
                Positions::From(first) => first + row as u64,
                Positions::Each(each) => each.get(entry * n + row).map_or(0, |&position| position),
            };
            self.apply_row(&mut rows, entry, row, position);
        }
        Ok(())
    }

    /// Turns a row of every head: they share its angles.
    fn apply_row(&self, rows: &mut TensorMut<'_, f32>, entry: usize, row: usize, position: u64) {
        let mut frequencies = self.frequencies;
        let [mut cos, mut sin] = [[0.0; PAIRS]; 2];
        for first in (0..self.pairs()).step_by(PAIRS) {
            let used = (self.pairs() - first).min(PAIRS);
            let (Some(cos), Some(sin)) = (cos.get_mut(..used), sin.get_mut(..used)) else {
                return;
            };
            frequencies.angles(position, cos, sin);
            for head in 0..rows.heads() {
                self.turn(rows.row(entry, head, row), first, cos, sin);
            }
        }
    }

    /// Turns as many pairs of a row as there are angles, from pair `first` on.
    pub(super) fn turn(&self, row: &mut [f32], first: usize, cos: &[f32], sin: &[f32]) {
        let isa = self.isa();
        match self.pairing {
            Pairing::Halves => {
                let (x, y) = row.split_at_mut_checked(self.pairs()).unwrap_or_default();
                if let (Some(x), Some(y)) = (x.get_mut(first..), y.get_mut(first..)) {
                    kernels::turn_halves(isa, x, y, cos, sin);
                }
            }
            Pairing::Neighbours => {
                if let Some(row) = row.get_mut(2 * first..) {
                    kernels::turn_neighbours(isa, row, cos, sin);
                }
            }
        }
    }

    /// Whether `fits` takes all numbers of a turned row, some at a time; only the stack is written.
    pub(super) fn check(
        &self,
        row: &[f32],
        position: u64,
        fits: impl Fn(&[f32]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut frequencies = self.frequencies;
        let [mut x, mut y, mut cos, mut sin] = [[0.0; PAIRS]; 4];
        for first in (0..self.pairs()).step_by(PAIRS) {
            frequencies.angles(position, &mut cos, &mut sin);
            for (i, (x, y)) in (first..).zip(x.iter_mut().zip(&mut y)) {
                let [a, b] = match self.pairing {
                    _ if i >= self.pairs() => [usize::MAX; 2],
                    Pairing::Halves => [i, i + self.pairs()],
                    Pairing::Neighbours => [2 * i, 2 * i + 1],
                };
                [*x, *y] = [a, b].map(|column| row.get(column).map_or(0.0, |&x| x));
            }
            kernels::turn_halves(self.isa(), &mut x, &mut y, &cos, &sin);
            fits(&x)?;
            fits(&y)?;
        }
        fits(row.get(self.rotary_dim..).unwrap_or(&[]))
    }

    /// How far a row that was turned is from the one that real numbers would give: at most this times the Euclidean norm of
    /// its first `rotary_dim` columns, and `rotary_dim * 2^-149` for underflow.
    ///
    /// With u = 2^-24, of the norm of a pair: cos and sin are each off by 1.15 u, which is sqrt(2) 1.15 u; its four products
    /// by sqrt(2) u together, the two sums by u. That is less than 4.5 u. The angle is off by `position` times the error of its
    /// frequency, 2^-62 turns for each pair up to its own: less than 2^-59 radians each.
    ///
    /// For [`Decode::with_loss`](super::Decode::with_loss): that of turned queries moves scores as far as keys that are off
    /// by this times the largest norm of a key.
    #[must_use]
    pub fn relative_error(&self, position: u64) -> f32 {
        const PER_PAIR: f32 = f32::from_bits((127 - 59) << 23);
        let steps = product_up(
            sum_up(nearest(position), 0.0),
            sum_up(nearest(self.pairs() as u64), 0.0),
        );
        sum_up(4.5 * UNIT, product_up(steps, PER_PAIR))
    }

    /// At least the distance of `row`, turned at a position, from the one that real numbers would give. The same on every
    /// machine.
    pub(super) fn distance(&self, row: &[f32], position: u64) -> f32 {
        let row = row.get(..self.rotary_dim).unwrap_or(row);
        let norm = MatRef::new(row, 1, row.len()).map_or(f32::INFINITY, |row| largest_norm(Isa::best().strict(), row));
        let underflow = product_up(nearest(self.rotary_dim as u64), f32::from_bits(1));
        sum_up(product_up(norm, self.relative_error(position)), underflow)
    }

    /// All that its results depend on besides `dim`: `rotary_dim`, pairing (1 or 2), and the bits of base and scale.
    pub(super) const fn numbers(&self) -> [u32; 4] {
        let pairing = match self.pairing {
            Pairing::Halves => 1,
            Pairing::Neighbours => 2,
        };
        [
            self.rotary_dim as u32,
            pairing,
            self.base.to_bits(),
            self.scale.to_bits(),
        ]
    }
}

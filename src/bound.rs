//! Promises about errors, and the arithmetic that keeps them true.

/// Unit roundoff of f32: half the distance from 1 to the next number.
pub const UNIT: f32 = f32::EPSILON / 2.0;

/// A promise: no entry of the output is off by more than `value`, f32 rounding included.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct Bound {
    /// Largest absolute error of any output entry.
    pub value: f32,
    /// Probability that the promise does not hold; 0 for deterministic methods.
    pub failure: f32,
}

impl Bound {
    /// No promise was asked for: true, and useless.
    pub const UNKNOWN: Bound = Bound {
        value: f32::INFINITY,
        failure: 0.0,
    };

    /// A deterministic promise. A NaN, which promises nothing, becomes infinity.
    pub const fn certain(value: f32) -> Bound {
        Bound {
            value: if value >= 0.0 { value } else { f32::INFINITY },
            failure: 0.0,
        }
    }

    /// Both errors at once (they add, and so do the chances to fail).
    pub const fn plus(self, other: Bound) -> Bound {
        Bound {
            value: up(self.value + other.value),
            failure: probability(self.failure + other.failure),
        }
    }

    /// Whichever is worse: for outputs that are covered by one promise each.
    pub const fn or(self, other: Bound) -> Bound {
        Bound {
            value: if self.value > other.value {
                self.value
            } else {
                other.value
            },
            failure: probability(self.failure + other.failure),
        }
    }
}

const fn probability(p: f32) -> f32 {
    if p < 1.0 {
        p
    } else {
        1.0
    }
}

/// The next larger f32: one rounding to nearest, made an upper bound. For `x >= 0`; NaN and infinity stay.
#[must_use]
pub const fn up(x: f32) -> f32 {
    if x < f32::INFINITY {
        f32::from_bits(x.to_bits() + 1)
    } else {
        x
    }
}

/// At least `a + b`. For numbers that are not negative.
#[must_use]
pub const fn sum_up(a: f32, b: f32) -> f32 {
    up(a + b)
}

/// At least `a * b`. For numbers that are not negative.
#[must_use]
pub const fn product_up(a: f32, b: f32) -> f32 {
    up(a * b)
}

/// `n u / (1 - n u)`: the relative error of `n` roundings in a row (Higham, Accuracy and Stability, lemma 3.1).
#[must_use]
pub const fn gamma(n: usize) -> f32 {
    let nu = up(n as f32) * UNIT;
    if nu < 0.5 {
        // Three roundings, each made an upper bound.
        up(up(nu) / (1.0 - up(up(nu))))
    } else {
        f32::INFINITY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gamma_bounds_the_true_quotient_and_is_not_wasteful() {
        for n in [0usize, 1, 2, 7, 1 << 10, 1 << 20, 1 << 22] {
            let nu = n as f64 * f64::from(UNIT);
            let exact = nu / (1.0 - nu);
            assert!(f64::from(gamma(n)) >= exact);
            // Five roundings up of one part in 2^23 each.
            assert!(f64::from(gamma(n)) <= exact * (1.0 + 8.0 * f64::from(f32::EPSILON)) + 1e-44);
        }
        assert_eq!(gamma(1 << 23), f32::INFINITY);
    }

    #[test]
    fn sums_and_products_round_up() {
        // f64 holds both exactly; the smallest numbers, whose product underflows, included.
        let numbers = [0.0f32, 1e-45, 1.1e-38, 0.1, 1.0, 1.0 + f32::EPSILON, 3.3e9, 1e19];
        for (a, b) in numbers.iter().flat_map(|&a| numbers.iter().map(move |&b| (a, b))) {
            assert!(f64::from(sum_up(a, b)) >= f64::from(a) + f64::from(b));
            assert!(f64::from(product_up(a, b)) >= f64::from(a) * f64::from(b));
        }
        assert_eq!(product_up(1e30, 1e30), f32::INFINITY);
        assert!(sum_up(f32::NAN, 1.0).is_nan() && product_up(0.0, f32::INFINITY).is_nan());
    }

    #[test]
    fn bounds_compose_upwards() {
        let (a, b) = (
            Bound::certain(0.1),
            Bound {
                value: 0.2,
                failure: 0.75,
            },
        );
        assert!(f64::from(a.plus(b).value) >= f64::from(0.1f32) + f64::from(0.2f32));
        assert_eq!(b.plus(b).failure, 1.0);
        assert_eq!(a.or(b).value, 0.2);
        assert_eq!(Bound::certain(f32::NAN).value, f32::INFINITY);
        assert_eq!(a.plus(Bound::UNKNOWN).value, f32::INFINITY);
    }
}

//! The order of monomials: by degree, inside a degree by the largest variable, and so on downwards.
//!
//! With that order the monomials of degree j whose largest variable is v are x_v times the first `C(v + j - 1, j - 1)` of
//! degree j - 1. So they come in runs that need no table: every run reads the front of the degree before it.

/// Monomials of degree up to `degree` in `dim` variables: `C(dim + degree, degree)`. `None` where that, or a number on the
/// way to it, does not fit.
#[must_use]
pub const fn count(dim: usize, degree: usize) -> Option<usize> {
    let (large, small) = if dim > degree { (dim, degree) } else { (degree, dim) };
    let (mut n, mut i) = (1u64, 0u64);
    while i < small as u64 {
        i += 1;
        // C(large + i, i) from C(large + i - 1, i - 1): the division leaves no rest.
        let Some(next) = (large as u64).checked_add(i) else {
            return None;
        };
        let Some(product) = n.checked_mul(next) else {
            return None;
        };
        let Some(quotient) = product.checked_div(i) else {
            return None;
        };
        n = quotient;
    }
    if n <= usize::MAX as u64 {
        Some(n as usize)
    } else {
        None
    }
}

/// Monomials `at..at + len`, of one degree and one largest variable: that variable times monomials `parent..parent + len`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub degree: usize,
    pub variable: usize,
    pub parent: usize,
    pub at: usize,
    pub len: usize,
}

/// All runs in order, from degree 1.
#[derive(Clone, Debug)]
pub struct Runs {
    dim: usize,
    last: usize,
    /// Where the degree of `next` starts.
    start: usize,
    next: Run,
}

/// The runs of all monomials of degree 1 to `degree`. Their [`count`] must fit.
#[inline(always)]
pub const fn runs(dim: usize, degree: usize) -> Runs {
    Runs {
        dim,
        last: degree,
        start: 1,
        next: Run {
            degree: 1,
            variable: 0,
            parent: 0,
            at: 1,
            len: 1,
        },
    }
}

impl Iterator for Runs {
    type Item = Run;

    #[inline(always)]
    fn next(&mut self) -> Option<Run> {
        let run = self.next;
        if run.degree > self.last || self.dim == 0 {
            return None;
        }
        self.next.at = run.at.wrapping_add(run.len);
        self.next.variable += 1;
        if self.next.variable < self.dim {
            // C(v + j, j - 1) from C(v + j - 1, j - 1).
            let product = (run.len as u64).wrapping_mul((run.variable + run.degree) as u64);
            let len = product.checked_div(self.next.variable as u64).unwrap_or(0);
            self.next.len = len as usize;
        } else {
            self.next = Run {
                degree: run.degree + 1,
                variable: 0,
                parent: self.start,
                at: self.next.at,
                len: 1,
            };
            self.start = self.next.at;
        }
        Some(run)
    }
}

/// Monomials of degree `degree`, from those of the degree below; the first has one of degree 0.
#[inline(always)]
pub const fn next_degree(dim: usize, degree: usize, below: usize) -> usize {
    // C(d + j - 1, j) from C(d + j - 2, j - 1).
    let product = (below as u64).wrapping_mul((dim as u64).wrapping_add(degree as u64).wrapping_sub(1));
    match product.checked_div(degree as u64) {
        Some(n) => n as usize,
        None => 1,
    }
}

/// A monomial as the product that makes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Product {
    pub parent: usize,
    pub variable: usize,
}

/// Up to `N` monomials in a row, `at..at + len`, none of them the parent of another.
#[derive(Clone, Copy, Debug)]
pub struct Group<const N: usize> {
    pub at: usize,
    pub len: usize,
    pub products: [Product; N],
}

impl Group<1> {
    /// The monomial of degree 0, which is no product.
    pub const ONE: Group<1> = Group {
        at: 0,
        len: 1,
        products: [Product { parent: 0, variable: 0 }],
    };
}

impl<const N: usize> Group<N> {
    /// Monomial `i` alone.
    #[inline(always)]
    pub fn single(&self, i: usize) -> Group<1> {
        let none = Product { parent: 0, variable: 0 };
        Group {
            at: self.at + i,
            len: 1,
            products: [self.products.get(i).copied().unwrap_or(none)],
        }
    }
}

/// The monomials from degree 1 on, one by one.
#[derive(Clone, Debug)]
pub struct Products {
    runs: Runs,
    run: Run,
    /// Monomials of `run` that were handed out.
    done: usize,
}

/// All products in order.
#[inline(always)]
pub const fn products(dim: usize, degree: usize) -> Products {
    over(runs(dim, degree))
}

/// The products of degree `degree`, which begins at `at`, from those of the degree below, which begins at `below`.
#[inline(always)]
pub const fn products_of_degree(dim: usize, degree: usize, below: usize, at: usize) -> Products {
    over(Runs {
        dim,
        last: degree,
        start: at,
        next: Run {
            degree,
            variable: 0,
            parent: below,
            at,
            len: 1,
        },
    })
}

#[inline(always)]
const fn over(runs: Runs) -> Products {
    Products {
        run: Run { len: 0, ..runs.next },
        runs,
        done: 0,
    }
}

impl Products {
    /// The next one, which stays.
    #[inline(always)]
    fn peek(&mut self) -> Option<Product> {
        if self.done == self.run.len {
            self.run = self.runs.next()?;
            self.done = 0;
        }
        Some(Product {
            parent: self.run.parent + self.done,
            variable: self.run.variable,
        })
    }
}

impl Iterator for Products {
    type Item = Product;

    #[inline(always)]
    fn next(&mut self) -> Option<Product> {
        let next = self.peek();
        self.done += 1;
        next
    }
}

/// The monomials from degree 1 on in groups for the tiles of a kernel.
pub struct Groups<const N: usize> {
    products: Products,
    at: usize,
}

/// All groups in order.
#[inline(always)]
pub const fn groups<const N: usize>(dim: usize, degree: usize) -> Groups<N> {
    Groups {
        products: products(dim, degree),
        at: 1,
    }
}

impl<const N: usize> Iterator for Groups<N> {
    type Item = Group<N>;

    #[inline(always)]
    fn next(&mut self) -> Option<Group<N>> {
        let mut group = Group {
            at: self.at,
            len: 0,
            products: [Product { parent: 0, variable: 0 }; N],
        };
        while let Some(next) = group.products.get_mut(group.len) {
            match self.products.peek() {
                Some(product) if product.parent < group.at => *next = product,
                _ => break,
            }
            self.products.done += 1;
            group.len += 1;
        }
        self.at += group.len;
        (group.len > 0).then_some(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn counts_are_binomial_coefficients() {
        for (dim, degree, t) in [
            (0, 0, 1),
            (0, 9, 1),
            (9, 0, 1),
            (4, 8, 495),
            (8, 4, 495),
            (16, 2, 153),
            (64, 2, 2145),
        ] {
            assert_eq!(count(dim, degree), Some(t));
        }
        assert_eq!(count(1, usize::MAX - 1), Some(usize::MAX));
        for (dim, degree) in [(1, usize::MAX), (usize::MAX, usize::MAX), (100, 100), (1 << 40, 2)] {
            assert_eq!(count(dim, degree), None, "{dim} {degree}");
        }
    }

    #[test]
    fn runs_meet_every_monomial_once() {
        for (dim, degree) in [(0, 3), (1, 5), (2, 4), (3, 3), (5, 2), (4, 0), (7, 1)] {
            let mut all: Vec<Vec<usize>> = std::vec![std::vec![0; dim]];
            let mut last = 0;
            for run in runs(dim, degree) {
                assert_eq!(run.at, all.len());
                assert!(run.parent + run.len <= run.at && run.degree >= last);
                last = run.degree;
                for i in 0..run.len {
                    let mut powers = all[run.parent + i].clone();
                    assert!(powers[run.variable + 1..].iter().all(|&p| p == 0));
                    powers[run.variable] += 1;
                    assert_eq!(powers.iter().sum::<usize>(), run.degree);
                    all.push(powers);
                }
            }
            assert_eq!(Some(all.len()), count(dim, degree));
            let (n, distinct) = (all.len(), std::collections::BTreeSet::from_iter(all));
            assert_eq!(distinct.len(), n);
        }
    }

    #[test]
    fn degrees_one_by_one_are_all() {
        for (dim, degree) in [(1, 9), (2, 5), (4, 3), (9, 2), (3, 1)] {
            let all: Vec<_> = products(dim, degree).map(|p| (p.parent, p.variable)).collect();
            let (mut one_by_one, mut below, mut at, mut len) = (Vec::new(), 0, 1, 1);
            for degree in 1..=degree {
                len = next_degree(dim, degree, len);
                let degree = products_of_degree(dim, degree, below, at);
                one_by_one.extend(degree.map(|p| (p.parent, p.variable)));
                (below, at) = (at, at + len);
            }
            assert_eq!(one_by_one, all);
        }
    }

    #[test]
    fn degrees_have_the_sizes_between_counts() {
        for dim in 0..7 {
            let mut size = 1;
            for degree in 1..9 {
                size = next_degree(dim, degree, size);
                assert_eq!(
                    count(dim, degree),
                    count(dim, degree - 1).map(|n| n + size),
                    "{dim} {degree}"
                );
            }
        }
    }

    #[test]
    fn groups_have_their_parents_before_them() {
        for (dim, degree) in [(0, 3), (1, 9), (2, 5), (4, 3), (9, 2), (3, 0), (3, 1)] {
            let all: Vec<_> = runs(dim, degree)
                .flat_map(|run| (0..run.len).map(move |i| (run.at + i, run.parent + i, run.variable)))
                .collect();
            let mut grouped = Vec::new();
            for group in groups::<5>(dim, degree) {
                for i in 0..group.len {
                    let one = group.single(i);
                    let [Product { parent, variable }] = one.products;
                    assert!(parent < group.at);
                    grouped.push((one.at, parent, variable));
                }
            }
            assert_eq!(grouped, all);
        }
    }
}

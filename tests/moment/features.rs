//! One vector at a time.

use super::model::noise;
use subquad::moment::features::{count, monomials, offset, reverse, weights};
use subquad::Error;

/// The identity that all rests on, for random polynomials with coefficients of any sign.
#[test]
fn polynomials_of_inner_products_are_inner_products() {
    let mut checked = 0;
    for dim in 1..=8 {
        for degree in 0..=5 {
            let t = count(dim, degree).unwrap();
            let [mut q, mut k, mut w] = [vec![0.0; t], vec![0.0; t], vec![0.0; t]];
            for seed in 0..6 {
                let x = noise(2 * dim, seed + 100 * dim as u64);
                let p = noise(degree + 1, seed + 7);
                monomials(&x[..dim], degree, &mut q).unwrap();
                monomials(&x[dim..], degree, &mut k).unwrap();
                weights(dim, degree, &mut w).unwrap();
                let (mut sum, mut size) = (0.0, 0.0);
                for (j, p) in p.iter().enumerate() {
                    let end = offset(dim, j + 1).unwrap();
                    for a in offset(dim, j).unwrap()..end {
                        let term = f64::from(*p) * f64::from(w[a]) * f64::from(q[a]) * f64::from(k[a]);
                        (sum, size) = (sum + term, size + term.abs());
                    }
                }
                let product: f64 = x[..dim]
                    .iter()
                    .zip(&x[dim..])
                    .map(|(a, b)| f64::from(*a) * f64::from(*b))
                    .sum();
                let exact = p.iter().rev().fold(0.0, |sum, &c| sum * product + f64::from(c));
                // A monomial of degree 5 has four roundings on either side.
                assert!(
                    (sum - exact).abs() <= 8.0 * 6e-8 * size,
                    "{dim} {degree}: {sum} {exact}"
                );
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 8 * 6 * 6);
}

#[test]
fn weights_are_multinomial_coefficients() {
    // Sums over a degree are d^j; degree 13 is the last that is exact.
    for (dim, degree) in [(1, 13), (2, 13), (3, 13), (4, 8), (8, 4), (64, 2)] {
        let mut w = vec![0.0; count(dim, degree).unwrap()];
        weights(dim, degree, &mut w).unwrap();
        for j in 0..=degree {
            let row = &w[offset(dim, j).unwrap()..offset(dim, j + 1).unwrap()];
            let sum: f64 = row.iter().map(|&w| f64::from(w)).sum();
            assert_eq!(sum, (dim as f64).powi(j as i32), "{dim} {j}");
            assert!(row.iter().all(|w| w.fract() == 0.0 && *w >= 1.0));
        }
    }
}

#[test]
fn the_reverse_recursion_is_the_derivative() {
    for (dim, degree) in [(1, 6), (2, 5), (3, 4), (5, 3), (4, 0), (7, 1), (0, 3)] {
        let t = count(dim, degree).unwrap();
        let (x, adjoint) = (noise(dim, 5), noise(t, 6));
        let mut m = vec![0.0; t];
        monomials(&x, degree, &mut m).unwrap();
        let (mut used, mut dx) = (adjoint.clone(), vec![0.0; dim]);
        reverse(&x, degree, &m, &mut used, &mut dx).unwrap();
        // Central differences in f64, of the plain definition.
        let value = |x: &[f64]| {
            let mut all = vec![vec![0usize; dim]];
            let mut sum = f64::from(adjoint[0]);
            let mut before = 0;
            for j in 1..=degree {
                let end = all.len();
                for v in 0..dim {
                    for i in before..end {
                        if all[i][v + 1..].iter().all(|&p| p == 0) {
                            let mut powers = all[i].clone();
                            powers[v] += 1;
                            let x: f64 = powers.iter().zip(x).map(|(&p, x)| x.powi(p as i32)).product();
                            sum += f64::from(adjoint[all.len()]) * x;
                            all.push(powers);
                        }
                    }
                }
                before = end;
                assert_eq!(Some(all.len()), offset(dim, j + 1));
            }
            sum
        };
        let h = 1e-5;
        for v in 0..dim {
            let mut at = [0.0, 0.0];
            for (at, side) in at.iter_mut().zip([h, -h]) {
                let mut x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
                x[v] += side;
                *at = value(&x);
            }
            let difference = (at[0] - at[1]) / (2.0 * h);
            assert!(
                (difference - f64::from(dx[v])).abs() < 2e-5,
                "{dim} {degree} {v}: {difference} {}",
                dx[v]
            );
        }
    }
}

#[test]
fn short_and_impossible_sizes_are_refused() {
    let x = [1.0; 3];
    let mut ten = [0.0; 10];
    assert_eq!(monomials(&x, 2, &mut ten[..9]), Err(Error::Short));
    assert_eq!(monomials(&x, 2, &mut ten), Ok(()));
    assert_eq!(weights(3, 2, &mut ten[..9]), Err(Error::Short));
    assert_eq!(weights(100, 100, &mut ten), Err(Error::Overflow));
    assert_eq!(
        reverse(&x, 2, &ten[..9], &mut ten.clone(), &mut [0.0; 3]),
        Err(Error::Short)
    );
    assert_eq!(reverse(&x, 2, &ten, &mut ten.clone(), &mut [0.0; 2]), Err(Error::Shape));
    assert_eq!((offset(5, 0), offset(5, 1), offset(5, 2)), (Some(0), Some(1), Some(6)));
}

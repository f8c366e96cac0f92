//! The same gradients in f64: by the recursion, by every score, and by the route of row-wise Kronecker products.

pub struct Problem {
    pub dim: usize,
    pub value_dim: usize,
    pub tau: f64,
    pub centre: Vec<f64>,
    pub q: Vec<f64>,
    pub k: Vec<f64>,
    pub v: Vec<f64>,
    pub d_out: Vec<f64>,
}

pub struct Answer {
    pub out: Vec<f64>,
    pub dq: Vec<f64>,
    pub dk: Vec<f64>,
    pub dv: Vec<f64>,
}

/// Monomials with parents and variables: by degree, inside a degree by the largest variable.
pub struct Monomials {
    made: Vec<(usize, usize)>,
    pub degree: Vec<usize>,
    pub weight: Vec<f64>,
}

impl Monomials {
    pub fn new(dim: usize, degree: usize) -> Monomials {
        let mut powers = vec![vec![0usize; dim]];
        let mut all = Monomials {
            made: vec![(0, 0)],
            degree: vec![0],
            weight: vec![1.0],
        };
        for j in 1..=degree {
            let parents: Vec<usize> = (0..powers.len()).filter(|&i| all.degree[i] == j - 1).collect();
            for v in 0..dim {
                for &p in &parents {
                    if powers[p][v + 1..].iter().any(|&e| e > 0) {
                        continue;
                    }
                    let mut own = powers[p].clone();
                    own[v] += 1;
                    let factorial = |n: usize| (1..=n).map(|i| i as f64).product::<f64>();
                    all.weight
                        .push(factorial(j) / own.iter().map(|&e| factorial(e)).product::<f64>());
                    all.made.push((p, v));
                    all.degree.push(j);
                    powers.push(own);
                }
            }
        }
        all
    }

    pub fn of(&self, x: &[f64]) -> Vec<f64> {
        let mut m = vec![1.0; self.made.len()];
        (1..m.len()).for_each(|i| m[i] = m[self.made[i].0] * x[self.made[i].1]);
        m
    }

    fn reverse(&self, x: &[f64], m: &[f64], mut adjoint: Vec<f64>) -> Vec<f64> {
        let mut dx = vec![0.0; x.len()];
        for i in (1..m.len()).rev() {
            let (p, v) = self.made[i];
            dx[v] += adjoint[i] * m[p];
            adjoint[p] += adjoint[i] * x[v];
        }
        dx
    }
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Problem {
    fn queries(&self) -> impl Iterator<Item = (&[f64], &[f64])> {
        self.q
            .chunks_exact(self.dim)
            .zip(self.d_out.chunks_exact(self.value_dim))
    }

    fn keys(&self) -> impl Iterator<Item = (Vec<f64>, &[f64])> {
        let centred = |k: &[f64]| k.iter().zip(&self.centre).map(|(k, c)| k - c).collect();
        self.k
            .chunks_exact(self.dim)
            .map(centred)
            .zip(self.v.chunks_exact(self.value_dim))
    }

    /// Three passes over power sums.
    pub fn recursion(&self, c: &[f64]) -> Answer {
        let m = Monomials::new(self.dim, c.len() - 1);
        let scale = |z: &mut [Vec<f64>]| {
            for (i, row) in z.iter_mut().enumerate() {
                row.iter_mut().for_each(|z| *z *= m.weight[i] * c[m.degree[i]]);
            }
        };
        let (t, columns) = (m.degree.len(), self.value_dim + 1);
        let (mut z, mut g) = (vec![vec![0.0; columns]; t], vec![vec![0.0; columns]; t]);
        let add = |z: &mut [Vec<f64>], m: &[f64], u: &[f64]| {
            for (row, m) in z.iter_mut().zip(m) {
                row.iter_mut().zip(u).for_each(|(z, u)| *z += m * u);
            }
        };
        let with_one = |v: &[f64]| v.iter().copied().chain([1.0]).collect::<Vec<f64>>();
        self.keys().for_each(|(x, v)| add(&mut z, &m.of(&x), &with_one(v)));
        scale(&mut z);
        let mut answer = Answer {
            out: vec![],
            dq: vec![],
            dk: vec![],
            dv: vec![],
        };
        for (q, d_out) in self.queries() {
            let x: Vec<f64> = q.iter().map(|q| self.tau * q).collect();
            let f = m.of(&x);
            let n: Vec<f64> = (0..columns)
                .map(|c| f.iter().zip(&z).map(|(f, z)| f * z[c]).sum())
                .collect();
            let mass = n[self.value_dim];
            let out: Vec<f64> = n[..self.value_dim].iter().map(|n| n / mass).collect();
            let delta = dot(&out, d_out);
            let u: Vec<f64> = d_out.iter().copied().chain([-delta]).map(|u| u / mass).collect();
            let adjoint = z.iter().map(|z| dot(z, &u)).collect();
            answer
                .dq
                .extend(m.reverse(&x, &f, adjoint).iter().map(|dx| dx * self.tau));
            add(&mut g, &f, &u);
            answer.out.extend(out);
        }
        scale(&mut g);
        for (x, v) in self.keys() {
            let f = m.of(&x);
            let v = with_one(v);
            let adjoint = g.iter().map(|g| dot(g, &v)).collect();
            answer.dk.extend(m.reverse(&x, &f, adjoint));
            answer
                .dv
                .extend((0..self.value_dim).map(|c| f.iter().zip(&g).map(|(f, g)| f * g[c]).sum::<f64>()));
        }
        answer
    }

    /// By every score, with a weight and its derivative.
    pub fn by_scores(&self, weight: impl Fn(f64) -> f64, slope: impl Fn(f64) -> f64) -> Answer {
        let keys: Vec<_> = self.keys().collect();
        let mut answer = Answer {
            out: vec![],
            dq: vec![],
            dk: vec![0.0; self.k.len()],
            dv: vec![0.0; self.v.len()],
        };
        for (q, d_out) in self.queries() {
            let scores: Vec<f64> = keys.iter().map(|(x, _)| self.tau * dot(q, x)).collect();
            let mass: f64 = scores.iter().map(|&s| weight(s)).sum();
            let mut out = vec![0.0; self.value_dim];
            for (s, (_, v)) in scores.iter().zip(&keys) {
                out.iter_mut().zip(*v).for_each(|(o, v)| *o += weight(*s) / mass * v);
            }
            let delta = dot(&out, d_out);
            let mut dq = vec![0.0; self.dim];
            for (j, (&s, (x, v))) in scores.iter().zip(&keys).enumerate() {
                let ds = slope(s) / mass * (dot(d_out, v) - delta) * self.tau;
                dq.iter_mut().zip(x).for_each(|(d, x)| *d += ds * x);
                let dk = &mut answer.dk[j * self.dim..][..self.dim];
                dk.iter_mut().zip(q).for_each(|(d, q)| *d += ds * q);
                let dv = &mut answer.dv[j * self.value_dim..][..self.value_dim];
                dv.iter_mut().zip(d_out).for_each(|(d, o)| *d += weight(s) / mass * o);
            }
            answer.dq.extend(dq);
            answer.out.extend(out);
        }
        answer
    }

    /// `A^T P K` for A of one row per query, P of the scores' gradient with the polynomial in place of e^s throughout, by
    /// row-wise Kronecker products with one column of values after the other: no score is ever made.
    pub fn by_kronecker(&self, c: &[f64], a: &[f64]) -> Vec<f64> {
        let m = Monomials::new(self.dim, c.len() - 1);
        let out = self.recursion(c).out;
        let keys: Vec<_> = self.keys().map(|(x, v)| (m.of(&x), x, v)).collect();
        let mut sum = vec![0.0; self.dim * self.dim];
        // One slice for each column of values, and one with the weighted mean in place of all.
        for b in 0..=self.value_dim {
            let (mut left, mut right) = (
                vec![vec![0.0; self.dim]; m.degree.len()],
                vec![vec![0.0; self.dim]; m.degree.len()],
            );
            for (i, (q, d_out)) in self.queries().enumerate() {
                let x: Vec<f64> = q.iter().map(|q| self.tau * q).collect();
                let f: Vec<f64> = m
                    .of(&x)
                    .iter()
                    .enumerate()
                    .map(|(at, f)| f * m.weight[at] * c[m.degree[at]])
                    .collect();
                let mass: f64 = keys.iter().map(|(g, ..)| dot(&f, g)).sum();
                let out = &out[i * self.value_dim..][..self.value_dim];
                let factor = d_out.get(b).copied().unwrap_or(-dot(out, d_out)) / mass;
                for (left, f) in left.iter_mut().zip(&f) {
                    let row = &a[i * self.dim..][..self.dim];
                    left.iter_mut().zip(row).for_each(|(l, a)| *l += f * factor * a);
                }
            }
            for (g, x, v) in &keys {
                let value = v.get(b).copied().unwrap_or(1.0);
                for (right, g) in right.iter_mut().zip(g) {
                    right.iter_mut().zip(x).for_each(|(r, x)| *r += g * value * x);
                }
            }
            for (left, right) in left.iter().zip(&right) {
                for (row, l) in sum.chunks_exact_mut(self.dim).zip(left) {
                    row.iter_mut().zip(right).for_each(|(s, r)| *s += l * r * self.tau);
                }
            }
        }
        sum
    }
}

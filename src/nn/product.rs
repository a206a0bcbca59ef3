//! Matrix products of small matrices: on one thread, nothing packed but one panel, everything row-major.
//!
//! A network of a few neurons spends its time in the overhead of general products; these have little.

use pulp::Simd;

use super::Activation;
use super::simd::Lane;

/// Rows computed together, each in a register: enough to hide the latency of a multiply-add.
const TILE: usize = 8;
/// Rows summed before their sum is added to the rest, which keeps rounding errors from growing with the rows.
const CHUNK: usize = 128;

/// The transpose of a matrix with `columns` columns.
pub(super) fn transpose<T: Copy>(matrix: &[T], columns: usize) -> Vec<T> {
    (0..columns).flat_map(|column| matrix[column..].iter().step_by(columns).copied()).collect()
}

/// `activation(a·b + bias)` for a `[n, k]` and b `[k, m]`, as `[n, m]`.
#[inline(always)]
pub(super) fn product<S: Simd, R: Lane<S>>(
    simd: S,
    a: &[R],
    b: &[R],
    bias: Option<&[R]>,
    k: usize,
    m: usize,
    activation: Activation,
) -> Vec<R> {
    if k == 0 {
        return vec![];
    }
    let mut c = vec![R::lit(0.); a.len() / k * m];
    let mut panel = Vec::with_capacity(k);
    for from in (0..m).step_by(R::LANES) {
        let to = m.min(from + R::LANES);
        panel.clear();
        panel.extend(b.chunks_exact(m).map(|row| R::load(simd, &row[from..to])));
        let start = bias.map_or(R::splat(simd, R::lit(0.)), |bias| R::load(simd, &bias[from..to]));

        for (a, c) in a.chunks(TILE * k).zip(c.chunks_mut(TILE * m)) {
            if a.len() == TILE * k {
                let sums = product_tile::<S, R>(simd, a, &panel, start);
                for row in 0..TILE {
                    R::store(simd, &mut c[row * m..][from..to], activated::<S, R>(simd, sums[row], activation));
                }
            } else {
                for (a, c) in a.chunks_exact(k).zip(c.chunks_exact_mut(m)) {
                    let sum = product_row::<S, R>(simd, a, &panel, start);
                    R::store(simd, &mut c[from..to], activated::<S, R>(simd, sum, activation));
                }
            }
        }
    }
    c
}

#[inline(always)]
fn activated<S: Simd, R: Lane<S>>(simd: S, sum: R::Vector, activation: Activation) -> R::Vector {
    match activation {
        Activation::Identity => sum,
        Activation::Relu => R::larger(simd, R::splat(simd, R::lit(0.)), sum),
    }
}

#[inline(always)]
fn product_row<S: Simd, R: Lane<S>>(simd: S, row: &[R], panel: &[R::Vector], start: R::Vector) -> R::Vector {
    let mut sum = start;
    for (&x, &b) in row.iter().zip(panel) {
        sum = R::mul_add(simd, R::splat(simd, x), b, sum);
    }
    sum
}

#[inline(always)]
fn product_tile<S: Simd, R: Lane<S>>(simd: S, rows: &[R], panel: &[R::Vector], start: R::Vector) -> [R::Vector; TILE] {
    // Each row by a name of its own, all walked together: an array of them would lie on the stack, and indexing them
    // would cost a check each time.
    let k = panel.len();
    let (a, rows) = rows.split_at(k);
    let (b, rows) = rows.split_at(k);
    let (c, rows) = rows.split_at(k);
    let (d, rows) = rows.split_at(k);
    let (e, rows) = rows.split_at(k);
    let (f, rows) = rows.split_at(k);
    let (g, h) = rows.split_at(k);
    let mut sums = [start; TILE];
    let rows = a.iter().zip(b).zip(c).zip(d).zip(e).zip(f).zip(g).zip(h);
    for ((((((((a, b), c), d), e), f), g), h), &shared) in rows.zip(panel) {
        for (sum, &x) in sums.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *sum = R::mul_add(simd, R::splat(simd, x), shared, *sum);
        }
    }
    sums
}

/// `aᵀ·b` for a `[n, p]` and b `[n, q]`, as `[p, q]`.
#[inline(always)]
pub(super) fn transposed_product<S: Simd, R: Lane<S>>(simd: S, a: &[R], b: &[R], p: usize, q: usize) -> Vec<R> {
    // Lanes run along the second: the longer side fills them better.
    if p > q { transpose(&lanes_along_second(simd, b, a, q, p), p) } else { lanes_along_second(simd, a, b, p, q) }
}

#[inline(always)]
fn lanes_along_second<S: Simd, R: Lane<S>>(simd: S, a: &[R], b: &[R], p: usize, q: usize) -> Vec<R> {
    let mut c = vec![R::lit(0.); p * q];
    if p == 0 || q == 0 {
        return c;
    }
    for (a, b) in a.chunks(CHUNK * p).zip(b.chunks(CHUNK * q)) {
        for from in (0..q).step_by(R::LANES) {
            let to = q.min(from + R::LANES);
            let mut row = 0;
            while row + TILE <= p {
                transposed_tile::<S, R, TILE>(simd, a, b, p, q, row, from, to, &mut c);
                row += TILE;
            }
            for row in row..p {
                transposed_tile::<S, R, 1>(simd, a, b, p, q, row, from, to, &mut c);
            }
        }
    }
    c
}

/// Sums of the columns of a matrix with `m` columns.
#[inline(always)]
pub(super) fn column_sums<S: Simd, R: Lane<S>>(simd: S, matrix: &[R], m: usize) -> Vec<R> {
    let zero = R::splat(simd, R::lit(0.));
    let mut totals = vec![R::lit(0.); m];
    for (block, totals) in (0..m).step_by(R::LANES).zip(totals.chunks_mut(R::LANES)) {
        // As many sums as keep the adder busy, each of every so many-th row.
        let mut sums = [zero; TILE];
        for rows in matrix.chunks(TILE * m) {
            for (sum, row) in sums.iter_mut().zip(rows.chunks_exact(m)) {
                *sum = R::sum(simd, *sum, R::load(simd, &row[block..][..totals.len()]));
            }
        }
        let total = sums.into_iter().fold(zero, |total, sum| R::sum(simd, total, sum));
        R::store(simd, totals, total);
    }
    totals
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a tile is what its loop nest says it is")]
fn transposed_tile<S: Simd, R: Lane<S>, const ROWS: usize>(
    simd: S,
    a: &[R],
    b: &[R],
    p: usize,
    q: usize,
    row: usize,
    from: usize,
    to: usize,
    c: &mut [R],
) {
    let mut sums = [R::splat(simd, R::lit(0.)); ROWS];
    for (a, b) in a.chunks_exact(p).zip(b.chunks_exact(q)) {
        let a = &a[row..][..ROWS];
        let b = R::load(simd, &b[from..to]);
        for i in 0..ROWS {
            sums[i] = R::mul_add(simd, R::splat(simd, a[i]), b, sums[i]);
        }
    }
    for i in 0..ROWS {
        let c = &mut c[(row + i) * q..][from..to];
        let sum = R::sum(simd, R::load(simd, c), sums[i]);
        R::store(simd, c, sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::simd::{Op, Scalar};

    fn numbers(n: usize, seed: u64) -> Vec<f64> {
        (0..n as u64).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f64 / 504.5 - 1.).collect()
    }

    /// Every function, with the vectors this processor has.
    struct All<'a>(&'a [f64], &'a [f64], &'a [f64], &'a [f64], [usize; 2]);

    impl Op<f64> for All<'_> {
        type Output = [Vec<f64>; 3];
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> Self::Output {
            let Self(a, b, bias, d, [k, m]) = self;
            let product = product(simd, a, b, Some(bias), k, m, Activation::Relu);
            [product, transposed_product(simd, a, d, k, m), column_sums(simd, d, m)]
        }
    }

    #[test]
    fn products_agree_with_their_definition_at_every_edge() {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
        for n in [0, 1, 7, 8, 9, 129, 300] {
            for k in [1, 2, 3, 8, 17] {
                for m in [1, 2, 15, 16, 17, 33] {
                    let (a, b, bias) = (numbers(n * k, 1), numbers(k * m, 2), numbers(m, 3));
                    let d = numbers(n * m, 4);
                    let [c, t, s] = f64::dispatch(All(&a, &b, &bias, &d, [k, m]));
                    for (i, j) in (0..n).flat_map(|i| (0..m).map(move |j| (i, j))) {
                        let sum: f64 = bias[j] + (0..k).map(|l| a[i * k + l] * b[l * m + j]).sum::<f64>();
                        assert!(close(c[i * m + j], sum.max(0.)), "{n} {k} {m}");
                    }
                    for (i, j) in (0..k).flat_map(|i| (0..m).map(move |j| (i, j))) {
                        let sum: f64 = (0..n).map(|l| a[l * k + i] * d[l * m + j]).sum();
                        assert!(close(t[i * m + j], sum), "{n} {k} {m}");
                    }
                    for j in 0..m {
                        assert!(close(s[j], (0..n).map(|l| d[l * m + j]).sum()), "{n} {k} {m}");
                    }
                }
            }
        }
    }
}

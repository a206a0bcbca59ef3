//! Matrix products of small matrices: on one thread, with one packed panel, everything row-major.
//!
//! A network of a few neurons spends most of its time in the overhead of general products; these have little overhead.

use itertools::izip;
use pulp::Simd;

use super::activation::Fused;
use super::simd::Lane;

/// Rows computed together, each in a register: enough to hide the latency of a multiply-add.
const TILE: usize = 8;

/// `c = activation(a·b + bias)` for a `[n, k]`, b `[k, m]` and c `[n, m]`.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a product is what its matrices and their sizes are")]
pub(super) fn product<S: Simd, R: Lane<S>>(
    simd: S,
    a: &[R],
    b: &[R],
    bias: Option<&[R]>,
    k: usize,
    m: usize,
    activation: Fused,
    c: &mut [R],
) {
    // One product per number takes less time than setting up a tile.
    let tile = if k == 1 { usize::MAX } else { TILE * k };
    let mut panel = Vec::with_capacity(k);
    for from in (0..m).step_by(R::LANES) {
        let to = m.min(from + R::LANES);
        panel.clear();
        for row in b.chunks_exact(m) {
            panel.push(R::load(simd, &row[from..to]));
        }
        let start = bias.map_or(R::splat(simd, R::lit(0.)), |bias| R::load(simd, &bias[from..to]));

        let (mut a, mut c) = (a, &mut *c);
        while a.len() >= tile {
            let sums = product_tile::<S, R>(simd, &a[..tile], &panel, start);
            for row in 0..TILE {
                R::store(simd, &mut c[row * m..][from..to], activation.of_lanes::<S, R>(simd, sums[row]));
            }
            (a, c) = (&a[tile..], &mut c[TILE * m..]);
        }
        for (a, c) in a.chunks_exact(k).zip(c.chunks_exact_mut(m)) {
            let sum = product_row::<S, R>(simd, a, &panel, start);
            R::store(simd, &mut c[from..to], activation.of_lanes::<S, R>(simd, sum));
        }
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
    let k = panel.len();
    // Each row has its own name, and all are iterated together: an array of rows would lie on the stack, and indexing
    // it would cost a bounds check each time.
    let [a, b, c, d, e, f, g, h] = std::array::from_fn(|row| &rows[row * k..][..k]);
    let mut sums = [start; TILE];
    for (a, b, c, d, e, f, g, h, &shared) in izip!(a, b, c, d, e, f, g, h, panel) {
        for (sum, &x) in sums.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *sum = R::mul_add(simd, R::splat(simd, x), shared, *sum);
        }
    }
    sums
}

/// `c += aᵀ·b` for a `[n, p]`, b `[n, q]` and c `[p, q]`. Lanes run along q: the longer side fills them better.
#[inline(always)]
pub(super) fn add_transposed_product<S: Simd, R: Lane<S>>(simd: S, a: &[R], b: &[R], p: usize, q: usize, c: &mut [R]) {
    for from in (0..q).step_by(R::LANES) {
        let to = q.min(from + R::LANES);
        // There are always enough sums to hide the latency of a multiply-add: if a tile has few rows, each has several
        // sums, which take turns on the rows of a and b.
        let mut row = 0;
        while row + TILE <= p {
            transposed_tile::<S, R, TILE, 1>(simd, a, b, p, q, row, from, to, c);
            row += TILE;
        }
        while row + 2 <= p {
            transposed_tile::<S, R, 2, { TILE / 2 }>(simd, a, b, p, q, row, from, to, c);
            row += 2;
        }
        if row < p {
            transposed_tile::<S, R, 1, TILE>(simd, a, b, p, q, row, from, to, c);
        }
    }
}

/// `c = activation(a·bᵀ + bias)` for a `[n, k]`, b `[m, k]` and c `[n, m]`, where m is too small to fill a register:
/// lanes run along k.
#[inline(always)]
pub(super) fn narrow_product<S: Simd, R: Lane<S>>(
    simd: S,
    a: &[R],
    b: &[R],
    bias: &[R],
    k: usize,
    activation: Fused,
    c: &mut [R],
) {
    for (c, a) in c.chunks_exact_mut(bias.len()).zip(a.chunks_exact(k)) {
        for ((c, b), &bias) in c.iter_mut().zip(b.chunks_exact(k)).zip(bias) {
            let mut sums = R::splat(simd, R::lit(0.));
            let (mut a, mut b) = (a, b);
            while !a.is_empty() {
                let lanes = a.len().min(R::LANES);
                sums = R::mul_add(simd, R::load(simd, &a[..lanes]), R::load(simd, &b[..lanes]), sums);
                (a, b) = (&a[lanes..], &b[lanes..]);
            }
            *c = activation.of(bias + R::total(simd, sums));
        }
    }
}

/// Adds the sums of the columns of a matrix to `sums`, which has an element for each column.
#[inline(always)]
pub(super) fn add_column_sums<S: Simd, R: Lane<S>>(simd: S, matrix: &[R], sums: &mut [R]) {
    let m = sums.len();
    let zero = R::splat(simd, R::lit(0.));
    if m == 1 {
        let (mut rest, mut all) = (matrix, zero);
        while !rest.is_empty() {
            let lanes = rest.len().min(R::LANES);
            all = R::sum(simd, all, R::load(simd, &rest[..lanes]));
            rest = &rest[lanes..];
        }
        sums[0] += R::total(simd, all);
        return;
    }
    for (block, sums) in (0..m).step_by(R::LANES).zip(sums.chunks_mut(R::LANES)) {
        // Several partial sums keep the adder busy; each takes every `TILE`-th row.
        let mut partial = [zero; TILE];
        let lanes = sums.len();
        let mut rest = matrix.get(block..).unwrap_or(&[]);
        while rest.len() >= (TILE - 1) * m + lanes {
            for (each, sum) in partial.iter_mut().enumerate() {
                *sum = R::sum(simd, *sum, R::load(simd, &rest[each * m..][..lanes]));
            }
            rest = rest.get(TILE * m..).unwrap_or(&[]);
        }
        while rest.len() >= lanes {
            partial[0] = R::sum(simd, partial[0], R::load(simd, &rest[..lanes]));
            rest = rest.get(m..).unwrap_or(&[]);
        }
        let total = partial.into_iter().fold(R::load(simd, sums), |total, sum| R::sum(simd, total, sum));
        R::store(simd, sums, total);
    }
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a tile is what its loop nest says it is")]
fn transposed_tile<'a, S: Simd, R: Lane<S>, const ROWS: usize, const EACH: usize>(
    simd: S,
    a: &'a [R],
    b: &'a [R],
    p: usize,
    q: usize,
    row: usize,
    from: usize,
    to: usize,
    c: &mut [R],
) {
    let after = |slice: &'a [R], n: usize| slice.get(n..).unwrap_or(&[]);
    let lanes = to - from;
    let mut sums = [[R::splat(simd, R::lit(0.)); ROWS]; EACH];
    let (mut a, mut b) = (after(a, row), after(b, from));
    while b.len() >= (EACH - 1) * q + lanes {
        for (each, sums) in sums.iter_mut().enumerate() {
            let a = &a[each * p..][..ROWS];
            let b = R::load(simd, &b[each * q..][..lanes]);
            for (sum, &a) in sums.iter_mut().zip(a) {
                *sum = R::mul_add(simd, R::splat(simd, a), b, *sum);
            }
        }
        (a, b) = (after(a, EACH * p), after(b, EACH * q));
    }
    while b.len() >= lanes {
        let of_b = R::load(simd, &b[..lanes]);
        for (sum, &a) in sums[0].iter_mut().zip(&a[..ROWS]) {
            *sum = R::mul_add(simd, R::splat(simd, a), of_b, *sum);
        }
        (a, b) = (after(a, p), after(b, q));
    }
    for i in 0..ROWS {
        let c = &mut c[(row + i) * q..][from..to];
        let mut total = R::load(simd, c);
        for sums in &sums {
            total = R::sum(simd, total, sums[i]);
        }
        R::store(simd, c, total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::block::transpose;
    use crate::nn::simd::{Op, Scalar};
    use crate::nn::tests::numbers;

    /// Every function, with the widest vectors of this processor.
    struct All<'a>(&'a [f64], &'a [f64], &'a [f64], &'a [f64], [usize; 2]);

    impl Op<f64> for All<'_> {
        type Output = [Vec<f64>; 4];
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> Self::Output {
            let Self(a, b, bias, d, [k, m]) = self;
            let n = a.len() / k;
            let mut results = [vec![0.; n * m], vec![0.; n * m], vec![0.; k * m], vec![0.; m]];
            let [c, narrow, t, s] = &mut results;
            product(simd, a, b, Some(bias), k, m, Fused::Relu, c);
            narrow_product(simd, a, &transpose(b, m), bias, k, Fused::Relu, narrow);
            add_transposed_product(simd, a, d, k, m, t);
            add_column_sums(simd, d, s);
            results
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
                    let [c, narrow, t, s] = f64::dispatch(All(&a, &b, &bias, &d, [k, m]));
                    for (i, j) in (0..n).flat_map(|i| (0..m).map(move |j| (i, j))) {
                        let sum: f64 = bias[j] + (0..k).map(|l| a[i * k + l] * b[l * m + j]).sum::<f64>();
                        assert!([&c, &narrow].iter().all(|c| close(c[i * m + j], sum.max(0.))), "{n} {k} {m}");
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

//! Some rows at a time on their way through small layers, on one thread.
//!
//! A block of n features holds each of them for [`ROWS`] rows, one after the other: lanes run along the rows and are full
//! however few the features, and one output takes no sum across lanes. Into blocks and out of them costs about as much as
//! a layer, which several layers share.

use pulp::Simd;

use super::Activation;
use super::simd::{Lane, Scalar};

/// Rows that pass together: few enough for the first-level cache, and their sums are added to the rest as one, which
/// keeps rounding errors from growing with the rows. A multiple of the rows that are computed together.
pub(super) const ROWS: usize = 128;

/// Writes the transpose of a matrix `[rows, columns]`, whose rows lie `from_stride` apart, with rows `to_stride` apart.
#[inline(always)]
fn transpose_to<R: Scalar>(
    from: &[R],
    from_stride: usize,
    [rows, columns]: [usize; 2],
    to: &mut [R],
    to_stride: usize,
) {
    // The compiler transposes squares in registers.
    const SIDE: usize = 4;
    let mut row = 0;
    while row < rows {
        let whole_rows = row + SIDE <= rows;
        let mut column = 0;
        while column < columns {
            if whole_rows && column + SIDE <= columns {
                let mut square = [[R::lit(0.); SIDE]; SIDE];
                for i in 0..SIDE {
                    square[i].copy_from_slice(&from[(row + i) * from_stride + column..][..SIDE]);
                }
                for j in 0..SIDE {
                    let across = [square[0][j], square[1][j], square[2][j], square[3][j]];
                    to[(column + j) * to_stride + row..][..SIDE].copy_from_slice(&across);
                }
                column += SIDE;
            } else {
                for i in row..rows.min(row + SIDE) {
                    to[column * to_stride + i] = from[i * from_stride + column];
                }
                column += 1;
            }
        }
        row += SIDE;
    }
}

/// The transpose of a matrix with `columns` columns.
#[inline(always)]
pub(super) fn transpose<R: Scalar>(matrix: &[R], columns: usize) -> Vec<R> {
    let mut transposed = vec![R::lit(0.); matrix.len()];
    let rows = matrix.len() / columns;
    transpose_to(matrix, columns, [rows, columns], &mut transposed, rows);
    transposed
}

/// A block of the rows of a row-major matrix, at most [`ROWS`].
#[inline(always)]
pub(super) fn to_block<R: Scalar>(matrix: &[R], columns: usize, block: &mut [R]) {
    // The compiler takes pairs apart in registers.
    if let (2, (pairs, [])) = (columns, matrix.as_chunks::<2>()) {
        let (first, second) = block.split_at_mut(ROWS);
        for ((first, second), &pair) in first.iter_mut().zip(second).zip(pairs) {
            [*first, *second] = pair;
        }
        return;
    }
    transpose_to(matrix, columns, [matrix.len() / columns, columns], block, ROWS);
}

/// The rows of a row-major matrix from a block.
#[inline(always)]
pub(super) fn from_block<R: Scalar>(block: &[R], columns: usize, matrix: &mut [R]) {
    transpose_to(block, ROWS, [columns, matrix.len() / columns], matrix, columns);
}

/// `y = activation(w·x + bias)` for blocks x of k and y of m features, and w transposed, `[k, m]`. Results beyond `rows`
/// have no meaning.
#[inline(always)]
pub(super) fn product<S: Simd, R: Lane<S>>(
    simd: S,
    w: &[R],
    x: &[R],
    bias: Option<&[R]>,
    rows: usize,
    activation: Activation,
    y: &mut [R],
) {
    let (k, m) = (x.len() / ROWS, y.len() / ROWS);
    let op = Product::<R> { w, x, bias, k, m, activation };
    let mut j = 0;
    while j + 4 <= m {
        op.features::<S, 4>(simd, j, rows, y);
        j += 4;
    }
    while j < m {
        op.features::<S, 1>(simd, j, rows, y);
        j += 1;
    }
}

#[derive(Clone, Copy)]
struct Product<'a, R> {
    w: &'a [R],
    x: &'a [R],
    bias: Option<&'a [R]>,
    k: usize,
    m: usize,
    activation: Activation,
}

impl<R: Scalar> Product<'_, R> {
    /// `J` features of the result, from the j-th.
    #[inline(always)]
    fn features<S: Simd, const J: usize>(self, simd: S, j: usize, rows: usize, y: &mut [R])
    where
        R: Lane<S>,
    {
        let mut at = 0;
        while at < rows {
            if S::REGISTER_COUNT > 16 && at + 2 * R::LANES < rows && ROWS.is_multiple_of(4 * R::LANES) {
                self.tile::<S, J, 4>(simd, j, at, y);
                at += 4 * R::LANES;
            } else {
                self.tile::<S, J, 2>(simd, j, at, y);
                at += 2 * R::LANES;
            }
        }
    }

    /// `J` features from the j-th of `V` vectors of rows.
    #[inline(always)]
    fn tile<S: Simd, const J: usize, const V: usize>(self, simd: S, j: usize, at: usize, y: &mut [R])
    where
        R: Lane<S>,
    {
        let zero = R::splat(simd, R::lit(0.));
        let mut sums = [[zero; V]; J];
        if let Some(bias) = self.bias {
            for (sums, &bias) in sums.iter_mut().zip(&bias[j..][..J]) {
                *sums = [R::splat(simd, bias); V];
            }
        }
        for i in 0..self.k {
            let x = &R::vectors(&self.x[i * ROWS + at..][..V * R::LANES])[..V];
            for (sums, &w) in sums.iter_mut().zip(&self.w[i * self.m + j..][..J]) {
                let w = R::splat(simd, w);
                for (sum, &x) in sums.iter_mut().zip(x) {
                    *sum = R::mul_add(simd, w, x, *sum);
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            let y = R::vectors_mut(&mut y[(j + i) * ROWS + at..][..V * R::LANES]);
            for (y, sum) in y[..V].iter_mut().zip(sums) {
                *y = self.activation.of_lanes::<S, R>(simd, sum);
            }
        }
    }
}

/// `sums += a·bᵀ`, lane by lane, for blocks a of p and b of q features and sums `[p, q]`.
#[inline(always)]
pub(super) fn add_inner_products<S: Simd, R: Lane<S>>(simd: S, a: &[R], b: &[R], rows: usize, sums: &mut [R::Vector]) {
    let (p, q) = (a.len() / ROWS, b.len() / ROWS);
    let mut i = 0;
    while i + 4 <= p {
        inner_products::<S, R, 4>(simd, a, b, i, q, rows, sums);
        i += 4;
    }
    while i < p {
        inner_products::<S, R, 1>(simd, a, b, i, q, rows, sums);
        i += 1;
    }
}

#[inline(always)]
fn inner_products<S: Simd, R: Lane<S>, const I: usize>(
    simd: S,
    a: &[R],
    b: &[R],
    i: usize,
    q: usize,
    rows: usize,
    sums: &mut [R::Vector],
) {
    let mut j = 0;
    while S::REGISTER_COUNT > 16 && j + 4 <= q {
        inner_tile::<S, R, I, 4>(simd, a, b, [i, j], q, rows, sums);
        j += 4;
    }
    while j + 2 <= q {
        inner_tile::<S, R, I, 2>(simd, a, b, [i, j], q, rows, sums);
        j += 2;
    }
    if j < q {
        inner_tile::<S, R, I, 1>(simd, a, b, [i, j], q, rows, sums);
    }
}

#[inline(always)]
fn inner_tile<S: Simd, R: Lane<S>, const I: usize, const J: usize>(
    simd: S,
    a: &[R],
    b: &[R],
    [i, j]: [usize; 2],
    q: usize,
    rows: usize,
    sums: &mut [R::Vector],
) {
    let mut tile = [[R::splat(simd, R::lit(0.)); J]; I];
    let vectors = const { ROWS / R::LANES };
    let (whole, rest) = (rows / R::LANES, rows % R::LANES);
    {
        let (a, b) = (&R::vectors(a)[i * vectors..][..I * vectors], &R::vectors(b)[j * vectors..][..J * vectors]);
        for at in 0..whole.min(vectors) {
            for (of_a, sums) in tile.iter_mut().enumerate() {
                for (of_b, sum) in sums.iter_mut().enumerate() {
                    *sum = R::mul_add(simd, a[of_a * vectors + at], b[of_b * vectors + at], *sum);
                }
            }
        }
    }
    if rest > 0 {
        let last = |block: &[R], feature: usize| R::load(simd, &block[feature * ROWS + whole * R::LANES..][..rest]);
        for (of_a, sums) in tile.iter_mut().enumerate() {
            for (of_b, sum) in sums.iter_mut().enumerate() {
                *sum = R::mul_add(simd, last(a, i + of_a), last(b, j + of_b), *sum);
            }
        }
    }
    for (of, tile) in tile.into_iter().enumerate() {
        for (sum, add) in sums[(i + of) * q + j..][..J].iter_mut().zip(tile) {
            *sum = R::sum(simd, *sum, add);
        }
    }
}

/// Takes the gradient of `y = activation(x)` to that of x, in place, for blocks, and `sums += ` that of each feature, lane
/// by lane.
#[inline(always)]
pub(super) fn add_activation_grad<S: Simd, R: Lane<S>>(
    simd: S,
    y: &[R],
    activation: Activation,
    rows: usize,
    grad: &mut [R],
    sums: &mut [R::Vector],
) {
    let (whole, rest) = (rows / R::LANES, rows % R::LANES);
    for (i, sum) in sums.iter_mut().enumerate() {
        let (y, grad) = (&y[i * ROWS..][..rows], &mut grad[i * ROWS..][..rows]);
        let mut total = *sum;
        for (grad, &y) in R::vectors_mut(grad).iter_mut().zip(R::vectors(y)) {
            if activation == Activation::Relu {
                *grad = R::gated(simd, y, *grad);
            }
            total = R::sum(simd, total, *grad);
        }
        if rest > 0 {
            let (y, to) = (R::load(simd, &y[whole * R::LANES..]), &mut grad[whole * R::LANES..]);
            let mut grad = R::load(simd, to);
            if activation == Activation::Relu {
                grad = R::gated(simd, y, grad);
                R::store(simd, to, grad);
            }
            total = R::sum(simd, total, grad);
        }
        *sum = total;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::simd::Op;
    use crate::nn::tests::numbers;

    /// Every function, with the vectors this processor has, on a block of rows of a `[n, k]`, d `[n, m]` and b `[k, m]`.
    struct All<'a> {
        a: &'a [f64],
        b: &'a [f64],
        bias: &'a [f64],
        d: &'a [f64],
        size: [usize; 3],
    }

    impl Op<f64> for All<'_> {
        type Output = [Vec<f64>; 4];
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> Self::Output {
            let Self { a, b, bias, d, size: [n, k, m] } = self;
            let (mut x, mut y, mut z) = (vec![0.; k * ROWS], vec![f64::NAN; m * ROWS], vec![f64::NAN; m * ROWS]);
            to_block(a, k, &mut x);
            to_block(d, m, &mut z);
            product(simd, b, &x, Some(bias), n, Activation::Relu, &mut y);
            let mut c = vec![0.; n * m];
            from_block(&y, m, &mut c);
            let zero = <f64 as Lane<S>>::splat(simd, 0.);
            let (mut inner, mut sums) = (vec![zero; k * m], vec![zero; m]);
            add_inner_products::<S, f64>(simd, &x, &z, n, &mut inner);
            add_activation_grad::<S, f64>(simd, &y, Activation::Relu, n, &mut z, &mut sums);
            let mut passed = vec![0.; n * m];
            from_block(&z, m, &mut passed);
            let mut totals = [vec![], vec![]];
            for (totals, sums) in totals.iter_mut().zip([inner, sums]) {
                for sum in sums {
                    totals.push(<f64 as Lane<S>>::total(simd, sum));
                }
            }
            let [inner, sums] = totals;
            [c, passed, inner, sums]
        }
    }

    #[test]
    fn products_agree_with_their_definition_at_every_edge() {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
        for n in [1, 7, 8, 9, 31, 60, 65, ROWS] {
            for k in [1, 2, 3, 8, 17] {
                for m in [1, 2, 15, 16, 17, 33] {
                    let (a, b, bias) = (numbers(n * k, 1), numbers(k * m, 2), numbers(m, 3));
                    let d = numbers(n * m, 4);
                    let size = [n, k, m];
                    let [c, passed, inner, sums] = f64::dispatch(All { a: &a, b: &b, bias: &bias, d: &d, size });
                    for (i, j) in (0..n).flat_map(|i| (0..m).map(move |j| (i, j))) {
                        let sum: f64 = bias[j] + (0..k).map(|l| a[i * k + l] * b[l * m + j]).sum::<f64>();
                        assert!(close(c[i * m + j], sum.max(0.)), "{n} {k} {m}");
                    }
                    for (i, j) in (0..k).flat_map(|i| (0..m).map(move |j| (i, j))) {
                        let sum: f64 = (0..n).map(|l| a[l * k + i] * d[l * m + j]).sum();
                        assert!(close(inner[i * m + j], sum), "{n} {k} {m}");
                    }
                    for (j, &sum) in sums.iter().enumerate() {
                        let column = || (0..n).map(move |l| l * m + j);
                        let grad = |i: usize| if c[i] > 0. { d[i] } else { 0. };
                        assert!(column().all(|i| passed[i] == grad(i)), "{n} {k} {m}");
                        assert!(close(sum, column().map(grad).sum()), "{n} {k} {m}");
                    }
                }
            }
        }
    }
}

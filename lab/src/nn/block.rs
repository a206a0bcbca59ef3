//! Passes some rows at a time through small layers, on one thread.
//!
//! A block of n features stores each feature for [`ROWS`] rows, one feature after the other. Lanes run along the rows:
//! they are full even with few features, and an output needs no sum across lanes. Conversion into and out of blocks
//! costs about as much as a layer; several layers share that cost.

use pulp::Simd;

use super::activation::Fused;
use super::simd::{Lane, Scalar};

/// Rows that pass together: few enough for the first-level cache. Their sums are added to the total at once, so
/// rounding errors do not grow with the rows. A multiple of the rows that are computed together.
pub(super) const ROWS: usize = 128;

/// Writes the transpose of a matrix `[rows, columns]` with row stride `from_stride` to rows with stride `to_stride`.
#[inline(always)]
pub(super) fn transpose_to<R: Scalar>(
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

/// A block of the rows of a row-major matrix, at most [`ROWS`]; rows beyond are zero.
#[inline(always)]
pub(super) fn to_block<R: Scalar>(matrix: &[R], columns: usize, block: &mut [R]) {
    let rows = matrix.len() / columns;
    match (columns, matrix.as_chunks::<2>()) {
        (1, _) => block[..rows].copy_from_slice(matrix),
        // The compiler deinterleaves pairs in registers.
        (2, (pairs, [])) => {
            let (first, second) = block.split_at_mut(ROWS);
            for ((first, second), &pair) in first.iter_mut().zip(second).zip(pairs) {
                [*first, *second] = pair;
            }
        }
        _ => transpose_to(matrix, columns, [rows, columns], block, ROWS),
    }
    if rows < ROWS {
        block.chunks_exact_mut(ROWS).for_each(|feature| feature[rows..].fill(R::lit(0.)));
    }
}

/// The rows of a row-major matrix from a block.
#[inline(always)]
pub(super) fn from_block<R: Scalar>(block: &[R], columns: usize, matrix: &mut [R]) {
    match columns {
        1 => matrix.copy_from_slice(&block[..matrix.len()]),
        _ => transpose_to(block, ROWS, [columns, matrix.len() / columns], matrix, columns),
    }
}

/// `y = w·x` for blocks x of k and y of m features, and w transposed, `[k, m]`; `epilogue` says how the sums start and
/// how they are written. Results beyond `rows` have no meaning.
#[inline(always)]
pub(super) fn product<S: Simd, R: Lane<S>>(
    simd: S,
    w: &[R],
    x: &[R],
    rows: usize,
    y: &mut [R],
    mut epilogue: impl Epilogue<S, R>,
) {
    let m = y.len() / ROWS;
    let mut j = 0;
    while j + 4 <= m {
        features::<S, R, 4>(simd, w, x, rows, y, j, &mut epilogue);
        j += 4;
    }
    while j < m {
        features::<S, R, 1>(simd, w, x, rows, y, j, &mut epilogue);
        j += 1;
    }
}

/// The start and the end of the sums of a product.
pub(super) trait Epilogue<S: Simd, R: Lane<S>> {
    /// The initial value of the sums of a feature.
    fn start(&self, simd: S, feature: usize) -> R::Vector;
    /// Writes the sums of a feature to some rows of y.
    fn write<const V: usize>(&mut self, simd: S, feature: usize, sums: [R::Vector; V], y: &mut [R::Vector]);
}

/// `y = activation(sums + bias)`
pub(super) struct Activate<'a, R> {
    pub(super) bias: &'a [R],
    pub(super) activation: Fused,
}

impl<S: Simd, R: Lane<S>> Epilogue<S, R> for Activate<'_, R> {
    #[inline(always)]
    fn start(&self, simd: S, feature: usize) -> R::Vector {
        R::splat(simd, self.bias[feature])
    }

    #[inline(always)]
    fn write<const V: usize>(&mut self, simd: S, _: usize, sums: [R::Vector; V], y: &mut [R::Vector]) {
        for (y, sum) in y.iter_mut().zip(sums) {
            *y = self.activation.of_lanes::<S, R>(simd, sum);
        }
    }
}

/// Replaces results y of an activation by the gradient of its argument, where the sums are the gradient of y. Adds the
/// gradient to the totals of each feature, lane by lane, if there are totals.
pub(super) struct ActivationGrad<'a, V> {
    pub(super) activation: Fused,
    pub(super) totals: &'a mut [V],
}

impl<S: Simd, R: Lane<S>> Epilogue<S, R> for ActivationGrad<'_, R::Vector> {
    #[inline(always)]
    fn start(&self, simd: S, _: usize) -> R::Vector {
        R::splat(simd, R::lit(0.))
    }

    #[inline(always)]
    fn write<const V: usize>(&mut self, simd: S, feature: usize, sums: [R::Vector; V], y: &mut [R::Vector]) {
        let mut all = R::splat(simd, R::lit(0.));
        for (y, sum) in y.iter_mut().zip(sums) {
            *y = self.activation.grad_of_lanes::<S, R>(simd, *y, sum);
            all = R::sum(simd, all, *y);
        }
        if let Some(total) = self.totals.get_mut(feature) {
            *total = R::sum(simd, *total, all);
        }
    }
}

/// `J` features of a product, starting at feature j.
#[inline(always)]
fn features<S: Simd, R: Lane<S>, const J: usize>(
    simd: S,
    w: &[R],
    x: &[R],
    rows: usize,
    y: &mut [R],
    j: usize,
    epilogue: &mut impl Epilogue<S, R>,
) {
    let mut at = 0;
    while at < rows {
        if S::REGISTER_COUNT > 16 && at + 2 * R::LANES < rows && ROWS.is_multiple_of(4 * R::LANES) {
            tile::<S, R, J, 4>(simd, w, x, y, [j, at], epilogue);
            at += 4 * R::LANES;
        } else {
            tile::<S, R, J, 2>(simd, w, x, y, [j, at], epilogue);
            at += 2 * R::LANES;
        }
    }
}

/// `J` features, starting at feature j, of `V` vectors of rows.
#[inline(always)]
fn tile<S: Simd, R: Lane<S>, const J: usize, const V: usize>(
    simd: S,
    w: &[R],
    x: &[R],
    y: &mut [R],
    [j, at]: [usize; 2],
    epilogue: &mut impl Epilogue<S, R>,
) {
    let m = y.len() / ROWS;
    let mut sums = [[R::splat(simd, R::lit(0.)); V]; J];
    for (of, sums) in sums.iter_mut().enumerate() {
        *sums = [epilogue.start(simd, j + of); V];
    }
    for i in 0..x.len() / ROWS {
        let x = &R::vectors(&x[i * ROWS + at..][..V * R::LANES])[..V];
        for (sums, &w) in sums.iter_mut().zip(&w[i * m + j..][..J]) {
            let w = R::splat(simd, w);
            for (sum, &x) in sums.iter_mut().zip(x) {
                *sum = R::mul_add(simd, w, x, *sum);
            }
        }
    }
    for (of, sums) in sums.into_iter().enumerate() {
        let y = R::vectors_mut(&mut y[(j + of) * ROWS + at..][..V * R::LANES]);
        epilogue.write(simd, j + of, sums, &mut y[..V]);
    }
}

/// `sums += a·bᵀ`, lane by lane, for blocks a of p and b of q features and sums `[p, q]`; one of the blocks is zero
/// beyond `rows`.
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
    let (a, b) = (&R::vectors(a)[i * vectors..][..I * vectors], &R::vectors(b)[j * vectors..][..J * vectors]);
    for at in 0..rows.div_ceil(R::LANES).min(vectors) {
        for (of_a, sums) in tile.iter_mut().enumerate() {
            for (of_b, sum) in sums.iter_mut().enumerate() {
                *sum = R::mul_add(simd, a[of_a * vectors + at], b[of_b * vectors + at], *sum);
            }
        }
    }
    for (of, tile) in tile.into_iter().enumerate() {
        for (sum, add) in sums[(i + of) * q + j..][..J].iter_mut().zip(tile) {
            *sum = R::sum(simd, *sum, add);
        }
    }
}

/// Replaces the gradient of `y = activation(x)` by the gradient of x, for blocks, and adds the gradient of each feature
/// to `totals`, lane by lane.
#[inline(always)]
pub(super) fn add_activation_grad<S: Simd, R: Lane<S>>(
    simd: S,
    y: &[R],
    activation: Fused,
    grad: &mut [R],
    totals: &mut [R::Vector],
) {
    for (i, total) in totals.iter_mut().enumerate() {
        let (y, grad) = (R::vectors(&y[i * ROWS..][..ROWS]), R::vectors_mut(&mut grad[i * ROWS..][..ROWS]));
        for (grad, &y) in grad.iter_mut().zip(y) {
            *grad = activation.grad_of_lanes::<S, R>(simd, y, *grad);
            *total = R::sum(simd, *total, *grad);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::simd::Op;
    use crate::nn::tests::numbers;

    /// Every function, with the widest vectors of this processor, on a block of rows of a `[n, k]`, d `[n, m]` and b
    /// `[k, m]`.
    struct All<'a> {
        a: &'a [f64],
        b: &'a [f64],
        bias: &'a [f64],
        d: &'a [f64],
        size: [usize; 3],
    }

    impl Op<f64> for All<'_> {
        type Output = [Vec<f64>; 6];
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> Self::Output {
            let Self { a, b, bias, d, size: [n, k, m] } = self;
            let (mut x, mut y, mut z) = (vec![0.; k * ROWS], vec![f64::NAN; m * ROWS], vec![f64::NAN; m * ROWS]);
            to_block(a, k, &mut x);
            to_block(d, m, &mut z);
            let activation = Fused::Relu;
            product(simd, b, &x, n, &mut y, Activate { bias, activation });
            let mut c = vec![0.; n * m];
            from_block(&y, m, &mut c);
            let zero = <f64 as Lane<S>>::splat(simd, 0.);
            let (mut inner, mut sums, mut sums_of_x) = (vec![zero; k * m], vec![zero; m], vec![zero; k]);
            add_inner_products::<S, f64>(simd, &x, &z, n, &mut inner);
            add_activation_grad::<S, f64>(simd, &y, activation, &mut z, &mut sums);
            let transposed = transpose(b, m);
            product(simd, &transposed, &z, n, &mut x, ActivationGrad { activation, totals: &mut sums_of_x });
            let mut x_masked = vec![0.; n * k];
            from_block(&x, k, &mut x_masked);
            let mut masked = vec![0.; n * m];
            from_block(&z, m, &mut masked);
            let mut totals = [vec![], vec![], vec![]];
            for (totals, sums) in totals.iter_mut().zip([inner, sums, sums_of_x]) {
                for sum in sums {
                    totals.push(<f64 as Lane<S>>::total(simd, sum));
                }
            }
            let [inner, sums, sums_of_x] = totals;
            [c, masked, x_masked, inner, sums, sums_of_x]
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
                    let all = All { a: &a, b: &b, bias: &bias, d: &d, size };
                    let [c, masked, x_masked, inner, sums, sums_of_x] = f64::dispatch(all);
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
                        assert!(column().all(|i| masked[i] == grad(i)), "{n} {k} {m}");
                        assert!(close(sum, column().map(grad).sum()), "{n} {k} {m}");
                    }
                    for (j, &sum) in sums_of_x.iter().enumerate() {
                        let mut total = 0.;
                        for i in (0..n).map(|l| l * k + j) {
                            let grad: f64 = (0..m).map(|l| b[j * m + l] * masked[i / k * m + l]).sum();
                            let grad = if a[i] > 0. { grad } else { 0. };
                            assert!(close(x_masked[i], grad), "{n} {k} {m}");
                            total += grad;
                        }
                        assert!(close(sum, total), "{n} {k} {m}");
                    }
                }
            }
        }
    }
}

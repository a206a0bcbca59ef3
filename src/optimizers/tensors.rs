//! Functions that the methods on whole tensors share.
use candle_core::{D, DType, Result, Tensor};

use crate::algorithm::State;

/// An exponential moving average: `avg·(1 - weight) + x·weight`.
pub(super) fn average(avg: &Tensor, x: &Tensor, weight: f64) -> Result<Tensor> {
    (avg * (1. - weight))? + (x * weight)?
}

/// `p` after decoupled weight decay λ.
pub(super) fn decayed(p: &Tensor, lr: f64, weight_decay: f64) -> Result<Tensor> {
    if lr * weight_decay == 0. { Ok(p.clone()) } else { p * (1. - lr * weight_decay) }
}

/// `x/d` for `d` ≥ 0, but 0 where `d` is 0, as [`rule::ratio`](crate::rule::ratio). `d` is broadcast. For a small `d`:
/// Candle's comparison is slow.
pub(super) fn ratio(x: &Tensor, d: &Tensor) -> Result<Tensor> {
    x.broadcast_div(&zero_to_infinity(d)?)
}

fn zero_to_infinity(d: &Tensor) -> Result<Tensor> {
    d.eq(0.)?.where_cond(&d.affine(0., f64::INFINITY)?, d)
}

/// `x/max(root, least)` for `root` ≥ 0 that is 0 only where `x` is so small that its square rounds to 0.
///
/// There is then no step either: the square root of the type's smallest number is added to a divisor that may be 0. No
/// root of an average is below it. Candle's maximum takes three times as long, and loses a NaN on a GPU.
pub(super) fn over_root(x: &Tensor, root: &Tensor, least: f64) -> Result<Tensor> {
    if least > 0. {
        return x / root.maximum(least)?;
    }
    let smallest = if root.dtype() == DType::F64 { f64::from_bits(1) } else { f32::from_bits(1).into() };
    x / (root + smallest.sqrt())?
}

/// The root of the mean square, a number.
pub(super) fn rms(x: &Tensor) -> Result<Tensor> {
    x.sqr()?.mean_all()?.sqrt()
}

/// `x`, scaled down where its root of the mean square is above `most`.
pub(super) fn clipped(x: &Tensor, most: f64) -> Result<Tensor> {
    // NaN stays NaN: `maximum` returns a NaN on its left.
    x.broadcast_div(&(rms(x)? / most)?.maximum(1.)?)
}

/// Whether a variable of these dimensions has averages of rows and columns.
pub(super) fn is_factored(dims: &[usize]) -> bool {
    dims.len() >= 2
}

/// Averages the means of rows and columns of `squares` [.., r, c] into two state tensors, and returns the root of the
/// estimate from them: √(row/mean row)·√column, where the mean is at least `least`. It is a product of roots because
/// row·column overflows or underflows f32 early. A root of 0 becomes infinite if `least` is 0, so that division by it
/// gives 0.
///
/// Shazeer and Stern, 2018, arXiv:1804.04235, section 3.
pub(super) fn factored_root(
    state: &mut State,
    [row, column]: [&'static str; 2],
    squares: &Tensor,
    weight: f64,
    least: f64,
) -> Result<Tensor> {
    let mut blend = |name, mean: Tensor| {
        let stored = &state[name];
        let next = average(stored, &mean.reshape(stored.shape())?, weight)?;
        state.insert(name, next.clone());
        next.reshape(mean.shape())
    };
    let rows = squares.dim(D::Minus2)?;
    // A product sums columns. Candle's sum over them takes twenty times as long.
    let ones = Tensor::ones((1, rows), squares.dtype(), squares.device())?;
    let of_columns = (ones.broadcast_matmul(squares)? / rows as f64)?;
    let (row, column) = (blend(row, squares.mean_keepdim(D::Minus1)?)?, blend(column, of_columns)?);
    let share = ratio(&row, &row.mean_keepdim(D::Minus2)?.maximum(least)?)?;
    let root = |x: Tensor| if least > 0. { x.sqrt() } else { zero_to_infinity(&x.sqrt()?) };
    // Candle is faster if the one of the two that is broadcast along rows stands on the right.
    root(column)?.broadcast_mul(&root(share)?)
}

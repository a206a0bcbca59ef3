//! Functions that the methods on whole tensors share.
use candle_core::{D, Result, Tensor};

use crate::algorithm::State;

/// An exponential moving average: `avg·(1 - weight) + x·weight`.
pub(super) fn average(avg: &Tensor, x: &Tensor, weight: f64) -> Result<Tensor> {
    (avg * (1. - weight))? + (x * weight)?
}

/// `x/d` for `d` ≥ 0, but 0 where `d` is 0, as [`rule::ratio`](crate::rule::ratio). `d` is broadcast.
pub(super) fn ratio(x: &Tensor, d: &Tensor) -> Result<Tensor> {
    x.broadcast_div(&d.eq(0.)?.where_cond(&d.affine(0., f64::INFINITY)?, d)?)
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
/// row·column overflows or underflows f32 early.
///
/// Shazeer and Stern, 2018, arXiv:1804.04235, section 3.
pub(super) fn factored_root(
    state: &mut State,
    [row, column]: [&'static str; 2],
    squares: &Tensor,
    weight: f64,
    least: f64,
) -> Result<Tensor> {
    let mut blend = |name, dim| {
        let (mean, stored) = (squares.mean_keepdim(dim)?, &state[name]);
        let next = average(stored, &mean.reshape(stored.shape())?, weight)?;
        state.insert(name, next.clone());
        next.reshape(mean.shape())
    };
    let (row, column) = (blend(row, D::Minus1)?, blend(column, D::Minus2)?);
    let share = ratio(&row, &row.mean_keepdim(D::Minus2)?.maximum(least)?)?;
    share.sqrt()?.broadcast_mul(&column.sqrt()?)
}

//! Mean squared error.

use candle_core::{Result, Tensor};

use super::pointwise::{Term, mean};
use crate::nn::elementary::Elementary;

/// Mean squared error of predictions x and targets y of the same shape and type; a scalar.
///
/// ```text
/// loss = mean((x - y)²)
/// ```
///
/// Both get a gradient, as in `candle_nn::loss::mse`.
///
/// # Errors
/// Shapes, types or devices that differ, an empty tensor, a type that is not floating point.
pub fn mse(predictions: &Tensor, targets: &Tensor) -> Result<Tensor> {
    mean(predictions, targets, SquaredError)
}

#[derive(Clone, Copy)]
pub(super) struct SquaredError;

impl Term for SquaredError {
    const NAME: &'static str = "mse";

    #[inline(always)]
    fn term<R: Elementary>(x: R, y: R) -> R {
        (x - y) * (x - y)
    }

    #[inline(always)]
    fn slope<R: Elementary>(x: R, y: R) -> R {
        R::lit(2.) * (x - y)
    }

    fn composed(x: &Tensor, y: &Tensor) -> Result<Tensor> {
        (x - y)?.sqr()?.mean_all()
    }
}

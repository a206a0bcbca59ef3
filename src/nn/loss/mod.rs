//! Losses with their own backward pass.
//!
//! On the CPU each pass is one loop, computed in f32 for half precision and summed in f64. On other devices the losses
//! are composed of Candle's operations.

mod bce;
mod cross_entropy;
mod mse;
mod pointwise;

use candle_core::{Error, Result, Tensor};

pub use bce::bce_with_logits;
pub use cross_entropy::cross_entropy;
pub use mse::mse;

/// The mean of an empty tensor is undefined.
fn not_empty(op: &str, tensor: &Tensor) -> Result<()> {
    if tensor.elem_count() == 0 {
        return Err(Error::Msg(format!("{op}: the input is empty, of shape {:?}", tensor.dims())));
    }
    Ok(())
}

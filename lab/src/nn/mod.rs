//! The network: fully connected layers, on the CPU as one operation if they are small.
//!
//! | module | what |
//! |---|---|
//! | `mlp` | several layers as one operation |
//! | `dense` | one layer, and the operation of a large one |
//! | `activation` | what a layer does to its sums |
//! | `block` | rows on their way through several small layers |
//! | `product` | the products of one small layer |
//! | `simd` | vectors of the processor's width |
//! | `scratch` | memory that an operation needs until it ends |

mod activation;
mod block;
mod dense;
mod mlp;
mod product;
mod scratch;
mod simd;

pub use activation::Activation;
pub use dense::Dense;
pub use mlp::Mlp;

use candle_core::{Error, Result, Tensor};

/// Calls `f` with `x` as `[rows, features]`. The leading dimensions count as rows; the result has them again.
fn by_rows(x: &Tensor, f: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    match x.dims() {
        [_, _] => f(x),
        [leading @ .., features] if leading.len() > 1 => {
            let y = f(&x.reshape((leading.iter().product::<usize>(), *features))?)?;
            y.reshape([leading, &y.dims()[1..]].concat())
        }
        dims => Err(Error::Msg(format!("an input of shape {dims:?}; allowed: [.., rows, features]"))),
    }
}

#[cfg(test)]
mod tests {
    /// Numbers from -1 to 1, different for each seed.
    pub(super) fn numbers(n: usize, seed: u64) -> Vec<f64> {
        (0..n as u64).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f64 / 504.5 - 1.).collect()
    }
}

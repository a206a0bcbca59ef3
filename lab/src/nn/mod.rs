//! The network: fully connected layers, on the CPU as one operation if they are small.
//!
//! | module | what |
//! |---|---|
//! | `mlp` | several layers as one operation |
//! | `dense` | one layer, and the operation of a large one |
//! | `block` | rows on their way through several small layers |
//! | `product` | the products of one small layer |
//! | `simd` | vectors of the processor's width |
//! | `scratch` | memory that an operation needs until it ends |

mod block;
mod dense;
mod mlp;
mod product;
mod scratch;
mod simd;

pub use dense::{Activation, Dense};
pub use mlp::Mlp;

#[cfg(test)]
mod tests {
    /// Numbers from -1 to 1, other ones for each seed.
    pub(super) fn numbers(n: usize, seed: u64) -> Vec<f64> {
        (0..n as u64).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f64 / 504.5 - 1.).collect()
    }
}

//! The pass on NVIDIA GPUs: a rule, recorded, printed as CUDA, compiled when first needed, and one launch for many
//! variables.

mod source;
mod trace;

#[cfg(feature = "cuda")]
mod compile;
#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
mod launch;
#[cfg(any(test, feature = "cuda"))]
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
mod ptx_cache;

pub(super) use source::source;

#[cfg(feature = "cuda")]
pub(super) use launch::{DeviceTotals, init, step, sums};

//! The pass on NVIDIA GPUs. A rule is recorded, printed as CUDA, and compiled when first needed. One launch steps many
//! variables.

mod source;
mod trace;

#[cfg(feature = "cuda")]
mod compile;
#[cfg(feature = "cuda")]
mod group_sums;
#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
mod launch;
#[cfg(feature = "cuda")]
mod pointers;
#[cfg(any(test, feature = "cuda"))]
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
mod ptx_cache;

pub(super) use source::source;

#[cfg(feature = "cuda")]
pub(super) use group_sums::{DeviceTotals, sums};
#[cfg(feature = "cuda")]
pub(super) use launch::{init, step};

//! The memory of variables and of their state: what lies where, in which type, and direct access to it.
//!
//! | module | what |
//! |---|---|
//! | `state` | the state of a variable |
//! | `addresses` | where variables lie |
//! | `lock` | access to the memory of variables and gradients |
//! | `rounding` | the rounding to 16 bits |
//! | `cuda` | access to memory on an NVIDIA GPU |

mod addresses;
#[cfg(feature = "cuda")]
mod cuda;
mod lock;
mod rounding;
mod state;

pub(crate) use addresses::Addresses;
#[cfg(feature = "cuda")]
pub(crate) use cuda::CudaAccess;
#[cfg(feature = "cuda")]
pub(crate) use lock::Access;
#[cfg(feature = "cuda")]
pub(crate) use lock::Backend;
pub(crate) use lock::{Element, VarLock};
#[cfg(feature = "cuda")]
pub(crate) use rounding::step_salt;
pub(crate) use rounding::{Half, Noise, Rounding, VARIABLE, map, round_tensor};
pub use state::State;
pub(crate) use state::{
    Part, Parts, Portion, SlotState, StateBuffer, StateView, range, split_at, state_dtypes, stored_dtype,
};

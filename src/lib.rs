//! Optimizers for [Candle](candle_core), each verified against PyTorch, each a single pass over memory.
//!
//! They implement [`candle_nn::Optimizer`], so that a training loop changes in one line; the README has it.
//!
//! | module | what |
//! |---|---|
//! | [`rules`] | one optimizer a file, and the registry |
//! | [`optimizer`] | [`Optim`], which holds parameters and state; [`DynOptimizer`] for programs that choose at run time |
//! | [`spec`] | optimizers named in a line: `adamw:lr=0.01,weight_decay=0.1` |
//! | [`nn`] | layers and losses with their own backward pass |
//! | [`rule`], [`real`] | how an optimizer is written: one function, generic over its number type |

#![warn(missing_docs)]
// Launching a kernel is the one thing that is not safe.
#![cfg_attr(not(feature = "cuda"), forbid(unsafe_code))]
#![cfg_attr(feature = "cuda", deny(unsafe_code))]

mod error;
mod fused;
pub mod nn;
pub mod optimizer;
pub mod params;
pub mod real;
pub mod rule;
pub mod rules;
pub mod spec;

/// The README's examples, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use error::{Error, Result, nearest};
pub use optimizer::{DynOptimizer, Optim};
pub use rules::adam::{Adam, ParamsAdam};
pub use rules::adamw::{AdamW, ParamsAdamW};
pub use rules::momentum::{Momentum, ParamsMomentum};
pub use rules::rmsprop::{ParamsRmsProp, RmsProp};
pub use rules::sgd::{ParamsSgd, Sgd};
pub use spec::Spec;

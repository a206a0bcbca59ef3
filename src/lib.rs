//! Optimizers for [Candle](candle_core), each verified against PyTorch, each a single pass over memory.
//!
//! They implement [`candle_nn::Optimizer`], so a training loop changes in one line:
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use candle_nn::{Module, Optimizer, VarBuilder, VarMap};
//! use candle_optim::{AdamW, ParamsAdamW}; // was: candle_nn::{AdamW, ParamsAdamW}
//!
//! let vars = VarMap::new();
//! let model = candle_nn::linear(2, 1, VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu))?;
//! let mut optimizer = AdamW::new(vars.all_vars(), ParamsAdamW { lr: 0.1, ..Default::default() })?;
//!
//! let x = Tensor::new(&[[0f32, 1.], [1., 0.], [1., 1.]], &Device::Cpu)?;
//! let y = Tensor::new(&[[1f32], [2.], [3.]], &Device::Cpu)?;
//! for _ in 0..300 {
//!     let loss = candle_nn::loss::mse(&model.forward(&x)?, &y)?;
//!     optimizer.backward_step(&loss)?;
//! }
//! let loss = candle_nn::loss::mse(&model.forward(&x)?, &y)?.to_scalar::<f32>()?;
//! assert!(loss < 1e-2);
//! # Ok::<(), candle_core::Error>(())
//! ```
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
#[cfg(feature = "lab")]
pub mod lab;
pub mod nn;
pub mod optimizer;
pub mod params;
#[cfg(feature = "lab")]
pub mod random;
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

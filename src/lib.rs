//! Optimizers for [Candle](candle_core), each verified against PyTorch or another reference. A step of most of them
//! is a single pass over memory.
//!
//! # Quick start
//!
//! The drop-ins implement [`candle_nn::Optimizer`], so one line of a training program changes:
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use candle_nn::{Module, Optimizer, VarBuilder, VarMap};
//! use candle_optim::AdamW; // was: candle_nn::AdamW
//!
//! # fn main() -> candle_core::Result<()> {
//! let varmap = VarMap::new();
//! let model = candle_nn::linear(2, 1, VarBuilder::from_varmap(&varmap, DType::F32, &Device::Cpu))?;
//! let x = Tensor::new(&[[0f32, 1.], [1., 0.]], &Device::Cpu)?; // [rows, features]
//!
//! let mut optimizer = AdamW::new_lr(varmap.all_vars(), 0.01)?;
//! for _ in 0..10 {
//!     let loss = model.forward(&x)?.sqr()?.mean_all()?;
//!     optimizer.backward_step(&loss)?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Groups
//!
//! Each group of variables has its optimizer. Schedules, clipping and checkpoints belong to the [`Optim`] of all
//! groups:
//!
//! ```
//! # use candle_core::{DType, Device, Tensor};
//! # use candle_nn::{Module, VarBuilder, VarMap};
//! use candle_optim::{Cosine, Group, NamedVars, Optim, ParamsMuon, Spec};
//!
//! # fn main() -> Result<(), candle_optim::Error> {
//! # let varmap = VarMap::new();
//! # let model = candle_nn::linear(2, 2, VarBuilder::from_varmap(&varmap, DType::F32, &Device::Cpu))?;
//! # let x = Tensor::new(&[[0f32, 1.], [1., 0.]], &Device::Cpu)?;
//! let mut vars = NamedVars::from(&varmap);
//! let weights = vars.take("*weight")?;
//! let mut optim = Optim::new(vec![
//!     Group::new(weights, ParamsMuon::default()),
//!     Group::new(vars, "adamw:lr=3e-3,caution=true".parse::<Spec>()?),
//! ])?
//! .schedule(Cosine { steps: 100, min_lr: 0. })
//! .clip_grad_norm(1.);
//! let grads = model.forward(&x)?.sqr()?.mean_all()?.backward()?;
//! optim.step(&grads)?;
//! # Ok(())
//! # }
//! ```
//!
//! # Which type do I need?
//!
//! | you want | use |
//! |---|---|
//! | to replace Candle's AdamW or SGD by changing one line | [`AdamW`], [`Sgd`] and the like: [`DropIn`]s, which implement [`candle_nn::Optimizer`] |
//! | parameter groups, schedules, clipping, checkpoints | [`NamedVars`], [`Group`], [`Optim`] |
//! | an optimizer named at run time | [`Spec`]: `adamw:lr=0.01,weight_decay=0.1` |
//! | to write an optimizer | [`hyper!`] with [`rule!`] and [`Rule`](rule::Rule), or [`Algorithm`] for a method on whole tensors |
//! | losses with their own backward pass | [`nn`] |

#![warn(missing_docs)]
// Only the launch of a kernel needs unsafe code.
#![cfg_attr(not(feature = "cuda"), forbid(unsafe_code))]
#![cfg_attr(feature = "cuda", deny(unsafe_code))]

pub mod algorithm;
mod clock;
mod drop_in;
mod engine;
mod error;
mod group;
pub mod hyper;
mod memory;
pub mod nn;
mod optim;
pub mod optimizers;
mod plateau;
pub mod real;
pub mod rule;
pub mod schedule;
mod spec;
mod state_dict;
mod swap;
mod vars;

/// The examples of the README and of docs/, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/library.md")]
struct Pages;

pub use algorithm::{Algorithm, Clock, Method, Slot, Slots, State};
pub use candle_nn::Optimizer;
pub use drop_in::DropIn;
// `Result` is not exported: glob imports of this crate and of candle_core would make the name ambiguous.
pub use error::Error;
pub use group::Group;
pub use optim::{Optim, Outcome};
pub use optimizers::*;
pub use plateau::ReduceOnPlateau;
pub use schedule::{Cosine, LinearWarmup, Ramp, Schedule};
pub use spec::{Registry, Spec};
pub use swap::Swapped;
pub use vars::NamedVars;

/// The imports of an optimizer's page.
pub mod prelude {
    pub use crate::algorithm::{Algorithm, Clock, Slot, Slots, State};
    pub use crate::error::Result;
    pub use crate::real::Real;
    pub use crate::rule::{Elementwise, Rule, Zero, decay, ema, ratio};
    pub use crate::{DropIn, hyper, rule, words};
    pub use candle_core::Tensor;
}

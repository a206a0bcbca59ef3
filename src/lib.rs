//! Optimizers for [Candle](candle_core), each verified against PyTorch or its authors' code, each a single pass over memory.
//!
//! | you want | use |
//! |---|---|
//! | to replace Candle's AdamW or SGD in a line | [`AdamW`], [`Sgd`] and the like: [`DropIn`]s, which implement [`candle_nn::Optimizer`] |
//! | parameter groups, schedules, clipping, checkpoints | [`NamedVars`], [`Group`], [`Optim`] |
//! | an optimizer named at run time | [`Spec`]: `adamw:lr=0.01,weight_decay=0.1` |
//! | to write an optimizer | [`hyper!`] with [`rule!`] and [`Rule`](rule::Rule), or [`Algorithm`] for a method of whole tensors |
//! | layers and losses with their own backward pass | [`nn`] |

#![warn(missing_docs)]
// Launching a kernel is the one thing that is not safe.
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

/// The README's examples, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use algorithm::{Algorithm, Clock, Method, Slot, Slots, State};
pub use candle_nn::Optimizer;
pub use drop_in::DropIn;
// No `Result`: with candle_core's, two globs would make the name ambiguous.
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
    pub use crate::rule::{Elementwise, Rule, Zero, ema};
    pub use crate::{DropIn, hyper, rule, words};
    pub use candle_core::Tensor;
}

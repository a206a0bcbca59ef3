//! The program: data, training, results and pictures. A client of the public API of [`candle_optim`].

#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod bench;
pub mod cli;
mod commands;
pub mod data;
mod list;
mod memory;
pub mod minimize;
pub mod model;
pub mod nn;
pub mod optimizer;
mod output;
mod parity;
mod plot;
pub mod random;
mod summary;
mod tables;
mod threads;
pub mod train;
pub mod twins;

pub use commands::run;

/// The library's error for a name that does not exist.
fn unknown<S: Into<String>>(what: &str, given: &str, allowed: impl IntoIterator<Item = S>) -> candle_optim::Error {
    let allowed = allowed.into_iter().map(Into::into).collect();
    candle_optim::Error::Unknown { what: what.into(), given: given.into(), allowed }
}

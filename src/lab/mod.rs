//! The program: data, training, results and pictures. A client of the public API.

pub mod bench;
pub mod cli;
mod commands;
pub mod data;
mod list;
pub mod minimize;
pub mod model;
mod output;
mod parity;
mod plot;
mod summary;
mod tables;
pub mod train;

pub use commands::run;

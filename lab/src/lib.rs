//! The program: data, training, results and pictures. A client of the public API of [`candle_optim`].

#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod bench;
pub mod cli;
mod commands;
pub mod data;
mod details;
mod folder;
mod interruption;
mod list;
mod live;
mod memory;
pub mod minimize;
pub mod model;
pub mod nn;
pub mod optimizer;
mod output;
mod parity;
mod plot;
pub mod random;
mod report;
mod shown;
mod summary;
pub mod sweep;
mod tables;
mod tensorboard;
mod threads;
pub mod train;
pub mod twins;

pub use commands::run;

/// The library's error for a name that does not exist.
fn unknown<S: Into<String>>(what: &str, given: &str, allowed: impl IntoIterator<Item = S>) -> candle_optim::Error {
    let allowed = allowed.into_iter().map(Into::into).collect();
    candle_optim::Error::Unknown { what: what.into(), given: given.into(), allowed }
}

/// The error for a column that a file does not have. It lists the columns with the most similar names on one line.
fn unknown_column(what: &str, given: &str, columns: &[&str]) -> candle_optim::Error {
    let given = shown::shown(given);
    let likeness = |name: String| (strsim::normalized_damerau_levenshtein(&given, &name), name);
    let mut names: Vec<(f64, String)> = columns.iter().map(|name| likeness(shown::shown(name))).collect();
    names.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let mut length = 0;
    let fits = |name: &String| {
        length += name.len();
        length <= 120
    };
    let mut allowed: Vec<String> = names.into_iter().map(|(_, name)| name).take_while(fits).collect();
    if allowed.len() < columns.len() {
        allowed.push("..".into());
    }
    unknown(what, &given, allowed)
}

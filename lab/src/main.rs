//! The program `candle-optim`: parse, run, exit code.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use candle_optim_lab::{cli::Cli, run};

// A training step allocates and frees every tensor anew; the system's allocator returns their pages each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            complain(one_line(&error));
            return ExitCode::from(2);
        }
        // --help and --version.
        Err(message) => match message.print() {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                complain(format_args!("error: cannot print to standard output: {error}"));
                return ExitCode::FAILURE;
            }
            _ => return ExitCode::SUCCESS,
        },
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints a line to standard error. `eprintln` panics if standard error is closed, and a name may contain control
/// characters.
fn complain(line: impl Display) {
    let mut shown = String::new();
    for letter in line.to_string().chars() {
        if letter.is_control() { shown.extend(letter.escape_default()) } else { shown.push(letter) }
    }
    let _ = writeln!(std::io::stderr(), "{shown}");
}

/// The error and the tip, without the usage that clap prints below.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let said = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let said: Vec<&str> = said.filter(|line| !line.is_empty() && !line.starts_with("For more")).collect();
    said.join(" ")
}

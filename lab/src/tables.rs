//! What is printed: tables on a terminal, plain lines elsewhere.

use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write};

use anyhow::Result;
use comfy_table::presets::{NOTHING, UTF8_FULL_CONDENSED};
use comfy_table::{CellAlignment, Table};

use super::bench::Measurement;
use super::minimize::Path;
use super::parity::Pair;
use super::train::Run;

/// A table with its header; the first column is text, the others are numbers.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(if std::io::stdout().is_terminal() { UTF8_FULL_CONDENSED } else { NOTHING }).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Final losses, accuracy and time of each run.
pub fn finals(runs: &[Run]) -> impl Display {
    let mut table = table(&["optimizer", "train loss", "test loss", "test accuracy", "time", "per epoch"]);
    for run in runs {
        let Some(last) = run.epochs.last() else { continue };
        let micros = run.time.as_secs_f64() * 1e6;
        let mut name = run.optimizer.clone();
        if let Some(epoch) = run.diverged_at() {
            name += &format!(" (diverged at epoch {epoch})");
        }
        table.add_row([
            name,
            format!("{:.6}", last.train_loss),
            format!("{:.6}", last.test_loss),
            format!("{:.1} %", 100. * last.test_accuracy),
            format!("{:.1} ms", micros / 1e3),
            format!("{:.0} µs", micros / run.epochs.len() as f64),
        ]);
    }
    table
}

/// Time and memory of each optimizer, next to the `plain` pass over as many bytes.
pub fn bench(measurements: &[Measurement], plain: &str) -> impl Display {
    let (plain, share) = (format!("{plain}, GB/s"), format!("of {plain}"));
    let mut table = table(&["optimizer", "step", "GB/s", &plain, &share, "state bytes/parameter"]);
    for measurement in measurements {
        table.add_row([
            measurement.optimizer.clone(),
            format!("{:.1} µs", measurement.microseconds),
            format!("{:.1}", measurement.gigabytes_per_second),
            format!("{:.1}", measurement.plain_gigabytes_per_second),
            format!("{:.0} %", 100. * measurement.share_of_plain),
            measurement.state_bytes_per_parameter.to_string(),
        ]);
    }
    table
}

/// How far twins part.
pub fn parity(pairs: &[Pair]) -> impl Display {
    let mut table = table(&["optimizer", "against", "train loss", "test loss"]);
    let difference = |x: f64| if x == 0. { "equal bits".to_owned() } else { format!("{x:.1e}") };
    for pair in pairs {
        table.add_row([
            pair.optimizer.clone(),
            pair.against.clone(),
            difference(pair.train_loss),
            difference(pair.test_loss),
        ]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    table
}

/// The steps of each optimizer: the point for a function of one number, else the value. Of many steps, some.
pub fn paths(paths: &[Path]) -> impl Display {
    const ROWS: usize = 20;
    let Some(first) = paths.first() else { return table(&[]) };
    let one_number = first.points[0].0.len() == 1;
    let mut header = vec!["step"];
    header.extend(paths.iter().map(|path| path.optimizer.as_str()));
    let mut table = table(&header);
    let last = first.points.len() - 1;
    for step in (0..=last).step_by(last.div_ceil(ROWS)).chain((last % last.div_ceil(ROWS) != 0).then_some(last)) {
        let cell = |path: &Path| {
            let (x, value) = &path.points[step];
            if one_number { format!("{:.6}", x[0]) } else { format!("{value:.6e}") }
        };
        table.add_row([step.to_string()].into_iter().chain(paths.iter().map(cell)));
    }
    table
}

/// Prints to standard output; a reader that has gone away is no error.
pub fn print(text: impl Display) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

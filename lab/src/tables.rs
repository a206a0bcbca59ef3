//! Printed output: tables on a terminal, plain lines elsewhere.

use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write};

use anyhow::{Context, Result};
use comfy_table::presets::{NOTHING, UTF8_FULL_CONDENSED};
use comfy_table::{CellAlignment, Table};

use super::bench::Measurement;
use super::data::TaskType;
use super::minimize::Path;
use super::parity::Pair;
use super::train::{Epoch, Run};

/// A table with its header; the first column is text, the others are numbers.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(if std::io::stdout().is_terminal() { UTF8_FULL_CONDENSED } else { NOTHING }).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Numbers of a column, to `digits` significant digits or more: all with the same number of decimals, or all in
/// scientific notation if they would be long. No nonzero number becomes zero.
pub fn column(numbers: &[f64], digits: usize) -> Vec<String> {
    const MORE: i32 = 3;
    const LONGEST: i32 = 9;
    let digits = digits.max(1);
    let exponent = |x: f64| {
        let text = format!("{x:.0$e}", digits - 1);
        text.split_once('e').and_then(|(_, exponent)| exponent.parse::<i32>().ok()).unwrap_or(0)
    };
    let numbers_at_all = numbers.iter().copied().filter(|x| x.is_finite() && *x != 0.);
    let (least, most) = numbers_at_all.clone().map(exponent).fold((i32::MAX, 0), |(a, b), e| (a.min(e), b.max(e)));
    let whole = numbers_at_all.clone().all(|x| x.fract() == 0.);
    let decimals = if whole { 0 } else { (digits as i32 - 1).saturating_sub(least).max(0) };
    let fixed = if decimals == 0 { most < LONGEST } else { most + 1 + decimals <= digits as i32 + MORE };
    let width = numbers_at_all.map(|x| exponent(x).to_string().trim_start_matches('-').len()).max().unwrap_or(1);
    let cell = |&x: &f64| {
        if x == 0. {
            "0".into()
        } else if fixed || !x.is_finite() {
            format!("{x:.0$}", decimals as usize)
        } else {
            let text = format!("{x:.0$e}", digits - 1);
            let (mantissa, power) = text.split_once('e').unwrap_or((&text, "0"));
            let (sign, power) = power.strip_prefix('-').map_or(('+', power), |power| ('-', power));
            format!("{mantissa}e{sign}{power:0>width$}")
        }
    };
    numbers.iter().map(cell).collect()
}

/// A column of the `number` of each item, with a unit.
pub fn column_of<T>(items: &[T], digits: usize, unit: &str, number: impl Fn(&T) -> f64) -> Vec<String> {
    let numbers: Vec<f64> = items.iter().map(number).collect();
    column(&numbers, digits).into_iter().map(|cell| cell + unit).collect()
}

/// Adds the rows whose cells are those of `columns`.
pub fn add_columns<const N: usize>(table: &mut Table, columns: [Vec<String>; N]) {
    let mut columns = columns.map(Vec::into_iter);
    loop {
        let row: Vec<String> = columns.iter_mut().filter_map(Iterator::next).collect();
        if row.is_empty() {
            break;
        }
        table.add_row(row);
    }
}

/// Final losses, accuracy or R², and time of each run.
pub fn finals(runs: &[Run], task: TaskType) -> impl Display {
    let measure = if task == TaskType::Regression { "test R²" } else { "test accuracy" };
    let mut table = table(&["optimizer", "train loss", "test loss", measure, "time", "per epoch"]);
    let runs: Vec<(&Run, &Epoch)> = runs.iter().filter_map(|run| Some((run, run.epochs.last()?))).collect();
    let name = |run: &Run| match run.diverged_at() {
        Some(epoch) => format!("{} (diverged at epoch {epoch})", run.optimizer),
        None => run.optimizer.clone(),
    };
    let accuracy = |share: Option<f64>| share.map_or("-".into(), |share| self::accuracy(share, task));
    let micros = |run: &Run| run.time.as_secs_f64() * 1e6;
    let columns = [
        runs.iter().map(|(run, _)| name(run)).collect(),
        column_of(&runs, 5, "", |(_, last)| last.train_loss),
        column_of(&runs, 5, "", |(_, last)| last.test_loss),
        runs.iter().map(|(_, last)| accuracy(last.test_accuracy)).collect(),
        column_of(&runs, 2, " ms", |(run, _)| micros(run) / 1e3),
        column_of(&runs, 3, " µs", |(run, _)| micros(run) / run.epochs.len() as f64),
    ];
    add_columns(&mut table, columns);
    table
}

/// A share of correct predictions in percent, or R².
pub fn accuracy(share: f64, task: TaskType) -> String {
    match task {
        TaskType::Classification => format!("{:.1} %", 100. * share),
        TaskType::Regression => format!("{share:.3}"),
    }
}

/// Time and memory of each optimizer, next to the `plain` pass over as many bytes.
pub fn bench(measurements: &[Measurement], plain: &str) -> impl Display {
    let (plain, share) = (format!("{plain}, GB/s"), format!("of {plain}"));
    let mut table = table(&["optimizer", "step", "GB/s", &plain, &share, "state bytes/parameter"]);
    let columns = [
        measurements.iter().map(|measured| measured.optimizer.clone()).collect(),
        column_of(measurements, 3, " µs", |measured| measured.microseconds),
        column_of(measurements, 2, "", |measured| measured.gigabytes_per_second),
        column_of(measurements, 3, "", |measured| measured.plain_gigabytes_per_second),
        column_of(measurements, 2, " %", |measured| 100. * measured.share_of_plain),
        column_of(measurements, 3, "", |measured| measured.state_bytes_per_parameter),
    ];
    add_columns(&mut table, columns);
    table
}

/// How far twins differ.
pub fn parity(pairs: &[Pair]) -> impl Display {
    let mut table = table(&["optimizer", "against", "train loss", "test loss"]);
    let differences = |pick: fn(&Pair) -> f64| {
        let numbers: Vec<f64> = pairs.iter().map(pick).collect();
        let cells = column(&numbers, 2).into_iter().zip(numbers);
        cells.map(|(cell, x)| if x == 0. { "equal bits".into() } else { cell }).collect()
    };
    let columns = [
        pairs.iter().map(|pair| pair.optimizer.clone()).collect(),
        pairs.iter().map(|pair| pair.against.clone()).collect(),
        differences(|pair| pair.train_loss),
        differences(|pair| pair.test_loss),
    ];
    add_columns(&mut table, columns);
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    table
}

/// The steps of each optimizer: the point for a function of one number, otherwise the value. Some steps, if there are
/// many.
pub fn paths(paths: &[Path]) -> impl Display {
    const ROWS: usize = 20;
    let Some(first) = paths.first() else { return table(&[]) };
    let one_number = first.points[0].0.len() == 1;
    let mut header = vec!["step"];
    header.extend(paths.iter().map(|path| path.optimizer.as_str()));
    let mut table = table(&header);
    let last = first.points.len() - 1;
    let stride = last.div_ceil(ROWS);
    let steps: Vec<usize> = (0..=last).step_by(stride).chain((last % stride != 0).then_some(last)).collect();
    let number = |(x, value): &(Vec<f64>, f64)| if one_number { x[0] } else { *value };
    let columns = paths.iter().map(|path| column_of(&steps, 5, "", |&step| number(&path.points[step])));
    let columns: Vec<Vec<String>> = columns.collect();
    for (row, step) in steps.iter().enumerate() {
        table.add_row([step.to_string()].into_iter().chain(columns.iter().map(|column| column[row].clone())));
    }
    table
}

/// Prints to standard output; a closed pipe is not an error.
pub fn print(text: impl Display) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot print to standard output"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::column;

    #[test]
    fn columns_have_significant_digits_on_one_decimal_point() {
        for (numbers, cells) in [
            (&[0.6944378, 0.0208394545][..], &["0.694438", "0.020839"][..]),
            (&[5., 4.683772, -1.353356], &["5.0000", "4.6838", "-1.3534"]),
            (&[5., 4., 0.], &["5", "4", "0"]),
            (&[1e-9, 2.5e-12], &["1.0000e-09", "2.5000e-12"]),
            (&[0.5, 3e-7], &["5.0000e-1", "3.0000e-7"]),
            (&[1e300, 1.], &["1.0000e+300", "1.0000e+000"]),
            (&[123456.7, 99999.99], &["123457", "100000"]),
            (&[123456.7, 0.25], &["1.2346e+5", "2.5000e-1"]),
            (&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.25], &["NaN", "inf", "-inf", "0.25000"]),
            (&[f64::NAN, 0., -0.], &["NaN", "0", "0"]),
            (&[f64::MAX, 5e-324], &["1.7977e+308", "4.9407e-324"]),
            (&[9.999996, 0.999996], &["10.0000", "1.0000"]),
            (&[], &[]),
        ] {
            assert_eq!(column(numbers, 5), cells, "{numbers:?}");
        }
    }

    #[test]
    fn no_number_is_shown_as_zero_or_at_great_length() {
        for exponent in -320..308 {
            for other in [0., 1., 1e3, 1e-3, 1e9, 1e-9] {
                let x = 1.2345678 * 10f64.powi(exponent);
                for cell in column(&[x, other, -x], 5) {
                    assert!(cell.len() <= 12, "{cell}");
                    assert!(cell == "0" || cell.parse::<f64>().unwrap() != 0., "{x} beside {other}: {cell}");
                }
                let shown: f64 = column(&[x, other], 5)[0].parse().unwrap();
                assert!((shown - x).abs() <= 1e-4 * x || x < 1e-300, "{x} beside {other}: {shown}");
            }
        }
    }
}

//! Losses and accuracies by epoch.

use std::io::Read;

use anyhow::{Context, Result, ensure};

use super::figure::{Axis, Figure, Mark, Optimizer, Panel, Series, Shape};
use crate::data::TaskType;
use crate::plot::thin::{Thinner, thinned};
use crate::train::Epoch;

/// The values of an epoch, in the order of the columns of `losses.csv`.
pub const COLUMNS: [&str; 4] = ["train_loss", "test_loss", "train_accuracy", "test_accuracy"];
/// A line with more points is thinned.
pub const POINTS: usize = 400;

/// The parts of a training; each part retains at most four epochs.
const PARTS: usize = 2000;
/// Losses above this many times the first are not shown.
const MOST_OF_FIRST: f64 = 3.;

/// One training.
#[derive(Clone, Debug, Default)]
pub struct Curve {
    /// The optimizer's spec or label.
    pub optimizer: String,
    /// Epochs with their indices from 0: all, or some of many.
    pub epochs: Vec<(usize, Epoch)>,
    /// The number of epochs before thinning.
    pub count: usize,
    /// The first epoch, from 1, with a loss that is NaN or infinite.
    pub diverged_at: Option<usize>,
}

/// A curve that is being read.
struct Reading {
    optimizer: String,
    epochs: Thinner<Epoch>,
    diverged_at: Option<usize>,
}

impl Reading {
    fn finish(self) -> Curve {
        let Self { optimizer, epochs, diverged_at } = self;
        Curve { optimizer, count: epochs.count(), epochs: epochs.finish(), diverged_at }
    }
}

/// The consecutive trainings of a `losses.csv`, of `epochs` epochs each. Trainings of more than [`PARTS`] epochs are
/// thinned, unless `all` epochs are asked for.
///
/// # Errors
/// Other columns, epochs that are not consecutive, or a cell that is not a number; the message names the line.
pub fn read(file: impl Read, epochs: usize, all: bool) -> Result<Vec<Curve>> {
    let mut reader = csv::Reader::from_reader(file);
    let header = reader.headers()?.clone();
    let column = |name: &str| {
        let at = header.iter().position(|column| column == name);
        at.with_context(|| format!("it has no column '{name}'; allowed: the losses.csv of a training"))
    };
    let (optimizer, epoch) = (column("optimizer")?, column("epoch")?);
    let numbers = COLUMNS.map(column);
    let numbers: Vec<usize> = numbers.into_iter().collect::<Result<_>>()?;
    let parts = if all { usize::MAX } else { PARTS };
    let mut curves: Vec<Reading> = vec![];
    let mut row = csv::StringRecord::new();
    while reader.read_record(&mut row)? {
        let line = row.position().map_or(0, csv::Position::line);
        let number = |at: usize| {
            let text = row.get(at).unwrap_or_default();
            let number = if text.is_empty() { Ok(None) } else { text.parse().map(Some) };
            let said =
                || format!("line {line}, column '{}': '{}' is no number", &header[at], crate::shown::shown(text));
            number.with_context(said)
        };
        let name = row.get(optimizer).unwrap_or_default();
        let at = number(epoch)?.unwrap_or(f64::NAN);
        if at == 1. {
            let losses = |epoch: &Epoch| [epoch.train_loss, epoch.test_loss];
            let epochs = Thinner::new(epochs, parts, losses);
            curves.push(Reading { optimizer: name.into(), epochs, diverged_at: None });
        }
        let last = curves.last_mut().filter(|last| last.optimizer == name && at == last.epochs.count() as f64 + 1.);
        let curve =
            last.with_context(|| format!("line {line}: epoch {at} follows no epoch before it; allowed: from 1 on"))?;
        let [train_loss, test_loss, train_accuracy, test_accuracy] = [0, 1, 2, 3].map(|i| number(numbers[i]));
        let loss = |number: Result<Option<f64>>| number.map(|number| number.unwrap_or(f64::NAN));
        let epoch = Epoch {
            train_loss: loss(train_loss)?,
            test_loss: loss(test_loss)?,
            train_accuracy: train_accuracy?,
            test_accuracy: test_accuracy?,
        };
        if !epoch.is_finite() {
            curve.diverged_at.get_or_insert(curve.epochs.count() + 1);
        }
        curve.epochs.push(epoch);
    }
    ensure!(!curves.is_empty(), "it has no epochs");
    Ok(curves.into_iter().map(Reading::finish).collect())
}

/// The value of an epoch in one of [`COLUMNS`]; NaN if it has none.
pub fn value(epoch: &Epoch, column: usize) -> f64 {
    let Epoch { train_loss, test_loss, train_accuracy, test_accuracy } = *epoch;
    let or_nan = |share: Option<f64>| share.unwrap_or(f64::NAN);
    [train_loss, test_loss, or_nan(train_accuracy), or_nan(test_accuracy)][column]
}

/// The figure of the four columns; `series` gives the lines of each column.
pub fn figure(task: TaskType, optimizers: &[Optimizer], note: String, series: impl Fn(usize) -> Vec<Series>) -> Figure {
    let accuracy = match task {
        TaskType::Classification => "Accuracy",
        TaskType::Regression => "R²",
    };
    let of = |rows: &str| format!("{rows} {}", if task == TaskType::Classification { "accuracy" } else { accuracy });
    let titles = ["Training loss".into(), "Test loss".into(), of("Training"), of("Test")];
    let panel = |(column, title): (usize, String)| {
        let series = series(column);
        let numbers = series.iter().flat_map(|series| &series.points).map(|[_, y]| *y);
        // A run that explodes would flatten the others.
        let first = series.iter().filter_map(|series| series.points.first()).map(|[_, y]| *y).fold(0., f64::max);
        let y = match column {
            0 | 1 => Axis::linear("Loss").up_to(MOST_OF_FIRST * first, numbers),
            _ => Axis::linear(accuracy),
        };
        Panel { title, x: Axis::linear("Epoch"), y, series, ..Panel::default() }.described(optimizers)
    };
    let panels: Vec<Panel> = titles.into_iter().enumerate().map(panel).collect();
    // A function has no accuracy, and so no panel of it.
    let panels =
        panels.into_iter().filter(|panel| panel.series.iter().any(|series| has_numbers(&series.points))).collect();
    Figure {
        id: "curves".into(),
        title: "Learning curves".into(),
        note,
        panels,
        picture: Some(super::COMPARISON.into()),
        ..Figure::default()
    }
}

fn has_numbers(points: &[[f64; 2]]) -> bool {
    points.iter().any(|[_, y]| y.is_finite())
}

/// A column of a training, with a mark where it diverged.
pub fn series(optimizer: usize, curve: &Curve, column: usize, points: usize) -> Series {
    let values = || curve.epochs.iter().map(|(_, epoch)| value(epoch, column));
    let finite = values().take_while(|x| x.is_finite()).count();
    let point = |i: usize| {
        let (at, epoch) = &curve.epochs[i];
        [(at + 1) as f64, value(epoch, column)]
    };
    let diverged = curve.diverged_at.filter(|_| column < 2);
    let mark = |(last, epoch): (usize, usize)| Mark {
        at: point(last),
        text: format!("diverged at epoch {epoch}"),
        cross: true,
    };
    let marks = finite.checked_sub(1).zip(diverged).map(mark).into_iter().collect();
    let points = thinned(finite, points, |i| point(i)[1]).into_iter().map(point).collect();
    Series { optimizer, points, marks, ..Series::default() }
}

/// The same column of another run, drawn beside ours.
pub fn overlaid(series: Series) -> Series {
    Series { name: "overlay".into(), shape: Shape::Thin, marks: vec![], ..series }
}

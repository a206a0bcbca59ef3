//! The section of a training.

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::curves::{self, Curve};
use super::figure::{Figure, Section, Table, short};
use super::overlay::Overlay;
use super::{Files, facts, look, networks};
use crate::data::TaskType;
use crate::tables;

/// The parts of the summary that are read.
#[derive(Deserialize)]
struct Summary {
    configuration: Value,
    optimizers: Vec<Trained>,
    versions: Value,
    parity: Vec<Pair>,
    // Earlier versions lacked these two fields.
    #[serde(default)]
    command: String,
    #[serde(default)]
    title: String,
}

#[derive(Deserialize)]
struct Trained {
    optimizer: String,
    seconds: f64,
    note: Option<String>,
}

#[derive(Deserialize)]
struct Pair {
    optimizer: String,
    against: String,
    train_loss: Option<f64>,
    test_loss: Option<f64>,
}

/// The section of a training, with at most `points` points per line.
///
/// # Errors
/// Files that the program did not write.
pub fn section(summary: &Value, files: &Files, overlay: Option<&Overlay>, points: usize) -> Result<Section> {
    let summary = Summary::deserialize(summary).context("summary.json is not of this program's version")?;
    let epochs = summary.configuration["epochs"].as_u64().unwrap_or(0) as usize;
    // The difference from an overlay needs all epochs.
    let all = files.read("losses.csv", |file| curves::read(file, epochs, overlay.is_some()))?;
    let names: Vec<&str> = all.iter().map(|curve| curve.optimizer.as_str()).collect();
    let optimizers = look::of_specs(&names);
    let regression = summary.configuration.pointer("/data/task_type").is_some_and(|task| task == "regression");
    let task = if regression { TaskType::Regression } else { TaskType::Classification };

    let mut note =
        "One training of each optimizer, on one seed. The training loss is that before each update, the test \
                    loss that after it."
            .to_owned();
    if let Some(overlay) = overlay {
        note += &format!(" Thin lines are of {}. {}", overlay.name, overlay.distance(&all)?);
    }
    let series = |column: usize| {
        let own = all.iter().enumerate().map(|(at, curve)| curves::series(at, curve, column, points));
        let others = overlay.into_iter().flat_map(|overlay| overlay.matched(&all));
        let others = others.map(|(at, curve)| curves::overlaid(curves::series(at, curve, column, points)));
        own.chain(others).collect()
    };
    let mut figures = vec![curves::figure(task, &optimizers, note, series)];
    let recorded = networks::recorded(files)?;
    figures
        .extend(recorded.first().into_iter().flat_map(|problem| networks::figures(problem, &names, &optimizers, "")));
    let notes = summary.optimizers.iter().filter_map(|trained| {
        Some(format!("{}: {}.", crate::shown::shown(&trained.optimizer), trained.note.as_ref()?))
    });
    Ok(Section {
        id: "train".into(),
        title: summary.title,
        answer: [answer(&all, &optimizers, task)].into_iter().chain(notes).collect(),
        commands: vec![("This run".into(), summary.command)],
        results: results(&all, &optimizers, &summary.optimizers, task),
        tables: parity(&summary.parity).into_iter().collect(),
        facts: facts(&summary.configuration, &summary.versions),
        figures: figures.into_iter().filter(|figure: &Figure| !figure.panels.is_empty()).collect(),
        optimizers,
    })
}

/// The optimizer with the lowest test loss, and the limits of that statement.
fn answer(all: &[Curve], optimizers: &[super::figure::Optimizer], task: TaskType) -> String {
    let last = |curve: &Curve| curve.epochs.last().map_or(f64::INFINITY, |(_, epoch)| epoch.test_loss);
    let finite = all.iter().zip(optimizers).filter(|(curve, _)| last(curve).is_finite());
    let Some((curve, best)) = finite.min_by(|(a, _), (b, _)| last(a).total_cmp(&last(b))) else {
        return "Every training diverged.".into();
    };
    let epochs = curve.count;
    let accuracy = curve.epochs.last().and_then(|(_, epoch)| epoch.test_accuracy);
    let accuracy = match (accuracy, task) {
        (Some(share), TaskType::Classification) => {
            format!("; {} of the test rows are predicted correctly", tables::accuracy(share, task))
        }
        (Some(share), TaskType::Regression) => format!("; R² on the test rows is {}", tables::accuracy(share, task)),
        (None, _) => String::new(),
    };
    format!(
        "{} has the lowest test loss after {epochs} {}: {}{accuracy}. This is one seed with the learning rates as given; \
         candle-optim sweep compares optimizers that are all tuned, on several seeds.",
        best.name,
        if epochs == 1 { "epoch" } else { "epochs" },
        short(last(curve)),
    )
}

fn results(all: &[Curve], optimizers: &[super::figure::Optimizer], trained: &[Trained], task: TaskType) -> Table {
    let accuracy = if task == TaskType::Regression { "Test R²" } else { "Test accuracy" };
    let header = ["Optimizer", "Training loss", "Test loss", accuracy, "Time"].map(Into::into).into();
    let row = |((curve, optimizer), trained): ((&Curve, &super::figure::Optimizer), &Trained)| {
        let (_, last) = curve.epochs.last()?;
        let diverged = curve.diverged_at.map_or(String::new(), |epoch| format!(" (diverged at epoch {epoch})"));
        let share = last.test_accuracy.map_or("none".into(), |share| tables::accuracy(share, task));
        let time = format!("{:.3} ms", 1e3 * trained.seconds);
        Some(vec![optimizer.name.clone() + &diverged, short(last.train_loss), short(last.test_loss), share, time])
    };
    Table { header, rows: all.iter().zip(optimizers).zip(trained).filter_map(row).collect() }
}

/// The largest differences from other implementations; nothing if there are none.
fn parity(pairs: &[Pair]) -> Option<(String, Table)> {
    let cell = |x: Option<f64>| x.map_or("infinite".into(), |x| if x == 0. { "equal bits".into() } else { short(x) });
    let row = |pair: &Pair| {
        let names = [&pair.optimizer, &pair.against].map(|name| crate::shown::shown(name));
        names.into_iter().chain([cell(pair.train_loss), cell(pair.test_loss)]).collect()
    };
    let header = ["Optimizer", "Against", "Training loss", "Test loss"].map(Into::into).into();
    let table = Table { header, rows: pairs.iter().map(row).collect() };
    (!pairs.is_empty()).then(|| ("Largest differences over all epochs".into(), table))
}

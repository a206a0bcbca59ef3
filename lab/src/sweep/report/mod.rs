//! The report of a comparison: a section for each problem, and one for all of them.

mod bands;
mod figures;
mod over_problems;

use anyhow::{Context, Result, ensure};

use super::answer::TRAIN_WITH;
use super::experiment::Experiment;
use super::files::{ANSWER, EXPERIMENT, SUMMARY_KEY, Times, read_times};
use super::runs::{Phase, Run, Runs};
use super::statistics::{self, Problem, statistics};
use crate::data::TaskType;
use crate::details;
use crate::output::SUMMARY;
use crate::plot::looks;
use crate::report::figure::{Optimizer, Section, Table, short};
use crate::report::{Files, facts, look, networks};
use crate::shown::shown;
use crate::tables;
use bands::{BandsOfProblem, bands};
use over_problems::over_problems;

/// Whether a summary is that of a comparison.
pub fn is_comparison(summary: &serde_json::Value) -> bool {
    summary.get(SUMMARY_KEY).is_some()
}

/// The sections of a comparison with this summary, with at most `points` points per line.
///
/// # Errors
/// Files that the program did not write.
pub fn sections(summary: &serde_json::Value, files: &Files, points: usize) -> Result<Vec<Section>> {
    let experiment = Experiment::open(&files.path(EXPERIMENT))?;
    let runs = files.read("runs.csv", |file| Runs::read(file))?;
    let times = files.read("timings.csv", |file| {
        let (times, rows) = read_times(file)?;
        ensure!(rows == runs.rows.len(), "it has {rows} rows, and there are {} runs", runs.rows.len());
        Ok(times)
    })?;
    let statistics = statistics(&runs, experiment.tuning.score, experiment.seed);
    // The other numbers are read from text, so ours must be too.
    let ours: serde_json::Value = serde_json::from_str(&serde_json::to_string(&statistics)?)?;
    ensure!(summary["statistics"] == ours, "'runs.csv' is not the one that {SUMMARY} is of");
    let answer = files.text(ANSWER)?;
    let epochs = experiment.training.epochs;
    let confirmed = runs.rows.iter().filter(|run| run.phase == Phase::Confirm);
    let rows = confirmed.map(|run| run.outcome.diverged_at.unwrap_or(epochs)).sum();
    let bands = files.read("losses.csv", |file| bands(file, rows, epochs, points))?;
    let details = networks::recorded(files)?;
    let facts = facts(&summary[SUMMARY_KEY], &summary["versions"]);

    let labels: Vec<&str> = experiment.optimizer.iter().map(|optimizer| optimizer.label.as_str()).collect();
    let optimizers = look::optimizers(labels.iter().copied(), &looks(labels.iter().map(|_| false)));
    let mut paragraphs = answer.trim_end().split("\n\n").map(|text| shortened(text, &labels, &optimizers));
    let several = statistics.problems.0.len() > 1;
    let mut sections = vec![];
    for (at, (label, found)) in statistics.problems.0.iter().enumerate() {
        let problem = experiment.problem.get(at).context("an experiment of other problems")?;
        let of_problem = OfProblem {
            experiment: &experiment,
            label,
            found,
            rows: runs.rows.iter().filter(|run| run.problem == *label).collect(),
            keys: &runs.keys,
            times: &times,
            bands: bands.get(label.as_str()),
            labels: &labels,
            optimizers: &optimizers,
            is_function: problem.function().is_some(),
            task: problem.task_type()?,
        };
        let prefix = if several { format!("{}-", at + 1) } else { String::new() };
        let section = of_problem.section(&paragraphs.next().unwrap_or_default(), details.get(at), &prefix);
        let facts = if several { vec![] } else { facts.clone() };
        sections.push(Section { id: format!("problem-{}", at + 1), facts, ..section });
    }
    if let Some(all) = over_problems(&statistics, &labels, &optimizers, paragraphs.next()) {
        sections.insert(0, Section { facts, ..all });
    }
    Ok(sections)
}

/// Replaces long labels in a text by their short names in the legend.
fn shortened(text: &str, labels: &[&str], optimizers: &[Optimizer]) -> String {
    let mut long: Vec<(&&str, &Optimizer)> =
        labels.iter().zip(optimizers).filter(|(label, optimizer)| **label != optimizer.name).collect();
    // Long labels first: a label may begin with another.
    long.sort_by_key(|(label, _)| std::cmp::Reverse(label.len()));
    long.iter().fold(text.to_owned(), |text, (label, optimizer)| text.replace(**label, &optimizer.name))
}

/// What the section of a problem shows.
struct OfProblem<'a> {
    experiment: &'a Experiment,
    label: &'a str,
    found: &'a Problem,
    /// Its runs, and the keys of their settings.
    rows: Vec<&'a Run>,
    keys: &'a [String],
    times: &'a Times,
    bands: Option<&'a BandsOfProblem>,
    labels: &'a [&'a str],
    optimizers: &'a [Optimizer],
    is_function: bool,
    task: TaskType,
}

impl OfProblem<'_> {
    /// The section with this answer, without an ID and facts. The names of its pictures begin with `prefix`.
    fn section(&self, answer: &str, recorded: Option<&details::Problem>, prefix: &str) -> Section {
        let mut networks =
            recorded.map_or_else(Vec::new, |details| networks::figures(details, self.labels, self.optimizers, prefix));
        for figure in &mut networks {
            figure.note += " Shown is the training on the first of the fresh seeds.";
        }
        let best = answer.lines().find_map(|line| line.strip_prefix(TRAIN_WITH));
        let again = format!("candle-optim run {EXPERIMENT} --out DIR");
        let commands = [("This comparison, in its folder".into(), again)].into_iter();
        Section {
            id: String::new(),
            title: format!("Optimizers on {}", shown(self.label)),
            answer: answer.lines().filter(|line| !line.starts_with(TRAIN_WITH)).map(Into::into).collect(),
            commands: commands.chain(best.map(|best| ("The best setting".into(), best.into()))).collect(),
            optimizers: self.optimizers.to_vec(),
            results: self.results(),
            tables: vec![],
            figures: self.figures(prefix).into_iter().chain(networks).collect(),
            facts: vec![],
        }
    }

    /// Each optimizer of the experiment with its index.
    fn each(&self) -> impl Iterator<Item = (usize, &statistics::Optimizer)> {
        let of = |(at, label): (usize, &&str)| Some((at, self.found.optimizers.get(*label)?));
        self.labels.iter().enumerate().filter_map(of)
    }

    /// The name of a test loss.
    fn loss(&self) -> &'static str {
        if self.is_function { "Value" } else { "Test loss" }
    }

    fn results(&self) -> Table {
        let accuracy = if self.task == TaskType::Regression { "R²" } else { "Accuracy" };
        let header =
            ["Optimizer", self.loss(), "Quartiles", accuracy, "Failed", "Epochs to target", "Difference", "Wins"];
        let mut all: Vec<(usize, &statistics::Confirmed)> =
            self.each().filter_map(|(at, found)| Some((at, found.confirmed.as_ref()?))).collect();
        all.sort_by(|a, b| a.1.test_loss_quartiles[1].total_cmp(&b.1.test_loss_quartiles[1]));
        let row = |(at, confirmed): (usize, &statistics::Confirmed)| {
            let [low, middle, high] = confirmed.test_loss_quartiles;
            let share =
                confirmed.test_accuracy_quartiles.map_or("none".into(), |share| tables::accuracy(share[1], self.task));
            let epochs = confirmed.epochs_to_target_quartiles[1];
            let epochs = if epochs.is_finite() { short(epochs) } else { "never".into() };
            let difference = self.found.differences.get(self.labels[at]);
            let (median, wins) = difference.map_or(("best".into(), String::new()), |difference| {
                let wins = difference.seeds - difference.best_wins - difference.equal;
                (short(difference.median), format!("{wins} of {}", difference.seeds))
            });
            let range = format!("{} to {}", short(low), short(high));
            let failed = format!("{:.0} %", 100. * confirmed.failed);
            vec![self.optimizers[at].name.clone(), short(middle), range, share, failed, epochs, median, wins]
        };
        Table { header: header.map(Into::into).into(), rows: all.into_iter().map(row).collect() }
    }
}

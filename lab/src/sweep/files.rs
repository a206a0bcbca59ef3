//! The files of a complete comparison: the same bytes on every machine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answer;
use super::journal::{Journals, Record};
use super::picture::Comparison;
use super::plan::Key;
use super::runs::{Phase, Run, Runs};
use super::statistics::{Statistics, statistics};
use super::{Experiment, Sweep};
use crate::details::{self, DETAILS};
use crate::folder::{Contents, Folder, Staged, csv_writer};
use crate::interruption::Interruption;
use crate::output::{self, SUMMARY};
use crate::plot::Picture;
use crate::report::{Files, REPORT};
use crate::train::Epoch;
use crate::{summary, tensorboard};

/// The experiment, with all defaults.
pub const EXPERIMENT: &str = "experiment.toml";
/// The answer in words.
pub const ANSWER: &str = "answer.txt";
/// All files, in the order in which they are renamed: the summary is last.
pub const ALL: [&str; 8] =
    [EXPERIMENT, "runs.csv", "losses.csv", "timings.csv", ANSWER, "comparison.png", "comparison.svg", SUMMARY];

/// The key that only a comparison's summary has.
pub const SUMMARY_KEY: &str = "experiment";

const LOSSES: [&str; 9] =
    ["problem", "optimizer", "trial", "seed", "epoch", "train_loss", "test_loss", "train_accuracy", "test_accuracy"];
const TIMINGS: [&str; 7] = ["problem", "optimizer", "phase", "trial", "seed", "seconds", "seconds_per_epoch"];

/// Seconds of each confirmation run, by problem and optimizer.
pub type Times = BTreeMap<(String, String), Vec<f64>>;

/// The runs of a complete folder, and their times.
///
/// # Errors
/// Missing or changed files.
pub fn read(folder: &Path) -> Result<(Runs, Times)> {
    let open = |name: &str| {
        let path = folder.join(name);
        File::open(&path).with_context(|| format!("cannot read '{}'", path.display()))
    };
    let runs = Runs::read(BufReader::new(open("runs.csv")?)).context("runs.csv")?;
    Ok((runs, read_times(open("timings.csv")?).context("timings.csv")?.0))
}

/// A row of `losses.csv`.
#[derive(Deserialize)]
pub struct LossRow {
    /// The problem's label.
    pub problem: String,
    /// The optimizer's label.
    pub optimizer: String,
    trial: usize,
    seed: u32,
    /// From 1.
    pub epoch: usize,
    train_loss: f64,
    test_loss: f64,
    train_accuracy: Option<f64>,
    test_accuracy: Option<f64>,
}

impl LossRow {
    /// The last four columns.
    pub fn losses(&self) -> Epoch {
        let &Self { train_loss, test_loss, train_accuracy, test_accuracy, .. } = self;
        Epoch { train_loss, test_loss, train_accuracy, test_accuracy }
    }
}

/// The times of a `timings.csv`, and its number of rows.
///
/// # Errors
/// A malformed file.
pub fn read_times(file: impl Read) -> Result<(Times, usize)> {
    let (mut times, mut rows) = (Times::new(), 0);
    for row in csv::Reader::from_reader(file).into_deserialize() {
        let (problem, optimizer, phase, _, _, seconds, _): (String, String, Phase, usize, u32, f64, f64) = row?;
        rows += 1;
        if phase == Phase::Confirm {
            times.entry((problem, optimizer)).or_default().push(seconds);
        }
    }
    Ok((times, rows))
}

impl Sweep {
    /// The table of these runs, all of which are finished.
    pub fn runs(&self, keys: &[Key], records: &std::collections::HashMap<Key, Record>) -> Runs {
        let names = self.experiment.keys();
        let row = |key: &Key| {
            let (problem, optimizer) = self.names(key);
            let setting = self.plan.setting(*key);
            Some(Run {
                problem,
                optimizer,
                phase: key.phase,
                trial: key.trial,
                seed: self.plan.seed(*key),
                searched: names.iter().map(|name| setting.value(name).map(str::to_owned)).collect(),
                outcome: records.get(key)?.outcome.clone(),
            })
        };
        let rows = self.in_order(keys).iter().filter_map(row).collect();
        Runs { keys: names, rows }
    }

    /// The names of the problem and the optimizer of a run.
    fn names(&self, key: &Key) -> (String, String) {
        let problem = self.problems[key.problem].problem.label().to_owned();
        (problem, self.experiment.optimizer[key.optimizer].label.clone())
    }

    /// Runs in the order of the files: problems and optimizers as in the experiment, tuning first, then by setting and
    /// seed.
    fn in_order(&self, keys: &[Key]) -> Vec<Key> {
        let mut keys = keys.to_vec();
        keys.sort_by_key(|key| (key.problem, key.optimizer, key.phase, key.trial, self.plan.seed(*key)));
        keys
    }

    /// The statistics of runs.
    pub fn statistics(&self, runs: &Runs) -> Statistics {
        statistics(runs, self.experiment.tuning.score, self.experiment.seed)
    }

    /// The summary's text.
    pub fn summary(&self, statistics: &Statistics) -> Result<String> {
        // In this order, which a map of serde_json does not preserve.
        #[derive(Serialize)]
        struct Summary<'a> {
            experiment: &'a Experiment,
            statistics: &'a Statistics,
            versions: Value,
        }
        let summary = Summary { experiment: &self.experiment, statistics, versions: summary::versions() };
        Ok(serde_json::to_string_pretty(&summary)? + "\n")
    }

    /// Whether a folder has all files of this comparison.
    pub fn is_complete_in(&self, folder: &Path) -> bool {
        #[derive(Deserialize)]
        struct Known {
            experiment: Value,
            versions: Value,
        }
        let known = || -> Option<bool> {
            let known: Known = serde_json::from_slice(&fs::read(folder.join(SUMMARY)).ok()?).ok()?;
            // The other numbers are read from text, so ours must be too.
            let ours: Value = serde_json::from_str(&serde_json::to_string(&self.experiment).ok()?).ok()?;
            Some(known.experiment == ours && known.versions == summary::versions())
        };
        known() == Some(true) && ALL.iter().all(|name| folder.join(name).is_file())
    }

    /// Writes all files, unless another program has already done so.
    ///
    /// # Errors
    /// An error of the system, or a changed journal. The journals then still exist.
    pub fn write(
        &self,
        folder: &Folder,
        interruption: &Interruption,
        journals: &Journals,
        runs: &Runs,
        statistics: &Statistics,
        keys: &[Key],
    ) -> Result<()> {
        let answer = answer::words(self, runs, statistics);
        let keys = self.in_order(keys);
        let losses = |out: &mut dyn Write| -> Result<()> {
            let mut losses = csv_writer(out);
            losses.write_record(LOSSES)?;
            for key in keys.iter().filter(|key| key.phase == Phase::Confirm) {
                for (i, epoch) in journals.epochs(*key)?.iter().enumerate() {
                    losses.serialize((self.names(key), key.trial, self.plan.seed(*key), i + 1, epoch))?;
                }
            }
            Ok(losses.flush()?)
        };
        let timings = |out: &mut dyn Write| -> Result<()> {
            let mut timings = csv_writer(out);
            timings.write_record(TIMINGS)?;
            for (key, record) in keys.iter().filter_map(|key| Some((key, journals.records.get(key)?))) {
                let epochs = record.outcome.diverged_at.unwrap_or(self.experiment.training.epochs);
                let seconds = (record.seconds, record.seconds / epochs as f64);
                timings.serialize((self.names(key), key.phase, key.trial, self.plan.seed(*key), seconds))?;
            }
            Ok(timings.flush()?)
        };
        let text = |text: String| move |out: &mut dyn Write| Ok(out.write_all(text.as_bytes())?);
        let picture = Comparison::new(self, runs, statistics);
        let (png, svg) = (picture.png()?, picture.svg()?);
        let files: [(&str, &Contents); 7] = [
            ("runs.csv", &|out| runs.write(out)),
            ("losses.csv", &losses),
            ("timings.csv", &timings),
            (ANSWER, &text(answer)),
            ("comparison.png", &|out| Ok(out.write_all(&png)?)),
            ("comparison.svg", &text(svg)),
            (SUMMARY, &text(self.summary(statistics)?)),
        ];
        let _lock = folder.lock(interruption)?;
        let staged: Result<Vec<_>> = files.iter().map(|(name, contents)| folder.stage(name, contents)).collect();
        if self.is_complete_in(folder.path()) {
            // Another program has finished first, and has removed the journals.
            return Ok(());
        }
        staged?.into_iter().try_for_each(|(staged, _)| staged.persist())
    }

    /// The confirmation runs of a complete folder, for TensorBoard.
    ///
    /// # Errors
    /// Missing or changed files.
    pub fn event_runs(&self, folder: &Folder) -> Result<Vec<tensorboard::Run>> {
        let path = folder.path().join("losses.csv");
        let shown = || format!("cannot read '{}'", path.display());
        let file = File::open(&path).with_context(shown)?;
        let mut runs: Vec<tensorboard::Run> = vec![];
        for row in csv::Reader::from_reader(BufReader::new(file)).into_deserialize() {
            let row: LossRow = row.with_context(shown)?;
            if row.epoch == 1 {
                let at = self.experiment.optimizer.iter().position(|optimizer| optimizer.label == row.optimizer);
                let setting = at.and_then(|at| self.plan.settings[at].all.get(row.trial)).with_context(shown)?;
                let name = format!("{}-{}-{}", row.problem, row.optimizer, row.seed);
                runs.push(tensorboard::Run { name, spec: setting.spec.clone(), seed: row.seed, epochs: vec![] });
            }
            runs.last_mut().with_context(shown)?.epochs.push(row.losses());
        }
        Ok(runs)
    }

    /// Draws a complete folder, unless it has a report.
    ///
    /// # Errors
    /// Changed files, or an error of the system.
    pub fn draw(&self, folder: &Folder, statistics: &Statistics) -> Result<()> {
        if !folder.path().join(DETAILS).is_file() {
            let details = details::write(&self.recorded(statistics)?)?;
            folder.stage(DETAILS, &|out| Ok(out.write_all(&details)?))?.0.persist()?;
        }
        if folder.path().join(REPORT).is_file() {
            return Ok(());
        }
        let path = |name: &str| folder.path().join(name);
        let staged = output::stage_drawings(folder, &Files::new(&path), None)?;
        staged.into_iter().try_for_each(Staged::persist)
    }
}

//! The comparison of optimizers: all are tuned with the same budget on the same seeds, and the best setting of each is
//! confirmed on seeds that tuning never saw.
//!
//! | module | what |
//! |---|---|
//! | `experiment` | what is compared: a file in TOML |
//! | `problem` | what is trained |
//! | `loaded` | its rows, and what a seed trains |
//! | `space` | the settings that are tried |
//! | `seeds` | the seeds of all runs |
//! | `plan` | the runs |
//! | `training` | one run |
//! | `work` | the runs that are missing, a training per core |
//! | `journal` | the runs that are over |
//! | `runs` | their table |
//! | `statistics` | what follows from it |
//! | `files` | the files of a comparison that is complete |
//! | `answer` | the result in words |
//! | `command` | the command that trains what was found |
//! | `rates` | what was tried at each learning rate |
//! | `picture` | the result to look at |
//! | `record` | trainings that are drawn |
//! | `report` | the page |
//! | `task` | a share of the work, of one machine of many |
//! | `commands` | `sweep`, `run` and `merge` |

mod answer;
mod args;
mod command;
mod commands;
mod experiment;
mod files;
mod forecast;
mod journal;
mod loaded;
mod picture;
mod plan;
mod problem;
mod rates;
mod record;
mod report;
pub mod runs;
pub mod seeds;
mod space;
pub mod statistics;
mod task;
mod training;
mod work;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::optimizer::{Stepper, Storage};
use crate::shown::shown;
pub use args::{MergeArgs, RANGES, RunArgs, SweepArgs};
pub use commands::{merge, run, sweep};
use experiment::Experiment;
pub use files::EXPERIMENT;
use loaded::{Loaded, Subject};
use plan::Plan;
pub use report::{is_comparison, sections};
use statistics::Statistics;

/// A comparison, all of whose input is checked.
pub struct Sweep {
    experiment: Experiment,
    problems: Vec<Loaded>,
    plan: Plan,
}

impl Sweep {
    /// The comparison of an experiment. The files of its problems are among those `given`, or in `folder`.
    ///
    /// # Errors
    /// A missing or malformed file, a search that is not possible, or an optimizer that cannot train a problem.
    pub fn new(mut experiment: Experiment, given: &[PathBuf], folder: &Path) -> Result<Self> {
        let problems =
            experiment.problem.iter_mut().map(|problem| Loaded::new(problem, given, folder)).collect::<Result<_>>()?;
        let plan = Plan::new(&experiment)?;
        let this = Self { experiment, problems, plan };
        this.check_memory(1)?;
        for (index, problem) in this.problems.iter().enumerate() {
            let seed = this.plan.seeds.tune[0];
            let in_problem = || format!("problem '{}'", shown(problem.problem.label()));
            this.subject(index, seed).with_context(in_problem)?;
            let vars = problem.vars()?;
            for setting in this.plan.settings.iter().flat_map(|settings| &settings.all) {
                let stepper = Stepper::new(&setting.spec, vars.clone(), Storage::default());
                stepper.with_context(|| format!("optimizer '{}'", setting.spec.text()))?;
            }
        }
        Ok(this)
    }

    /// Checks that there is enough memory for this many simultaneous trainings.
    ///
    /// # Errors
    /// There is not enough memory.
    fn check_memory(&self, workers: usize) -> Result<()> {
        self.problems.iter().try_for_each(|problem| problem.needs(&self.experiment, workers)?.check())
    }

    /// The best setting of each optimizer on each problem, in the order of [`Plan::pairs`].
    fn winners(&self, statistics: &Statistics) -> Vec<Option<usize>> {
        let winner = |(problem, optimizer): (usize, usize)| {
            let problem = statistics.problems.get(self.problems[problem].problem.label())?;
            problem.optimizers.get(&self.experiment.optimizer[optimizer].label)?.winner
        };
        self.plan.pairs().map(winner).collect()
    }

    /// Which optimizer moves which variables of a problem, unless one optimizer moves all.
    fn notes(&self, problem: &Loaded) -> Vec<String> {
        let Ok(vars) = problem.vars() else { return vec![] };
        let note = |optimizer: &experiment::Optimizer| {
            Some(format!("{}.", Stepper::new(&optimizer.spec, vars.clone(), Storage::default()).ok()?.note()?))
        };
        self.experiment.optimizer.iter().filter_map(note).collect()
    }

    /// The subject of a seed.
    ///
    /// # Errors
    /// See [`Loaded::subject`].
    fn subject(&self, problem: usize, seed: u32) -> Result<Subject> {
        self.problems[problem].subject(&self.experiment.split, self.experiment.seed, seed)
    }
}

/// The SHA-256 of some bytes, in hexadecimal digits.
fn sha256(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

//! The runs of an experiment, in the order of its files.

use std::fmt;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::experiment::Experiment;
use super::runs::Phase;
use super::seeds::Seeds;
use super::space::{Setting, Settings};

/// The key of a run: indices in the experiment, from 0.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Key {
    /// The purpose of the run.
    pub phase: Phase,
    /// The index of the problem.
    pub problem: usize,
    /// The index of the optimizer.
    pub optimizer: usize,
    /// The index of the setting.
    pub trial: usize,
    /// The index of the seed among those of the phase.
    pub seed: usize,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let &Self { phase, problem, optimizer, trial, seed } = self;
        let phase = phase.as_str();
        write!(
            f,
            "the run '{phase}' of problem {problem}, optimizer {optimizer}, setting {trial} and seed {seed}, from 0,"
        )
    }
}

/// The runs of an experiment.
pub struct Plan {
    /// The settings of each optimizer.
    pub settings: Vec<Settings>,
    /// The seeds of all runs.
    pub seeds: Seeds,
    problems: usize,
}

impl Plan {
    /// The plan of an experiment.
    ///
    /// # Errors
    /// An optimizer whose search is not possible.
    pub fn new(experiment: &Experiment) -> Result<Self> {
        let tuning = &experiment.tuning;
        let seeds = Seeds::new(experiment.seed, tuning.seeds, tuning.confirm_seeds);
        Ok(Self { settings: experiment.settings()?, seeds, problems: experiment.problem.len() })
    }

    /// All tuning runs.
    pub fn tuning(&self) -> Vec<Key> {
        let phase = Phase::Tune;
        let mut keys = vec![];
        for (problem, optimizer) in self.pairs() {
            for trial in 0..self.settings[optimizer].all.len() {
                keys.extend((0..self.seeds.tune.len()).map(|seed| Key { phase, problem, optimizer, trial, seed }));
            }
        }
        keys
    }

    /// All confirmation runs of these settings, one or none for each of [`Plan::pairs`].
    pub fn confirmation(&self, winners: &[Option<usize>]) -> Vec<Key> {
        let phase = Phase::Confirm;
        let mut keys = vec![];
        for ((problem, optimizer), winner) in self.pairs().zip(winners) {
            let seeds = winner.iter().flat_map(|&trial| (0..self.seeds.confirm.len()).map(move |seed| (trial, seed)));
            keys.extend(seeds.map(|(trial, seed)| Key { phase, problem, optimizer, trial, seed }));
        }
        keys
    }

    /// Each combination of a problem and an optimizer.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let optimizers = self.settings.len();
        (0..self.problems).flat_map(move |problem| (0..optimizers).map(move |optimizer| (problem, optimizer)))
    }

    /// The seed of a run.
    pub fn seed(&self, key: Key) -> u32 {
        match key.phase {
            Phase::Tune => self.seeds.tune[key.seed],
            Phase::Confirm => self.seeds.confirm[key.seed],
        }
    }

    /// The setting of a run.
    pub fn setting(&self, key: Key) -> &Setting {
        &self.settings[key.optimizer].all[key.trial]
    }

    /// Whether this run is possible in the plan.
    pub fn has(&self, key: Key) -> bool {
        let seeds = match key.phase {
            Phase::Tune => self.seeds.tune.len(),
            Phase::Confirm => self.seeds.confirm.len(),
        };
        let settings = self.settings.get(key.optimizer).map_or(0, |settings| settings.all.len());
        key.problem < self.problems && key.trial < settings && key.seed < seeds
    }
}

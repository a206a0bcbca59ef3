//! Networks that the report draws: the best setting of each optimizer, trained again on the first of the fresh seeds.

use anyhow::Result;
use rayon::prelude::*;

use super::Sweep;
use super::statistics::Statistics;
use crate::details::{Problem, Recorder, Recording};
use crate::train::train;

/// The most optimizers of a problem, and the most problems: a page could not show more.
const OPTIMIZERS: usize = 12;
const PROBLEMS: usize = 6;

impl Sweep {
    /// Trains the drawn networks again. A function has no network.
    ///
    /// # Errors
    /// An error of Candle.
    pub fn recorded(&self, statistics: &Statistics) -> Result<Vec<Problem>> {
        let problems = self.problems.len().min(PROBLEMS);
        let all = self.problems.iter().take(PROBLEMS).zip(&statistics.problems.0);
        let of = |(problem, (_, found)): (&super::Loaded, &(String, super::statistics::Problem))| {
            let seed = self.plan.seeds.confirm[0];
            let Some(dataset) = problem.dataset(&self.experiment.split, self.experiment.seed, seed)? else {
                return Ok(Problem::default());
            };
            let settings = problem.settings(&self.experiment, self.experiment.training.epochs, seed)?;
            let winner = |(at, (_, optimizer)): (usize, &(String, super::statistics::Optimizer))| {
                let loss = optimizer.confirmed.as_ref()?.test_loss_quartiles[1];
                Some((loss, at, &self.plan.settings[at].all[optimizer.winner?].spec))
            };
            let mut winners: Vec<_> = found.optimizers.0.iter().enumerate().filter_map(winner).collect();
            winners.sort_by(|a, b| a.0.total_cmp(&b.0));
            winners.truncate(OPTIMIZERS);
            winners.sort_by_key(|(_, at, _)| *at);
            let recording = Recording::new(&dataset, &settings, winners.len() * problems)?;
            let record = |&(_, at, spec): &(f64, usize, &candle_optim::Spec)| {
                let mut recorder = recording.recorder(&self.experiment.optimizer[at].label);
                let run = train(&dataset, spec, &settings, &mut recorder)?;
                Ok((Recorder::finish(recorder), run))
            };
            let (recorded, runs): (Vec<_>, Vec<_>) =
                winners.par_iter().map(record).collect::<Result<Vec<_>>>()?.into_iter().unzip();
            recording.finish(recorded, &runs)
        };
        all.map(of).collect()
    }
}

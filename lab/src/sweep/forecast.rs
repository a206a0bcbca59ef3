//! The cost of a comparison, before it runs.

use std::time::Duration;

use anyhow::Result;

use super::Sweep;
use super::plan::Key;
use super::runs::Phase;
use super::space::number;
use super::training::{Job, run};

/// Epochs that are trained to measure their time.
const EPOCHS: usize = 10;

impl Sweep {
    /// The number of trainings and gradients, and the time that they would take.
    ///
    /// # Errors
    /// An error of Candle.
    pub fn forecast(&self, workers: usize) -> Result<String> {
        let training = &self.experiment.training;
        let (seeds, confirm_seeds) = (self.plan.seeds.tune.len(), self.plan.seeds.confirm.len());
        let settings: usize = self.plan.settings.iter().map(|settings| settings.all.len()).sum();
        let (tuning, confirmation) =
            (self.problems.len() * settings * seeds, self.plan.pairs().count() * confirm_seeds);
        let (mut gradients, mut seconds) = (0., 0.);
        for problem in 0..self.problems.len() {
            let subject = self.subject(problem, self.plan.seeds.confirm[0])?;
            for (optimizer, settings) in self.plan.settings.iter().enumerate() {
                let key = Key { phase: Phase::Confirm, problem, optimizer, trial: 0, seed: 0 };
                let job = Job::new(self, key, training.epochs.min(EPOCHS));
                // The first training is slower than the next ones.
                run(&job, &subject, &|| false)?;
                let Some(trained) = run(&job, &subject, &|| false)? else { continue };
                let runs = (settings.all.len() * seeds + confirm_seeds) as f64;
                let share = training.epochs as f64 / trained.epochs.len().max(1) as f64;
                gradients += runs * share * trained.outcome.gradient_evaluations as f64;
                seconds += runs * share * trained.seconds;
            }
        }
        let time = Duration::from_secs_f64((seconds / workers as f64).min(1e15));
        Ok(format!(
            "{} trainings: {tuning} to tune {} settings on {seeds} seeds each, and {confirmation} to confirm the best of \
             each\n{} gradients, in about {} on {workers} cores",
            tuning + confirmation,
            tuning / seeds,
            number(gradients.round()),
            duration(time),
        ))
    }
}

fn duration(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

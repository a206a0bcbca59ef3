//! The results at each learning rate.

use std::collections::BTreeMap;

use super::runs::{Phase, Run};
use super::statistics::{Optimizer, Which, quartiles};

/// The result at a learning rate: the best of its settings.
pub struct Rate {
    /// The learning rate.
    pub lr: f64,
    /// The score.
    pub score: f64,
    /// The lower quartile of the losses of its seeds.
    pub low: f64,
    /// The upper quartile.
    pub high: f64,
    /// The share of its runs that diverged.
    pub diverged: f64,
    /// The share of its runs that were no better than a constant prediction.
    pub failed: f64,
    /// Whether it is the winner.
    pub wins: bool,
}

/// The learning rates of an optimizer's tuning runs, from the lowest; empty if it is not searched.
pub fn rates(keys: &[String], tune: &[&Run], statistics: &Optimizer, which: Which) -> Vec<Rate> {
    // The learning rate of a wrapper's base counts as its own.
    let is_rate = |key: &str| key.trim_start_matches("base_") == "lr";
    let rate = |run: &Run| {
        let mut pairs = keys.iter().zip(&run.searched);
        pairs.find_map(|(key, value)| value.as_ref().filter(|_| is_rate(key)))?.parse::<f64>().ok()
    };
    let mut trials = BTreeMap::<usize, Vec<&Run>>::new();
    for run in tune {
        trials.entry(run.trial).or_default().push(run);
    }
    let tried = statistics.scores.0.iter().filter_map(|&(trial, score)| {
        let of_trial = trials.get(&trial)?;
        let losses: Vec<f64> = of_trial.iter().map(|run| which.capped(&run.outcome)).collect();
        let [low, _, high] = quartiles(&losses)?;
        let share =
            |is: &dyn Fn(&Run) -> bool| of_trial.iter().filter(|run| is(run)).count() as f64 / of_trial.len() as f64;
        let diverged = share(&|run| run.outcome.diverged_at.is_some());
        let failed = share(&|run| which.loss(&run.outcome) >= run.outcome.baseline_loss);
        let wins = statistics.winner == Some(trial);
        Some(Rate { lr: rate(of_trial.first()?)?, score, low, high, diverged, failed, wins })
    });
    let mut rates: Vec<Rate> = tried.collect();
    rates.sort_by(|a, b| a.lr.total_cmp(&b.lr).then(b.wins.cmp(&a.wins)).then(a.score.total_cmp(&b.score)));
    rates.dedup_by(|other, best| other.lr == best.lr);
    rates
}

/// The mean baseline of the tuning runs. Scores are means over these runs, so a setting that always fails has this
/// score.
pub fn baseline(runs: &[&Run]) -> f64 {
    let tuned = runs.iter().filter(|run| run.phase == Phase::Tune);
    let (n, sum) = tuned.fold((0u32, 0.), |(n, sum), run| (n + 1, sum + run.outcome.baseline_loss));
    sum / f64::from(n.max(1))
}

//! Every statistic of an experiment, from its runs alone.
//!
//! | module | what |
//! |---|---|
//! | `quantiles` | quantiles of numbers that may be infinite |
//! | `best_of_k` | the best of k settings |
//! | `sensitivity` | the width of the learning rates that work |
//! | `differences` | one optimizer against the best |
//! | `stability` | other halves of the tuning seeds |
//! | `over_problems` | ranks and the performance profile |
//! | `ordered` | maps in their own order, and infinity, for JSON |
//!
//! Sums are taken in the order of seeds, from 0, in plain f64, as Python before 3.12 does. So all numbers equal those
//! of the Python reference bit for bit, except `decades`, a logarithm of the platform.

mod best_of_k;
mod differences;
mod ordered;
mod over_problems;
mod quantiles;
mod sensitivity;
mod stability;

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Display};
use std::hash::Hash;

use serde::{Deserialize, Serialize, Serializer};

pub use best_of_k::{expected_best, median_best};
pub use differences::{Difference, Verdict};
pub use ordered::Ordered;
pub use over_problems::{OverProblems, Profile};
pub use quantiles::{median, quantile, quartiles};
pub use sensitivity::{Sensitivity, Side};
pub use stability::Stability;

use super::runs::{Outcome, Phase, Run, Runs};

/// The chance that any interval misses its true difference, over all comparisons with the best optimizer.
const ALPHA: f64 = 0.05;

/// Which validation loss of a run counts.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// The loss after the last epoch.
    Final,
    /// The lowest loss.
    Best,
}

impl Which {
    /// The loss that counts.
    pub fn loss(self, outcome: &Outcome) -> f64 {
        match self {
            Self::Final => outcome.validation_loss,
            Self::Best => outcome.validation_best,
        }
    }

    /// The loss, but at most the baseline, which is also what a diverged run counts.
    pub fn capped(self, outcome: &Outcome) -> f64 {
        self.loss(outcome).min(outcome.baseline_loss)
    }
}

/// The score of a setting: the mean over its runs, in the order of their seeds, of the validation loss or, where it is
/// lower, the baseline. There must be a run.
pub fn score<'a>(runs: impl IntoIterator<Item = &'a Outcome>, by: Which) -> f64 {
    let (n, sum) = runs.into_iter().fold((0, 0.), |(n, sum), outcome| (n + 1, sum + by.capped(outcome)));
    sum / f64::from(n)
}

/// The best of some settings, each with its index, its score and its number of finished runs: the lowest score, then
/// the smallest index. A setting without a finished run does not win.
pub fn winner(settings: impl IntoIterator<Item = (usize, f64, Finished)>) -> Option<usize> {
    let able = settings.into_iter().filter(|(_, score, finished)| finished.runs > 0 && score.is_finite());
    let lower = |a: (usize, f64, Finished), b: (usize, f64, Finished)| if (b.1, b.0) < (a.1, a.0) { b } else { a };
    able.reduce(lower).map(|(number, ..)| number)
}

/// All statistics of an experiment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Statistics {
    /// The rule of the scores.
    pub score: Rule,
    /// Each problem, in the order of the file.
    pub problems: Ordered<String, Problem>,
    /// Statistics over several problems.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over_problems: Option<OverProblems>,
}

/// How the losses of a setting become its score.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// The mean, where no loss counts more than the baseline.
    Capped,
}

/// Statistics of a problem.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Problem {
    /// Each optimizer, in the order of the file.
    pub optimizers: Ordered<String, Optimizer>,
    /// The confirmed optimizer with the lowest median test loss; the first of equal ones.
    pub best: Option<String>,
    /// Each other confirmed optimizer compared with the best.
    pub differences: Ordered<String, Difference>,
    /// How much the order depends on the tuning seeds; none with fewer than two seeds.
    pub stability: Option<Stability>,
}

/// Statistics of an optimizer on a problem.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Optimizer {
    /// The score of each trial.
    pub scores: Ordered<usize, f64>,
    /// How many runs of each trial finished.
    pub finished: Ordered<usize, Finished>,
    /// The winning trial.
    pub winner: Option<usize>,
    /// The mean score of the best of 1, 2, .. settings drawn from those tried.
    pub expected_best: Vec<f64>,
    /// The lower median score of the best of 1, 2, .. settings drawn from those tried.
    pub median_best: Vec<f64>,
    /// The learning rates that work; none if it is not searched, or if nothing is better than the baseline.
    pub sensitivity: Option<Sensitivity>,
    /// The measurements of its confirmation.
    #[serde(flatten)]
    pub confirmed: Option<Confirmed>,
}

/// The number of runs of a setting that did not diverge.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Finished {
    /// Runs that did not diverge.
    pub runs: usize,
    /// All runs.
    pub of: usize,
}

impl Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.runs, self.of)
    }
}

impl Serialize for Finished {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The measurements of an optimizer's confirmation: quartiles, and shares of the runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Confirmed {
    /// Quartiles of the test loss.
    #[serde(serialize_with = "ordered::quartiles")]
    pub test_loss_quartiles: [f64; 3],
    /// Quartiles of the epochs to the target.
    #[serde(serialize_with = "ordered::quartiles")]
    pub epochs_to_target_quartiles: [f64; 3],
    /// Quartiles of the gradient evaluations to the target.
    #[serde(serialize_with = "ordered::quartiles")]
    pub evaluations_to_target_quartiles: [f64; 3],
    /// Quartiles of the test accuracy, over runs that finished.
    pub test_accuracy_quartiles: Option<[f64; 3]>,
    /// Share of the runs that diverged.
    pub diverged: f64,
    /// Share of the runs whose validation loss is no lower than the baseline.
    pub failed: f64,
    /// Share of the runs that reached the target.
    pub reached: f64,
}

/// The tuning runs of a setting.
struct Trial<'a> {
    number: usize,
    /// Runs in the order of their seeds.
    runs: Vec<&'a Run>,
}

/// All statistics of `runs`. The experiment's seed draws the halves if there are more than 12 tuning seeds.
pub fn statistics(runs: &Runs, by: Which, seed: u32) -> Statistics {
    let of_problem = |(name, rows): (&str, Vec<&Run>)| (name.into(), problem(&runs.keys, &rows, by, seed));
    let problems: Ordered<String, Problem> =
        grouped(&runs.rows, |run| run.problem.as_str()).into_iter().map(of_problem).collect();
    let over_problems = (problems.0.len() > 1).then(|| over_problems::over_problems(&problems));
    Statistics { score: Rule::Capped, problems, over_problems }
}

/// The rows of each key; keys are in the order of their first row.
fn grouped<'a, K: Copy + Eq + Hash>(
    rows: impl IntoIterator<Item = &'a Run>,
    key: impl Fn(&'a Run) -> K,
) -> Vec<(K, Vec<&'a Run>)> {
    let mut places = HashMap::new();
    let mut groups: Vec<(K, Vec<&Run>)> = vec![];
    for run in rows {
        let key = key(run);
        let place = *places.entry(key).or_insert(groups.len());
        if place == groups.len() {
            groups.push((key, vec![]));
        }
        groups[place].1.push(run);
    }
    groups
}

fn problem(keys: &[String], rows: &[&Run], by: Which, seed: u32) -> Problem {
    let (mut optimizers, mut tuned, mut confirmations) = (vec![], vec![], vec![]);
    for (name, rows) in grouped(rows.iter().copied(), |run| run.optimizer.as_str()) {
        let (tune, confirm): (Vec<&Run>, Vec<&Run>) = rows.iter().partition(|run| run.phase == Phase::Tune);
        let trials = trials(&tune);
        optimizers.push((name.to_owned(), optimizer(keys, &trials, &confirm, by)));
        tuned.push((name, trials));
        if !confirm.is_empty() {
            confirmations.push((name, confirm));
        }
    }
    let middle = |runs: &[&Run]| median(&runs.iter().map(|run| test_loss(run)).collect::<Vec<_>>());
    let middles = confirmations.iter().filter_map(|(name, runs)| Some((middle(runs)?, *name, runs)));
    let best = middles.reduce(|best, other| if other.0 < best.0 { other } else { best });
    let difference = |(name, runs): &(&str, Vec<&Run>)| {
        let (_, _, its_runs) = best.filter(|(_, best, _)| best != name)?;
        let alpha = ALPHA / (confirmations.len() - 1) as f64;
        Some(((*name).into(), differences::difference(&paired(runs, its_runs), alpha)?))
    };
    Problem {
        optimizers: Ordered(optimizers),
        best: best.map(|(_, name, _)| name.into()),
        differences: confirmations.iter().filter_map(difference).collect(),
        stability: stability::stability(&tuned, by, seed),
    }
}

fn trials<'a>(tune: &[&'a Run]) -> Vec<Trial<'a>> {
    let mut trials = BTreeMap::<usize, Vec<&Run>>::new();
    for &run in tune {
        trials.entry(run.trial).or_default().push(run);
    }
    let in_order = |(number, mut runs): (usize, Vec<&'a Run>)| {
        runs.sort_by_key(|run| run.seed);
        Trial { number, runs }
    };
    trials.into_iter().map(in_order).collect()
}

fn optimizer(keys: &[String], trials: &[Trial], confirm: &[&Run], by: Which) -> Optimizer {
    let outcomes = |trial: &Trial| score(trial.runs.iter().map(|run| &run.outcome), by);
    let scores: Ordered<usize, f64> = trials.iter().map(|trial| (trial.number, outcomes(trial))).collect();
    let finished = |trial: &Trial| {
        let runs = trial.runs.iter().filter(|run| run.outcome.diverged_at.is_none()).count();
        (trial.number, Finished { runs, of: trial.runs.len() })
    };
    let finished: Ordered<usize, Finished> = trials.iter().map(finished).collect();
    let settings = scores.0.iter().zip(&finished.0);
    let winner = winner(settings.map(|(&(number, score), &(_, finished))| (number, score, finished)));
    let all: Vec<f64> = scores.0.iter().map(|&(_, score)| score).collect();
    Optimizer {
        winner,
        expected_best: expected_best(&all),
        median_best: median_best(&all),
        sensitivity: sensitivity::sensitivity(keys, trials, &scores, winner),
        confirmed: confirmed(confirm),
        scores,
        finished,
    }
}

/// The confirmation of an optimizer; none without runs.
fn confirmed(runs: &[&Run]) -> Option<Confirmed> {
    let all = |number: fn(&Run) -> f64| quartiles(&runs.iter().map(|run| number(run)).collect::<Vec<_>>());
    let finished = runs.iter().filter(|run| run.outcome.diverged_at.is_none());
    let accuracies: Vec<f64> = finished.filter_map(|run| run.outcome.test_accuracy).collect();
    let share = |is: fn(&Outcome) -> bool| {
        let count = runs.iter().filter(|run| is(&run.outcome)).count();
        count as f64 / runs.len() as f64
    };
    Some(Confirmed {
        test_loss_quartiles: all(test_loss)?,
        epochs_to_target_quartiles: all(|run| run.outcome.epochs_to_target.unwrap_or(f64::INFINITY))?,
        evaluations_to_target_quartiles: all(|run| run.outcome.evaluations_to_target.unwrap_or(f64::INFINITY))?,
        test_accuracy_quartiles: quartiles(&accuracies),
        diverged: share(|outcome| outcome.diverged_at.is_some()),
        failed: share(|outcome| outcome.validation_loss >= outcome.baseline_loss),
        reached: share(|outcome| outcome.epochs_to_target.is_some_and(f64::is_finite)),
    })
}

/// The test loss of a run; infinite if it was not measured, so that it is never better.
fn test_loss(run: &Run) -> f64 {
    run.outcome.test_loss.unwrap_or(f64::INFINITY)
}

/// Test losses on the seeds that both optimizers have runs for.
fn paired(runs: &[&Run], others: &[&Run]) -> Vec<(f64, f64)> {
    let others: HashMap<u32, f64> = others.iter().map(|run| (run.seed, test_loss(run))).collect();
    runs.iter().filter_map(|run| Some((test_loss(run), *others.get(&run.seed)?))).collect()
}

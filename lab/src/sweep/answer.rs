//! The answer in words, and the table beside it.

use std::fmt::Display;

use super::Sweep;
use super::files::Times;
use super::loaded::Loaded;
use super::runs::{Phase, Runs};
use super::space::{Setting, number};
use super::statistics::{Confirmed, Difference, Optimizer, Problem, Sensitivity, Statistics, Verdict, median};
use crate::data::TaskType;
use crate::optimizer::total_state_bytes;
use crate::tables;
use crate::train::joined;

/// What stands before the command that trains with the best setting.
pub(super) const TRAIN_WITH: &str = "Train with it:  ";

/// The key of a learning rate.
const LR: &str = "lr";

/// The answer, a paragraph for each problem.
pub fn words(sweep: &Sweep, runs: &Runs, statistics: &Statistics) -> String {
    let mut paragraphs = vec![];
    for ((_, problem), of) in statistics.problems.0.iter().zip(&sweep.problems) {
        let lines = Answer { sweep, problem, of, runs }.lines();
        paragraphs.push(lines.join("\n"));
    }
    if let Some(over) = &statistics.over_problems {
        let ranks = over.mean_rank.0.iter().map(|(name, rank)| format!("{name} {rank:.1}"));
        let ranks = ranks.collect::<Vec<_>>().join(", ");
        paragraphs.push(format!("Mean rank over {} problems: {ranks}.", statistics.problems.0.len()));
    }
    paragraphs.join("\n\n") + "\n"
}

/// The answer for one problem.
struct Answer<'a> {
    sweep: &'a Sweep,
    problem: &'a Problem,
    of: &'a Loaded,
    runs: &'a Runs,
}

impl Answer<'_> {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.protocol()];
        match &self.problem.best {
            None => lines.push("none finished: every training diverged.".into()),
            Some(best) => {
                lines.extend(self.quality(best));
                lines.extend(self.rates(best));
                lines.extend(self.limits());
                lines.extend(self.command(best).map(|command| format!("{TRAIN_WITH}{command}")));
            }
        }
        lines
    }

    /// What was compared, and how.
    fn protocol(&self) -> String {
        let (sweep, tuning) = (self.sweep, &self.sweep.experiment.tuning);
        let what = match self.of.rows() {
            Some(rows) => {
                format!("{} rows, {}", grouped(rows), network(self.of))
            }
            None => "a test function".into(),
        };
        format!(
            "On {} ({what}), {} on {}, confirmed on {} fresh seeds, constant learning rate:",
            self.of.problem.label(),
            settings(sweep),
            counted(tuning.seeds, "seed"),
            tuning.confirm_seeds
        )
    }

    /// The best optimizer, and then the others from the lowest loss to the highest.
    fn quality(&self, best: &str) -> Vec<String> {
        let Some(confirmed) = self.confirmed(best) else { return vec![] };
        let [low, middle, high] = confirmed.test_loss_quartiles;
        let loss = if self.of.rows().is_some() { "test loss" } else { "value" };
        let is = if self.problem.optimizers.0.len() == 1 { "has the" } else { "is best:" };
        let (middle, low, high) = (short(middle), short(low), short(high));
        let mut said = format!("{best} {is} median {loss} {middle} (quartiles {low} to {high}).");
        if let Some(accuracy) = confirmed.test_accuracy_quartiles {
            said += &match self.of.task_type() {
                TaskType::Classification => {
                    format!(" It predicts {} % of the test rows correctly.", percent(accuracy[1]))
                }
                TaskType::Regression => format!(" Its R² on the test rows is {:.3}.", accuracy[1]),
            };
        }
        said += &failures(best, confirmed, self.sweep.experiment.tuning.confirm_seeds);
        let mut others: Vec<&(String, Optimizer)> =
            self.problem.optimizers.0.iter().filter(|(name, _)| name != best).collect();
        let loss = |(_, optimizer): &(String, Optimizer)| {
            optimizer.confirmed.as_ref().map_or(f64::INFINITY, |confirmed| confirmed.test_loss_quartiles[1])
        };
        others.sort_by(|a, b| loss(a).total_cmp(&loss(b)));
        let others = others.iter().map(|(name, optimizer)| self.other(name, optimizer));
        let useless = self.problem.optimizers.0.iter().filter(|(name, optimizer)| self.is_useless(name, optimizer));
        let useless = useless.map(|(name, _)| format!("No setting of {name} is better than a constant prediction."));
        [said].into_iter().chain(others).chain(useless).collect()
    }

    /// Whether no run of the best setting was better than a constant prediction.
    fn is_useless(&self, name: &str, optimizer: &Optimizer) -> bool {
        let Some(winner) = optimizer.winner else { return false };
        let label = self.of.problem.label();
        let own = self.runs.rows.iter().filter(|run| run.problem == label && run.optimizer == name);
        let mut tuned = own.filter(|run| run.phase == Phase::Tune && run.trial == winner).map(|run| &run.outcome);
        let which = self.sweep.experiment.tuning.score;
        tuned.all(|outcome| which.loss(outcome) >= outcome.baseline_loss)
    }

    fn other(&self, name: &str, optimizer: &Optimizer) -> String {
        let Some(confirmed) = &optimizer.confirmed else {
            return format!("{name}: none finished.");
        };
        let seeds = self.sweep.experiment.tuning.confirm_seeds;
        let failed = failed(confirmed, seeds);
        if 2 * failed > seeds {
            return format!("{name} failed in {failed} of {seeds} seeds.");
        }
        let Some(&Difference { median, interval, level, best_wins, equal, seeds, verdict }) =
            self.problem.differences.get(name)
        else {
            return String::new();
        };
        let middle = short(confirmed.test_loss_quartiles[1]);
        let interval = interval.map_or(String::new(), |[from, to]| {
            let (from, to) = if verdict == Verdict::Better { (-to, -from) } else { (from, to) };
            format!("{} % interval {} to {}, ", percent(level), short(from), short(to))
        });
        let said = match verdict {
            Verdict::Worse => {
                format!("{name} is worse by {} ({interval}in {best_wins} of {seeds} seeds).", short(median))
            }
            Verdict::Better => {
                let wins = seeds - best_wins - equal;
                format!("{name} is better by {} ({interval}in {wins} of {seeds} seeds).", short(-median))
            }
            Verdict::NotDistinguished => {
                format!("{name} is not distinguished from it ({middle}, worse in {best_wins} of {seeds} seeds).")
            }
            Verdict::TooFewSeeds => {
                format!("{name} has {middle} (worse in {best_wins} of {seeds} seeds, too few for an interval).")
            }
        };
        said + &failures(name, confirmed, seeds)
    }

    /// The learning rates that work, those of the best optimizer first.
    fn rates(&self, best: &str) -> Option<String> {
        let mut all: Vec<&(String, Optimizer)> = self.problem.optimizers.0.iter().collect();
        all.sort_by_key(|(name, _)| name != best);
        let mut said: Vec<String> = vec![];
        for (name, optimizer) in all {
            let Some(Sensitivity { decades, open, .. }) = &optimizer.sensitivity else { continue };
            let Some(lr) = self.winner(name).and_then(|setting| setting.value(LR)) else { continue };
            let least = if open.is_empty() { "" } else { "at least " };
            said.push(match *decades {
                0. if open.is_empty() => format!("{name} only at {lr}"),
                0. => format!("{name} at {lr}, where its range ends"),
                decades if said.is_empty() => {
                    format!("{name} works over {least}{decades:.1} decades of learning rates around {lr}")
                }
                decades => format!("{name} over {least}{decades:.1}"),
            });
        }
        (!said.is_empty()).then(|| said.join(", ") + ".")
    }

    /// The limits of the answer.
    fn limits(&self) -> Vec<String> {
        let mut said = vec![];
        for (name, optimizer) in &self.problem.optimizers.0 {
            if !optimizer.sensitivity.as_ref().is_some_and(|sensitivity| sensitivity.winner_at_edge) {
                continue;
            }
            let Some(lr) = self.winner(name).and_then(|setting| setting.value(LR)) else { continue };
            let optimizer = &self.sweep.experiment.optimizer[self.index_of(name)];
            let is_low = self.lowest_rate(name) == Some(lr);
            let side = if is_low { "lowest" } else { "highest" };
            let mut wider = optimizer.search.clone().unwrap_or_default();
            wider.0.iter_mut().filter(|(key, _)| key == LR).for_each(|(_, range)| *range = range.wider(is_low));
            let hint = match optimizer.search.as_ref() == Some(&wider) {
                true => ".".into(),
                false => format!("; widen it: --optimizer '{}@{wider}'", optimizer.spec.text()),
            };
            said.push(format!("The best learning rate of {name}, {lr}, is the {side} that was tried{hint}"));
        }
        for (settings, optimizer) in self.sweep.plan.settings.iter().zip(&self.sweep.experiment.optimizer) {
            if settings.repeated > 0 {
                let repeated = counted(settings.repeated, "setting");
                said.push(format!("{repeated} of {} repeated others and were left out.", optimizer.label));
            }
        }
        if self.of.is_finite() {
            said.push("All seeds have the same test rows: intervals hold for these.".into());
        }
        said.extend(self.sweep.notes(self.of));
        said
    }

    fn confirmed(&self, name: &str) -> Option<&Confirmed> {
        self.problem.optimizers.get(name)?.confirmed.as_ref()
    }

    fn index_of(&self, name: &str) -> usize {
        self.sweep.experiment.optimizer.iter().position(|optimizer| optimizer.label == name).unwrap_or(0)
    }

    /// The settings of an optimizer.
    fn settings(&self, name: &str) -> &[Setting] {
        &self.sweep.plan.settings[self.index_of(name)].all
    }

    /// The best setting of an optimizer.
    fn winner(&self, name: &str) -> Option<&Setting> {
        self.settings(name).get(self.problem.optimizers.get(name)?.winner?)
    }

    /// The lowest learning rate that was tried.
    fn lowest_rate(&self, name: &str) -> Option<&str> {
        let rates = self.settings(name).iter().filter_map(|setting| setting.value(LR));
        let value = |text: &str| text.parse().unwrap_or(f64::NAN);
        rates.min_by(|a, b| f64::total_cmp(&value(a), &value(b)))
    }

    /// The command that trains with an optimizer's best setting.
    fn command(&self, name: &str) -> Option<String> {
        Some(self.of.problem.command(self.winner(name)?.spec.text(), &self.sweep.experiment))
    }
}

/// The number of seeds on which an optimizer failed.
fn failed(confirmed: &Confirmed, seeds: usize) -> usize {
    (confirmed.failed * seeds as f64).round() as usize
}

fn failures(name: &str, confirmed: &Confirmed, seeds: usize) -> String {
    match failed(confirmed, seeds) {
        0 => String::new(),
        failed => format!(" {name} failed in {failed} of {seeds} seeds."),
    }
}

/// The confirmed optimizers of each problem, in a table.
pub fn table(sweep: &Sweep, runs: &Runs, statistics: &Statistics, times: &Times) -> impl Display {
    let mut said = String::new();
    for (index, (name, problem)) in statistics.problems.0.iter().enumerate() {
        let task = sweep.problems[index].task_type();
        let mut table = tables::table(&[
            "optimizer",
            "best setting",
            "test loss",
            "quartiles",
            if task == TaskType::Regression { "R²" } else { "accuracy" },
            "failed",
            "epochs to target",
            "gradients/step",
            "state bytes/weight",
            "time",
        ]);
        let all: Vec<(usize, &str, &Optimizer)> = problem
            .optimizers
            .0
            .iter()
            .enumerate()
            .map(|(at, (name, optimizer))| (at, name.as_str(), optimizer))
            .collect();
        let mut shown: Vec<_> = all.iter().filter_map(|row| Some((row, row.2.confirmed.as_ref()?))).collect();
        shown.sort_by(|(_, a), (_, b)| a.test_loss_quartiles[1].total_cmp(&b.test_loss_quartiles[1]));
        let of = &sweep.problems[index];
        let setting = |at: usize, winner: Option<usize>| {
            let pairs = winner.map(|trial| &sweep.plan.settings[at].all[trial].pairs).into_iter().flatten();
            pairs.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
        };
        let range = |[low, _, high]: [f64; 3]| format!("{} .. {}", short(low), short(high));
        let epochs = |middle: f64| if middle.is_finite() { format!("{middle:.0}") } else { "never".into() };
        let columns = [
            shown.iter().map(|((_, name, _), _)| (*name).to_owned()).collect(),
            shown.iter().map(|((at, _, optimizer), _)| setting(*at, optimizer.winner)).collect(),
            shown.iter().map(|(_, confirmed)| short(confirmed.test_loss_quartiles[1])).collect(),
            shown.iter().map(|(_, confirmed)| range(confirmed.test_loss_quartiles)).collect(),
            shown
                .iter()
                .map(|(_, c)| c.test_accuracy_quartiles.map_or("-".into(), |share| tables::accuracy(share[1], task)))
                .collect(),
            shown.iter().map(|(_, confirmed)| format!("{:.0} %", 100. * confirmed.failed)).collect(),
            shown.iter().map(|(_, confirmed)| epochs(confirmed.epochs_to_target_quartiles[1])).collect(),
            shown.iter().map(|((_, name, _), _)| short(gradients(sweep, runs, index, name))).collect(),
            shown.iter().map(|((at, ..), _)| number(state(sweep, of, *at))).collect(),
            tables::column_of(&shown, 2, " ms", |((_, optimizer, _), _)| {
                let times = times.get(&(name.clone(), (*optimizer).to_owned()));
                times.and_then(|times| median(times)).map_or(f64::NAN, |seconds| 1e3 * seconds)
            }),
        ];
        tables::add_columns(&mut table, columns);
        if statistics.problems.0.len() > 1 {
            said += &format!("{name}\n");
        }
        said += &format!("{table}\n");
    }
    said
}

/// The average number of gradients per step of an optimizer.
fn gradients(sweep: &Sweep, runs: &Runs, problem: usize, name: &str) -> f64 {
    let (of, label) = (&sweep.problems[problem], sweep.problems[problem].problem.label());
    let (mut gradients, mut epochs) = (0., 0.);
    for run in
        runs.rows.iter().filter(|run| run.phase == Phase::Confirm && run.problem == label && run.optimizer == name)
    {
        gradients += run.outcome.gradient_evaluations as f64;
        epochs += run.outcome.diverged_at.unwrap_or(sweep.experiment.training.epochs) as f64;
    }
    gradients / (epochs * of.batches(&sweep.experiment) as f64)
}

/// Bytes of state for each weight.
fn state(sweep: &Sweep, of: &Loaded, at: usize) -> f64 {
    let spec = &sweep.experiment.optimizer[at].spec;
    let Ok(vars) = of.vars() else { return f64::NAN };
    let weights: usize = vars.iter().map(|(_, var)| var.elem_count()).sum();
    let bytes = total_state_bytes(spec, vars).unwrap_or(f64::NAN);
    // The sum of no numbers is -0; adding 0 removes the sign.
    (100. * bytes / weights as f64).round() / 100. + 0.
}

/// Three significant digits.
fn short(x: f64) -> String {
    let magnitude = x.abs();
    if x == 0. {
        "0".into()
    } else if !x.is_finite() {
        if x > 0. { "infinite".into() } else { "-infinite".into() }
    } else if (1e-4..1e5).contains(&magnitude) {
        // The exponent of the rounded number: 0.09996 is 0.1.
        let rounded: f64 = format!("{magnitude:.2e}").parse().unwrap_or(magnitude);
        let decimals = (2 - rounded.log10().floor() as i32).max(0);
        format!("{x:.0$}", decimals as usize)
    } else {
        format!("{x:.2e}")
    }
}

/// A share as a percentage: 95, or 98.3.
fn percent(level: f64) -> String {
    let percent = format!("{:.1}", 100. * level);
    percent.strip_suffix(".0").unwrap_or(&percent).into()
}

/// The number of settings tried for each optimizer.
pub fn settings(sweep: &Sweep) -> String {
    let counts = sweep.plan.settings.iter().map(|settings| settings.all.len());
    let (least, most) = (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0));
    if least == most { counted(most, "setting") + " each" } else { format!("{least} to {most} settings each") }
}

/// The widths of a network's layers: 2-16-16-1.
pub fn network(of: &Loaded) -> String {
    joined(&of.sizes(), "-")
}

/// A count with its noun.
pub fn counted(n: usize, what: &str) -> String {
    if n == 1 { format!("{n} {what}") } else { format!("{n} {what}s") }
}

/// A whole number with commas: 1,000.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let numbers = [0.0123456, 0.09996, 1., 12.34, 12345.6, 1e-9, -0.5, 0., f64::INFINITY];
        let shown = ["0.0123", "0.100", "1.00", "12.3", "12346", "1.00e-9", "-0.500", "0", "infinite"];
        assert_eq!(numbers.map(short), shown);
        assert_eq!([1, 999, 1000, 1234567].map(grouped), ["1", "999", "1,000", "1,234,567"]);
        assert_eq!([0.95, 0.9833333, 0.975].map(percent), ["95", "98.3", "97.5"]);
    }
}

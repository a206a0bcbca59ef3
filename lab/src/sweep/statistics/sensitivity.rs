//! How far a learning rate may lie from the best one.

use serde::Serialize;

use super::Trial;
use super::ordered::{Ordered, number};
use super::quantiles::median;
use crate::sweep::runs::{RATE, Run};

/// The contiguous tried learning rates around the winner's whose score is within 10 % of the way from the best score to
/// the baseline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sensitivity {
    /// The lowest of these rates.
    pub from: f64,
    /// The highest of these rates.
    pub to: f64,
    /// Decades between them, by the `log10` of the platform, whose last bit may differ from Python's.
    #[serde(serialize_with = "number")]
    pub decades: f64,
    /// The sides on which no tried rate is too low or too high.
    pub open: Vec<Side>,
    /// Whether the winner is the lowest or the highest rate of several.
    pub winner_at_edge: bool,
}

/// A side of a range.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// To lower rates.
    Low,
    /// To higher rates.
    High,
}

/// None if the learning rate is not searched or the winner is no better than the baseline. The best value of the other
/// keys counts for each rate.
pub(super) fn sensitivity(
    keys: &[String],
    trials: &[Trial],
    scores: &Ordered<usize, f64>,
    winner: Option<usize>,
) -> Option<Sensitivity> {
    let column = keys.iter().position(|key| key == RATE)?;
    let rate = |run: &Run| run.searched.get(column)?.as_ref()?.parse::<f64>().ok();
    let of_trial = |trial: &Trial| rate(trial.runs.first()?);
    let won = trials.iter().find(|trial| Some(trial.number) == winner)?;
    let (won_rate, best) = (of_trial(won)?, *scores.get(&won.number)?);

    let tried = trials.iter().zip(&scores.0).filter_map(|(trial, &(_, score))| Some((of_trial(trial)?, score)));
    let mut rates: Vec<(f64, f64)> = tried.collect();
    rates.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    rates.dedup_by_key(|(rate, _)| *rate);

    let baselines: Vec<f64> = won.runs.iter().map(|run| run.outcome.baseline_loss).collect();
    let base = median(&baselines)?;
    if best >= base {
        return None;
    }
    let limit = best + 0.1 * (base - best);
    let at = rates.iter().position(|(rate, _)| *rate == won_rate)?;
    let last = rates.len() - 1;
    let (mut low, mut high) = (at, at);
    while low > 0 && rates[low - 1].1 <= limit {
        low -= 1;
    }
    while high < last && rates[high + 1].1 <= limit {
        high += 1;
    }
    let (from, to) = (rates[low].0, rates[high].0);
    let open = [(Side::Low, low == 0), (Side::High, high == last)];
    Some(Sensitivity {
        from,
        to,
        decades: (to / from).log10(),
        open: open.into_iter().filter_map(|(side, open)| open.then_some(side)).collect(),
        winner_at_edge: (at == 0 || at == last) && last > 0,
    })
}

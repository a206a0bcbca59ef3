//! Whether other tuning seeds would have led to another best optimizer.

use serde::Serialize;

use super::ordered::Ordered;
use super::{Trial, Which};
use crate::sweep::seeds::halves;

/// How often each optimizer leads if all are tuned on one half of the tuning seeds and compared on the other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stability {
    /// The number of halves.
    pub halves: usize,
    /// The share of halves in which the optimizer has the lowest score; optimizers with equal scores share a half.
    pub share: Ordered<String, f64>,
}

/// None if there are fewer than two seeds, or if a setting was not trained on all of them.
pub(super) fn stability(tuned: &[(&str, Vec<Trial>)], by: Which, experiment_seed: u32) -> Option<Stability> {
    let runs = || tuned.iter().flat_map(|(_, trials)| trials).flat_map(|trial| &trial.runs);
    let mut seeds: Vec<u32> = runs().map(|run| run.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    if seeds.len() < 2 {
        return None;
    }
    let tables: Vec<Table> = tuned.iter().map(|(_, trials)| Table::new(trials, &seeds, by)).collect::<Option<_>>()?;

    let halves = halves(seeds.len(), experiment_seed);
    let mut shares = vec![0.; tables.len()];
    for half in &halves {
        let rest: Vec<usize> = (0..seeds.len()).filter(|j| !half.contains(j)).collect();
        let scores: Vec<f64> = tables.iter().map(|table| table.score(table.winner(half), &rest)).collect();
        let least = scores.iter().copied().fold(f64::INFINITY, f64::min);
        let leaders = scores.iter().filter(|&&score| score == least).count();
        for (share, _) in shares.iter_mut().zip(&scores).filter(|&(_, &score)| score == least) {
            *share += 1. / leaders as f64;
        }
    }
    let share = tuned.iter().zip(shares).map(|(&(name, _), share)| (name.into(), share / halves.len() as f64));
    Some(Stability { halves: halves.len(), share: share.collect() })
}

/// The contributions of an optimizer's tuning runs to its scores: for each seed, a number per trial.
struct Table(Vec<Vec<f64>>);

impl Table {
    fn new(trials: &[Trial], seeds: &[u32], by: Which) -> Option<Self> {
        let complete = |trial: &Trial| trial.runs.iter().map(|run| &run.seed).eq(seeds);
        let of_seed = |j: usize| trials.iter().map(|trial| by.capped(&trial.runs[j].outcome)).collect();
        let usable = !trials.is_empty() && trials.iter().all(complete);
        usable.then(|| Self((0..seeds.len()).map(of_seed).collect()))
    }

    /// The trial with the lowest score on a part of the seeds; the first of equal ones.
    fn winner(&self, part: &[usize]) -> usize {
        // Trials side by side, so that several are summed at once; each sum is in the order of seeds.
        let mut sums = vec![0.; self.0[0].len()];
        for &j in part {
            for (sum, loss) in sums.iter_mut().zip(&self.0[j]) {
                *sum += loss;
            }
        }
        let scores = sums.iter().map(|sum| sum / part.len() as f64).enumerate();
        scores.fold((0, f64::INFINITY), |least, other| if other.1 < least.1 { other } else { least }).0
    }

    fn score(&self, trial: usize, part: &[usize]) -> f64 {
        part.iter().map(|&j| self.0[j][trial]).fold(0., |sum, loss| sum + loss) / part.len() as f64
    }
}

//! Statistics over all problems of an experiment.

use serde::Serialize;

use super::ordered::Ordered;
use super::{Confirmed, Problem};

/// The fewest problems that have a profile.
const PROFILE: usize = 5;

/// How optimizers compare over several problems.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OverProblems {
    /// The mean over problems of the rank by median test loss; equal losses share the mean of their ranks.
    pub mean_rank: Ordered<String, f64>,
    /// How soon targets are reached; none for fewer than five problems.
    #[serde(flatten)]
    pub profile: Option<Profile>,
}

/// A performance profile (Dolan and Moré, 2002).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Profile {
    /// Factors from 1: multiples of the gradient evaluations of the fastest optimizer.
    pub tau: Vec<f64>,
    /// For each factor, the share of all problems whose target the optimizer reaches within it, in its median run.
    pub profile: Ordered<String, Vec<f64>>,
}

pub(super) fn over_problems(problems: &Ordered<String, Problem>) -> OverProblems {
    let problems: Vec<&Problem> = problems.0.iter().map(|(_, problem)| problem).collect();
    let mut names: Vec<&String> = vec![];
    for (name, _) in problems.iter().flat_map(|problem| &problem.optimizers.0) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let middle = |problem: &Problem, name: &String, quartiles: fn(&Confirmed) -> [f64; 3]| {
        let confirmed = problem.optimizers.get(name).and_then(|optimizer| optimizer.confirmed.as_ref());
        confirmed.map_or(f64::INFINITY, |confirmed| quartiles(confirmed)[1])
    };
    let (mut ratios, mut ranks) = (vec![vec![]; names.len()], vec![vec![]; names.len()]);
    for problem in &problems {
        let all = |quartiles| names.iter().map(|name| middle(problem, name, quartiles)).collect::<Vec<f64>>();
        let evaluations = all(|confirmed| confirmed.evaluations_to_target_quartiles);
        let losses = all(|confirmed| confirmed.test_loss_quartiles);
        let soonest = evaluations.iter().copied().fold(f64::INFINITY, f64::min);
        for (i, (evaluations, loss)) in evaluations.iter().zip(&losses).enumerate() {
            // An unsolved problem counts for no optimizer.
            ratios[i].push(if evaluations.is_finite() { evaluations / soonest } else { f64::INFINITY });
            let better = losses.iter().filter(|&other| other < loss).count() as f64;
            let equal = losses.iter().filter(|&other| other == loss).count() as f64;
            ranks[i].push(better + (equal + 1.) / 2.);
        }
    }
    let n = problems.len() as f64;
    let mean = |ranks: Vec<f64>| ranks.iter().fold(0., |sum, rank| sum + rank) / n;
    let owned = || names.iter().map(|&name| name.clone());
    let profile = (problems.len() >= PROFILE).then(|| {
        let mut tau: Vec<f64> =
            ratios.iter().flatten().copied().filter(|ratio| ratio.is_finite()).chain([1.]).collect();
        tau.sort_by(f64::total_cmp);
        tau.dedup();
        let share = |ratios: &Vec<f64>, tau: f64| ratios.iter().filter(|&&ratio| ratio <= tau).count() as f64 / n;
        let shares = ratios.iter().map(|ratios| tau.iter().map(|&tau| share(ratios, tau)).collect());
        Profile { profile: owned().zip(shares).collect(), tau }
    });
    OverProblems { mean_rank: owned().zip(ranks.into_iter().map(mean)).collect(), profile }
}

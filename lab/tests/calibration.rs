//! What the comparison says of optimizers of which the truth is known.

mod folder;

use std::fs;

use candle_optim_lab::sweep::runs::{Phase, Run, Runs};
use candle_optim_lab::sweep::statistics::{Verdict, Which, statistics};
use folder::Folder;

const EXPERIMENTS: u32 = 100;
const GOOD: &str = "adam:lr=0.05";
const TOO_SMALL: &str = "adam:lr=1e-7";

/// The runs of an experiment with this seed, of settings that are not searched.
fn runs(folder: &Folder, optimizers: &str, seed: u32) -> Vec<Run> {
    let options = "--seeds 1 --confirm-seeds 10 --epochs 30 --samples 200 --quiet";
    folder.run(&format!("sweep {options} {optimizers} --seed {seed} --no-report --out {seed}"));
    Runs::read(fs::File::open(folder.path(format!("{seed}/runs.csv"))).unwrap()).unwrap().rows
}

#[test]
fn twins_differ_in_few_experiments_and_a_rate_that_is_too_small_in_all() {
    let folder = Folder::new();
    let mut differing = 0;
    for seed in 0..EXPERIMENTS {
        let mut rows = runs(&folder, &format!("--optimizer {GOOD} --optimizer {TOO_SMALL}"), seed);
        let confirmed = |rows: &[Run]| -> Vec<Run> {
            let rows = rows.iter().filter(|run| run.optimizer == GOOD && run.phase == Phase::Confirm);
            rows.cloned().collect()
        };
        // The twin has runs of its own, each of which counts as that of the seed of another.
        let twins = confirmed(&runs(&folder, &format!("--optimizer {GOOD}"), EXPERIMENTS + seed));
        let seeds: Vec<u32> = confirmed(&rows).iter().map(|run| run.seed).collect();
        let twins = twins.into_iter().zip(seeds).map(|(run, seed)| Run { optimizer: "twin".into(), seed, ..run });

        let found = statistics(&Runs { keys: vec![], rows: rows.clone() }, Which::Final, seed);
        let (_, problem) = &found.problems.0[0];
        let of_small = problem.optimizers.get(&TOO_SMALL.to_owned()).unwrap().confirmed.as_ref().unwrap();
        let is_worse = problem.differences.get(&TOO_SMALL.to_owned()).is_some_and(|d| d.verdict == Verdict::Worse);
        assert!(is_worse || of_small.failed > 0.5, "seed {seed}: {problem:?}");

        rows.retain(|run| run.optimizer == GOOD);
        rows.extend(twins);
        let found = statistics(&Runs { keys: vec![], rows }, Which::Final, seed);
        let (_, problem) = &found.problems.0[0];
        let differs = |verdict| matches!(verdict, Verdict::Worse | Verdict::Better);
        differing += problem.differences.0.iter().filter(|(_, difference)| differs(difference.verdict)).count();
    }
    // Ten seeds leave a chance of 2.1 %.
    assert!(differing <= 5, "{differing} of {EXPERIMENTS}");
    println!("twins differ in {differing} of {EXPERIMENTS} experiments");
}

//! One run: a setting trained on one seed.

use std::time::Instant;

use anyhow::Result;
use candle_core::{Device, Var};
use candle_optim::Spec;

use super::Sweep;
use super::experiment::Experiment;
use super::loaded::{Loaded, Subject};
use super::plan::Key;
use super::runs::{Outcome, Phase};
use super::statistics::Which;
use crate::minimize::Function;
use crate::optimizer::{Stepper, Storage};
use crate::train::{Accuracy, Batch, Data, Epoch, Learner, Measured};

/// A finished run.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// Its outcome.
    pub outcome: Outcome,
    /// All epochs of a confirmation; empty for tuning.
    pub epochs: Vec<Epoch>,
    /// Time for training and evaluation.
    pub seconds: f64,
}

/// A network or a function in training, epoch by epoch.
enum Learning<'a> {
    Network(Box<Learner<'a>>, &'a Data),
    Function(&'static Function, Var),
}

impl Learning<'_> {
    fn vars(&self) -> Vec<(String, Var)> {
        match self {
            Self::Network(learner, _) => learner.network.named_vars(),
            Self::Function(_, x) => vec![("x".into(), x.clone())],
        }
    }

    fn epoch(&mut self, optimizer: &mut Stepper, accuracy: Accuracy) -> Result<Measured> {
        match self {
            Self::Network(learner, _) => learner.epoch(optimizer, accuracy),
            Self::Function(function, x) => {
                let value = function.value(x)?;
                let evaluations = optimizer.step(&value, || function.value(x))?;
                Ok(Measured { loss: value.to_scalar()?, accuracy: None, evaluations })
            }
        }
    }

    /// The loss on some rows; for a function, its value.
    fn evaluate(&self, rows: fn(&Data) -> &Batch, accuracy: Accuracy) -> Result<Measured> {
        match self {
            Self::Network(learner, data) => learner.evaluate(rows(data), accuracy),
            Self::Function(function, x) => {
                Ok(Measured { loss: function.value(x)?.to_scalar()?, accuracy: None, evaluations: 0 })
            }
        }
    }

    /// The loss of the best constant prediction; for a function, the value at the start.
    fn baseline(&self) -> Result<f64> {
        match self {
            Self::Network(_, data) => Ok(data.to_choose_by().baseline()),
            Self::Function(function, x) => Ok(function.value(x)?.to_scalar()?),
        }
    }
}

/// A run before its training.
pub struct Job<'a> {
    experiment: &'a Experiment,
    problem: &'a Loaded,
    spec: &'a Spec,
    phase: Phase,
    epochs: usize,
    /// The seed of the data, the weights and the batches.
    pub seed: u32,
}

impl<'a> Job<'a> {
    /// The run of a plan, with this many epochs.
    pub fn new(sweep: &'a Sweep, key: Key, epochs: usize) -> Self {
        let Sweep { experiment, problems, plan } = sweep;
        let (problem, spec, seed) = (&problems[key.problem], &plan.setting(key).spec, plan.seed(key));
        Self { experiment, problem, spec, phase: key.phase, epochs, seed }
    }
}

/// Trains until the last epoch, or until the first loss that is not finite. `None`: the run was stopped.
///
/// # Errors
/// An error of Candle.
pub fn run(job: &Job, subject: &Subject, stop: &dyn Fn() -> bool) -> Result<Option<Trained>> {
    let &Job { experiment, problem, spec, phase, epochs: last, seed } = job;
    let start = Instant::now();
    let mut learning = match subject {
        Subject::Network(data) => {
            let settings = problem.settings(experiment, last, seed)?;
            Learning::Network(Box::new(Learner::new(data, &settings)?), data)
        }
        Subject::Function(function, start) => Learning::Function(function, Var::new(start.as_slice(), &Device::Cpu)?),
    };
    let baseline_loss = learning.baseline()?;
    let target = experiment.training.target * baseline_loss;
    let mut optimizer = Stepper::new(spec, learning.vars(), Storage::default())?;

    let confirms = phase == Phase::Confirm;
    let accuracy = if confirms { Accuracy::Measured } else { Accuracy::Skipped };
    let (mut epochs, mut evaluations, mut diverged_at) = (vec![], 0u64, None);
    let (mut validation_loss, mut best) = (f64::INFINITY, (f64::INFINITY, None));
    let (mut test, mut test_of_best, mut reached) = (None, None, None);
    for epoch in 1..=last {
        if stop() {
            return Ok(None);
        }
        let training = learning.epoch(&mut optimizer, accuracy)?;
        evaluations += training.evaluations as u64;
        let _swapped = optimizer.eval()?;
        validation_loss = learning.evaluate(Data::to_choose_by, Accuracy::Skipped)?.loss;
        if confirms {
            let measured = learning.evaluate(|data| &data.test, Accuracy::Measured)?;
            epochs.push(Epoch {
                train_loss: training.loss,
                test_loss: measured.loss,
                train_accuracy: training.accuracy,
                test_accuracy: measured.accuracy,
            });
            test = Some(measured);
        }
        if !(training.loss.is_finite() && validation_loss.is_finite()) {
            diverged_at = Some(epoch);
            break;
        }
        if validation_loss < best.0 {
            best = (validation_loss, Some(epoch));
            test_of_best = test;
        }
        if validation_loss <= target && reached.is_none() {
            reached = Some((epoch as f64, evaluations as f64));
        }
    }

    let test = if experiment.tuning.score == Which::Best { test_of_best } else { test };
    let finished = diverged_at.is_none();
    let or_infinite = |loss: f64| if finished && !loss.is_nan() { loss } else { f64::INFINITY };
    let never = (f64::INFINITY, f64::INFINITY);
    let reached = confirms.then_some(reached.unwrap_or(never));
    let outcome = Outcome {
        diverged_at,
        validation_loss: or_infinite(validation_loss),
        validation_best: or_infinite(best.0),
        best_epoch: best.1.filter(|_| finished),
        baseline_loss,
        test_loss: test.map(|test| or_infinite(test.loss)),
        test_accuracy: test.filter(|_| finished).and_then(|test| test.accuracy),
        epochs_to_target: reached.map(|(epochs, _)| epochs),
        gradient_evaluations: evaluations,
        evaluations_to_target: reached.map(|(_, evaluations)| evaluations),
    };
    Ok(Some(Trained { outcome, epochs, seconds: start.elapsed().as_secs_f64() }))
}

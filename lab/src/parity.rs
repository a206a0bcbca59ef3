//! How far two implementations of one optimizer differ, over all epochs.

use anyhow::{Context, Result};
use candle_core::DType;
use candle_optim::{Algorithm, Spec};
use serde::{Deserialize, Serialize};

use super::train::{Run, Settings};
use super::twins::twin;

/// PyTorch's curves of the chapter's experiment; `data/README.md` says how they were made.
const REFERENCE: &str = include_str!("../../data/reference.csv");
/// The PyTorch version of these curves.
const TORCH: &str = "PyTorch 2.15.0";
/// The learning rate of these curves.
const LR: f64 = 0.01;

/// Two optimizers that should have equal curves, and how far they differ.
#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    /// Our optimizer.
    pub optimizer: String,
    /// The other implementation.
    pub against: String,
    /// Largest difference of the train loss over all epochs.
    pub train_loss: f64,
    /// Largest difference of the test loss over all epochs.
    pub test_loss: f64,
}

impl Pair {
    fn new(ours: &Run, against: &str, theirs: &[[f64; 2]]) -> Self {
        let largest = |pick: fn(&[f64; 2]) -> f64| {
            let ours = losses(ours);
            ours.iter().zip(theirs).map(|(a, b)| difference(pick(a), pick(b))).fold(0., f64::max)
        };
        Self {
            optimizer: ours.optimizer.clone(),
            against: against.into(),
            train_loss: largest(|losses| losses[0]),
            test_loss: largest(|losses| losses[1]),
        }
    }
}

fn losses(run: &Run) -> Vec<[f64; 2]> {
    run.epochs.iter().map(|epoch| [epoch.train_loss, epoch.test_loss]).collect()
}

/// Equal values have difference 0, even if infinite or NaN; a value that is not finite is infinitely far from any
/// other.
pub fn difference(a: f64, b: f64) -> f64 {
    if a == b || a.is_nan() && b.is_nan() {
        0.
    } else if a.is_finite() && b.is_finite() {
        (a - b).abs()
    } else {
        f64::INFINITY
    }
}

/// Candle's optimizers among `runs`, each paired with ours of the same settings.
pub fn with_candle(specs: &[Spec], runs: &[Run]) -> Vec<Pair> {
    let all = || specs.iter().zip(runs);
    all()
        .flat_map(|theirs| all().map(move |ours| (ours, theirs)))
        .filter(|((ours, _), (theirs, _))| are_twins(ours, theirs))
        .map(|((_, ours), (_, theirs))| Pair::new(ours, &theirs.optimizer, &losses(theirs)))
        .collect()
}

/// Whether `theirs` is Candle's version of `ours`.
fn are_twins(ours: &Spec, theirs: &Spec) -> bool {
    let (Some(twin), [alone]) = (twin(theirs), ours.method().chain()) else { return false };
    let identity = |algorithm: &dyn Algorithm| {
        let values: Vec<_> = algorithm.fields().iter().map(|field| field.value).collect();
        (algorithm.name(), values)
    };
    let same_direction = ours.method().maximizes() == theirs.method().maximizes();
    same_direction && identity(&**alone) == identity(&*twin.ours())
}

/// A row of the reference.
#[derive(Deserialize)]
struct Row {
    optimizer: String,
    seed: u32,
    dtype: String,
    epoch: usize,
    train_loss: f64,
    test_loss: f64,
}

/// Our optimizers among `runs`, each paired with PyTorch's run of the same optimizer. The caller checks that the
/// problem is the chapter's; seeds, types and hyperparameters that the reference does not have are left out here.
pub fn with_torch(specs: &[Spec], runs: &[Run], settings: &Settings) -> Result<Vec<Pair>> {
    let rows: Vec<Row> = csv::Reader::from_reader(REFERENCE.as_bytes())
        .deserialize()
        .collect::<Result<_, _>>()
        .context("the built-in reference cannot be read")?;
    let dtype = match settings.dtype {
        DType::F64 => "f64",
        DType::F32 => "f32",
        _ => return Ok(vec![]),
    };
    let fits = |row: &&Row| row.seed == settings.seed && row.dtype == dtype;
    let mut pairs = vec![];
    for (spec, run) in specs.iter().zip(runs) {
        let mut theirs: Vec<[f64; 2]> = vec![];
        for row in rows.iter().filter(fits).filter(|row| row.epoch == 1) {
            let reference = row.optimizer.parse::<Spec>()?.or_lr(LR);
            // The text of a spec has all its hyperparameters.
            if reference.to_string() == spec.to_string() {
                let curve = rows.iter().filter(fits).filter(|other| other.optimizer == row.optimizer);
                theirs = curve.map(|row| [row.train_loss, row.test_loss]).collect();
            }
        }
        if !theirs.is_empty() {
            pairs.push(Pair::new(run, TORCH, &theirs));
        }
    }
    Ok(pairs)
}

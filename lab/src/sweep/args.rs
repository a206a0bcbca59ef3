//! The command line of the comparison.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;

use super::experiment::{Experiment, Optimizer, Split, Training, Tuning, word};
use super::problem::{CSV, Problem, names};
use super::space::Sampler;
use super::statistics::Which;
use super::task::Task;
use crate::cli::{PointArgs, Precision, count, finite, seed, share, width};
use crate::data::TaskType;
use crate::nn::Activation;

/// Where a comparison is written, and who does the work.
#[derive(Args, Clone, Debug, Default)]
pub struct Running {
    /// Folder for the results; made if it does not exist. One that was interrupted is completed
    #[arg(long, value_name = "DIR", default_value = "outputs/sweep")]
    pub out: PathBuf,
    /// Write no report.html, and no pictures but comparison.png and .svg
    #[arg(long)]
    pub no_report: bool,
    /// Write event files of the confirmation for TensorBoard, too, into the folder tensorboard of the results
    #[arg(long)]
    pub tensorboard: bool,
    /// Print nothing but errors
    #[arg(long)]
    pub quiet: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
    /// Print what would be run, and how long it would take
    #[arg(long)]
    pub dry_run: bool,
    /// Run one share of N, from 0; auto takes it from Slurm, Kubernetes or MPI. `merge` ends the work
    #[arg(long, value_name = "I/N|auto", value_parser = Task::read)]
    pub task: Option<Task>,
    /// Trainings at once; without it, one for each core
    #[arg(long, value_name = "N", value_parser = count::<1, 4096>, allow_hyphen_values = true)]
    pub workers: Option<usize>,
}

/// What the help of `sweep` ends with.
pub const RANGES: &str = "\
A range is 1e-4..1 (equal ratios), 'lin 0..1' (equal steps), 1e-4..1#4 (so many values), 0..1/0.1 (by a step) or 0.8|0.9 (these).
Commas separate keys: 'sgd@lr=1e-3..1,momentum=0|0.9'. Without @, the learning rate is searched over three decades to each side of
the optimizer's default.";

/// Options of `sweep`. Each is a key of the experiment's file.
#[derive(Args, Clone, Debug)]
pub struct SweepArgs {
    /// An optimizer and what is searched, e.g. adam@lr=1e-4..1; repeatable
    #[arg(long = "optimizer", value_name = "SPEC[@KEY=RANGE,...]", value_parser = optimizer, default_values = CHAPTER)]
    pub optimizers: Vec<Optimizer>,
    /// Settings that are tried for each optimizer
    #[arg(long, value_name = "N", default_value = "25", value_parser = count::<1, 1_000_000>, allow_hyphen_values = true)]
    pub trials: usize,
    /// Seeds on which each setting is trained
    #[arg(long, value_name = "N", default_value = "10", value_parser = count::<1, 1_000_000>, allow_hyphen_values = true)]
    pub seeds: usize,
    /// How settings are chosen: grid, random or sobol
    #[arg(long, default_value = "grid", value_parser = word::<Sampler>)]
    pub sampler: Sampler,
    /// Which validation loss counts: final, or best of all epochs
    #[arg(long, default_value = "final", value_parser = word::<Which>)]
    pub score: Which,
    /// Seeds on which the best setting of each optimizer is trained again
    #[arg(long, value_name = "N", default_value = "20", value_parser = count::<1, 1_000_000>, allow_hyphen_values = true)]
    pub confirm_seeds: usize,
    /// Seed of everything
    #[arg(long, value_name = "N", default_value = "42", value_parser = seed, allow_hyphen_values = true)]
    pub seed: u32,
    /// Passes over the training rows, or steps on a function
    #[arg(long, value_name = "N", default_value = "100", value_parser = count::<1, 10_000_000>, allow_hyphen_values = true)]
    pub epochs: usize,
    /// Rows in a batch; 0 takes all at once
    #[arg(long, value_name = "N", default_value = "0", value_parser = count::<0, 1_000_000_000>, allow_hyphen_values = true)]
    pub batch_size: usize,
    /// Share of the loss of a constant prediction, which the validation loss is to reach
    #[arg(long, value_name = "SHARE", default_value = "0.1", value_parser = target, allow_hyphen_values = true)]
    pub target: f64,
    /// Share of the rows for testing
    #[arg(long, value_name = "SHARE", default_value = "0.3", value_parser = share, allow_hyphen_values = true)]
    pub test: f64,
    /// Share of the other rows for validation
    #[arg(long, value_name = "SHARE", default_value = "0.2", value_parser = share, allow_hyphen_values = true)]
    pub validation: f64,
    /// What is trained: circles, moons, blobs, spirals, or a test function; repeatable
    #[arg(long = "problem", value_name = "NAME", value_parser = problem)]
    pub problems: Vec<String>,
    /// A CSV file: columns of numbers, and one to predict
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// The column of the file to predict; without it, `target`
    #[arg(long, value_name = "COLUMN", requires = "data")]
    pub target_column: Option<String>,
    /// What it holds: classification (classes) or regression (numbers); without it, classification
    #[arg(long, value_name = "TYPE", requires = "data")]
    pub task_type: Option<TaskType>,
    /// Columns of the file to leave out; repeatable
    #[arg(long, value_name = "COLUMN[,COLUMN...]", requires = "data", conflicts_with = "features")]
    pub drop: Vec<String>,
    /// Columns of numbers to train on; repeatable
    #[arg(long, value_name = "COLUMN[,COLUMN...]", requires = "data")]
    pub features: Vec<String>,
    /// Points on circles, moons, blobs or spirals; without it, 1000
    #[arg(long, value_name = "N", value_parser = count::<4, 10_000_000>, allow_hyphen_values = true)]
    pub samples: Option<usize>,
    /// How they are drawn.
    #[command(flatten)]
    pub points: PointArgs,
    /// Mean of the start of a function; without it, its usual one
    #[arg(long, value_name = "X[,Y...]", value_parser = finite, value_delimiter = ',', allow_hyphen_values = true)]
    pub start: Vec<f64>,
    /// Widths of the hidden layers; without it, 16,16
    #[arg(long, value_name = "N,N,...", value_parser = width, value_delimiter = ',', allow_hyphen_values = true)]
    pub hidden: Vec<usize>,
    /// What follows each hidden layer: relu, tanh, gelu or silu; without it, relu
    #[arg(long, value_name = "NAME")]
    pub activation: Option<Activation>,
    /// Number type of the weights and the data: f32, f64, bf16 or f16; without it, f32
    #[arg(long)]
    pub dtype: Option<Precision>,
    /// Where and how it runs.
    #[command(flatten)]
    pub running: Running,
}

/// Options of `run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// The experiment, such as the experiment.toml that `sweep` writes
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The data file of the experiment, if it is not beside it; repeatable
    #[arg(long, value_name = "FILE")]
    pub data: Vec<PathBuf>,
    /// Where and how it runs.
    #[command(flatten)]
    pub running: Running,
}

/// Options of `merge`.
#[derive(Args, Clone, Debug)]
pub struct MergeArgs {
    /// The folder of the tasks
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// The data file of the experiment, if it is not in the folder; repeatable
    #[arg(long, value_name = "FILE")]
    pub data: Vec<PathBuf>,
    /// Write no report.html, and no pictures but comparison.png and .svg
    #[arg(long)]
    pub no_report: bool,
    /// Write event files of the confirmation for TensorBoard, too, into the folder tensorboard of the results
    #[arg(long)]
    pub tensorboard: bool,
    /// Print nothing but errors
    #[arg(long)]
    pub quiet: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
}

/// The optimizers of the chapter.
const CHAPTER: [&str; 4] = ["sgd", "sgd:momentum=0.9", "rmsprop", "adam"];

/// The share of the baseline. In `train`, the option of this name is a column.
fn target(text: &str) -> Result<f64, String> {
    let is_number = text.parse::<f64>().is_ok();
    share(text).map_err(|why| if is_number { why } else { why + "; the column of a file is --target-column" })
}

fn optimizer(text: &str) -> Result<Optimizer, String> {
    Optimizer::read(text).map_err(|error| format!("{error:#}"))
}

fn problem(name: &str) -> Result<String, candle_optim::Error> {
    let known = names().any(|known| known == name);
    if known { Ok(name.into()) } else { Err(crate::unknown("problem", name, names())) }
}

impl SweepArgs {
    /// The experiment.
    ///
    /// # Errors
    /// An option that no problem has, or options that contradict each other.
    pub fn experiment(&self) -> Result<Experiment> {
        let mut problems = vec![];
        if let Some(path) = &self.data {
            let path = path.to_str().map(str::to_owned);
            ensure!(path.is_some(), "--data: the name of the file is not text in UTF-8");
            problems.push(Problem { name: CSV.into(), data: path, ..Problem::default() });
        }
        problems.extend(self.problems.iter().map(|name| Problem { name: name.clone(), ..Problem::default() }));
        if problems.is_empty() {
            problems.push(Problem { name: "circles".into(), ..Problem::default() });
        }
        let list = |values: &[String]| (!values.is_empty()).then(|| values.to_vec());
        let given = Problem {
            samples: self.samples,
            noise: self.points.noise,
            factor: self.points.factor,
            centers: self.points.centers,
            target_column: self.target_column.clone(),
            task_type: self.task_type.map(|task| task.name().into()),
            drop: list(&self.drop),
            features: list(&self.features),
            start: (!self.start.is_empty()).then(|| self.start.clone()),
            hidden: (!self.hidden.is_empty()).then(|| self.hidden.clone()),
            activation: self.activation.map(|activation| activation.name().into()),
            dtype: self.dtype.map(|dtype| dtype.0.as_str().into()),
            ..Problem::default()
        };
        let unused = given.set_on(&mut problems)?;
        ensure!(unused.is_empty(), "no problem has --{}", unused.join(", --").replace('_', "-"));
        Experiment::new(
            self.seed,
            problems,
            Training { epochs: self.epochs, batch_size: self.batch_size, target: self.target },
            Split { test: self.test, validation: self.validation },
            Tuning {
                trials: self.trials,
                seeds: self.seeds,
                sampler: self.sampler,
                score: self.score,
                confirm_seeds: self.confirm_seeds,
            },
            self.optimizers.clone(),
        )
    }
}

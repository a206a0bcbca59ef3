//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use candle_core::{DType, Device};
use candle_optim::{Error, Spec};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::data::{Columns, Features, Points, TaskType};
use super::minimize::Function;
use super::nn::Activation;
use super::optimizer::parse;
use super::sweep::{MergeArgs, RANGES, RunArgs, SweepArgs};
use super::unknown;

/// Optimizers for Candle, compared.
///
/// Without a command, runs the chapter: SGD, Momentum, RMSprop and Adam on θ² and on two circles, next to Candle's own
/// SGD and AdamW. Losses, pictures and a summary go to the output folder.
#[derive(Debug, Parser)]
#[command(name = "candle-optim", version, args_conflicts_with_subcommands = true, max_term_width = 110)]
pub struct Cli {
    /// What to do; none runs the chapter.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Where results go, when the chapter is run.
    #[command(flatten)]
    pub output: OutputArgs,
    /// The command that gives the same results.
    #[arg(skip)]
    pub text: String,
}

impl Cli {
    /// Reads the command line.
    ///
    /// # Errors
    /// What is not allowed, and `--help` and `--version`.
    pub fn read() -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches()?;
        let text = given(&Self::command(), &matches);
        Ok(Self { text, ..Self::from_arg_matches(&matches)? })
    }
}

/// The options that were given, but for those that say where results go and how they are shown.
fn given(command: &clap::Command, matches: &ArgMatches) -> String {
    const OTHERS: [&str; 8] = ["out", "quiet", "no_report", "overlay", "tensorboard", "json", "workers", "task"];
    let mut words = vec!["candle-optim".to_owned()];
    let (command, matches) = match matches.subcommand() {
        Some((name, matches)) => {
            words.push(name.into());
            (command.find_subcommand(name).unwrap_or(command), matches)
        }
        None => (command, matches),
    };
    let is_given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine) && !OTHERS.contains(&id);
    for arg in command.get_arguments().filter(|arg| is_given(arg.get_id().as_str())) {
        let option = arg.get_long().map(|long| format!("--{long}"));
        let occurrences = matches.get_raw_occurrences(arg.get_id().as_str());
        if !arg.get_action().takes_values() {
            words.extend(option);
            continue;
        }
        for values in occurrences.into_iter().flatten() {
            words.extend(option.clone());
            // Joined again as they were given: clap has split the values at commas.
            let values: Vec<String> = values.map(|value| value.to_string_lossy().into_owned()).collect();
            words.push(quoted(&values.join(",")));
        }
    }
    words.join(" ")
}

/// A word of the command line, in quotes where a shell would read more into it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=:,./".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train one problem with the optimizers you name
    Train(TrainArgs),
    /// Minimize a test function with the optimizers you name
    Minimize(MinimizeArgs),
    /// Compare optimizers, each tuned with the same budget
    #[command(after_help = RANGES)]
    Sweep(SweepArgs),
    /// Compare what an experiment's file says
    Run(RunArgs),
    /// End a comparison whose shares ran as tasks
    Merge(MergeArgs),
    /// Draw the report of a finished run again
    Report(ReportArgs),
    /// Measure how fast each optimizer steps on this machine
    Bench(BenchArgs),
    /// Print the CUDA kernel of an optimizer
    Kernel(KernelArgs),
    /// List every optimizer with its hyperparameters and defaults, and every test function
    List(ListArgs),
}

/// Where results go and what is printed.
#[derive(Args, Clone, Debug)]
pub struct OutputArgs {
    /// Folder for the results; made if it does not exist
    #[arg(long, value_name = "DIR", default_value = "outputs")]
    pub out: PathBuf,
    /// Write no report.html, and no pictures but those of the losses
    #[arg(long)]
    pub no_report: bool,
    /// Print nothing but errors
    #[arg(long)]
    pub quiet: bool,
}

/// How points are drawn; what is not set is as usual for where they lie.
#[derive(Args, Clone, Debug)]
pub struct PointArgs {
    /// Standard deviation of the noise; without it, 0.03, of moons and the start of a function 0.1, of blobs 1
    #[arg(long, value_parser = non_negative, allow_hyphen_values = true)]
    pub noise: Option<f64>,
    /// Radius of the inner circle, where the outer one's is 1; without it, 0.8
    #[arg(long, value_parser = radius, allow_hyphen_values = true)]
    pub factor: Option<f64>,
    /// Centers of the blobs; without it, 3
    #[arg(long, value_name = "N", value_parser = count::<2, 1000>, allow_hyphen_values = true)]
    pub centers: Option<usize>,
}

/// Options of `train`; the defaults are the chapter's.
#[derive(Args, Clone, Debug)]
pub struct TrainArgs {
    /// An optimizer, e.g. adam or sgd:lr=0.1,momentum=0.9; repeatable. `list` shows all
    #[arg(long = "optimizer", value_name = "SPEC", value_parser = parse, default_values = CHAPTER)]
    pub optimizers: Vec<Spec>,
    /// Learning rate of the optimizers that set none; without it, 0.01 for the chapter's and Candle's, for others their own
    #[arg(long, value_parser = non_negative, allow_hyphen_values = true)]
    pub lr: Option<f64>,
    /// Passes over the training rows
    #[arg(long, value_name = "N", default_value = "100", value_parser = count::<1, 10_000_000>, allow_hyphen_values = true)]
    pub epochs: usize,
    /// Rows in a batch, shuffled from the seed; 0 takes all at once
    #[arg(long, value_name = "N", default_value = "0", value_parser = count::<0, 1_000_000_000>, allow_hyphen_values = true)]
    pub batch_size: usize,
    /// Seed of the data, the split, the weights and the batches: the same as in scikit-learn and PyTorch
    #[arg(long, value_name = "N", default_value = "42", value_parser = seed, allow_hyphen_values = true)]
    pub seed: u32,
    /// What is trained: circles, moons, blobs or spirals
    #[arg(long, value_name = "NAME", default_value = "circles", value_parser = points)]
    pub problem: Points,
    /// Points that are drawn
    #[arg(long, value_name = "N", default_value = "1000", value_parser = count::<4, 10_000_000>, allow_hyphen_values = true)]
    pub samples: usize,
    /// How they are drawn.
    #[command(flatten)]
    pub points: PointArgs,
    /// Share of the rows that are set aside for testing
    #[arg(long, value_name = "SHARE", default_value = "0.3", value_parser = share, allow_hyphen_values = true)]
    pub test_size: f64,
    /// Widths of the hidden layers
    #[arg(long, value_name = "N,N,...", default_value = "16,16", value_parser = width, value_delimiter = ',', allow_hyphen_values = true)]
    pub hidden: Vec<usize>,
    /// What follows each hidden layer: relu, tanh, gelu or silu
    #[arg(long, value_name = "NAME", default_value = "relu")]
    pub activation: Activation,
    /// Number type of the weights and the data: f32, f64, bf16 or f16
    #[arg(long, default_value = "f32")]
    pub dtype: Precision,
    /// Round bf16 and f16 weights up or down at random, so that small steps are not lost; not for Candle's optimizers
    #[arg(long)]
    pub stochastic_rounding: bool,
    /// Where to train: cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "cpu")]
    pub device: DeviceName,
    /// A CSV file instead of the circles: columns of numbers, and one to predict
    #[arg(long, value_name = "FILE", conflicts_with_all = ["problem", "samples", "noise", "factor", "centers"])]
    pub data: Option<PathBuf>,
    /// The column of the file to predict
    #[arg(long, value_name = "COLUMN", default_value = "target", requires = "data")]
    pub target: String,
    /// What it holds: classification (classes) or regression (numbers)
    #[arg(long, value_name = "TYPE", default_value = "classification", requires = "data")]
    pub task_type: TaskType,
    /// Columns of the file to leave out; repeatable
    #[arg(long, value_name = "COLUMN[,COLUMN...]", requires = "data", conflicts_with = "features")]
    pub drop: Vec<String>,
    /// Columns of numbers to train on; repeatable. Without it, all but the target
    #[arg(long, value_name = "COLUMN[,COLUMN...]", requires = "data")]
    pub features: Vec<String>,
    /// A losses.csv whose curves the report lays over these: of another run, or of another framework
    #[arg(long, value_name = "FILE", conflicts_with = "no_report")]
    pub overlay: Option<PathBuf>,
    /// Write event files for TensorBoard, too, into the folder tensorboard of the results
    #[arg(long)]
    pub tensorboard: bool,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

impl TrainArgs {
    /// The points to draw.
    ///
    /// # Errors
    /// An option of other points.
    pub fn points(&self) -> anyhow::Result<Points> {
        let &PointArgs { noise, factor, centers } = &self.points;
        let given = Points { samples: self.samples, noise: noise.unwrap_or(self.problem.noise), ..self.problem };
        given.shaped(factor, centers)
    }

    /// Which columns of the file are to be what.
    pub fn columns(&self) -> Columns {
        let features = match self.features.as_slice() {
            [] => Features::AllBut(self.drop.clone()),
            features => Features::Only(features.to_vec()),
        };
        Columns { target: self.target.clone(), task: self.task_type, features }
    }
}

/// The optimizers of the chapter, those of Candle, and AdamW, which one of those is to be compared with.
const CHAPTER: [&str; 7] = ["sgd", "sgd:momentum=0.9", "rmsprop", "adam", "adamw", "candle-sgd", "candle-adamw"];
/// The chapter's optimizers on a function of one number.
const CHAPTER_MINIMIZE: [&str; 4] = ["sgd", "momentum", "rmsprop:alpha=0.9", "adam"];

/// The specs with the learning rate that is `given`, or without it the `chapters` own where the optimizer is one of the
/// chapter's. Neither changes one that the spec sets.
pub fn with_lr(specs: &[Spec], given: Option<f64>, chapters: f64) -> Vec<Spec> {
    let is_chapters = |name: &str| {
        let mut all = CHAPTER.iter().chain(&CHAPTER_MINIMIZE);
        all.any(|text| text.split(':').next() == Some(name))
    };
    let lr = |spec: &Spec| given.or_else(|| is_chapters(&spec.method().name()).then_some(chapters));
    specs.iter().map(|spec| lr(spec).into_iter().fold(spec.clone(), Spec::or_lr)).collect()
}

/// Options of `minimize`; the defaults are the chapter's.
#[derive(Args, Clone, Debug)]
pub struct MinimizeArgs {
    /// The function; `list` shows all
    #[arg(long, value_name = "NAME", default_value = "square", value_parser = |name: &str| Function::named(name))]
    pub function: &'static Function,
    /// Where to start; each function has its usual start
    #[arg(long, value_name = "X[,Y...]", value_parser = finite, value_delimiter = ',', allow_hyphen_values = true)]
    pub start: Vec<f64>,
    /// Steps to take
    #[arg(long, value_name = "N", default_value = "20", value_parser = count::<1, 10_000_000>, allow_hyphen_values = true)]
    pub steps: usize,
    /// An optimizer, e.g. momentum:beta=0.8; repeatable
    #[arg(long = "optimizer", value_name = "SPEC", value_parser = parse, default_values = CHAPTER_MINIMIZE)]
    pub optimizers: Vec<Spec>,
    /// Learning rate of the optimizers that set none; without it, 0.1 for the chapter's and Candle's, for others their own
    #[arg(long, value_parser = non_negative, allow_hyphen_values = true)]
    pub lr: Option<f64>,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Options of `report`.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// The folder with the results
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// A losses.csv whose curves are laid over those of a training
    #[arg(long, value_name = "FILE")]
    pub overlay: Option<PathBuf>,
    /// Print nothing but errors
    #[arg(long)]
    pub quiet: bool,
}

/// Options of `bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// An optimizer; repeatable. Without any, all of `list` but those that compute the loss again
    #[arg(long = "optimizer", value_name = "SPEC", value_parser = parse)]
    pub optimizers: Vec<Spec>,
    /// Parameters to step
    #[arg(long, value_name = "N", default_value = "10000000", value_parser = count::<1, 10_000_000_000>, allow_hyphen_values = true)]
    pub parameters: usize,
    /// Tensors they are spread over
    #[arg(long, value_name = "N", default_value = "1", value_parser = count::<1, 1_000_000>, allow_hyphen_values = true)]
    pub tensors: usize,
    /// Number type of the parameters: f32, f64, bf16 or f16
    #[arg(long, default_value = "f32")]
    pub dtype: Precision,
    /// Number type of the state of our optimizers: f32 or bf16; for parameters in f64 it is f64
    #[arg(long, value_name = "DTYPE", value_parser = state_type)]
    pub state_dtype: Option<Precision>,
    /// Where to step: cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "cpu")]
    pub device: DeviceName,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `kernel`.
#[derive(Args, Clone, Debug)]
pub struct KernelArgs {
    /// An optimizer, e.g. adamw or rmsprop:centered=true
    #[arg(value_name = "SPEC", value_parser = parse)]
    pub optimizer: Spec,
    /// Number type of the parameters: f32, f64, bf16 or f16
    #[arg(long, default_value = "f32")]
    pub dtype: Precision,
    /// Number type of the state: f32 or bf16; for parameters in f64 it is f64
    #[arg(long, value_name = "DTYPE", value_parser = state_type)]
    pub state_dtype: Option<Precision>,
}

/// Options of `list`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Print the optimizers as Markdown tables
    #[arg(long)]
    pub markdown: bool,
}

/// The defaults of a command's options.
pub fn defaults<T: Args>() -> T {
    #[derive(Parser)]
    struct Wrapper<T: Args> {
        #[command(flatten)]
        args: T,
    }
    Wrapper::parse_from([""]).args
}

/// A number type to train in, as it is named on the command line.
#[derive(Clone, Copy, Debug)]
pub struct Precision(pub DType);

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::among(&[DType::F32, DType::F64, DType::BF16, DType::F16], "number type", text)
    }
}

impl Precision {
    fn among(all: &[DType], what: &str, text: &str) -> Result<Self, Error> {
        let named = all.iter().find(|dtype| dtype.as_str() == text);
        named.copied().map(Self).ok_or_else(|| unknown(what, text, all.iter().map(|dtype| dtype.as_str())))
    }
}

fn state_type(text: &str) -> Result<Precision, Error> {
    Precision::among(&[DType::F32, DType::BF16], "state type", text)
}

/// A device as it is named on the command line.
#[derive(Clone, Copy, Debug)]
pub enum DeviceName {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU, by number.
    Cuda(usize),
    /// Apple's GPU.
    Metal,
}

impl FromStr for DeviceName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || unknown("device", text, ["cpu", "cuda", "cuda:N", "metal"]);
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            None if text == "metal" => Ok(Self::Metal),
            Some(("cuda", ordinal)) => ordinal.parse().map(Self::Cuda).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

impl DeviceName {
    /// Opens the device.
    ///
    /// # Errors
    /// The program was built without it, or there is none.
    pub fn open(self) -> anyhow::Result<Device> {
        let (feature, built) = match self {
            Self::Cpu => return Ok(Device::Cpu),
            Self::Cuda(_) => ("cuda", cfg!(feature = "cuda")),
            Self::Metal => ("metal", cfg!(feature = "metal")),
        };
        anyhow::ensure!(
            built,
            "--device {feature}: this program was built without it; build it with: cargo build --release --features {feature}"
        );
        #[cfg(feature = "cuda")]
        if let Self::Cuda(ordinal) = self {
            let gpus = candle_core::cuda_backend::cudarc::driver::CudaContext::device_count();
            let gpus = gpus.map_err(|error| anyhow::anyhow!("--device cuda: there is no driver: {error}"))?;
            anyhow::ensure!(gpus > 0, "--device cuda: this machine has no GPU that CUDA can use");
            anyhow::ensure!(
                ordinal < gpus as usize,
                "--device cuda:{ordinal}: there is no such GPU; allowed: cuda:0{}",
                if gpus > 1 { format!(" to cuda:{}", gpus - 1) } else { String::new() }
            );
        }
        let opened = match self {
            Self::Cuda(ordinal) => Device::new_cuda(ordinal),
            _ => Device::new_metal(0),
        };
        // The first line is the message; the rest is a backtrace.
        opened.map_err(|error| {
            let reason = error.to_string();
            anyhow::anyhow!("--device {feature}: it does not open: {}", reason.lines().next().unwrap_or_default())
        })
    }
}

fn number(text: &str, fits: impl Fn(f64) -> bool, allowed: &str) -> Result<f64, String> {
    text.parse().ok().filter(|x: &f64| x.is_finite() && fits(*x)).ok_or_else(|| format!("it must be {allowed}"))
}

pub(super) fn finite(text: &str) -> Result<f64, String> {
    number(text, |_| true, "a finite number")
}

pub(super) fn non_negative(text: &str) -> Result<f64, String> {
    number(text, |x| x >= 0., "a finite number of at least 0")
}

pub(super) fn radius(text: &str) -> Result<f64, String> {
    number(text, |x| (0. ..1.).contains(&x), "a number from 0 up to, but not including, 1")
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    number(text, |x| 0. < x && x < 1., "a number between 0 and 1, both excluded")
}

pub(super) fn count<const MIN: usize, const MAX: usize>(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|n| (MIN..=MAX).contains(n))
        .ok_or_else(|| format!("it must be a whole number from {MIN} to {MAX}"))
}

fn points(name: &str) -> Result<Points, Error> {
    Points::named(name).ok_or_else(|| unknown("problem", name, Points::NAMES))
}

pub(super) fn width(text: &str) -> Result<usize, String> {
    count::<1, 65_536>(text)
}

pub(super) fn seed(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("it must be a whole number from 0 to {}", u32::MAX))
}

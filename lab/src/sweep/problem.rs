//! What is trained: points drawn from each seed, the rows of a file, or a test function.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Var};
use candle_optim::Spec;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::experiment::{Experiment, Split};
use super::space::number;
use crate::cli::{self, Precision};
use crate::data::{self, Columns, Dataset, Division, Features, Points, Shape, Table, TaskType};
use crate::memory::Needs;
use crate::minimize::{FUNCTIONS, Function};
use crate::model::Network;
use crate::nn::Activation;
use crate::random::numpy::RandomState;
use crate::shown::{shown, shown_path};
use crate::train::{Bytes, Data, Epoch, Settings};

/// The name of a problem whose rows are in a file.
pub const CSV: &str = "csv";
/// Noise on the start of a test function, so that its seeds differ.
const START_NOISE: f64 = 0.1;

/// A problem as an experiment names it. A key that is not of its kind is not set.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// The name of points, `csv`, or the name of a test function.
    pub name: String,
    /// Its name in files and pictures; `name`, or that of the file, if it is not set.
    pub label: Option<String>,
    /// Points in all.
    pub samples: Option<usize>,
    /// Standard deviation of the noise on each coordinate; of a test function, on each coordinate of the start.
    pub noise: Option<f64>,
    /// Radius of the inner circle.
    pub factor: Option<f64>,
    /// Centers of blobs.
    pub centers: Option<usize>,
    /// The file, by its name without folders.
    pub data: Option<String>,
    /// SHA-256 of the file.
    pub sha256: Option<String>,
    /// The column of the file that is predicted.
    pub target_column: Option<String>,
    /// What it holds: classes, or numbers.
    pub task_type: Option<String>,
    /// Columns of the file to leave out.
    pub drop: Option<Vec<String>>,
    /// Columns of the file to train on; without it, all but the target.
    pub features: Option<Vec<String>>,
    /// The mean of the start.
    pub start: Option<Vec<f64>>,
    /// Widths of the hidden layers.
    pub hidden: Option<Vec<usize>>,
    /// What follows each hidden layer.
    pub activation: Option<String>,
    /// Number type of the weights and the data.
    pub dtype: Option<String>,
}

/// Where the rows of a problem come from.
enum Source {
    Points(Points),
    Rows(Table),
    Function(&'static Function),
}

impl Problem {
    /// Its name in files and pictures.
    pub fn label(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.name)
    }

    fn function(&self) -> Option<&'static Function> {
        FUNCTIONS.iter().find(|function| function.name == self.name)
    }

    /// The keys that it may have.
    ///
    /// # Errors
    /// An unknown name.
    fn keys(&self) -> Result<Vec<&'static str>> {
        let of_rows: &[&str] = match self.name.as_str() {
            "circles" => &["samples", "noise", "factor"],
            "blobs" => &["samples", "noise", "centers"],
            name if Points::named(name).is_some() => &["samples", "noise"],
            CSV => &["data", "sha256", "target_column", "task_type", "drop", "features"],
            _ if self.function().is_some() => return Ok(vec!["name", "label", "start", "noise"]),
            name => {
                let names = Points::NAMES.into_iter().chain([CSV]);
                let functions = FUNCTIONS.iter().map(|function| function.name);
                return Err(crate::unknown("problem", name, names.chain(functions)).into());
            }
        };
        Ok([&["name", "label"], of_rows, &["hidden", "activation", "dtype"]].concat())
    }

    /// Sets its keys on the problems that may have them. Returns those that none may have.
    ///
    /// # Errors
    /// A problem with an unknown name.
    pub fn set_on(&self, problems: &mut [Self]) -> Result<Vec<String>> {
        let mut unused = vec![];
        for (key, value) in toml::Table::try_from(self)?.into_iter().filter(|(key, _)| key != "name") {
            let mut used = false;
            for problem in problems.iter_mut() {
                if problem.keys()?.contains(&key.as_str()) {
                    let mut table = toml::Table::try_from(&*problem)?;
                    table.insert(key.clone(), value.clone());
                    *problem = table.try_into()?;
                    used = true;
                }
            }
            if !used {
                unused.push(key);
            }
        }
        Ok(unused)
    }

    /// Sets what has a default, and checks all but the rows.
    ///
    /// # Errors
    /// An unknown name, a key that the problem does not have, or a value that is not allowed.
    pub fn resolve(&mut self) -> Result<()> {
        let allowed = self.keys()?;
        for key in toml::Table::try_from(&*self)?.keys() {
            let (known, name) = (allowed.contains(&key.as_str()), &self.name);
            ensure!(known, "the problem '{name}' has no key '{key}'; allowed: {}", allowed.join(", "));
        }
        if let Some(function) = self.function() {
            let start = self.start.get_or_insert_with(|| function.start.to_vec());
            function.check_start(start)?;
            ensure!(start.iter().all(|x| x.is_finite()), "start holds a number that is not finite");
            self.noise.get_or_insert(START_NOISE);
        } else {
            self.hidden.get_or_insert_with(|| vec![16, 16]);
            self.activation.get_or_insert_with(|| "relu".into());
            self.dtype.get_or_insert_with(|| "f32".into());
        }
        if self.name == CSV {
            self.task_type.get_or_insert_with(|| TaskType::default().name().into());
        }
        if let Some(Points { shape, samples, noise }) = Points::named(&self.name) {
            self.samples.get_or_insert(samples);
            self.noise.get_or_insert(noise);
            match shape {
                Shape::Circles(factor) => drop(self.factor.get_or_insert(factor)),
                Shape::Blobs(centers) => drop(self.centers.get_or_insert(centers)),
                _ => {}
            }
        }
        self.check()
    }

    fn check(&self) -> Result<()> {
        let number = |key: &str, value: Option<f64>, fits: fn(f64) -> bool, allowed: &str| {
            let bad = value.filter(|&x| !fits(x));
            bad.map_or(Ok(()), |x| Err(anyhow::anyhow!("{key} = {x} is not allowed: it must be {allowed}")))
        };
        number("noise", self.noise, |x| x.is_finite() && x >= 0., "a finite number of at least 0")?;
        number("factor", self.factor, |x| (0. ..1.).contains(&x), "from 0 up to, but not including, 1")?;
        let samples = self.samples.map(|n| n as f64);
        number("samples", samples, |n| (4. ..=1e7).contains(&n), "from 4 to 10000000")?;
        let centers = self.centers.map(|n| n as f64);
        number("centers", centers, |n| (2. ..=1000.).contains(&n), "from 2 to 1000")?;
        for &width in self.hidden.iter().flatten() {
            number("hidden", Some(width as f64), |n| (1. ..=65536.).contains(&n), "widths from 1 to 65536")?;
        }
        if let Some(hidden) = &self.hidden {
            ensure!(!hidden.is_empty(), "hidden = [] is not allowed: it must have one width or more");
        }
        self.dtype()?;
        self.activation()?;
        self.task_type()?;
        if self.name == CSV {
            ensure!(self.data.is_some(), "the problem 'csv' has no file; allowed: data = \"FILE\"");
            ensure!(
                self.drop.is_none() || self.features.is_none(),
                "the keys 'drop' and 'features' exclude each other"
            );
        }
        Ok(())
    }

    /// Number type of the weights and the data.
    fn dtype(&self) -> Result<DType> {
        self.dtype.as_deref().map_or(Ok(DType::F64), |dtype| Ok(dtype.parse::<Precision>()?.0))
    }

    /// What follows each hidden layer.
    ///
    /// # Errors
    /// An unknown name.
    pub fn activation(&self) -> Result<Activation> {
        self.activation.as_deref().map_or(Ok(Activation::Relu), |name| Ok(name.parse()?))
    }

    /// What is predicted.
    ///
    /// # Errors
    /// An unknown name.
    pub fn task_type(&self) -> Result<TaskType> {
        self.task_type.as_deref().map_or(Ok(TaskType::default()), |name| Ok(name.parse()?))
    }

    /// Reads the file of the problem, if it has one, and fills in its name and its SHA-256. The file is one of `given`, of
    /// the same name, or lies in `folder`.
    ///
    /// # Errors
    /// No such file, another SHA-256, or a file that is no table.
    pub fn load(&mut self, given: &[PathBuf], folder: &Path) -> Result<Loaded> {
        let source = if let Some(function) = self.function() {
            Source::Function(function)
        } else if let Some(file) = &self.data {
            let name = Path::new(file).file_name();
            let path = given.iter().find(|path| path.file_name() == name).cloned().unwrap_or(folder.join(file));
            let read = || {
                let bytes = data::contents(&path)?;
                let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
                if let Some(known) = &self.sha256 {
                    ensure!(
                        *known == sha256,
                        "its SHA-256 is {sha256}, and the experiment is of {}; allowed: the same file",
                        shown(known)
                    );
                }
                let features = match (&self.drop, &self.features) {
                    (_, Some(features)) => Features::Only(features.clone()),
                    (drop, None) => Features::AllBut(drop.clone().unwrap_or_default()),
                };
                let target = self.target_column.clone().unwrap_or("target".into());
                let task = self.task_type()?;
                let table = data::read(&bytes, &Columns { target: target.clone(), task, features })?;
                Ok((table, sha256, target))
            };
            let (table, sha256, target) = read().with_context(|| format!("the data file '{}'", shown_path(&path)))?;
            let name = name.unwrap_or_default().to_string_lossy().into_owned();
            let stem = Path::new(&name).file_stem().unwrap_or_default().to_string_lossy().into_owned();
            self.label.get_or_insert(stem);
            (self.data, self.sha256, self.target_column) = (Some(name), Some(sha256), Some(target));
            Source::Rows(table)
        } else {
            let mut points = Points::named(&self.name).context("no points")?;
            points.samples = self.samples.unwrap_or(points.samples);
            points.noise = self.noise.unwrap_or(points.noise);
            Source::Points(points.shaped(self.factor, self.centers)?)
        };
        Ok(Loaded { problem: self.clone(), dtype: self.dtype()?, source })
    }
}

/// A problem with its rows.
pub struct Loaded {
    /// The problem.
    pub problem: Problem,
    /// Number type of the weights and the data.
    pub dtype: DType,
    source: Source,
}

/// What is trained on one seed.
pub enum Subject {
    /// A network on rows.
    Network(Data),
    /// A function from a point.
    Function(&'static Function, Vec<f64>),
}

impl Loaded {
    /// Notes of the reader of its file.
    pub fn notes(&self) -> &[String] {
        if let Source::Rows(table) = &self.source { &table.notes } else { &[] }
    }

    /// Whether the test rows are the same for all seeds.
    pub fn is_finite(&self) -> bool {
        matches!(self.source, Source::Rows(_))
    }

    /// What is predicted.
    pub fn task_type(&self) -> TaskType {
        match &self.source {
            Source::Rows(table) if table.classes.is_empty() => TaskType::Regression,
            _ => TaskType::Classification,
        }
    }

    /// Rows in all; none for a function.
    pub fn rows(&self) -> Option<usize> {
        match &self.source {
            Source::Points(points) => Some(points.samples),
            Source::Rows(table) => Some(table.rows.y.len()),
            Source::Function(_) => None,
        }
    }

    /// Widths of the network from the features to the outputs; none for a function.
    pub fn sizes(&self) -> Vec<usize> {
        let (features, classes) = match &self.source {
            Source::Points(points) => (2, points.classes()),
            Source::Rows(table) => (table.columns.len(), table.classes.len()),
            Source::Function(_) => return vec![],
        };
        let outputs = crate::model::Objective::for_classes(classes).outputs();
        [&[features], self.problem.hidden.as_deref().unwrap_or_default(), &[outputs]].concat()
    }

    /// The dimensions of each variable.
    pub fn dims(&self) -> Vec<Vec<usize>> {
        if let Some(start) = &self.problem.start {
            return vec![vec![start.len()]];
        }
        self.sizes().windows(2).flat_map(|pair| [vec![pair[1], pair[0]], vec![pair[1]]]).collect()
    }

    /// Variables of the same names and dimensions, all zero.
    ///
    /// # Errors
    /// An error of Candle.
    pub fn vars(&self) -> Result<Vec<(String, Var)>> {
        let name = |i: usize| if self.problem.start.is_some() { "x".into() } else { Network::name(i) };
        let var = |(i, dims): (usize, Vec<usize>)| Ok((name(i), Var::zeros(dims, self.dtype, &Device::Cpu)?));
        self.dims().into_iter().enumerate().map(var).collect()
    }

    /// Rows for training, validation and testing; none of a function.
    fn parts(&self, split: &Split) -> [usize; 3] {
        let rows = self.rows().unwrap_or(0);
        let part = |rows: usize, share: f64| (share * rows as f64).ceil() as usize;
        let test = part(rows, split.test);
        let validation = part(rows - test, split.validation);
        [rows - test - validation, validation, test]
    }

    /// Batches of an epoch.
    pub fn batches(&self, experiment: &Experiment) -> usize {
        let [train, ..] = self.parts(&experiment.split);
        if experiment.training.batch_size == 0 { 1 } else { train.div_ceil(experiment.training.batch_size).max(1) }
    }

    /// How a network is trained on it.
    ///
    /// # Errors
    /// An unknown activation.
    pub fn settings(&self, experiment: &Experiment, epochs: usize, seed: u32) -> Result<Settings> {
        Ok(Settings {
            epochs,
            batch_size: experiment.training.batch_size,
            seed,
            hidden: self.problem.hidden.clone().unwrap_or_default(),
            activation: self.problem.activation()?,
            dtype: self.dtype,
            stochastic_rounding: false,
            device: Device::Cpu,
        })
    }

    /// Memory that so many trainings at once take at the least, beside the file.
    ///
    /// # Errors
    /// See [`Loaded::settings`].
    pub fn needs(&self, experiment: &Experiment, spec: &Spec, workers: usize) -> Result<Needs> {
        let epochs = experiment.training.epochs;
        let records = (epochs * size_of::<Epoch>()) as f64;
        let needs = Needs::default().of(format!("--epochs {epochs}"), workers as f64 * records);
        let Some(hidden) = &self.problem.hidden else { return Ok(needs) };
        let [train, validation, test] = self.parts(&experiment.split);
        let settings = self.settings(experiment, epochs, 0)?;
        let bytes = Bytes::needed(&self.sizes(), [train, validation + test], spec, &settings);
        let rows = match &self.problem.data {
            Some(file) => format!("--data '{file}'"),
            None => format!("--samples {}", self.rows().unwrap_or(0)),
        };
        let hidden = format!("--hidden {}", hidden.iter().map(usize::to_string).collect::<Vec<_>>().join(","));
        Ok(needs
            .of(rows, workers as f64 * bytes.rows)
            .of(hidden, workers as f64 * (bytes.network + bytes.between))
            .of(format!("optimizer '{}'", spec.text()), workers as f64 * bytes.state))
    }

    /// The command that trains an optimizer on it.
    pub fn command(&self, spec: &str, experiment: &Experiment) -> String {
        let Experiment { training, split, .. } = experiment;
        let Problem {
            name,
            samples,
            noise,
            factor,
            centers,
            data,
            target_column,
            task_type,
            drop,
            features,
            start,
            hidden,
            activation,
            dtype,
            ..
        } = &self.problem;
        let mut words: Vec<String> = vec!["candle-optim".into()];
        let mut option = |name: &str, value: String| words.extend([format!("--{name}"), quoted(&value)]);
        let list = |numbers: &[f64]| numbers.iter().copied().map(number).collect::<Vec<_>>().join(",");
        if self.problem.function().is_some() {
            option("function", name.clone());
            option("optimizer", spec.into());
            option("steps", training.epochs.to_string());
            start.iter().for_each(|start| option("start", list(start)));
            words.insert(1, "minimize".into());
            return words.join(" ");
        }
        option("optimizer", spec.into());
        let usual = cli::defaults::<cli::TrainArgs>();
        let mut unless = |usual: String, name: &str, value: Option<String>| {
            value.into_iter().filter(|value| *value != usual).for_each(|value| option(name, value));
        };
        if data.is_none() {
            unless(usual.problem.name().into(), "problem", Some(name.clone()));
        }
        let points = Points::named(name);
        let noise_of = points.map_or(String::new(), |points| number(points.noise));
        let columns = |columns: &Option<Vec<String>>| columns.as_ref().map(|columns| columns.join(","));
        unless(String::new(), "data", data.clone());
        unless(usual.target.clone(), "target", target_column.clone());
        unless(usual.task_type.name().into(), "task-type", task_type.clone());
        unless(String::new(), "drop", columns(drop));
        unless(String::new(), "features", columns(features));
        unless(usual.samples.to_string(), "samples", samples.map(|samples| samples.to_string()));
        unless(noise_of, "noise", noise.map(number));
        if let Some(Points { shape, .. }) = points {
            let (factor_of, centers_of) = match shape {
                Shape::Circles(factor) => (number(factor), String::new()),
                Shape::Blobs(centers) => (String::new(), centers.to_string()),
                _ => Default::default(),
            };
            unless(factor_of, "factor", factor.map(number));
            unless(centers_of, "centers", centers.map(|centers| centers.to_string()));
        }
        let widths = |hidden: &[usize]| hidden.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        unless(widths(&usual.hidden), "hidden", hidden.as_deref().map(widths));
        unless(usual.activation.name().into(), "activation", activation.clone());
        unless(usual.dtype.0.as_str().into(), "dtype", dtype.clone());
        unless(usual.epochs.to_string(), "epochs", Some(training.epochs.to_string()));
        unless(usual.batch_size.to_string(), "batch-size", Some(training.batch_size.to_string()));
        unless(number(usual.test_size), "test-size", Some(number(split.test)));
        words.insert(1, "train".into());
        words.join(" ")
    }

    /// What a seed trains. Points are drawn and divided by the seed of the run, as `train --seed` does. Rows of a file have
    /// the test rows of the experiment's seed, so that tuning never sees them.
    ///
    /// # Errors
    /// Too few rows to divide, or numbers that overflow.
    pub fn subject(&self, split: &Split, experiment_seed: u32, seed: u32) -> Result<Subject> {
        let test_seed = if self.is_finite() { experiment_seed } else { seed };
        let division = Division { test: (split.test, test_seed), validation: Some((split.validation, seed)) };
        let dataset = match &self.source {
            Source::Points(points) => Dataset::drawn(points, &division, self.dtype)?,
            Source::Rows(table) => Dataset::of(table, &division, self.dtype)?,
            Source::Function(function) => {
                let mut random = RandomState::new(seed);
                let noise = self.problem.noise.unwrap_or_default();
                let start = self.problem.start.iter().flatten().map(|x| x + noise * random.normal());
                return Ok(Subject::Function(function, start.collect()));
            }
        };
        for (part, rows) in [("training", &dataset.train), ("validation", &dataset.validation), ("test", &dataset.test)]
        {
            let missing = (0..dataset.classes.len()).find(|class| !rows.y.classes().contains(class));
            let missing = missing.map(|class| shown(&dataset.classes[class])).unwrap_or_default();
            ensure!(
                missing.is_empty(),
                "no {part} row is of class '{missing}'; allowed: other shares, or more rows of it"
            );
        }
        let hidden = self.problem.hidden.as_deref().unwrap_or_default();
        Ok(Subject::Network(Data::new(&dataset, hidden, self.dtype, &Device::Cpu)?))
    }
}

/// A word of the command line, in quotes where a shell would read more into it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=:,./".contains(c);
    if word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

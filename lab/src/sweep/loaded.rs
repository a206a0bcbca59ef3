//! The rows of a problem, and the training that a seed gives.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Var};

use super::experiment::{Experiment, Split};
use super::problem::Problem;
use super::sha256;
use crate::data::{self, Columns, Dataset, Division, Features, Points, Table, TaskType};
use crate::memory::Needs;
use crate::minimize::Function;
use crate::model::Network;
use crate::random::numpy::RandomState;
use crate::shown::{shown, shown_path};
use crate::train::{Bytes, Data, Epoch, Settings, joined, sizes};

/// Where the rows of a problem come from.
enum Source {
    Points(Points),
    Rows(Table),
    Function(&'static Function),
}

/// A problem with its rows.
pub struct Loaded {
    /// The problem.
    pub problem: Problem,
    /// Number type of the weights and the data.
    pub dtype: DType,
    source: Source,
}

/// The subject of training for one seed.
pub enum Subject {
    /// A network on rows.
    Network(Data),
    /// A function from a point.
    Function(&'static Function, Vec<f64>),
}

impl Loaded {
    /// A problem with its file read, if it has one; the file's name and SHA-256 are filled in. The file is one of
    /// `given` with the same name, or lies in `folder`.
    ///
    /// # Errors
    /// A missing file, another SHA-256, or a file that is not a table.
    pub fn new(problem: &mut Problem, given: &[PathBuf], folder: &Path) -> Result<Loaded> {
        let source = if let Some(function) = problem.function() {
            Source::Function(function)
        } else if let Some(file) = &problem.data {
            let name = Path::new(file).file_name();
            let path = given.iter().find(|path| path.file_name() == name).cloned().unwrap_or(folder.join(file));
            let read = || {
                let known = problem.sha256.is_some() && !path.exists();
                ensure!(!known, "it is not there; allowed: --data FILE, which says where it is");
                let bytes = data::contents(&path)?;
                let sha256 = sha256(&bytes);
                if let Some(known) = &problem.sha256 {
                    ensure!(
                        *known == sha256,
                        "its SHA-256 is {sha256}, and the experiment is of {}; allowed: the same file",
                        shown(known)
                    );
                }
                let features = match (&problem.drop, &problem.features) {
                    (_, Some(features)) => Features::Only(features.clone()),
                    (drop, None) => Features::AllBut(drop.clone().unwrap_or_default()),
                };
                let target = problem.target_column.clone().unwrap_or("target".into());
                let task = problem.task_type()?;
                let table = data::read(&bytes, &Columns { target: target.clone(), task, features })?;
                Ok((table, sha256, target))
            };
            let (table, sha256, target) = read().with_context(|| format!("the data file '{}'", shown_path(&path)))?;
            let name = name.unwrap_or_default().to_string_lossy().into_owned();
            (problem.data, problem.sha256, problem.target_column) = (Some(name), Some(sha256), Some(target));
            Source::Rows(table)
        } else {
            let mut points = Points::named(&problem.name).context("no points")?;
            points.samples = problem.samples.unwrap_or(points.samples);
            points.noise = problem.noise.unwrap_or(points.noise);
            Source::Points(points.shaped(problem.factor, problem.centers)?)
        };
        Ok(Loaded { problem: problem.clone(), dtype: problem.dtype()?, source })
    }

    /// Notes of the reader of the problem's file.
    pub fn notes(&self) -> &[String] {
        if let Source::Rows(table) = &self.source { &table.notes } else { &[] }
    }

    /// Whether the test rows are the same for all seeds.
    pub fn is_finite(&self) -> bool {
        matches!(self.source, Source::Rows(_))
    }

    /// The task type.
    pub fn task_type(&self) -> TaskType {
        match &self.source {
            Source::Rows(table) if table.classes.is_empty() => TaskType::Regression,
            _ => TaskType::Classification,
        }
    }

    /// The number of rows; none for a function.
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
        sizes(features, self.problem.hidden.as_deref().unwrap_or_default(), classes)
    }

    /// The dimensions of each variable.
    fn dims(&self) -> Vec<Vec<usize>> {
        if let Some(start) = &self.problem.start {
            return vec![vec![start.len()]];
        }
        self.sizes().windows(2).flat_map(|pair| [vec![pair[1], pair[0]], vec![pair[1]]]).collect()
    }

    /// Zero variables with the same names and dimensions.
    ///
    /// # Errors
    /// An error of Candle.
    pub fn vars(&self) -> Result<Vec<(String, Var)>> {
        let name = |i: usize| if self.problem.start.is_some() { "x".into() } else { Network::name(i) };
        let var = |(i, dims): (usize, Vec<usize>)| Ok((name(i), Var::zeros(dims, self.dtype, &Device::Cpu)?));
        self.dims().into_iter().enumerate().map(var).collect()
    }

    /// The number of rows for training, validation and testing; 0 for a function.
    fn parts(&self, split: &Split) -> [usize; 3] {
        let rows = self.rows().unwrap_or(0);
        let part = |rows: usize, share: f64| (share * rows as f64).ceil() as usize;
        let test = part(rows, split.test);
        let validation = part(rows - test, split.validation);
        [rows - test - validation, validation, test]
    }

    /// The number of batches of an epoch.
    pub fn batches(&self, experiment: &Experiment) -> usize {
        let [train, ..] = self.parts(&experiment.split);
        if experiment.training.batch_size == 0 { 1 } else { train.div_ceil(experiment.training.batch_size).max(1) }
    }

    /// How a network is trained on the problem.
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

    /// The least memory of this many simultaneous trainings, besides the file, with the optimizer that has the most
    /// state.
    ///
    /// # Errors
    /// See [`Loaded::settings`].
    pub fn needs(&self, experiment: &Experiment, workers: usize) -> Result<Needs> {
        let epochs = experiment.training.epochs;
        let records = (epochs * size_of::<Epoch>()) as f64;
        let needs = Needs::default().of(format!("--epochs {epochs}"), workers as f64 * records);
        let Some(hidden) = &self.problem.hidden else { return Ok(needs) };
        let [train, validation, test] = self.parts(&experiment.split);
        let (sizes, settings) = (self.sizes(), self.settings(experiment, epochs, 0)?);
        let specs = experiment.optimizer.iter().map(|optimizer| &optimizer.spec);
        let all = specs.map(|spec| (spec, Bytes::needed(&sizes, [train, validation + test], spec, &settings)));
        let Some((spec, bytes)) = all.max_by(|a, b| a.1.state.total_cmp(&b.1.state)) else { return Ok(needs) };
        let rows = match &self.problem.data {
            Some(file) => format!("--data '{file}'"),
            None => format!("--samples {}", self.rows().unwrap_or(0)),
        };
        Ok(needs
            .of(rows, workers as f64 * bytes.rows)
            .of(format!("--hidden {}", joined(hidden, ",")), workers as f64 * (bytes.network + bytes.between))
            .of(format!("optimizer '{}'", spec.text()), workers as f64 * bytes.state))
    }

    /// The rows of a seed; none for a function. Points are drawn and divided by the seed of the run, as `train --seed`
    /// does. In a file, the experiment's seed determines the test rows, so that tuning never sees them.
    ///
    /// # Errors
    /// Too few rows to divide, or numbers that overflow.
    pub fn dataset(&self, split: &Split, experiment_seed: u32, seed: u32) -> Result<Option<Dataset>> {
        let test_seed = if self.is_finite() { experiment_seed } else { seed };
        let division = Division { test: (split.test, test_seed), validation: Some((split.validation, seed)) };
        match &self.source {
            Source::Points(points) => Dataset::drawn(points, &division, self.dtype).map(Some),
            Source::Rows(table) => Dataset::of(table, &division, self.dtype).map(Some),
            Source::Function(_) => Ok(None),
        }
    }

    /// The subject of a seed: a network on its rows, or a function from a point.
    ///
    /// # Errors
    /// See [`Loaded::dataset`].
    pub fn subject(&self, split: &Split, experiment_seed: u32, seed: u32) -> Result<Subject> {
        if let Source::Function(function) = &self.source {
            let mut random = RandomState::new(seed);
            let noise = self.problem.noise.unwrap_or_default();
            let start = self.problem.start.iter().flatten().map(|x| x + noise * random.normal());
            return Ok(Subject::Function(function, start.collect()));
        }
        let dataset = self.dataset(split, experiment_seed, seed)?.context("no rows")?;
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

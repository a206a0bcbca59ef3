//! What is trained, as an experiment names it: points drawn from each seed, the rows of a file, or a test function.

use std::path::Path;

use anyhow::{Result, ensure};
use candle_core::DType;
use serde::{Deserialize, Serialize};

use crate::cli::Precision;
use crate::data::{Points, Shape, TaskType};
use crate::minimize::{FUNCTIONS, Function};
use crate::nn::Activation;

/// The name of a problem whose rows are in a file.
pub const CSV: &str = "csv";
/// Noise on the start of a test function, so that seeds differ.
const START_NOISE: f64 = 0.1;

/// A problem as an experiment names it. A key that does not belong to its kind is not set.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// The name of points, `csv`, or the name of a test function.
    pub name: String,
    /// Its name in files and pictures; `name`, or that of the file, if it is not set.
    pub label: Option<String>,
    /// The number of points.
    pub samples: Option<usize>,
    /// Standard deviation of the noise on each coordinate; for a test function, on each coordinate of the start.
    pub noise: Option<f64>,
    /// Radius of the inner circle.
    pub factor: Option<f64>,
    /// The number of centers of blobs.
    pub centers: Option<usize>,
    /// The name of the file, without folders.
    pub data: Option<String>,
    /// SHA-256 of the file.
    pub sha256: Option<String>,
    /// The column of the file that is predicted.
    pub target_column: Option<String>,
    /// What it contains: classes, or numbers.
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

/// The names of all problems that need no file.
pub fn names() -> impl Iterator<Item = &'static str> {
    Points::NAMES.into_iter().chain(FUNCTIONS.iter().map(|function| function.name))
}

impl Problem {
    /// Its name in files and pictures.
    pub fn label(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.name)
    }

    /// Its test function, if it is one.
    pub fn function(&self) -> Option<&'static Function> {
        Function::named(&self.name).ok()
    }

    /// The keys that the problem may have.
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
            name => return Err(crate::unknown("problem", name, names().chain([CSV])).into()),
        };
        Ok([&["name", "label"], of_rows, &["hidden", "activation", "dtype"]].concat())
    }

    /// A key that an experiment's file must have for this problem, and that is missing.
    ///
    /// # Errors
    /// An unknown name.
    pub fn missing_key(&self) -> Result<Option<&'static str>> {
        const OPTIONAL: [&str; 9] =
            ["label", "factor", "centers", "sha256", "task_type", "drop", "features", "start", "name"];
        let given = toml::Table::try_from(self)?;
        let is_optional = |key: &str| OPTIONAL.contains(&key) || self.function().is_some() && key == "noise";
        Ok(self.keys()?.into_iter().find(|key| !is_optional(key) && !given.contains_key(*key)))
    }

    /// Sets its keys on the problems that may have them. Returns the keys that no problem may have.
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

    /// Sets defaults, and checks everything except the rows.
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
            let stem = self.data.as_deref().and_then(|data| Path::new(data).file_stem());
            self.label = self.label.take().or(stem.map(|stem| stem.to_string_lossy().into_owned()));
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
    ///
    /// # Errors
    /// An unknown name.
    pub fn dtype(&self) -> Result<DType> {
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
}

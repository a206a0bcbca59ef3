//! Problems to train on: rows of numbers, each with a class or a number to predict, split for training and testing.

mod blobs;
mod cells;
mod circles;
mod classes;
mod decode;
mod header;
mod moons;
mod number;
mod plane;
mod spirals;
mod split;
mod table;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_core::DType;

use crate::shown::{shown, shown_path};
pub use blobs::make_blobs;
pub use circles::make_circles;
pub use header::{Columns, Features, TaskType};
pub use moons::make_moons;
pub use spirals::make_spirals;
pub use split::{shuffled_split, stratified_split};
pub use table::{Table, read};

/// A problem, split and ready to train on.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Numbers in a row.
    pub features: usize,
    /// Names of the columns, in the order of a row.
    pub columns: Vec<String>,
    /// The name of what is predicted.
    pub target: String,
    /// Names of the classes, at least two; none if numbers are predicted.
    pub classes: Vec<String>,
    /// What the reader of the file decided and the user may want to know, one line each.
    pub notes: Vec<String>,
    /// Rows to train on, in the order of the split.
    pub train: Rows,
    /// Rows for validation; empty unless they are asked for.
    pub validation: Rows,
    /// Rows to test on.
    pub test: Rows,
}

/// Rows of a data set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Values, row by row.
    pub x: Vec<f64>,
    /// The target of each row.
    pub y: Targets,
}

/// The targets of rows: what networks predict.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// The class of each row.
    Classes(Vec<usize>),
    /// The number of each row.
    Numbers(Vec<f64>),
}

impl Default for Targets {
    fn default() -> Self {
        Self::Classes(vec![])
    }
}

impl Targets {
    /// The number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Classes(classes) => classes.len(),
            Self::Numbers(numbers) => numbers.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The class of each row; nothing if they are numbers.
    pub fn classes(&self) -> &[usize] {
        if let Self::Classes(classes) = self { classes } else { &[] }
    }

    /// The number of each row; nothing if they are classes.
    pub fn numbers(&self) -> &[f64] {
        if let Self::Numbers(numbers) = self { numbers } else { &[] }
    }

    /// The targets of some rows.
    fn take(&self, rows: &[usize]) -> Self {
        match self {
            Self::Classes(classes) => Self::Classes(rows.iter().map(|&row| classes[row]).collect()),
            Self::Numbers(numbers) => Self::Numbers(rows.iter().map(|&row| numbers[row]).collect()),
        }
    }

    /// Splits the rows into two parts as scikit-learn does: classes retain their shares.
    fn split(&self, share: f64, seed: u32) -> Result<(Vec<usize>, Vec<usize>)> {
        match self {
            Self::Classes(classes) => stratified_split(classes, share, seed),
            Self::Numbers(numbers) => shuffled_split(numbers.len(), share, seed),
        }
    }
}

/// How rows are divided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Division {
    /// Share of the rows for testing, and the seed that draws them.
    pub test: (f64, u32),
    /// Share of the other rows for validation, and the seed that draws them.
    pub validation: Option<(f64, u32)>,
}

impl Division {
    /// Training rows and test rows.
    pub fn in_two(test_size: f64, seed: u32) -> Self {
        Self { test: (test_size, seed), validation: None }
    }
}

/// How the circles are drawn; the defaults are the chapter's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Circles {
    /// Points in all.
    pub samples: usize,
    /// Standard deviation of the noise on each coordinate.
    pub noise: f64,
    /// Radius of the inner circle; the outer one's is 1.
    pub factor: f64,
}

/// Points in a plane that are drawn from a seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Points {
    /// Where they lie.
    pub shape: Shape,
    /// The number of points.
    pub samples: usize,
    /// Standard deviation of the noise on each coordinate.
    pub noise: f64,
}

/// Where points lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// On two circles; the radius of the inner one, where the outer one's is 1.
    Circles(f64),
    /// On two interleaving half circles.
    Moons,
    /// Around this many centers.
    Blobs(usize),
    /// On two spirals.
    Spirals,
}

impl From<Circles> for Points {
    fn from(Circles { samples, noise, factor }: Circles) -> Self {
        Self { shape: Shape::Circles(factor), samples, noise }
    }
}

impl Points {
    /// Their names.
    pub const NAMES: [&str; 4] = ["circles", "moons", "blobs", "spirals"];

    /// The points with this name, with the default number and noise.
    pub fn named(name: &str) -> Option<Self> {
        let samples = Circles::default().samples;
        let (shape, noise) = match name {
            "circles" => return Some(Circles::default().into()),
            "moons" => (Shape::Moons, 0.1),
            "blobs" => (Shape::Blobs(3), 1.),
            "spirals" => (Shape::Spirals, 0.03),
            _ => return None,
        };
        Some(Self { shape, samples, noise })
    }

    /// The name of where they lie.
    pub fn name(&self) -> &'static str {
        match self.shape {
            Shape::Circles(_) => "circles",
            Shape::Moons => "moons",
            Shape::Blobs(_) => "blobs",
            Shape::Spirals => "spirals",
        }
    }

    /// The same points with another radius or number of centers.
    ///
    /// # Errors
    /// A radius or a number of centers that these points do not have.
    pub fn shaped(mut self, factor: Option<f64>, centers: Option<usize>) -> Result<Self> {
        match &mut self.shape {
            Shape::Circles(known) => *known = factor.unwrap_or(*known),
            _ => ensure!(factor.is_none(), "--factor is for circles, and the problem is {}", self.name()),
        }
        match &mut self.shape {
            Shape::Blobs(known) => *known = centers.unwrap_or(*known),
            _ => ensure!(centers.is_none(), "--centers is for blobs, and the problem is {}", self.name()),
        }
        Ok(self)
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        if let Shape::Blobs(centers) = self.shape { centers } else { 2 }
    }

    /// The points that a seed draws.
    fn table(&self, seed: u32) -> Table {
        let Self { shape, samples, noise } = *self;
        let (points, y) = match shape {
            Shape::Circles(factor) => make_circles(samples, noise, factor, seed),
            Shape::Moons => make_moons(samples, noise, seed),
            Shape::Blobs(centers) => make_blobs(samples, centers, noise, seed),
            Shape::Spirals => make_spirals(samples, noise, seed),
        };
        let classes = match shape {
            Shape::Circles(_) => vec!["outer".into(), "inner".into()],
            _ => (0..self.classes()).map(|class| class.to_string()).collect(),
        };
        Table {
            columns: vec!["x0".into(), "x1".into()],
            target: "class".into(),
            classes,
            rows: Rows { x: points.into_flattened(), y: Targets::Classes(y) },
            lines: vec![],
            notes: vec![],
        }
    }
}

impl Default for Circles {
    fn default() -> Self {
        Self { samples: 1000, noise: 0.03, factor: 0.8 }
    }
}

impl Dataset {
    /// Points drawn and split by the test seed of `division`, as scikit-learn makes and splits them.
    ///
    /// # Errors
    /// Too few points to divide, or noise that would overflow in training with `dtype`.
    pub fn drawn(points: &Points, division: &Division, dtype: DType) -> Result<Self> {
        let dataset = Self::divided(&points.table(division.test.1), division)?.0;
        if let Some(TooFar { value, limit, .. }) = dataset.too_far(dtype) {
            let (noise, dtype) = (points.noise, dtype.as_str());
            bail!("--noise {noise:?} makes a coordinate of {value:.1e}; {dtype} allows {limit:.1e}")
        }
        Ok(dataset)
    }

    /// Two circles in two parts, as scikit-learn makes and splits them from the same seed.
    ///
    /// # Errors
    /// Too few points to split.
    pub fn circles(circles: &Circles, test_size: f64, seed: u32) -> Result<Self> {
        Self::drawn(&(*circles).into(), &Division::in_two(test_size, seed), DType::F64)
    }

    /// The table in a CSV file, its columns standardized by the mean and the standard deviation of the training rows.
    ///
    /// # Errors
    /// A file that is not a table of numbers with a class or a number each, or numbers that would overflow in training
    /// with `dtype`; the message names the line and the column.
    pub fn table(path: &Path, columns: &Columns, test_size: f64, seed: u32, dtype: DType) -> Result<Self> {
        let dataset = || Self::of(&read(&contents(path)?, columns)?, &Division::in_two(test_size, seed), dtype);
        dataset().with_context(|| format!("the data file '{}'", shown_path(path)))
    }

    /// A table that is divided and standardized.
    ///
    /// # Errors
    /// Too few rows to divide, or numbers that would overflow in training with `dtype`.
    pub fn of(table: &Table, division: &Division, dtype: DType) -> Result<Self> {
        let (mut dataset, order) = Self::divided(table, division)?;
        dataset.standardize();
        if let Some(TooFar { row, column, value, limit }) = dataset.too_far(dtype) {
            bail!(
                "line {}, column '{}': {value:.1e} after it is standardized by the training rows, and {} allows \
                 {limit:.1e}; remove the row, or take another --dtype",
                table.lines[order[row]],
                shown(column.map_or(&dataset.target, |column| &dataset.columns[column])),
                dtype.as_str()
            )
        }
        Ok(dataset)
    }

    /// A number that would overflow in training with `dtype`, if there is one.
    ///
    /// A loss squares numbers and layers multiply them, so the limit is the root of the largest number of the type.
    pub fn too_far(&self, dtype: DType) -> Option<TooFar> {
        let limit = match dtype {
            DType::F64 => f64::MAX,
            DType::F16 => 65504.,
            // bf16 has the range of f32.
            _ => f32::MAX.into(),
        };
        let limit = limit.sqrt();
        let is_too_far = |x: f64| x.is_nan() || x.abs() > limit;
        let parts = || [&self.train, &self.validation, &self.test].into_iter();
        let mut values = parts().flat_map(|rows| &rows.x).enumerate();
        if let Some((i, &value)) = values.find(|(_, x)| is_too_far(**x)) {
            return Some(TooFar { row: i / self.features, column: Some(i % self.features), value, limit });
        }
        let mut targets = parts().flat_map(|rows| rows.y.numbers()).enumerate();
        let (row, &value) = targets.find(|(_, x)| is_too_far(**x))?;
        Some(TooFar { row, column: None, value, limit })
    }

    /// The rows of a table for training, validation and testing, and their indices in the table.
    ///
    /// # Errors
    /// Too few rows.
    fn divided(table: &Table, division: &Division) -> Result<(Self, Vec<usize>)> {
        let Table { columns, target, classes, rows: all, notes, .. } = table;
        let features = columns.len();
        let (test_size, seed) = division.test;
        let (mut train, test) = all.y.split(test_size, seed)?;
        let mut validation = vec![];
        if let Some((share, seed)) = division.validation {
            let (rest, chosen) = all.y.take(&train).split(share, seed).context("the validation rows")?;
            let of_table = |rows: Vec<usize>| rows.into_iter().map(|row| train[row]).collect();
            (train, validation) = (of_table(rest), of_table(chosen));
        }
        let take = |rows: &[usize]| Rows {
            x: rows.iter().flat_map(|&row| &all.x[row * features..][..features]).copied().collect(),
            y: all.y.take(rows),
        };
        let dataset = Self {
            features,
            columns: columns.clone(),
            target: target.clone(),
            classes: classes.clone(),
            notes: notes.clone(),
            train: take(&train),
            validation: take(&validation),
            test: take(&test),
        };
        Ok((dataset, [train, validation, test].concat()))
    }

    /// Standardizes the columns, and targets that are numbers, by the training rows.
    fn standardize(&mut self) {
        for column in 0..self.features {
            let training: Vec<f64> = self.train.x.iter().skip(column).step_by(self.features).copied().collect();
            let standardized = standardizer(&training);
            for rows in [&mut self.train, &mut self.validation, &mut self.test] {
                for x in rows.x.iter_mut().skip(column).step_by(self.features) {
                    *x = standardized(*x);
                }
            }
        }
        if let Targets::Numbers(training) = &self.train.y {
            let standardized = standardizer(training);
            for rows in [&mut self.train, &mut self.validation, &mut self.test] {
                if let Targets::Numbers(numbers) = &mut rows.y {
                    numbers.iter_mut().for_each(|x| *x = standardized(*x));
                }
            }
        }
    }
}

/// Like scikit-learn's `StandardScaler`: with the population standard deviation; constant numbers are only centered.
fn standardizer(training: &[f64]) -> Box<dyn Fn(f64) -> f64> {
    let n = training.len() as f64;
    let values = || training.iter().copied();
    let first = training.first().copied().unwrap_or(0.);
    let constant = values().all(|x| x == first);
    // Squares of numbers near 1 are neither infinite nor zero, and a power of two changes no digit.
    let largest = values().fold(0., |largest: f64, x| largest.max(x.abs()));
    let exponent = if largest > 0. { -largest.log2() as i32 } else { 0 };
    let scaled = || values().map(|x| times_power_of_two(x, exponent));
    let mean = scaled().sum::<f64>() / n;
    let variance = scaled().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    // A variance this small is the rounding error of a constant. The error of a large constant can itself be large.
    let rounded = variance <= n * f64::EPSILON * variance + (n * mean * f64::EPSILON).powi(2);
    let unscaled = move |x| times_power_of_two(x, -exponent);
    if constant {
        Box::new(move |x| x - first)
    } else if rounded {
        Box::new(move |x| (x - unscaled(mean)) / unscaled(variance.sqrt()).max(1.))
    } else {
        Box::new(move |x| (times_power_of_two(x, exponent) - mean) / variance.sqrt())
    }
}

/// A number that is too large to train with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TooFar {
    /// Its row, counted through the training rows, then the validation rows, then the test rows.
    pub row: usize,
    /// Its column; none if it is a target.
    pub column: Option<usize>,
    /// The number.
    pub value: f64,
    /// The largest absolute value that is allowed.
    pub limit: f64,
}

/// `x · 2^exponent` without an intermediate result that is out of range.
fn times_power_of_two(x: f64, exponent: i32) -> f64 {
    let half = exponent / 2;
    x * 2f64.powi(half) * 2f64.powi(exponent - half)
}

/// The most bytes of a data file.
const MOST: u64 = 1 << 30;

/// The bytes of a file or a pipe. A device would never end.
///
/// # Errors
/// An error of the system, or something that is not a file of at most 1 GiB.
pub fn contents(path: &Path) -> Result<Vec<u8>> {
    let metadata = std::fs::metadata(path).context("cannot read it")?;
    #[cfg(unix)]
    let is_pipe = std::os::unix::fs::FileTypeExt::is_fifo(&metadata.file_type());
    #[cfg(not(unix))]
    let is_pipe = false;
    ensure!(metadata.is_file() || is_pipe, "it is not a file; allowed: a CSV file of at most 1 GiB");
    let mut bytes = vec![];
    if metadata.len() <= MOST {
        File::open(path).and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes)).context("cannot read it")?;
    }
    let length = metadata.len().max(bytes.len() as u64);
    ensure!(
        length <= MOST,
        "it has {length} bytes or more; allowed: a CSV file of at most 1 GiB, which is {MOST} bytes"
    );
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_standardized_by_the_training_rows_alone() {
        let train = Rows { x: vec![1., 7., 0.1, 3., 7., 0.1], y: Targets::Classes(vec![0, 1]) };
        let test = Rows { x: vec![5., 8., 0.1], y: Targets::Classes(vec![0]) };
        let validation = Rows { x: vec![3., 9., 0.2], y: Targets::Classes(vec![1]) };
        let (columns, target, classes, notes) = (vec![], String::new(), vec![], vec![]);
        let mut dataset = Dataset { features: 3, columns, target, classes, notes, train, validation, test };
        dataset.standardize();
        assert_eq!(dataset.train.x, [-1., 0., 0., 1., 0., 0.]);
        assert_eq!(dataset.validation.x, [1., 2., 0.1]);
        assert_eq!(dataset.test.x, [3., 1., 0.]);
    }
}

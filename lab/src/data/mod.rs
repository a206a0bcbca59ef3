//! Problems to train on: rows of numbers with a class each, split into training and test rows.

mod circles;
mod split;
mod table;

use std::path::Path;

use anyhow::Result;

pub use circles::make_circles;
pub use split::stratified_split;

/// A classification problem, split and ready to train on.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Numbers in a row.
    pub features: usize,
    /// Names of the classes; at least two.
    pub classes: Vec<String>,
    /// Rows to train on, in the order of the split.
    pub train: Rows,
    /// Rows to test on.
    pub test: Rows,
}

/// Rows of a data set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Values, row by row.
    pub x: Vec<f64>,
    /// Class of each row.
    pub y: Vec<usize>,
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

impl Default for Circles {
    fn default() -> Self {
        Self { samples: 1000, noise: 0.03, factor: 0.8 }
    }
}

impl Dataset {
    /// Two circles, as scikit-learn makes and splits them from the same seed.
    ///
    /// # Errors
    /// Too few points to split.
    pub fn circles(circles: &Circles, test_size: f64, seed: u32) -> Result<Self> {
        let (points, classes) = make_circles(circles.samples, circles.noise, circles.factor, seed);
        let all = Rows { x: points.into_flattened(), y: classes };
        Self::split(all, 2, vec!["outer".into(), "inner".into()], test_size, seed)
    }

    /// The table in a CSV file, its columns standardized by the mean and the standard deviation of the training rows.
    ///
    /// # Errors
    /// A file that is not a table of numbers with a class each; the message names the line and the column.
    pub fn table(path: &Path, target: &str, test_size: f64, seed: u32) -> Result<Self> {
        let table::Table { features, classes, rows } = table::read(path, target)?;
        let mut dataset = Self::split(rows, features, classes, test_size, seed)?;
        dataset.standardize();
        Ok(dataset)
    }

    fn split(all: Rows, features: usize, classes: Vec<String>, test_size: f64, seed: u32) -> Result<Self> {
        let (train, test) = stratified_split(&all.y, test_size, seed)?;
        let take = |rows: Vec<usize>| Rows {
            x: rows.iter().flat_map(|&row| &all.x[row * features..][..features]).copied().collect(),
            y: rows.iter().map(|&row| all.y[row]).collect(),
        };
        Ok(Self { features, classes, train: take(train), test: take(test) })
    }

    /// As scikit-learn's `StandardScaler`: the population's standard deviation, and a constant column is only centered.
    fn standardize(&mut self) {
        let n = self.train.y.len() as f64;
        for column in 0..self.features {
            let values = || self.train.x.iter().skip(column).step_by(self.features);
            let mean = values().sum::<f64>() / n;
            let variance = values().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            // A variance this small is what rounding leaves of a constant.
            let constant = variance <= n * f64::EPSILON * variance + (n * mean * f64::EPSILON).powi(2);
            let scale = if constant { 1. } else { variance.sqrt() };
            for rows in [&mut self.train, &mut self.test] {
                for x in rows.x.iter_mut().skip(column).step_by(self.features) {
                    *x = (*x - mean) / scale;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_standardized_by_the_training_rows_alone() {
        let train = Rows { x: vec![1., 7., 0.1, 3., 7., 0.1], y: vec![0, 1] };
        let test = Rows { x: vec![5., 8., 0.1], y: vec![0] };
        let mut dataset = Dataset { features: 3, classes: vec![], train, test };
        dataset.standardize();
        assert_eq!(dataset.train.x, [-1., 0., 0., 1., 0., 0.]);
        assert_eq!(dataset.test.x, [3., 1., 0.]);
    }
}

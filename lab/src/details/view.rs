//! The plane of inputs that predictions are drawn on.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};

use super::principal::principal;
use super::{View, middle, range_of};
use crate::data::{Dataset, Rows};
use crate::model::{Network, Objective};

/// The most rows that are drawn, for training and for testing.
const POINTS: [usize; 2] = [250, 150];
/// The most rows that principal components are computed from.
const ROWS: usize = 300;
/// The margin around the points, as a share of their range.
const MARGIN: f64 = 0.1;

/// A plane through inputs: a point of it is the origin plus the sum of each coordinate times its direction.
struct Plane {
    origin: Vec<f64>,
    directions: [Vec<f64>; 2],
}

impl Plane {
    fn of(rows: &Rows, features: usize) -> Option<Self> {
        let unit = |at: usize| (0..features).map(|i| f64::from(u8::from(i == at))).collect();
        if features == 2 {
            return Some(Self { origin: vec![0.; 2], directions: [unit(0), unit(1)] });
        }
        let mut all: Vec<Vec<f64>> = rows.x.chunks_exact(features).take(ROWS).map(<[f64]>::to_vec).collect();
        let mean = |i: usize| all.iter().map(|row| row[i]).sum::<f64>() / all.len() as f64;
        let origin: Vec<f64> = (0..features).map(mean).collect();
        for row in &mut all {
            row.iter_mut().zip(&origin).for_each(|(x, mean)| *x -= mean);
        }
        Some(Self { directions: principal(&all)?, origin })
    }

    fn coordinates(&self, row: &[f64]) -> [f64; 2] {
        let along = |direction: &Vec<f64>| -> f64 {
            row.iter().zip(&self.origin).zip(direction).map(|((x, origin), direction)| (x - origin) * direction).sum()
        };
        [along(&self.directions[0]), along(&self.directions[1])]
    }

    fn point(&self, [a, b]: [f64; 2]) -> impl Iterator<Item = f64> {
        let [first, second] = &self.directions;
        self.origin.iter().zip(first).zip(second).map(move |((origin, first), second)| origin + a * first + b * second)
    }
}

impl View {
    /// The plane of the two features of a data set, or of its first two principal components, with this many cells
    /// along each axis, and the inputs at the centers of the cells, `[cells², features]`. `None`: the inputs have no
    /// two directions.
    ///
    /// # Errors
    /// An error of Candle.
    pub(super) fn new(
        dataset: &Dataset,
        cells: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Option<(Self, Tensor)>> {
        let features = dataset.features;
        let Some(plane) = (features >= 2).then(|| Plane::of(&dataset.train, features)).flatten() else {
            return Ok(None);
        };
        let (mut points, mut targets, mut tested) = (vec![], vec![], 0);
        for (rows, most) in [&dataset.train, &dataset.test].into_iter().zip(POINTS) {
            for (at, row) in rows.x.chunks_exact(features).take(most).enumerate() {
                points.push(plane.coordinates(row));
                targets.push(rows.y.numbers().get(at).copied().unwrap_or_else(|| rows.y.classes()[at] as f64));
            }
            tested = rows.y.len().min(most);
        }
        let of = |axis: usize| range_of(points.iter().map(|point| point[axis]), MARGIN);
        let (Some(x), Some(y)) = (of(0), of(1)) else { return Ok(None) };
        let projected = features > 2;
        let axes = match projected {
            true => ["first principal component".into(), "second principal component".into()],
            false => [dataset.columns[0].clone(), dataset.columns[1].clone()],
        };
        let levels = range_of(dataset.train.y.numbers().iter().copied(), 0.1).unwrap_or([0., 1.]);
        let inputs: Vec<f64> = (0..cells * cells)
            .flat_map(|at| plane.point([middle(x, at % cells, cells), middle(y, at / cells, cells)]))
            .collect();
        let inputs = Tensor::from_vec(inputs, (cells * cells, features), device)?.to_dtype(dtype)?;
        let points = points.into_flattened();
        let classes = dataset.classes.clone();
        Ok(Some((Self { axes, projected, range: [x, y], cells, classes, levels, tested, points, targets }, inputs)))
    }

    /// The predictions of the network for the inputs, in the form of [`super::Optimizer::predictions`].
    ///
    /// # Errors
    /// An error of Candle.
    pub(super) fn predictions(&self, network: &Network, inputs: &Tensor) -> Result<Vec<u8>> {
        let outputs = network.evaluate(inputs)?.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        let objective = Objective::for_classes(self.classes.len());
        Ok(outputs.iter().map(|outputs| self.prediction(objective, outputs)).collect())
    }

    fn prediction(&self, objective: Objective, outputs: &[f32]) -> u8 {
        if !outputs.iter().all(|x| x.is_finite()) {
            return NONE;
        }
        match objective {
            Objective::Squared => {
                let [low, high] = self.levels;
                (((f64::from(outputs[0]) - low) / (high - low)).clamp(0., 1.) * f64::from(NONE - 1)).round() as u8
            }
            Objective::Binary => {
                let share = 1. / (1. + (-outputs[0].abs()).exp());
                class(usize::from(outputs[0] > 0.), share, 2)
            }
            Objective::MultiClass(classes) => {
                let (best, most) = outputs
                    .iter()
                    .copied()
                    .enumerate()
                    .fold((0, f32::MIN), |best, other| if other.1 > best.1 { other } else { best });
                let sum: f32 = outputs.iter().map(|x| (x - most).exp()).sum();
                class(best, 1. / sum, classes)
            }
        }
    }
}

/// A prediction that is not finite.
const NONE: u8 = 255;

/// A class with its probability, which is at least that of chance.
fn class(class: usize, probability: f32, classes: usize) -> u8 {
    let chance = 1. / classes as f32;
    let confidence = ((probability - chance) / (1. - chance)).clamp(0., 1.);
    (class % 15) as u8 * 16 + (confidence * 15.).round() as u8
}

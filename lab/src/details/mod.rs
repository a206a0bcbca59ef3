//! Data that the report draws and no table holds: predictions over the plane, the surface of the loss, and norms.
//!
//! | module | what |
//! |---|---|
//! | `recorder` | what is recorded of a training |
//! | `view` | the plane of inputs that predictions are drawn on |
//! | `surface` | the loss in a plane of weights |
//! | `principal` | principal directions of vectors |
//! | `file` | `details.safetensors` |

mod file;
mod principal;
mod recorder;
mod surface;
mod view;

use serde::{Deserialize, Serialize};

use crate::plot::ends;
pub use file::{DETAILS, read, write};
pub use recorder::{Recorder, Recording};

/// The details of a problem.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Problem {
    /// The plane of inputs; none if the inputs have no two directions.
    pub view: Option<View>,
    /// The epochs whose predictions are recorded, from 0: the initial weights.
    pub frames: Vec<usize>,
    /// The epochs whose norms are recorded, from 1.
    pub norm_epochs: Vec<usize>,
    /// The epochs that are points of a path, from 0.
    pub path_epochs: Vec<usize>,
    /// The loss around the paths; none if no optimizer moved in two directions, or the network is too large.
    pub surface: Option<Surface>,
    /// Each recorded optimizer.
    pub optimizers: Vec<Optimizer>,
}

/// The plane of inputs.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct View {
    /// Names of the axes.
    pub axes: [String; 2],
    /// Whether the axes are principal components, which represent each row only in part.
    pub projected: bool,
    /// The ends of both axes.
    pub range: [[f64; 2]; 2],
    /// Cells along each axis.
    pub cells: usize,
    /// Names of the classes; none if numbers are predicted.
    pub classes: Vec<String>,
    /// The numbers that the lowest and the highest level of a prediction stand for.
    pub levels: [f64; 2],
    /// The number of points that are test rows; they come last.
    pub tested: usize,
    /// Some of the rows, `[points, 2]`.
    #[serde(skip)]
    pub points: Vec<f64>,
    /// The target of each point: the number of its class, or its number.
    #[serde(skip)]
    pub targets: Vec<f64>,
}

/// What is recorded of an optimizer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Optimizer {
    /// The spec or the label.
    pub name: String,
    /// The share of the displacement from start to end that lies in the plane of the surface; none if the path is left
    /// out.
    pub in_plane: Option<f64>,
    /// Predictions `[frames, cells, cells]` by rows from the lower end. Classes: 16 times the class (modulo 15) plus
    /// the confidence from 0 to 15. Numbers: the level from 0 to 254. 255: not finite.
    #[serde(skip)]
    pub predictions: Vec<u8>,
    /// See [`Norm`].
    #[serde(skip)]
    pub norms: [Vec<f64>; Norm::ALL.len()],
    /// Points `[epochs, 2]` of the path in the plane of the surface.
    #[serde(skip)]
    pub path: Vec<f64>,
}

/// Euclidean norms over all weights that the network is evaluated with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// Of the gradient of an epoch's last step.
    Gradient,
    /// Of the change of the weights in an epoch.
    Update,
    /// Of the weights before that epoch.
    Weights,
    /// Of the difference from the initial weights.
    Distance,
}

impl Norm {
    /// All of them, in the order in which they are stored.
    pub const ALL: [Self; 4] = [Self::Gradient, Self::Update, Self::Weights, Self::Distance];
}

/// The loss in a plane of weights through the initial ones.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Surface {
    /// The ends of both axes, as distances from the initial weights.
    pub range: [[f64; 2]; 2],
    /// Cells along each axis.
    pub cells: usize,
    /// The number of training rows of the loss.
    pub rows: usize,
    /// The losses `[cells, cells]` by rows from the lower end.
    #[serde(skip)]
    pub losses: Vec<f64>,
}

/// The center of a cell, where `cells` cells divide the range between two ends.
pub fn middle([from, to]: [f64; 2], cell: usize, cells: usize) -> f64 {
    from + (to - from) * (cell as f64 + 0.5) / cells as f64
}

/// The smallest range that holds all finite numbers, with a margin on both sides; none if they are all equal.
pub fn range_of(numbers: impl Iterator<Item = f64>, margin: f64) -> Option<[f64; 2]> {
    let (from, to) = ends(numbers.filter(|x| x.is_finite()));
    let wide = margin * (to - from);
    (wide > 0. && wide.is_finite()).then_some([from - wide, to + wide])
}

/// At most `most` of the numbers from 0 to `last`, with both ends, dense at the beginning, where training changes most.
pub fn spread(last: usize, most: usize) -> Vec<usize> {
    if last < most {
        return (0..=last).collect();
    }
    let steps = most.max(2) - 1;
    let at = |i: usize| (last as f64 * (i as f64 / steps as f64).powi(2)).round() as usize;
    let mut all: Vec<usize> = (0..=steps).map(at).collect();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_between_both_ends() {
        assert_eq!(spread(3, 10), [0, 1, 2, 3]);
        assert_eq!(spread(100, 5), [0, 6, 25, 56, 100]);
        for (last, most) in [(0, 1), (1, 2), (100, 16), (10_000_000, 16), (7, 7), (8, 2), (5, 1)] {
            let all = spread(last, most);
            assert!(all.len() <= most.max(2) && all[0] == 0 && all[all.len() - 1] == last, "{last} {most}: {all:?}");
            assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
        }
    }

    #[test]
    fn a_range_holds_all_finite_numbers() {
        assert_eq!(range_of([1., f64::NAN, 3., f64::INFINITY].into_iter(), 0.5), Some([0., 4.]));
        assert_eq!(range_of([2., 2.].into_iter(), 0.5), None);
        assert_eq!(range_of([].into_iter(), 0.5), None);
        assert_eq!(range_of([f64::MAX, f64::MIN].into_iter(), 0.5), None);
    }
}

//! What the report draws and no table holds: predictions over the plane, the surface of the loss, and norms.
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

/// What is known of a problem.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Problem {
    /// The inputs, in a plane; none if there is no plane of two directions.
    pub view: Option<View>,
    /// The epochs of predictions, from 0: the initial weights.
    pub frames: Vec<usize>,
    /// The epochs of norms, from 1.
    pub norm_epochs: Vec<usize>,
    /// The epochs of the points of a path, from 0.
    pub path_epochs: Vec<usize>,
    /// The loss around the paths; none if no optimizer moved in two directions, or the network is too large.
    pub surface: Option<Surface>,
    /// Each recorded optimizer.
    pub optimizers: Vec<Optimizer>,
}

/// The inputs in a plane.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct View {
    /// What the axes are.
    pub axes: [String; 2],
    /// Whether the axes are principal components, which leave out something of each row.
    pub projected: bool,
    /// The ends of both axes.
    pub range: [[f64; 2]; 2],
    /// Cells along each axis.
    pub cells: usize,
    /// Names of the classes; none if numbers are predicted.
    pub classes: Vec<String>,
    /// The numbers that the levels of a prediction lie between.
    pub levels: [f64; 2],
    /// How many of the points are test rows; these are the last.
    pub tested: usize,
    /// Some of the rows, `[points, 2]`.
    #[serde(skip)]
    pub points: Vec<f64>,
    /// What is to be predicted for each: the number of its class, or its number.
    #[serde(skip)]
    pub targets: Vec<f64>,
}

/// What is recorded of an optimizer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Optimizer {
    /// The spec or the label.
    pub name: String,
    /// How much of its way from the start to the end lies in the plane of the surface; none if its path is left out.
    pub in_plane: Option<f64>,
    /// Predictions `[frames, cells, cells]` by rows from the lower end. For classes 16 times the class (modulo 15) plus the
    /// confidence from 0 to 15; for numbers the level from 0 to 254. 255: not finite.
    #[serde(skip)]
    pub predictions: Vec<u8>,
    /// See [`Norm`].
    #[serde(skip)]
    pub norms: [Vec<f64>; Norm::ALL.len()],
    /// Points `[epochs, 2]` of the path in the plane of the surface.
    #[serde(skip)]
    pub path: Vec<f64>,
}

/// Euclidean norms over all weights, of the weights that the network is evaluated with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// Of the gradient of an epoch's last step.
    Gradient,
    /// Of the change of the weights in an epoch.
    Update,
    /// Of the weights before that.
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
    /// How many training rows the loss is of.
    pub rows: usize,
    /// The losses `[cells, cells]` by rows from the lower end.
    #[serde(skip)]
    pub losses: Vec<f64>,
}

/// The middle of a cell, of so many between two ends.
pub fn middle([from, to]: [f64; 2], cell: usize, cells: usize) -> f64 {
    from + (to - from) * (cell as f64 + 0.5) / cells as f64
}

/// The least range of finite numbers, with a margin on both sides; none if they are all equal.
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

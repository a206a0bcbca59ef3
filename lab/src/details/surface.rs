//! The loss in a plane of weights (Li et al., 2018, "Visualizing the loss landscape of neural nets", arXiv:1712.09913,
//! section 7). The plane has the principal directions of the displacements from the start of each path to its middle
//! and end.

use anyhow::Result;
use rayon::prelude::*;

use super::principal::principal;
use super::{Surface, middle, range_of};
use crate::model::Network;
use crate::train::{Batch, Data, Settings};

/// Cells along each axis.
const CELLS: usize = 33;
/// The most multiplications for all losses of a surface: about a tenth of a second.
const PRODUCTS: usize = 500_000_000;
/// The loss of fewer training rows says too little.
const LEAST_ROWS: usize = 100;
/// The margin around the paths, as a share of their range.
const MARGIN: f64 = 0.2;

/// The paths of optimizers in a plane of weights, and the loss around them.
pub struct Slice {
    /// The loss.
    pub surface: Surface,
    /// The points of each path, and the share of its displacement that lies in the plane.
    pub paths: Vec<(Vec<f64>, f64)>,
}

impl Slice {
    /// The slice through paths of weights that begin at the same point. `None`: the paths lie on a line, or a loss
    /// takes too long.
    ///
    /// # Errors
    /// An error of Candle.
    pub fn new(data: &Data, settings: &Settings, paths: &[&[Vec<f32>]]) -> Result<Option<Self>> {
        let Some(start) = paths.first().and_then(|path| path.first()) else { return Ok(None) };
        let rows = (PRODUCTS / (CELLS * CELLS * start.len())).min(data.train.rows());
        if rows < LEAST_ROWS.min(data.train.rows()) {
            return Ok(None);
        }
        let way = |weights: &Vec<f32>| -> Vec<f64> {
            weights.iter().zip(start).map(|(x, start)| f64::from(*x) - f64::from(*start)).collect()
        };
        let ends = |path: &&[Vec<f32>]| [path.len() - 1, path.len() / 2].map(|at| way(&path[at]));
        let Some(directions) = principal(&paths.iter().flat_map(ends).collect::<Vec<_>>()) else { return Ok(None) };
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let project = |path: &&[Vec<f32>]| {
            let mut points = vec![];
            let mut share = 0.;
            for weights in *path {
                let way = way(weights);
                let [x, y] = [dot(&way, &directions[0]), dot(&way, &directions[1])];
                points.extend([x, y]);
                let length = dot(&way, &way).sqrt();
                share = if length > 0. { x.hypot(y) / length } else { 1. };
            }
            (points, share)
        };
        let paths: Vec<(Vec<f64>, f64)> = paths.iter().map(project).collect();
        let of = |axis: usize| {
            let points = paths.iter().flat_map(|(points, _)| points.iter().skip(axis).step_by(2));
            range_of(points.copied(), MARGIN)
        };
        let (Some(x), Some(y)) = (of(0), of(1)) else { return Ok(None) };

        let batch = data.train.first(rows)?;
        let losses = (0..CELLS).into_par_iter().map(|row| -> Result<Vec<f64>> {
            let mut network = data.network(settings)?;
            let b = middle(y, row, CELLS);
            (0..CELLS)
                .map(|column| loss(data, &mut network, &batch, start, &directions, [middle(x, column, CELLS), b]))
                .collect()
        });
        let losses = losses.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        Ok(Some(Self { surface: Surface { range: [x, y], cells: CELLS, rows, losses }, paths }))
    }
}

/// The loss at a point of the plane.
fn loss(
    data: &Data,
    network: &mut Network,
    batch: &Batch,
    start: &[f32],
    [first, second]: &[Vec<f64>; 2],
    [a, b]: [f64; 2],
) -> Result<f64> {
    let weights = start.iter().zip(first).zip(second);
    let weights: Vec<f64> =
        weights.map(|((start, first), second)| f64::from(*start) + a * first + b * second).collect();
    network.set_weights(&weights)?;
    data.loss(network, batch)
}

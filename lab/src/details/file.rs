//! `details.safetensors`: arrays as tensors, and all else as JSON in the metadata.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors, serialize};
use serde::{Deserialize, Serialize};

use super::{Norm, Problem};

/// The file's name.
pub const DETAILS: &str = "details.safetensors";
/// The metadata's key. The order of two keys would change from run to run.
const KEY: &str = "details";
const FORMAT: u32 = 1;

/// The contents of the metadata.
#[derive(Deserialize, Serialize)]
struct Text<P> {
    format: u32,
    problems: P,
}

/// An array of the file.
struct Array {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    bytes: Vec<u8>,
}

impl Array {
    fn numbers(name: String, shape: &[usize], numbers: &[f64]) -> Self {
        let bytes = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        Self { name, shape: shape.to_vec(), dtype: Dtype::F64, bytes }
    }
}

/// The file of some problems, each with the norms, predictions and paths of its optimizers.
///
/// # Errors
/// None is expected.
pub fn write(problems: &[Problem]) -> Result<Vec<u8>> {
    let mut arrays = vec![];
    for (p, problem) in problems.iter().enumerate() {
        let name = |what: &str| format!("{p}.{what}");
        if let Some(view) = &problem.view {
            let points = view.targets.len();
            arrays.push(Array::numbers(name("points"), &[points, 2], &view.points));
            arrays.push(Array::numbers(name("targets"), &[points], &view.targets));
        }
        if let Some(surface) = &problem.surface {
            arrays.push(Array::numbers(name("surface"), &[surface.cells; 2], &surface.losses));
        }
        for (o, optimizer) in problem.optimizers.iter().enumerate() {
            let name = |what: &str| format!("{p}.{o}.{what}");
            let norms = optimizer.norms.concat();
            let epochs = norms.len() / Norm::ALL.len();
            arrays.push(Array::numbers(name("norms"), &[Norm::ALL.len(), epochs], &norms));
            arrays.push(Array::numbers(name("path"), &[optimizer.path.len() / 2, 2], &optimizer.path));
            if let Some(view) = &problem.view {
                let frames = optimizer.predictions.len() / (view.cells * view.cells);
                let shape = vec![frames, view.cells, view.cells];
                let bytes = optimizer.predictions.clone();
                arrays.push(Array { name: name("predictions"), shape, dtype: Dtype::U8, bytes });
            }
        }
    }
    let text = serde_json::to_string(&Text { format: FORMAT, problems })?;
    let views = arrays.iter().map(|array| {
        let view = TensorView::new(array.dtype, array.shape.clone(), &array.bytes)?;
        Ok((array.name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>>>()?;
    Ok(serialize(views, Some(HashMap::from([(KEY.into(), text)])))?)
}

/// Reads the problems of a file.
///
/// # Errors
/// A file that [`write`] did not make.
pub fn read(bytes: &[u8]) -> Result<Vec<Problem>> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let text = header.metadata().as_ref().and_then(|metadata| metadata.get(KEY)).context("it has no details")?;
    let Text { format, mut problems }: Text<Vec<Problem>> = serde_json::from_str(text)?;
    ensure!(format == FORMAT, "its format is {format}; allowed: {FORMAT}");
    let arrays = SafeTensors::deserialize(bytes)?;
    let numbers = |name: String, n: usize| -> Result<Vec<f64>> {
        let tensor = arrays.tensor(&name)?;
        let (numbers, rest) = tensor.data().as_chunks::<8>();
        let fits = tensor.dtype() == Dtype::F64 && rest.is_empty() && numbers.len() == n;
        ensure!(fits, "'{name}' is not as long as it says");
        Ok(numbers.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
    };
    for (p, problem) in problems.iter_mut().enumerate() {
        let name = |what: &str| format!("{p}.{what}");
        if let Some(view) = &mut problem.view {
            let points = arrays.tensor(&name("targets"))?.shape().first().copied().unwrap_or(0);
            view.points = numbers(name("points"), 2 * points)?;
            view.targets = numbers(name("targets"), points)?;
            ensure!(view.tested <= points, "it has fewer points than test rows");
        }
        if let Some(surface) = &mut problem.surface {
            surface.losses = numbers(name("surface"), surface.cells * surface.cells)?;
        }
        let (frames, epochs) = (problem.frames.len(), problem.norm_epochs.len());
        for (o, optimizer) in problem.optimizers.iter_mut().enumerate() {
            let name = |what: &str| format!("{p}.{o}.{what}");
            let norms = numbers(name("norms"), Norm::ALL.len() * epochs)?;
            for (at, values) in optimizer.norms.iter_mut().enumerate() {
                *values = norms[at * epochs..(at + 1) * epochs].to_vec();
            }
            let points = if optimizer.in_plane.is_some() { problem.path_epochs.len() } else { 0 };
            optimizer.path = numbers(name("path"), 2 * points)?;
            if let Some(view) = &problem.view {
                let predictions = arrays.tensor(&name("predictions"))?;
                let n = frames * view.cells * view.cells;
                ensure!(predictions.dtype() == Dtype::U8 && predictions.data().len() == n, "predictions are missing");
                optimizer.predictions = predictions.data().to_vec();
            }
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::details::{Optimizer, Surface, View};

    fn problem() -> Problem {
        let view = View {
            axes: ["<script>\"".into(), "\u{202e}b".into()],
            range: [[-1., 1.], [0., 1e-300]],
            cells: 2,
            classes: vec!["a".into(), "b".into()],
            tested: 1,
            points: vec![0.1, 0.2, 0.3, 0.4],
            targets: vec![0., 1.],
            ..View::default()
        };
        let optimizer = Optimizer {
            name: "adam:lr=0.1".into(),
            in_plane: Some(0.1 + 0.2),
            predictions: (0..8).collect(),
            norms: [vec![f64::NAN], vec![f64::INFINITY], vec![1.], vec![0.]],
            path: vec![0., 0., 1., 2.],
        };
        let losses = vec![1., 2., 3., f64::INFINITY];
        Problem {
            view: Some(view),
            frames: vec![0, 5],
            norm_epochs: vec![5],
            path_epochs: vec![0, 5],
            surface: Some(Surface { range: [[0., 1.]; 2], cells: 2, rows: 7, losses }),
            optimizers: vec![
                optimizer,
                Optimizer { norms: [[0.; 1]; 4].map(Into::into), predictions: vec![9; 8], ..Optimizer::default() },
            ],
        }
    }

    #[test]
    fn what_is_written_is_read_and_the_bytes_are_the_same() {
        let problems = [problem(), Problem::default()];
        let bytes = write(&problems).unwrap();
        let known = read(&bytes).unwrap();
        // NaN is not equal to itself.
        assert_eq!(format!("{known:?}"), format!("{problems:?}"));
        assert_eq!(write(&known).unwrap(), bytes);
    }

    #[test]
    fn a_file_that_is_cut_or_foreign_is_an_error() {
        let bytes = write(&[problem()]).unwrap();
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).is_err(), "{end}");
        }
        let foreign = TensorView::new(Dtype::U8, vec![1], &[0]).unwrap();
        assert!(read(&serialize([("a", foreign)], None).unwrap()).is_err());
        let mut other = problem();
        other.frames.push(6);
        assert!(read(&write(&[other]).unwrap()).is_err());
    }
}

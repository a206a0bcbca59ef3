//! Records a training for the report.

use anyhow::Result;
use candle_core::Tensor;
use candle_core::backprop::GradStore;

use super::surface::Slice;
use super::{Norm, Optimizer, Problem, View, spread};
use crate::data::Dataset;
use crate::model::Network;
use crate::train::{Data, Epoch, Observer, Run, Settings, weights};

/// The most epochs whose predictions are recorded.
const FRAMES: usize = 16;
/// The most epochs that are points of a path.
const PATH: usize = 50;
/// The most epochs whose norms are recorded.
const NORMS: usize = 1000;
/// The most cells along each axis of the plane of inputs.
const CELLS: usize = 48;
/// The most predictions of all optimizers, so that the page is small enough to send.
const PREDICTIONS: usize = 240_000;
/// The most bytes of weights that paths take.
const PATHS: usize = 1 << 26;
/// The most weights of a network whose norms are recorded.
const WEIGHTS: usize = 1 << 22;

/// Records each optimizer on a problem.
pub struct Recording {
    data: Data,
    settings: Settings,
    view: Option<(View, Tensor)>,
    frames: Vec<usize>,
    norm_epochs: Vec<usize>,
    path_epochs: Vec<usize>,
}

impl Recording {
    /// A recording of this many optimizers.
    ///
    /// # Errors
    /// An error of Candle.
    pub fn new(dataset: &Dataset, settings: &Settings, optimizers: usize) -> Result<Self> {
        let data = Data::new(dataset, &settings.hidden, settings.dtype, &settings.device)?;
        let optimizers = optimizers.max(1);
        let mut frames = spread(settings.epochs, FRAMES);
        let cells = |frames: usize| ((PREDICTIONS / (optimizers * frames)) as f64).sqrt() as usize;
        // Many optimizers get fewer epochs, so that the plane has enough cells.
        while cells(frames.len()) < CELLS / 2 && frames.len() > 2 {
            frames = spread(settings.epochs, frames.len() - 1);
        }
        let view = match cells(frames.len()).min(CELLS) {
            0..=7 => None,
            cells => View::new(dataset, cells, settings.dtype, &settings.device)?,
        };
        let bytes = optimizers * data.weights() * size_of::<f32>();
        let path_epochs = match (PATHS / bytes.max(1)).min(PATH) {
            0..=2 => vec![],
            points => spread(settings.epochs, points),
        };
        let stride = settings.epochs.div_ceil(NORMS).max(1);
        let is_recorded = |epoch: &usize| (epoch - 1).is_multiple_of(stride) || *epoch == settings.epochs;
        let norm_epochs = match data.weights() {
            0..=WEIGHTS => (1..=settings.epochs).filter(is_recorded).collect(),
            _ => vec![],
        };
        Ok(Self { data, view, frames, norm_epochs, path_epochs, settings: settings.clone() })
    }

    /// Bytes that it takes in addition to the training.
    pub fn bytes_needed(sizes: &[usize], epochs: usize, optimizers: usize) -> f64 {
        let weights = weights(sizes);
        let paths = (optimizers * weights * 4 * PATH.min(epochs + 1)).min(PATHS);
        // The initial, previous and current weights, and the gradient.
        let norms = if weights <= WEIGHTS { 4 * 8 * weights } else { 0 };
        (paths + PREDICTIONS + norms + optimizers * 32 * NORMS.min(epochs)) as f64
    }

    /// Watches the training of an optimizer.
    pub fn recorder(&self, name: &str) -> Recorder<'_> {
        let optimizer = Optimizer { name: name.into(), ..Optimizer::default() };
        Recorder { recording: self, epoch: 0, start: vec![], previous: vec![], path: vec![], optimizer }
    }

    /// What was recorded of these runs.
    ///
    /// # Errors
    /// An error of Candle.
    pub fn finish(self, recorded: Vec<Recorded>, runs: &[Run]) -> Result<Problem> {
        // A path that ends higher than it starts would take up the space of the other paths.
        let falls = |run: &Run| {
            let losses = run.epochs.first().zip(run.epochs.last());
            run.diverged_at().is_none() && losses.is_some_and(|(first, last)| last.train_loss <= first.train_loss)
        };
        let drawn: Vec<usize> =
            (0..recorded.len()).filter(|&i| falls(&runs[i]) && !recorded[i].path.is_empty()).collect();
        let paths: Vec<&[Vec<f32>]> = drawn.iter().map(|&i| recorded[i].path.as_slice()).collect();
        let slice = Slice::new(&self.data, &self.settings, &paths)?;
        let mut optimizers: Vec<Optimizer> = recorded.into_iter().map(|recorded| recorded.optimizer).collect();
        let surface = slice.map(|slice| {
            for (i, (path, share)) in drawn.into_iter().zip(slice.paths) {
                (optimizers[i].path, optimizers[i].in_plane) = (path, Some(share));
            }
            slice.surface
        });
        Ok(Problem {
            frames: if self.view.is_some() { self.frames } else { vec![] },
            view: self.view.map(|(view, _)| view),
            norm_epochs: self.norm_epochs,
            path_epochs: if surface.is_some() { self.path_epochs } else { vec![] },
            surface,
            optimizers,
        })
    }
}

/// Records the training of an optimizer.
pub struct Recorder<'a> {
    recording: &'a Recording,
    epoch: usize,
    start: Vec<f64>,
    previous: Vec<f64>,
    path: Vec<Vec<f32>>,
    optimizer: Optimizer,
}

/// The record of an optimizer.
pub struct Recorded {
    path: Vec<Vec<f32>>,
    optimizer: Optimizer,
}

impl Recorder<'_> {
    /// Ends the recording.
    pub fn finish(self) -> Recorded {
        Recorded { path: self.path, optimizer: self.optimizer }
    }

    /// Records the predictions of an epoch that is a frame.
    fn predict(&mut self, network: &Network) -> Result<()> {
        if let (Some((view, inputs)), Ok(_)) = (&self.recording.view, self.recording.frames.binary_search(&self.epoch))
        {
            self.optimizer.predictions.extend(view.predictions(network, inputs)?);
        }
        Ok(())
    }

    /// Whether the weights after an epoch are a point of the path.
    fn is_on_path(&self) -> bool {
        self.recording.path_epochs.binary_search(&self.epoch).is_ok()
    }

    /// Whether norms of an epoch are recorded.
    fn has_norms(&self, epoch: usize) -> bool {
        self.recording.norm_epochs.binary_search(&epoch).is_ok()
    }

    fn extend_path(&mut self, weights: &[f64]) {
        if self.is_on_path() {
            self.path.push(weights.iter().map(|x| *x as f32).collect());
        }
    }
}

impl Observer for Recorder<'_> {
    fn wants_gradients(&self) -> bool {
        !self.recording.norm_epochs.is_empty()
    }

    fn started(&mut self, network: &Network) -> Result<()> {
        self.predict(network)?;
        if self.has_norms(1) || self.is_on_path() {
            self.start = network.weights()?;
            self.previous = self.start.clone();
            self.extend_path(&self.previous.clone());
        }
        Ok(())
    }

    fn epoch(&mut self, network: &Network, _: &Epoch, gradients: Option<&GradStore>) -> Result<()> {
        self.epoch += 1;
        self.predict(network)?;
        let is_recorded = self.has_norms(self.epoch);
        // An epoch's norms also need the weights before it.
        if !(is_recorded || self.has_norms(self.epoch + 1) || self.is_on_path()) {
            return Ok(());
        }
        let weights = network.weights()?;
        if is_recorded {
            let differences = |other: &[f64]| norm(weights.iter().zip(other).map(|(a, b)| a - b));
            for (of, values) in Norm::ALL.into_iter().zip(&mut self.optimizer.norms) {
                values.push(match of {
                    Norm::Gradient => gradients.map_or(Ok(f64::NAN), |grads| network.gradient_norm(grads))?,
                    Norm::Update => differences(&self.previous),
                    Norm::Weights => norm(self.previous.iter().copied()),
                    Norm::Distance => differences(&self.start),
                });
            }
        }
        self.extend_path(&weights);
        self.previous = weights;
        Ok(())
    }
}

fn norm(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.map(|x| x * x).sum::<f64>().sqrt()
}

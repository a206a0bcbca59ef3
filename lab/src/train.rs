//! Training one network with one optimizer: data, model, optimizer, loop, record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};
use candle_nn::Module;
use candle_optim::Spec;
use serde::{Deserialize, Serialize};

use super::data::{Dataset, Rows, Targets};
use super::model::{Network, Objective};
use super::nn::Activation;
use super::optimizer::{Stepper, Storage, state_bytes};
use super::twins::twin;
use crate::random::torch::Generator;

/// How to train, independent of the optimizer.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Passes over the training rows.
    pub epochs: usize,
    /// Rows in a batch; 0 takes all of them at once, unshuffled.
    pub batch_size: usize,
    /// Seed of the weights and of the shuffling.
    pub seed: u32,
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// The activation between the layers.
    pub activation: Activation,
    /// Number type of the weights and the data.
    pub dtype: DType,
    /// Whether the library's optimizers round 16-bit weights stochastically.
    pub stochastic_rounding: bool,
    /// The device of the weights and the data.
    pub device: Device,
}

/// The measurements of an epoch.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Epoch {
    /// The loss before the update of the epoch; with batches, the mean of their losses weighted by rows.
    pub train_loss: f64,
    /// The loss on the test rows, after the epoch.
    pub test_loss: f64,
    /// Share of training rows predicted correctly, from the same pass as `train_loss`; none if the loss is not finite.
    /// For numbers, the explained share of their variance, R².
    pub train_accuracy: Option<f64>,
    /// The same share for the test rows, after the epoch; none if `test_loss` is not finite.
    pub test_accuracy: Option<f64>,
}

impl Epoch {
    /// Whether both losses are finite.
    pub fn is_finite(&self) -> bool {
        self.train_loss.is_finite() && self.test_loss.is_finite()
    }
}

/// A finished training.
#[derive(Clone, Debug)]
pub struct Run {
    /// The optimizer's spec, as given.
    pub optimizer: String,
    /// The seed.
    pub seed: u32,
    /// All epochs, from the first.
    pub epochs: Vec<Epoch>,
    /// Time for training and evaluation.
    pub time: Duration,
    /// Whether the optimizer is Candle's own.
    pub built_in: bool,
    /// Which optimizer moved which variables, unless one optimizer moved all.
    pub note: Option<String>,
}

impl Run {
    /// The first epoch, from 1, with a loss that is NaN or infinite.
    pub fn diverged_at(&self) -> Option<usize> {
        self.epochs.iter().position(|epoch| !epoch.is_finite()).map(|index| index + 1)
    }
}

/// Bytes of main memory that the training with one optimizer takes, besides the data set.
pub struct Bytes {
    /// For tensors of rows.
    pub rows: f64,
    /// For the weights and their gradients.
    pub network: f64,
    /// For the results between the layers.
    pub between: f64,
    /// For the state of the optimizer.
    pub state: f64,
}

impl Bytes {
    /// The least memory of the optimizer of `spec`, for a network of these widths and these numbers of rows for
    /// training and evaluation.
    pub fn needed(sizes: &[usize], rows: [usize; 2], spec: &Spec, settings: &Settings) -> Self {
        let Settings { dtype, batch_size, ref device, .. } = *settings;
        let hidden = sizes.get(1..sizes.len().saturating_sub(1)).unwrap_or_default();
        let layers = sizes.windows(2).map(|pair| (pair[0] as f64 + 1.) * pair[1] as f64);
        let (weights, largest) = layers.fold((0., 0f64), |(sum, most), n| (sum + n, most.max(n)));
        let [train, test] = rows.map(|rows| rows as f64);
        let (features, size) = (sizes[0] as f64, dtype.size_in_bytes() as f64);
        if !device.is_cpu() {
            // Data and weights are made in main memory, the weights in f32.
            return Self { rows: train.max(test) * features * size, network: largest * 4., between: 0., state: 0. };
        }
        // The batches of an epoch are copies of the rows.
        let (copies, batch) = if batch_size == 0 { (1., train) } else { (2., train.min(batch_size as f64)) };
        let rows = (copies * train + test) * (features * size + 2. * size_of::<u32>() as f64);
        // The results of every layer. In the backward pass, the widest layer also has its gradient, the gradient after
        // ReLU, the gradient of the previous layer, and two copies of Candle's sum.
        let (sum, most) = hidden.iter().fold((0., 0f64), |(sum, most), &n| (sum + n as f64, most.max(n as f64)));
        let between = batch.max(test) * (sum + 5. * most) * size;
        let state: f64 = sizes.windows(2).map(|pair| state_bytes(spec, &[pair[1], pair[0] + 1], dtype, None)).sum();
        // Weights are drawn in f32 and then copied, layer by layer, before other memory is taken.
        let start = weights * size + largest * (4. + size);
        // Candle's sum of each gradient takes two more copies.
        let network = (2. * weights * size + 2. * largest * size).max(start - state - between);
        Self { rows, network, between, state }
    }
}

/// Widths from the features to the outputs for this number of classes; without classes, for a number.
pub fn sizes(features: usize, hidden: &[usize], classes: usize) -> Vec<usize> {
    [&[features], hidden, &[Objective::for_classes(classes).outputs()]].concat()
}

/// The number of weights of a network of these widths.
pub fn weights(sizes: &[usize]) -> usize {
    sizes.windows(2).map(|pair| (pair[0] + 1) * pair[1]).sum()
}

/// Widths as text: 2-16-16-1.
pub fn joined(widths: &[usize], by: &str) -> String {
    widths.iter().map(usize::to_string).collect::<Vec<_>>().join(by)
}

/// Observes a training. Its work does not count in the training's time.
pub trait Observer {
    /// Whether it needs gradients.
    fn wants_gradients(&self) -> bool {
        false
    }

    /// Called when the network has its initial weights.
    ///
    /// # Errors
    /// An error of the observer, which ends the training.
    fn started(&mut self, _network: &Network) -> Result<()> {
        Ok(())
    }

    /// Called after an epoch. The network has the weights to evaluate with; `gradients` are those of the last step.
    ///
    /// # Errors
    /// An error of the observer, which ends the training.
    fn epoch(&mut self, _network: &Network, _epoch: &Epoch, _gradients: Option<&GradStore>) -> Result<()> {
        Ok(())
    }
}

/// No observer.
impl Observer for () {}

impl<O: Observer> Observer for &mut O {
    fn wants_gradients(&self) -> bool {
        (**self).wants_gradients()
    }

    fn started(&mut self, network: &Network) -> Result<()> {
        (**self).started(network)
    }

    fn epoch(&mut self, network: &Network, epoch: &Epoch, gradients: Option<&GradStore>) -> Result<()> {
        (**self).epoch(network, epoch, gradients)
    }
}

/// Trains on `dataset` with the optimizer of `spec`, from the weights of the seed.
///
/// # Errors
/// An error of Candle, or of the observer.
pub fn train(dataset: &Dataset, spec: &Spec, settings: &Settings, mut observer: impl Observer) -> Result<Run> {
    let data = Data::new(dataset, &settings.hidden, settings.dtype, &settings.device)?;
    let mut learner = Learner::new(&data, settings)?;
    learner.retains_gradients = observer.wants_gradients();
    let storage = Storage { stochastic_rounding: settings.stochastic_rounding, ..Storage::default() };
    let mut optimizer = Stepper::new(spec, learner.network.named_vars(), storage)?;
    let (built_in, note) = (twin(spec).is_some(), optimizer.note());

    observer.started(&learner.network)?;
    let mut time = Duration::ZERO;
    let mut epochs = Vec::with_capacity(settings.epochs);
    for _ in 0..settings.epochs {
        let start = Instant::now();
        let training = learner.epoch(&mut optimizer, Accuracy::Measured)?;
        let _swapped = optimizer.eval()?;
        let test = learner.evaluate(&data.test, Accuracy::Measured)?;
        time += start.elapsed() - std::mem::take(&mut learner.aside);
        let epoch = Epoch {
            train_loss: training.loss,
            test_loss: test.loss,
            train_accuracy: training.accuracy,
            test_accuracy: test.accuracy,
        };
        epochs.push(epoch);
        observer.epoch(&learner.network, &epoch, learner.gradients.take().as_ref())?;
    }
    Ok(Run { optimizer: spec.text().into(), seed: settings.seed, epochs, time, built_in, note })
}

/// A data set as tensors, which any number of trainings may share.
pub struct Data {
    objective: Objective,
    /// Widths of the network from the features to the outputs.
    sizes: Vec<usize>,
    /// Rows to train on.
    pub train: Batch,
    /// Rows for validation, if there are any.
    validation: Option<Batch>,
    /// Rows to test on.
    pub test: Batch,
}

impl Data {
    /// The tensors of a data set, for a network with hidden layers of these widths.
    pub fn new(dataset: &Dataset, hidden: &[usize], dtype: DType, device: &Device) -> Result<Self> {
        let objective = Objective::for_classes(dataset.classes.len());
        let batch = |rows| Batch::new(rows, dataset.features, objective, dtype, device);
        let validation = (!dataset.validation.y.is_empty()).then(|| batch(&dataset.validation)).transpose()?;
        let (train, test) = (batch(&dataset.train)?, batch(&dataset.test)?);
        Ok(Self { objective, sizes: sizes(dataset.features, hidden, dataset.classes.len()), train, validation, test })
    }

    /// Rows that decide between settings: the validation rows, or the test rows if there are none.
    pub fn to_choose_by(&self) -> &Batch {
        self.validation.as_ref().unwrap_or(&self.test)
    }

    /// The number of weights of its networks.
    pub fn weights(&self) -> usize {
        weights(&self.sizes)
    }

    /// A network for it with the initial weights of the seed.
    ///
    /// # Errors
    /// An error of Candle.
    pub fn network(&self, settings: &Settings) -> Result<Network> {
        let Settings { seed, activation, dtype, ref device, .. } = *settings;
        Ok(Network::new(&self.sizes, activation, seed, dtype, device)?)
    }

    /// The loss of a network on some rows.
    ///
    /// # Errors
    /// An error of Candle.
    pub fn loss(&self, network: &Network, rows: &Batch) -> Result<f64> {
        Ok(scalar(&self.objective.loss(&network.evaluate(&rows.x)?, &rows.y)?)?)
    }

    /// The loss of the best constant prediction for these rows.
    pub fn baseline(&self, rows: &Batch) -> f64 {
        rows.labels.baseline()
    }
}

/// Whether the accuracy is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Accuracy {
    /// Loss and accuracy.
    Measured,
    /// The loss alone.
    Skipped,
}

/// A loss and an accuracy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// The mean loss.
    pub loss: f64,
    /// Share of the rows that are predicted correctly, or R²; none if the loss is not finite, or if accuracy is
    /// skipped.
    pub accuracy: Option<f64>,
    /// The number of gradients that were computed.
    pub evaluations: usize,
}

/// A network in training.
pub struct Learner<'a> {
    data: &'a Data,
    /// The network.
    pub network: Network,
    batch_size: usize,
    shuffle: Generator,
    /// Whether the gradients of the last step of an epoch are retained.
    retains_gradients: bool,
    gradients: Option<GradStore>,
    /// Time for gradients that are only retained.
    aside: Duration,
}

impl<'a> Learner<'a> {
    /// A network with the initial weights of the seed.
    pub fn new(data: &'a Data, settings: &Settings) -> Result<Self> {
        let shuffle = Generator::manual_seed(settings.seed.into());
        Ok(Self {
            data,
            network: data.network(settings)?,
            batch_size: settings.batch_size,
            shuffle,
            retains_gradients: false,
            gradients: None,
            aside: Duration::ZERO,
        })
    }

    /// Passes over the training rows once. The loss is the loss before each step; with batches, their mean weighted by
    /// rows.
    pub fn epoch(&mut self, optimizer: &mut Stepper, accuracy: Accuracy) -> Result<Measured> {
        let Self { data: Data { objective, train, .. }, network, batch_size, shuffle, .. } = self;
        let (mut total, mut hits, mut evaluations) = (0., 0, 0);
        for batch in train.batches(*batch_size, shuffle)? {
            // Two gradients of a large network at once might not fit into memory.
            self.gradients = None;
            let loss_of = |logits: &Tensor| objective.loss(logits, &batch.y);
            // Candle's graph costs a small network as much as a third of its sums.
            let takes_gradients = optimizer.takes_gradients();
            let direct = if takes_gradients { network.gradients(&batch.x, loss_of)? } else { None };
            let (logits, loss, grads) = match direct {
                Some((logits, loss, grads)) => (logits, loss, Some(grads)),
                None => {
                    let logits = network.forward(&batch.x)?;
                    let loss = loss_of(&logits)?;
                    let grads = if takes_gradients { Some(loss.backward()?) } else { None };
                    (logits, loss, grads)
                }
            };
            total += batch.rows() as f64 / train.rows() as f64 * scalar(&loss)?;
            if accuracy == Accuracy::Measured {
                hits += batch.labels.hits(*objective, &logits)?;
            }
            if let Some(grads) = grads {
                optimizer.step_down(&grads)?;
                evaluations += 1;
                self.gradients = self.retains_gradients.then_some(grads);
            } else {
                if self.retains_gradients {
                    // The method computes its own gradients. After the step, the graph would have other weights.
                    let start = Instant::now();
                    self.gradients = Some(loss.backward()?);
                    self.aside += start.elapsed();
                }
                evaluations += optimizer.step(&loss, || loss_of(&network.forward(&batch.x)?))?;
            }
        }
        let accuracy = (accuracy == Accuracy::Measured).then(|| train.labels.accuracy(total, hits)).flatten();
        Ok(Measured { loss: total, accuracy, evaluations })
    }

    /// The loss on some rows with the current weights.
    pub fn evaluate(&self, rows: &Batch, accuracy: Accuracy) -> Result<Measured> {
        let objective = self.data.objective;
        let logits = self.network.evaluate(&rows.x)?;
        let loss = scalar(&objective.loss(&logits, &rows.y)?)?;
        let accuracy = match accuracy {
            Accuracy::Measured => rows.labels.accuracy(loss, rows.labels.hits(objective, &logits)?),
            Accuracy::Skipped => None,
        };
        Ok(Measured { loss, accuracy, evaluations: 0 })
    }
}

/// Rows as tensors.
#[derive(Clone)]
pub struct Batch {
    /// `[rows, features]`
    x: Tensor,
    /// Targets, as the objective takes them.
    y: Tensor,
    labels: Labels,
}

/// The labels of a batch.
#[derive(Clone)]
enum Labels {
    /// Class numbers.
    Classes(Arc<[u32]>),
    /// The variance of the numbers.
    Variance(f64),
}

impl Labels {
    fn new(targets: &Targets) -> Self {
        match targets {
            Targets::Classes(classes) => Self::Classes(classes.iter().map(|&class| class as u32).collect()),
            Targets::Numbers(numbers) => {
                // The rounding error of the mean would give equal numbers a variance.
                if numbers.iter().all(|x| *x == numbers[0]) {
                    return Self::Variance(0.);
                }
                let n = numbers.len() as f64;
                let mean = numbers.iter().sum::<f64>() / n;
                Self::Variance(numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n)
            }
        }
    }

    /// The loss of the best constant prediction: the entropy of the frequencies of the classes, or the variance.
    fn baseline(&self) -> f64 {
        let classes = match self {
            Self::Classes(classes) => classes,
            Self::Variance(variance) => return *variance,
        };
        let mut counts = vec![0usize; classes.iter().max().map_or(0, |most| *most as usize + 1)];
        classes.iter().for_each(|&class| counts[class as usize] += 1);
        let shares = counts.iter().filter(|&&count| count > 0).map(|&count| count as f64 / classes.len() as f64);
        shares.map(|share| -share * share.ln()).sum()
    }

    fn hits(&self, objective: Objective, logits: &Tensor) -> candle_core::Result<usize> {
        if let Self::Classes(classes) = self { objective.hits(logits, classes) } else { Ok(0) }
    }

    /// The share of correct predictions, or R². None if the loss is not finite, because the outputs are then useless,
    /// or if the numbers are all equal, because there is no variance to explain.
    fn accuracy(&self, loss: f64, hits: usize) -> Option<f64> {
        match self {
            _ if !loss.is_finite() => None,
            Self::Classes(classes) => Some(hits as f64 / classes.len() as f64),
            Self::Variance(variance) => (*variance > 0.).then(|| 1. - loss / variance),
        }
    }
}

impl Batch {
    fn new(rows: &Rows, features: usize, objective: Objective, dtype: DType, device: &Device) -> Result<Self> {
        let x = Tensor::from_slice(&rows.x, (rows.y.len(), features), device)?.to_dtype(dtype)?;
        Ok(Self { x, y: objective.targets(&rows.y, dtype, device)?, labels: Labels::new(&rows.y) })
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.x.dims()[0]
    }

    /// The first `rows` rows, or all.
    ///
    /// # Errors
    /// An error of Candle.
    pub fn first(&self, rows: usize) -> Result<Self> {
        let rows = rows.min(self.rows());
        let labels = match &self.labels {
            Labels::Classes(classes) => Labels::Classes(classes[..rows].into()),
            Labels::Variance(variance) => Labels::Variance(*variance),
        };
        Ok(Self { x: self.x.narrow(0, 0, rows)?, y: self.y.narrow(0, 0, rows)?, labels })
    }

    /// The loss of the best constant prediction.
    pub fn baseline(&self) -> f64 {
        self.labels.baseline()
    }

    /// The batches of an epoch: shuffled like `torch.randperm` and cut into `size` rows, the last one possibly shorter;
    /// for size 0, all rows in order.
    fn batches(&self, size: usize, shuffle: &mut Generator) -> Result<Vec<Self>> {
        if size == 0 {
            return Ok(vec![self.clone()]);
        }
        let order: Vec<u32> = shuffle.randperm(self.rows()).into_iter().map(|row| row as u32).collect();
        let cut = |rows: &[u32]| {
            let labels = match &self.labels {
                Labels::Classes(classes) => Labels::Classes(rows.iter().map(|&row| classes[row as usize]).collect()),
                // Only the variance of all rows is used.
                Labels::Variance(variance) => Labels::Variance(*variance),
            };
            let rows = Tensor::new(rows, self.x.device())?;
            Ok(Self { x: self.x.index_select(&rows, 0)?, y: self.y.index_select(&rows, 0)?, labels })
        };
        order.chunks(size).map(cut).collect()
    }
}

fn scalar(tensor: &Tensor) -> candle_core::Result<f64> {
    match tensor.dtype() {
        DType::F32 => tensor.to_scalar::<f32>().map(f64::from),
        _ => tensor.to_dtype(DType::F64)?.to_scalar(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_have_no_variance_to_explain() {
        for n in 1..40 {
            for value in [0.1, -0.158, 1. / 3., 1e-9] {
                let labels = Labels::new(&Targets::Numbers(vec![value; n]));
                assert_eq!((labels.baseline(), labels.accuracy(0.5, 0)), (0., None), "{n} times {value}");
            }
        }
        let labels = Labels::new(&Targets::Numbers(vec![1., 3.]));
        assert_eq!((labels.baseline(), labels.accuracy(0.25, 0)), (1., Some(0.75)));
    }
}

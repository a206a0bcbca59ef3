//! The network: fully connected layers with an activation between them, from PyTorch's initial weights.

use candle_core::backprop::GradStore;
use candle_core::{D, DType, Device, Result, Storage, Tensor, Var, WithDType};
use candle_nn::Module;
use candle_optim::nn::{bce_with_logits, cross_entropy, mse};

use crate::data::Targets;
use crate::nn::{Activation, Dense, Mlp};
use crate::random::torch::Generator;

/// A network and the variables it is made of.
pub struct Network {
    layers: Mlp,
    vars: Vec<Var>,
}

impl Network {
    /// The weights that `torch.manual_seed(seed)` and then
    /// `nn.Sequential(nn.Linear(sizes[0], sizes[1]), nn.ReLU(), ...)` produce, drawn in f32 and converted to `dtype`;
    /// `activation` replaces ReLU.
    pub fn new(sizes: &[usize], activation: Activation, seed: u32, dtype: DType, device: &Device) -> Result<Self> {
        let mut generator = Generator::manual_seed(seed.into());
        let (mut layers, mut vars) = (vec![], vec![]);
        for (i, pair) in sizes.windows(2).enumerate() {
            let (inputs, outputs) = (pair[0], pair[1]);
            let (weight, bias) = generator.linear(inputs, outputs);
            let var = |values: Vec<f32>, shape: &[usize]| {
                Var::from_tensor(&Tensor::from_vec(values, shape, device)?.to_dtype(dtype)?)
            };
            let (weight, bias) = (var(weight, &[outputs, inputs])?, var(bias, &[outputs])?);
            let last = i + 2 == sizes.len();
            let activation = if last { Activation::Identity } else { activation };
            layers.push(Dense::from_vars(&weight, &bias, activation)?);
            vars.extend([weight, bias]);
        }
        Ok(Self { layers: Mlp::new(layers)?, vars })
    }

    /// Weight and bias of each layer, from the first to the last.
    pub fn named_vars(&self) -> Vec<(String, Var)> {
        self.vars.iter().enumerate().map(|(i, var)| (Self::name(i), var.clone())).collect()
    }

    /// The name of a variable as in `nn.Sequential`, where each activation also has a number.
    pub fn name(i: usize) -> String {
        format!("{}.{}", i / 2 * 2, ["weight", "bias"][i % 2])
    }

    /// Logits and loss of the rows x, and the gradients of all variables, without Candle's graph of the network.
    /// `None`: the network is too large for that.
    ///
    /// # Errors
    /// An error of Candle.
    pub fn gradients(
        &self,
        x: &Tensor,
        loss: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Option<(Tensor, Tensor, GradStore)>> {
        if !self.layers.is_one_pass(x)? {
            return Ok(None);
        }
        let logits = Var::from_tensor(&self.layers.evaluate(x)?)?;
        let loss = loss(&logits)?;
        let mut grads = loss.backward()?;
        let Some(grad) = grads.remove(&logits) else { return Ok(None) };
        let of_vars = self.layers.gradients(x, &grad)?;
        for (var, grad) in self.vars.iter().zip(of_vars) {
            grads.insert(var, grad);
        }
        Ok(Some((logits.as_detached_tensor(), loss, grads)))
    }

    /// All weights in one vector.
    ///
    /// # Errors
    /// An error of Candle.
    pub fn weights(&self) -> Result<Vec<f64>> {
        let all = self.vars.iter().map(|var| var.flatten_all()?.to_dtype(DType::F64)?.to_vec1());
        Ok(all.collect::<Result<Vec<_>>>()?.concat())
    }

    /// Sets all weights, in the order of [`Network::weights`].
    ///
    /// # Errors
    /// Too few numbers, or an error of Candle.
    pub fn set_weights(&mut self, weights: &[f64]) -> Result<()> {
        let mut from = 0;
        for var in &self.vars {
            let to = from + var.elem_count();
            let Some(own) = weights.get(from..to) else { candle_core::bail!("{} weights are too few", weights.len()) };
            var.set(&Tensor::from_slice(own, var.shape(), var.device())?.to_dtype(var.dtype())?)?;
            from = to;
        }
        Ok(())
    }

    /// The norm of the gradient of all weights.
    ///
    /// # Errors
    /// An error of Candle.
    pub fn gradient_norm(&self, grads: &GradStore) -> Result<f64> {
        let mut sum = 0.;
        for grad in self.vars.iter().filter_map(|var| grads.get(var)) {
            let grad = grad.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            sum += grad.iter().map(|x| x * x).sum::<f64>();
        }
        Ok(sum.sqrt())
    }

    /// Logits for evaluation. No gradient passes through them.
    pub fn evaluate(&self, x: &Tensor) -> Result<Tensor> {
        self.layers.evaluate(x)
    }
}

impl Module for Network {
    /// Logits `[rows, outputs]` of inputs `[rows, features]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.layers.forward(x)
    }
}

/// What the network is trained for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// Two classes, one logit: binary cross entropy. Targets are `[rows, 1]`, of the type of the logits.
    Binary,
    /// More classes, one logit each: cross entropy. Targets are `[rows]` class numbers, u32.
    MultiClass(usize),
    /// A number: mean squared error. Targets are `[rows, 1]`, of the type of the outputs.
    Squared,
}

impl Objective {
    /// The objective for this number of classes; without classes, a number is predicted.
    pub fn for_classes(classes: usize) -> Self {
        match classes {
            0 => Self::Squared,
            2 => Self::Binary,
            _ => Self::MultiClass(classes),
        }
    }

    /// The number of outputs of the network.
    pub fn outputs(self) -> usize {
        match self {
            Self::Binary | Self::Squared => 1,
            Self::MultiClass(classes) => classes,
        }
    }

    /// Targets as a tensor.
    pub fn targets(self, targets: &Targets, dtype: DType, device: &Device) -> Result<Tensor> {
        match targets {
            Targets::Numbers(numbers) => Tensor::from_slice(numbers, (numbers.len(), 1), device)?.to_dtype(dtype),
            Targets::Classes(classes) => {
                let classes = Tensor::from_iter(classes.iter().map(|&class| class as u32), device)?;
                if self == Self::Binary { classes.reshape(((), 1))?.to_dtype(dtype) } else { Ok(classes) }
            }
        }
    }

    /// Mean loss over the rows; a scalar.
    pub fn loss(self, logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
        match self {
            Self::Binary => bce_with_logits(logits, targets),
            Self::MultiClass(_) => cross_entropy(logits, targets),
            Self::Squared => mse(logits, targets),
        }
    }

    /// The number of rows whose class is predicted correctly; 0 if a number is predicted.
    pub fn hits(self, logits: &Tensor, classes: &[u32]) -> Result<usize> {
        Ok(match self {
            Self::Binary => {
                let logits = logits.to_device(&Device::Cpu)?.contiguous()?;
                match logits.dtype() {
                    DType::F64 => correct::<f64>(&logits, classes)?,
                    // Half precision widens without loss.
                    _ => correct::<f32>(&logits.to_dtype(DType::F32)?, classes)?,
                }
            }
            Self::MultiClass(_) => {
                let predicted: Vec<u32> = logits.argmax(D::Minus1)?.to_vec1()?;
                predicted.iter().zip(classes).map(|(predicted, class)| usize::from(predicted == class)).sum()
            }
            Self::Squared => 0,
        })
    }
}

/// The number of contiguous logits on the CPU whose sign agrees with the class: above zero for class 1 only.
fn correct<T: WithDType>(logits: &Tensor, classes: &[u32]) -> Result<usize> {
    let (storage, layout) = logits.storage_and_layout();
    let values = match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(storage), Some((start, end))) => &storage.as_slice::<T>()?[start..end],
        _ => candle_core::bail!("expected a contiguous tensor on the CPU"),
    };
    let zero = T::zero();
    let correct = |(&logit, &class): (&T, &u32)| u32::from((logit > zero) == (class == 1));
    Ok(values.iter().zip(classes).map(correct).sum::<u32>() as usize)
}

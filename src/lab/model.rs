//! The network: fully connected layers with ReLU between them, from PyTorch's initial weights.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::{Module, Sequential, seq};

use crate::nn::{Activation, Dense, bce_with_logits, cross_entropy};
use crate::random::torch::Generator;

/// A network and the variables it is made of.
pub struct Network {
    layers: Sequential,
    vars: Vec<Var>,
}

impl Network {
    /// The weights that `torch.manual_seed(seed)` and then `nn.Sequential(nn.Linear(sizes[0], sizes[1]), nn.ReLU(),
    /// ...)` give, drawn in f32 and converted to `dtype`.
    pub fn new(sizes: &[usize], seed: u32, dtype: DType, device: &Device) -> Result<Self> {
        let mut generator = Generator::manual_seed(seed.into());
        let (mut layers, mut vars) = (seq(), vec![]);
        for (i, pair) in sizes.windows(2).enumerate() {
            let (inputs, outputs) = (pair[0], pair[1]);
            let (weight, bias) = generator.linear(inputs, outputs);
            let var = |values: Vec<f32>, shape: &[usize]| {
                Var::from_tensor(&Tensor::from_vec(values, shape, device)?.to_dtype(dtype)?)
            };
            let (weight, bias) = (var(weight, &[outputs, inputs])?, var(bias, &[outputs])?);
            let last = i + 2 == sizes.len();
            let activation = if last { Activation::Identity } else { Activation::Relu };
            layers = layers.add(Dense::from_vars(&weight, &bias, activation)?);
            vars.extend([weight, bias]);
        }
        Ok(Self { layers, vars })
    }

    /// Weight and bias of each layer, from the first to the last.
    pub fn vars(&self) -> Vec<Var> {
        self.vars.clone()
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
    /// Two classes, one logit: binary cross entropy. Targets are `[rows, 1]`, of the logits' type.
    Binary,
    /// More classes, a logit each: cross entropy. Targets are `[rows]` class numbers, u32.
    MultiClass(usize),
}

impl Objective {
    /// The objective for this number of classes.
    pub fn for_classes(classes: usize) -> Self {
        if classes == 2 { Self::Binary } else { Self::MultiClass(classes) }
    }

    /// How many logits the network has.
    pub fn outputs(self) -> usize {
        match self {
            Self::Binary => 1,
            Self::MultiClass(classes) => classes,
        }
    }

    /// Class numbers as a tensor of targets.
    pub fn targets(self, classes: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        let classes: Vec<u32> = classes.iter().map(|&class| class as u32).collect();
        let rows = classes.len();
        match self {
            Self::Binary => Tensor::from_vec(classes, (rows, 1), device)?.to_dtype(dtype),
            Self::MultiClass(_) => Tensor::from_vec(classes, rows, device),
        }
    }

    /// Mean loss over the rows; a scalar.
    pub fn loss(self, logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
        match self {
            Self::Binary => bce_with_logits(logits, targets),
            Self::MultiClass(_) => cross_entropy(logits, targets),
        }
    }

    /// Share of rows whose class the logits tell.
    pub fn accuracy(self, logits: &Tensor, targets: &Tensor) -> Result<f64> {
        let rows = targets.dim(0)?;
        let hits = match self {
            Self::Binary => {
                let (logits, targets) = (values(logits)?, values(targets)?);
                logits.iter().zip(&targets).filter(|(logit, target)| (**logit > 0.) == (**target > 0.5)).count()
            }
            Self::MultiClass(_) => {
                let (told, targets) = (logits.argmax(D::Minus1)?.to_vec1::<u32>()?, targets.to_vec1::<u32>()?);
                told.iter().zip(&targets).filter(|(told, target)| told == target).count()
            }
        };
        Ok(hits as f64 / rows as f64)
    }
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1()
}

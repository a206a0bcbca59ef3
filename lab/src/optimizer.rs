//! An optimizer at work: the library's, or Candle's own.

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};
use candle_optim::{Error, Group, Method, Optim, ParamsAdamW, Spec, Swapped};

use super::twins::{Step, registry, twin};

/// Reads the spec of an optimizer of the library or of Candle.
///
/// # Errors
/// An unknown name or key, or a value that is not allowed.
pub fn parse(text: &str) -> Result<Spec, Error> {
    registry()?.parse(text)
}

/// Bytes of state of a variable with dimensions `dims`. Candle stores its state in the type of the parameters.
pub fn state_bytes(spec: &Spec, dims: &[usize], dtype: DType, state_dtype: Option<DType>) -> f64 {
    let bytes = |dtype: DType, dims: &[usize]| dims.iter().fold(dtype.size_in_bytes() as f64, |n, &dim| n * dim as f64);
    match twin(spec) {
        Some(twin) => twin.state_names(dims).len() as f64 * bytes(dtype, dims),
        None => {
            let state = spec.method().state(dims, dtype, state_dtype);
            // Not `sum`: that of no numbers is -0.
            state.iter().fold(0., |sum, (_, dtype, dims)| sum + bytes(*dtype, dims))
        }
    }
}

/// Bytes of state of all these variables. Variables that the optimizer does not accept have that of `adamw`.
///
/// # Errors
/// The optimizer accepts none of the variables.
pub fn total_state_bytes(spec: &Spec, vars: Vec<(String, Var)>) -> Result<f64, Error> {
    let dims = |var: &Var| (var.dims().to_vec(), var.dtype());
    let candles: f64 = vars.iter().map(|(_, var)| state_bytes(spec, var.dims(), var.dtype(), None)).sum();
    let Stepper::Ours(optim) = Stepper::new(spec, vars, Storage::default())? else { return Ok(candles) };
    let slots = optim.groups().iter().flat_map(|group| group.slots().iter().map(move |slot| (group, dims(&slot.var))));
    let state = slots.flat_map(|(group, (dims, dtype))| group.method().state(&dims, dtype, None));
    Ok(state.map(|(_, dtype, dims)| dtype.size_in_bytes() as f64 * dims.iter().product::<usize>() as f64).sum())
}

/// How an optimizer stores numbers; the default is the library's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Storage {
    /// Number type of the state.
    pub state_dtype: Option<DType>,
    /// Whether 16-bit variables are rounded stochastically.
    pub stochastic_rounding: bool,
}

/// An optimizer with its variables.
pub enum Stepper {
    /// An optimizer of the library.
    Ours(Box<Optim>),
    /// An optimizer of Candle.
    Candles {
        /// Takes a step.
        step: Step,
        /// Whether it maximizes.
        maximize: bool,
    },
}

impl Stepper {
    /// Starts the optimizer of `spec`. Variables that it does not accept, such as biases for a method for matrices, go
    /// to `adamw` at its defaults. `storage` is for optimizers of the library.
    ///
    /// # Errors
    /// The optimizer accepts none of the variables, or hyperparameters contradict each other.
    pub fn new(spec: &Spec, vars: Vec<(String, Var)>, storage: Storage) -> Result<Self, Error> {
        let method = spec.method();
        let maximize = method.maximizes();
        if let Some(twin) = twin(spec) {
            let step = twin.start(vars.into_iter().map(|(_, var)| var).collect())?;
            return Ok(Self::Candles { step, maximize });
        }
        let accepts = |var: &Var| method.chain().iter().all(|algorithm| algorithm.accepts(var).is_ok());
        let (mut own, mut others): (Vec<_>, Vec<_>) = vars.into_iter().partition(|(_, var)| accepts(var));
        if own.is_empty() {
            // `Optim::new` reports why.
            std::mem::swap(&mut own, &mut others);
        }
        let group = |vars: Vec<(String, Var)>, method: Method| {
            let group = Group::new(vars, method);
            let group = group.stochastic_rounding(storage.stochastic_rounding);
            storage.state_dtype.into_iter().fold(group, Group::state_dtype)
        };
        let mut groups = vec![group(own, method.clone())];
        if !others.is_empty() {
            groups.push(group(others, ParamsAdamW::default().into()).maximize(maximize));
        }
        Ok(Self::Ours(Box::new(Optim::new(groups)?)))
    }

    /// Takes one step down the gradients of `loss`. Some methods compute the loss `again` at other weights. Returns how
    /// many gradients were computed.
    ///
    /// # Errors
    /// An error of Candle.
    pub fn step(
        &mut self,
        loss: &Tensor,
        mut again: impl FnMut() -> candle_core::Result<Tensor>,
    ) -> candle_core::Result<usize> {
        match self {
            Self::Ours(optim) => {
                let (mut first, mut evaluations) = (Some(loss.clone()), 0);
                optim.step_with(|| {
                    evaluations += 1;
                    first.take().map_or_else(&mut again, Ok)
                })?;
                Ok(evaluations)
            }
            Self::Candles { step, maximize: false } => step(&loss.backward()?).map(|()| 1),
            Self::Candles { step, maximize: true } => step(&loss.neg()?.backward()?).map(|()| 1),
        }
    }

    /// Whether [`step_down`](Self::step_down) is a whole step: no method computes the loss again, and no optimizer of
    /// Candle maximizes.
    pub fn takes_gradients(&self) -> bool {
        match self {
            Self::Ours(optim) => {
                let mut algorithms = optim.groups().iter().flat_map(|group| group.method().chain());
                !algorithms.any(|algorithm| algorithm.evaluates())
            }
            Self::Candles { maximize, .. } => !maximize,
        }
    }

    /// Takes one step down gradients. A method that computes the loss again needs more than these.
    ///
    /// # Errors
    /// An error of Candle, or a method that computes the loss again.
    pub fn step_down(&mut self, grads: &GradStore) -> candle_core::Result<()> {
        match self {
            Self::Ours(optim) => optim.step(grads).map(|_| ()).map_err(Into::into),
            Self::Candles { step, .. } => step(grads),
        }
    }

    /// Sets the variables to the weights to evaluate with, until the result is dropped. `None`: they already are.
    ///
    /// # Errors
    /// An error of Candle.
    pub fn eval(&mut self) -> candle_core::Result<Option<Swapped<'_>>> {
        match self {
            Self::Ours(optim) if optim.has_eval() => Ok(Some(optim.eval()?)),
            _ => Ok(None),
        }
    }

    /// Which optimizer moves which variables, unless one optimizer moves all.
    pub fn note(&self) -> Option<String> {
        let Self::Ours(optim) = self else { return None };
        let [own, others] = optim.groups() else { return None };
        let names = |group: &Group| group.slots().iter().map(|slot| slot.name.as_str()).collect::<Vec<_>>().join(", ");
        let (name, other) = (own.method().name(), others.method().name());
        Some(format!("{name} moves {}; {other} at its defaults moves {}", names(own), names(others)))
    }
}

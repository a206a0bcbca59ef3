//! Optimizers as a user holds them: hyperparameters, the parameters they step, and their state.

use std::collections::HashSet;

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};

use crate::error::{Error, Result};
use crate::fused::{self, Arena, Gradients, Slot};
use crate::params::Params;
use crate::rule::Plan;

/// The hyperparameters of an optimizer made from an elementwise [`Rule`](crate::rule::Rule).
pub trait Config: Params + Clone + 'static {
    /// The rule these hyperparameters select, and its scalars at step `step` of a parameter (from 1). Which state the
    /// rule keeps must not depend on the step or on the learning rate.
    fn plan(&self, step: u64) -> Plan;
}

/// An optimizer: a [`Config`] at work on a list of parameters. Use it by the name of its algorithm, e.g.
/// [`AdamW`](crate::AdamW).
///
/// Implements [`candle_nn::Optimizer`]. Each parameter counts its own steps, as in torch: one without a gradient is
/// left alone and its count stands still.
#[derive(Debug)]
pub struct Optim<C> {
    config: C,
    arenas: Vec<Arena>,
    /// Arena and slot of each parameter, in the order they were given.
    places: Vec<(usize, usize)>,
    gradients: Gradients,
}

impl<C: Config> Optim<C> {
    /// An optimizer of `vars`, in this order, with zero state: f64 for f64 parameters, f32 for all others. As with
    /// Candle's own, variables that are not of a floating-point type are left out.
    ///
    /// # Errors
    /// A hyperparameter out of range, a variable that is listed twice, or of a type too small to train in.
    pub fn try_new(vars: Vec<Var>, config: C) -> Result<Self> {
        Self::with_state_dtype(vars, config, None)
    }

    /// As [`Optim::try_new`], with the state of parameters that are not f64 kept in `state_dtype`, F32 or BF16.
    ///
    /// In BF16 it takes half the memory, and half the time to move. It is rounded up or down at random, without which an
    /// average would stop moving; the randomness depends on the step and the element alone, so that runs repeat.
    ///
    /// # Errors
    /// Also a type that state cannot be kept in.
    pub fn with_state_dtype(vars: Vec<Var>, config: C, state_dtype: Option<DType>) -> Result<Self> {
        config.validate()?;
        let names = config.plan(1).state().len();
        let mut seen = HashSet::new();
        let mut alike: Vec<Vec<Var>> = vec![];
        let mut places = vec![];
        for (index, var) in vars.into_iter().enumerate().filter(|(_, var)| var.dtype().is_float()) {
            let dtype = var.dtype();
            if fused::state_dtypes(dtype).is_empty() {
                let why = format!("is of type {dtype:?}; allowed: F32, F64, F16, BF16");
                return Err(Error::Parameter { index, why });
            }
            if !seen.insert(var.as_tensor().id()) {
                return Err(Error::Parameter { index, why: "is listed twice".into() });
            }
            let like = |other: &Var| other.dtype() == dtype && other.device().same_device(var.device());
            let arena = alike.iter().position(|vars| like(&vars[0])).unwrap_or_else(|| {
                alike.push(vec![]);
                alike.len() - 1
            });
            places.push((arena, alike[arena].len()));
            alike[arena].push(var);
        }
        let arena = |vars: Vec<Var>| {
            let dtype = vars[0].dtype();
            Ok(Arena::new(vars, dtype, state_dtype_of(dtype, state_dtype)?, names)?)
        };
        let arenas = alike.into_iter().map(arena).collect::<Result<_>>()?;
        Ok(Self { config, arenas, places, gradients: Gradients::default() })
    }

    /// One step along `grads`.
    ///
    /// # Errors
    /// A gradient of another shape, type or device than its parameter; nothing has been changed then.
    pub fn try_step(&mut self, grads: &GradStore) -> Result<()> {
        let Self { config, arenas, gradients, .. } = self;
        if !fused::step(arenas, gradients, grads, &|step| config.plan(step))? {
            self.slots().enumerate().try_for_each(|(index, slot)| check(index, &slot.var, grads))?;
        }
        Ok(())
    }

    /// The hyperparameters.
    pub fn config(&self) -> &C {
        &self.config
    }

    fn slots(&self) -> impl ExactSizeIterator<Item = &Slot> {
        self.places.iter().map(|&(arena, slot)| &self.arenas[arena].slots()[slot])
    }

    /// The parameters, in the order of their list.
    pub fn vars(&self) -> impl ExactSizeIterator<Item = &Var> {
        self.slots().map(|slot| &slot.var)
    }

    /// How many steps parameter `index` has taken; none if there is no such parameter.
    pub fn steps(&self, index: usize) -> Option<u64> {
        self.slots().nth(index).map(|slot| slot.step)
    }

    /// A copy of the state of parameter `index`, named as in torch's checkpoints; none if there is no such parameter.
    pub fn state(&self, index: usize) -> Option<Result<Vec<(&'static str, Tensor)>>> {
        let &(arena, slot) = self.places.get(index)?;
        let names = self.config.plan(1).state();
        let named = |tensors: Vec<Tensor>| names.iter().copied().zip(tensors).collect();
        Some(self.arenas[arena].state_of(slot).map(named).map_err(Into::into))
    }

    /// Bytes of state held, all parameters together.
    pub fn state_bytes(&self) -> usize {
        self.arenas.iter().map(Arena::state_bytes).sum()
    }
}

/// The type in which the state of parameters of type `dtype` is kept where `asked` is asked for.
fn state_dtype_of(dtype: DType, asked: Option<DType>) -> Result<DType> {
    fused::state_dtype(dtype, asked).ok_or_else(|| {
        let given = asked.map_or("none", |dtype| dtype.as_str());
        Error::unknown("state type", given, fused::state_dtypes(dtype).iter().map(|dtype| dtype.as_str()))
    })
}

fn check(index: usize, var: &Var, grads: &GradStore) -> Result<()> {
    let describe = |t: &Tensor| format!("{:?} {:?} on {:?}", t.dtype(), t.dims(), t.device().location());
    match grads.get(var) {
        Some(grad) if !fused::fits(var, grad) => {
            Err(Error::Gradient { index, gradient: describe(grad), parameter: describe(var) })
        }
        _ => Ok(()),
    }
}

impl<C: Config> candle_nn::Optimizer for Optim<C> {
    type Config = C;

    fn new(vars: Vec<Var>, config: C) -> candle_core::Result<Self> {
        Ok(Self::try_new(vars, config)?)
    }

    fn step(&mut self, grads: &GradStore) -> candle_core::Result<()> {
        Ok(self.try_step(grads)?)
    }

    fn learning_rate(&self) -> f64 {
        self.config.lr()
    }

    fn set_learning_rate(&mut self, lr: f64) {
        self.config.set_lr(lr);
    }
}

/// Any optimizer at run time: [`candle_nn::Optimizer`] is `Sized`, so a program that chooses one needs this face.
///
/// Every Candle optimizer has it, ours or not.
pub trait DynOptimizer {
    /// One step along `grads`.
    fn step(&mut self, grads: &GradStore) -> candle_core::Result<()>;
    /// The learning rate.
    fn learning_rate(&self) -> f64;
    /// Sets the learning rate of the steps to come.
    fn set_learning_rate(&mut self, lr: f64);
}

impl<O: candle_nn::Optimizer> DynOptimizer for O {
    fn step(&mut self, grads: &GradStore) -> candle_core::Result<()> {
        candle_nn::Optimizer::step(self, grads)
    }

    fn learning_rate(&self) -> f64 {
        candle_nn::Optimizer::learning_rate(self)
    }

    fn set_learning_rate(&mut self, lr: f64) {
        candle_nn::Optimizer::set_learning_rate(self, lr);
    }
}

/// Hyperparameters from which an optimizer can be made at run time.
pub trait Build: Params {
    /// The optimizer that steps `vars`, its state of type `state_dtype` as in [`Optim::with_state_dtype`].
    fn build(&self, vars: Vec<Var>, state_dtype: Option<DType>) -> Result<Box<dyn DynOptimizer>>;
    /// Bytes of state it keeps for each parameter of type `dtype`, where `state_dtype` is asked for.
    fn state_bytes(&self, dtype: DType, state_dtype: Option<DType>) -> usize;
    /// The CUDA kernel of its first step of parameters of type `dtype`.
    ///
    /// # Errors
    /// An optimizer that is not made from a rule of this crate, or types it cannot step.
    fn cuda_source(&self, _dtype: DType, _state_dtype: Option<DType>) -> Result<String> {
        let reason = "it is Candle's own and has no kernel; allowed: all other optimizers".into();
        Err(Error::Conflict { optimizer: self.name().into(), reason })
    }
    /// A copy.
    fn boxed(&self) -> Box<dyn Build>;
}

impl<C: Config> Build for C {
    fn boxed(&self) -> Box<dyn Build> {
        Box::new(self.clone())
    }

    fn build(&self, vars: Vec<Var>, state_dtype: Option<DType>) -> Result<Box<dyn DynOptimizer>> {
        Ok(Box::new(Optim::with_state_dtype(vars, self.clone(), state_dtype)?))
    }

    fn cuda_source(&self, dtype: DType, state_dtype: Option<DType>) -> Result<String> {
        Ok(self.plan(1).cuda_source(dtype, state_dtype_of(dtype, state_dtype)?)?)
    }

    fn state_bytes(&self, dtype: DType, state_dtype: Option<DType>) -> usize {
        self.plan(1).state().len() * fused::state_dtype(dtype, state_dtype).map_or(0, |dtype| dtype.size_in_bytes())
    }
}

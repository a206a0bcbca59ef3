//! The interface between optimizers and the engine.

use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};

pub use crate::clock::Clock;
use crate::clock::Span;
use crate::error::{Error, Result};
use crate::hyper::Hyper;
pub use crate::memory::State;
use crate::memory::{Addresses, SlotState, StateBuffer, VARIABLE, VarLock, round_tensor, stored_dtype};
use crate::rule::MAX_SUMS;

/// An optimizer: hyperparameters that can move variables. The trait is object-safe.
///
/// Every [`Elementwise`](crate::rule::Elementwise) implements it. Implement it by hand for a method that works on whole
/// Candle tensors (Muon) or on all variables at once (L-BFGS). Such a method moves variables with [`Slots::each`] or
/// [`Slot::set`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an optimizer",
    note = "write `rule! {{ pub struct Step from (h: {Self}, t) {{ .. }} }}`, `impl Elementwise` or `impl Algorithm` for it"
)]
pub trait Algorithm: Hyper + Boxed {
    /// The names of the state tensors of a variable with these dimensions. Names and shapes must not change between
    /// steps.
    fn state_names(&self, dims: &[usize]) -> Vec<&'static str>;
    /// Takes one step.
    ///
    /// # Errors
    /// An error of Candle, or of the closure that computes the loss.
    fn step(&self, vars: &mut Slots) -> Result<()>;
    /// Returns an error with the reason if the algorithm cannot move such a variable.
    fn accepts(&self, _p: &Tensor) -> Result<(), String> {
        Ok(())
    }
    /// The state before the variable's first step. The default is zero.
    fn init(&self, p: &Tensor) -> Result<State> {
        let zeros = |name| Ok((name, Tensor::zeros(self.state_dims(name, p.dims()), p.dtype(), p.device())?));
        self.state_names(p.dims()).into_iter().map(zeros).collect()
    }
    /// The dimensions of a state tensor of a variable with these dimensions. The default is the variable's.
    fn state_dims(&self, _name: &str, dims: &[usize]) -> Vec<usize> {
        dims.into()
    }
    /// The names of the state tensors that copy weights. A 16-bit state type does not round these.
    fn weight_copies(&self) -> &'static [&'static str] {
        &[]
    }
    /// The names of the numbers that the algorithm stores on the clock, with their initial values.
    fn memory(&self) -> Vec<(&'static str, f64)> {
        vec![]
    }
    /// `Tensor`: each variable counts its own steps, and a step without a gradient does not count. `Group`: all
    /// variables count every step of the group.
    fn clock(&self) -> Span {
        Span::Tensor
    }
    /// Whether a missing gradient counts as zero. Otherwise the step leaves the variable alone.
    fn steps_all(&self) -> bool {
        false
    }
    /// Whether a step computes the loss again, so that it needs [`Optim::step_with`](crate::Optim::step_with).
    fn evaluates(&self) -> bool {
        false
    }
    /// The weights to evaluate the model with.
    fn eval(&self, _t: &Clock, p: &Tensor, _state: &State) -> Result<Tensor> {
        Ok(p.clone())
    }
    /// The engine's part of an elementwise rule.
    #[doc(hidden)]
    fn kernel(&self) -> Option<&dyn Kernel> {
        None
    }
}

/// The engine's functions for an elementwise rule of any type.
#[doc(hidden)]
pub trait Kernel {
    /// Initializes the state of a variable for the algorithm at this position of the chain.
    fn start(&self, slot: &mut Slot, position: usize) -> Result<()>;
    /// The state tensors that exist, as bits.
    fn state_mask(&self) -> u32;
    /// Whether the step of an element depends on other elements through sums.
    fn has_sums(&self) -> bool;
    /// The CUDA kernels of a step of a variable with these dimensions.
    fn cuda_source(&self, dims: &[usize], dtype: DType, state_dtype: Option<DType>) -> Result<String>;
}

/// A copy behind a pointer. Every [`Algorithm`] that is `Clone` has it.
pub trait Boxed {
    /// A copy.
    fn boxed(&self) -> Box<dyn Algorithm>;
}

impl<A: Algorithm + Clone> Boxed for A {
    fn boxed(&self) -> Box<dyn Algorithm> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn Algorithm> {
    fn clone(&self) -> Self {
        (**self).boxed()
    }
}

/// The algorithms that move a group's variables, one after another, and the direction.
#[derive(Clone, Debug)]
pub struct Method {
    pub(crate) chain: Vec<Box<dyn Algorithm>>,
    pub(crate) maximize: bool,
}

impl Method {
    /// The names of the algorithms, e.g. `adamw+ema`. Checkpoints contain this name.
    pub fn name(&self) -> String {
        self.chain.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>().join("+")
    }

    /// The algorithms, in the order in which they run.
    pub fn chain(&self) -> &[Box<dyn Algorithm>] {
        &self.chain
    }

    /// Whether it maximizes the loss.
    pub fn maximizes(&self) -> bool {
        self.maximize
    }

    /// The state tensors of a variable of these dimensions and type: their names, types and dimensions. `state_dtype`
    /// is the type that [`Group::state_dtype`](crate::Group::state_dtype) asks for.
    pub fn state(
        &self,
        dims: &[usize],
        dtype: DType,
        state_dtype: Option<DType>,
    ) -> Vec<(&'static str, DType, Vec<usize>)> {
        let of = |algorithm: &dyn Algorithm| {
            let stored = stored(algorithm, dims, dtype, state_dtype).into_iter();
            stored.map(|(name, dtype)| (name, dtype, algorithm.state_dims(name, dims))).collect::<Vec<_>>()
        };
        self.chain.iter().flat_map(|algorithm| of(&**algorithm)).collect()
    }

    /// The CUDA kernels that step variables of type `dtype`, with state in `state_dtype`.
    ///
    /// # Errors
    /// A type that cannot be stepped, or an algorithm that runs on Candle's own operations.
    pub fn cuda_source(&self, dims: &[usize], dtype: DType, state_dtype: Option<DType>) -> Result<String> {
        let sources = self.chain.iter().map(|algorithm| {
            let none = || Error::conflict(algorithm.name(), "it has no kernel: it runs on Candle's own operations");
            algorithm.kernel().ok_or_else(none)?.cuda_source(dims, dtype, state_dtype)
        });
        Ok(sources.collect::<Result<Vec<_>>>()?.join("\n"))
    }
}

/// The state tensors of a variable under one algorithm, and the types in which they are stored.
pub(crate) fn stored(
    algorithm: &dyn Algorithm,
    dims: &[usize],
    dtype: DType,
    asked: Option<DType>,
) -> Vec<(&'static str, DType)> {
    let copies = algorithm.weight_copies();
    let stored = |name| (name, stored_dtype(dtype, asked, copies.contains(&name)));
    algorithm.state_names(dims).into_iter().map(stored).collect()
}

impl<A: Algorithm> From<A> for Method {
    fn from(algorithm: A) -> Self {
        Box::<dyn Algorithm>::from(Box::new(algorithm)).into()
    }
}

impl From<Box<dyn Algorithm>> for Method {
    fn from(algorithm: Box<dyn Algorithm>) -> Self {
        Self { chain: vec![algorithm], maximize: false }
    }
}

/// A variable of a group with its name, clock, state and gradient.
#[derive(Debug)]
pub struct Slot {
    /// The position of the variable in the list that the user gave: torch's index.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// The variable.
    pub var: Var,
    /// The count of its steps.
    pub clock: Clock,
    /// The state of each algorithm of the chain; empty before the group's first step.
    pub(crate) state: Vec<SlotState>,
    /// Whether the state has started: the variable has had a gradient.
    pub(crate) started: bool,
    pub(crate) hot: Hot,
    pub(crate) sums: [f64; MAX_SUMS],
}

/// The data of a variable that every step reads, in one cache line. The number of cache lines read limits the speed of
/// a step of small variables.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Hot {
    pub(crate) lock: VarLock,
    pub(crate) grad: Option<Tensor>,
    /// The factor of the gradient: clipping and the direction.
    pub(crate) scale: f64,
    /// Whether a step rounds the variable stochastically.
    pub(crate) stochastic: bool,
    /// Whether there is a gradient in this step, or was in the last.
    pub(crate) has_grad: bool,
    /// The position of its class in the group's list.
    pub(crate) class: u32,
    /// The number of its list of dimensions within the group. Equal lists have the same number.
    pub(crate) shape: u32,
    /// The buffers that hold its state, and the first element of its state in them.
    pub(crate) buffer: u32,
    pub(crate) from: usize,
}

const _: () = assert!(size_of::<Hot>() == 64);

/// Variables of a group for which a step has the same scalars: their clocks and dimensions are equal, and all or none
/// have a gradient.
#[derive(Debug)]
pub(crate) struct Class {
    /// The position of one of them.
    pub(crate) first: usize,
    pub(crate) has_grad: bool,
}

/// The result of a search for gradients.
#[derive(Clone, Copy, Default)]
pub(crate) struct Found {
    /// Whether some gradient does not fit its variable.
    pub(crate) mismatch: bool,
    /// Whether some variable has a gradient and had none in the last step, or the reverse.
    pub(crate) change: bool,
    /// Whether some gradient shares the memory of a variable.
    pub(crate) is_var: bool,
}

impl Found {
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            mismatch: self.mismatch | other.mismatch,
            change: self.change | other.change,
            is_var: self.is_var | other.is_var,
        }
    }
}

impl Slot {
    pub(crate) fn new((index, name, var): (usize, String, Var)) -> Self {
        let clock = Clock { step: 0, ..Clock::first(var.dims()) };
        let lock = VarLock::new(&var);
        let hot = Hot {
            lock,
            grad: None,
            scale: 1.,
            stochastic: false,
            has_grad: false,
            class: 0,
            shape: 0,
            buffer: 0,
            from: 0,
        };
        Self { index, name, var, clock, state: vec![], started: false, hot, sums: [0.; MAX_SUMS] }
    }

    /// Looks up the gradient.
    pub(crate) fn find_grad(&mut self, grads: &GradStore, vars: &Addresses) -> Found {
        let Self { var, hot: Hot { grad, has_grad, .. }, .. } = self;
        let found = grads.get(var);
        *grad = found.filter(|grad| fits(var, grad)).cloned();
        let had = std::mem::replace(has_grad, found.is_some());
        let is_var = grad.as_ref().is_some_and(|grad| vars.contains(grad));
        Found { mismatch: found.is_some() != grad.is_some(), change: had != *has_grad, is_var }
    }

    /// Copies a gradient that shares the memory of a variable, since a step would change it.
    pub(crate) fn copy_grad(&mut self, vars: &Addresses) -> candle_core::Result<()> {
        self.hot.grad = self.hot.grad.take().map(|grad| vars.own(grad)).transpose()?;
        Ok(())
    }

    pub(crate) fn check_grad(&self, grads: &GradStore) -> Result<()> {
        let describe = |t: &Tensor| format!("{} {:?} on {:?}", t.dtype().as_str(), t.dims(), t.device().location());
        match grads.get(&self.var).filter(|grad| !fits(&self.var, grad)) {
            Some(grad) => {
                let why = format!("is {}, but its gradient is {}", describe(&self.var), describe(grad));
                Err(Error::variable(&self.name, why))
            }
            None => Ok(()),
        }
    }

    /// The type of the computation: F64 for F64 variables, F32 for all others.
    pub fn compute_dtype(&self) -> DType {
        if self.var.dtype() == DType::F64 { DType::F64 } else { DType::F32 }
    }

    /// A copy of the value in the type of the computation. It is a copy because `Var::set` writes in place: state that
    /// shared the variable's memory would change with it.
    pub fn value(&self) -> candle_core::Result<Tensor> {
        self.var.as_detached_tensor().copy()?.to_dtype(self.compute_dtype())
    }

    /// The gradient after clipping, in the type of the computation; negated if the group maximizes.
    pub fn grad(&self) -> candle_core::Result<Tensor> {
        let grad = self.hot.grad.as_ref().ok_or_else(|| Error::variable(&self.name, "has no gradient"))?;
        let grad = grad.detach().to_dtype(self.compute_dtype())?;
        if self.hot.scale != 1. { grad * self.hot.scale } else { Ok(grad) }
    }

    /// Sets the variable. `value` may have another type and be on another device.
    ///
    /// # Errors
    /// A shape that differs, or an error of Candle.
    pub fn set(&self, value: &Tensor) -> candle_core::Result<()> {
        let dtype = self.var.dtype();
        let value = if self.hot.stochastic {
            round_tensor(value, dtype, self.clock.step, VARIABLE)?
        } else {
            value.to_dtype(dtype)?
        };
        self.var.set(&value.to_device(self.var.device())?)
    }

    /// A copy of the state in the type of the computation.
    pub fn state(&self) -> candle_core::Result<State> {
        self.tensors()?.into_iter().map(|(name, tensor)| Ok((name, tensor.to_dtype(self.compute_dtype())?))).collect()
    }

    /// A copy of the state as it is stored.
    pub(crate) fn tensors(&self) -> candle_core::Result<State> {
        let mut all = State::new();
        for state in self.state.iter().filter(|_| self.started) {
            all.extend(state.tensors(self.var.shape())?);
        }
        Ok(all)
    }

    /// Stores the given state tensors. The others stay as they are.
    pub fn set_state(&mut self, state: State) -> candle_core::Result<()> {
        for (name, tensor) in state {
            let owner = self.state.iter_mut().find(|state| state.has(name));
            owner.ok_or_else(|| Error::variable(&self.name, format!("keeps no state '{name}'")))?.set(
                name,
                &tensor,
                self.clock.step,
            )?;
        }
        Ok(())
    }

    /// Sets the clock and the state to earlier or loaded values. The tensors must have the stored types.
    pub(crate) fn restore(&mut self, clock: Clock, started: bool, state: State) -> candle_core::Result<()> {
        (self.clock, self.started) = (clock, started);
        if !started {
            return self.state.iter().try_for_each(SlotState::clear);
        }
        self.set_state(state)
    }

    /// The bytes of its state.
    pub fn state_bytes(&self) -> usize {
        self.state.iter().filter(|_| self.started).map(SlotState::bytes).sum()
    }
}

fn fits(var: &Var, grad: &Tensor) -> bool {
    var.shape() == grad.shape() && var.dtype() == grad.dtype() && var.device().same_device(grad.device())
}

/// The variables of a group at one step.
pub struct Slots<'a> {
    pub(crate) all: &'a mut [Slot],
    pub(crate) classes: &'a [Class],
    /// The memory of the algorithm's state.
    pub(crate) buffers: &'a [Arc<StateBuffer>],
    /// Whether no other algorithm of the chain needs the gradients after this one.
    pub(crate) is_last: bool,
    pub(crate) maximize: bool,
    /// The addresses of the variables of all groups.
    pub(crate) addresses: &'a Addresses,
    /// The loss before the step, and the closure that computes it again.
    pub(crate) loss: Option<(Tensor, &'a mut dyn FnMut() -> candle_core::Result<Tensor>)>,
}

impl Slots<'_> {
    /// The variables that have a gradient and at least one element. The mean of an empty tensor is undefined, and a GPU
    /// has no empty tensors.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.all.iter_mut().filter(|slot| slot.hot.grad.is_some() && slot.hot.lock.len > 0)
    }

    /// Sets each variable of [`iter_mut`](Self::iter_mut) to `update(clock, value, gradient, state)`.
    /// The value shares the memory of the variable, so it changes with it. State that shares it is copied.
    ///
    /// # Errors
    /// An error of Candle, or of `update`.
    pub fn each(
        &mut self,
        mut update: impl FnMut(&mut Clock, &Tensor, &Tensor, &mut State) -> candle_core::Result<Tensor>,
    ) -> Result<()> {
        let addresses = self.addresses;
        for slot in self.iter_mut() {
            let p = slot.var.as_detached_tensor().to_dtype(slot.compute_dtype())?;
            let (g, before) = (slot.grad()?, slot.state()?);
            let mut state = before.clone();
            let next = update(&mut slot.clock, &p, &g, &mut state)?;
            // Unchanged state is not rounded again.
            state.retain(|name, tensor| before.get(name).is_none_or(|before| before.id() != tensor.id()));
            let state = state.into_iter().map(|(name, tensor)| Ok((name, addresses.own(tensor)?)));
            slot.set_state(state.collect::<candle_core::Result<_>>()?)?;
            if next.id() != p.id() {
                slot.set(&addresses.own(next)?)?;
            }
        }
        Ok(())
    }

    /// The factor of all gradients and losses: -1 if the group maximizes, else 1.
    pub fn sign(&self) -> f64 {
        if self.maximize { -1. } else { 1. }
    }

    /// The loss before the step, times [`sign`](Self::sign).
    ///
    /// # Errors
    /// The user called `step`, not `step_with`.
    pub fn loss(&self) -> Result<Tensor> {
        Ok((&self.loss.as_ref().ok_or_else(no_closure)?.0 * self.sign())?)
    }

    /// Computes the loss, times [`sign`](Self::sign), and the gradients again at the current values. It does not clip
    /// the gradients.
    ///
    /// # Errors
    /// The user called `step`, not `step_with`, or the closure failed.
    pub fn evaluate(&mut self) -> Result<Tensor> {
        let sign = self.sign();
        let (_, compute) = self.loss.as_mut().ok_or_else(no_closure)?;
        let loss = compute()?;
        let (grads, addresses) = (loss.backward()?, self.addresses);
        for slot in self.iter_mut() {
            slot.hot.grad = Some(grads.get(&slot.var).map_or_else(|| slot.var.zeros_like(), |grad| Ok(grad.clone()))?);
            slot.copy_grad(addresses)?;
            slot.hot.scale = sign;
        }
        Ok((loss * sign)?)
    }
}

/// Whether an algorithm evaluates with weights that differ from the variables. It is tried on a weight whose state has
/// another value.
pub(crate) fn has_eval(algorithm: &dyn Algorithm) -> bool {
    const DIMS: &[usize] = &[1];
    let number = |x: f64| Tensor::new(&[x], &Device::Cpu);
    let differs = || -> Result<bool> {
        let p = number(0.7)?;
        let state = algorithm.state_names(DIMS).into_iter().map(|name| Ok((name, number(0.3)?)));
        let x = algorithm.eval(&Clock::first(DIMS), &p, &state.collect::<Result<State>>()?)?;
        Ok(x.to_vec1::<f64>()? != p.to_vec1::<f64>()?)
    };
    // If the trial fails, the weights may differ.
    differs().unwrap_or(true)
}

pub(crate) fn no_closure() -> Error {
    Error::conflict("step", "it computes the loss again: call step_with")
}

/// A sum that does not depend on the order of its parts. The order of `VarMap::all_vars` differs between runs.
pub(crate) fn sum(parts: &mut [f64]) -> f64 {
    parts.sort_unstable_by(f64::total_cmp);
    parts.iter().sum()
}

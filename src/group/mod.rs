//! Groups of variables.

mod keys;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};
use rayon::prelude::*;

use crate::algorithm::{Algorithm, Class, Found, Method, Slot, Slots, State};
use crate::clock::{Memory, Span};
use crate::engine::reserve;
use crate::error::{Error, Result};
use crate::hyper::Runs;
use crate::memory::{Addresses, StateBuffer, state_dtypes};
use crate::vars::NamedVars;
use keys::Scheduled;

/// Variables and the method that moves them.
///
/// ```
/// use candle_core::{Device, Var};
/// use candle_optim::{Cosine, Group, LinearWarmup, Optim, ParamsEma, Schedule, Spec};
///
/// # fn main() -> Result<(), candle_optim::Error> {
/// let w = Var::new(&[2f64], &Device::Cpu)?;
/// let adam = "adam:lr=0.1".parse::<Spec>()?;
/// let warm = LinearWarmup { steps: 4 }.then(Cosine { steps: 96, min_lr: 0. });
/// let group = Group::new(vec![("w".into(), w.clone())], adam)
///     .schedule("lr", warm)
///     .then(ParamsEma { decay: 0.9, ..Default::default() });
/// let mut optim = Optim::new(vec![group])?;
/// assert_eq!(optim.lr(0)?, 0.025);
/// optim.backward_step(&w.sqr()?.sum_all()?)?;
/// // The average of the weights, until it is dropped.
/// let averaged = optim.eval()?;
/// # drop(averaged);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Group {
    pub(crate) slots: Vec<Slot>,
    pub(crate) method: Method,
    schedules: Vec<Scheduled>,
    /// Whether a hyperparameter has changed since the last check.
    dirty: bool,
    pub(crate) state_dtype: Option<DType>,
    /// The memory of the state of each algorithm; empty before the first step.
    buffers: Vec<Vec<Arc<StateBuffer>>>,
    /// Whether the state of all variables has started.
    pub(crate) all_started: bool,
    /// The classes of the variables; empty if they must be found again.
    classes: Vec<Class>,
    /// The factor of all gradients.
    scale: f64,
}

/// The number of variables whose gradients one thread looks up at a time.
pub(crate) const LOOKUPS: usize = 256;

impl Group {
    /// `method` is a struct of hyperparameters such as [`ParamsAdamW`](crate::ParamsAdamW), or a [`Spec`](crate::Spec).
    pub fn new(vars: impl Into<NamedVars>, method: impl Into<Method>) -> Self {
        let slots = vars.into().0.into_iter().map(Slot::new).collect();
        Self {
            slots,
            method: method.into(),
            schedules: vec![],
            dirty: false,
            state_dtype: None,
            buffers: vec![],
            all_started: false,
            classes: vec![],
            scale: 1.,
        }
    }

    /// Appends an algorithm, which runs after the existing ones: Lookahead or EMA after an optimizer, an optimizer
    /// after SAM.
    pub fn then(mut self, method: impl Into<Method>) -> Self {
        let Method { chain, maximize } = method.into();
        self.method.chain.extend(chain);
        self.method.maximize |= maximize;
        self
    }

    /// Maximizes the loss instead of minimizing it.
    pub fn maximize(mut self, maximize: bool) -> Self {
        self.method.maximize = maximize;
        self
    }

    /// Sets the type of the state, F32 or BF16. The state of F64 variables stays F64, and copies of weights stay F32.
    pub fn state_dtype(mut self, dtype: DType) -> Self {
        self.state_dtype = Some(dtype);
        self
    }

    /// Rounds bf16 and f16 variables stochastically when a step writes them: up or down at random, with probabilities
    /// given by the distances to the two neighbors. By default they are rounded to the nearest. A weight then does not
    /// move if its step is less than half a unit in the last place: 0.2 % of the weight in bf16. Two runs give the same
    /// bits. Variables of other types are not rounded.
    pub fn stochastic_rounding(mut self, on: bool) -> Self {
        self.slots.iter_mut().for_each(|slot| slot.hot.stochastic = on);
        self
    }

    /// The variables.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The algorithms and the direction.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Whether a step computes the loss again.
    pub(crate) fn evaluates(&self) -> bool {
        self.method.chain.iter().any(|algorithm| algorithm.evaluates())
    }

    fn clock(&self) -> Span {
        let shared = self.method.chain.iter().any(|algorithm| algorithm.clock() == Span::Group);
        if shared { Span::Group } else { Span::Tensor }
    }

    /// Sets the factor of the gradients. It seldom changes.
    pub(crate) fn set_scale(&mut self, scale: f64) {
        if self.scale != scale || self.evaluates() {
            self.slots.iter_mut().for_each(|slot| slot.hot.scale = scale);
            self.scale = scale;
        }
    }

    /// Whether the clock of every variable counts every step, even without a gradient.
    fn always_counts(&self) -> bool {
        self.clock() == Span::Group || self.method.chain.iter().any(|algorithm| algorithm.steps_all())
    }

    /// Begins a step: looks up the gradients, and counts the step. [`end_step`](Self::end_step) must follow.
    pub(crate) fn find_grads(&mut self, grads: &GradStore, vars: &Addresses) -> Result<()> {
        let always = self.always_counts();
        let find = |slots: &mut [Slot]| {
            slots.iter_mut().fold(Found::default(), |all, slot| {
                let found = slot.find_grad(grads, vars);
                slot.clock.step += u64::from(always || slot.hot.has_grad);
                slot.clock.started = slot.started;
                all.or(found)
            })
        };
        let found = if self.slots.len() > LOOKUPS && rayon::current_num_threads() > 1 {
            self.slots.par_chunks_mut(LOOKUPS).map(find).reduce(Found::default, Found::or)
        } else {
            find(&mut self.slots)
        };
        if found.change {
            self.classes.clear();
        }
        if found.mismatch {
            self.slots.iter().try_for_each(|slot| slot.check_grad(grads))?;
        }
        if found.is_var {
            self.slots.iter_mut().try_for_each(|slot| slot.copy_grad(vars))?;
        }
        Ok(())
    }

    /// Ends a step: undoes its count unless it was `taken`, and drops the gradients, which hold the graph of the
    /// forward pass. If the last algorithm of the chain is a rule that runs on the host, the engine has already dropped
    /// them.
    pub(crate) fn end_step(&mut self, taken: bool) {
        if !taken {
            let always = self.always_counts();
            self.slots.iter_mut().for_each(|slot| slot.clock.step -= u64::from(always || slot.hot.has_grad));
        }
        let by_engine = self.method.chain.last().is_some_and(|last| last.kernel().is_some())
            && self.buffers.last().is_some_and(|buffers| buffers.iter().all(|buffer| buffer.on_host));
        if !(taken && by_engine) {
            self.slots.iter_mut().for_each(|slot| slot.hot.grad = None);
        }
    }

    /// Discards what was derived from clocks and state. Call it before they are replaced.
    pub(crate) fn forget(&mut self) {
        self.all_started = false;
        self.classes.clear();
    }

    /// Sets the state of the variables that have a gradient for the first time. `end_start` then marks it as started.
    pub(crate) fn start_state(&mut self) -> Result<()> {
        let chain = &self.method.chain;
        if chain.iter().any(|algorithm| algorithm.steps_all()) {
            for slot in self.slots.iter_mut().filter(|slot| slot.hot.grad.is_none()) {
                (slot.hot.grad, slot.hot.has_grad) = (Some(slot.var.zeros_like()?), true);
            }
        }
        if self.all_started || self.slots.iter().all(|slot| slot.hot.grad.is_none() || slot.started) {
            return Ok(());
        }
        self.reserve()?;
        let chain = &self.method.chain;
        let mut new = self.slots.iter_mut().filter(|slot| slot.hot.grad.is_some() && !slot.started);
        new.try_for_each(|slot| start(chain, slot))
    }

    /// Marks the new state as started, or undoes the start if it failed in any group.
    pub(crate) fn end_start(&mut self, done: bool) -> Result<()> {
        if self.all_started {
            return Ok(());
        }
        for slot in self.slots.iter_mut().filter(|slot| slot.hot.grad.is_some() && !slot.started) {
            if done {
                slot.started = true;
            } else {
                slot.restore(slot.clock.clone(), false, State::new())?;
            }
        }
        self.all_started = self.slots.iter().all(|slot| slot.started);
        Ok(())
    }

    /// Reserves the memory of the state of all variables, unless it is already reserved.
    pub(crate) fn reserve(&mut self) -> Result<()> {
        if self.buffers.is_empty() {
            self.buffers = reserve(&self.method.chain, &mut self.slots, self.state_dtype)?;
        }
        Ok(())
    }

    /// Takes one step. `loss` holds the loss before the step, and the closure that computes it again.
    pub(crate) fn step(
        &mut self,
        mut loss: Option<(&Tensor, &mut dyn FnMut() -> candle_core::Result<Tensor>)>,
        addresses: &Addresses,
    ) -> Result<()> {
        let Self { slots, method, buffers, classes, .. } = self;
        let all_kernels = method.chain.iter().all(|algorithm| algorithm.kernel().is_some());
        let last = method.chain.len() - 1;
        method.chain.iter().enumerate().try_for_each(|(position, algorithm)| {
            // With rules, classes change only when a variable gains or loses its gradient. A method on whole tensors
            // may change any clock.
            if classes.is_empty() || !all_kernels {
                *classes = classify(slots);
            }
            let loss = loss.as_mut().map(|(before, compute)| (before.clone(), &mut **compute as _));
            let (buffers, is_last) = (buffers.get(position).map_or(&[][..], |all| all), position == last);
            algorithm.step(&mut Slots {
                all: slots,
                classes,
                buffers,
                is_last,
                maximize: method.maximize,
                addresses,
                loss,
            })
        })
    }

    /// Whether a variable has state after `step` steps, if the count alone determines it.
    pub(crate) fn has_state(&self, step: u64) -> Option<bool> {
        // A group's clock also counts the steps in which the variable had no gradient, and Prodigy's clock does not
        // count every step that starts the state.
        (self.clock() == Span::Tensor).then_some(step > 0)
    }

    /// Checks the group and prepares its slots. It does not start the state, since the user may load weights later.
    pub(crate) fn start(&mut self) -> Result<()> {
        let chain = &self.method.chain;
        chain.iter().try_for_each(|algorithm| algorithm.validate())?;
        for (end, runs, why) in [
            (chain.first(), Runs::After, "it runs after another optimizer of the group"),
            (chain.last(), Runs::Before, "it runs before another optimizer of the group"),
        ] {
            if let Some(wrapper) = end.filter(|end| end.runs() == Some(runs)) {
                return Err(Error::conflict(wrapper.name(), why));
            }
        }
        if let Some(dtype) = self.state_dtype.filter(|dtype| ![DType::F32, DType::BF16].contains(dtype)) {
            return Err(Error::unknown("state type", dtype.as_str(), ["f32", "bf16"]));
        }
        let memory = chain.iter().flat_map(|algorithm| algorithm.memory());
        let memory: Vec<_> = memory.map(|(name, start)| Memory { name, start, now: start }).collect();
        let mut shapes: HashMap<Vec<usize>, u32> = HashMap::new();
        for slot in &mut self.slots {
            let next = shapes.len() as u32;
            slot.hot.shape = *shapes.entry(slot.clock.dims.clone()).or_insert(next);
            let dtype = slot.var.dtype();
            if state_dtypes(dtype).is_empty() {
                let why = format!("is of type {}; allowed: f32, f64, f16, bf16", dtype.as_str());
                return Err(Error::variable(&slot.name, why));
            }
            for algorithm in chain {
                let refused = |why| Error::variable(&slot.name, format!("is not for {}: {why}", algorithm.name()));
                algorithm.accepts(&slot.var).map_err(refused)?;
            }
            let state = chain.iter().flat_map(|algorithm| algorithm.state_names(slot.var.dims()));
            let mut keys = HashSet::from(["step"]);
            if let Some(key) = state.chain(memory.iter().map(|memory| memory.name)).find(|key| !keys.insert(key)) {
                return Err(Error::conflict(key, "two algorithms of a group keep a state of this name"));
            }
            slot.clock.memory = memory.clone();
        }
        Ok(())
    }
}

/// Finds the classes of the variables.
fn classify(slots: &mut [Slot]) -> Vec<Class> {
    let mut classes: Vec<Class> = vec![];
    for at in 0..slots.len() {
        let (before, rest) = slots.split_at_mut(at);
        let Slot { hot, clock, .. } = &mut rest[0];
        let same = |class: &Class| {
            let first = &before[class.first];
            (first.hot.shape, class.has_grad) == (hot.shape, hot.has_grad) && first.clock.agrees(clock)
        };
        // The search goes backward because the class is usually a recent one.
        let class = classes.iter().rposition(same).unwrap_or_else(|| {
            classes.push(Class { first: at, has_grad: hot.has_grad });
            classes.len() - 1
        });
        hot.class = class as u32;
    }
    classes
}

/// Initializes the state of a variable. Its memory must be reserved.
fn start(chain: &[Box<dyn Algorithm>], slot: &mut Slot) -> Result<()> {
    for (position, algorithm) in chain.iter().enumerate() {
        match algorithm.kernel() {
            Some(kernel) => kernel.start(slot, position)?,
            None => {
                for (name, tensor) in algorithm.init(&slot.value()?)? {
                    slot.state[position].set(name, &tensor, 0)?;
                }
            }
        }
    }
    Ok(())
}

//! Groups of variables.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};
use rayon::prelude::*;

use crate::algorithm::{Algorithm, Class, Found, Method, Slot, Slots, State};
use crate::clock::{Memory, Span};
use crate::engine::reserve;
use crate::error::{Error, Result};
use crate::hyper::{Runs, Value};
use crate::memory::{Addresses, StateBuffer, state_dtypes};
use crate::schedule::Schedule;
use crate::vars::NamedVars;

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

#[derive(Debug)]
struct Scheduled {
    key: String,
    /// The position of the algorithm in the chain and of the key in it, once a step has looked them up.
    found: Option<(usize, usize)>,
    base: f64,
    schedule: Arc<dyn Schedule>,
    /// The current value in the algorithm.
    now: Option<f64>,
}

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

    /// Schedules a hyperparameter. Its value is the schedule's `base`.
    pub fn schedule(mut self, key: &str, schedule: impl Schedule) -> Self {
        self.add_schedule(key, Arc::new(schedule));
        self
    }

    pub(crate) fn add_schedule(&mut self, key: &str, schedule: Arc<dyn Schedule>) {
        let base = self.base(key).ok().and_then(Value::number).unwrap_or(f64::NAN);
        if let Some(before) = self.scheduled(key) {
            self.schedules.remove(before);
        }
        self.schedules.push(Scheduled { key: key.into(), found: None, base, schedule, now: None });
    }

    /// The variables.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The algorithms and the direction.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Finds the algorithm that has a key, and strips a qualifier. Write `lookahead.alpha` if several algorithms have
    /// an `alpha`.
    fn find<'k>(&self, key: &'k str) -> Result<(usize, &'k str)> {
        let chain = &self.method.chain;
        let (owner, plain) = key.split_once('.').map_or((None, key), |(owner, plain)| (Some(owner), plain));
        let has =
            |at: &usize| owner.is_none_or(|owner| owner == chain[*at].name()) && chain[*at].field(plain).is_some();
        let mut found = (0..chain.len()).filter(has);
        if let (Some(at), None) = (found.next(), found.next()) {
            return Ok((at, plain));
        }
        let qualified = |key: &&str| chain.iter().filter(|algorithm| algorithm.field(key).is_some()).count() > 1;
        let keys = chain.iter().flat_map(|algorithm| {
            let full = |key: &&'static str| match qualified(key) {
                true => format!("{}.{key}", algorithm.name()),
                false => (*key).into(),
            };
            algorithm.keys().iter().map(full).collect::<Vec<String>>()
        });
        Err(Error::unknown(&format!("key of {}", self.method.name()), key, keys))
    }

    /// Whether two keys are the same, with a qualifier or without.
    fn same(&self, a: &str, b: &str) -> bool {
        a == b || self.find(a).is_ok_and(|found| self.find(b).is_ok_and(|other| found == other))
    }

    fn scheduled(&self, key: &str) -> Option<usize> {
        self.schedules.iter().position(|scheduled| self.same(&scheduled.key, key))
    }

    /// The value of a hyperparameter at `step`.
    pub(crate) fn get(&self, key: &str, step: u64) -> Result<Value> {
        match self.scheduled(key).map(|at| &self.schedules[at]) {
            Some(Scheduled { base, schedule, .. }) => Ok(schedule.at(*base, step).into()),
            None => self.base(key),
        }
    }

    /// The value of a hyperparameter before its schedule.
    pub(crate) fn base(&self, key: &str) -> Result<Value> {
        if let Some(at) = self.scheduled(key) {
            return Ok(self.schedules[at].base.into());
        }
        let (at, plain) = self.find(key)?;
        self.method.chain[at].get(plain)
    }

    pub(crate) fn set(&mut self, key: &str, value: Value) -> Result<()> {
        let (at, plain) = self.find(key)?;
        let mut algorithm = self.method.chain[at].clone();
        algorithm.set(plain, value)?;
        self.replace(at, algorithm)?;
        self.rebase(key, value);
        Ok(())
    }

    /// Replaces the hyperparameters of one algorithm by others of the same type.
    pub(crate) fn replace(&mut self, at: usize, algorithm: Box<dyn Algorithm>) -> Result<()> {
        algorithm.validate()?;
        let names = |algorithm: &dyn Algorithm, slot: &Slot| algorithm.state_names(slot.var.dims());
        let numbers =
            |algorithm: &dyn Algorithm| algorithm.memory().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let before = &*self.method.chain[at];
        // The names depend only on the dimensions. `shape` numbers the lists of dimensions in the order of their first
        // variables.
        let mut shapes = 0;
        let mut firsts = self.slots.iter().filter(|slot| {
            let is_first = slot.hot.shape == shapes;
            shapes += u32::from(is_first);
            is_first
        });
        let tensors_differ = firsts.any(|slot| names(before, slot) != names(&*algorithm, slot));
        if tensors_differ || numbers(before) != numbers(&*algorithm) {
            return Err(other_state(&*algorithm));
        }
        self.method.chain[at] = algorithm;
        Ok(())
    }

    /// Sets a hyperparameter without a check. The next step checks it.
    pub(crate) fn assign(&mut self, key: &str, value: Value) {
        if let Ok((at, plain)) = self.find(key) {
            self.dirty |= self.method.chain[at].assign(plain, value);
            self.rebase(key, value);
        }
    }

    fn rebase(&mut self, key: &str, value: Value) {
        if let (Some(at), Some(base)) = (self.scheduled(key), value.number()) {
            (self.schedules[at].base, self.schedules[at].now) = (base, None);
        }
    }

    /// Sets the scheduled hyperparameters to their values at `step`, and checks what changed.
    pub(crate) fn move_to(&mut self, step: u64) -> Result<()> {
        for i in 0..self.schedules.len() {
            let (algorithm, index) = match self.schedules[i].found {
                Some(found) => found,
                None => {
                    let (algorithm, plain) = self.find(&self.schedules[i].key)?;
                    (algorithm, self.method.chain[algorithm].index(plain).unwrap_or_default())
                }
            };
            let Scheduled { base, schedule, now, found, .. } = &mut self.schedules[i];
            *found = Some((algorithm, index));
            let value = schedule.at(*base, step);
            if *now == Some(value) {
                continue;
            }
            let algorithm = &mut self.method.chain[algorithm];
            let (before, layout) = (algorithm.field_at(index), layout(&**algorithm));
            algorithm.set_at(index, value.into())?;
            if self::layout(&**algorithm) != layout {
                let error = other_state(&**algorithm);
                before.map(|before| algorithm.assign_at(index, before.value));
                return Err(error);
            }
            (*now, self.dirty) = (Some(value), true);
        }
        if self.dirty {
            self.method.chain.iter().try_for_each(|algorithm| algorithm.validate())?;
        }
        self.dirty = false;
        Ok(())
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

/// The state that an algorithm has. For a rule this allocates nothing.
fn layout(algorithm: &dyn Algorithm) -> Result<u32, Vec<&'static str>> {
    algorithm.kernel().map_or_else(|| Err(algorithm.state_names(&[])), |kernel| Ok(kernel.state_mask()))
}

fn other_state(algorithm: &dyn Algorithm) -> Error {
    Error::conflict(algorithm.name(), format!("it would keep other state with {algorithm:?}"))
}

//! The optimizer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};

use crate::algorithm::{Slot, State, has_eval, no_closure, sum};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::group::{Group, LOOKUPS};
use crate::hyper::Value;
use crate::memory::Addresses;
use crate::schedule::Schedule;

/// An optimizer of groups of variables.
///
/// ```
/// use candle_core::{Device, Var};
/// use candle_optim::{Group, Optim, ParamsAdamW};
///
/// # fn main() -> Result<(), candle_optim::Error> {
/// let w = Var::new(&[2f32, -1.], &Device::Cpu)?;
/// let params = ParamsAdamW { lr: 0.1, ..Default::default() };
/// let mut optim = Optim::new(vec![Group::new(vec![("w".into(), w.clone())], params)])?.clip_grad_norm(1.);
/// let outcome = optim.backward_step(&w.sqr()?.sum_all()?)?;
/// assert!(outcome.clipped && optim.steps() == 1);
///
/// // State has the name of its variable, and goes into a safetensors file with the weights.
/// let file = std::env::temp_dir().join("candle-optim-example.safetensors");
/// optim.save(&file)?;
/// optim.load(&file)?;
/// # std::fs::remove_file(&file).ok();
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Optim {
    pub(crate) groups: Vec<Group>,
    pub(crate) steps: u64,
    clip: Option<f64>,
    skip_non_finite: bool,
    /// Whether the user gave no names. The names are then positions in a list whose order may differ in the next run.
    pub(crate) unnamed: bool,
    pub(crate) has_eval: bool,
    /// Whether all variables are on the host.
    on_host: bool,
    addresses: Addresses,
}

/// The outcome of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// The norm of all gradients together, if clipping or skipping needs it.
    pub norm: Option<f64>,
    /// Whether clipping scaled the gradients.
    pub clipped: bool,
    /// Whether the step was skipped. It then changed nothing and does not count.
    pub skipped: bool,
}

impl Optim {
    /// Makes an optimizer of groups.
    ///
    /// # Errors
    /// A group has no variables, a hyperparameter is out of range, an algorithm cannot move a variable, or a name or a
    /// variable occurs twice.
    pub fn new(groups: Vec<Group>) -> Result<Self> {
        if let Some(at) = groups.iter().position(|group| group.slots.is_empty()) {
            let what = format!("group {at} ({})", groups[at].method.name());
            return Err(Error::conflict(&what, "it has no variables"));
        }
        Self::start(groups)
    }

    pub(crate) fn start(mut groups: Vec<Group>) -> Result<Self> {
        let (mut names, mut ids) = (HashSet::new(), HashMap::new());
        for slot in groups.iter().flat_map(|group| &group.slots) {
            if !names.insert(&slot.name) {
                return Err(Error::variable(&slot.name, "stands twice"));
            }
            if let Some(other) = ids.insert(slot.var.id(), &slot.name) {
                return Err(Error::variable(&slot.name, format!("is the same as '{other}'")));
            }
        }
        groups.iter_mut().try_for_each(Group::start)?;
        let has_eval = groups.iter().flat_map(|group| group.method.chain()).any(|algorithm| has_eval(&**algorithm));
        let on_host = groups.iter().flat_map(|group| &group.slots).all(|slot| slot.var.device().is_cpu());
        let addresses = Addresses::of(groups.iter().flat_map(|group| &group.slots).map(|slot| slot.var.as_tensor()));
        Ok(Self { groups, steps: 0, clip: None, skip_non_finite: false, unnamed: false, has_eval, on_host, addresses })
    }

    /// Schedules the learning rate of each group. This replaces the group's own schedule.
    pub fn schedule(mut self, schedule: impl Schedule) -> Self {
        let schedule: Arc<dyn Schedule> = Arc::new(schedule);
        self.groups.iter_mut().for_each(|group| group.add_schedule("lr", schedule.clone()));
        self
    }

    /// Clips the gradients: their norm over all groups becomes at most `max_norm`.
    pub fn clip_grad_norm(mut self, max_norm: f64) -> Self {
        self.clip = Some(max_norm);
        self
    }

    /// Skips steps whose gradients are not all finite.
    pub fn skip_non_finite(mut self, skip: bool) -> Self {
        self.skip_non_finite = skip;
        self
    }

    /// Takes one step with `grads`. It skips variables without a gradient, unless the algorithm counts them as zero.
    ///
    /// On a GPU, call it on the thread that computed the gradients: Candle gives each thread its own stream, and the
    /// order of work in different streams is undefined.
    ///
    /// # Errors
    /// There are no variables, a gradient does not fit its variable, a hyperparameter or the norm to clip to is out of
    /// range, or an algorithm needs to compute the loss again. Nothing changes then.
    pub fn step(&mut self, grads: &GradStore) -> Result<Outcome> {
        let vars: usize = self.groups.iter().map(|group| group.slots.len()).sum();
        // A thread of the pool would launch kernels in a stream other than the one that computes the gradients.
        if self.on_host && vars > LOOKUPS && rayon::current_num_threads() > 1 {
            // Handing work to the pool takes some microseconds. Do it once, not for each loop of the step.
            return rayon::scope(|_| self.advance(grads, None));
        }
        self.advance(grads, None)
    }

    /// Computes the gradients of a loss and takes one step with them, as `candle_nn::Optimizer::backward_step` does.
    ///
    /// # Errors
    /// As for [`step`](Self::step).
    pub fn backward_step(&mut self, loss: &Tensor) -> Result<Outcome> {
        self.step(&loss.backward()?)
    }

    /// Takes one step with the gradients of a loss. Some methods compute the loss several times. Returns the loss
    /// before the step.
    ///
    /// # Errors
    /// As for [`step`](Self::step), or an error of `loss`. Nothing changes then.
    pub fn step_with(&mut self, mut loss: impl FnMut() -> candle_core::Result<Tensor>) -> Result<(Tensor, Outcome)> {
        let before = loss()?;
        let grads = before.backward()?;
        let evaluates = self.groups.iter().any(Group::evaluates);
        let done = if evaluates { self.advance(&grads, Some((&before, &mut loss)))? } else { self.step(&grads)? };
        Ok((before, done))
    }

    fn advance(
        &mut self,
        grads: &GradStore,
        mut loss: Option<(&Tensor, &mut dyn FnMut() -> candle_core::Result<Tensor>)>,
    ) -> Result<Outcome> {
        if self.slots().next().is_none() {
            return Err(Error::conflict("step", "the optimizer has no variables"));
        }
        let evaluates = self.groups.iter().any(Group::evaluates);
        if evaluates && loss.is_none() {
            return Err(no_closure());
        }
        self.groups.iter_mut().try_for_each(|group| group.move_to(self.steps))?;
        // Every group begins its step, even after an error, since `end_step` ends the step of every group.
        let mut found = Ok(());
        for group in &mut self.groups {
            found = found.and(group.find_grads(grads, &self.addresses));
        }
        let done = found.and_then(|()| self.scale(grads)).and_then(|outcome| {
            if outcome.skipped {
                return Ok(outcome);
            }
            // Other errors occur before the first change, but a closure may fail at any time.
            let before = if evaluates { Some(Snapshot::of(&self.groups)?) } else { None };
            let stepped = self.start_state().and_then(|()| {
                self.groups.iter_mut().try_for_each(|group| {
                    let loss = loss.as_mut().map(|(before, compute)| (*before, &mut **compute as _));
                    group.step(loss, &self.addresses)
                })
            });
            match (stepped, before) {
                (Err(error), Some(before)) => {
                    before.restore(&mut self.groups)?;
                    Err(error)
                }
                (stepped, _) => stepped.map(|()| outcome),
            }
        });
        let stepped = done.as_ref().is_ok_and(|done| !done.skipped);
        self.groups.iter_mut().for_each(|group| group.end_step(stepped));
        let done = done?;
        self.steps += u64::from(!done.skipped);
        Ok(done)
    }

    /// Starts the state of the variables that have a gradient for the first time. On an error it starts none.
    fn start_state(&mut self) -> Result<()> {
        let done = self.groups.iter_mut().try_for_each(Group::start_state);
        // Reports the first error. Its cause may also make the undo fail.
        let mut ended = Ok(());
        for group in &mut self.groups {
            ended = ended.and(group.end_start(done.is_ok()));
        }
        done.and(ended)
    }

    /// Sets the factor of the gradients: clipping and the direction.
    fn scale(&mut self, grads: &GradStore) -> Result<Outcome> {
        let wanted = self.clip.is_some() || self.skip_non_finite;
        let norm = if wanted { Some(self.grad_norm(grads)?) } else { None };
        let skipped = self.skip_non_finite && norm.is_some_and(|norm| !norm.is_finite());
        if let Some(max) = self.clip.filter(|max| max.is_nan() || *max < 0.) {
            let why = format!("{max} is not allowed: it must be a number in 0.0..");
            return Err(Error::conflict("clip_grad_norm", why));
        }
        let scale = self.clip.zip(norm).map_or(1., |(max, norm)| (max / (norm + 1e-6)).min(1.));
        for group in &mut self.groups {
            group.set_scale(if group.method.maximize { -scale } else { scale });
        }
        Ok(Outcome { norm, clipped: scale < 1. && !skipped, skipped })
    }

    /// The Euclidean norm of the gradients of all variables together.
    ///
    /// # Errors
    /// An error of Candle.
    pub fn grad_norm(&self, grads: &GradStore) -> Result<f64> {
        let grads = self.slots().filter_map(|slot| grads.get(&slot.var));
        let squares = grads.map(|grad| grad.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>());
        Ok(sum(&mut squares.collect::<Result<Vec<_>, _>>()?).sqrt())
    }

    /// The number of steps taken. Schedules depend on it.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The groups.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The variables of all groups.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.groups.iter().flat_map(|group| &group.slots)
    }

    /// The bytes of the state of all variables.
    pub fn state_bytes(&self) -> usize {
        self.slots().map(Slot::state_bytes).sum()
    }

    fn group(&self, group: usize) -> Result<&Group> {
        let unknown = || Error::unknown("group", &group.to_string(), (0..self.groups.len()).map(|at| at.to_string()));
        self.groups.get(group).ok_or_else(unknown)
    }

    /// The value of a hyperparameter at the next step.
    ///
    /// # Errors
    /// There is no such group or key.
    pub fn get(&self, group: usize, key: &str) -> Result<Value> {
        self.group(group)?.get(key, self.steps)
    }

    /// The learning rate of the next step.
    ///
    /// # Errors
    /// There is no such group, or its algorithms have no learning rate.
    pub fn lr(&self, group: usize) -> Result<f64> {
        Ok(self.get(group, "lr")?.number().unwrap_or(f64::NAN))
    }

    /// The value of a hyperparameter before its schedule.
    ///
    /// # Errors
    /// There is no such group or key.
    pub fn base(&self, group: usize, key: &str) -> Result<Value> {
        self.group(group)?.base(key)
    }

    /// Sets a hyperparameter, or the base of its schedule.
    ///
    /// # Errors
    /// The value is not allowed, or would change which state exists. Nothing changes then.
    pub fn set(&mut self, group: usize, key: &str, value: impl Into<Value>) -> Result<()> {
        self.group(group)?;
        self.groups[group].set(key, value.into())
    }
}

/// A copy of what a step may change, used to undo a step that fails.
struct Snapshot(Vec<(Tensor, Clock, bool, State)>);

impl Snapshot {
    fn of(groups: &[Group]) -> Result<Self> {
        let copy = |slot: &Slot| {
            let value = slot.var.as_detached_tensor().copy()?;
            Ok((value, slot.clock.clone(), slot.started, slot.tensors()?))
        };
        Ok(Self(groups.iter().flat_map(|group| &group.slots).map(copy).collect::<Result<_>>()?))
    }

    fn restore(self, groups: &mut [Group]) -> Result<()> {
        groups.iter_mut().for_each(Group::forget);
        let slots = groups.iter_mut().flat_map(|group| &mut group.slots);
        for (slot, (value, clock, started, state)) in slots.zip(self.0) {
            slot.var.set(&value)?;
            slot.restore(clock, started, state)?;
        }
        Ok(())
    }
}

//! The hyperparameters of a group, by key. A schedule may set one.

use std::sync::Arc;

use super::Group;
use crate::algorithm::{Algorithm, Slot};
use crate::error::{Error, Result};
use crate::hyper::Value;
use crate::schedule::Schedule;

#[derive(Debug)]
pub(super) struct Scheduled {
    key: String,
    /// The position of the algorithm in the chain and of the key in it, once a step has looked them up.
    found: Option<(usize, usize)>,
    base: f64,
    schedule: Arc<dyn Schedule>,
    /// The current value in the algorithm.
    now: Option<f64>,
}

impl Group {
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
}

/// The state that an algorithm has. For a rule this allocates nothing.
fn layout(algorithm: &dyn Algorithm) -> Result<u32, Vec<&'static str>> {
    algorithm.kernel().map_or_else(|| Err(algorithm.state_names(&[])), |kernel| Ok(kernel.state_mask()))
}

fn other_state(algorithm: &dyn Algorithm) -> Error {
    Error::conflict(algorithm.name(), format!("it would keep other state with {algorithm:?}"))
}

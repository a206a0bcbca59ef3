//! Hyperparameters as functions of the step.

use std::f64::consts::PI;

/// A function of a hyperparameter's base value and the step. It has no state to save. A closure `|base, step| ..` is a
/// schedule.
///
/// ```
/// use candle_optim::{Cosine, LinearWarmup, Schedule};
///
/// let schedule = LinearWarmup { steps: 4 }.then(Cosine { steps: 100, min_lr: 0. });
/// assert_eq!([0, 1, 3, 4, 54, 104, 1000].map(|step| schedule.at(0.8, step)), [0.2, 0.4, 0.8, 0.8, 0.4, 0., 0.]);
/// let halved = |base: f64, step: u64| base / 2f64.powi(step as i32);
/// assert_eq!(halved.at(0.8, 2), 0.2);
/// ```
pub trait Schedule: Send + Sync + 'static {
    /// The value at `step`; the first step is 0.
    fn at(&self, base: f64, step: u64) -> f64;
    /// The number of steps, or `None` for a schedule without an end.
    fn steps(&self) -> Option<u64> {
        None
    }
    /// Continues with `next` after the last step.
    fn then<S: Schedule>(self, next: S) -> Then<Self, S>
    where
        Self: Sized,
    {
        Then(self, next)
    }
}

impl std::fmt::Debug for dyn Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Schedule of {:?} steps", self.steps())
    }
}

impl<F: Fn(f64, u64) -> f64 + Send + Sync + 'static> Schedule for F {
    fn at(&self, base: f64, step: u64) -> f64 {
        self(base, step)
    }
}

/// Two schedules, one after the other.
#[derive(Clone, Debug)]
pub struct Then<A, B>(A, B);

impl<A: Schedule, B: Schedule> Schedule for Then<A, B> {
    fn at(&self, base: f64, step: u64) -> f64 {
        match self.0.steps() {
            Some(steps) if step >= steps => self.1.at(base, step - steps),
            _ => self.0.at(base, step),
        }
    }
    fn steps(&self) -> Option<u64> {
        Some(self.0.steps()?.saturating_add(self.1.steps()?))
    }
}

/// The share of `steps` that is done at `step`, at most 1. It is 1 if `steps` is 0.
fn share(step: u64, steps: u64) -> f64 {
    if step < steps { step as f64 / steps as f64 } else { 1. }
}

/// Rises linearly from `base/steps` at the first step to `base` at the last.
#[derive(Clone, Debug)]
pub struct LinearWarmup {
    /// The steps of the rise.
    pub steps: u64,
}

impl Schedule for LinearWarmup {
    fn at(&self, base: f64, step: u64) -> f64 {
        base * share(step + 1, self.steps)
    }
    fn steps(&self) -> Option<u64> {
        Some(self.steps)
    }
}

/// Falls from `base` to `min_lr` along half a cosine, and stays there.
#[derive(Clone, Debug)]
pub struct Cosine {
    /// The steps of the fall.
    pub steps: u64,
    /// The value at its end.
    pub min_lr: f64,
}

impl Schedule for Cosine {
    fn at(&self, base: f64, step: u64) -> f64 {
        Ramp { from: base, to: self.min_lr, steps: self.steps }.at(base, step)
    }
    fn steps(&self) -> Option<u64> {
        Some(self.steps)
    }
}

/// Goes from one value to another along half a cosine, and ignores `base`.
#[derive(Clone, Debug)]
pub struct Ramp {
    /// The first value.
    pub from: f64,
    /// The last value.
    pub to: f64,
    /// The steps between them.
    pub steps: u64,
}

impl Schedule for Ramp {
    fn at(&self, _: f64, step: u64) -> f64 {
        self.to + (self.from - self.to) * (1. + (PI * share(step, self.steps)).cos()) / 2.
    }
    fn steps(&self) -> Option<u64> {
        Some(self.steps)
    }
}

//! Schedule-Free SGD: the gradient is taken at y, between the steps z and their average x.
//!
//! ```text
//! x = (y - (1 - β)·z)/β           what to evaluate with
//! lr ← lr·min(1, t/warmup)         w = tʳ·(largest lr)ᵖ, c = w/Σ w
//! g ← g + λ·y
//! y ← (1 - c)·y + c·z - lr·(1 - β·(1 - c))·g      the parameter; z = y at first
//! z ← z - lr·g
//! ```
//! Defazio et al., 2024, arXiv:2405.15682; y is moved as their code moves it, without x. One clock for the group.
use crate::prelude::*;

hyper! { pub struct ParamsScheduleFreeSgd for "schedulefreesgd", "SGD that needs no schedule", "Defazio et al. 2024, arXiv:2405.15682", "schedulefree" {
    lr: f64 [0.0..] = 1., "Learning rate.";
    momentum: f64 [1e-6..1.0] = 0.9, "Weight β of the average in y.";
    weight_decay: f64 [0.0..] = 0., "Weight decay λ, at y.";
    warmup_steps: u32 = 0, "Steps of linear warmup.";
    r: f64 [0.0..] = 0., "Power of the step in the weights of the average.";
    weight_lr_power: f64 [0.0..] = 2., "Power p of the learning rate in these weights.";
} }

rule! {
    pub struct Step { lr, weight_decay, weight, one_minus_weight, y_step, z_to_x }
    clock of Group
    state Sequence { z as weights }
}

/// The learning rate of the step after warmup, and the weight c of its z in the average x.
pub(super) fn weigh(t: &mut Clock, lr: f64, warmup_steps: u32, r: f64, weight_lr_power: f64) -> (f64, f64) {
    let step = t.step as f64;
    let lr = lr * (step / f64::from(warmup_steps.max(1))).min(1.);
    let lr_max = t.memory("lr_max", -1.);
    *lr_max = lr_max.max(lr);
    let weight = step.powf(r) * lr_max.powf(weight_lr_power);
    let weight_sum = t.memory("weight_sum", 0.);
    *weight_sum += weight;
    (lr, if weight > 0. { weight / *weight_sum } else { 0. })
}

impl Elementwise for ParamsScheduleFreeSgd {
    type Rule = Step;
    fn scalars(&self, t: &mut Clock) -> Step {
        let &Self { momentum, weight_decay, .. } = self;
        let (lr, weight) = weigh(t, self.lr, self.warmup_steps, self.r, self.weight_lr_power);
        Step {
            lr,
            weight_decay,
            weight,
            one_minus_weight: 1. - weight,
            y_step: lr * (momentum * (1. - weight) - 1.),
            z_to_x: 1. / momentum - 1.,
        }
    }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn init(&self, p: R, s: &mut Sequence<R>) {
        s.z = p;
    }
    #[inline(always)]
    fn update(&self, y: R, g: R, s: &mut Sequence<R>) -> R {
        let g = g + self.weight_decay * y;
        let next = y * self.one_minus_weight + s.z * self.weight + self.y_step * g;
        s.z = s.z - self.lr * g;
        next
    }
    #[inline(always)]
    fn eval(&self, y: R, s: Sequence<R>) -> R {
        y + self.z_to_x * (y - s.z)
    }
}

/// [`ParamsScheduleFreeSgd`] at work on a list of variables.
pub type ScheduleFreeSgd = DropIn<ParamsScheduleFreeSgd>;

//! Schedule-Free AdamW: Schedule-Free SGD along a gradient that Adam's second moment scales.
//!
//! ```text
//! v ← β₂·v + (1 - β₂)·g²
//! u = g/(√v̂ + ε) + λ·y
//! x, y, z as in Schedule-Free SGD, with u for g and β₁ for β
//! ```
//! Defazio et al., 2024, arXiv:2405.15682; as `AdamWScheduleFree` of schedulefree. One clock for the group.
use super::schedule_free_sgd::weigh;
use crate::prelude::*;

hyper! { pub struct ParamsScheduleFreeAdamW for "schedulefreeadamw", "AdamW that needs no schedule", "Defazio et al. 2024, arXiv:2405.15682", "schedulefree" {
    lr: f64 [0.0..] = 2.5e-3, "Learning rate.";
    beta1: f64 [1e-6..1.0] = 0.9, "Weight β₁ of the average in y.";
    beta2: f64 [0.0..1.0] = 0.999, "Decay β₂ of the squared gradient's average.";
    eps: f64 [0.0..] = 1e-8, "Added to the root, against division by zero.";
    weight_decay: f64 [0.0..] = 0., "Weight decay λ, at y.";
    warmup_steps: u32 = 0, "Steps of linear warmup.";
    r: f64 [0.0..] = 0., "Power of the step in the weights of the average.";
    weight_lr_power: f64 [0.0..] = 2., "Power of the learning rate in these weights.";
} }

rule! {
    pub struct Step {
        lr, weight_decay, beta2, one_minus_beta2, eps, root_correction, weight, one_minus_weight, y_step, z_to_x
    }
    clock of Group
    state Sequence { z as weights, exp_avg_sq }
}

impl Elementwise for ParamsScheduleFreeAdamW {
    type Rule = Step;
    fn scalars(&self, t: &mut Clock) -> Step {
        let &Self { beta1, beta2, eps, weight_decay, .. } = self;
        let (lr, weight) = weigh(t, self.lr, self.warmup_steps, self.r, self.weight_lr_power);
        Step {
            lr,
            weight_decay,
            beta2,
            one_minus_beta2: 1. - beta2,
            eps,
            root_correction: (1. - t.power(beta2)).sqrt(),
            weight,
            one_minus_weight: 1. - weight,
            y_step: lr * (beta1 * (1. - weight) - 1.),
            z_to_x: 1. / beta1 - 1.,
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
        s.exp_avg_sq = ema(s.exp_avg_sq, g * g, self.beta2, self.one_minus_beta2);
        let denominator = (s.exp_avg_sq.sqrt() / self.root_correction + self.eps).named("denominator");
        let u = (ratio(g, denominator) + self.weight_decay * y).named("direction");
        let next = y * self.one_minus_weight + s.z * self.weight + self.y_step * u;
        s.z = s.z - self.lr * u;
        next
    }
    #[inline(always)]
    fn eval(&self, y: R, s: Sequence<R>) -> R {
        y + self.z_to_x * (y - s.z)
    }
}

/// [`ParamsScheduleFreeAdamW`] at work on a list of variables.
pub type ScheduleFreeAdamW = DropIn<ParamsScheduleFreeAdamW>;

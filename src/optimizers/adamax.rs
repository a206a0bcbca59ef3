//! Adamax: Adam with a maximum instead of the second moment.
//!
//! ```text
//! g ← g + λ·p
//! m ← β₁·m + (1 - β₁)·g           m̂ = m/(1 - β₁ᵗ)
//! u ← max(β₂·u, |g| + ε)
//! p ← p - lr·m̂/u
//! ```
//! Kingma and Ba, 2014, arXiv:1412.6980, algorithm 2; as `torch.optim.Adamax`, whose ε is inside the maximum.
use crate::prelude::*;

hyper! { pub struct ParamsAdamax for "adamax", "Adam with the largest gradient", "Kingma and Ba 2014, arXiv:1412.6980", "torch" {
    lr: f64 [0.0..] = 2e-3, "Learning rate.";
    beta1: f64 [0.0..1.0] = 0.9, "Decay β₁ of the gradient's average.";
    beta2: f64 [0.0..1.0] = 0.999, "Decay β₂ of the largest gradient.";
    eps: f64 [0.0..] = 1e-8, "Added to the gradient's magnitude, against division by zero.";
    weight_decay: f64 [0.0..] = 0., "L2 weight decay λ.";
} }

rule! {
    pub struct Step from (h: ParamsAdamax, t) {
        weight_decay, beta1, one_minus_beta1 = 1. - h.beta1, beta2, eps, step_size = h.lr / (1. - t.power(h.beta1)),
    }
    state Moments { exp_avg, exp_inf }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn update(&self, p: R, g: R, s: &mut Moments<R>) -> R {
        let g = g + self.weight_decay * p;
        s.exp_avg = ema(s.exp_avg, g, self.beta1, self.one_minus_beta1);
        s.exp_inf = (s.exp_inf * self.beta2).max(g.abs() + self.eps);
        p - ratio(self.step_size * s.exp_avg, s.exp_inf)
    }
}

/// [`ParamsAdamax`] at work on a list of variables.
pub type Adamax = DropIn<ParamsAdamax>;

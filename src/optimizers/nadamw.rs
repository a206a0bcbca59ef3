//! NAdamW: AdamW that looks ahead along its average, as Nesterov's momentum does.
//!
//! ```text
//! m, v as in AdamW
//! n = β₁·m + (1 - β₁)·g
//! p ← p·(1 - lr·λ) - lr/(1 - β₁ᵗ)·n/(√v̂ + ε)
//! ```
//! Dahl et al., 2023, arXiv:2306.07179 (AlgoPerf); as timm's `NAdamW`. Unlike in NAdam, β₁ does not grow; optax
//! corrects n by 1 - β₁ᵗ⁺¹.
use crate::prelude::*;

hyper! { pub struct ParamsNAdamW for "nadamw", "AdamW with Nesterov's momentum", "Dahl et al. 2023, arXiv:2306.07179", "timm" {
    lr: f64 [0.0..] = 1e-3, "Learning rate.";
    beta1: f64 [0.0..1.0] = 0.9, "Decay β₁ of the gradient's average.";
    beta2: f64 [0.0..1.0] = 0.999, "Decay β₂ of the squared gradient's average.";
    eps: f64 [0.0..] = 1e-8, "Added to the root, against division by zero.";
    weight_decay: f64 [0.0..] = 0.01, "Decoupled weight decay λ.";
} }

rule! {
    pub struct Step from (h: ParamsNAdamW, t) {
        beta1, one_minus_beta1 = 1. - h.beta1,
        beta2, one_minus_beta2 = 1. - h.beta2,
        eps, root_correction = (1. - t.power(h.beta2)).sqrt(),
        decay_factor = 1. - h.lr * h.weight_decay,
        step_size = h.lr / (1. - t.power(h.beta1)),
    }
    state Moments { exp_avg, exp_avg_sq }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn update(&self, p: R, g: R, s: &mut Moments<R>) -> R {
        s.exp_avg = ema(s.exp_avg, g, self.beta1, self.one_minus_beta1);
        s.exp_avg_sq = ema(s.exp_avg_sq, g * g, self.beta2, self.one_minus_beta2);
        let ahead = ema(s.exp_avg, g, self.beta1, self.one_minus_beta1).named("ahead");
        let denominator = (s.exp_avg_sq.sqrt() / self.root_correction + self.eps).named("denominator");
        p * self.decay_factor - ratio(self.step_size * ahead, denominator)
    }
}

/// [`ParamsNAdamW`] at work on a list of variables.
pub type NAdamW = DropIn<ParamsNAdamW>;

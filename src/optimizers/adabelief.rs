//! AdaBelief: divides by how far gradients differ from their average.
//!
//! ```text
//! p ← p·(1 - lr·λ)                coupled: g ← g + λ·p        fixed: p·(1 - λ)
//! m ← β₁·m + (1 - β₁)·g           m̂ = m/(1 - β₁ᵗ)
//! s ← β₂·s + (1 - β₂)·(g - m)² + ε
//! p ← p - lr·m̂·r·√(1 - β₂ᵗ)/(√s + ε)      r as in RAdam; while ρ < 5: p - lr·m̂, or p
//! not rectified: p - lr·m̂/(√ŝ + ε)        AMSGrad: of the largest s so far
//! ```
//! Zhuang et al., 2020, arXiv:2010.07468, algorithm 2; as adabelief-pytorch, which adds ε to s at every step, and
//! ignores `amsgrad` in a rectified step.
use super::radam::rectification;
use crate::prelude::*;

hyper! { pub struct ParamsAdaBelief for "adabelief", "Adam that divides by the gradient's deviation", "Zhuang et al. 2020, arXiv:2010.07468", "adabelief-pytorch" {
    lr: f64 [0.0..] = 1e-3, "Learning rate.";
    beta1: f64 [0.0..1.0] = 0.9, "Decay β₁ of the gradient's average.";
    beta2: f64 [0.0..1.0] = 0.999, "Decay β₂ of the squared deviation's average.";
    eps: f64 [0.0..] = 1e-16, "Added to the average at every step, and to its root.";
    weight_decay: f64 [0.0..] = 0., "Weight decay λ.";
    amsgrad: bool = false, "Divide by the largest average so far (AMSGrad).";
    weight_decouple: bool = true, "Decay the weights, not the gradient.";
    fixed_decay: bool = false, "Decay the weights by λ, whatever the learning rate.";
    rectify: bool = true, "Rectify the step as RAdam does.";
    degenerated_to_sgd: bool = true, "Take plain steps until the rectified ones begin.";
} }

rule! {
    pub struct Step {
        l2, decay_factor, beta1, one_minus_beta1, beta2, one_minus_beta2, eps, root_correction, plain, adaptive
    }
    flags { amsgrad, rectify }
    state Moments { exp_avg, exp_avg_var, max_exp_avg_var if amsgrad }
}

impl Elementwise for ParamsAdaBelief {
    type Rule = Step;
    fn scalars(&self, t: &mut Clock) -> Step {
        let &Self { lr, beta1, beta2, eps, amsgrad, rectify, .. } = self;
        let (l2, decay_factor) = decay(if self.fixed_decay { 1. } else { lr }, self.weight_decay, self.weight_decouple);
        let (step_size, correction) = (lr / (1. - t.power(beta1)), (1. - t.power(beta2)).sqrt());
        let (plain, adaptive, root_correction) = match rectification(t, beta2, true) {
            _ if !rectify => (0., step_size, correction),
            Some(r) => (0., step_size * r * correction, 1.),
            None => (if self.degenerated_to_sgd { step_size } else { 0. }, 0., 1.),
        };
        let (one_minus_beta1, one_minus_beta2) = (1. - beta1, 1. - beta2);
        Step {
            l2,
            decay_factor,
            beta1,
            one_minus_beta1,
            beta2,
            one_minus_beta2,
            eps,
            root_correction,
            plain,
            adaptive,
            amsgrad,
            rectify,
        }
    }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn update(&self, p: R, g: R, s: &mut Moments<R>) -> R {
        let g = g + self.l2 * p;
        s.exp_avg = ema(s.exp_avg, g, self.beta1, self.one_minus_beta1);
        let deviation = (g - s.exp_avg).named("deviation");
        s.exp_avg_var = ema(s.exp_avg_var, deviation * deviation, self.beta2, self.one_minus_beta2) + self.eps;
        let mut variance = s.exp_avg_var;
        if self.amsgrad {
            s.max_exp_avg_var = s.max_exp_avg_var.max(variance);
            variance = if self.rectify { variance } else { s.max_exp_avg_var };
        }
        let denominator = (variance.sqrt() / self.root_correction + self.eps).named("denominator");
        p * self.decay_factor - (self.plain * s.exp_avg + ratio(self.adaptive * s.exp_avg, denominator))
    }
}

/// [`ParamsAdaBelief`] at work on a list of variables.
pub type AdaBelief = DropIn<ParamsAdaBelief>;

//! NAdam: Adam with Nesterov's momentum, whose decay grows with the steps.
//!
//! ```text
//! g ← g + λ·p                     decoupled: p ← p·(1 - lr·λ)
//! μₜ = β₁·(1 - 0.96^(t·ψ)/2)      m, v as in Adam
//! p ← p - lr·(μₜ₊₁·m/(1 - Π₁ᵗ⁺¹ μ) + (1 - μₜ)·g/(1 - Π₁ᵗ μ))/(√v̂ + ε)
//! ```
//! Dozat, 2016; as `torch.optim.NAdam`.
use crate::prelude::*;

hyper! { pub struct ParamsNAdam for "nadam", "Adam with Nesterov's momentum", "Dozat 2016", "torch" {
    lr: f64 [0.0..] = 2e-3, "Learning rate.";
    beta1: f64 [0.0..1.0] = 0.9, "Decay β₁ of the gradient's average.";
    beta2: f64 [0.0..1.0] = 0.999, "Decay β₂ of the squared gradient's average.";
    eps: f64 [0.0..] = 1e-8, "Added to the root, against division by zero.";
    weight_decay: f64 [0.0..] = 0., "Weight decay λ, added to the gradient.";
    momentum_decay: f64 [0.0..] = 4e-3, "ψ.";
    decoupled_weight_decay: bool = false, "Decay the weights, not the gradient.";
} }

rule! {
    pub struct Step { l2, decay_factor, of_g, of_m, beta1, one_minus_beta1, beta2, one_minus_beta2, root_correction, eps }
    state Moments { exp_avg, exp_avg_sq }
}

impl Elementwise for ParamsNAdam {
    type Rule = Step;
    fn scalars(&self, t: &mut Clock) -> Step {
        let &Self { lr, beta1, beta2, eps, weight_decay, momentum_decay, decoupled_weight_decay } = self;
        let mu_at = |step: u64| beta1 * (1. - 0.5 * 0.96f64.powf(step as f64 * momentum_decay));
        let (mu, next) = (mu_at(t.step), mu_at(t.step + 1));
        let root_correction = (1. - t.power(beta2)).sqrt();
        let (l2, decay_factor) = decay(lr, weight_decay, decoupled_weight_decay);
        let mu_product = t.memory("mu_product", 1.);
        *mu_product *= mu;
        Step {
            of_g: lr * (1. - mu) / (1. - *mu_product),
            of_m: lr * next / (1. - *mu_product * next),
            l2,
            decay_factor,
            root_correction,
            one_minus_beta1: 1. - beta1,
            one_minus_beta2: 1. - beta2,
            beta1,
            beta2,
            eps,
        }
    }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn update(&self, p: R, g: R, s: &mut Moments<R>) -> R {
        let g = g + self.l2 * p;
        s.exp_avg = ema(s.exp_avg, g, self.beta1, self.one_minus_beta1);
        s.exp_avg_sq = ema(s.exp_avg_sq, g * g, self.beta2, self.one_minus_beta2);
        let denominator = (s.exp_avg_sq.sqrt() / self.root_correction + self.eps).named("denominator");
        p * self.decay_factor - ratio(self.of_g * g + self.of_m * s.exp_avg, denominator)
    }
}

/// [`ParamsNAdam`] at work on a list of variables.
pub type NAdam = DropIn<ParamsNAdam>;

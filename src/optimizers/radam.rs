//! RAdam: Adam that waits for its second moment to be reliable.
//!
//! ```text
//! g ← g + λ·p                     decoupled: p ← p·(1 - lr·λ)
//! ρ∞ = 2/(1 - β₂) - 1             ρ = ρ∞ - 2t·β₂ᵗ/(1 - β₂ᵗ)      m, m̂, v as in Adam
//! r = √((ρ - 4)(ρ - 2)ρ∞/((ρ∞ - 4)(ρ∞ - 2)ρ))
//! p ← p - lr·m̂·r·√(1 - β₂ᵗ)/(√v + ε)      while ρ ≤ 5: p - lr·m̂
//! ```
//! Liu et al., 2019, arXiv:1908.03265, algorithm 2; as `torch.optim.RAdam`, which adds ε before the correction. The
//! paper's bound on ρ is 4.
use crate::prelude::*;

hyper! { pub struct ParamsRAdam for "radam", "Adam with a rectified second moment", "Liu et al. 2019, arXiv:1908.03265", "torch" {
    lr: f64 [0.0..] = 1e-3, "Learning rate.";
    beta1: f64 [0.0..1.0] = 0.9, "Decay β₁ of the gradient's average.";
    beta2: f64 [0.0..1.0] = 0.999, "Decay β₂ of the squared gradient's average.";
    eps: f64 [0.0..] = 1e-8, "Added to the root, against division by zero.";
    weight_decay: f64 [0.0..] = 0., "Weight decay λ, added to the gradient.";
    decoupled_weight_decay: bool = false, "Decay the weights, not the gradient.";
} }

rule! {
    pub struct Step { l2, decay_factor, beta1, one_minus_beta1, beta2, one_minus_beta2, eps, plain, adaptive }
    state Moments { exp_avg, exp_avg_sq }
}

/// The factor r of the step. It is `None` while the second moment is not reliable: while ρ is at most 5, or below 5 if
/// `from_5`.
pub(super) fn rectification(t: &Clock, beta2: f64, from_5: bool) -> Option<f64> {
    let most = 2. / (1. - beta2) - 1.;
    let power = t.power(beta2);
    let rho = most - 2. * t.step as f64 * power / (1. - power);
    let reliable = rho > 5. || from_5 && rho == 5.;
    reliable.then(|| ((rho - 4.) * (rho - 2.) * most / ((most - 4.) * (most - 2.) * rho)).sqrt())
}

impl Elementwise for ParamsRAdam {
    type Rule = Step;
    fn scalars(&self, t: &mut Clock) -> Step {
        let &Self { lr, beta1, beta2, eps, weight_decay, decoupled_weight_decay } = self;
        let (l2, decay_factor) = decay(lr, weight_decay, decoupled_weight_decay);
        let step_size = lr / (1. - t.power(beta1));
        let (plain, adaptive) = match rectification(t, beta2, false) {
            Some(r) => (0., step_size * r * (1. - t.power(beta2)).sqrt()),
            None => (step_size, 0.),
        };
        let (one_minus_beta1, one_minus_beta2) = (1. - beta1, 1. - beta2);
        Step { l2, decay_factor, beta1, one_minus_beta1, beta2, one_minus_beta2, eps, plain, adaptive }
    }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn update(&self, p: R, g: R, s: &mut Moments<R>) -> R {
        let g = g + self.l2 * p;
        s.exp_avg = ema(s.exp_avg, g, self.beta1, self.one_minus_beta1);
        s.exp_avg_sq = ema(s.exp_avg_sq, g * g, self.beta2, self.one_minus_beta2);
        let denominator = (s.exp_avg_sq.sqrt() + self.eps).named("denominator");
        p * self.decay_factor - (self.plain * s.exp_avg + ratio(self.adaptive * s.exp_avg, denominator))
    }
}

/// [`ParamsRAdam`] at work on a list of variables.
pub type RAdam = DropIn<ParamsRAdam>;

//! LAMB: Adam's direction, scaled to the norm of the weights.
//!
//! ```text
//! g ← g/max(1, ‖g‖/max_grad_norm)  the norm is over the group
//! m, v as in Adam
//! u = m̂/(√v̂ + ε) + λ·p             decoupled: p ← p·(1 - lr·λ)
//! p ← p - lr·(‖p‖/‖u‖)·u           1 for the ratio where a norm is 0, or where λ = 0 unless always_adapt
//! ```
//! You et al., 2019, arXiv:1904.00962; as in timm. One clock for the group.
use crate::prelude::*;

hyper! { pub struct ParamsLamb for "lamb", "Adam's direction, scaled to the norm of the weights", "You et al. 2019, arXiv:1904.00962", "timm" {
    lr: f64 [0.0..] = 1e-3, "Learning rate.";
    bias_correction: bool = true, "Divide the averages by 1 - βᵗ.";
    beta1: f64 [0.0..1.0] = 0.9, "Decay β₁ of the gradient's average.";
    beta2: f64 [0.0..1.0] = 0.999, "Decay β₂ of the squared gradient's average.";
    eps: f64 [0.0..] = 1e-6, "Added to the root, against division by zero.";
    weight_decay: f64 [0.0..] = 0.01, "Weight decay λ.";
    grad_averaging: bool = true, "Whether the average weights a gradient by 1 - β₁ or by 1.";
    max_grad_norm: Option<f64> [0.0..] = Some(1.), "Largest norm of the group's gradients.";
    trust_clip: bool = false, "Limit the ratio to 1.";
    always_adapt: bool = false, "Use the ratio also without weight decay.";
    decoupled_decay: bool = false, "Decay the weights instead of adding to u.";
} }

rule! {
    pub struct Step from (h: ParamsLamb, t) {
        lr, l2 = if h.decoupled_decay { 0. } else { h.weight_decay },
        decay_factor = if h.decoupled_decay { 1. - h.lr * h.weight_decay } else { 1. },
        beta1, of_g = if h.grad_averaging { 1. - h.beta1 } else { 1. },
        beta2, one_minus_beta2 = 1. - h.beta2,
        inverse_correction1 = if h.bias_correction { 1. / (1. - t.power(h.beta1)) } else { 1. },
        inverse_root_correction = if h.bias_correction { 1. / (1. - t.power(h.beta2)).sqrt() } else { 1. },
        eps, max_norm = h.max_grad_norm.unwrap_or(1.), max_trust = if h.trust_clip { 1. } else { f64::INFINITY },
    }
    clock of Group
    flags { clips = h.max_grad_norm.is_some(), adapts = h.weight_decay != 0. || h.always_adapt }
    state Moments { exp_avg, exp_avg_sq }
    sums Totals of Group if clips { grad_sq }
    sums Norms of Tensor if adapts { param_sq, direction_sq }
}

impl<R: Real> Step<R> {
    /// Updates the averages. Returns p after decoupled decay, and u.
    #[inline(always)]
    fn direction(&self, p: R, mut g: R, s: &mut Moments<R>) -> (R, R) {
        if self.clips {
            g = g * (R::lit(1.) / (self.grad_sq.sqrt() / self.max_norm).max(R::lit(1.))).named("clip");
        }
        s.exp_avg = ema(s.exp_avg, g, self.beta1, self.of_g);
        s.exp_avg_sq = ema(s.exp_avg_sq, g * g, self.beta2, self.one_minus_beta2);
        let denominator = (s.exp_avg_sq.sqrt() * self.inverse_root_correction + self.eps).named("denominator");
        (p * self.decay_factor, (ratio(s.exp_avg * self.inverse_correction1, denominator) + self.l2 * p).named("direction"))
    }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn measure_group(&self, _p: R, g: R, _s: Moments<R>) -> Totals<R> {
        Totals { grad_sq: g * g }
    }
    #[inline(always)]
    fn measure(&self, p: R, g: R, mut s: Moments<R>) -> Norms<R> {
        let (p, u) = self.direction(p, g, &mut s);
        Norms { param_sq: p * p, direction_sq: u * u }
    }
    #[inline(always)]
    fn update(&self, p: R, g: R, s: &mut Moments<R>) -> R {
        let (p, mut u) = self.direction(p, g, s);
        if self.adapts {
            let (weights, direction) = (self.param_sq.sqrt(), self.direction_sq.sqrt());
            let trust = (weights / direction).min(self.max_trust);
            // Each norm is tested, since the product of both would round to zero for a small tensor.
            let trust = weights.if_positive(direction.if_positive(trust, R::lit(1.)), R::lit(1.)).named("trust");
            u = u * trust;
        }
        p - self.lr * u
    }
}

/// [`ParamsLamb`] at work on a list of variables.
pub type Lamb = DropIn<ParamsLamb>;

//! LARS: SGD whose step is scaled to the norm of the weights.
//!
//! ```text
//! r = η·‖p‖/(‖g‖ + λ·‖p‖ + ε)     1 if a norm is 0; trust_clip: at most lr, and divided by it
//! b ← μ·b + (1 - τ)·(g + λ·p)·r   the first b without τ
//! p ← p - lr·b                    Nesterov: p - lr·((g + λ·p)·r + μ·b)
//! ```
//! Norms are the tensor's. Without decay there is no r, unless `always_adapt`: the step is then that of SGD. You et
//! al., 2017, arXiv:1708.03888, algorithm 1, with the learning rate outside the buffer; as in timm. optax takes the
//! norm of g + λ·p.
use crate::prelude::*;

hyper! { pub struct ParamsLars for "lars", "SGD, scaled to the norm of the weights", "You et al. 2017, arXiv:1708.03888", "timm" {
    lr: f64 [0.0..] = 1., "Learning rate.";
    momentum: f64 [0.0..1.0] = 0., "Momentum μ: the decay of the buffer.";
    dampening: f64 = 0., "Dampening τ: the share of the gradient that the buffer leaves out from the second step on.";
    weight_decay: f64 [0.0..] = 0., "Weight decay λ.";
    nesterov: bool = false, "Nesterov's momentum: look ahead along the buffer.";
    trust_coeff: f64 [0.0..] = 1e-3, "Factor η of the ratio.";
    eps: f64 [0.0..] = 1e-8, "Added to the gradient's norm, against division by zero.";
    trust_clip: bool = false, "Limit the step to that of a ratio of 1.";
    always_adapt: bool = false, "Use the ratio also without weight decay.";
} conflict |h| (h.nesterov && (h.momentum == 0. || h.dampening != 0.))
    .then_some("nesterov needs momentum above 0 and dampening = 0")
}

rule! {
    pub struct Step from (h: ParamsLars, t) {
        lr, weight_decay, trust_coeff, eps,
        unit = if h.trust_clip { h.lr } else { 1. }, max_trust = if h.trust_clip { 1. } else { f64::INFINITY },
        decay = if t.step == 1 { 0. } else { h.momentum },
        one_minus_dampening = if t.step == 1 { 1. } else { 1. - h.dampening },
        momentum,
    }
    flags { adapts = h.weight_decay != 0. || h.always_adapt, heavy = h.momentum != 0., nesterov }
    state Buffer { momentum_buffer if heavy }
    sums Norms of Tensor if adapts { param_sq, grad_sq }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn measure(&self, p: R, g: R, _s: Buffer<R>) -> Norms<R> {
        Norms { param_sq: p * p, grad_sq: g * g }
    }
    #[inline(always)]
    fn update(&self, p: R, mut g: R, s: &mut Buffer<R>) -> R {
        if self.adapts {
            let (weights, grads, one) = (self.param_sq.sqrt(), self.grad_sq.sqrt(), R::lit(1.));
            let trust = self.trust_coeff * weights / (grads + weights * self.weight_decay + self.eps);
            let trust = weights.if_positive(grads.if_positive(trust, one), one);
            let trust = ratio(trust, self.unit).min(self.max_trust).named("trust");
            g = (g + self.weight_decay * p) * trust;
        }
        if self.heavy {
            s.momentum_buffer = self.decay * s.momentum_buffer + self.one_minus_dampening * g;
            g = if self.nesterov { g + self.momentum * s.momentum_buffer } else { s.momentum_buffer };
        }
        p - self.lr * g
    }
}

/// [`ParamsLars`] at work on a list of variables.
pub type Lars = DropIn<ParamsLars>;

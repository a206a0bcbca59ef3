//! Yogi: Adam whose second moment changes by the gradient, not by its own size.
//!
//! ```text
//! g ← g + λ·p
//! m ← β₁·m + (1 - β₁)·g           m = v = initial_accumulator at first
//! v ← v - (1 - β₂)·sign(v - g²)·g²
//! p ← p - lr·m̂/(√v̂ + ε)           as in Adam
//! ```
//! Zaheer et al., 2018, "Adaptive methods for nonconvex optimization", algorithm 2; as in torch-optimizer. m starts
//! above 0, so a gradient of 0 moves p.
use crate::prelude::*;

hyper! { pub struct ParamsYogi for "yogi", "Adam with a second moment that grows slowly", "Zaheer et al. 2018", "torch-optimizer" {
    lr: f64 [0.0..] = 0.01, "Learning rate.";
    beta1: f64 [0.0..1.0] = 0.9, "Decay β₁ of the gradient's average.";
    beta2: f64 [0.0..1.0] = 0.999, "How slowly the second moment changes: by 1 - β₂ of a squared gradient.";
    eps: f64 [0.0..] = 1e-3, "Added to the root, against division by zero.";
    initial_accumulator: f64 [0.0..] = 1e-6, "First value of both averages.";
    weight_decay: f64 [0.0..] = 0., "L2 weight decay λ.";
} }

rule! {
    pub struct Step from (h: ParamsYogi, t) {
        weight_decay, initial_accumulator,
        beta1, one_minus_beta1 = 1. - h.beta1, one_minus_beta2 = 1. - h.beta2,
        eps, root_correction = (1. - t.power(h.beta2)).sqrt(), step_size = h.lr / (1. - t.power(h.beta1)),
    }
    state Moments { exp_avg, exp_avg_sq }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn init(&self, _p: R, s: &mut Moments<R>) {
        *s = Moments { exp_avg: self.initial_accumulator, exp_avg_sq: self.initial_accumulator };
    }
    #[inline(always)]
    fn update(&self, p: R, g: R, s: &mut Moments<R>) -> R {
        let g = g + self.weight_decay * p;
        s.exp_avg = ema(s.exp_avg, g, self.beta1, self.one_minus_beta1);
        let sq = g * g;
        s.exp_avg_sq = s.exp_avg_sq - self.one_minus_beta2 * (s.exp_avg_sq - sq).sign() * sq;
        let denominator = (s.exp_avg_sq.sqrt() / self.root_correction + self.eps).named("denominator");
        p - ratio(self.step_size * s.exp_avg, denominator)
    }
}

/// [`ParamsYogi`] at work on a list of variables.
pub type Yogi = DropIn<ParamsYogi>;

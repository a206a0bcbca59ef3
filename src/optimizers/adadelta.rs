//! Adadelta: steps in the unit of the weights, from an average of past steps.
//!
//! ```text
//! g ← g + λ·p
//! v ← ρ·v + (1 - ρ)·g²
//! d = √(a + ε)/√(v + ε)·g
//! a ← ρ·a + (1 - ρ)·d²
//! p ← p - lr·d
//! ```
//! Zeiler, 2012, arXiv:1212.5701, algorithm 1, whose lr is 1; as `torch.optim.Adadelta`.
use crate::prelude::*;

hyper! { pub struct ParamsAdadelta for "adadelta", "Steps in the unit of the weights", "Zeiler 2012, arXiv:1212.5701", "torch" {
    lr: f64 [0.0..] = 1., "Factor of the step.";
    rho: f64 [0.0..1.0] = 0.9, "Decay ρ of both averages.";
    eps: f64 [0.0..] = 1e-6, "Added inside both roots. The first steps depend on it.";
    weight_decay: f64 [0.0..] = 0., "L2 weight decay λ.";
} }

rule! {
    pub struct Step from (h: ParamsAdadelta, t) { weight_decay, rho, one_minus_rho = 1. - h.rho, eps, lr }
    state Averages { square_avg, acc_delta }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn update(&self, p: R, g: R, s: &mut Averages<R>) -> R {
        let g = g + self.weight_decay * p;
        s.square_avg = ema(s.square_avg, g * g, self.rho, self.one_minus_rho);
        let d = ratio((s.acc_delta + self.eps).sqrt() * g, (s.square_avg + self.eps).sqrt()).named("d");
        s.acc_delta = ema(s.acc_delta, d * d, self.rho, self.one_minus_rho);
        p - self.lr * d
    }
}

/// [`ParamsAdadelta`] at work on a list of variables.
pub type Adadelta = DropIn<ParamsAdadelta>;

//! Momentum as the textbook chapter writes it: an exponential moving average of the gradient.
//!
//! ```text
//! v ← β·v + (1 - β)·g
//! p ← p - lr·v
//! ```
//! Polyak, 1964, "Some methods of speeding up the convergence of iteration methods", with the gradient scaled by 1 - β.
//! It differs from [`sgd`](super::sgd) with dampening β at the first step, where v is (1 - β)·g and not g: v starts at
//! zero.
use crate::prelude::*;

hyper! { pub struct ParamsMomentum for "momentum", "Momentum as an average of the gradient", "Polyak 1964", "the chapter" {
    lr: f64 [0.0..] = 1e-3, "Learning rate.";
    beta: f64 [0.0..1.0] = 0.9, "Decay β of the average.";
} }

rule! {
    pub struct Step from (h: ParamsMomentum, t) { beta, one_minus_beta = 1. - h.beta, lr }
    state Average { momentum_buffer }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn update(&self, p: R, g: R, s: &mut Average<R>) -> R {
        s.momentum_buffer = ema(s.momentum_buffer, g, self.beta, self.one_minus_beta);
        p - self.lr * s.momentum_buffer
    }
}

/// [`ParamsMomentum`] at work on a list of variables.
pub type Momentum = DropIn<ParamsMomentum>;

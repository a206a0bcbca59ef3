//! Stochastic gradient descent, with momentum or Nesterov's.
//!
//! ```text
//! g ← g + λ·p
//! b ← μ·b + (1 - τ)·g        the first b is g itself
//! p ← p - lr·b               Nesterov: p - lr·(g + μ·b)
//! ```
//! Sutskever et al., 2013, "On the importance of initialization and momentum in deep learning", section 2, with the
//! learning rate outside the buffer, as in `torch.optim.SGD`. Without momentum it matches `candle_nn::SGD` bit for bit.
use crate::prelude::*;

hyper! { pub struct ParamsSgd for "sgd", "Gradient descent; momentum, Nesterov", "Sutskever et al. 2013", "torch" {
    lr: f64 [0.0..] = 1e-3, "Learning rate.";
    momentum: f64 [0.0..] = 0., "Momentum μ: the decay of the buffer.";
    dampening: f64 = 0., "Dampening τ: the share of the gradient that the buffer leaves out from the second step on.";
    nesterov: bool = false, "Nesterov's momentum: look ahead along the buffer.";
    weight_decay: f64 [0.0..] = 0., "L2 weight decay λ.";
} conflict |h| (h.nesterov && (h.momentum == 0. || h.dampening != 0.))
    .then_some("nesterov needs momentum above 0 and dampening = 0")
}

rule! {
    pub struct Step from (h: ParamsSgd, t) {
        weight_decay,
        decay = if t.step == 1 { 0. } else { h.momentum },
        one_minus_dampening = if t.step == 1 { 1. } else { 1. - h.dampening },
        momentum, lr,
    }
    flags { decays = h.weight_decay != 0., heavy = h.momentum != 0., nesterov }
    state Buffer { momentum_buffer if heavy }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn update(&self, p: R, g: R, s: &mut Buffer<R>) -> R {
        let mut g = if self.decays { g + self.weight_decay * p } else { g };
        if self.heavy {
            s.momentum_buffer = self.decay * s.momentum_buffer + self.one_minus_dampening * g;
            g = if self.nesterov { g + self.momentum * s.momentum_buffer } else { s.momentum_buffer };
        }
        p - self.lr * g
    }
}

/// [`ParamsSgd`] at work on a list of variables. For Candle's `SGD::new(vars, 0.1)` write `Sgd::new(vars, 0.1.into())`.
pub type Sgd = DropIn<ParamsSgd>;

impl From<f64> for ParamsSgd {
    fn from(lr: f64) -> Self {
        Self { lr, ..Self::default() }
    }
}

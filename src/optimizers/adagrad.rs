//! Adagrad: divides by the root of the sum of all squared gradients.
//!
//! ```text
//! g ← g + λ·p
//! s ← s + g²                      s = initial_accumulator_value at first
//! p ← p - lr/(1 + (t - 1)·lr_decay)·g/(√s + ε)
//! ```
//! Duchi, Hazan and Singer, 2011, JMLR 12, figure 1; as `torch.optim.Adagrad`.
use crate::prelude::*;

hyper! { pub struct ParamsAdagrad for "adagrad", "Divides by the sum of squared gradients", "Duchi et al. 2011", "torch" {
    lr: f64 [0.0..] = 0.01, "Learning rate.";
    lr_decay: f64 [0.0..] = 0., "How fast the learning rate decays.";
    weight_decay: f64 [0.0..] = 0., "L2 weight decay λ.";
    initial_accumulator_value: f64 [0.0..] = 0., "First value of the sum.";
    eps: f64 [0.0..] = 1e-10, "Added to the root, against division by zero.";
} }

rule! {
    pub struct Step from (h: ParamsAdagrad, t) {
        weight_decay, initial_accumulator_value, eps, step_size = h.lr / (1. + (t.step - 1) as f64 * h.lr_decay),
    }
    state Sum { sum }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn init(&self, _p: R, s: &mut Sum<R>) {
        s.sum = self.initial_accumulator_value;
    }
    #[inline(always)]
    fn update(&self, p: R, g: R, s: &mut Sum<R>) -> R {
        let g = g + self.weight_decay * p;
        s.sum = s.sum + g * g;
        p - ratio(self.step_size * g, s.sum.sqrt() + self.eps)
    }
}

/// [`ParamsAdagrad`] at work on a list of variables.
pub type Adagrad = DropIn<ParamsAdagrad>;

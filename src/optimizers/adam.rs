//! Adam, with L2 decay; AMSGrad.
//!
//! ```text
//! g ← g + λ·p
//! p ← p - lr·m̂/(√v̂ + ε)      as in AdamW
//! ```
//! Kingma and Ba, 2014, arXiv:1412.6980, algorithm 1; as `torch.optim.Adam`. The update is that of [`adamw`].
use super::adamw::{self, ParamsAdamW};
use crate::prelude::*;

hyper! { pub struct ParamsAdam for "adam", "Adam with L2 decay; AMSGrad", "Kingma and Ba 2014, arXiv:1412.6980", "torch" {
    lr: f64 [0.0..] = 1e-3, "Learning rate.";
    beta1: f64 [0.0..1.0] = 0.9, "Decay β₁ of the gradient's average.";
    beta2: f64 [0.0..1.0] = 0.999, "Decay β₂ of the squared gradient's average.";
    eps: f64 [0.0..] = 1e-8, "Added to the root, against division by zero.";
    weight_decay: f64 [0.0..] = 0., "L2 weight decay λ.";
    amsgrad: bool = false, "Divide by the largest average so far (AMSGrad).";
} }

impl Elementwise for ParamsAdam {
    type Rule = adamw::Step;
    fn scalars(&self, t: &mut Clock) -> adamw::Step {
        let &Self { lr, beta1, beta2, eps, weight_decay, amsgrad } = self;
        let adamw = ParamsAdamW { lr, beta1, beta2, eps, amsgrad, weight_decay: 0., caution: false };
        adamw::Step { l2: weight_decay, decays: weight_decay != 0., ..adamw.scalars(t) }
    }
}

/// [`ParamsAdam`] at work on a list of variables.
pub type Adam = DropIn<ParamsAdam>;

//! Lion: the sign of an average.
//!
//! ```text
//! p ← p·(1 - lr·λ) - lr·sign(β₁·m + (1 - β₁)·g)
//! m ← β₂·m + (1 - β₂)·g
//! ```
//! Chen et al., 2023, arXiv:2302.06675; as in lion-pytorch. Caution (`caution.rs`) applies to the sign.
use super::caution::{agrees, cautious};
use crate::prelude::*;

hyper! { pub struct ParamsLion for "lion", "Sign of an average", "Chen et al. 2023, arXiv:2302.06675", "lion-pytorch, timm" {
    lr: f64 [0.0..] = 1e-4, "Learning rate.";
    beta1: f64 [0.0..1.0] = 0.9, "Weight β₁ of the average in the step.";
    beta2: f64 [0.0..1.0] = 0.99, "Decay β₂ of the average.";
    weight_decay: f64 [0.0..] = 0., "Decoupled weight decay λ.";
    decoupled_weight_decay: bool = false, "Decay by λ·lr/lr₀, where lr₀ is the learning rate at construction.";
    caution: bool = false, "Skip elements whose step and gradient disagree.";
} }

rule! {
    pub struct Step from (h: ParamsLion, t) {
        lr, decay_factor = 1. - h.lr * h.weight_decay / if h.decoupled_weight_decay { *t.memory("initial_lr", h.lr) } else { 1. },
        beta1, one_minus_beta1 = 1. - h.beta1,
        beta2, one_minus_beta2 = 1. - h.beta2,
    }
    flags { caution }
    state Average { exp_avg }
    sums Agreement of Tensor if caution { agreeing, count }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn measure(&self, _p: R, g: R, s: Average<R>) -> Agreement<R> {
        let d = ema(s.exp_avg, g, self.beta1, self.one_minus_beta1).sign();
        Agreement { agreeing: agrees(d, g), count: R::lit(1.) }
    }
    #[inline(always)]
    fn update(&self, p: R, g: R, s: &mut Average<R>) -> R {
        let mut d = ema(s.exp_avg, g, self.beta1, self.one_minus_beta1).sign();
        if self.caution {
            d = cautious(d, g, self.agreeing, self.count);
        }
        s.exp_avg = ema(s.exp_avg, g, self.beta2, self.one_minus_beta2);
        p * self.decay_factor - self.lr * d
    }
}

/// [`ParamsLion`] at work on a list of variables.
pub type Lion = DropIn<ParamsLion>;

//! AdamW: Adam with decoupled weight decay.
//!
//! ```text
//! m ← β₁·m + (1 - β₁)·g          m̂ = m/(1 - β₁ᵗ)
//! v ← β₂·v + (1 - β₂)·g²         v̂ = v/(1 - β₂ᵗ)      AMSGrad: of the largest v so far
//! p ← p·(1 - lr·λ) - lr·m̂/(√v̂ + ε)
//! ```
//! Loshchilov and Hutter, 2017, arXiv:1711.05101, algorithm 2; AMSGrad: Reddi et al., 2018, arXiv:1904.09237. As in
//! torch, the bias correction is in the step size and the root; `candle_nn::AdamW` corrects the averages. Caution
//! (`caution.rs`) applies to m.
use super::caution::{agrees, cautious};
use crate::prelude::*;

hyper! { pub struct ParamsAdamW for "adamw", "Adam with decoupled decay; AMSGrad, caution", "Loshchilov and Hutter 2017, arXiv:1711.05101", "torch, timm" {
    lr: f64 [0.0..] = 1e-3, "Learning rate.";
    beta1: f64 [0.0..1.0] = 0.9, "Decay β₁ of the gradient's average.";
    beta2: f64 [0.0..1.0] = 0.999, "Decay β₂ of the squared gradient's average.";
    eps: f64 [0.0..] = 1e-8, "Added to the root, against division by zero.";
    weight_decay: f64 [0.0..] = 0.01, "Decoupled weight decay λ.";
    amsgrad: bool = false, "Divide by the largest average so far (AMSGrad).";
    caution: bool = false, "Skip elements whose average and gradient disagree.";
} }

rule! {
    pub struct Step from (h: ParamsAdamW, t) {
        beta1, one_minus_beta1 = 1. - h.beta1,
        beta2, one_minus_beta2 = 1. - h.beta2,
        eps, root_correction = (1. - t.power(h.beta2)).sqrt(),
        decay_factor = 1. - h.lr * h.weight_decay,
        step_size = h.lr / (1. - t.power(h.beta1)), l2 = 0.,
    }
    flags { decays = false, amsgrad, caution }
    state Moments { exp_avg, exp_avg_sq, max_exp_avg_sq if amsgrad }
    sums Agreement of Tensor if caution { agreeing, count }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn measure(&self, _p: R, g: R, s: Moments<R>) -> Agreement<R> {
        let m = ema(s.exp_avg, g, self.beta1, self.one_minus_beta1);
        Agreement { agreeing: agrees(m, g), count: R::lit(1.) }
    }
    #[inline(always)]
    fn update(&self, p: R, g: R, s: &mut Moments<R>) -> R {
        let g = if self.decays { g + self.l2 * p } else { g };
        s.exp_avg = ema(s.exp_avg, g, self.beta1, self.one_minus_beta1);
        s.exp_avg_sq = ema(s.exp_avg_sq, g * g, self.beta2, self.one_minus_beta2);
        let mut mean_sq = s.exp_avg_sq;
        if self.amsgrad {
            s.max_exp_avg_sq = s.max_exp_avg_sq.max(mean_sq);
            mean_sq = s.max_exp_avg_sq;
        }
        let mut m = s.exp_avg;
        if self.caution {
            m = cautious(m, g, self.agreeing, self.count);
        }
        let denominator = (mean_sq.sqrt() / self.root_correction + self.eps).named("denominator");
        p * self.decay_factor - ratio((self.step_size * m).named("scaled"), denominator)
    }
}

/// [`ParamsAdamW`] at work on a list of variables. It replaces Candle's AdamW.
pub type AdamW = DropIn<ParamsAdamW>;

impl From<candle_nn::ParamsAdamW> for ParamsAdamW {
    fn from(params: candle_nn::ParamsAdamW) -> Self {
        let candle_nn::ParamsAdamW { lr, beta1, beta2, eps, weight_decay } = params;
        Self { lr, beta1, beta2, eps, weight_decay, ..Self::default() }
    }
}

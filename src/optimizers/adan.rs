//! Adan: Nesterov's momentum from differences of gradients.
//!
//! ```text
//! d = g - g'                      g' = the variable's last gradient; d = 0 at its first
//! m ← β₁·m + (1 - β₁)·g           D ← β₂·D + (1 - β₂)·d
//! n ← β₃·n + (1 - β₃)·(g + β₂·d)²
//! u = (m/(1 - β₁ᵗ) + β₂·D/(1 - β₂ᵗ))/(√(n/(1 - β₃ᵗ)) + ε)
//! p ← (p - lr·u)/(1 + lr·λ)       no_prox: p·(1 - lr·λ) - lr·u
//! ```
//! t counts the steps of the group. Xie et al., 2022, arXiv:2208.06677, algorithm 1; as in timm and the authors' code.
//! The βs are the paper's 1 - β. Caution (`caution.rs`) applies to m alone. optax has 1 - β₂ in place of β₂ in u.
use super::caution::{agrees, cautious};
use crate::prelude::*;

hyper! { pub struct ParamsAdan for "adan", "Nesterov's momentum from differences", "Xie et al. 2022, arXiv:2208.06677", "timm" {
    lr: f64 [0.0..] = 1e-3, "Learning rate.";
    beta1: f64 [0.0..1.0] = 0.98, "Decay β₁ of the gradient's average.";
    beta2: f64 [0.0..1.0] = 0.92, "Decay β₂ of the difference's average, and its weight.";
    beta3: f64 [0.0..1.0] = 0.99, "Decay β₃ of the squared average.";
    eps: f64 [0.0..] = 1e-8, "Added to the root, against division by zero.";
    weight_decay: f64 [0.0..] = 0., "Weight decay λ.";
    no_prox: bool = false, "Decay before the step, as AdamW.";
    caution: bool = false, "Skip elements whose average and gradient disagree.";
} }

rule! {
    pub struct Step from (h: ParamsAdan, t) {
        had_grad = if t.started { 1. } else { 0. },
        beta1, one_minus_beta1 = 1. - h.beta1,
        beta2, one_minus_beta2 = 1. - h.beta2,
        beta3, one_minus_beta3 = 1. - h.beta3,
        eps, root_correction = (1. - t.power(h.beta3)).sqrt(),
        of_m = h.lr / (1. - t.power(h.beta1)), of_d = h.lr * h.beta2 / (1. - t.power(h.beta2)),
        decay_factor = if h.no_prox { 1. - h.lr * h.weight_decay } else { 1. },
        divisor = if h.no_prox { 1. } else { 1. + h.lr * h.weight_decay },
    }
    clock of Group
    flags { caution }
    state Moments { exp_avg, exp_avg_diff, exp_avg_sq, neg_pre_grad }
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
        let d = ((g + s.neg_pre_grad) * self.had_grad).named("difference");
        s.exp_avg = ema(s.exp_avg, g, self.beta1, self.one_minus_beta1);
        s.exp_avg_diff = ema(s.exp_avg_diff, d, self.beta2, self.one_minus_beta2);
        let ahead = (g + self.beta2 * d).named("ahead");
        s.exp_avg_sq = ema(s.exp_avg_sq, ahead * ahead, self.beta3, self.one_minus_beta3);
        s.neg_pre_grad = -g;
        let mut m = s.exp_avg;
        if self.caution {
            m = cautious(m, g, self.agreeing, self.count);
        }
        let denominator = (s.exp_avg_sq.sqrt() / self.root_correction + self.eps).named("denominator");
        (p * self.decay_factor - ratio(self.of_m * m + self.of_d * s.exp_avg_diff, denominator)) / self.divisor
    }
}

/// [`ParamsAdan`] at work on a list of variables.
pub type Adan = DropIn<ParamsAdan>;

//! ADOPT: Adam that divides a gradient by the second moment before that gradient, so that it converges for every β₂.
//!
//! ```text
//! p ← p·(1 - lr·λ)                coupled: g ← g + λ·p
//! n = clamp(g/max(√v, ε), ±(t - 1)^clip_exp)
//! m ← β₁·m + (1 - β₁)·n
//! p ← p - lr·m
//! v ← β₂·v + (1 - β₂)·g²
//! ```
//! The first gradient only sets v = g². Taniguchi et al., 2024, arXiv:2411.02853, algorithm 2; as in timm, with the
//! paper's `clip_exp` of 0.25 (timm: 0.333). Caution (`caution.rs`) applies to m.
use super::caution::{agrees, cautious};
use crate::prelude::*;

hyper! { pub struct ParamsAdopt for "adopt", "Adam that converges for every β₂", "Taniguchi et al. 2024, arXiv:2411.02853", "timm" {
    lr: f64 [0.0..] = 1e-3, "Learning rate.";
    beta1: f64 [0.0..1.0] = 0.9, "Decay β₁ of the scaled gradient's average.";
    beta2: f64 [0.0..1.0] = 0.9999, "Decay β₂ of the squared gradient's average.";
    eps: f64 [0.0..] = 1e-6, "Smallest root to divide by.";
    clip_exp: f64 [0.0..] = 0.25, "Power of the step that bounds the scaled gradient.";
    weight_decay: f64 [0.0..] = 0., "Weight decay λ.";
    decoupled: bool = false, "Decay the weights, not the gradient.";
    caution: bool = false, "Skip elements whose average and gradient disagree.";
} }

rule! {
    pub struct Step { l2, decay_factor, beta1, one_minus_beta1, beta2, one_minus_beta2, eps, limit, lr }
    flags { caution }
    state Moments { exp_avg, exp_avg_sq }
    sums Agreement of Tensor if caution { agreeing, count }
}

impl Elementwise for ParamsAdopt {
    type Rule = Step;
    fn scalars(&self, t: &mut Clock) -> Step {
        let &Self { beta1, eps, caution, .. } = self;
        let is_first = t.step == 1;
        let (lr, beta2) = if is_first { (0., 0.) } else { (self.lr, self.beta2) };
        let (l2, decay_factor) = decay(lr, self.weight_decay, self.decoupled);
        // 0⁰ is 1, but the first gradient must not move m.
        let limit = if is_first { 0. } else { ((t.step - 1) as f64).powf(self.clip_exp) };
        let (one_minus_beta1, one_minus_beta2) = (1. - beta1, 1. - beta2);
        Step {
            l2,
            decay_factor,
            beta1,
            one_minus_beta1,
            beta2,
            one_minus_beta2,
            eps,
            limit,
            lr,
            caution,
            ..Step::ZERO
        }
    }
}

impl<R: Real> Step<R> {
    #[inline(always)]
    fn next_m(&self, g: R, s: Moments<R>) -> R {
        let n = ratio(g, s.exp_avg_sq.sqrt().max(self.eps)).max(-self.limit).min(self.limit);
        ema(s.exp_avg, n, self.beta1, self.one_minus_beta1)
    }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn measure(&self, p: R, g: R, s: Moments<R>) -> Agreement<R> {
        let g = g + self.l2 * p;
        Agreement { agreeing: agrees(self.next_m(g, s), g), count: R::lit(1.) }
    }
    #[inline(always)]
    fn update(&self, p: R, g: R, s: &mut Moments<R>) -> R {
        let g = g + self.l2 * p;
        s.exp_avg = self.next_m(g, *s);
        s.exp_avg_sq = ema(s.exp_avg_sq, g * g, self.beta2, self.one_minus_beta2);
        let mut m = s.exp_avg;
        if self.caution {
            m = cautious(m, g, self.agreeing, self.count);
        }
        p * self.decay_factor - self.lr * m
    }
}

/// [`ParamsAdopt`] at work on a list of variables.
pub type Adopt = DropIn<ParamsAdopt>;

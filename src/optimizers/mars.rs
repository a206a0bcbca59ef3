//! MARS: AdamW or Lion along a gradient whose variance is reduced by the one before.
//!
//! ```text
//! c = g + γ·β₁/(1 - β₁)·(g - g')  g' = the last gradient; c = g at first
//! c ← c/max(1, ‖c‖)               the tensor's norm
//! m ← β₁·m + (1 - β₁)·c           v ← β₂·v + (1 - β₂)·c²
//! p ← p - lr·(λ·p + m̂/(√v̂ + ε))   lion: sign(m) for m̂/(√v̂ + ε)
//! ```
//! A vector takes AdamW's step instead, with c = g and lr·lr_1d_factor, unless `optimize_1d`. Yuan et al., 2024,
//! arXiv:2411.10438, algorithm 2; as in timm. The authors' code has g' = 0 at first.
use crate::prelude::*;

hyper! { pub struct ParamsMars for "mars", "AdamW or Lion with less variance", "Yuan et al. 2024, arXiv:2411.10438", "timm" {
    lr: f64 [0.0..] = 3e-3, "Learning rate.";
    beta1: f64 [0.0..1.0] = 0.9, "Decay β₁ of the gradient's average.";
    beta2: f64 [0.0..1.0] = 0.99, "Decay β₂ of the squared gradient's average.";
    eps: f64 [0.0..] = 1e-8, "Added to the root, against division by zero.";
    weight_decay: f64 [0.0..] = 0., "Decoupled weight decay λ.";
    gamma: f64 [0.0..] = 0.025, "Weight γ of the difference of gradients.";
    mars_type: MarsType = MarsType::AdamW, "The step along the reduced gradient.";
    optimize_1d: bool = false, "Reduce the variance of vectors, too.";
    lr_1d_factor: f64 [0.0..] = 1., "Factor of the learning rate of vectors that take AdamW's step.";
} }

words! {
    /// How MARS steps.
    pub enum MarsType { AdamW = "adamw", Lion = "lion" }
}

rule! {
    pub struct Step {
        of_difference, beta1, one_minus_beta1, beta2, one_minus_beta2, eps, root_correction, decay_factor, of_m, lr
    }
    flags { reduces, signs }
    state Moments { exp_avg, exp_avg_sq, last_grad }
    sums Norm of Tensor if reduces { reduced_sq }
}

impl Elementwise for ParamsMars {
    type Rule = Step;
    fn scalars(&self, t: &mut Clock) -> Step {
        let &Self { beta1, beta2, eps, .. } = self;
        let reduces = self.optimize_1d || t.rank() > 1;
        let lr = if reduces { self.lr } else { self.lr * self.lr_1d_factor };
        Step {
            of_difference: if t.step == 1 { 0. } else { self.gamma * beta1 / (1. - beta1) },
            beta1,
            one_minus_beta1: 1. - beta1,
            beta2,
            one_minus_beta2: 1. - beta2,
            eps,
            root_correction: (1. - t.power(beta2)).sqrt(),
            decay_factor: 1. - lr * self.weight_decay,
            of_m: lr / (1. - t.power(beta1)),
            lr,
            reduces,
            signs: reduces && self.mars_type == MarsType::Lion,
            ..Step::ZERO
        }
    }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn measure(&self, _p: R, g: R, s: Moments<R>) -> Norm<R> {
        let c = g + self.of_difference * (g - s.last_grad);
        Norm { reduced_sq: c * c }
    }
    #[inline(always)]
    fn update(&self, p: R, g: R, s: &mut Moments<R>) -> R {
        let mut c = g;
        if self.reduces {
            c = (g + self.of_difference * (g - s.last_grad)) / self.reduced_sq.sqrt().max(R::lit(1.));
        }
        s.last_grad = g;
        s.exp_avg = ema(s.exp_avg, c, self.beta1, self.one_minus_beta1);
        if self.signs {
            return p * self.decay_factor - self.lr * s.exp_avg.sign();
        }
        s.exp_avg_sq = ema(s.exp_avg_sq, c * c, self.beta2, self.one_minus_beta2);
        let denominator = (s.exp_avg_sq.sqrt() / self.root_correction + self.eps).named("denominator");
        p * self.decay_factor - ratio(self.of_m * s.exp_avg, denominator)
    }
}

/// [`ParamsMars`] at work on a list of variables.
pub type Mars = DropIn<ParamsMars>;

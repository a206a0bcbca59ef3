//! AdEMAMix: Adam with a second, slow average of the gradient.
//!
//! ```text
//! g ← g + λ·p                     decoupled: p ← p·(1 - lr·λ)
//! m, v as in Adam                 s ← β₃·s + (1 - β₃)·g
//! p ← p - lr·(m̂ + α·s)/(√v̂ + ε)
//! in the first T steps: α·t/T for α, and β₃ of which 1/ln β₃ rises linearly from 1/ln β₁
//! ```
//! t counts the steps of the group. Pagliardini et al., 2024, arXiv:2409.03137, algorithm 1, which decouples the decay;
//! as in pytorch_optimizer.
use crate::prelude::*;

hyper! { pub struct ParamsAdEmaMix for "ademamix", "Adam with a slow second average", "Pagliardini et al. 2024, arXiv:2409.03137", "pytorch_optimizer" {
    lr: f64 [0.0..] = 1e-3, "Learning rate.";
    beta1: f64 [0.0..1.0] = 0.9, "Decay β₁ of the gradient's average.";
    beta2: f64 [0.0..1.0] = 0.999, "Decay β₂ of the squared gradient's average.";
    beta3: f64 [0.0..1.0] = 0.9999, "Decay β₃ of the slow average.";
    weight_decay: f64 [0.0..] = 0., "Weight decay λ.";
    weight_decouple: bool = false, "Decay the weights, not the gradient.";
    alpha: f64 [0.0..] = 5., "Weight α of the slow average.";
    t_alpha_beta3: Option<f64> [1.0..] = None, "Steps T in which α and β₃ rise; `none` is no rise.";
    eps: f64 [0.0..] = 1e-8, "Added to the root, against division by zero.";
} }

rule! {
    pub struct Step {
        l2, decay_factor, beta1, one_minus_beta1, beta2, one_minus_beta2, beta3, one_minus_beta3, eps, root_correction,
        of_m, of_slow
    }
    clock of Group
    state Moments { exp_avg, exp_avg_sq, exp_avg_slow }
}

impl Elementwise for ParamsAdEmaMix {
    type Rule = Step;
    fn scalars(&self, t: &mut Clock) -> Step {
        let &Self { lr, beta1, beta2, eps, .. } = self;
        let done = self.t_alpha_beta3.map_or(1., |steps| (t.step as f64 / steps).min(1.));
        let beta3 = match done {
            1. => self.beta3,
            _ => (1. / ((1. - done) / beta1.ln() + done / self.beta3.ln())).exp().min(self.beta3),
        };
        let (l2, decay_factor) = decay(lr, self.weight_decay, self.weight_decouple);
        Step {
            l2,
            decay_factor,
            beta1,
            one_minus_beta1: 1. - beta1,
            beta2,
            one_minus_beta2: 1. - beta2,
            beta3,
            one_minus_beta3: 1. - beta3,
            eps,
            root_correction: (1. - t.power(beta2)).sqrt(),
            of_m: lr / (1. - t.power(beta1)),
            of_slow: lr * self.alpha * done,
        }
    }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn update(&self, p: R, g: R, s: &mut Moments<R>) -> R {
        let g = g + self.l2 * p;
        s.exp_avg = ema(s.exp_avg, g, self.beta1, self.one_minus_beta1);
        s.exp_avg_sq = ema(s.exp_avg_sq, g * g, self.beta2, self.one_minus_beta2);
        s.exp_avg_slow = ema(s.exp_avg_slow, g, self.beta3, self.one_minus_beta3);
        let denominator = (s.exp_avg_sq.sqrt() / self.root_correction + self.eps).named("denominator");
        p * self.decay_factor - ratio(self.of_m * s.exp_avg + self.of_slow * s.exp_avg_slow, denominator)
    }
}

/// [`ParamsAdEmaMix`] at work on a list of variables.
pub type AdEmaMix = DropIn<ParamsAdEmaMix>;

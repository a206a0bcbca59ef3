//! Signum: the sign of the momentum. Without momentum it is signSGD.
//!
//! ```text
//! p ← p·(1 - lr·λ)                coupled: g ← g + λ·p
//! b ← μ·b + (1 - μ)·g
//! p ← p - lr·sign(b)
//! ```
//! Bernstein et al., 2018, arXiv:1802.04434, algorithm 2; as `SignSGD` of pytorch_optimizer.
use crate::prelude::*;

hyper! { pub struct ParamsSignum for "signum", "Sign of the momentum", "Bernstein et al. 2018, arXiv:1802.04434", "pytorch_optimizer" {
    lr: f64 [0.0..] = 1e-3, "Learning rate.";
    momentum: f64 [0.0..1.0] = 0.9, "Decay μ of the average; 0 keeps none.";
    weight_decay: f64 [0.0..] = 0., "Weight decay λ.";
    weight_decouple: bool = true, "Decay the weights, not the gradient.";
} }

rule! {
    pub struct Step from (h: ParamsSignum, t) {
        lr,
        l2 = decay(h.lr, h.weight_decay, h.weight_decouple).0,
        decay_factor = decay(h.lr, h.weight_decay, h.weight_decouple).1,
        momentum, one_minus_momentum = 1. - h.momentum,
    }
    flags { heavy = h.momentum != 0. }
    state Buffer { momentum_buffer if heavy }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn update(&self, p: R, g: R, s: &mut Buffer<R>) -> R {
        let mut g = g + self.l2 * p;
        if self.heavy {
            s.momentum_buffer = ema(s.momentum_buffer, g, self.momentum, self.one_minus_momentum);
            g = s.momentum_buffer;
        }
        p * self.decay_factor - self.lr * g.sign()
    }
}

/// [`ParamsSignum`] at work on a list of variables.
pub type Signum = DropIn<ParamsSignum>;

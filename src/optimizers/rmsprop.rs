//! RMSprop, with momentum or centered.
//!
//! ```text
//! g ← g + λ·p
//! v ← α·v + (1 - α)·g²
//! a = √v + ε                 centered: ḡ ← α·ḡ + (1 - α)·g,  a = √(v - ḡ²) + ε
//! p ← p - lr·g/a             momentum: b ← μ·b + g/a,  p ← p - lr·b
//! ```
//! Tieleman and Hinton, 2012, Coursera "Neural networks for machine learning", lecture 6.5; centered: Graves, 2013,
//! arXiv:1308.0850, equations 38 to 45. As in `torch.optim.RMSprop`, ε stands outside the root and lr outside the
//! buffer.
use crate::prelude::*;

hyper! { pub struct ParamsRmsProp for "rmsprop", "RMSprop; momentum, centered", "Tieleman and Hinton 2012", "torch" {
    lr: f64 [0.0..] = 0.01, "Learning rate.";
    alpha: f64 [0.0..1.0] = 0.99, "Decay α of the averages.";
    eps: f64 [0.0..] = 1e-8, "Added to the root, against division by zero.";
    momentum: f64 [0.0..] = 0., "Momentum μ of the scaled gradient.";
    centered: bool = false, "Divide by the standard deviation of the gradient instead of its root mean square.";
    weight_decay: f64 [0.0..] = 0., "L2 weight decay λ.";
} }

rule! {
    pub struct Step from (h: ParamsRmsProp, t) { weight_decay, alpha, one_minus_alpha = 1. - h.alpha, eps, momentum, lr }
    flags { decays = h.weight_decay != 0., centered, heavy = h.momentum != 0. }
    state Averages { square_avg, grad_avg if centered, momentum_buffer if heavy }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn update(&self, p: R, g: R, s: &mut Averages<R>) -> R {
        let g = if self.decays { g + self.weight_decay * p } else { g };
        s.square_avg = ema(s.square_avg, g * g, self.alpha, self.one_minus_alpha);
        let mut variance = s.square_avg;
        if self.centered {
            s.grad_avg = ema(s.grad_avg, g, self.alpha, self.one_minus_alpha);
            // Rounding can make the variance negative where the gradient is constant; torch then computes NaN.
            variance = (variance - s.grad_avg * s.grad_avg).max(R::lit(0.));
        }
        let mut d = ratio(g, variance.sqrt() + self.eps);
        if self.heavy {
            s.momentum_buffer = self.momentum * s.momentum_buffer + d;
            d = s.momentum_buffer;
        }
        p - self.lr * d
    }
}

/// [`ParamsRmsProp`] at work on a list of variables.
pub type RmsProp = DropIn<ParamsRmsProp>;

//! MADGRAD: dual averaging with the cube root of the sum of squared gradients.
//!
//! ```text
//! lr ← lr + ε, if above 0         k = lr·√t
//! g ← g + λ·p                     decoupled: p ← p - lr·λ·p, after the step
//! q ← q + k·g²                    s ← s + k·g
//! z = x₀ - s/(∛q + ε)             x₀ = p at first
//! p ← μ·p + (1 - μ)·z             without momentum: z, and x₀ from p, s and q
//! ```
//! t counts the steps of the group. Defazio and Jelassi, 2021, arXiv:2101.11075, algorithm 1; as in their package. timm
//! applies decoupled decay before the step.
use crate::prelude::*;

hyper! { pub struct ParamsMadgrad for "madgrad", "Dual averaging with a cube root", "Defazio and Jelassi 2021, arXiv:2101.11075", "madgrad" {
    lr: f64 [0.0..] = 0.01, "Learning rate.";
    momentum: f64 [0.0..1.0] = 0.9, "Momentum μ.";
    weight_decay: f64 [0.0..] = 0., "Weight decay λ.";
    eps: f64 [0.0..] = 1e-6, "Added to the root and to the learning rate.";
    decouple_decay: bool = false, "Decay the weights, not the gradient.";
} }

rule! {
    pub struct Step { l2, decay, momentum, one_minus_momentum, eps, k }
    clock of Group
    flags { heavy }
    state Sums { grad_sum_sq, s, x0 as weights if heavy }
}

impl Elementwise for ParamsMadgrad {
    type Rule = Step;
    fn scalars(&self, t: &mut Clock) -> Step {
        let &Self { momentum, weight_decay, eps, decouple_decay, .. } = self;
        let lr = if self.lr == 0. { 0. } else { self.lr + eps };
        let (l2, decay) = if decouple_decay { (0., lr * weight_decay) } else { (weight_decay, 0.) };
        let (k, one_minus_momentum) = (lr * (t.step as f64).sqrt(), 1. - momentum);
        Step { l2, decay, momentum, one_minus_momentum, eps, k, heavy: momentum != 0. }
    }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn init(&self, p: R, s: &mut Sums<R>) {
        s.x0 = p;
    }
    #[inline(always)]
    fn update(&self, p: R, g: R, s: &mut Sums<R>) -> R {
        let g = g + self.l2 * p;
        let x0 = if self.heavy { s.x0 } else { p + ratio(s.s, s.grad_sum_sq.cbrt() + self.eps) };
        s.grad_sum_sq = s.grad_sum_sq + self.k * (g * g);
        s.s = s.s + self.k * g;
        let z = (x0 - ratio(s.s, s.grad_sum_sq.cbrt() + self.eps)).named("z");
        let next = if self.heavy { self.momentum * p + self.one_minus_momentum * z } else { z };
        next - self.decay * p
    }
}

/// [`ParamsMadgrad`] at work on a list of variables.
pub type Madgrad = DropIn<ParamsMadgrad>;

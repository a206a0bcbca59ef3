//! Rprop: a step size for every weight, from signs alone.
//!
//! ```text
//! η ← clamp(η·η₊ if g·g' > 0, η·η₋ if g·g' < 0, else η)      g' = the last gradient, η = lr at first
//! g ← 0 if g·g' < 0
//! p ← p - η·sign(g)
//! ```
//! Riedmiller and Braun, 1993; as `torch.optim.Rprop`. A change of the learning rate after the first step has no
//! effect.
use crate::prelude::*;

hyper! { pub struct ParamsRprop for "rprop", "A step size for every weight, from signs", "Riedmiller and Braun 1993", "torch" {
    lr: f64 [0.0..] = 0.01, "First step size.";
    etaminus: f64 [1e-30..1.0] = 0.5, "Factor η₋ if the sign of the gradient changed.";
    etaplus: f64 [1.0..] = 1.2, "Factor η₊ if it did not.";
    step_min: f64 [0.0..] = 1e-6, "Smallest step size.";
    step_max: f64 [0.0..] = 50., "Largest step size.";
} }

rule! {
    pub struct Step from (h: ParamsRprop, t) { lr, etaminus, etaplus, step_min, step_max }
    state Signs { prev, step_size }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn init(&self, _p: R, s: &mut Signs<R>) {
        s.step_size = self.lr;
    }
    #[inline(always)]
    fn update(&self, p: R, g: R, s: &mut Signs<R>) -> R {
        // The product of signs, since a product of small gradients would be rounded to zero.
        let agreement = (g.sign() * s.prev.sign()).named("agreement");
        let factor = agreement.if_positive(self.etaplus, (-agreement).if_positive(self.etaminus, R::lit(1.)));
        s.step_size = (s.step_size * factor).max(self.step_min).min(self.step_max);
        s.prev = (-agreement).if_positive(R::lit(0.), g);
        p - s.prev.sign() * s.step_size
    }
}

/// [`ParamsRprop`] at work on a list of variables.
pub type Rprop = DropIn<ParamsRprop>;

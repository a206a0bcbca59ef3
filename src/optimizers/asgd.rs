//! ASGD: SGD with an average of the weights, to evaluate with.
//!
//! ```text
//! g ← g + wd·p
//! p ← p·(1 - λ·η) - η·g           η = lr at first
//! a ← a + μ·(p - a)               μ = 1 at first, so that a is p
//! η ← lr/(1 + λ·lr·t)^α           μ ← 1/max(1, t - t₀)
//! ```
//! Polyak and Juditsky, 1992; as `torch.optim.ASGD`, which never reads its average `ax`. Here it is the weight to
//! evaluate with. A new learning rate takes effect one step late.
use crate::prelude::*;

hyper! { pub struct ParamsAsgd for "asgd", "SGD with an average of the weights", "Polyak and Juditsky 1992", "torch" {
    lr: f64 [0.0..] = 0.01, "Learning rate.";
    lambd: f64 [0.0..] = 1e-4, "Decay λ of the weights and of the step size.";
    alpha: f64 [0.0..] = 0.75, "Power α of the step size.";
    t0: f64 [0.0..] = 1e6, "Step t₀ from which on weights are averaged.";
    weight_decay: f64 [0.0..] = 0., "L2 weight decay.";
} }

rule! {
    pub struct Step { weight_decay, eta, decay_factor, mu, one_minus_mu }
    state Average { ax as weights }
}

impl Elementwise for ParamsAsgd {
    type Rule = Step;
    fn scalars(&self, t: &mut Clock) -> Step {
        let &Self { lr, lambd, alpha, t0, weight_decay } = self;
        let step = t.step as f64;
        let next_eta = lr / (1. + lambd * lr * step).powf(alpha);
        let eta = std::mem::replace(t.memory("eta", lr), next_eta);
        let eta = if t.step == 1 { lr } else { eta };
        let mu = std::mem::replace(t.memory("mu", 1.), 1. / (step - t0).max(1.));
        Step { weight_decay, eta, decay_factor: 1. - lambd * eta, mu, one_minus_mu: 1. - mu }
    }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn update(&self, p: R, g: R, s: &mut Average<R>) -> R {
        let g = g + self.weight_decay * p;
        let next = p * self.decay_factor - self.eta * g;
        s.ax = ema(s.ax, next, self.one_minus_mu, self.mu);
        next
    }
    #[inline(always)]
    fn eval(&self, _p: R, s: Average<R>) -> R {
        s.ax
    }
}

/// [`ParamsAsgd`] at work on a list of variables.
pub type Asgd = DropIn<ParamsAsgd>;

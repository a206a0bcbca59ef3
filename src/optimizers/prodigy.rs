//! Prodigy: Adam that estimates its own learning rate, from how far the weights have moved.
//!
//! ```text
//! a = d·lr·√(1 - β₂ᵗ)/(1 - β₁ᵗ)    without bias correction: d·lr
//! g ← g + λ·p                      only if coupled
//! m ← β₁·m + (1 - β₁)·d·g          v ← β₂·v + (1 - β₂)·d²·g²
//! r ← β₃·r + a·d/d₀·⟨g, p₀ - p⟩    s ← β₃·s + a·d/d₀·g        safeguard_warmup: d for a in s
//! d ← the largest d_coef·r/‖s‖₁ so far, at most growth_rate·d
//! p ← p·(1 - a·λ) - a·m/(√v + d·ε)
//! ```
//! ⟨,⟩ and ‖‖₁ are sums over the group, which has one clock. A step with s = 0 or lr = 0 does not count. Mishchenko and
//! Defazio, 2023, arXiv:2306.06101, algorithm 4, with the factors d/d₀ of their code.
use crate::prelude::*;

hyper! { pub struct ParamsProdigy for "prodigy", "Adam that estimates its learning rate", "Mishchenko and Defazio 2023, arXiv:2306.06101", "prodigyopt" {
    lr: f64 [0.0..] = 1., "Factor of the estimate.";
    beta1: f64 [0.0..1.0] = 0.9, "Decay β₁ of the gradient's average; 0 keeps no average.";
    beta2: f64 [0.0..1.0] = 0.999, "Decay β₂ of the squared gradient's average.";
    beta3: Option<f64> [0.0..1.0] = None, "Decay β₃ of the estimate's sums; `none` is √β₂.";
    eps: f64 [0.0..] = 1e-8, "Added to the root, against division by zero.";
    weight_decay: f64 [0.0..] = 0., "Weight decay λ.";
    decouple: bool = true, "Decay the weights, not the gradient.";
    use_bias_correction: bool = false, "Adam's bias correction.";
    safeguard_warmup: bool = false, "Keep the learning rate out of the denominator of the estimate.";
    d0: f64 [1e-30..] = 1e-6, "First estimate d₀.";
    d_coef: f64 [0.0..] = 1., "Factor of later estimates.";
    growth_rate: f64 [1.0..=f64::INFINITY] = f64::INFINITY, "Largest growth of the estimate in a step; `none` is no limit.";
} }

rule! {
    pub struct Step { l2, decay_factor, beta1, of_m, beta2, of_v, beta3, of_s, step_size, eps }
    clock of Group
    flags { averages }
    state Moments { exp_avg if averages, exp_avg_sq, s, p0 as weights }
    sums Totals of Group { distance, s_l1 }
}

impl Elementwise for ParamsProdigy {
    type Rule = Step;
    const MEASURED: bool = true;
    fn scalars(&self, t: &mut Clock) -> Step {
        let &Self { lr, beta1, beta2, weight_decay, d0, .. } = self;
        let d = *t.memory("d", d0);
        let averages = beta1 > 0.;
        if lr == 0. {
            return Step { beta1: 1., beta2: 1., beta3: 1., averages, ..Step::ZERO };
        }
        let correction = if self.use_bias_correction { (1. - t.power(beta2)).sqrt() / (1. - t.power(beta1)) } else { 1. };
        let step_size = d * lr * correction;
        let (l2, decay_factor) = decay(step_size, weight_decay, self.decouple);
        Step {
            l2,
            decay_factor,
            of_m: (1. - beta1) * d,
            of_v: (1. - beta2) * d * d,
            beta3: self.beta3.unwrap_or(beta2.sqrt()),
            of_s: if self.safeguard_warmup { d } else { step_size } * d / d0,
            step_size,
            beta1,
            beta2,
            averages,
            ..Step::ZERO
        }
    }
    fn measured(&self, t: &mut Clock, k: Step) -> Step {
        let (r, d, largest) = (*t.memory("d_numerator", 0.), *t.memory("d", self.d0), *t.memory("d_max", self.d0));
        if self.lr == 0. || k.s_l1 == 0. {
            t.step -= 1;
            return Step { decay_factor: 1., step_size: 0., eps: 1., ..k };
        }
        let r = k.beta3 * r + k.step_size * d / self.d0 * k.distance;
        let estimate = self.d_coef * r / k.s_l1;
        let largest = largest.max(estimate);
        let from = if d == self.d0 { d.max(estimate) } else { d };
        let d = largest.min(from * self.growth_rate);
        (*t.memory("d_numerator", 0.), *t.memory("d", self.d0), *t.memory("d_max", self.d0)) = (r, d, largest);
        let of_m = if k.averages { k.of_m } else { d };
        Step { of_m, eps: d * self.eps, ..k }
    }
}

impl<R: Real> Step<R> {
    #[inline(always)]
    fn next_s(&self, g: R, s: R) -> R {
        s * self.beta3 + g * self.of_s
    }
}

impl<R: Real> Rule<R> for Step<R> {
    #[inline(always)]
    fn init(&self, p: R, s: &mut Moments<R>) {
        s.p0 = p;
    }
    #[inline(always)]
    fn measure_group(&self, p: R, g: R, s: Moments<R>) -> Totals<R> {
        let g = g + self.l2 * p;
        Totals { distance: g * (s.p0 - p), s_l1: self.next_s(g, s.s).abs() }
    }
    #[inline(always)]
    fn update(&self, p: R, g: R, s: &mut Moments<R>) -> R {
        let g = g + self.l2 * p;
        let mut m = g * self.of_m;
        if self.averages {
            s.exp_avg = s.exp_avg * self.beta1 + m;
            m = s.exp_avg;
        }
        s.exp_avg_sq = ema(s.exp_avg_sq, g * g, self.beta2, self.of_v);
        s.s = self.next_s(g, s.s);
        p * self.decay_factor - ratio(self.step_size * m, s.exp_avg_sq.sqrt() + self.eps)
    }
}

/// [`ParamsProdigy`] at work on a list of variables.
pub type Prodigy = DropIn<ParamsProdigy>;

//! Adam, and its variant AMSGrad.
//!
//! ```text
//! m ← β₁·m + (1 - β₁)·g
//! v ← β₂·v + (1 - β₂)·g²
//! p ← p - lr·m̂/(√v̂ + ε)      with m̂ = m/(1 - β₁ᵗ), v̂ = v/(1 - β₂ᵗ)
//! ```
//!
//! Kingma and Ba, 2014, arXiv:1412.6980, algorithm 1. AMSGrad (Reddi, Kale and Kumar, 2018, arXiv:1904.09237,
//! algorithm 2) divides by the largest v so far. As in `torch.optim.Adam`, the bias corrections are applied to the
//! step size and to the root, the maximum is taken of the uncorrected v, and weight decay is an L2 penalty.

use crate::optimizer::{Config, Optim};
use crate::params::params;
use crate::real::Real;
use crate::rule::{Decay, Plan, Rule, ema};

/// Adam: [module](crate::rules::adam).
pub type Adam = Optim<ParamsAdam>;

params! {
    /// Hyperparameters of [`Adam`].
    pub struct ParamsAdam for "adam" {
        /// Learning rate.
        lr: f64 = 1e-3, NonNegative;
        /// Decay β₁ of the gradient's average.
        beta1: f64 = 0.9, Fraction;
        /// Decay β₂ of the squared gradient's average.
        beta2: f64 = 0.999, Fraction;
        /// Added to the root, against division by zero.
        eps: f64 = 1e-8, NonNegative;
        /// L2 weight decay.
        weight_decay: f64 = 0., NonNegative;
        /// Divide by the largest average so far (AMSGrad).
        amsgrad: bool = false, Flag;
        /// Climb instead of descend.
        maximize: bool = false, Flag;
    }
}

impl Config for ParamsAdam {
    fn plan(&self, step: u64) -> Plan {
        let scalars = scalars(self.lr, [self.beta1, self.beta2], self.eps, step);
        plan(scalars, self.amsgrad).maximize(self.maximize).decay(Decay::l2(self.weight_decay))
    }
}

/// The scalars of step `t`, in the order of [`SCALARS`].
pub(super) fn scalars(lr: f64, [beta1, beta2]: [f64; 2], eps: f64, t: u64) -> [f64; 7] {
    let correction = |beta: f64| 1. - beta.powf(t as f64);
    [beta1, 1. - beta1, beta2, 1. - beta2, lr / correction(beta1), correction(beta2).sqrt(), eps]
}

const SCALARS: [&str; 7] = ["beta1", "fresh1", "beta2", "fresh2", "step_size", "root_correction", "eps"];

/// A step of Adam's rule or AMSGrad's.
pub(super) fn plan(scalars: [f64; 7], amsgrad: bool) -> Plan {
    if amsgrad { Plan::new(AmsGrad, scalars) } else { Plan::new(Moments, scalars) }
}

struct Moments;

impl Rule<2, 7> for Moments {
    const STATE: [&'static str; 2] = ["exp_avg", "exp_avg_sq"];
    const SCALARS: [&'static str; 7] = SCALARS;

    #[inline(always)]
    fn update<R: Real>(p: R, g: R, [m, v]: [R; 2], scalars: [R; 7]) -> (R, [R; 2]) {
        let [m, v] = moments(g, [m, v], scalars);
        (descend(p, m, v, scalars), [m, v])
    }
}

struct AmsGrad;

impl Rule<3, 7> for AmsGrad {
    const STATE: [&'static str; 3] = ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];
    const SCALARS: [&'static str; 7] = SCALARS;

    #[inline(always)]
    fn update<R: Real>(p: R, g: R, [m, v, largest]: [R; 3], scalars: [R; 7]) -> (R, [R; 3]) {
        let [m, v] = moments(g, [m, v], scalars);
        let largest = largest.max(v);
        (descend(p, m, largest, scalars), [m, v, largest])
    }
}

#[inline(always)]
fn moments<R: Real>(g: R, [m, v]: [R; 2], [beta1, fresh1, beta2, fresh2, ..]: [R; 7]) -> [R; 2] {
    [ema(m, g, beta1, fresh1), ema(v, g * g, beta2, fresh2)]
}

#[inline(always)]
fn descend<R: Real>(p: R, m: R, v: R, [.., step_size, root_correction, eps]: [R; 7]) -> R {
    p - step_size * m / (v.sqrt() / root_correction + eps)
}

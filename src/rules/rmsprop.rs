//! RMSprop, with momentum or centered.
//!
//! ```text
//! v ← α·v + (1 - α)·g²
//! a = √v + ε                 centered: ḡ ← α·ḡ + (1 - α)·g,  a = √(v - ḡ²) + ε
//! p ← p - lr·g/a             momentum: b ← μ·b + g/a,  p ← p - lr·b
//! ```
//!
//! Tieleman and Hinton, 2012, Coursera "Neural networks for machine learning", lecture 6.5; centered: Graves, 2013,
//! arXiv:1308.0850, equations 38 to 45. As in `torch.optim.RMSprop`, ε stands outside the root and lr outside the buffer.

use crate::optimizer::{Config, Optim};
use crate::params::params;
use crate::real::Real;
use crate::rule::{Decay, Plan, Rule, ema};
use crate::rules::sgd::{accumulate, descend};

/// RMSprop: [module](crate::rules::rmsprop).
pub type RmsProp = Optim<ParamsRmsProp>;

params! {
    /// Hyperparameters of [`RmsProp`].
    pub struct ParamsRmsProp for "rmsprop" {
        /// Learning rate.
        lr: f64 = 1e-2, NonNegative;
        /// Decay α of the averages.
        alpha: f64 = 0.99, Fraction;
        /// Added to the root, against division by zero.
        eps: f64 = 1e-8, NonNegative;
        /// Momentum μ on the scaled gradient.
        momentum: f64 = 0., NonNegative;
        /// Divide by the standard deviation of the gradient instead of its root mean square.
        centered: bool = false, Flag;
        /// L2 weight decay.
        weight_decay: f64 = 0., NonNegative;
        /// Climb instead of descend.
        maximize: bool = false, Flag;
    }
}

impl Config for ParamsRmsProp {
    fn plan(&self, _step: u64) -> Plan {
        let Self { lr, alpha, eps, momentum, .. } = *self;
        let fresh = 1. - alpha;
        let plan = match (self.centered, momentum != 0.) {
            (false, false) => Plan::new(Plain, [alpha, fresh, eps, lr]),
            (false, true) => Plan::new(WithMomentum, [alpha, fresh, eps, momentum, lr]),
            (true, false) => Plan::new(Centered, [alpha, fresh, eps, lr]),
            (true, true) => Plan::new(CenteredWithMomentum, [alpha, fresh, eps, momentum, lr]),
        };
        plan.maximize(self.maximize).decay(Decay::l2(self.weight_decay))
    }
}

struct Plain;

impl Rule<1, 4> for Plain {
    const STATE: [&'static str; 1] = ["square_avg"];
    const SCALARS: [&'static str; 4] = ["alpha", "fresh", "eps", "lr"];

    #[inline(always)]
    fn update<R: Real>(p: R, g: R, [v]: [R; 1], [alpha, fresh, eps, lr]: [R; 4]) -> (R, [R; 1]) {
        let (d, v) = scaled(g, v, alpha, fresh, eps);
        (descend(p, d, lr), [v])
    }
}

struct WithMomentum;

impl Rule<2, 5> for WithMomentum {
    const STATE: [&'static str; 2] = ["square_avg", "momentum_buffer"];
    const SCALARS: [&'static str; 5] = ["alpha", "fresh", "eps", "mu", "lr"];

    #[inline(always)]
    fn update<R: Real>(p: R, g: R, [v, b]: [R; 2], [alpha, fresh, eps, mu, lr]: [R; 5]) -> (R, [R; 2]) {
        let (d, v) = scaled(g, v, alpha, fresh, eps);
        let b = accumulate(b, d, mu, R::lit(1.));
        (descend(p, b, lr), [v, b])
    }
}

struct Centered;

impl Rule<2, 4> for Centered {
    const STATE: [&'static str; 2] = ["square_avg", "grad_avg"];
    const SCALARS: [&'static str; 4] = ["alpha", "fresh", "eps", "lr"];

    #[inline(always)]
    fn update<R: Real>(p: R, g: R, [v, avg]: [R; 2], [alpha, fresh, eps, lr]: [R; 4]) -> (R, [R; 2]) {
        let (d, v, avg) = centered(g, v, avg, alpha, fresh, eps);
        (descend(p, d, lr), [v, avg])
    }
}

struct CenteredWithMomentum;

impl Rule<3, 5> for CenteredWithMomentum {
    const STATE: [&'static str; 3] = ["square_avg", "grad_avg", "momentum_buffer"];
    const SCALARS: [&'static str; 5] = ["alpha", "fresh", "eps", "mu", "lr"];

    #[inline(always)]
    fn update<R: Real>(p: R, g: R, [v, avg, b]: [R; 3], [alpha, fresh, eps, mu, lr]: [R; 5]) -> (R, [R; 3]) {
        let (d, v, avg) = centered(g, v, avg, alpha, fresh, eps);
        let b = accumulate(b, d, mu, R::lit(1.));
        (descend(p, b, lr), [v, avg, b])
    }
}

/// `g/a` and the next `v`.
#[inline(always)]
fn scaled<R: Real>(g: R, v: R, alpha: R, fresh: R, eps: R) -> (R, R) {
    let v = ema(v, g * g, alpha, fresh);
    (g / (v.sqrt() + eps), v)
}

/// `g/a` and the next `v` and `ḡ`.
#[inline(always)]
fn centered<R: Real>(g: R, v: R, avg: R, alpha: R, fresh: R, eps: R) -> (R, R, R) {
    let v = ema(v, g * g, alpha, fresh);
    let avg = ema(avg, g, alpha, fresh);
    (g / ((v - avg * avg).sqrt() + eps), v, avg)
}

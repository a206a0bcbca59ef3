//! Stochastic gradient descent, with momentum or Nesterov's.
//!
//! ```text
//! b ← μ·b + (1 - τ)·g        the first b is g itself
//! p ← p - lr·b               Nesterov: p ← p - lr·(g + μ·b)
//! ```
//!
//! Sutskever, Martens, Dahl and Hinton, 2013, "On the importance of initialization and momentum in deep learning",
//! section 2, with the learning rate outside the buffer. The order of operations is `torch.optim.SGD`'s; without
//! momentum it is also that of `candle_nn::SGD`, to the bit.

use crate::optimizer::{Config, Optim};
use crate::params::params;
use crate::real::Real;
use crate::rule::{Decay, Plan, Rule};

/// Stochastic gradient descent: [module](crate::rules::sgd).
pub type Sgd = Optim<ParamsSgd>;

params! {
    /// Hyperparameters of [`Sgd`].
    pub struct ParamsSgd for "sgd" {
        /// Learning rate.
        lr: f64 = 1e-3, NonNegative;
        /// Momentum μ: how much of the buffer is kept at each step.
        momentum: f64 = 0., NonNegative;
        /// Dampening τ: how much of the gradient is left out of the buffer, from the second step on.
        dampening: f64 = 0., Finite;
        /// Nesterov's momentum: look ahead along the buffer.
        nesterov: bool = false, Flag;
        /// L2 weight decay.
        weight_decay: f64 = 0., NonNegative;
        /// Climb instead of descend.
        maximize: bool = false, Flag;
    }
    conflict |params| (params.nesterov && (params.momentum == 0. || params.dampening != 0.))
        .then_some("nesterov needs momentum above 0 and dampening = 0");
}

impl Config for ParamsSgd {
    fn plan(&self, step: u64) -> Plan {
        let (mu, fresh) = if step == 1 { (0., 1.) } else { (self.momentum, 1. - self.dampening) };
        let plan = if self.momentum == 0. {
            Plan::new(Descent, [self.lr])
        } else if self.nesterov {
            Plan::new(Nesterov, [mu, fresh, self.momentum, self.lr])
        } else {
            Plan::new(HeavyBall, [mu, fresh, self.lr])
        };
        plan.maximize(self.maximize).decay(Decay::l2(self.weight_decay))
    }
}

/// Plain gradient descent.
pub(crate) struct Descent;

impl Rule<0, 1> for Descent {
    const STATE: [&'static str; 0] = [];
    const SCALARS: [&'static str; 1] = ["lr"];

    #[inline(always)]
    fn update<R: Real>(p: R, g: R, []: [R; 0], [lr]: [R; 1]) -> (R, [R; 0]) {
        (descend(p, g, lr), [])
    }
}

/// Momentum: the step goes along a buffer of past gradients.
pub(crate) struct HeavyBall;

impl Rule<1, 3> for HeavyBall {
    const STATE: [&'static str; 1] = ["momentum_buffer"];
    const SCALARS: [&'static str; 3] = ["mu", "fresh", "lr"];

    #[inline(always)]
    fn update<R: Real>(p: R, g: R, [b]: [R; 1], [mu, fresh, lr]: [R; 3]) -> (R, [R; 1]) {
        let b = accumulate(b, g, mu, fresh);
        (descend(p, b, lr), [b])
    }
}

/// Nesterov's momentum: the step looks ahead along the buffer.
struct Nesterov;

impl Rule<1, 4> for Nesterov {
    const STATE: [&'static str; 1] = ["momentum_buffer"];
    const SCALARS: [&'static str; 4] = ["mu", "fresh", "ahead", "lr"];

    #[inline(always)]
    fn update<R: Real>(p: R, g: R, [b]: [R; 1], [mu, fresh, ahead, lr]: [R; 4]) -> (R, [R; 1]) {
        let b = accumulate(b, g, mu, fresh);
        (descend(p, g + ahead * b, lr), [b])
    }
}

/// `p - lr·d`.
#[inline(always)]
pub(crate) fn descend<R: Real>(p: R, direction: R, lr: R) -> R {
    p - lr * direction
}

/// `μ·b + fresh·x`, the momentum buffer's next value.
#[inline(always)]
pub(crate) fn accumulate<R: Real>(b: R, x: R, mu: R, fresh: R) -> R {
    mu * b + fresh * x
}

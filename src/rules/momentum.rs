//! Momentum as the chapter writes it: an exponential moving average of the gradient.
//!
//! ```text
//! v ← β·v + (1 - β)·g
//! p ← p - lr·v
//! ```
//!
//! Polyak, 1964, "Some methods of speeding up the convergence of iteration methods", with the gradient scaled by
//! 1 - β. From [`sgd`](crate::rules::sgd) with dampening β it differs at the first step, where v is (1 - β)·g and
//! not g: v starts at zero.

use crate::optimizer::{Config, Optim};
use crate::params::params;
use crate::rule::Plan;
use crate::rules::sgd::HeavyBall;

/// Momentum as an average of the gradient: [module](crate::rules::momentum).
pub type Momentum = Optim<ParamsMomentum>;

params! {
    /// Hyperparameters of [`Momentum`].
    pub struct ParamsMomentum for "momentum" {
        /// Learning rate.
        lr: f64 = 1e-3, NonNegative;
        /// Decay β of the average.
        beta: f64 = 0.9, Fraction;
    }
}

impl Config for ParamsMomentum {
    fn plan(&self, _step: u64) -> Plan {
        Plan::new(HeavyBall, [self.beta, 1. - self.beta, self.lr])
    }
}

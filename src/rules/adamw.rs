//! AdamW: Adam with decoupled weight decay.
//!
//! ```text
//! p ← p·(1 - lr·λ)
//! p ← p - lr·m̂/(√v̂ + ε)      as in Adam
//! ```
//!
//! Loshchilov and Hutter, 2017, arXiv:1711.05101, algorithm 2 with the schedule in lr. The rule is
//! [`adam`]'s. `candle_nn::AdamW` corrects the averages themselves, m̂ = m·(1/(1 - β₁ᵗ)), where
//! torch and this crate correct the step size and the root: the two differ by rounding alone.

use crate::optimizer::{Config, Optim};
use crate::params::params;
use crate::rule::{Decay, Plan};
use crate::rules::adam;

/// AdamW: [module](crate::rules::adamw).
pub type AdamW = Optim<ParamsAdamW>;

params! {
    /// Hyperparameters of [`AdamW`]: those of [`candle_nn::ParamsAdamW`], and torch's two flags.
    pub struct ParamsAdamW for "adamw" {
        /// Learning rate.
        lr: f64 = 1e-3, NonNegative;
        /// Decay β₁ of the gradient's average.
        beta1: f64 = 0.9, Fraction;
        /// Decay β₂ of the squared gradient's average.
        beta2: f64 = 0.999, Fraction;
        /// Added to the root, against division by zero.
        eps: f64 = 1e-8, NonNegative;
        /// Decoupled weight decay λ.
        weight_decay: f64 = 0.01, NonNegative;
        /// Divide by the largest average so far (AMSGrad).
        amsgrad: bool = false, Flag;
        /// Climb instead of descend.
        maximize: bool = false, Flag;
    }
}

impl Config for ParamsAdamW {
    fn plan(&self, step: u64) -> Plan {
        let scalars = adam::scalars(self.lr, [self.beta1, self.beta2], self.eps, step);
        adam::plan(scalars, self.amsgrad).maximize(self.maximize).decay(Decay::decoupled(self.lr, self.weight_decay))
    }
}

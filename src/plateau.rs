//! Learning rates that follow a loss.

use crate::error::Result;
use crate::optim::Optim;

/// Lowers the learning rates when a loss stops falling. It is not a [`Schedule`](crate::Schedule), since it remembers
/// earlier losses.
///
/// ```
/// use candle_core::{Device, Var};
/// use candle_optim::{Group, Optim, ParamsSgd, ReduceOnPlateau};
///
/// # fn main() -> Result<(), candle_optim::Error> {
/// let w = Var::new(&[1f32], &Device::Cpu)?;
/// let sgd = ParamsSgd { lr: 0.5, ..Default::default() };
/// let mut optim = Optim::new(vec![Group::new(vec![("w".into(), w)], sgd)])?;
/// let mut plateau = ReduceOnPlateau::new(0.1, 1);
/// let lowered = [3., 2., 2., 2.].map(|loss| plateau.step(&mut optim, loss).unwrap());
/// assert_eq!(lowered, [false, false, false, true]);
/// assert_eq!(optim.lr(0)?, 0.05);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ReduceOnPlateau {
    /// The factor of the learning rates.
    pub factor: f64,
    /// The number of losses without improvement that it tolerates.
    pub patience: u32,
    /// The smallest relative improvement that counts.
    pub threshold: f64,
    best: f64,
    bad: u32,
}

impl Default for ReduceOnPlateau {
    fn default() -> Self {
        Self { factor: 0.1, patience: 10, threshold: 1e-4, best: f64::INFINITY, bad: 0 }
    }
}

impl ReduceOnPlateau {
    /// Multiplies the learning rates by `factor` after more than `patience` losses in a row that do not improve on the
    /// best.
    pub fn new(factor: f64, patience: u32) -> Self {
        Self { factor, patience, ..Self::default() }
    }

    /// Takes the latest loss. Returns whether it lowered the learning rates.
    ///
    /// # Errors
    /// A group has no learning rate.
    pub fn step(&mut self, optim: &mut Optim, loss: f64) -> Result<bool> {
        if loss < self.best * (1. - self.threshold) {
            (self.best, self.bad) = (loss, 0);
            return Ok(false);
        }
        self.bad += 1;
        if self.bad <= self.patience {
            return Ok(false);
        }
        self.bad = 0;
        for group in 0..optim.groups().len() {
            let lr = optim.base(group, "lr")?.number().unwrap_or(f64::NAN);
            optim.set(group, "lr", lr * self.factor)?;
        }
        Ok(true)
    }
}

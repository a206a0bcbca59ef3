//! Learning rates that follow a loss.

use crate::error::Result;
use crate::optim::Optim;

/// Lowers the learning rates when a loss stops falling. It is no [`Schedule`](crate::Schedule), since it has memory.
#[derive(Clone, Debug)]
pub struct ReduceOnPlateau {
    /// The factor of the learning rates.
    pub factor: f64,
    /// Losses without improvement that it puts up with.
    pub patience: u32,
    /// The relative improvement that counts.
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
    /// Multiplies the learning rates by `factor` after `patience` losses that were no better than the best.
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

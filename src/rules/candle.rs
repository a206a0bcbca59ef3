//! Candle's own optimizers by the same names and keys, to be compared with.

use candle_core::{DType, Var};
use candle_nn::Optimizer;

use crate::error::{Error, Result};
use crate::optimizer::{Build, DynOptimizer};
use crate::params::{Params, params};

params! {
    /// Hyperparameters of [`candle_nn::SGD`].
    pub struct ParamsCandleSgd for "candle-sgd" {
        /// Learning rate.
        lr: f64 = 1e-3, NonNegative;
    }
}

impl Build for ParamsCandleSgd {
    fn state_bytes(&self, _: DType, _: Option<DType>) -> usize {
        0
    }

    fn boxed(&self) -> Box<dyn Build> {
        Box::new(self.clone())
    }

    fn build(&self, vars: Vec<Var>, state_dtype: Option<DType>) -> Result<Box<dyn DynOptimizer>> {
        check(self, state_dtype)?;
        Ok(Box::new(candle_nn::SGD::new(vars, self.lr)?))
    }
}

params! {
    /// Hyperparameters of [`candle_nn::AdamW`], as [`candle_nn::ParamsAdamW`].
    pub struct ParamsCandleAdamW for "candle-adamw" {
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
    }
}

impl Build for ParamsCandleAdamW {
    fn state_bytes(&self, dtype: DType, _: Option<DType>) -> usize {
        2 * dtype.size_in_bytes()
    }

    fn boxed(&self) -> Box<dyn Build> {
        Box::new(self.clone())
    }

    fn build(&self, vars: Vec<Var>, state_dtype: Option<DType>) -> Result<Box<dyn DynOptimizer>> {
        check(self, state_dtype)?;
        let Self { lr, beta1, beta2, eps, weight_decay } = *self;
        let params = candle_nn::ParamsAdamW { lr, beta1, beta2, eps, weight_decay };
        Ok(Box::new(candle_nn::AdamW::new(vars, params)?))
    }
}

/// Candle's optimizers keep their state in the type of the parameters, and cannot be told otherwise.
fn check(params: &dyn Params, state_dtype: Option<DType>) -> Result<()> {
    params.validate()?;
    match state_dtype {
        None => Ok(()),
        Some(dtype) => Err(Error::Conflict {
            optimizer: params.name().into(),
            reason: format!("its state cannot be kept in {}; allowed: the type of the parameters", dtype.as_str()),
        }),
    }
}

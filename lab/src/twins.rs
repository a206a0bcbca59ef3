//! Candle's own optimizers as `candle-sgd` and `candle-adamw`, for comparison with ours.
//!
//! For specs and tables, they are algorithms with names, hyperparameters and state. Their steps are those of candle_nn,
//! which hides the state, so no [`Optim`](candle_optim::Optim) could hold it.

use std::any::Any;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use candle_nn::{AdamW, Optimizer, SGD};
use candle_optim::hyper::Hyper;
use candle_optim::{Algorithm, Error, ParamsAdamW, ParamsSgd, Registry, Slots, Spec, hyper};

hyper! { pub struct CandleSgd for "candle-sgd", "Candle's own SGD", "candle_nn::SGD" {
    lr: f64 [0.0..] = 1e-3, "Learning rate.";
} }

hyper! { pub struct CandleAdamW for "candle-adamw", "Candle's own AdamW", "candle_nn::AdamW" {
    lr: f64 [0.0..] = 1e-3, "Learning rate.";
    beta1: f64 [0.0..1.0] = 0.9, "Decay β₁ of the gradient's average.";
    beta2: f64 [0.0..1.0] = 0.999, "Decay β₂ of the squared gradient's average.";
    eps: f64 [0.0..] = 1e-8, "Added to the root, against division by zero.";
    weight_decay: f64 [0.0..] = 0.01, "Decoupled weight decay λ.";
} }

/// Whether a spec names one of Candle's optimizers.
pub fn is_built_in(spec: &str) -> bool {
    registry().and_then(|registry| registry.parse(spec)).is_ok_and(|spec| twin(&spec).is_some())
}

/// One of Candle's optimizers.
pub trait Twin: Algorithm {
    /// Candle's optimizer at work on `vars`.
    ///
    /// # Errors
    /// An error of Candle.
    fn start(&self, vars: Vec<Var>) -> candle_core::Result<Step>;
    /// Our optimizer with the same hyperparameters. The others are at their defaults.
    fn ours(&self) -> Box<dyn Algorithm>;
}

/// Takes a step. The trait [`Optimizer`] is not dyn-compatible.
pub type Step = Box<dyn FnMut(&GradStore) -> candle_core::Result<()>>;

impl Twin for CandleSgd {
    fn start(&self, vars: Vec<Var>) -> candle_core::Result<Step> {
        let mut sgd = SGD::new(vars, self.lr)?;
        Ok(Box::new(move |grads| sgd.step(grads)))
    }

    fn ours(&self) -> Box<dyn Algorithm> {
        with_fields_of(self, ParamsSgd::default())
    }
}

impl Twin for CandleAdamW {
    fn start(&self, vars: Vec<Var>) -> candle_core::Result<Step> {
        let &Self { lr, beta1, beta2, eps, weight_decay } = self;
        let mut adamw = AdamW::new(vars, candle_nn::ParamsAdamW { lr, beta1, beta2, eps, weight_decay })?;
        Ok(Box::new(move |grads| adamw.step(grads)))
    }

    fn ours(&self) -> Box<dyn Algorithm> {
        with_fields_of(self, ParamsAdamW::default())
    }
}

fn with_fields_of(twin: &dyn Algorithm, mut ours: impl Algorithm) -> Box<dyn Algorithm> {
    for field in twin.fields() {
        ours.assign(field.key, field.value);
    }
    Box::new(ours)
}

const ALONE: &str = "it is Candle's own, which steps alone";

macro_rules! twins { ($($Twin:ident, with state $state:expr;)*) => {
    $(impl Algorithm for $Twin {
        fn state_names(&self, _: &[usize]) -> Vec<&'static str> {
            $state.into()
        }

        /// Rejects every variable, so that no group of the library can use it, such as a wrapper with it as the base.
        fn accepts(&self, _: &Tensor) -> Result<(), String> {
            Err(ALONE.into())
        }

        fn step(&self, _: &mut Slots) -> Result<(), Error> {
            Err(Error::Conflict { what: self.name().into(), why: ALONE.into() })
        }
    })*

    /// The optimizers of the library and Candle's own.
    ///
    /// # Errors
    /// The library has one of these names.
    pub fn registry() -> Result<Registry, Error> {
        let mut registry = Registry::default();
        $(registry.register::<$Twin>()?;)*
        Ok(registry)
    }

    /// Candle's optimizer, if the spec names one.
    pub fn twin(spec: &Spec) -> Option<&dyn Twin> {
        let [alone] = spec.method().chain() else { return None };
        let alone: &dyn Any = &**alone;
        $(if let Some(twin) = alone.downcast_ref::<$Twin>() {
            return Some(twin);
        })*
        None
    }
} }
twins! {
    CandleSgd, with state [];
    CandleAdamW, with state ["first_moment", "second_moment"];
}

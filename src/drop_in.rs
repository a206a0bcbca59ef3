//! Optimizers that replace Candle's own.

use std::any::Any;
use std::marker::PhantomData;

use candle_core::Var;
use candle_core::backprop::GradStore;

use crate::algorithm::Algorithm;
use crate::error::Result;
use crate::group::Group;
use crate::optim::Optim;
use crate::vars::NamedVars;

/// An [`Optim`] of one group that implements [`candle_nn::Optimizer`]. It may have no variables, but then a step is an
/// error.
///
/// Its own methods and the trait's have different names, so a call is never ambiguous. `as_ref` and `as_mut` give the
/// [`Optim`].
#[derive(Debug)]
pub struct DropIn<P> {
    optim: Optim,
    params: PhantomData<fn() -> P>,
}

impl<P: Algorithm> DropIn<P> {
    /// Makes an optimizer of named variables. Saving needs the names.
    ///
    /// # Errors
    /// As for [`Optim::new`], but an empty list is allowed.
    pub fn named(vars: impl Into<NamedVars>, params: P) -> Result<Self> {
        Ok(Self { optim: Optim::start(vec![Group::new(vars, params)])?, params: PhantomData })
    }

    /// Makes an optimizer with this learning rate. The other hyperparameters have their defaults.
    ///
    /// # Errors
    /// As for [`named`](Self::named).
    pub fn new_lr(vars: Vec<Var>, lr: f64) -> candle_core::Result<Self>
    where
        P: Default,
    {
        let mut params = P::default();
        params.set("lr", lr.into())?;
        candle_nn::Optimizer::new(vars, params)
    }

    /// The hyperparameters.
    pub fn params(&self) -> &P {
        let params: &dyn Any = &*self.optim.groups[0].method.chain[0];
        params.downcast_ref().expect("`named` has put a P there")
    }

    /// Sets the hyperparameters.
    ///
    /// # Errors
    /// A value is out of range, or would change which state exists. Nothing changes then.
    pub fn set_params(&mut self, params: P) -> Result<()> {
        self.optim.groups[0].replace(0, Box::new(params))
    }

    /// The variables in the order in which the user gave them.
    pub fn into_inner(self) -> Vec<Var> {
        let mut slots: Vec<_> = self.optim.slots().collect();
        slots.sort_by_key(|slot| slot.index);
        slots.into_iter().map(|slot| slot.var.clone()).collect()
    }

    /// The [`Optim`] inside.
    pub fn into_optim(self) -> Optim {
        self.optim
    }
}

impl<P: Algorithm> candle_nn::Optimizer for DropIn<P> {
    type Config = P;

    /// Leaves out variables of integer types, as Candle's optimizers do.
    fn new(vars: Vec<Var>, params: P) -> candle_core::Result<Self> {
        let vars = NamedVars::numbered(vars.into_iter().filter(|var| var.dtype().is_float()));
        let mut new = Self::named(vars, params)?;
        new.optim.unnamed = true;
        Ok(new)
    }

    fn step(&mut self, grads: &GradStore) -> candle_core::Result<()> {
        self.optim.step(grads)?;
        Ok(())
    }

    /// The learning rate of the next step; NaN for an algorithm that has none.
    fn learning_rate(&self) -> f64 {
        self.optim.lr(0).unwrap_or(f64::NAN)
    }

    /// Sets the learning rate. This function cannot return an error, so the next step reports a value that is not
    /// allowed.
    fn set_learning_rate(&mut self, lr: f64) {
        self.optim.groups.iter_mut().for_each(|group| group.assign("lr", lr.into()));
    }
}

impl<P> AsRef<Optim> for DropIn<P> {
    fn as_ref(&self) -> &Optim {
        &self.optim
    }
}

impl<P> AsMut<Optim> for DropIn<P> {
    fn as_mut(&mut self) -> &mut Optim {
        &mut self.optim
    }
}

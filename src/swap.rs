//! Temporary values of the variables.

use std::marker::PhantomData;

use candle_core::{Device, Tensor, Var};

use crate::algorithm::{Slot, State};
use crate::error::Result;
use crate::group::Group;
use crate::optim::Optim;

/// Restores the variables when it is dropped. The optimizer cannot step before that.
#[derive(Debug)]
#[must_use = "the weights are swapped back when it is dropped"]
pub struct Swapped<'a> {
    saved: Vec<(Var, Tensor)>,
    optim: PhantomData<&'a mut Optim>,
}

impl Optim {
    /// Whether the weights to evaluate with differ from the variables. If not, [`eval`](Self::eval) changes nothing.
    pub fn has_eval(&self) -> bool {
        self.has_eval
    }

    /// Sets the variables to the weights to evaluate with, e.g. averages. A variable without state keeps its value.
    ///
    /// # Errors
    /// An error of Candle. The variables are then as before.
    pub fn eval(&mut self) -> Result<Swapped<'_>> {
        let mut swapped = Swapped { saved: vec![], optim: PhantomData };
        for Group { slots, method, .. } in self.groups.iter().filter(|_| self.has_eval) {
            for slot in slots.iter().filter(|slot| slot.started) {
                // Computed on the host for every device, so that it rounds as the engine does. `p` is a copy because a
                // step sets the variable.
                let on_host = |tensor: &Tensor| tensor.to_device(&Device::Cpu)?.to_dtype(slot.compute_dtype());
                let p = on_host(&slot.var.as_detached_tensor().copy()?)?;
                let state = slot.tensors()?.into_iter().map(|(name, tensor)| Ok((name, on_host(&tensor)?)));
                let state = state.collect::<candle_core::Result<State>>()?;
                let x =
                    method.chain.iter().try_fold(p.clone(), |x, algorithm| algorithm.eval(&slot.clock, &x, &state))?;
                if x.id() != p.id() {
                    swapped.put(slot, &x)?;
                }
            }
        }
        Ok(swapped)
    }

    /// Sets each variable to `value(slot)`, unless that is `None`.
    ///
    /// # Errors
    /// An error of `value`, or a value that does not fit. The variables are then as before.
    pub fn swap(&mut self, mut value: impl FnMut(&Slot) -> candle_core::Result<Option<Tensor>>) -> Result<Swapped<'_>> {
        let mut swapped = Swapped { saved: vec![], optim: PhantomData };
        for slot in self.slots() {
            value(slot)?.map_or(Ok(()), |value| swapped.put(slot, &value))?;
        }
        Ok(swapped)
    }
}

impl Swapped<'_> {
    fn put(&mut self, slot: &Slot, value: &Tensor) -> candle_core::Result<()> {
        self.saved.push((slot.var.clone(), slot.var.as_detached_tensor().copy()?));
        slot.set(value)
    }
}

impl Drop for Swapped<'_> {
    fn drop(&mut self) {
        let done = self.saved.drain(..).try_for_each(|(var, value)| var.set(&value));
        assert!(done.is_ok() || std::thread::panicking(), "the weights could not be put back: {done:?}");
    }
}

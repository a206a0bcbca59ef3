//! The walk over the variables of a group, on several threads where that is faster.
//!
//! Small variables are stepped in batches, one thread per batch. The elements of a large one are cut into pieces.

use std::iter::repeat;
use std::sync::Arc;

use candle_core::{DType, Error, Result};
use half::{bf16, f16};
use rayon::prelude::*;

use super::pass::{Elements, Shared, Stepped, Sum, What};
use super::sums::{self, BLOCK};
use crate::algorithm::{Hot, Slot};
use crate::memory::{Parts, Portion, StateBuffer, range, split_at};
use crate::real::Real;
use crate::rule::{Fields, MAX_SUMS, Rule};

/// The number of elements that one thread steps at a time. Fewer are not worth another thread: handing over work takes
/// some microseconds, and a thread steps about this many elements in that time.
pub(super) const GRAIN: usize = 16 * BLOCK;

/// Calls `f` with each variable on the host and its state.
pub(super) fn each(
    slots: &mut [Slot],
    buffers: &[Arc<StateBuffer>],
    f: &(dyn Fn(&mut Slot, OwnState) -> Result<()> + Sync),
) -> Result<()> {
    for (index, buffer) in buffers.iter().enumerate().filter(|(_, buffer)| buffer.on_host) {
        let view = |slot: &Slot| (slot.hot.buffer as usize == index).then_some(slot.hot.from);
        let walk = |slots: &mut [Slot], mut parts: Parts, base: usize| {
            slots.iter_mut().try_for_each(|slot| match view(slot) {
                Some(from) => f(slot, OwnState { parts: &mut parts, from: from - base }),
                None => Ok(()),
            })
        };
        buffer.with(&mut |mut parts| {
            if buffer.portions.len() == 1 || rayon::current_num_threads() == 1 {
                return walk(slots, parts, 0);
            }
            let (mut rest, mut portions) = (&mut *slots, Vec::with_capacity(buffer.portions.len()));
            for Portion { slots, elements } in &buffer.portions {
                let slots = rest.split_off_mut(..slots.len()).unwrap_or_default();
                let (own, others) = split_at(parts, elements.len());
                portions.push((slots, own, elements.start));
                parts = others;
            }
            portions.into_par_iter().with_max_len(1).try_for_each(|(slots, parts, base)| walk(slots, parts, base))
        })?;
    }
    Ok(())
}

/// Runs `$body` with the element type `$E` of a variable.
macro_rules! by_dtype {
    ($slot:ident, $E:ident => $body:expr) => {
        by_dtype!($slot, $E => $body; F64 f64, F32 f32, F16 f16, BF16 bf16)
    };
    ($slot:ident, $E:ident => $body:expr; $($Variant:ident $float:ty),*) => {
        match $slot.hot.lock.dtype {
            $(DType::$Variant => {
                type $E = $float;
                $body
            })*
            dtype => Err(Error::UnsupportedDTypeForOp(dtype, "optimizer step")),
        }
    };
}

/// One step of a variable: its sums if the rule has any, then the update.
pub(super) fn step<K: Rule<f64>>(slot: &mut Slot, state: OwnState, k: &K) -> Result<()> {
    by_dtype!(slot, E => with_elements::<E>(slot, state, true, |mut elements| {
        if k.has_norms() {
            let sums = measure(k, Sum::Tensor, &mut elements);
            pass(&k.with_norms(Fields::from_fn(|i| sums[i])), What::Update, elements);
        } else {
            pass(k, What::Update, elements);
        }
    }))
}

/// Computes the terms of a variable in the sums of its group.
pub(super) fn measure_group<K: Rule<f64>>(slot: &mut Slot, state: OwnState, k: &K) -> Result<()> {
    let mut sums = [0.; MAX_SUMS];
    by_dtype!(slot, E => with_elements::<E>(slot, state, true, |mut elements| {
        sums = measure(k, Sum::Group, &mut elements);
    }))?;
    slot.sums = sums;
    Ok(())
}

/// Sets the state before the first step.
pub(super) fn init<K: Rule<f64>>(slot: &mut Slot, state: OwnState, k: &K) -> Result<()> {
    by_dtype!(slot, E => with_elements::<E>(slot, state, false, |elements| pass(k, What::Init, elements)))
}

/// The state of one variable within that of several.
pub(super) struct OwnState<'a, 'b> {
    pub(super) parts: &'a mut Parts<'b>,
    pub(super) from: usize,
}

#[inline]
fn with_elements<E: Stepped>(
    slot: &mut Slot,
    state: OwnState,
    reads_grad: bool,
    mut f: impl FnMut(Elements<E>),
) -> Result<()> {
    let Slot { var, clock, hot: Hot { lock, grad, scale, stochastic, .. }, .. } = slot;
    let grad = grad.as_ref().filter(|_| reads_grad);
    let shared = Shared { scale: *scale, step: clock.step, stochastic: *stochastic };
    let OwnState { parts: state, from: at } = state;
    lock.with(var, grad, &mut |p, g| f(Elements { p, g, state, at, from: 0, shared }))
}

/// One pass, on as many threads as are worthwhile.
#[inline]
fn pass<E: Stepped, K: Rule<f64>>(k: &K, what: What, elements: Elements<E>) {
    let k: K::At<E::Real> = k.map(|_, x| E::Real::lit(x));
    if is_shared(elements.p.len()) {
        share(elements, repeat(()), &|piece, ()| E::pass(k, what, piece));
    } else {
        E::pass(k, what, elements);
    }
}

fn measure<E: Stepped, K: Rule<f64>>(k: &K, sum: Sum, elements: &mut Elements<E>) -> [f64; MAX_SUMS] {
    let k: K::At<E::Real> = k.map(|_, x| E::Real::lit(x));
    let len = elements.p.len();
    if len <= BLOCK {
        return E::measure(k, sum, elements.range(0, len));
    }
    let mut sums = vec![[0.; MAX_SUMS]; len.div_ceil(BLOCK)];
    let measure = |elements: &mut Elements<E>, sums: &mut [[f64; MAX_SUMS]]| {
        for (block, sums) in sums.iter_mut().enumerate() {
            let start = block * BLOCK;
            *sums = E::measure(k, sum, elements.range(start, BLOCK.min(elements.p.len() - start)));
        }
    };
    if is_shared(len) {
        let sums = sums.chunks_mut(piece_size(len) / BLOCK);
        share(elements.range(0, len), sums, &|mut piece, sums| measure(&mut piece, sums));
    } else {
        measure(elements, &mut sums);
    }
    sums::of_blocks(&sums)
}

fn is_shared(len: usize) -> bool {
    len > GRAIN && rayon::current_num_threads() > 1
}

/// The size of the pieces that a variable is cut into: many for each thread, so that none waits long for another that the
/// system interrupts.
fn piece_size(len: usize) -> usize {
    (len / (16 * rayon::current_num_threads())).max(1).next_multiple_of(GRAIN)
}

/// Calls `f` with pieces of the elements, each with the next item of `others`, on all threads. `f` is dynamic, so that
/// rayon's loop is not compiled once more for each rule.
fn share<E: Stepped, T: Send>(
    elements: Elements<E>,
    others: impl Iterator<Item = T>,
    f: &(dyn Fn(Elements<E>, T) + Sync),
) {
    let Elements { p, g, state, at, from, shared } = elements;
    let (size, len) = (piece_size(p.len()), p.len());
    let mut state = range(state, at, len);
    let mut pieces = vec![];
    for ((index, p), other) in p.chunks_mut(size).enumerate().zip(others) {
        let (start, n) = (index * size, p.len());
        let g = if g.is_empty() { g } else { &g[start..start + n] };
        let (mine, rest) = split_at(state, n);
        state = rest;
        pieces.push((p, g, mine, from + start, other));
    }
    pieces.into_par_iter().with_max_len(1).for_each(|(p, g, mut state, from, other)| {
        f(Elements { p, g, state: &mut state, at: 0, from, shared }, other);
    });
}

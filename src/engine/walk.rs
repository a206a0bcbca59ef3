//! The walk over the variables of a group, on several threads where that pays.
//!
//! Small variables are stepped in batches, a batch on one thread. The elements of a large one are cut into pieces.

use std::sync::Arc;

use candle_core::{DType, Error, Result};
use half::{bf16, f16};
use rayon::prelude::*;

use super::pass::{Elements, Stepped, Sum, What};
use super::sums::{self, BLOCK};
use crate::algorithm::Slot;
use crate::memory::{Part, Parts, Place, SlotState, StateBuffer, range, split_at};
use crate::real::Real;
use crate::rule::{Fields, MAX_STATE, MAX_SUMS, Rule};

/// Elements that one thread steps at a time. Fewer are not worth another thread: handing work over costs some
/// microseconds, in which a thread steps about as many.
const GRAIN: usize = 16 * BLOCK;

/// Calls `f` with each variable on the host and its state.
pub(super) fn each(
    slots: &mut [Slot],
    position: usize,
    buffers: &[Arc<StateBuffer>],
    f: impl Fn(&mut Slot, Parts) -> Result<()> + Sync,
) -> Result<()> {
    for (index, buffer) in buffers.iter().enumerate() {
        let view = |slot: &Slot| match slot.state.get(position) {
            Some(SlotState::View(view)) if view.index == index => Some(view.from),
            _ => None,
        };
        if slots.iter().any(|slot| slot.lock.place == Place::Cuda && view(slot).is_some()) {
            continue;
        }
        let walk = |slots: &mut [Slot], mut parts: Parts, base: usize| {
            slots.iter_mut().try_for_each(|slot| match view(slot) {
                Some(from) => {
                    let len = slot.lock.len;
                    f(slot, range(&mut parts, from - base, len))
                }
                None => Ok(()),
            })
        };
        let elements: usize = slots.iter().map(|slot| slot.lock.len).sum();
        buffer.with(&mut |parts| {
            if slots.len() == 1 || elements <= GRAIN || rayon::current_num_threads() == 1 {
                return walk(slots, parts, 0);
            }
            let (mut batches, mut rest, mut parts, mut base) = (vec![], &mut *slots, parts, 0);
            while !rest.is_empty() {
                let (mut elements, mut end) = (0, 0);
                while elements < GRAIN && end < rest.len() {
                    elements += rest[end].lock.len;
                    end += 1;
                }
                let batch = rest.split_off_mut(..end).unwrap_or_default();
                // The state of the batch ends where that of the next variable of the buffer begins.
                let next = rest.iter().find_map(&view);
                let (mine, others) = match next {
                    Some(next) => split_at(parts, next - base),
                    None => (parts, [const { Part::None }; MAX_STATE]),
                };
                batches.push((batch, mine, base));
                (parts, base) = (others, next.unwrap_or_default());
            }
            batches.into_par_iter().try_for_each(|(batch, parts, base)| walk(batch, parts, base))
        })?;
    }
    Ok(())
}

/// Runs `$body` with the element type `$E` of a variable.
macro_rules! by_dtype {
    ($slot:ident, $E:ident => $body:expr) => {
        match $slot.lock.dtype {
            DType::F64 => {
                type $E = f64;
                $body
            }
            DType::F32 => {
                type $E = f32;
                $body
            }
            DType::F16 => {
                type $E = f16;
                $body
            }
            DType::BF16 => {
                type $E = bf16;
                $body
            }
            dtype => Err(Error::UnsupportedDTypeForOp(dtype, "optimizer step")),
        }
    };
}

/// One step of a variable: its sums if the rule has any, then the update.
pub(super) fn step<K: Rule<f64>>(slot: &mut Slot, state: Parts, k: &K) -> Result<()> {
    by_dtype!(slot, E => with_elements::<E>(slot, state, true, |mut elements| {
        let mut k = *k;
        if k.has_norms() {
            let sums = measure(&k, Sum::Tensor, elements.reborrow());
            k = k.with_norms(Fields::from_fn(|i| sums[i]));
        }
        pass(&k, What::Update, elements);
    }))
}

/// Computes the terms of a variable in the sums of its group.
pub(super) fn measure_group<K: Rule<f64>>(slot: &mut Slot, state: Parts, k: &K) -> Result<()> {
    let mut sums = [0.; MAX_SUMS];
    by_dtype!(slot, E => with_elements::<E>(slot, state, true, |elements| {
        sums = measure(k, Sum::Group, elements);
    }))?;
    slot.sums = sums;
    Ok(())
}

/// Sets the state before the first step.
pub(super) fn init<K: Rule<f64>>(slot: &mut Slot, state: Parts, k: &K) -> Result<()> {
    by_dtype!(slot, E => with_elements::<E>(slot, state, false, |elements| pass(k, What::Init, elements)))
}

#[inline]
fn with_elements<E: Stepped>(
    slot: &mut Slot,
    state: Parts,
    reads_grad: bool,
    f: impl FnOnce(Elements<E>),
) -> Result<()> {
    let Slot { var, lock, grad, scale, clock, .. } = slot;
    let grad = grad.as_ref().filter(|_| reads_grad);
    lock.with(var, grad, |p, g| f(Elements { p, g, state, from: 0, scale: *scale, step: clock.step }))
}

/// One pass, shared among as many threads as pay.
#[inline]
pub(super) fn pass<E: Stepped, K: Rule<f64>>(k: &K, what: What, elements: Elements<E>) {
    let k: K::At<E::Real> = k.map(|_, x| E::Real::lit(x));
    if !is_shared(&elements) {
        return E::pass(k, what, elements);
    }
    pieces(elements).into_par_iter().for_each(|piece| E::pass(k, what, piece));
}

fn measure<E: Stepped, K: Rule<f64>>(k: &K, sum: Sum, elements: Elements<E>) -> [f64; MAX_SUMS] {
    let k: K::At<E::Real> = k.map(|_, x| E::Real::lit(x));
    if elements.p.len() <= BLOCK {
        return E::measure(k, sum, elements);
    }
    let mut sums = vec![[0.; MAX_SUMS]; elements.p.len().div_ceil(BLOCK)];
    let measure = |mut rest: Elements<E>, sums: &mut [[f64; MAX_SUMS]]| {
        for block in sums {
            let n = BLOCK.min(rest.p.len());
            let (first, others) = rest.split_at(n);
            *block = E::measure(k, sum, first);
            rest = others;
        }
    };
    if is_shared(&elements) {
        let size = piece_size(elements.p.len());
        pieces(elements)
            .into_par_iter()
            .zip(sums.par_chunks_mut(size / BLOCK))
            .for_each(|(piece, sums)| measure(piece, sums));
    } else {
        measure(elements, &mut sums);
    }
    sums::of_blocks(&sums)
}

fn is_shared<E>(elements: &Elements<E>) -> bool {
    elements.p.len() > GRAIN && rayon::current_num_threads() > 1
}

/// The size of the pieces that a variable is cut into: several for each thread, so that none waits long for another.
fn piece_size(len: usize) -> usize {
    (len / (4 * rayon::current_num_threads())).next_multiple_of(GRAIN)
}

fn pieces<E>(elements: Elements<E>) -> Vec<Elements<E>> {
    let (size, mut rest) = (piece_size(elements.p.len()), elements);
    let mut pieces = vec![];
    while rest.p.len() > size {
        let (piece, others) = rest.split_at(size);
        pieces.push(piece);
        rest = others;
    }
    pieces.push(rest);
    pieces
}

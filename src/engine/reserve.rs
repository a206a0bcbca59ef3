//! The memory of the state: which variables share it, and where each begins.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::walk::GRAIN;
use crate::algorithm::{Algorithm, Hot, Slot, stored};
use crate::error::Result;
use crate::memory::{Portion, SlotState, StateBuffer, StateView};

/// Reserves memory for the state of all variables of a group. The result has a list of buffers for each algorithm of
/// the chain. In each list a variable uses the buffer at `hot.buffer`, and its elements begin at `hot.from`.
pub(crate) fn reserve(
    chain: &[Box<dyn Algorithm>],
    slots: &mut [Slot],
    state_dtype: Option<DType>,
) -> Result<Vec<Vec<Arc<StateBuffer>>>> {
    /// Variables whose state lies in the same buffers.
    struct Kind {
        /// The names and types of the state, by algorithm.
        state: Vec<Vec<(&'static str, DType)>>,
        dtype: DType,
        device: Device,
        portions: Vec<Portion>,
    }
    let mut kinds: Vec<Kind> = vec![];
    for (at, slot) in slots.iter_mut().enumerate() {
        let (Hot { lock, buffer, from, .. }, device) = (&mut slot.hot, slot.var.device());
        let stored = |algorithm: &dyn Algorithm| stored(algorithm, &slot.clock.dims, lock.dtype, state_dtype);
        let state: Vec<_> = chain.iter().map(|algorithm| stored(&**algorithm)).collect();
        let alike = |kind: &Kind| kind.state == state && kind.dtype == lock.dtype && kind.device.same_device(device);
        let index = kinds.iter().position(alike).unwrap_or_else(|| {
            kinds.push(Kind { state, dtype: lock.dtype, device: device.clone(), portions: vec![] });
            kinds.len() - 1
        });
        let portions = &mut kinds[index].portions;
        let (slots, elements) = portions.last().map_or((0, 0), |last| (last.slots.end, last.elements.end));
        (*buffer, *from) = (index as u32, elements);
        if portions.last().is_none_or(|last| last.elements.len() >= GRAIN) {
            portions.push(Portion { slots: slots..slots, elements: elements..elements });
        }
        if let Some(last) = portions.last_mut() {
            (last.slots.end, last.elements.end) = (at + 1, elements + StateView::padded_len(lock.len));
        }
    }
    let mut buffers = vec![];
    for (position, algorithm) in chain.iter().enumerate() {
        let make = |kind: &Kind| {
            let dtypes: Vec<_> = kind.state[position].iter().map(|(_, dtype)| *dtype).collect();
            Ok(Arc::new(StateBuffer::new(&dtypes, kind.portions.clone(), &kind.device)?))
        };
        let made = match algorithm.kernel() {
            Some(_) => kinds.iter().map(make).collect::<Result<Vec<_>>>()?,
            None => vec![],
        };
        buffers.push(made);
    }
    for slot in slots {
        let at = slot.hot.buffer as usize;
        slot.state.clear();
        for (state, buffers) in kinds[at].state.iter().zip(&buffers) {
            slot.state.push(match buffers.get(at) {
                Some(buffer) => {
                    let (names, buffer) = (state.iter().map(|(name, _)| *name).collect(), buffer.clone());
                    SlotState::View(StateView { buffer, names, from: slot.hot.from, len: slot.hot.lock.len })
                }
                // This placeholder holds the type. The start of the state sets the value.
                None => {
                    let zero = |(name, dtype): &_| Ok((*name, Tensor::zeros(1, *dtype, slot.var.device())?));
                    SlotState::Tensors(state.iter().map(zero).collect::<Result<_>>()?)
                }
            });
        }
    }
    Ok(buffers)
}

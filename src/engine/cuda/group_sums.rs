//! Sums over a group, folded on the GPU.

use std::sync::Arc;

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Error, Result};

use super::compile::Kernels;
use super::launch::{Task, batches, go_totals};
use crate::algorithm::Slot;
use crate::engine::Totals;
use crate::memory::StateBuffer;
use crate::rule::{Fields, MAX_SUMS, Parts, Rule};

/// The sums over a group, on a GPU.
pub(in crate::engine) type DeviceTotals = CudaSlice<f64>;

/// The sums of each tensor of a group on one device.
pub(in crate::engine) struct TensorSums {
    device: CudaDevice,
    sums: CudaSlice<f64>,
    /// The slots in the order of the sums.
    slots: Vec<usize>,
    terms: usize,
    kernels: Kernels,
}

/// Computes the sums of each tensor on GPUs for which `launch` names the scalars.
pub(in crate::engine) fn sums<K: Rule<f64>>(
    slots: &[Slot],
    buffers: &[Arc<StateBuffer>],
    launch: &dyn Fn(&Slot) -> Option<usize>,
    k: &dyn Fn(usize) -> K,
) -> Result<Vec<TensorSums>> {
    let mut all: Vec<TensorSums> = vec![];
    let batches = batches(slots, buffers, launch);
    let terms = <<K as Parts<f64>>::Totals as Fields<f64>>::NAMES.len();
    for batch in &batches {
        let k = k(batch.launch);
        let known = all.iter().position(|sums| sums.device.id() == batch.device.id());
        let at = match known {
            Some(at) => at,
            None => {
                let here = batches.iter().filter(|other| other.device.id() == batch.device.id());
                let count: usize = here.map(|batch| batch.members.len()).sum();
                let sums = batch.stream().alloc_zeros(count * terms).map_err(Error::wrap)?;
                let kernels = batch.kernels(&k)?;
                all.push(TensorSums { device: batch.device.clone(), sums, slots: vec![], terms, kernels });
                all.len() - 1
            }
        };
        let TensorSums { sums, slots: done, .. } = &mut all[at];
        batch.run(slots, &k, &Task::Sums { sums, from: done.len() })?;
        done.extend(batch.members.iter().map(|(member, _)| member));
    }
    Ok(all)
}

impl TensorSums {
    /// Adds the sums of all tensors. The host does not wait for the device.
    pub(in crate::engine) fn total(&self) -> Result<Totals> {
        let function = self.kernels.get("optimizer_totals")?;
        go_totals(&self.device.cuda_stream(), &function, &self.sums, self.terms).map(Totals::Device)
    }

    /// Copies them to the slots. The host waits for the device.
    pub(in crate::engine) fn download(&self, slots: &mut [Slot]) -> Result<()> {
        let sums = self.device.cuda_stream().clone_dtoh(&self.sums).map_err(Error::wrap)?;
        for (slot, sums) in self.slots.iter().zip(sums.chunks(self.terms)) {
            slots[*slot].sums = [0.; MAX_SUMS];
            slots[*slot].sums[..self.terms].copy_from_slice(sums);
        }
        Ok(())
    }

    /// Whether the sums are those of `count` variables.
    pub(in crate::engine) fn covers(&self, count: usize) -> bool {
        self.slots.len() == count
    }
}

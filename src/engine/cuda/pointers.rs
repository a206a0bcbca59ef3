//! The addresses of tensors on a GPU.

use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DevicePtrMut, SyncOnDrop};
use candle_core::{CudaStorage, Error, Layout, Result, Storage, Tensor};

use crate::algorithm::Slot;
use crate::memory::{Access, CudaAccess};

/// Calls `f` with the pointers of the state tensors, and those of the variables and gradients. Gradients are locked for
/// reading, all others for writing.
pub(super) fn with_pointers(
    slots: &[&Slot],
    state: &[Tensor],
    reads_grads: bool,
    stream: &CudaStream,
    f: impl FnOnce(&[u64], &[(u64, u64)]) -> Result<()>,
) -> Result<()> {
    let grads = slots.iter().filter(|_| reads_grads).filter_map(|slot| slot.hot.grad.as_ref());
    let grads = grads.map(Tensor::contiguous).collect::<Result<Vec<_>>>()?;
    let guards: Vec<_> = grads.iter().map(Tensor::storage_and_layout).collect();
    // Dropped after the launch, so that other streams wait for it.
    let mut reads = Vec::with_capacity(guards.len());
    let mut gradients = Vec::with_capacity(guards.len());
    for (storage, layout) in &guards {
        let (pointer, read) = pointer(storage, layout, stream)?;
        gradients.push(pointer);
        reads.push(read);
    }
    let written: Vec<&Tensor> = state.iter().chain(slots.iter().map(|slot| slot.var.as_tensor())).collect();
    let mut f = Some(f);
    lock_all(&written, stream, &mut vec![], &mut |pointers| {
        let (state, variables) = pointers.split_at(state.len());
        let gradients = if reads_grads { &gradients[..] } else { variables };
        let pairs: Vec<_> = variables.iter().copied().zip(gradients.iter().copied()).collect();
        f.take().map_or(Ok(()), |f| f(state, &pairs))
    })
}

/// Calls `f` with the pointers of the tensors. All tensors are locked for writing until `f` returns.
fn lock_all(
    tensors: &[&Tensor],
    stream: &CudaStream,
    pointers: &mut Vec<u64>,
    f: &mut dyn FnMut(&[u64]) -> Result<()>,
) -> Result<()> {
    let Some((first, rest)) = tensors.split_first() else { return f(pointers) };
    first.inplace_op1(&CudaAccess(Access::new(|storage: &mut CudaStorage, layout: &Layout| {
        let (pointer, _written) = pointer_mut(storage, layout, stream)?;
        pointers.push(pointer);
        lock_all(rest, stream, pointers, f)
    })))
}

fn start(layout: &Layout) -> Result<usize> {
    let offsets = layout.contiguous_offsets().ok_or(Error::RequiresContiguous { op: "optimizer-step" })?;
    Ok(offsets.0)
}

fn pointer<'a>(storage: &'a Storage, layout: &Layout, stream: &'a CudaStream) -> Result<(u64, SyncOnDrop<'a>)> {
    fn of<'a, T>(slice: &'a CudaSlice<T>, start: usize, stream: &'a CudaStream) -> (u64, SyncOnDrop<'a>) {
        let (pointer, read) = slice.device_ptr(stream);
        (pointer + (start * size_of::<T>()) as u64, read)
    }
    let Storage::Cuda(storage) = storage else { return Err(Error::Msg("expected a tensor on a GPU".into())) };
    let start = start(layout)?;
    match &storage.slice {
        CudaStorageSlice::F32(slice) => Ok(of(slice, start, stream)),
        CudaStorageSlice::F64(slice) => Ok(of(slice, start, stream)),
        CudaStorageSlice::F16(slice) => Ok(of(slice, start, stream)),
        CudaStorageSlice::BF16(slice) => Ok(of(slice, start, stream)),
        _ => Err(Error::Msg("expected a tensor of floating-point numbers".into())),
    }
}

fn pointer_mut<'a>(
    storage: &'a mut CudaStorage,
    layout: &Layout,
    stream: &'a CudaStream,
) -> Result<(u64, SyncOnDrop<'a>)> {
    fn of<'a, T>(slice: &'a mut CudaSlice<T>, start: usize, stream: &'a CudaStream) -> (u64, SyncOnDrop<'a>) {
        let (pointer, written) = slice.device_ptr_mut(stream);
        (pointer + (start * size_of::<T>()) as u64, written)
    }
    let start = start(layout)?;
    match &mut storage.slice {
        CudaStorageSlice::F32(slice) => Ok(of(slice, start, stream)),
        CudaStorageSlice::F64(slice) => Ok(of(slice, start, stream)),
        CudaStorageSlice::F16(slice) => Ok(of(slice, start, stream)),
        CudaStorageSlice::BF16(slice) => Ok(of(slice, start, stream)),
        _ => Err(Error::Msg("expected a tensor of floating-point numbers".into())),
    }
}

//! Steps of many parameters in one launch, whose argument is a table of where they lie.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};

use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, LaunchConfig, PushKernelArg, SyncOnDrop,
};
use candle_core::cuda_backend::{CudaDevice, CudaStorageSlice};
use candle_core::{CpuStorage, CudaStorage, DType, Error, InplaceOp1, Layout, Result, Storage, Tensor};

use super::compile;
use super::source::{BLOCK, LAUNCH_SCALARS, TENSORS, THREADS};
use crate::fused::Arena;
use crate::fused::half::step_salt;
use crate::real::Real;
use crate::rule::{MAX_STATE, Plan};

/// Steps every parameter that has a gradient, those that have taken as many steps before with one plan. Nothing waits
/// for the device.
pub(crate) fn step(
    arena: &mut Arena,
    device: &CudaDevice,
    gradients: &[Option<&Tensor>],
    plan: &dyn Fn(u64) -> Plan,
) -> Result<()> {
    let mut by_step: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (index, (slot, gradient)) in arena.slots.iter().zip(gradients).enumerate() {
        if gradient.is_some() {
            by_step.entry(slot.step + 1).or_default().push(index);
        }
    }
    for (step, members) in by_step {
        let plan = plan(step);
        let kernel = compile::kernel(device, &plan, arena.dtype, arena.state_dtype)?;
        for members in members.chunks(TENSORS) {
            match arena.dtype {
                DType::F64 => launch_members::<f64>(arena, members, device, gradients, &kernel, &plan, step)?,
                _ => launch_members::<f32>(arena, members, device, gradients, &kernel, &plan, step)?,
            }
            for &member in members {
                arena.slots[member].step = step;
            }
        }
    }
    Ok(())
}

fn launch_members<R: Real + DeviceRepr>(
    arena: &Arena,
    members: &[usize],
    device: &CudaDevice,
    gradients: &[Option<&Tensor>],
    kernel: &CudaFunction,
    plan: &Plan,
    step: u64,
) -> Result<()> {
    let member = |&member: &usize| Some((&arena.slots[member], gradients[member]?));
    let (slots, grads): (Vec<_>, Vec<_>) = members.iter().filter_map(member).filter(|(slot, _)| slot.len > 0).unzip();
    if slots.is_empty() {
        return Ok(());
    }
    let mut launch = Launch::<R>::new(plan, step);
    let mut blocks = 0;
    for (i, slot) in slots.iter().enumerate() {
        launch.tensor[i] = Table { first: slot.from as u64, len: slot.len as u64, ..Table::default() };
        blocks += slot.len.div_ceil(BLOCK) as u32;
        launch.blocks[i] = blocks;
    }
    launch.tensors = slots.len() as u32;

    let mutable: Vec<&Tensor> = arena.state.iter().chain(slots.iter().map(|slot| slot.var.as_tensor())).collect();
    let written: HashSet<*const Storage> = mutable.iter().map(|tensor| storage_of(tensor)).collect();
    let mut gradients = Vec::with_capacity(slots.len());
    for grad in grads {
        let grad = grad.contiguous()?;
        // Read while the parameters are locked for writing: one of them as a gradient would wait for itself.
        gradients.push(if written.contains(&storage_of(&grad)) { grad.copy()? } else { grad });
    }
    let stream = device.cuda_stream();
    let guards: Vec<_> = gradients.iter().map(Tensor::storage_and_layout).collect();
    // Dropped after the launch: other streams then wait for it.
    let mut reads = Vec::with_capacity(guards.len());
    for (table, (storage, layout)) in launch.tensor.iter_mut().zip(&guards) {
        let (pointer, read) = pointer(storage, layout, &stream)?;
        table.g = pointer;
        reads.push(read);
    }

    lend(&mutable, &stream, &mut vec![], &mut |pointers| {
        let (state, parameters) = pointers.split_at(arena.state.len());
        launch.state[..state.len()].copy_from_slice(state);
        for (table, &pointer) in launch.tensor.iter_mut().zip(parameters) {
            table.p = pointer;
        }
        let config = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 };
        let mut call = stream.launch_builder(kernel);
        call.arg(&launch);
        // SAFETY: the kernel takes one `Launch` by value, laid out as here, and touches nothing but the elements that
        // its table names: of each tensor `len` from its pointer, and as many of each state from `first`. The tensors
        // are contiguous and of that size and of the types that the kernel was compiled for; parameters and state are
        // locked for writing and gradients for reading; the stream is that on which Candle allocates and frees them.
        unsafe { call.launch(config) }.map(drop).map_err(Error::wrap)
    })
}

/// A parameter, as in `kernel/walk.cu`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Table {
    p: u64,
    g: u64,
    first: u64,
    len: u64,
}

/// The kernel's argument, as in `kernel/walk.cu`.
#[repr(C)]
struct Launch<R> {
    scalars: [R; LAUNCH_SCALARS],
    state: [u64; MAX_STATE],
    step_salt: u32,
    tensors: u32,
    tensor: [Table; TENSORS],
    blocks: [u32; TENSORS],
}

// The most that a kernel's arguments may take on every device.
const _: () = assert!(size_of::<Launch<f64>>() <= 4096);

// SAFETY: numbers alone, without padding between them, in the layout of C.
unsafe impl<R: DeviceRepr> DeviceRepr for Launch<R> {}

impl<R: Real> Launch<R> {
    fn new(plan: &Plan, step: u64) -> Self {
        let mut scalars = [R::lit(0.); LAUNCH_SCALARS];
        for (scalar, value) in scalars.iter_mut().zip(plan.launch_scalars()) {
            *scalar = R::lit(value);
        }
        Self {
            scalars,
            state: [0; MAX_STATE],
            step_salt: step_salt(step),
            tensors: 0,
            tensor: [Table::default(); TENSORS],
            blocks: [0; TENSORS],
        }
    }
}

/// Which storage a tensor has: two that share one have the same.
fn storage_of(tensor: &Tensor) -> *const Storage {
    &raw const *tensor.storage_and_layout().0
}

/// Calls `f` with where `tensors` lie, all of them locked for writing until it returns.
fn lend(
    tensors: &[&Tensor],
    stream: &CudaStream,
    pointers: &mut Vec<u64>,
    f: &mut dyn FnMut(&[u64]) -> Result<()>,
) -> Result<()> {
    let Some((first, rest)) = tensors.split_first() else { return f(pointers) };
    first.inplace_op1(&Lend(Cell::new(Some(|storage: &mut CudaStorage, layout: &Layout| {
        let (pointer, _written) = pointer_mut(storage, layout, stream)?;
        pointers.push(pointer);
        lend(rest, stream, pointers, f)
    }))))
}

/// An operation that lends what it is given to a closure, once.
struct Lend<F>(Cell<Option<F>>);

impl<F: FnOnce(&mut CudaStorage, &Layout) -> Result<()>> InplaceOp1 for Lend<F> {
    fn name(&self) -> &'static str {
        "optimizer-step"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        Err(Error::Msg("expected a tensor on a GPU".into()))
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> Result<()> {
        self.0.take().map_or(Ok(()), |f| f(storage, layout))
    }
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

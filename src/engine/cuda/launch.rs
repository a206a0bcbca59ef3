//! Steps many variables in one launch. Its argument is a table of their addresses.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, LaunchConfig, PushKernelArg, SyncOnDrop,
};
use candle_core::cuda_backend::{CudaDevice, CudaStorageSlice};
use candle_core::{CudaStorage, DType, Device, Error, Layout, Result, Storage, Tensor};

use super::compile::{Kernels, kernels};
use super::source::{MAX_SCALARS, TENSORS, has_init};
use crate::algorithm::{Hot, Slot};
use crate::engine::Totals;
use crate::engine::sums::{BLOCK, LANES};
use crate::memory::{Access, CudaAccess, StateBuffer, StateView, step_salt};
use crate::real::Real;
use crate::rule::{Fields, MAX_STATE, MAX_SUMS, Parts, Rule};

/// Sets the state of a variable before its first step.
pub(in crate::engine) fn init<K: Rule<f64>>(slot: &Slot, view: &StateView, k: &K) -> Result<()> {
    let Device::Cuda(device) = slot.var.device() else { return Ok(()) };
    if !has_init(k) || slot.hot.lock.len == 0 {
        return Ok(());
    }
    let (device, dtype, buffer) = (device.clone(), slot.hot.lock.dtype, &*view.buffer);
    Batch { device, dtype, buffer, launch: 0, members: vec![(0, view.from)] }.run(
        std::slice::from_ref(slot),
        k,
        &Task::Init,
    )
}

/// Steps the variables on GPUs for which `launch` names the scalars. The host does not wait for the device.
pub(in crate::engine) fn step<K: Rule<f64>>(
    slots: &[Slot],
    buffers: &[Arc<StateBuffer>],
    launch: &dyn Fn(&Slot) -> Option<usize>,
    k: &dyn Fn(usize) -> K,
    totals: &Totals,
) -> Result<()> {
    for batch in batches(slots, buffers, launch) {
        let k = k(batch.launch);
        let uploaded;
        let totals = match totals {
            Totals::None => None,
            Totals::Device(totals) => Some(totals),
            Totals::Host(totals) => {
                uploaded = batch.stream().clone_htod(totals).map_err(Error::wrap)?;
                Some(&uploaded)
            }
        };
        batch.run(slots, &k, &Task::Step { totals })?;
    }
    Ok(())
}

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
        let stream = self.device.cuda_stream();
        let count = self.slots.len();
        let mut sorted = stream.alloc_zeros::<f64>(count).map_err(Error::wrap)?;
        let mut totals = stream.alloc_zeros::<f64>(self.terms).map_err(Error::wrap)?;
        let (function, tensors) = (self.kernels.get("optimizer_totals")?, count as u32);
        let config = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (LANES as u32, 1, 1), shared_mem_bytes: 0 };
        let mut call = stream.launch_builder(&function);
        call.arg(&self.sums).arg(&mut sorted).arg(&tensors).arg(&mut totals);
        // SAFETY: the kernel reads `tensors` times as many sums as it writes totals, and writes `tensors` sorted
        // numbers: the slices have these sizes.
        unsafe { call.launch(config) }.map_err(Error::wrap)?;
        Ok(Totals::Device(totals))
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

/// What to launch.
enum Task<'a> {
    Init,
    Sums { sums: &'a CudaSlice<f64>, from: usize },
    Step { totals: Option<&'a CudaSlice<f64>> },
}

/// Variables that one kernel steps, with the same scalars.
struct Batch<'a> {
    device: CudaDevice,
    dtype: DType,
    buffer: &'a StateBuffer,
    launch: usize,
    /// Their positions, in rising order, and the first elements of their state.
    members: Vec<(usize, usize)>,
}

/// The variables on GPUs, in one batch for each kernel and set of scalars. Empty variables are left out.
fn batches<'a>(
    slots: &[Slot],
    buffers: &'a [Arc<StateBuffer>],
    launch: &dyn Fn(&Slot) -> Option<usize>,
) -> Vec<Batch<'a>> {
    let mut batches: Vec<Batch> = vec![];
    for (member, slot) in slots.iter().enumerate().filter(|(_, slot)| slot.hot.lock.len > 0) {
        let (Device::Cuda(device), Some(launch)) = (slot.var.device(), launch(slot)) else { continue };
        let Hot { lock, buffer, from, .. } = &slot.hot;
        let (device, dtype, buffer) = (device.clone(), lock.dtype, &*buffers[*buffer as usize]);
        let alike = |batch: &&mut Batch| batch.launch == launch && std::ptr::eq(batch.buffer, buffer);
        match batches.iter_mut().find(alike) {
            Some(batch) => batch.members.push((member, *from)),
            None => batches.push(Batch { device, dtype, buffer, launch, members: vec![(member, *from)] }),
        }
    }
    batches
}

impl Batch<'_> {
    fn stream(&self) -> Arc<CudaStream> {
        self.device.cuda_stream()
    }

    fn kernels<K: Rule<f64>>(&self, k: &K) -> Result<Kernels> {
        kernels(&self.device, k, self.dtype, &self.buffer.dtypes().collect::<Vec<_>>())
    }

    fn run<K: Rule<f64>>(&self, slots: &[Slot], k: &K, task: &Task) -> Result<()> {
        if self.dtype == DType::F64 {
            self.run_typed::<K, f64>(slots, k, task)
        } else {
            self.run_typed::<K, f32>(slots, k, task)
        }
    }

    fn run_typed<K: Rule<f64>, R: Real + DeviceRepr>(&self, slots: &[Slot], k: &K, task: &Task) -> Result<()> {
        let (kernels, stream) = (self.kernels(k)?, self.stream());
        for (chunk, members) in self.members.chunks(TENSORS).enumerate() {
            let chosen: Vec<&Slot> = members.iter().map(|(member, _)| &slots[*member]).collect();
            let mut launch = Launch::<R>::new(k, chosen[0]);
            let mut blocks = 0;
            for (i, (slot, (_, first))) in chosen.iter().zip(members).enumerate() {
                launch.tensor[i] = Entry { p: 0, g: 0, first: *first as u64, len: slot.hot.lock.len as u64 };
                blocks += slot.hot.lock.len.div_ceil(BLOCK) as u32;
                launch.blocks[i] = blocks;
            }
            launch.tensors = members.len() as u32;
            let reads_grads = !matches!(task, Task::Init);
            with_pointers(&chosen, &self.buffer.tensors, reads_grads, &stream, |state, pointers| {
                launch.state[..state.len()].copy_from_slice(state);
                for (entry, (p, g)) in launch.tensor.iter_mut().zip(pointers) {
                    (entry.p, entry.g) = (*p, *g);
                }
                launch_task(&stream, &kernels, k, task, &mut launch, blocks, chunk * TENSORS)
            })?;
        }
        Ok(())
    }
}

/// Launches the kernels of a task over one table. Earlier tables hold `done` tensors of the batch.
fn launch_task<K: Rule<f64>, R: Real + DeviceRepr>(
    stream: &Arc<CudaStream>,
    kernels: &Kernels,
    k: &K,
    task: &Task,
    launch: &mut Launch<R>,
    blocks: u32,
    done: usize,
) -> Result<()> {
    let go = |name: &str, grid: u32, launch: &Launch<R>| go(stream, &kernels.get(name)?, grid, launch);
    match task {
        Task::Init => go("optimizer_init", blocks, launch),
        Task::Sums { sums, from } => {
            let terms = <<K as Parts<f64>>::Totals as Fields<f64>>::NAMES.len();
            let of_blocks = stream.alloc_zeros::<f64>(blocks as usize * terms).map_err(Error::wrap)?;
            launch.blocks_sums = of_blocks.device_ptr(stream).0;
            launch.tensors_sums = sums.device_ptr(stream).0 + ((from + done) * terms * size_of::<f64>()) as u64;
            go("optimizer_measure_group", blocks, launch)?;
            go("optimizer_tensors", launch.tensors, launch)
        }
        Task::Step { totals } => {
            if let Some(totals) = totals {
                launch.totals = totals.device_ptr(stream).0;
            }
            let of_blocks;
            if k.has_norms() {
                let terms = <<K as Parts<f64>>::Norms as Fields<f64>>::NAMES.len();
                of_blocks = stream.alloc_zeros::<f64>(blocks as usize * terms).map_err(Error::wrap)?;
                launch.blocks_sums = of_blocks.device_ptr(stream).0;
                go("optimizer_measure", blocks, launch)?;
            }
            go("optimizer_step", blocks, launch)
        }
    }
}

fn go<R: Real + DeviceRepr>(
    stream: &Arc<CudaStream>,
    function: &CudaFunction,
    grid: u32,
    launch: &Launch<R>,
) -> Result<()> {
    let config = LaunchConfig { grid_dim: (grid, 1, 1), block_dim: (LANES as u32, 1, 1), shared_mem_bytes: 0 };
    let mut call = stream.launch_builder(function);
    call.arg(launch);
    // SAFETY: the kernel takes one `Launch` by value, laid out as here, and accesses only what its table names: `len`
    // elements from the pointer of each variable and gradient, `len` elements from `first` of each state tensor, and
    // the sums, which hold all blocks and terms. The tensors are contiguous, and have that size and the types that the
    // kernel was compiled for. Variables and state are locked for writing, and gradients for reading. Candle allocates
    // and frees them on the same stream.
    unsafe { call.launch(config) }.map(drop).map_err(Error::wrap)
}

/// A variable, as in `kernel/walk.cu`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Entry {
    p: u64,
    g: u64,
    first: u64,
    len: u64,
}

/// The kernel's argument, as in `kernel/walk.cu`.
#[repr(C)]
struct Launch<R> {
    scalars: [R; MAX_SCALARS],
    state: [u64; MAX_STATE],
    blocks_sums: u64,
    tensors_sums: u64,
    totals: u64,
    stochastic: u64,
    step_salt: u32,
    tensors: u32,
    tensor: [Entry; TENSORS],
    blocks: [u32; TENSORS],
}

// The largest size of a kernel's arguments that every device allows.
const _: () = assert!(size_of::<Launch<f64>>() <= 4096);

// SAFETY: only numbers, without padding between them, in the layout of C.
unsafe impl<R: DeviceRepr> DeviceRepr for Launch<R> {}

impl<R: Real> Launch<R> {
    fn new<K: Rule<f64>>(k: &K, slot: &Slot) -> Self {
        let mut scalars = [R::lit(0.); MAX_SCALARS];
        scalars[0] = R::lit(slot.hot.scale);
        let (mut at, count) = (0, <K as Parts<f64>>::SCALARS.len());
        let _ = k.map(|_, x| {
            // The sums come after the scalars.
            at += 1;
            if at <= count {
                scalars[at] = R::lit(x);
            }
            x
        });
        Self {
            scalars,
            state: [0; MAX_STATE],
            blocks_sums: 0,
            tensors_sums: 0,
            totals: 0,
            step_salt: step_salt(slot.clock.step),
            stochastic: slot.hot.stochastic.into(),
            tensors: 0,
            tensor: [Entry::default(); TENSORS],
            blocks: [0; TENSORS],
        }
    }
}

/// Calls `f` with the pointers of the state tensors, and those of the variables and gradients. Gradients are locked for
/// reading, all others for writing.
fn with_pointers(
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

//! Steps many variables in one launch. Its argument is a table of their addresses.

use std::sync::Arc;

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::{DType, Device, Error, Result};

use super::compile::{Kernels, kernels};
use super::pointers::with_pointers;
use super::source::{MAX_SCALARS, TENSORS, has_init};
use crate::algorithm::{Hot, Slot};
use crate::engine::Totals;
use crate::engine::sums::{BLOCK, LANES};
use crate::memory::{StateBuffer, StateView, step_salt};
use crate::real::Real;
use crate::rule::{Fields, MAX_STATE, Parts, Rule};

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

/// What to launch.
pub(super) enum Task<'a> {
    Init,
    Sums { sums: &'a CudaSlice<f64>, from: usize },
    Step { totals: Option<&'a CudaSlice<f64>> },
}

/// Variables that one kernel steps, with the same scalars.
pub(super) struct Batch<'a> {
    pub(super) device: CudaDevice,
    dtype: DType,
    buffer: &'a StateBuffer,
    pub(super) launch: usize,
    /// Their positions, in rising order, and the first elements of their state.
    pub(super) members: Vec<(usize, usize)>,
}

/// The variables on GPUs, in one batch for each kernel and set of scalars. Empty variables are left out.
pub(super) fn batches<'a>(
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
    pub(super) fn stream(&self) -> Arc<CudaStream> {
        self.device.cuda_stream()
    }

    pub(super) fn kernels<K: Rule<f64>>(&self, k: &K) -> Result<Kernels> {
        kernels(&self.device, k, self.dtype, &self.buffer.dtypes().collect::<Vec<_>>())
    }

    pub(super) fn run<K: Rule<f64>>(&self, slots: &[Slot], k: &K, task: &Task) -> Result<()> {
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
    let mut call = stream.launch_builder(function);
    call.arg(launch);
    // SAFETY: the kernel takes one `Launch` by value, laid out as here, and accesses only what its table names: `len`
    // elements from the pointer of each variable and gradient, `len` elements from `first` of each state tensor, and
    // the sums, which hold all blocks and terms. The tensors are contiguous, and have that size and the types that the
    // kernel was compiled for. Variables and state are locked for writing, and gradients for reading. Candle allocates
    // and frees them on the same stream.
    unsafe { call.launch(config(grid)) }.map(drop).map_err(Error::wrap)
}

/// Adds sums of `terms` terms for each tensor. The host does not wait for the device.
pub(super) fn go_totals(
    stream: &Arc<CudaStream>,
    function: &CudaFunction,
    sums: &CudaSlice<f64>,
    terms: usize,
) -> Result<CudaSlice<f64>> {
    let tensors = sums.len() / terms;
    let mut sorted = stream.alloc_zeros::<f64>(tensors).map_err(Error::wrap)?;
    let mut totals = stream.alloc_zeros::<f64>(terms).map_err(Error::wrap)?;
    let count = tensors as u32;
    let mut call = stream.launch_builder(function);
    call.arg(sums).arg(&mut sorted).arg(&count).arg(&mut totals);
    // SAFETY: the kernel reads `terms` sums of each tensor, and writes a number for each tensor and for each term.
    unsafe { call.launch(config(1)) }.map_err(Error::wrap)?;
    Ok(totals)
}

fn config(grid: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (grid, 1, 1), block_dim: (LANES as u32, 1, 1), shared_mem_bytes: 0 }
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

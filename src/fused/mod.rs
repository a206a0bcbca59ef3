//! The engine: a step of many parameters as one pass over memory.
//!
//! Parameters of one type lie in an [`Arena`], which holds their state end to end, a tensor for each name. A step
//! locks those once, and walks the parameters along them, on several threads where that pays. On an NVIDIA GPU it is
//! one launch for many parameters; on any other device the pass is made on a copy on the host: correct, not fast.

mod cpu;
mod cuda;
mod half;
mod lend;

use std::marker::PhantomData;

use ::half::{bf16, f16};
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, Device, Error, Result, Tensor, Var};

use crate::rule::{Decay, MAX_STATE, Plan, Rule};

/// Mutable slices of the state tensors; a rule with fewer than [`MAX_STATE`] leaves the last ones empty.
pub(crate) type State<'a, R> = [&'a mut [R]; MAX_STATE];

/// A rule compiled for each type it computes in, behind one object-safe face.
pub(crate) trait Kernel: Send + Sync {
    /// Names of the state tensors.
    fn state(&self) -> &'static [&'static str];
    /// One step in f32. All slices of the rule's state are at least as long as `p` and `g`.
    fn run_f32(&self, p: &mut [f32], g: &[f32], state: State<f32>, plan: &Plan);
    /// One step in f64.
    fn run_f64(&self, p: &mut [f64], g: &[f64], state: State<f64>, plan: &Plan);
    /// Which rule it is.
    #[cfg(feature = "cuda")]
    fn rule(&self) -> std::any::TypeId;
    /// One step as source code, with this kind of decay.
    fn trace(&self, decay: Decay) -> cuda::Traced;
}

/// The [`Kernel`] of the rule `T`.
pub(crate) struct Fused<T, const S: usize, const K: usize>(PhantomData<fn() -> T>);

impl<T: Rule<S, K>, const S: usize, const K: usize> Fused<T, S, K> {
    pub(crate) const KERNEL: &'static dyn Kernel = &Self(PhantomData);
    const STATE: &'static [&'static str] = &T::STATE;
}

impl<T: Rule<S, K>, const S: usize, const K: usize> Kernel for Fused<T, S, K> {
    fn state(&self) -> &'static [&'static str] {
        Self::STATE
    }

    fn run_f32(&self, p: &mut [f32], g: &[f32], state: State<f32>, plan: &Plan) {
        cpu::run::<f32, T, S, K>(p, g, state, plan);
    }

    fn run_f64(&self, p: &mut [f64], g: &[f64], state: State<f64>, plan: &Plan) {
        cpu::run::<f64, T, S, K>(p, g, state, plan);
    }

    #[cfg(feature = "cuda")]
    fn rule(&self) -> std::any::TypeId {
        std::any::TypeId::of::<T>()
    }

    fn trace(&self, decay: Decay) -> cuda::Traced {
        cuda::trace::<T, S, K>(decay)
    }
}

impl Plan {
    /// The CUDA kernel that steps parameters of type `dtype`, their state kept in `state_dtype`, as this plan says.
    ///
    /// # Errors
    /// Types that cannot be stepped, or not together.
    pub fn cuda_source(&self, dtype: DType, state_dtype: DType) -> Result<String> {
        if !state_dtypes(dtype).contains(&state_dtype) {
            return Err(Error::UnsupportedDTypeForOp(state_dtype, "optimizer state"));
        }
        cuda::source(&self.kernel.trace(self.decay), dtype, state_dtype)
    }
}

/// The types in which the state of parameters of type `dtype` can be kept, the usual one first; none if such
/// parameters cannot be stepped.
pub(crate) fn state_dtypes(dtype: DType) -> &'static [DType] {
    match dtype {
        DType::F64 => &[DType::F64],
        DType::F32 | DType::F16 | DType::BF16 => &[DType::F32, DType::BF16],
        _ => &[],
    }
}

/// The type in which the state of parameters of type `dtype` is kept where `asked` is asked for; none if it cannot be.
/// State in f64 has no other form.
pub(crate) fn state_dtype(dtype: DType, asked: Option<DType>) -> Option<DType> {
    let allowed = state_dtypes(dtype);
    let asked = asked.filter(|_| dtype != DType::F64).or(allowed.first().copied());
    asked.filter(|asked| allowed.contains(asked))
}

/// Parameters of one type on one device, and their state.
#[derive(Debug)]
pub(crate) struct Arena {
    dtype: DType,
    state_dtype: DType,
    slots: Vec<Slot>,
    /// For each name one tensor, in which the parameters follow each other.
    state: Vec<Tensor>,
    /// What a step lends of it.
    lendable_state: Vec<Tensor>,
}

/// A parameter.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) var: Var,
    /// What a step lends of it.
    lendable: Tensor,
    /// Steps taken.
    pub(crate) step: u64,
    /// Elements.
    len: usize,
    /// The first of its elements of each state tensor.
    from: usize,
}

/// Every parameter's state begins at a multiple of so many elements, where vectors may be loaded on any device.
const ALIGNED: usize = 16;

impl Slot {
    /// Elements of each state tensor that are set aside for it.
    fn room(&self) -> usize {
        self.len.next_multiple_of(ALIGNED)
    }
}

impl Arena {
    /// Parameters of type `dtype`, all on one device, with `names` state tensors each, zero. State lies where the pass is
    /// made: on the parameters' device or on the host.
    pub(crate) fn new(vars: Vec<Var>, dtype: DType, state_dtype: DType, names: usize) -> Result<Self> {
        let place = match vars.first().map(|var| var.device()) {
            Some(gpu) if cfg!(feature = "cuda") && gpu.is_cuda() => gpu.clone(),
            _ => Device::Cpu,
        };
        let mut all = 0;
        let mut slots = Vec::with_capacity(vars.len());
        for var in vars {
            let slot = Slot { step: 0, len: var.elem_count(), from: all, lendable: lend::lendable(&var)?, var };
            all += slot.room();
            slots.push(slot);
        }
        // A device has no empty tensors.
        let state = (0..names).map(|_| Tensor::zeros(all.max(1), state_dtype, &place)).collect::<Result<Vec<_>>>()?;
        let lendable_state = state.iter().map(lend::lendable).collect::<Result<_>>()?;
        Ok(Self { dtype, state_dtype, slots, state, lendable_state })
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Copies of the state of one parameter, in its shape.
    pub(crate) fn state_of(&self, slot: usize) -> Result<Vec<Tensor>> {
        let Slot { var, len, from, .. } = &self.slots[slot];
        self.state.iter().map(|all| all.narrow(0, *from, *len)?.reshape(var.shape())?.copy()).collect()
    }

    pub(crate) fn state_bytes(&self) -> usize {
        self.state.iter().map(|tensor| tensor.elem_count() * tensor.dtype().size_in_bytes()).sum()
    }

    /// Steps every parameter that has a gradient in `gradients`, which are in the order of the slots and fit them.
    fn step(&mut self, gradients: &[Option<&Tensor>], plan: &(dyn Fn(u64) -> Plan + Sync)) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Some(Device::Cuda(device)) = self.slots.first().map(|slot| slot.var.device().clone()) {
            return cuda::step(self, &device, gradients, plan);
        }
        let Self { slots, lendable_state, .. } = self;
        macro_rules! walk {
            ($($p:ident $float:ty, $s:ident $kept:ty;)*) => {
                match (self.dtype, self.state_dtype) {
                    $((DType::$p, DType::$s) => {
                        lend::slices(lendable_state, |state| walk::<$float, $kept>(slots, state, gradients, plan))
                    })*
                    (dtype, _) => Err(Error::UnsupportedDTypeForOp(dtype, "optimizer step")),
                }
            };
        }
        walk! {
            F64 f64, F64 f64;
            F32 f32, F32 f32;
            F32 f32, BF16 bf16;
            F16 f16, F32 f32;
            F16 f16, BF16 bf16;
            BF16 bf16, F32 f32;
            BF16 bf16, BF16 bf16;
        }
    }
}

/// A step's gradients. Between steps an empty list, which keeps its memory.
#[derive(Debug, Default)]
pub(crate) struct Gradients(Vec<Option<&'static Tensor>>);

/// Steps every parameter of `arenas` that has a gradient in `grads`, or none and says so with false if one does not fit.
/// `plan` is asked for the plan of a step, from 1.
pub(crate) fn step(
    arenas: &mut [Arena],
    memory: &mut Gradients,
    grads: &GradStore,
    plan: &(dyn Fn(u64) -> Plan + Sync),
) -> Result<bool> {
    let mut gradients: Vec<Option<&Tensor>> = std::mem::take(&mut memory.0);
    gradients.resize(arenas.iter().map(|arena| arena.slots.len()).sum(), None);
    let many = arenas.iter().any(|arena| arena.slots.len() > MANY) && rayon::current_num_threads() > 1;
    let mut step = || {
        let mut rest = gradients.as_mut_slice();
        for Arena { slots, .. } in &*arenas {
            if !find(slots, grads, rest.split_off_mut(..slots.len()).unwrap_or_default()) {
                return Ok(false);
            }
        }
        let mut rest = gradients.as_slice();
        for arena in &mut *arenas {
            arena.step(rest.split_off(..arena.slots.len()).unwrap_or_default(), plan)?;
        }
        Ok(true)
    };
    // Handing work to threads and waiting for it takes some microseconds: once, not for each of the above.
    let stepped = if many { rayon::scope(|_| step()) } else { step() };
    gradients.clear();
    // Of an empty list this keeps the memory and lets go of the lifetime.
    memory.0 = gradients.into_iter().map(|_| None).collect();
    stepped
}

/// Finds the gradients of parameters; whether they all fit.
fn find<'a>(slots: &[Slot], grads: &'a GradStore, found: &mut [Option<&'a Tensor>]) -> bool {
    if slots.len() > MANY && rayon::current_num_threads() > 1 {
        let middle = slots.len() / 2;
        let ((slots, slots_rest), (found, found_rest)) = (slots.split_at(middle), found.split_at_mut(middle));
        let (first, rest) = rayon::join(|| find(slots, grads, found), || find(slots_rest, grads, found_rest));
        return first && rest;
    }
    for (slot, found) in slots.iter().zip(found) {
        *found = grads.get(&slot.var);
        if found.is_some_and(|grad| !fits(&slot.var, grad)) {
            return false;
        }
    }
    true
}

/// Whether a gradient has the shape, the type and the device of its parameter.
pub(crate) fn fits(var: &Var, grad: &Tensor) -> bool {
    var.shape() == grad.shape() && var.dtype() == grad.dtype() && var.device().same_device(grad.device())
}

/// Parameters whose gradients one thread looks up at a time.
const MANY: usize = 256;

/// Elements that one thread steps at a time. Fewer are not worth another thread: handing work over costs some
/// microseconds, in which a thread steps about as many.
const GRAIN: usize = 1 << 16;

/// Steps parameters of type `E` whose state is kept in type `Z`.
fn walk<E: Pass<Z>, Z: Element>(
    slots: &mut [Slot],
    mut state: State<Z>,
    gradients: &[Option<&Tensor>],
    plan: &(dyn Fn(u64) -> Plan + Sync),
) -> Result<()> {
    let Some((first, last)) = slots.first().zip(slots.last()) else { return Ok(()) };
    let (from, to) = (first.from, last.from + last.room());
    if slots.len() > 1 && to - from > GRAIN && rayon::current_num_threads() > 1 {
        let half = from.midpoint(to);
        let middle = slots.partition_point(|slot| slot.from + slot.room() <= half).max(1);
        let (slots, slots_rest) = slots.split_at_mut(middle);
        let (gradients, gradients_rest) = gradients.split_at(middle);
        let (state, state_rest) = split(state, slots_rest[0].from - from);
        let (first, rest) = rayon::join(
            || walk::<E, Z>(slots, state, gradients, plan),
            || walk::<E, Z>(slots_rest, state_rest, gradients_rest, plan),
        );
        return first.and(rest);
    }
    let mut current: Option<(u64, Plan)> = None;
    for (slot, grad) in slots.iter_mut().zip(gradients) {
        let (mine, rest) = split(state, slot.room());
        state = rest;
        let Some(grad) = grad else { continue };
        let step = slot.step + 1;
        let plan = match &mut current {
            Some((of, plan)) if *of == step => plan,
            current => &mut current.insert((step, plan(step))).1,
        };
        step_one::<E, Z>(slot, grad, mine, Now { plan, step, from: 0 })?;
        slot.step = step;
    }
    Ok(())
}

fn step_one<E: Pass<Z>, Z: Element>(slot: &Slot, grad: &Tensor, state: State<Z>, now: Now) -> Result<()> {
    let Slot { var, lendable, .. } = slot;
    let step = |p: &mut [E], g: &[E]| share::<E, Z>(p, g, state, now);
    if !lendable.device().is_cpu() {
        let (copy, grad) = (var.to_device(&Device::Cpu)?, grad.to_device(&Device::Cpu)?);
        lend::parameter(&lend::lendable(&copy)?, &grad, step)?;
        return var.set(&copy.to_device(var.device())?);
    }
    lend::parameter(lendable, grad, step)
}

/// Which step of which elements of a parameter.
#[derive(Clone, Copy)]
pub(crate) struct Now<'a> {
    plan: &'a Plan,
    /// The step, from 1.
    step: u64,
    /// The first of the elements.
    from: usize,
}

/// One pass, shared among as many threads as pay.
fn share<E: Pass<Z>, Z: Element>(p: &mut [E], g: &[E], state: State<Z>, now: Now) {
    if p.len() <= GRAIN || rayon::current_num_threads() == 1 {
        return E::pass(p, g, state, now);
    }
    // Halves at a multiple of the grain, so that threads never share a cache line.
    let middle = (p.len() / 2).next_multiple_of(GRAIN);
    let (p, p_rest) = p.split_at_mut(middle);
    let (g, g_rest) = g.split_at(middle);
    let (state, state_rest) = split(state, middle);
    let rest = Now { from: now.from + middle, ..now };
    rayon::join(|| share(p, g, state, now), || share(p_rest, g_rest, state_rest, rest));
}

/// The state of the first `n` elements, and that of the rest.
fn split<Z>(state: State<Z>, n: usize) -> (State<Z>, State<Z>) {
    let mut first = [(); MAX_STATE].map(|()| [].as_mut_slice());
    let mut rest = [(); MAX_STATE].map(|()| [].as_mut_slice());
    for ((all, first), rest) in state.into_iter().zip(&mut first).zip(&mut rest) {
        let n = n.min(all.len());
        (*first, *rest) = all.split_at_mut(n);
    }
    (first, rest)
}

/// An element type of Candle's CPU storage.
pub(crate) trait Element: candle_core::WithDType {
    /// The storage as a mutable slice; none if it is of another type.
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
}

macro_rules! element {
    ($($float:ty, $variant:ident;)*) => {$(
        impl Element for $float {
            fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
                match storage {
                    CpuStorage::$variant(values) => Some(values),
                    _ => None,
                }
            }
        }
    )*};
}
element! { f64, F64; f32, F32; f16, F16; bf16, BF16; }

/// Parameters that can be stepped with state of type `Z`.
pub(crate) trait Pass<Z>: Element {
    /// One pass on one thread. All slices of the rule's state are at least as long as `p` and `g`.
    fn pass(p: &mut [Self], g: &[Self], state: State<Z>, now: Now);
}

impl Pass<f32> for f32 {
    fn pass(p: &mut [f32], g: &[f32], state: State<f32>, now: Now) {
        now.plan.kernel.run_f32(p, g, state, now.plan);
    }
}

impl Pass<f64> for f64 {
    fn pass(p: &mut [f64], g: &[f64], state: State<f64>, now: Now) {
        now.plan.kernel.run_f64(p, g, state, now.plan);
    }
}

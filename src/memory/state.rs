//! The state of a variable: Candle tensors for a method on whole tensors, or memory of the engine for a rule.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Shape, Tensor};
use half::bf16;

use super::lock::VarLock;
use super::rounding::round_tensor;
use crate::rule::MAX_STATE;

/// The state tensors of a variable, by name.
pub type State = BTreeMap<&'static str, Tensor>;

/// The types in which the state of variables of type `dtype` can be stored, the usual one first; none if such variables
/// cannot be stepped.
pub(crate) fn state_dtypes(dtype: DType) -> &'static [DType] {
    match dtype {
        DType::F64 => &[DType::F64],
        DType::F32 | DType::F16 | DType::BF16 => &[DType::F32, DType::BF16],
        _ => &[],
    }
}

/// The type in which one state tensor is stored. Copies of weights are never rounded.
pub(crate) fn stored_dtype(dtype: DType, asked: Option<DType>, copies_weights: bool) -> DType {
    match dtype {
        DType::F64 => DType::F64,
        _ if copies_weights => DType::F32,
        _ => asked.unwrap_or(DType::F32),
    }
}

/// The state of every variable begins at a multiple of this number of elements. Any device can load vectors there.
const ALIGNED: usize = 16;

/// The state that one algorithm has for one variable.
#[derive(Debug)]
pub(crate) enum SlotState {
    /// Replaced as a whole.
    Tensors(State),
    /// Updated in place by the engine.
    View(StateView),
}

impl SlotState {
    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Self::Tensors(state) => state.contains_key(name),
            Self::View(view) => view.names.contains(&name),
        }
    }

    /// Copies, in the stored type.
    pub(crate) fn tensors(&self, shape: &Shape) -> Result<State> {
        match self {
            Self::Tensors(state) => Ok(state.clone()),
            Self::View(view) => {
                let tensors = view.names.iter().zip(&view.buffer.tensors);
                tensors.map(|(name, all)| Ok((*name, view.of(all)?.force_contiguous()?.reshape(shape)?))).collect()
            }
        }
    }

    /// Stores a tensor under one of the names. A 16-bit type is rounded stochastically, as the engine rounds it.
    pub(crate) fn set(&mut self, name: &'static str, tensor: &Tensor, step: u64) -> Result<()> {
        match self {
            Self::Tensors(state) => {
                let position = state.keys().position(|key| *key == name).unwrap_or_default();
                let dtype = state.get(name).map_or(tensor.dtype(), Tensor::dtype);
                state.insert(name, round_tensor(tensor, dtype, step, position as u32)?);
                Ok(())
            }
            Self::View(view) => {
                let position = view.names.iter().position(|known| *known == name).unwrap_or_default();
                let tensor = round_tensor(tensor, view.buffer.tensors[position].dtype(), step, position as u32)?;
                view.set(position, &tensor)
            }
        }
    }

    /// Zeroes state that has not started. The engine assumes that its memory is zero.
    pub(crate) fn clear(&self) -> Result<()> {
        if let Self::View(view) = self { view.clear() } else { Ok(()) }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Tensors(state) => state.values().map(|t| t.elem_count() * t.dtype().size_in_bytes()).sum(),
            Self::View(view) => view.buffer.tensors.iter().map(|all| view.len * all.dtype().size_in_bytes()).sum(),
        }
    }
}

/// The state tensors of a rule. Each holds the state of all variables of a group with the same type and device, end to
/// end. A step locks each tensor once, and the processor reads contiguously from one variable to the next.
#[derive(Debug)]
pub(crate) struct StateBuffer {
    pub(crate) tensors: Vec<Tensor>,
    locks: Vec<VarLock>,
    /// The portions that threads take, in order and without gaps.
    pub(crate) portions: Vec<Portion>,
    pub(crate) on_host: bool,
}

/// Some variables of a group, and the elements of a buffer that are theirs. Variables of other buffers may lie between
/// them.
#[derive(Clone, Debug)]
pub(crate) struct Portion {
    pub(crate) slots: Range<usize>,
    pub(crate) elements: Range<usize>,
}

impl StateBuffer {
    /// Makes tensors of zeros. The memory is where the pass runs: on `device` if that is a GPU for which the engine has
    /// kernels, else on the host.
    pub(crate) fn new(dtypes: &[DType], portions: Vec<Portion>, device: &Device) -> Result<Self> {
        let elements = portions.last().map_or(0, |last| last.elements.end);
        let on_host = !cfg!(feature = "cuda") || !device.is_cuda();
        let device = if on_host { &Device::Cpu } else { device };
        // A GPU has no empty tensors.
        let zeros = |dtype: &DType| Tensor::zeros(elements.max(1), *dtype, device);
        let tensors = dtypes.iter().map(zeros).collect::<Result<Vec<_>>>()?;
        let locks = tensors.iter().map(VarLock::new).collect();
        Ok(Self { tensors, locks, portions, on_host })
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn dtypes(&self) -> impl Iterator<Item = DType> {
        self.tensors.iter().map(Tensor::dtype)
    }

    /// Calls `f` with all tensors, which must be on the host.
    pub(crate) fn with(&self, f: &mut dyn FnMut(Parts) -> Result<()>) -> Result<()> {
        lock_all(&self.locks, 0, [const { Part::None }; MAX_STATE], f)
    }
}

fn lock_all(locks: &[VarLock], depth: usize, locked: Parts, f: &mut dyn FnMut(Parts) -> Result<()>) -> Result<()> {
    let Some(lock) = locks.get(depth) else { return f(locked) };
    macro_rules! lock {
        ($float:ty, $Variant:ident) => {
            lock.with_state::<$float>(|values| {
                // The move shortens the lifetime of the parts locked so far to that of this part.
                let mut locked: Parts = locked;
                locked[depth] = Part::$Variant(values);
                lock_all(locks, depth + 1, locked, f)
            })
        };
    }
    match lock.dtype {
        DType::F64 => lock!(f64, F64),
        DType::BF16 => lock!(bf16, BF16),
        _ => lock!(f32, F32),
    }
}

/// The elements of a buffer that belong to one variable.
#[derive(Clone, Debug)]
pub(crate) struct StateView {
    pub(crate) buffer: Arc<StateBuffer>,
    pub(crate) names: Vec<&'static str>,
    pub(crate) from: usize,
    pub(crate) len: usize,
}

impl StateView {
    /// The number of elements that a variable takes in a buffer.
    pub(crate) fn padded_len(len: usize) -> usize {
        len.next_multiple_of(ALIGNED)
    }

    fn of(&self, all: &Tensor) -> Result<Tensor> {
        all.narrow(0, self.from, self.len)
    }

    /// Sets state tensor `i`. `tensor` must have its type.
    fn set(&self, i: usize, tensor: &Tensor) -> Result<()> {
        let tensor = tensor.flatten_all()?.contiguous()?;
        #[cfg(feature = "cuda")]
        if tensor.device().is_cuda() {
            return super::cuda::copy(&tensor, &self.buffer.tensors[i], self.from);
        }
        let tensor = tensor.to_device(&Device::Cpu)?;
        self.with(&mut |mut parts| {
            match &mut parts[i] {
                Part::F64(part) => part.copy_from_slice(&tensor.to_vec1()?),
                Part::F32(part) => part.copy_from_slice(&tensor.to_vec1()?),
                Part::BF16(part) => part.copy_from_slice(&tensor.to_vec1()?),
                Part::None => {}
            }
            Ok(())
        })
    }

    /// Sets all to zero.
    pub(crate) fn clear(&self) -> Result<()> {
        for (i, all) in self.buffer.tensors.iter().enumerate() {
            self.set(i, &Tensor::zeros(self.len, all.dtype(), all.device())?)?;
        }
        Ok(())
    }

    /// Calls `f` with the elements, which must be on the host.
    pub(crate) fn with(&self, f: &mut dyn FnMut(Parts) -> Result<()>) -> Result<()> {
        self.buffer.with(&mut |mut parts| f(range(&mut parts, self.from, self.len)))
    }
}

/// Some of the elements of each state tensor.
pub(crate) type Parts<'a> = [Part<'a>; MAX_STATE];

/// `len` elements of each, from the element `from`.
#[inline(always)]
pub(crate) fn range<'a>(parts: &'a mut Parts, from: usize, len: usize) -> Parts<'a> {
    parts.each_mut().map(|part| part.range(from, len))
}

/// The first `n` elements of each, and the rest.
pub(crate) fn split_at(parts: Parts<'_>, n: usize) -> (Parts<'_>, Parts<'_>) {
    let mut rest = [const { Part::None }; MAX_STATE];
    let mut after = rest.iter_mut();
    let first = parts.map(|part| {
        let (first, others) = part.split_at(n);
        if let Some(after) = after.next() {
            *after = others;
        }
        first
    });
    (first, rest)
}

/// Some of the elements of one state tensor.
pub(crate) enum Part<'a> {
    None,
    F64(&'a mut [f64]),
    F32(&'a mut [f32]),
    BF16(&'a mut [bf16]),
}

impl<'a> Part<'a> {
    pub(crate) fn split_at(self, n: usize) -> (Self, Self) {
        macro_rules! halves {
            ($($Variant:ident)*) => {
                match self {
                    Self::None => (Self::None, Self::None),
                    $(Self::$Variant(all) => {
                        let (first, rest) = all.split_at_mut(n);
                        (Self::$Variant(first), Self::$Variant(rest))
                    })*
                }
            };
        }
        halves!(F64 F32 BF16)
    }

    /// Some of the elements, borrowed again.
    #[inline(always)]
    pub(crate) fn range(&mut self, from: usize, len: usize) -> Part<'_> {
        match self {
            Self::None => Part::None,
            Self::F64(all) => Part::F64(&mut all[from..from + len]),
            Self::F32(all) => Part::F32(&mut all[from..from + len]),
            Self::BF16(all) => Part::BF16(&mut all[from..from + len]),
        }
    }
}

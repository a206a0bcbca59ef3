//! Direct access to the memory of a variable and of its gradient.
//!
//! Candle gives mutable access to the memory of a tensor only to in-place operations. Such an operation may call a
//! closure.

use std::cell::Cell;

use candle_core::{CpuStorage, DType, Device, Error, InplaceOp1, InplaceOp2, Layout, Result, Tensor, Var};
use half::{bf16, f16};

/// An element type of variables and of state.
pub(crate) trait Element: candle_core::WithDType {
    /// The storage as a mutable slice; none if it is of another type.
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
}

macro_rules! element {
    ($($float:ty, $Variant:ident;)*) => {$(
        impl Element for $float {
            fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [$float]> {
                if let CpuStorage::$Variant(values) = storage { Some(values) } else { None }
            }
        }
    )*};
}
element! { f64, F64; f32, F32; f16, F16; bf16, BF16; }

/// A variable as the engine locks it, with the properties that a step needs. Each read from the variable itself would
/// cost a cache miss.
#[derive(Debug)]
pub(crate) struct VarLock {
    /// A view of the first element, which gives access to the whole memory. For an empty tensor it is the tensor
    /// itself. Before an in-place operation Candle checks that no two elements overlap, which allocates. Without the view a
    /// step of `sgd` over a thousand variables of a thousand elements takes a tenth longer.
    first: Tensor,
    pub(crate) dtype: DType,
    pub(crate) len: usize,
    pub(crate) backend: Backend,
}

/// Who steps a variable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Backend {
    /// The CPU.
    Host,
    /// A kernel on a GPU.
    Cuda,
    /// The CPU, for any other device: a step copies to the host and back.
    Other,
}

impl VarLock {
    pub(crate) fn new(tensor: &Tensor) -> Self {
        // All variables are contiguous: `Var` makes them so.
        let first = (0..tensor.rank()).try_fold(tensor.detach(), |part, _| part.get(0));
        let backend = match tensor.device() {
            Device::Cpu => Backend::Host,
            Device::Cuda(_) if cfg!(feature = "cuda") => Backend::Cuda,
            _ => Backend::Other,
        };
        let first = first.unwrap_or_else(|_| tensor.detach());
        Self { first, dtype: tensor.dtype(), len: tensor.elem_count(), backend }
    }

    /// Calls `f` with the elements of the variable, mutable, and of its gradient, which is empty if there is none. The
    /// gradient must not share the variable's memory. Memory outside the host is copied to the host and back, which is
    /// slow.
    ///
    /// `f` is dynamic. Otherwise Candle's operation would be compiled again for each rule, to a tenth of the library's
    /// code.
    pub(crate) fn with<E: Element>(
        &self,
        var: &Var,
        grad: Option<&Tensor>,
        f: &mut dyn FnMut(&mut [E], &[E]),
    ) -> Result<()> {
        if self.backend == Backend::Host {
            return self.with_host(grad, f);
        }
        let host = var.to_device(&Device::Cpu)?;
        let grad = grad.map(|grad| grad.to_device(&Device::Cpu)).transpose()?;
        Self::new(&host).with_host(grad.as_ref(), f)?;
        var.set(&host.to_device(var.device())?)
    }

    /// Calls `f` with all elements of a state tensor, which is on the host.
    pub(super) fn with_state<E: Element>(&self, f: impl FnOnce(&mut [E]) -> Result<()>) -> Result<()> {
        self.first.inplace_op1(&Access::new(|values: &mut CpuStorage, _: &Layout| f(values_mut(values)?)))
    }

    fn with_host<E: Element>(&self, grad: Option<&Tensor>, f: &mut dyn FnMut(&mut [E], &[E])) -> Result<()> {
        let n = self.len;
        if n == 0 {
            // Candle mistakes the strides of an empty tensor for repeated elements.
            f(&mut [], &[]);
            return Ok(());
        }
        let Some(grad) = grad else {
            return self.first.inplace_op1(&Access::new(|p: &mut CpuStorage, _: &Layout| {
                f(&mut values_mut(p)?[..n], &[]);
                Ok(())
            }));
        };
        if !grad.is_contiguous() {
            return self.with_host(Some(&grad.contiguous()?), f);
        }
        let access = Access::new(|p: (&mut CpuStorage, &Layout), g: (&CpuStorage, &Layout)| {
            let from = g.1.start_offset();
            f(&mut values_mut(p.0)?[..n], &g.0.as_slice()?[from..from + n]);
            Ok(())
        });
        self.first.inplace_op2(grad, &access)
    }
}

/// An operation that passes what it is given to a closure, once.
pub(crate) struct Access<F>(Cell<Option<F>>);

impl<F> Access<F> {
    pub(crate) fn new(f: F) -> Self {
        Self(Cell::new(Some(f)))
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn take(&self) -> Option<F> {
        self.0.take()
    }
}

impl<F: FnOnce(&mut CpuStorage, &Layout) -> Result<()>> InplaceOp1 for Access<F> {
    fn name(&self) -> &'static str {
        "optimizer-state"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        self.0.take().map_or(Ok(()), |f| f(storage, layout))
    }
}

impl<F: FnOnce((&mut CpuStorage, &Layout), (&CpuStorage, &Layout)) -> Result<()>> InplaceOp2 for Access<F> {
    fn name(&self) -> &'static str {
        "optimizer-step"
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
        self.0.take().map_or(Ok(()), |f| f((s1, l1), (s2, l2)))
    }
}

fn values_mut<E: Element>(storage: &mut CpuStorage) -> Result<&mut [E]> {
    E::slice_mut(storage).ok_or_else(|| Error::Msg(format!("expected storage of type {:?}", E::DTYPE)))
}

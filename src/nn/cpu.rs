//! Access to the elements of tensors on the CPU, for custom operations (`candle_core::CustomOp1` and its like).

use std::borrow::Cow;
use std::ops::Deref;

use candle_core::{CpuStorage, DType, Error, Layout, Result, Storage, Tensor, WithDType};
use pulp::{Arch, Simd, WithSimd};

/// Evaluates an expression in which `$float` is the type of `$dtype`, f32 or f64. For any other type, it returns an
/// error from the calling function.
///
/// ```
/// use candle_core::{CpuStorage, DType, Result, WithDType};
///
/// fn ones(dtype: DType) -> Result<CpuStorage> {
///     Ok(candle_optim::on_floats!("ones", dtype, R => R::to_cpu_storage_owned(vec![1 as R; 3])))
/// }
/// assert!(ones(DType::F64).is_ok() && ones(DType::U8).is_err());
/// ```
#[macro_export]
macro_rules! on_floats {
    ($op:expr, $dtype:expr, $float:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $float = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $float = f64;
                $body
            }
            dtype => return Err(candle_core::Error::UnsupportedDTypeForOp(dtype, $op)),
        }
    };
}

/// Converts tensors to f32 if all are f16 or bf16 and on the CPU. Returns `None` otherwise.
///
/// # Errors
/// An error of Candle.
pub fn widen_half<const N: usize>(tensors: [&Tensor; N]) -> Result<Option<[Tensor; N]>> {
    let half = |tensor: &&Tensor| tensor.device().is_cpu() && matches!(tensor.dtype(), DType::F16 | DType::BF16);
    if !tensors.iter().all(half) {
        return Ok(None);
    }
    let mut wide = tensors.map(Tensor::clone);
    for tensor in &mut wide {
        *tensor = tensor.to_dtype(DType::F32)?;
    }
    Ok(Some(wide))
}

/// The tensor with its elements in order. Unlike [`Tensor::contiguous`], it borrows a tensor that is already in order,
/// without counting a reference.
///
/// # Errors
/// An error of Candle.
pub fn contiguous(tensor: &Tensor) -> Result<Cow<'_, Tensor>> {
    Ok(if tensor.is_contiguous() { Cow::Borrowed(tensor) } else { Cow::Owned(tensor.contiguous()?) })
}

/// The elements of a contiguous tensor, from what a custom operation is given.
///
/// # Errors
/// The tensor is not contiguous, or of another type.
pub fn contents<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let (start, end) = layout.contiguous_offsets().ok_or(Error::RequiresContiguous { op: "contents" })?;
    Ok(&storage.as_slice::<T>()?[start..end])
}

/// A tensor locked for reading. See [`locked`].
#[derive(Debug)]
pub struct Locked<'a, G>(G, &'a Layout);

/// Locks a tensor for reading. Do not write to the tensor until the result is dropped.
pub fn locked(tensor: &Tensor) -> Locked<'_, impl Deref<Target = Storage>> {
    let (storage, layout) = tensor.storage_and_layout();
    Locked(storage, layout)
}

impl<G: Deref<Target = Storage>> Locked<'_, G> {
    /// The elements of the tensor.
    ///
    /// # Errors
    /// The tensor is not contiguous, of another type, or not on the CPU.
    pub fn values<T: WithDType>(&self) -> Result<&[T]> {
        match &*self.0 {
            Storage::Cpu(storage) => contents(storage, self.1),
            _ => Err(Error::Msg("expected a tensor on the CPU".into())),
        }
    }
}

/// A tensor of these values, of the shape and on the device of another.
///
/// # Errors
/// The numbers of elements differ.
pub fn shaped_as<T: WithDType>(like: &Tensor, values: Vec<T>) -> Result<Tensor> {
    Tensor::from_vec(values, like.shape(), like.device())
}

/// A loop over elements. `run` and all it calls must be `#[inline(always)]`: only then is it compiled for each
/// instruction set.
pub(super) trait Pass {
    type Output;
    fn run(self) -> Self::Output;
}

/// Runs a pass, compiled for the instruction set of this processor.
pub(super) fn dispatch<P: Pass>(pass: P) -> P::Output {
    struct Dispatch<P>(P);
    impl<P: Pass> WithSimd for Dispatch<P> {
        type Output = P::Output;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> P::Output {
            self.0.run()
        }
    }
    Arch::new().dispatch(Dispatch(pass))
}

//! What training needs beside the optimizer, for anybody's model.

mod block;
mod dense;
mod elementary;
mod loss;
mod memory;
mod mlp;
mod product;
mod simd;

use std::borrow::Cow;
use std::ops::Deref;

use candle_core::{CpuStorage, DType, Error, Layout, Result, Storage, Tensor, WithDType};

pub use dense::{Activation, Dense};
pub use loss::{bce_with_logits, cross_entropy, mse};
pub use mlp::Mlp;

/// Tensors of half precision on the CPU as f32, in which the operations here compute; none for any other.
pub(crate) fn widen_half<const N: usize>(tensors: [&Tensor; N]) -> Result<Option<[Tensor; N]>> {
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

/// Evaluates an expression with `$float` standing for the type of `$dtype`, f32 or f64.
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
pub(crate) use on_floats;

/// A tensor whose elements lie in order: itself where they do, for which [`Tensor::contiguous`] counts a reference.
fn contiguous(tensor: &Tensor) -> Result<Cow<'_, Tensor>> {
    Ok(if tensor.is_contiguous() { Cow::Borrowed(tensor) } else { Cow::Owned(tensor.contiguous()?) })
}

/// The values of a contiguous tensor, from what a custom operation is given.
fn contents<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let (start, end) = layout.contiguous_offsets().ok_or(Error::RequiresContiguous { op: "contents" })?;
    Ok(&storage.as_slice::<T>()?[start..end])
}

/// A contiguous tensor on the CPU, locked for reading.
pub(crate) struct Locked<'a, G>(G, &'a Layout);

pub(crate) fn locked(tensor: &Tensor) -> Locked<'_, impl Deref<Target = Storage>> {
    let (storage, layout) = tensor.storage_and_layout();
    Locked(storage, layout)
}

impl<G: Deref<Target = Storage>> Locked<'_, G> {
    pub(crate) fn values<T: WithDType>(&self) -> Result<&[T]> {
        match &*self.0 {
            Storage::Cpu(storage) => contents(storage, self.1),
            _ => Err(Error::Msg("expected a tensor on the CPU".into())),
        }
    }
}

/// A tensor shaped as another, on the CPU.
fn shaped_as<T: WithDType>(like: &Tensor, values: Vec<T>) -> Result<Tensor> {
    Tensor::from_vec(values, like.shape(), like.device())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    /// Numbers from -1 to 1, another row of them for each seed.
    pub(super) fn numbers(n: usize, seed: u64) -> Vec<f64> {
        (0..n as u64).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f64 / 504.5 - 1.).collect()
    }

    /// That two results are the same in f64, and their gradients with respect to `vars`.
    pub(super) fn assert_same(a: &Tensor, b: &Tensor, vars: &[&Var]) -> Result<()> {
        let close = |a: &Tensor, b: &Tensor| -> Result<bool> {
            Ok(a.shape() == b.shape() && (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()? < 1e-12)
        };
        assert!(close(a, b)?);
        let (of_a, of_b) = (a.backward()?, b.backward()?);
        for var in vars {
            assert!(close(of_a.get(var).unwrap(), of_b.get(var).unwrap())?);
        }
        Ok(())
    }
}

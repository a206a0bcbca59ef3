//! Direct access to the memory of a tensor on an NVIDIA GPU.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::{CpuStorage, CudaStorage, DType, Error, InplaceOp1, Layout, Result, Storage, Tensor};

use super::lock::Access;

/// Copies the elements of `from` into `to`, beginning at element `at`. Both must have the same type and device.
pub(super) fn copy(from: &Tensor, to: &Tensor, at: usize) -> Result<()> {
    fn typed<T: CudaDType + DeviceRepr>(
        from: &CudaStorage,
        to: &mut CudaStorage,
        start: usize,
        at: usize,
        n: usize,
    ) -> Result<()> {
        let stream = to.device().cuda_stream();
        let from = from.as_cuda_slice::<T>()?.slice(start..start + n);
        let mut to = to.as_cuda_slice_mut::<T>()?.slice_mut(at..at + n);
        stream.memcpy_dtod(&from, &mut to).map_err(Error::wrap)
    }
    let (storage, layout) = from.storage_and_layout();
    let Storage::Cuda(from) = &*storage else { return Err(Error::Msg("expected a tensor on a GPU".into())) };
    let (start, n) = (layout.start_offset(), layout.shape().elem_count());
    to.inplace_op1(&CudaAccess(Access::new(|to: &mut CudaStorage, _: &Layout| match to.dtype() {
        DType::F64 => typed::<f64>(from, to, start, at, n),
        DType::BF16 => typed::<half::bf16>(from, to, start, at, n),
        _ => typed::<f32>(from, to, start, at, n),
    })))
}

/// An operation that passes memory on a GPU to a closure, once.
pub(crate) struct CudaAccess<F>(pub(crate) Access<F>);

impl<F: FnOnce(&mut CudaStorage, &Layout) -> Result<()>> InplaceOp1 for CudaAccess<F> {
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

//! Kernels ready to launch: each compiled once for a process and device, and on disk once for a machine.

use std::any::TypeId;
use std::collections::HashMap;
use std::mem::Discriminant;
use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::CudaFunction;
use candle_core::cuda_backend::cudarc::nvrtc::{CompileError, CompileOptions, Ptx, compile_ptx_with_opts};
use candle_core::{DType, Error, Result};

use super::ptx_cache;
use crate::rule::{Decay, Plan};

/// What tells kernels apart, and the device they are loaded on.
type Key = (TypeId, Discriminant<Decay>, DType, DType, candle_core::cuda_backend::DeviceId);

static LOADED: Mutex<Option<HashMap<Key, CudaFunction>>> = Mutex::new(None);

/// The kernel of a plan.
pub(super) fn kernel(device: &CudaDevice, plan: &Plan, dtype: DType, state_dtype: DType) -> Result<CudaFunction> {
    let key = (plan.kernel.rule(), std::mem::discriminant(&plan.decay), dtype, state_dtype, device.id());
    // Held while it is compiled, so that no other thread compiles it too.
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = loaded.get_or_insert_default();
    if let Some(function) = loaded.get(&key) {
        return Ok(function.clone());
    }
    let function = load(device, &plan.cuda_source(dtype, state_dtype)?)?;
    loaded.insert(key, function.clone());
    Ok(function)
}

fn load(device: &CudaDevice, source: &str) -> Result<CudaFunction> {
    let context = device.cuda_stream().context().clone();
    let (major, minor) = context.compute_capability().map_err(Error::wrap)?;
    let architecture = format!("--gpu-architecture=compute_{major}{minor}");
    let key = format!("// {architecture}\n{source}");
    let folder = ptx_cache::folder();
    let function = |ptx: String| {
        let module = context.load_module(Ptx::from_src(ptx))?;
        module.load_function("optimizer_step")
    };

    // What the driver refuses, though it was read whole, was compiled for a newer one.
    let kept = folder.as_deref().and_then(|folder| ptx_cache::read(folder, &key));
    if let Some(function) = kept.and_then(|ptx| function(ptx).ok()) {
        return Ok(function);
    }
    let ptx = compile(source, architecture)?;
    if let Some(folder) = folder {
        let _ = ptx_cache::write(&folder, &key, &ptx);
    }
    function(ptx).map_err(Error::wrap)
}

/// Without multiply-adds that round once, as on the CPU.
fn compile(source: &str, architecture: String) -> Result<String> {
    let options = CompileOptions { fmad: Some(false), options: vec![architecture], ..Default::default() };
    match compile_ptx_with_opts(source, options) {
        Ok(ptx) => Ok(ptx.to_src()),
        Err(CompileError::CompileError { log, .. }) => {
            Err(Error::Msg(format!("NVRTC does not compile the optimizer's kernel: {}", log.to_string_lossy())))
        }
        Err(error) => Err(Error::wrap(error)),
    }
}

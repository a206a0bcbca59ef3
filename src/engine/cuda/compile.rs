//! Kernels ready to launch. Each is loaded once per process and device. A disk cache avoids compiling it in every
//! process.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{CudaFunction, CudaModule};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileError, CompileOptions, Ptx, compile_ptx_with_opts};
use candle_core::cuda_backend::{CudaDevice, DeviceId};
use candle_core::{DType, Error, Result};

use super::{ptx_cache, source};
use crate::rule::Rule;

/// What distinguishes the kernels of a rule, and the device they are loaded on.
type Key = (TypeId, u32, DType, Vec<DType>, DeviceId);

static LOADED: Mutex<Option<HashMap<Key, Kernels>>> = Mutex::new(None);

/// The kernels of a rule with its flags, of one type of variables and their state.
#[derive(Clone)]
pub(super) struct Kernels(Arc<CudaModule>);

impl Kernels {
    pub(super) fn get(&self, name: &str) -> Result<CudaFunction> {
        self.0.load_function(name).map_err(Error::wrap)
    }
}

/// The kernels of a rule.
pub(super) fn kernels<K: Rule<f64>>(
    device: &CudaDevice,
    k: &K,
    dtype: DType,
    state_dtypes: &[DType],
) -> Result<Kernels> {
    let key = (TypeId::of::<K>(), k.flags(), dtype, state_dtypes.to_vec(), device.id());
    // The lock is held during compilation, so that no other thread compiles the same kernel.
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = loaded.get_or_insert_default();
    if let Some(kernels) = loaded.get(&key) {
        return Ok(kernels.clone());
    }
    let kernels = Kernels(load(device, &source(k, dtype, state_dtypes)?)?);
    loaded.insert(key, kernels.clone());
    Ok(kernels)
}

fn load(device: &CudaDevice, source: &str) -> Result<Arc<CudaModule>> {
    let context = device.cuda_stream().context().clone();
    let (major, minor) = context.compute_capability().map_err(Error::wrap)?;
    let architecture = format!("--gpu-architecture=compute_{major}{minor}");
    let key = format!("// {architecture}\n{source}");
    let folder = ptx_cache::folder();

    // The driver refuses an undamaged entry if it was compiled for a newer driver. It is then compiled again.
    let cached = folder.as_deref().and_then(|folder| ptx_cache::read(folder, &key));
    if let Some(module) = cached.and_then(|ptx| context.load_module(Ptx::from_src(ptx)).ok()) {
        return Ok(module);
    }
    let ptx = compile(source, architecture)?;
    if let Some(folder) = folder {
        let _ = ptx_cache::write(&folder, &key, &ptx);
    }
    context.load_module(Ptx::from_src(ptx)).map_err(Error::wrap)
}

/// Compiles without fused multiply-adds, which would round differently from the CPU.
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

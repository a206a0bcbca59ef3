//! How fast each optimizer steps on this machine, next to what its memory allows.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use serde::Serialize;

use crate::Spec;

/// What to step.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Parameters in all.
    pub parameters: usize,
    /// Tensors they are spread over, evenly.
    pub tensors: usize,
    /// Their type.
    pub dtype: DType,
    /// Type of the state; none for the usual one.
    pub state_dtype: Option<DType>,
    /// Where they lie.
    pub device: Device,
}

/// One optimizer measured.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// Its spec, as given.
    pub optimizer: String,
    /// Median time of a step, in microseconds.
    pub microseconds: f64,
    /// Bytes a step must read and write, in 10⁹ per second.
    pub gigabytes_per_second: f64,
    /// The same as a share of [`memory_bandwidth`].
    pub share_of_bandwidth: f64,
    /// Bytes of state for each parameter.
    pub state_bytes_per_parameter: usize,
}

/// Measures a step of the optimizer of `spec`; `bandwidth` is what [`memory_bandwidth`] found for the device.
pub fn measure(spec: &Spec, workload: &Workload, bandwidth: f64) -> Result<Measurement> {
    let Workload { parameters, tensors, dtype, device, .. } = workload;
    ensure!(parameters >= tensors, "--parameters is {parameters}, but must be at least --tensors, {tensors}");
    let size = parameters / tensors;
    let vars: Vec<Var> = (0..*tensors).map(|_| Var::zeros(size, *dtype, device)).collect::<candle_core::Result<_>>()?;
    let grads = gradients(&vars)?;
    let mut optimizer = spec.build_with(vars, workload.state_dtype)?;
    let median = median_time(|| {
        optimizer.step(&grads)?;
        device.synchronize()
    })?;

    let parameter = dtype.size_in_bytes();
    let state_bytes_per_parameter = spec.state_bytes(*dtype, workload.state_dtype);
    // Parameter and state are read and written, the gradient is read.
    let bytes = (size * tensors) as f64 * (3 * parameter + 2 * state_bytes_per_parameter) as f64;
    let gigabytes_per_second = bytes / median / 1e9;
    Ok(Measurement {
        optimizer: spec.to_string(),
        microseconds: median * 1e6,
        gigabytes_per_second,
        share_of_bandwidth: gigabytes_per_second / bandwidth,
        state_bytes_per_parameter,
    })
}

/// A gradient of ones for each variable.
fn gradients(vars: &[Var]) -> Result<GradStore> {
    let mut grads = Tensor::zeros((), DType::F32, &Device::Cpu)?.backward()?;
    for var in vars {
        let ones = Tensor::ones(var.shape(), var.dtype(), &Device::Cpu)?;
        grads.insert(var, ones.to_device(var.device())?);
    }
    Ok(grads)
}

/// Bytes in 10⁹ per second that a pass over memory can reach at best: what a plain loop over some `bytes` bytes reads and
/// writes, `y += a·x` on all threads of the CPU, on another device a copy.
pub fn memory_bandwidth(bytes: usize, device: &Device) -> Result<f64> {
    const GRAIN: usize = 1 << 16;
    let n = (bytes / 12).max(1);
    if !device.is_cpu() {
        let x = Tensor::zeros(n, DType::F32, device)?;
        let median = median_time(|| {
            x.copy()?;
            device.synchronize()
        })?;
        return Ok((n * 8) as f64 / median / 1e9);
    }
    let (x, mut y) = (vec![1f32; n], vec![0f32; n]);
    let median = median_time(|| {
        y.par_chunks_mut(GRAIN).zip(x.par_chunks(GRAIN)).for_each(|(y, x)| Arch::new().dispatch(AddScaled { x, y }));
        Ok(())
    })?;
    Ok((n * 12) as f64 / median / 1e9)
}

struct AddScaled<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for AddScaled<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (y, x) in self.y.iter_mut().zip(self.x) {
            *y += 0.5 * x;
        }
    }
}

/// The median time of a call in seconds, of at least five and of as many as fit into half a second.
fn median_time(mut call: impl FnMut() -> candle_core::Result<()>) -> Result<f64> {
    const LEAST: usize = 5;
    const MOST: usize = 100_000;
    const TIME: Duration = Duration::from_millis(500);
    call()?;
    let begin = Instant::now();
    let mut times = vec![];
    while times.len() < LEAST || begin.elapsed() < TIME && times.len() < MOST {
        let start = Instant::now();
        call()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

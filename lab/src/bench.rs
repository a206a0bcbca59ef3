//! How fast each optimizer steps on this machine, next to what its memory allows.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_optim::Spec;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use serde::Serialize;

use super::optimizer::{Stepper, Storage, state_bytes};
use super::twins::twin;

/// What to step.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Parameters in all.
    pub parameters: usize,
    /// Tensors of equal size that hold them.
    pub tensors: usize,
    /// Number type of the parameters.
    pub dtype: DType,
    /// Number type of the state; none for the default.
    pub state_dtype: Option<DType>,
    /// The device of the tensors.
    pub device: Device,
}

/// One optimizer measured.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// Its spec, as given.
    pub optimizer: String,
    /// Median time of a step, in microseconds.
    pub microseconds: f64,
    /// Bytes that a step must read and write per second, in 10⁹.
    pub gigabytes_per_second: f64,
    /// The same for `y += a·x` over as many bytes (on a GPU, for a copy), measured alternately with the steps.
    pub plain_gigabytes_per_second: f64,
    /// `gigabytes_per_second` as a share of `plain_gigabytes_per_second`.
    pub share_of_plain: f64,
    /// Bytes of state for each parameter.
    pub state_bytes_per_parameter: f64,
}

/// Whether a step computes the loss again, so that it has no time of its own.
pub fn evaluates(spec: &Spec) -> bool {
    spec.method().chain().iter().any(|algorithm| algorithm.evaluates())
}

/// Checks before any work that the optimizer of `spec` can be measured.
///
/// # Errors
/// More tensors than parameters, or an optimizer that computes the loss again.
pub fn check(spec: &Spec, workload: &Workload) -> Result<()> {
    let Workload { parameters, tensors, .. } = workload;
    ensure!(parameters >= tensors, "--parameters is {parameters}, but must be at least --tensors, {tensors}");
    ensure!(
        !evaluates(spec),
        "--optimizer '{}': its step computes the loss again, which would be measured too; allowed: optimizers that step from \
         gradients alone",
        spec.text()
    );
    Ok(())
}

/// Bytes of main memory that [`measure`] takes at once.
pub fn bytes_needed(spec: &Spec, workload: &Workload) -> Result<f64> {
    let Workload { parameters, tensors, dtype, ref device, .. } = *workload;
    let size = parameters / tensors;
    let (all, dtype) = (parameters as f64, dtype.size_in_bytes() as f64);
    if !device.is_cpu() {
        // Only a gradient on its way to the device takes main memory.
        return Ok(size as f64 * dtype);
    }
    let state = tensors as f64 * state_bytes(spec, &dims(spec, size), workload.dtype, workload.state_dtype);
    // The variables and their gradients, the state, and the two vectors of the plain pass.
    Ok(2. * all * dtype + state + (3. * all * dtype + 2. * state) * 8. / 12.)
}

/// Measures a step of the optimizer of `spec`, which has passed [`check`].
pub fn measure(spec: &Spec, workload: &Workload) -> Result<Measurement> {
    let Workload { parameters, tensors, dtype, device, .. } = workload;
    let size = parameters / tensors;
    let dims = dims(spec, size);
    // A group sorts its variables by name: the numbers preserve their order in memory.
    let var = |i: usize| Ok((format!("{i:09}"), Var::zeros(&dims[..], *dtype, device)?));
    let vars: Vec<_> = (0..*tensors).map(var).collect::<candle_core::Result<_>>()?;
    let grads = gradients(vars.iter().map(|(_, var)| var))?;
    let storage = Storage { state_dtype: workload.state_dtype, ..Storage::default() };
    let mut optimizer = Stepper::new(spec, vars, storage).with_context(|| format!("--optimizer '{}'", spec.text()))?;
    let step = || {
        optimizer.step_down(&grads)?;
        device.synchronize()
    };

    let state = state_bytes(spec, &dims, *dtype, workload.state_dtype);
    // Parameters and state are read and written; the gradient is read.
    let bytes = tensors * (size * 3 * dtype.size_in_bytes() + 2 * state as usize);
    let [time, plain_time] = median_times([Box::new(step), plain_pass(bytes, device)?])?;
    let gigabytes_per_second = |time: f64| bytes as f64 / time / 1e9;
    Ok(Measurement {
        optimizer: spec.text().into(),
        microseconds: time * 1e6,
        gigabytes_per_second: gigabytes_per_second(time),
        plain_gigabytes_per_second: gigabytes_per_second(plain_time),
        share_of_plain: plain_time / time,
        state_bytes_per_parameter: state / size as f64,
    })
}

/// The dimensions of variables of `size` elements: a vector, or for a method that may treat a matrix as a whole, the
/// matrix that is nearest to a square.
fn dims(spec: &Spec, size: usize) -> Vec<usize> {
    if spec.method().chain().iter().all(|algorithm| algorithm.kernel().is_some()) || twin(spec).is_some() {
        return vec![size];
    }
    let rows = (1..=size.isqrt()).rev().find(|rows| size.is_multiple_of(*rows)).unwrap_or(1);
    vec![rows, size / rows]
}

/// A gradient of ones for each variable.
fn gradients<'a>(vars: impl Iterator<Item = &'a Var>) -> Result<GradStore> {
    let mut grads = Tensor::zeros((), DType::F32, &Device::Cpu)?.backward()?;
    for var in vars {
        let ones = Tensor::ones(var.shape(), var.dtype(), &Device::Cpu)?;
        grads.insert(var, ones.to_device(var.device())?);
    }
    Ok(grads)
}

/// Something to time.
type Call<'a> = Box<dyn FnMut() -> candle_core::Result<()> + 'a>;

/// A plain pass over memory that reads and writes `bytes` bytes: `y += a·x` on all threads of the CPU, or a copy on
/// another device.
fn plain_pass(bytes: usize, device: &Device) -> Result<Call<'_>> {
    if !device.is_cpu() {
        let x = Tensor::zeros((bytes / 8).max(1), DType::F32, device)?;
        return Ok(Box::new(move || {
            x.copy()?;
            device.synchronize()
        }));
    }
    let n = (bytes / 12).max(1);
    let (x, mut y) = (vec![1f32; n], vec![0f32; n]);
    let add = |(y, x): (&mut [f32], &[f32])| Arch::new().dispatch(AddScaled { x, y });
    Ok(Box::new(move || {
        // A single piece is not worth another thread; a step follows the same rule.
        if n <= GRAIN {
            add((&mut y, &x));
        } else {
            y.par_chunks_mut(GRAIN).zip(x.par_chunks(GRAIN)).for_each(add);
        }
        Ok(())
    }))
}

/// Numbers that a thread takes from memory at a time.
const GRAIN: usize = 1 << 16;

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

/// The median times of two calls in seconds. Rounds of the two calls alternate, so that a busy moment of the machine
/// does not affect only one call; within a round, each call finds the caches as its previous call left them.
fn median_times(mut calls: [Call; 2]) -> Result<[f64; 2]> {
    const ROUNDS: usize = 5;
    const ROUND: Duration = Duration::from_millis(50);
    const MOST: usize = 20_000;
    let mut times = [vec![], vec![]];
    for _ in 0..ROUNDS {
        for (call, times) in calls.iter_mut().zip(&mut times) {
            call()?;
            let begin = Instant::now();
            for _ in 0..MOST {
                let start = Instant::now();
                call()?;
                times.push(start.elapsed().as_secs_f64());
                if begin.elapsed() > ROUND {
                    break;
                }
            }
        }
    }
    Ok(times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }))
}

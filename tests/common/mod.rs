//! What several test files share. Each is a program of its own and uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_optim::Spec;
use candle_optim::params::Value;
use candle_optim::rules::{Entry, REGISTRY};
use rand::{SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, StandardNormal};

/// Types of parameters, and of state where they allow a choice.
pub const TYPES: [(DType, Option<DType>); 7] = [
    (DType::F64, None),
    (DType::F32, None),
    (DType::F32, Some(DType::BF16)),
    (DType::F16, None),
    (DType::F16, Some(DType::BF16)),
    (DType::BF16, None),
    (DType::BF16, Some(DType::BF16)),
];

/// A file of the repository, which may lie elsewhere than where the test was built. The package may be any in it.
pub fn path(relative: &str) -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let package = package.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let root = package.ancestors().find(|folder| folder.join("tests/fixtures").is_dir());
    root.unwrap_or(&package).join(relative)
}

/// The tensors of `tests/fixtures/NAME.safetensors`, by key.
pub fn fixture(name: &str) -> BTreeMap<String, Tensor> {
    let file = path("tests/fixtures").join(format!("{name}.safetensors"));
    match candle_core::safetensors::load(&file, &Device::Cpu) {
        Ok(tensors) => tensors.into_iter().collect(),
        Err(error) => panic!("no fixture {name}.safetensors ({error}); see tests/fixtures/README.md to make it"),
    }
}

/// Where tests step parameters: on the CPU, or where the variable TEST_DEVICE says `cuda`, on the first GPU.
pub fn device() -> &'static Device {
    static DEVICE: LazyLock<Device> = LazyLock::new(|| match std::env::var("TEST_DEVICE").as_deref() {
        Ok("cuda") => Device::new_cuda(0).unwrap(),
        Ok(other) => panic!("TEST_DEVICE is {other}; allowed: cuda"),
        Err(_) => Device::Cpu,
    });
    &DEVICE
}

/// All elements, exactly.
pub fn floats(tensor: &Tensor) -> Vec<f64> {
    let here = tensor.to_device(&Device::Cpu).unwrap();
    here.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// All elements of a tensor of whole numbers.
pub fn indices(tensor: &Tensor) -> Vec<usize> {
    tensor.to_vec1::<i64>().unwrap().into_iter().map(|i| usize::try_from(i).unwrap()).collect()
}

/// All elements to the bit: tells -0 from 0 and a NaN from none. Every type widens to f64 without loss.
pub fn bits(tensor: &Tensor) -> Vec<u64> {
    floats(tensor).into_iter().map(f64::to_bits).collect()
}

/// Standard normal numbers.
pub fn normals(seed: u64, n: usize) -> Vec<f64> {
    StandardNormal.sample_iter(StdRng::seed_from_u64(seed)).take(n).collect()
}

/// The largest magnitude; infinite if any is NaN, which `f64::max` would drop.
pub fn largest(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(0., |most, x| if x.is_nan() { f64::INFINITY } else { x.abs().max(most) })
}

pub fn tensor(values: &[f64], dtype: DType) -> Tensor {
    let here = Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    here.to_device(device()).unwrap()
}

pub fn var(values: &[f64], dtype: DType) -> Var {
    Var::from_tensor(&tensor(values, dtype)).unwrap()
}

/// Gradients as `backward` hands them out; a variable that is not listed has none.
pub fn gradients<'a>(pairs: impl IntoIterator<Item = (&'a Var, Tensor)>) -> GradStore {
    let mut store = Tensor::zeros((), DType::F32, &Device::Cpu).unwrap().backward().unwrap();
    for (var, gradient) in pairs {
        store.insert(var, gradient);
    }
    store
}

pub fn spec(text: &str) -> Spec {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The value of a hyperparameter that is a number; zero where the optimizer has none of this name.
pub fn number(spec: &Spec, key: &str) -> f64 {
    match spec.params().get(key) {
        Some(Value::Real(x)) => x,
        _ => 0.,
    }
}

/// The registered optimizers of this crate; the others are Candle's own.
pub fn ours() -> impl Iterator<Item = &'static Entry> {
    REGISTRY.iter().filter(|entry| !entry.name.starts_with("candle-"))
}

/// The specs of the oracle, which stand in its keys: several of each of our optimizers, and all their flags.
pub fn our_specs() -> Vec<Spec> {
    let keys = ours().flat_map(|entry| fixture(&format!("oracle_{}", entry.name)).into_keys());
    keys.filter_map(|key| key.strip_suffix("|p").map(spec)).collect()
}

/// Those, and Candle's optimizers at their defaults.
pub fn all_specs() -> Vec<Spec> {
    let candles = REGISTRY.iter().map(|entry| entry.name).filter(|name| name.starts_with("candle-"));
    our_specs().into_iter().chain(candles.map(spec)).collect()
}

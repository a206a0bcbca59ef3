//! What several test files share. Each is a program of its own and uses a part of it.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::LazyLock;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_optim::hyper::Value;
use candle_optim::{Algorithm, Error, Group, NamedVars, Optim, Outcome, Registry, Spec};
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

/// The names of an optimizer's oracles: `oracle_NAME`, fed one variable, and `oracle/PACKAGE/NAME`, fed several.
pub fn oracles(name: &str) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(path("tests/fixtures/oracle")).unwrap();
    let packages = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = packages.map(|package| format!("oracle/{package}/{name}")).collect();
    files.sort();
    files.insert(0, format!("oracle_{name}"));
    files.into_iter().filter(|file| path("tests/fixtures").join(format!("{file}.safetensors")).is_file())
}

/// Where tests step parameters: on the CPU, or where the variable TEST_DEVICE says `cuda`, on the first GPU. `mock` is a
/// GPU that runs the engine's kernels alone, and none of Candle's.
pub fn device() -> &'static Device {
    static DEVICE: LazyLock<Device> = LazyLock::new(|| match std::env::var("TEST_DEVICE").as_deref() {
        Ok("cuda" | "mock") => Device::new_cuda(0).unwrap(),
        Ok(other) => panic!("TEST_DEVICE is {other}; allowed: cuda, mock"),
        Err(_) => Device::Cpu,
    });
    &DEVICE
}

/// Whether `device` can run an optimizer.
pub fn runs_here(spec: &Spec) -> bool {
    std::env::var("TEST_DEVICE").as_deref() != Ok("mock") || has_kernel(spec)
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

/// All elements of several tensors to the bit.
pub fn all_bits(vars: &[Var]) -> Vec<Vec<u64>> {
    vars.iter().map(|var| bits(var)).collect()
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

/// A variable of its own with the same value.
pub fn copy(var: &Tensor) -> Var {
    Var::from_tensor(&var.detach().copy().unwrap()).unwrap()
}

/// Gradients as `backward` hands them out; a variable that is not listed has none.
pub fn gradients<'a>(pairs: impl IntoIterator<Item = (&'a Var, Tensor)>) -> GradStore {
    let mut store = GradStore::default();
    for (var, gradient) in pairs {
        store.insert(var, gradient);
    }
    store
}

/// Variables with these names.
pub fn named(vars: &[(&str, &Var)]) -> NamedVars {
    vars.iter().map(|(name, var)| (name.to_string(), (*var).clone())).collect::<Vec<_>>().into()
}

/// An optimizer of one group, whose variables have their positions as names.
pub fn optim<'a>(spec: &Spec, vars: impl IntoIterator<Item = &'a Var>) -> Optim {
    optim_with(spec, vars, None)
}

/// An optimizer of one group with this type of state.
pub fn optim_with<'a>(spec: &Spec, vars: impl IntoIterator<Item = &'a Var>, state: Option<DType>) -> Optim {
    let mut group = Group::new(NamedVars::numbered(vars.into_iter().cloned()), spec.clone());
    if let Some(dtype) = state {
        group = group.state_dtype(dtype);
    }
    Optim::new(vec![group]).unwrap_or_else(|error| panic!("{}: {error}", spec.text()))
}

/// Whether a step of the optimizer computes the loss again.
pub fn evaluates(optim: &Optim) -> bool {
    optim.groups().iter().flat_map(|group| group.method().chain()).any(|algorithm| algorithm.evaluates())
}

/// A step along these gradients, whatever the method: one that computes the loss again gets Σ g·p, whose gradient is g at
/// every p.
pub fn step<'a>(optim: &mut Optim, pairs: impl IntoIterator<Item = (&'a Var, Tensor)>) -> Result<Outcome, Error> {
    if !evaluates(optim) {
        return optim.step(&gradients(pairs));
    }
    let pairs: Vec<_> = pairs.into_iter().collect();
    let sum = || {
        let terms = pairs.iter().map(|(p, g)| (p.as_tensor() * g)?.sum_all()?.to_dtype(DType::F64));
        terms.sum_all()
    };
    Ok(optim.step_with(sum)?.1)
}

/// The sum of some losses.
pub trait SumAll {
    fn sum_all(self) -> candle_core::Result<Tensor>;
}

impl<I: Iterator<Item = candle_core::Result<Tensor>>> SumAll for I {
    fn sum_all(mut self) -> candle_core::Result<Tensor> {
        self.try_fold(Tensor::zeros((), DType::F64, device())?, |sum, term| sum + term?)
    }
}

/// The state of an optimizer to the bit, with types and shapes.
pub fn state(optim: &Optim) -> BTreeMap<String, (DType, Vec<usize>, Vec<u64>)> {
    let describe = |(key, tensor): (String, Tensor)| (key, (tensor.dtype(), tensor.dims().to_vec(), bits(&tensor)));
    optim.state_dict().unwrap().into_iter().map(describe).collect()
}

pub fn spec(text: &str) -> Spec {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The algorithms of a spec, in the order in which they run.
pub fn chain(spec: &Spec) -> &[Box<dyn Algorithm>] {
    spec.method().chain()
}

/// The value of a hyperparameter that is a number; zero where the optimizer has none of this name.
pub fn number(spec: &Spec, key: &str) -> f64 {
    let field = chain(spec).iter().find_map(|algorithm| algorithm.field(key));
    field.and_then(|field| field.value.number()).unwrap_or(0.)
}

/// Whether the engine steps it, by a kernel on a GPU.
pub fn has_kernel(spec: &Spec) -> bool {
    chain(spec).iter().all(|algorithm| algorithm.kernel().is_some())
}

/// Whether an element's step depends on no other element.
pub fn elementwise(spec: &Spec) -> bool {
    chain(spec).iter().all(|algorithm| algorithm.kernel().is_some_and(|kernel| !kernel.has_sums()))
}

/// Whether it steps variables of this shape.
pub fn accepts(spec: &Spec, dims: &[usize]) -> bool {
    let p = Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    chain(spec).iter().all(|algorithm| algorithm.accepts(&p).is_ok())
}

/// A shape of `n` elements that the optimizer steps: a vector, or else a matrix of `rows` rows.
pub fn shape(spec: &Spec, n: usize, rows: usize) -> Vec<usize> {
    if accepts(spec, &[n]) { vec![n] } else { vec![rows, n / rows] }
}

/// The specs of an optimizer's oracle, which stand in its keys, and together set all its flags. One without an oracle has
/// its default, and one for each flag and word.
pub fn specs_of(algorithm: &dyn Algorithm) -> Vec<Spec> {
    let name = algorithm.name();
    let is_spec = |part: &&str| part.split(':').next() == Some(name);
    let keys = oracles(name).flat_map(|file| fixture(&file).into_keys());
    let mut texts: BTreeSet<String> = keys.filter_map(|key| key.split('|').find(is_spec).map(str::to_string)).collect();
    if texts.is_empty() {
        texts.insert(name.into());
        for field in algorithm.fields() {
            let others = others(field.value, field.words);
            texts.extend(others.iter().map(|value| format!("{name}:{}={value}", field.key)));
        }
    }
    texts.iter().map(|text| spec(text)).collect()
}

/// The other values of a flag or word.
pub fn others(value: Value, words: &[&'static str]) -> Vec<Value> {
    match value {
        Value::Flag(flag) => vec![Value::Flag(!flag)],
        Value::Word(_) => words.iter().map(|word| Value::Word(word)).filter(|other| *other != value).collect(),
        Value::Number(_) => vec![],
    }
}

/// All specs of all optimizers.
pub fn all_specs() -> Vec<Spec> {
    Registry::default().all().flat_map(|algorithm| specs_of(&*algorithm)).collect()
}

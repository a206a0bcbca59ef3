//! The CUDA source of a rule: its recorded functions, between types, functions and walks that never change.

use candle_core::{DType, Error, Result};

use super::trace::{Part, Traced, trace};
use crate::engine::sums::{BLOCK, LANES};
use crate::rule::{Fields, MAX_STATE, Parts, Rule};

/// The largest number of scalars of a launch: one of the engine, then those of the rule.
pub(super) const MAX_SCALARS: usize = 32;

/// The largest number of variables that one launch steps. Its argument of at most 4 KiB holds no more.
pub(super) const TENSORS: usize = 96;

const NUMBERS: &str = include_str!("kernel/numbers.cu");
const WALK: &str = include_str!("kernel/walk.cu");
const SUMS: &str = include_str!("kernel/sums.cu");
const TOTALS: &str = include_str!("kernel/totals.cu");

/// Whether a rule sets its state before the first step to anything but zero.
pub(super) fn has_init<K: Rule<f64>>(k: &K) -> bool {
    !trace(k, Part::Init).body.is_empty()
}

/// The kernels that step variables of type `dtype` with their state in `state_dtypes`, by the rule with the flags of
/// `k`.
pub(crate) fn source<K: Rule<f64>>(k: &K, dtype: DType, state_dtypes: &[DType]) -> Result<String> {
    let scalars = <K as Parts<f64>>::SCALARS;
    if scalars.len() >= MAX_SCALARS {
        return Err(Error::Msg(format!("a rule has {} scalars; allowed on a GPU: {}", scalars.len(), MAX_SCALARS - 1)));
    }
    let state = k.state_names();
    let (totals, norms) = (names::<K::Totals>(k.has_totals()), names::<K::Norms>(k.has_norms()));
    let real = if dtype == DType::F64 { "double" } else { "float" };
    let mut each_state = String::new();
    for (i, dtype) in state_dtypes.iter().enumerate() {
        each_state += &format!(" F({i}, {})", c_type(*dtype)?);
    }
    let listed = state.iter().zip(state_dtypes).map(|(name, dtype)| format!("{name} ({})", dtype.as_str()));
    let listed = if state.is_empty() { "none".into() } else { listed.collect::<Vec<_>>().join(", ") };

    let reads = |traced: &Traced| {
        let read = |name: &str| traced.reads.iter().any(|read| read == name);
        let mut lines = String::new();
        for (i, name) in state.iter().enumerate().filter(|(_, name)| read(name)) {
            lines += &format!("    const Real {name} = state[{i}];\n");
        }
        for (i, name) in ["grad_scale"].iter().chain(scalars).enumerate().filter(|(_, name)| read(name)) {
            lines += &format!("    const Real {name} = scalars[{i}];\n");
        }
        for (i, name) in totals.iter().chain(norms).enumerate().filter(|(_, name)| read(name)) {
            lines += &format!("    const Real {name} = sums[{i}];\n");
        }
        lines
    };
    let function = |name: &str, part: Part| {
        let arguments = match part {
            Part::Init | Part::Update => "Real& p, Real g, Real (&state)[NAMES], const Real* scalars, const Real* sums",
            _ => "Real p, Real g, const Real (&state)[NAMES], const Real* scalars, const Real* sums, Real* terms",
        };
        let traced = trace(k, part);
        let body: String = traced.body.iter().map(|line| format!("    {line}\n")).collect();
        format!("__device__ __forceinline__ void {name}({arguments}) {{\n{}\n{body}}}\n\n", reads(&traced))
    };

    let mut text = format!(
        "// One step of every variable, of type {dtype}. State: {listed}.\n\
         typedef {real} Real;\n\
         {NUMBERS}\n\
         typedef {param} Param;\n\
         #define STATE(F){each_state}\n\
         constexpr int NAMES = {names}, MAX_STATE = {MAX_STATE};\n\
         constexpr int MAX_SCALARS = {MAX_SCALARS}, TENSORS = {TENSORS};\n\
         constexpr u32 THREADS = {LANES}, BLOCK = {BLOCK}, TOTALS = {}, NORMS = {};\n\n",
        totals.len(),
        norms.len(),
        dtype = dtype.as_str(),
        param = c_type(dtype)?,
        names = state.len().max(1),
    );
    text += &function("update", Part::Update);
    let init = has_init(k);
    if init {
        text += &function("init", Part::Init);
    }
    if !totals.is_empty() {
        text += &function("measure_group", Part::MeasureGroup);
    }
    if !norms.is_empty() {
        text += &function("measure", Part::Measure);
    }
    text += WALK;
    if !totals.is_empty() || !norms.is_empty() {
        text += &format!("\n{SUMS}");
    }
    if !totals.is_empty() {
        text += &format!("\n{TOTALS}");
        text += &kernel("optimizer_measure_group", "Real lanes", "", "measure_block<measure_group, TOTALS>", ", lanes");
    }
    let mut sums = String::new();
    for i in 0..totals.len() {
        sums += &format!("    sums[{i}] = (Real)((const double*)launch.totals)[{i}];\n");
    }
    if !norms.is_empty() {
        text += &kernel("optimizer_measure", "Real lanes", &sums, "measure_block<measure, NORMS>", ", lanes");
    }
    for i in 0..norms.len() {
        let at = totals.len() + i;
        sums += &format!("    sums[{at}] = (Real)sum_of_blocks(launch, mine, NORMS, {i}, lanes);\n");
    }
    let shared = if norms.is_empty() { "" } else { "double lanes" };
    text += &kernel("optimizer_step", shared, &sums, "walk<update, true>", "");
    if init {
        text += &kernel("optimizer_init", "", "", "walk<init, false>", "");
    }
    Ok(text)
}

/// A kernel that prepares the sums and calls a walk.
fn kernel(name: &str, shared: &str, sums: &str, walk: &str, arguments: &str) -> String {
    let shared = if shared.is_empty() { String::new() } else { format!("    __shared__ {shared}[THREADS];\n") };
    format!(
        "\nextern \"C\" __global__ void __launch_bounds__(THREADS) {name}(const __grid_constant__ Launch launch) {{\n\
         {shared}    const u32 mine = tensor_of_block(launch);\n    Real sums[TOTALS + NORMS + 1];\n{sums}    \
         {walk}(launch, mine, sums{arguments});\n}}\n"
    )
}

fn names<F: Fields<f64>>(wanted: bool) -> &'static [&'static str] {
    if wanted { F::NAMES } else { &[] }
}

fn c_type(dtype: DType) -> Result<&'static str> {
    match dtype {
        DType::F32 => Ok("float"),
        DType::F64 => Ok("double"),
        DType::F16 => Ok("f16"),
        DType::BF16 => Ok("bf16"),
        dtype => Err(Error::UnsupportedDTypeForOp(dtype, "optimizer step")),
    }
}

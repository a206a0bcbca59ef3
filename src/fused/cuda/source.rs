//! The CUDA source of a step: the rule as recorded, between types and functions and a walk that never change.

use candle_core::{DType, Error, Result};

use super::trace::Traced;
use crate::rule::{MAX_SCALARS, MAX_STATE};

/// Scalars of a launch: the engine's two, then the rule's.
pub(super) const LAUNCH_SCALARS: usize = MAX_SCALARS + 2;
/// Parameters that one launch steps: as many as its argument, of at most 4 KiB, has room for.
pub(super) const TENSORS: usize = 96;
/// Threads of a block.
pub(super) const THREADS: u32 = 256;
/// Elements of a parameter that one block steps.
pub(super) const BLOCK: usize = 4096;

const NUMBERS: &str = include_str!("kernel/numbers.cu");
const WALK: &str = include_str!("kernel/walk.cu");

/// The kernel that steps parameters of type `dtype` with their state in `state_dtype`.
pub(crate) fn source(traced: &Traced, dtype: DType, state_dtype: DType) -> Result<String> {
    let Traced { state, scalars, body } = traced;
    let real = if dtype == DType::F64 { "double" } else { "float" };
    let (param, kept) = (c_type(dtype)?, c_type(state_dtype)?);
    let (names, room) = (state.len(), state.len().max(1));
    let state_list = if state.is_empty() { "none".into() } else { state.join(", ") };

    let mut read = String::new();
    for (i, name) in state.iter().enumerate() {
        read += &format!("    const Real {name} = state[{i}];\n");
    }
    for (i, name) in scalars.iter().enumerate() {
        read += &format!("    const Real {name} = scalars[{i}];\n");
    }
    let body: String = body.iter().map(|line| format!("    {line}\n")).collect();

    Ok(format!(
        "// One step of every parameter. Parameters: {dtype}; state: {state_list}; state type: {state_dtype}.\n\
         typedef {real} Real;\n\
         {NUMBERS}\n\
         typedef {param} Param;\n\
         typedef {kept} State;\n\
         constexpr int STATE = {names}, NAMES = {room};\n\
         constexpr int MAX_SCALARS = {LAUNCH_SCALARS}, MAX_STATE = {MAX_STATE}, TENSORS = {TENSORS};\n\
         constexpr u32 THREADS = {THREADS}, BLOCK = {BLOCK};\n\n\
         __device__ __forceinline__ void update(Real& p, Real g, Real (&state)[NAMES], const Real* scalars) {{\n\
         {read}\n{body}}}\n\n\
         {WALK}",
        dtype = dtype.as_str(),
        state_dtype = state_dtype.as_str(),
    ))
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

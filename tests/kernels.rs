//! The CUDA source that rules print. That it compiles and steps as the CPU does is for `tests/cuda.rs` and
//! `tests/cuda/nvrtc.py`, which compiles the files written here.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use candle_core::DType;
use common::{TYPES, our_specs, path, spec};

#[test]
fn every_kernel_is_printed() {
    let mut kernels = BTreeSet::new();
    for spec in our_specs() {
        let sources = TYPES.map(|(dtype, state)| spec.cuda_source(dtype, state).unwrap());
        // All differ, but that a rule without state has no type of state.
        let different = sources.iter().collect::<BTreeSet<_>>().len();
        assert_eq!(different, TYPES.len(), "{spec}");
        kernels.extend(sources);
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    for (i, kernel) in kernels.iter().enumerate() {
        std::fs::write(folder.join(format!("{i:03}.cu")), kernel).unwrap();
    }
}

#[test]
fn a_kernel_reads_as_its_equation() {
    let kernel = spec("adamw").cuda_source(DType::F32, None).unwrap();
    let begin = kernel.find("__device__ __forceinline__ void update(").unwrap();
    let update = kernel[begin..].split_inclusive("\n}\n").next().unwrap();
    let file = path("tests/fixtures/adamw.cu");
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    if update != expected {
        let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join("adamw.cu");
        std::fs::write(&new, update).unwrap();
        panic!("{} is not {}; where the change is meant, copy it there", new.display(), file.display());
    }
}

#[test]
fn what_has_no_kernel_says_so() {
    let error = |text: &str, dtype, state| spec(text).cuda_source(dtype, state).unwrap_err().to_string();
    assert!(error("candle-adamw", DType::F32, None).contains("candle-adamw: it is Candle's own"));
    assert!(error("adam", DType::F32, Some(DType::F16)).contains("unknown state type 'f16'"));
    assert!(error("adam", DType::U8, None).contains("unknown state type"));
}

//! The CUDA source that rules print. That it compiles and steps as the CPU does is for `tests/cuda.rs` and
//! `tests/cuda/nvrtc.py`, which compiles the files written here.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use candle_core::DType;
use candle_optim::Method;
use common::{TYPES, all_specs, chain, path, spec};

const DIMS: [usize; 2] = [5, 7];

#[test]
fn every_kernel_is_printed() {
    let mut kernels = BTreeSet::new();
    for spec in all_specs() {
        // A chain is one kernel after another.
        for algorithm in chain(&spec).iter().filter(|algorithm| algorithm.kernel().is_some()) {
            let method = Method::from(algorithm.clone());
            let sources = TYPES.map(|(dtype, state)| method.cuda_source(&DIMS, dtype, state).unwrap());
            let stored = TYPES.map(|(dtype, state)| {
                let types = method.state(&DIMS, dtype, state).into_iter().map(|(_, dtype, _)| dtype.as_str());
                (dtype.as_str(), types.collect::<Vec<_>>())
            });
            let different = [BTreeSet::from(sources.clone()).len(), BTreeSet::from(stored).len()];
            assert_eq!(different[0], different[1], "{}: a kernel for each type of parameters and state", spec.text());
            kernels.extend(sources);
        }
    }
    assert!(kernels.iter().all(|kernel| kernel.contains("optimizer_step")));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    for (i, kernel) in kernels.iter().enumerate() {
        std::fs::write(folder.join(format!("{i:03}.cu")), kernel).unwrap();
    }
}

#[test]
fn a_kernel_reads_as_its_equation() {
    let kernel = spec("adamw").method().cuda_source(&DIMS, DType::F32, None).unwrap();
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
    let error = |spec: &str, dtype, state| {
        common::spec(spec).method().cuda_source(&DIMS, dtype, state).unwrap_err().to_string()
    };
    for spec in all_specs() {
        let whole = chain(&spec).iter().find(|algorithm| algorithm.kernel().is_none());
        if let Some(algorithm) = whole {
            let expected = format!("{}: it has no kernel: it runs on Candle's own operations", algorithm.name());
            assert_eq!(error(spec.text(), DType::F32, None), expected);
        }
    }
    let unknown = error("adam", DType::F32, Some(DType::F16));
    assert!(unknown.contains("unknown state type 'f16'") && unknown.contains("allowed: f32, bf16"), "{unknown}");
    assert!(error("adam", DType::F64, Some(DType::BF16)).contains("unknown state type 'bf16'"));
    assert!(error("adam", DType::U8, None).contains("unsupported dtype U8"));
    assert!(error("adam", DType::U8, Some(DType::F32)).contains("unknown state type 'f32'"));
}

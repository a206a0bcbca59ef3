//! On a GPU every optimizer steps as on the CPU, to the bit. Runs on a GPU, or on the mock of one in `tests/cuda/mock`.
#![cfg(feature = "cuda")]

mod common;

use std::process::Command;
use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor, Var};
use candle_optim::Spec;
use common::{TYPES, bits, gradients, normals, our_specs, spec, tensor};

/// Tensors are made on the CPU, whatever TEST_DEVICE says, and copied.
static GPU: LazyLock<Device> = LazyLock::new(|| Device::new_cuda(0).unwrap());

/// Steps the same parameters on a device; each step has a gradient for some of them. Where they end.
fn run(
    spec: &Spec,
    state: Option<DType>,
    start: &[Tensor],
    steps: &[Vec<Option<Tensor>>],
    device: &Device,
) -> Vec<Vec<u64>> {
    let on = |tensor: &Tensor| tensor.to_device(device).unwrap();
    let vars: Vec<Var> = start.iter().map(|tensor| Var::from_tensor(&on(tensor)).unwrap()).collect();
    let mut optimizer = spec.build_with(vars.clone(), state).unwrap();
    for step in steps {
        let given = vars.iter().zip(step).filter_map(|(var, gradient)| Some((var, on(gradient.as_ref()?))));
        optimizer.step(&gradients(given)).unwrap();
    }
    vars.iter().map(|var| bits(var)).collect()
}

/// Tensors of these sizes.
fn tensors(seed: u64, sizes: &[usize], dtype: DType) -> Vec<Tensor> {
    sizes.iter().enumerate().map(|(i, &n)| tensor(&normals(seed * 1000 + i as u64, n), dtype)).collect()
}

#[test]
fn equal_to_the_cpu_to_the_bit() {
    // Empty, smaller than a vector, up to several blocks, and more tensors than one launch takes.
    let sizes: Vec<usize> =
        [1, 2, 3, 4, 5, 31, 32, 33, 1025, 4095, 4096, 4097, 10_000].into_iter().chain([7; 120]).collect();
    for spec in our_specs() {
        for (dtype, state) in TYPES {
            let start = tensors(0, &sizes, dtype);
            // Gradients go missing, so that parameters are at different steps.
            let steps: Vec<Vec<_>> = (1..=4)
                .map(|step| {
                    let all = tensors(step, &sizes, dtype).into_iter().enumerate();
                    all.map(|(i, gradient)| (step != 2 || i % 3 != 1).then_some(gradient)).collect()
                })
                .collect();
            let [cpu, gpu] = [&Device::Cpu, &*GPU].map(|device| run(&spec, state, &start, &steps, device));
            for ((cpu, gpu), n) in cpu.iter().zip(&gpu).zip(&sizes) {
                assert!(cpu == gpu, "{spec} {dtype:?} {state:?}: {n} elements");
            }
        }
    }
}

#[test]
fn numbers_at_the_edges_of_their_types() {
    let edges =
        [0., -0., 1e-45, 6e-8, 6.1e-5, 65504., 65519.9, 1e38, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1.0009766];
    let values: Vec<f64> = edges.iter().flat_map(|&x| [x, -x, x * 0.7]).collect();
    for text in ["sgd:lr=1", "sgd:lr=0.001,momentum=0.9", "adam:amsgrad=true", "rmsprop:centered=true"] {
        for (dtype, state) in TYPES {
            let start = [tensor(&values, dtype)];
            let steps = [vec![Some(tensor(&[values.as_slice()].concat(), dtype))], vec![Some(tensor(&values, dtype))]];
            let [cpu, gpu] = [&Device::Cpu, &*GPU].map(|device| run(&spec(text), state, &start, &steps, device));
            for ((&cpu, &gpu), x) in cpu[0].iter().zip(&gpu[0]).zip(&values) {
                let [cpu, gpu] = [cpu, gpu].map(f64::from_bits);
                assert!(
                    cpu.to_bits() == gpu.to_bits() || cpu.is_nan() && gpu.is_nan(),
                    "{text} {dtype:?} {state:?} {x:e}: {cpu:e} {gpu:e}"
                );
            }
        }
    }
}

#[test]
fn parameters_on_the_cpu_and_the_gpu_step_together() {
    let (values, gradient) = (tensor(&normals(1, 100), DType::F32), tensor(&normals(2, 100), DType::F32));
    let here = Var::from_tensor(&values).unwrap();
    let there = Var::from_tensor(&values.to_device(&GPU).unwrap()).unwrap();
    let mut optimizer = spec("adamw").build(vec![there.clone(), here.clone()]).unwrap();
    for _ in 0..3 {
        let on_gpu = gradient.to_device(&GPU).unwrap();
        optimizer.step(&gradients([(&here, gradient.clone()), (&there, on_gpu)])).unwrap();
    }
    assert_eq!(bits(&here), bits(&there));
    // A gradient on the other device is an error that changes nothing.
    let error = optimizer.step(&gradients([(&here, gradient.clone()), (&there, gradient)])).unwrap_err().to_string();
    assert!(error.contains("parameter 0") && error.contains("Cuda"), "{error}");
    assert_eq!(bits(&here), bits(&there));
}

#[test]
fn a_gradient_may_begin_anywhere_or_be_a_parameter() {
    let n = 1000;
    let (values, long) = (tensor(&normals(1, n), DType::F32), tensor(&normals(2, n + 3), DType::F32));
    for device in [&Device::Cpu, &*GPU] {
        let [p, long] = [&values, &long].map(|tensor| tensor.to_device(device).unwrap());
        let (p, q) = (Var::from_tensor(&p).unwrap(), Var::from_tensor(&p).unwrap());
        let mut optimizer = spec("adam").build(vec![p.clone(), q.clone()]).unwrap();
        // Not at a multiple of four numbers.
        let offset = long.narrow(0, 3, n).unwrap();
        optimizer.step(&gradients([(&p, offset), (&q, p.as_detached_tensor())])).unwrap();
        let alone = Var::from_tensor(&values).unwrap();
        let exact = tensor(&normals(2, n + 3)[3..], DType::F32);
        spec("adam").build(vec![alone.clone()]).unwrap().step(&gradients([(&alone, exact)])).unwrap();
        assert_eq!(bits(&p), bits(&alone), "{device:?}");
    }
}

#[test]
fn a_thousand_tensors_take_a_few_launches_and_nothing_waits() {
    const STEPS: u64 = 5;
    // The mock counts for a process of its own; a GPU does not count.
    const CHILD: &str = "CANDLE_OPTIM_COUNTED";
    if std::env::var_os(CHILD).is_none() {
        let path = std::env::temp_dir().join(format!("candle-optim-counts-{}", std::process::id()));
        let name = "a_thousand_tensors_take_a_few_launches_and_nothing_waits";
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", name]).env(CHILD, "1").env("MOCK_COUNTS", &path);
        assert!(child.output().unwrap().status.success());
        if let Ok(counts) = std::fs::read_to_string(&path) {
            // 96 parameters a launch.
            std::fs::remove_file(&path).unwrap();
            assert_eq!(counts.trim(), format!("{} 0", STEPS * 11), "launches, and waits of the host");
        }
        return;
    }
    let on_gpu = |seed| -> Vec<Tensor> {
        tensors(seed, &[1000; 1000], DType::F32).iter().map(|tensor| tensor.to_device(&GPU).unwrap()).collect()
    };
    let (start, along) = (on_gpu(0), on_gpu(1));
    let vars: Vec<Var> = start.iter().map(|tensor| Var::from_tensor(tensor).unwrap()).collect();
    let mut optimizer = spec("adamw").build(vars.clone()).unwrap();
    for _ in 0..STEPS {
        optimizer.step(&gradients(vars.iter().zip(along.iter().cloned()))).unwrap();
    }
    // Freeing may wait.
    std::mem::forget((start, along, vars, optimizer));
}

#[test]
fn too_little_memory_for_the_state_is_an_error() {
    let Device::Cuda(device) = &*GPU else { panic!("not a GPU") };
    let (free, _) = device.cuda_stream().context().mem_get_info().unwrap();
    // Room for the parameter and the first of two state tensors.
    let n = free * 45 / 100 / 4;
    let p = Var::from_tensor(&Tensor::zeros(n, DType::F32, &GPU).unwrap()).unwrap();
    for _ in 0..2 {
        let Err(error) = spec("adam").build(vec![p.clone()]) else { panic!("{n} parameters had room") };
        assert!(error.to_string().contains("OUT_OF_MEMORY"), "{error}");
    }
    // What was built in vain has been given back.
    spec("momentum").build(vec![p]).unwrap();
}

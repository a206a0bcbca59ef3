//! On a GPU every optimizer steps as on the CPU, to the bit. Runs on a GPU, or on the mock of one in `tests/cuda/mock`.
#![cfg(feature = "cuda")]

mod common;

use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor, Var};
use candle_optim::Spec;
use common::{bits, gradients, normals, our_specs, spec, tensor};

/// Tensors are made on the CPU, whatever TEST_DEVICE says, and copied.
static GPU: LazyLock<Device> = LazyLock::new(|| Device::new_cuda(0).unwrap());

const TYPES: [(DType, Option<DType>); 7] = [
    (DType::F64, None),
    (DType::F32, None),
    (DType::F32, Some(DType::BF16)),
    (DType::F16, None),
    (DType::F16, Some(DType::BF16)),
    (DType::BF16, None),
    (DType::BF16, Some(DType::BF16)),
];

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

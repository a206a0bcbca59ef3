//! On a GPU every optimizer steps as on the CPU, to the bit. Runs on a GPU, or on the mock of one in `tests/cuda/mock`.
//!
//! Methods of whole tensors compute on Candle's operations, whose sums on a GPU have another order: they are for
//! `tests/oracle.rs` with TEST_DEVICE=cuda.
#![cfg(feature = "cuda")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor, Var};
use candle_optim::{Group, NamedVars, Optim, Spec};
use common::{
    TYPES, all_bits, all_specs, bits, chain, gradients, has_kernel, named, normals, optim, spec, state, tensor,
};

/// Tensors are made on the CPU, whatever TEST_DEVICE says, and copied.
static GPU: LazyLock<Device> = LazyLock::new(|| Device::new_cuda(0).unwrap());

fn on(device: &Device, tensor: &Tensor) -> Tensor {
    tensor.to_device(device).unwrap()
}

/// Tensors of these sizes.
fn tensors(seed: u64, sizes: &[usize], dtype: DType) -> Vec<Tensor> {
    sizes.iter().enumerate().map(|(i, &n)| tensor(&normals(seed * 1000 + i as u64, n), dtype)).collect()
}

/// Where everything is: the variables, their state and the weights to evaluate with.
#[derive(PartialEq)]
struct End {
    vars: Vec<Vec<u64>>,
    state: BTreeMap<String, (DType, Vec<usize>, Vec<u64>)>,
    eval: Vec<Vec<u64>>,
}

fn end(optim: &mut Optim, vars: &[Var]) -> End {
    let (vars_now, state) = (all_bits(vars), state(optim));
    let _eval = optim.eval().unwrap();
    End { vars: vars_now, state, eval: all_bits(vars) }
}

impl End {
    /// The first place where two differ.
    fn differs(&self, other: &Self) -> Option<String> {
        let pairs = self.vars.iter().zip(&other.vars).enumerate().map(|(i, pair)| (format!("variable {i}"), pair));
        let evals = self.eval.iter().zip(&other.eval).enumerate().map(|(i, pair)| (format!("evaluated {i}"), pair));
        let places = pairs.chain(evals).find_map(|(name, (a, b))| {
            let at = a.iter().zip(b).position(|(a, b)| a != b)?;
            Some(format!("{name}[{at}] of {}: {:e} {:e}", a.len(), f64::from_bits(a[at]), f64::from_bits(b[at])))
        });
        places.or_else(|| {
            self.state.iter().find(|(key, value)| other.state.get(*key) != Some(value)).map(|(key, _)| key.clone())
        })
    }
}

/// Steps the same parameters on a device; each step has a gradient for some of them.
fn run(
    spec: &Spec,
    state_dtype: Option<DType>,
    start: &[Tensor],
    steps: &[Vec<Option<Tensor>>],
    device: &Device,
) -> End {
    run_with(|group| state_dtype.into_iter().fold(group, Group::state_dtype), spec, start, steps, device)
}

/// The same with another option of the group.
fn run_with(
    option: impl Fn(Group) -> Group,
    spec: &Spec,
    start: &[Tensor],
    steps: &[Vec<Option<Tensor>>],
    device: &Device,
) -> End {
    let vars: Vec<Var> = start.iter().map(|tensor| Var::from_tensor(&on(device, tensor)).unwrap()).collect();
    let group = Group::new(NamedVars::numbered(vars.iter().cloned()), spec.clone());
    let mut optim = Optim::new(vec![option(group)]).unwrap();
    for step in steps {
        let given = vars.iter().zip(step).filter_map(|(var, gradient)| Some((var, on(device, gradient.as_ref()?))));
        optim.step(&gradients(given)).unwrap();
    }
    end(&mut optim, &vars)
}

fn agree(what: &str, cpu: &End, gpu: &End) {
    assert!(cpu == gpu, "{what}: {}", cpu.differs(gpu).unwrap_or_default());
}

#[test]
fn equal_to_the_cpu_to_the_bit() {
    // Smaller than a vector, up to several blocks, and more tensors than one launch takes.
    let sizes: Vec<usize> =
        [1, 2, 3, 4, 5, 31, 32, 33, 1025, 4095, 4096, 4097, 10_000].into_iter().chain([7; 120]).collect();
    // Specs that differ in numbers alone have one kernel: once is enough.
    let mut kernels = BTreeSet::new();
    for spec in all_specs().iter().filter(|spec| has_kernel(spec)) {
        for (dtype, state_dtype) in TYPES {
            if !kernels.insert(spec.method().cuda_source(&[1], dtype, state_dtype).unwrap()) {
                continue;
            }
            let start = tensors(0, &sizes, dtype);
            // Gradients go missing, so that parameters are at different steps, and one step has none at all.
            let steps: Vec<Vec<_>> = (1..=5)
                .map(|step| {
                    let all = tensors(step, &sizes, dtype).into_iter().enumerate();
                    all.map(|(i, gradient)| (step != 4 && (step != 2 || i % 3 != 1)).then_some(gradient)).collect()
                })
                .collect();
            let [cpu, gpu] = [&Device::Cpu, &*GPU].map(|device| run(spec, state_dtype, &start, &steps, device));
            agree(&format!("{} {dtype:?} {state_dtype:?}", spec.text()), &cpu, &gpu);
        }
    }
}

/// Small, subnormal and large numbers, and more than a block of them.
#[test]
fn variables_are_rounded_stochastically_as_on_the_cpu() {
    for spec in ["sgd", "adamw", "lamb", "schedulefreesgd"].map(spec) {
        for dtype in [DType::F16, DType::BF16] {
            let scales = [1e-30, 1e-8, 1e-6, 1e-4, 1., 1e4, 6e4].into_iter().cycle();
            let values: Vec<f64> = normals(3, 5000).into_iter().zip(scales).map(|(x, scale)| x * scale).collect();
            let start = [tensor(&values, dtype), tensor(&values[..3], dtype)];
            let step =
                |seed| start.each_ref().map(|start| Some(tensor(&normals(seed, start.elem_count()), dtype))).into();
            let steps = [1, 2, 3].map(step);
            let [cpu, gpu] = [&Device::Cpu, &*GPU]
                .map(|device| run_with(|group| group.stochastic_rounding(true), &spec, &start, &steps, device));
            agree(&format!("{} {dtype:?}", spec.text()), &cpu, &gpu);
        }
    }
}

/// More blocks than a sum has lanes, and more tensors than a block has threads.
#[test]
fn sums_of_many_blocks_and_tensors() {
    let has_sums = |spec: &&Spec| has_kernel(spec) && !common::elementwise(spec);
    let specs = all_specs();
    let first_of = |name: &str| specs.iter().filter(has_sums).find(|spec| chain(spec)[0].name() == name);
    let names: std::collections::BTreeSet<&str> = specs.iter().map(|spec| chain(spec)[0].name()).collect();
    for spec in names.into_iter().filter_map(first_of) {
        for sizes in [vec![300 * 4096 + 5, 3, 70_000], vec![5; 1000]] {
            let start = tensors(0, &sizes, DType::F32);
            let steps: Vec<Vec<_>> =
                (1..=2).map(|step| tensors(step, &sizes, DType::F32).into_iter().map(Some).collect()).collect();
            let [cpu, gpu] = [&Device::Cpu, &*GPU].map(|device| run(spec, None, &start, &steps, device));
            agree(spec.text(), &cpu, &gpu);
        }
    }
}

/// The order of the variables and who steps beside them change no bit of a sum.
#[test]
fn the_order_of_variables_changes_no_bit() {
    const SIZES: [usize; 5] = [1, 4095, 4096, 4097, 30_000];
    for spec in all_specs().iter().filter(|spec| has_kernel(spec) && !common::elementwise(spec)) {
        let ends = [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]].map(|order| {
            let vars: Vec<Var> = tensors(0, &SIZES, DType::F32)
                .iter()
                .map(|start| Var::from_tensor(&on(&GPU, start)).unwrap())
                .collect();
            let ordered: Vec<Var> = order.iter().map(|at| vars[*at].clone()).collect();
            let mut optim = optim(spec, &ordered);
            for step in 1..=3 {
                let along = tensors(step, &SIZES, DType::F32);
                optim.step(&gradients(vars.iter().zip(along.iter().map(|g| on(&GPU, g))))).unwrap();
            }
            all_bits(&vars)
        });
        assert!(ends[0] == ends[1] && ends[0] == ends[2], "{}", spec.text());
    }
}

#[test]
fn numbers_at_the_edges_of_their_types() {
    let edges =
        [0., -0., 1e-45, 6e-8, 6.1e-5, 65504., 65519.9, 1e38, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1.0009766];
    let values: Vec<f64> = edges.iter().flat_map(|&x| [x, -x, x * 0.7]).collect();
    for spec in all_specs().iter().filter(|spec| common::elementwise(spec)) {
        for (dtype, state_dtype) in TYPES {
            let start = [tensor(&values, dtype)];
            let steps = [vec![Some(tensor(&values, dtype))], vec![Some(tensor(&values, dtype))]];
            let [cpu, gpu] = [&Device::Cpu, &*GPU].map(|device| run(spec, state_dtype, &start, &steps, device));
            for ((&cpu, &gpu), x) in cpu.vars[0].iter().zip(&gpu.vars[0]).zip(&values) {
                let [cpu, gpu] = [cpu, gpu].map(f64::from_bits);
                assert!(
                    cpu.to_bits() == gpu.to_bits() || cpu.is_nan() && gpu.is_nan(),
                    "{} {dtype:?} {state_dtype:?} {x:e}: {cpu:e} {gpu:e}",
                    spec.text()
                );
            }
        }
    }
}

/// Clipped, maximized, scheduled, in groups: what the engine adds to a rule.
#[test]
fn groups_with_everything() {
    let sizes = [33, 4097, 7, 130];
    let ends = [&Device::Cpu, &*GPU].map(|device| {
        let start = tensors(0, &sizes, DType::F32);
        let vars: Vec<Var> = start.iter().map(|tensor| Var::from_tensor(&on(device, tensor)).unwrap()).collect();
        let group = |var: usize, text: &str| Group::new(named(&[(&var.to_string(), &vars[var])]), spec(text));
        let mut optim = Optim::new(vec![
            group(0, "adamw:caution=true").then(candle_optim::ParamsEma { decay: 0.9 }),
            group(1, "lamb").state_dtype(DType::BF16),
            group(2, "prodigy:d0=0.01").maximize(true),
            group(3, "schedulefreesgd:lr=0.1"),
        ])
        .unwrap()
        .schedule(|base: f64, step: u64| base / (1 + step) as f64);
        for step in 1..=4 {
            let along = tensors(step, &sizes, DType::F32);
            optim.step(&gradients(vars.iter().zip(along.iter().map(|g| on(device, g))))).unwrap();
        }
        end(&mut optim, &vars)
    });
    agree("groups", &ends[0], &ends[1]);
}

/// Saved on one device and loaded on the other.
#[test]
fn checkpoints_go_from_device_to_device() {
    let sizes = [33, 4097];
    let file =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("devices-{}.safetensors", std::process::id()));
    let make = |spec: &Spec, state_dtype, start: &[Tensor], device: &Device| {
        let vars: Vec<Var> = start.iter().map(|tensor| Var::from_tensor(&on(device, tensor)).unwrap()).collect();
        let optim = common::optim_with(spec, &vars, state_dtype);
        (vars, optim)
    };
    let train = |vars: &[Var], optim: &mut Optim, steps: std::ops::Range<u64>| {
        for step in steps {
            let along = tensors(step, &sizes, DType::F32);
            optim.step(&gradients(vars.iter().zip(along.iter().map(|g| on(vars[0].device(), g))))).unwrap();
        }
    };
    for spec in all_specs().iter().filter(|spec| has_kernel(spec)) {
        for state_dtype in [None, Some(DType::BF16)] {
            for (from, to) in [(&Device::Cpu, &*GPU), (&*GPU, &Device::Cpu)] {
                let (vars, mut optim) = make(spec, state_dtype, &tensors(0, &sizes, DType::F32), from);
                train(&vars, &mut optim, 1..3);
                optim.save(&file).unwrap();
                let now: Vec<Tensor> = vars.iter().map(|var| on(&Device::Cpu, var)).collect();
                let (others, mut resumed) = make(spec, state_dtype, &now, to);
                resumed.load(&file).unwrap();
                train(&vars, &mut optim, 3..5);
                train(&others, &mut resumed, 3..5);
                let what = format!("{} {state_dtype:?} to {to:?}", spec.text());
                agree(&what, &end(&mut optim, &vars), &end(&mut resumed, &others));
            }
        }
    }
    std::fs::remove_file(file).unwrap();
}

#[test]
fn parameters_on_the_cpu_and_the_gpu_step_together() {
    let start = [tensor(&normals(1, 5000), DType::F32), tensor(&normals(2, 100), DType::F32)];
    let along = [tensor(&normals(3, 5000), DType::F32), tensor(&normals(4, 100), DType::F32)];
    // Sums of a group, too, whose variables lie here and there.
    for spec in all_specs().iter().filter(|spec| has_kernel(spec)) {
        let ends = [[&Device::Cpu; 2], [&Device::Cpu, &*GPU], [&*GPU, &Device::Cpu], [&*GPU; 2]].map(|devices| {
            let place = |tensors: &[Tensor; 2]| [on(devices[0], &tensors[0]), on(devices[1], &tensors[1])];
            let vars = place(&start).map(|tensor| Var::from_tensor(&tensor).unwrap());
            let mut optim = optim(spec, &vars);
            for _ in 0..3 {
                optim.step(&gradients(vars.iter().zip(place(&along)))).unwrap();
            }
            end(&mut optim, &vars)
        });
        ends.iter().for_each(|end| agree(spec.text(), &ends[0], end));
    }
    // A gradient on the other device is an error that changes nothing.
    let here = Var::from_tensor(&start[1]).unwrap();
    let there = Var::from_tensor(&on(&GPU, &start[1])).unwrap();
    let mut optim = optim(&spec("adamw"), [&there, &here]);
    let given = [(&here, along[1].clone()), (&there, along[1].clone())];
    let error = optim.step(&gradients(given)).unwrap_err().to_string();
    assert!(error.contains("variable '0'") && error.contains("Cuda"), "{error}");
    assert_eq!(bits(&here), bits(&start[1]));
    assert_eq!(bits(&there), bits(&start[1]));
}

#[test]
fn a_gradient_may_begin_anywhere_or_be_a_parameter() {
    let n = 1000;
    let (values, long) = (tensor(&normals(1, n), DType::F32), tensor(&normals(2, n + 3), DType::F32));
    for device in [&Device::Cpu, &*GPU] {
        let [p, long] = [&values, &long].map(|tensor| on(device, tensor));
        let (p, q) = (Var::from_tensor(&p).unwrap(), Var::from_tensor(&p).unwrap());
        let mut both = optim(&spec("adam"), [&p, &q]);
        // Not at a multiple of four numbers.
        let offset = long.narrow(0, 3, n).unwrap();
        both.step(&gradients([(&p, offset), (&q, p.as_detached_tensor())])).unwrap();
        let alone = Var::from_tensor(&values).unwrap();
        let exact = tensor(&normals(2, n + 3)[3..], DType::F32);
        optim(&spec("adam"), [&alone]).step(&gradients([(&alone, exact)])).unwrap();
        assert_eq!(bits(&p), bits(&alone), "{device:?}");
    }
}

/// The launches and the waits of the host in `STEPS` steps of a thousand tensors. The mock counts for a process of its own;
/// a GPU does not count, and gives `None`.
fn counted(test: &str, text: &str) -> Option<(u64, u64)> {
    let file = std::env::temp_dir().join(format!("candle-optim-counts-{test}-{}", std::process::id()));
    let mut child = Command::new(std::env::current_exe().unwrap());
    let done = child.args(["--exact", test]).env(CHILD, text).env("MOCK_COUNTS", &file).output().unwrap();
    assert!(done.status.success(), "{text}: {}", String::from_utf8_lossy(&done.stdout));
    let counts = std::fs::read_to_string(&file).ok()?;
    std::fs::remove_file(&file).unwrap();
    let mut numbers = counts.split_whitespace().map(|number| number.parse().unwrap());
    Some((numbers.next().unwrap(), numbers.next().unwrap()))
}

const CHILD: &str = "CANDLE_OPTIM_COUNTED";
const STEPS: u64 = 5;

fn count_in_the_child(text: &str) {
    let on_gpu = |seed| -> Vec<Tensor> {
        tensors(seed, &[1000; 1000], DType::F32).iter().map(|tensor| on(&GPU, tensor)).collect()
    };
    let (start, along) = (on_gpu(0), on_gpu(1));
    let vars: Vec<Var> = start.iter().map(|tensor| Var::from_tensor(tensor).unwrap()).collect();
    let mut optim = Optim::new(vec![Group::new(NamedVars::numbered(vars.clone()), spec(text))]).unwrap();
    for _ in 0..STEPS {
        optim.step(&gradients(vars.iter().zip(along.iter().cloned()))).unwrap();
    }
    // Freeing may wait.
    std::mem::forget((start, along, vars, optim));
}

#[test]
fn a_thousand_tensors_take_a_few_launches_and_nothing_waits() {
    const NAME: &str = "a_thousand_tensors_take_a_few_launches_and_nothing_waits";
    if let Ok(text) = std::env::var(CHILD) {
        return count_in_the_child(&text);
    }
    // 96 parameters a launch.
    const LAUNCHES: u64 = 1000u64.div_ceil(96);
    // Sums of a tensor are a launch more. Those of the group are two, the second of which folds the blocks of each tensor, and
    // one for all folds the tensors.
    for (text, passes, more) in [
        ("adamw", 1, 0),
        ("adamw:caution=true", 2, 0),
        ("lamb:max_grad_norm=none", 2, 0),
        ("lamb:weight_decay=0", 3, 1),
        ("lamb", 4, 1),
        ("ema:base=adamw", 2, 0),
    ] {
        let Some((launches, waits)) = counted(NAME, text) else { continue };
        let most = STEPS * (passes * LAUNCHES + more);
        // A copy of the weights is set once, a variable at a time.
        let starts = if text.starts_with("ema") { 1000 } else { 0 };
        assert!(
            (launches <= most + starts, waits) == (true, 0),
            "{text}: {launches} launches, {waits} waits, most {most}"
        );
        assert!(launches >= STEPS * LAUNCHES, "{text}: {launches} launches");
    }
    // Prodigy's host reads its sums, once a step.
    if let Some((_, waits)) = counted(NAME, "prodigy") {
        assert!(waits >= STEPS, "{waits} waits");
    }
}

mod witness {
    use candle_optim::prelude::*;
    use std::sync::Mutex;
    use std::thread::{ThreadId, current};

    pub static THREADS: Mutex<Vec<ThreadId>> = Mutex::new(vec![]);

    hyper! { pub struct ParamsWitness for "witness" {
        lr: f64 = 0.1, "Learning rate.";
    } }

    impl Algorithm for ParamsWitness {
        fn state_names(&self, _: &[usize]) -> Vec<&'static str> {
            vec![]
        }
        fn step(&self, _: &mut Slots) -> Result<()> {
            THREADS.lock().unwrap().push(current().id());
            Ok(())
        }
    }
}

/// Candle gives each thread a stream of its own: a launch from another thread would not wait for the gradients.
#[test]
fn many_variables_are_stepped_on_the_calling_thread() {
    let vars: Vec<Var> = (0..300).map(|_| Var::zeros(3, DType::F32, &GPU).unwrap()).collect();
    let along = gradients(vars.iter().map(|p| (p, p.zeros_like().unwrap())));
    let mut optim = Optim::new(vec![Group::new(NamedVars::numbered(vars), witness::ParamsWitness::default())]).unwrap();
    optim.step(&along).unwrap();
    assert_eq!(*witness::THREADS.lock().unwrap(), [std::thread::current().id()]);
}

#[test]
fn too_little_memory_for_the_state_is_an_error() {
    let Device::Cuda(device) = &*GPU else { panic!("not a GPU") };
    let free = || device.cuda_stream().context().mem_get_info().unwrap().0;
    // Most of a large GPU's memory: Candle's kernels count elements in 32 bits.
    let mut ballast = vec![];
    while free() > 4 << 30 {
        ballast.push(Tensor::zeros(1 << 28, DType::F32, &GPU).unwrap());
    }
    // Room for the parameter, its gradient and the first of two state tensors, which begin with the first step.
    let n = free() * 30 / 100 / 4;
    let p = Var::from_tensor(&Tensor::zeros(n, DType::F32, &GPU).unwrap()).unwrap();
    let along = gradients([(&p, Tensor::zeros(n, DType::F32, &GPU).unwrap())]);
    let mut adam = optim(&spec("adam"), [&p]);
    for _ in 0..2 {
        let error = adam.step(&along).unwrap_err().to_string();
        assert!(error.contains("OUT_OF_MEMORY"), "{error}");
        assert_eq!((adam.steps(), adam.state_bytes()), (0, 0));
    }
    // What was built in vain has been given back.
    optim(&spec("momentum"), [&p]).step(&along).unwrap();
}

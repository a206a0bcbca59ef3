//! What holds for every optimizer, whatever its formula.

mod common;

use candle_core::{DType, Tensor, Var};
use candle_optim::Spec;
use candle_optim::rules::REGISTRY;
use common::{all_specs, bits, device, floats, gradients, normals, our_specs, spec, tensor, var};

const STEPS: u64 = 5;
const DTYPES: [DType; 4] = [DType::F64, DType::F32, DType::BF16, DType::F16];

/// A parameter of `n` elements and its gradients at each step. A shorter stream is the beginning of a longer one.
fn stream(n: usize, dtype: DType) -> (Var, Vec<Tensor>) {
    (var(&normals(0, n), dtype), (1..=STEPS).map(|step| tensor(&normals(step, n), dtype)).collect())
}

/// Steps `vars` along all `gradients`; each step has one for every variable.
fn run(spec: &Spec, vars: &[Var], steps: &[Vec<Tensor>]) {
    let mut optimizer = spec.build(vars.to_vec()).unwrap();
    for step in steps {
        optimizer.step(&gradients(vars.iter().zip(step.iter().cloned()))).unwrap();
    }
}

/// Where a variable ends after steps along `gradients`.
fn end(spec: &Spec, var: &Var, steps: &[Tensor]) -> Vec<u64> {
    let steps: Vec<_> = steps.iter().map(|gradient| vec![gradient.clone()]).collect();
    run(spec, std::slice::from_ref(var), &steps);
    bits(var)
}

fn map(tensors: &[Tensor], f: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Vec<Tensor> {
    tensors.iter().map(|tensor| f(tensor).unwrap()).collect()
}

fn copy(var: &Var) -> Var {
    Var::from_tensor(&var.as_detached_tensor().copy().unwrap()).unwrap()
}

fn is_candles(spec: &Spec) -> bool {
    spec.params().name().starts_with("candle-")
}

#[test]
fn a_learning_rate_of_zero_leaves_parameters_alone() {
    for spec in all_specs() {
        for dtype in DTYPES {
            let (p, steps) = stream(33, dtype);
            let mut optimizer = spec.build(vec![p.clone()]).unwrap();
            optimizer.set_learning_rate(0.);
            assert_eq!(optimizer.learning_rate(), 0.);
            let before = bits(&p);
            for step in steps {
                optimizer.step(&gradients([(&p, step)])).unwrap();
                assert_eq!(bits(&p), before, "{spec} {dtype:?}");
            }
        }
    }
}

#[test]
fn elements_do_not_know_their_neighbors() {
    const N: usize = 1025; // past the end of a vector, and of a block of half-precision numbers
    for spec in all_specs() {
        for dtype in DTYPES {
            let (p, steps) = stream(N, dtype);
            let whole = end(&spec, &p, &steps);

            // An empty tensor is an error in Candle's own, and has no place on a GPU.
            let smallest = usize::from(is_candles(&spec) || !device().is_cpu());
            for n in [smallest, 1, 31, 32, 33] {
                let (p, steps) = stream(n, dtype);
                assert_eq!(end(&spec, &p, &steps), whole[..n], "{spec} {dtype:?}: the first {n}");
            }

            let halves = |t: &Tensor| vec![t.narrow(0, 0, 400).unwrap(), t.narrow(0, 400, N - 400).unwrap()];
            let parts = halves(&stream(N, dtype).0).iter().map(|t| Var::from_tensor(t).unwrap()).collect::<Vec<_>>();
            run(&spec, &parts, &steps.iter().map(halves).collect::<Vec<_>>());
            assert_eq!([bits(&parts[0]), bits(&parts[1])].concat(), whole, "{spec} {dtype:?}: split in two");

            let order: Vec<u32> = (0..N as u32).map(|i| (i * 7) % N as u32).collect();
            let order = Tensor::new(order, device()).unwrap();
            let permuted = |t: &Tensor| t.index_select(&order, 0);
            let p = Var::from_tensor(&permuted(&stream(N, dtype).0).unwrap()).unwrap();
            let ends: Vec<u64> = order.to_vec1::<u32>().unwrap().iter().map(|&i| whole[i as usize]).collect();
            assert_eq!(end(&spec, &p, &map(&steps, permuted)), ends, "{spec} {dtype:?}: permuted");
        }
    }
}

#[test]
fn many_elements_are_stepped_as_few() {
    const COPIES: usize = 150; // enough for several threads
    for spec in our_specs() {
        for dtype in DTYPES {
            let (p, steps) = stream(1025, dtype);
            let one = end(&spec, &copy(&p), &steps);

            let large = Var::from_tensor(&p.repeat(COPIES).unwrap()).unwrap();
            let whole = end(&spec, &large, &map(&steps, |step| step.repeat(COPIES)));
            assert!(whole.chunks(1025).all(|part| part == one), "{spec} {dtype:?}: one large tensor");

            let many: Vec<Var> = (0..COPIES).map(|_| copy(&p)).collect();
            run(&spec, &many, &steps.iter().map(|step| vec![step.clone(); COPIES]).collect::<Vec<_>>());
            assert!(many.iter().all(|p| bits(p) == one), "{spec} {dtype:?}: many tensors");
        }
    }
}

#[test]
fn shape_does_not_matter() {
    for spec in all_specs() {
        for shape in [&[][..], &[1], &[4, 6], &[2, 1, 3, 4]] {
            let (p, steps) = stream(shape.iter().product(), DType::F32);
            let shaped = Var::from_tensor(&p.reshape(shape).unwrap()).unwrap();
            let along = map(&steps, |step| step.reshape(shape));
            assert_eq!(end(&spec, &shaped, &along), end(&spec, &p, &steps), "{spec} {shape:?}");
        }
    }
}

#[test]
fn gradients_may_lie_in_memory_in_any_way() {
    type Layout = fn(&Tensor) -> candle_core::Result<Tensor>;
    let layouts: [(&str, Layout); 3] = [
        ("transposed", |g| g.t()?.contiguous()?.t()),
        ("within a larger tensor", |g| Tensor::cat(&[g, g, g], 0)?.narrow(0, 5, 5)),
        ("every second column", |g| Tensor::stack(&[g, &g.neg()?], 2)?.narrow(2, 0, 1)?.squeeze(2)),
    ];
    for spec in our_specs() {
        for dtype in DTYPES {
            let (p, steps) = stream(35, dtype);
            let p = Var::from_tensor(&p.reshape((5, 7)).unwrap()).unwrap();
            let steps = map(&steps, |step| step.reshape((5, 7)));
            let contiguous = end(&spec, &copy(&p), &steps);
            for (name, layout) in layouts {
                assert_eq!(end(&spec, &copy(&p), &map(&steps, layout)), contiguous, "{spec} {dtype:?}: {name}");
            }
        }
        // As `backward` makes one: the gradient of a sum is a single number, broadcast.
        let (p, ones) = (var(&[1., 2., 3.], DType::F32), tensor(&[1.; 3], DType::F32));
        let expected = end(&spec, &copy(&p), &[ones]);
        spec.build(vec![p.clone()]).unwrap().step(&p.sum_all().unwrap().backward().unwrap()).unwrap();
        assert_eq!(bits(&p), expected, "{spec}");
    }
}

#[test]
fn a_parameter_may_be_its_own_gradient() {
    for spec in our_specs() {
        for dtype in DTYPES {
            let (p, q) = (var(&[1., -2., 3.], dtype), var(&[1., -2., 3.], dtype));
            let mut optimizers = [&p, &q].map(|var| spec.build(vec![var.clone()]).unwrap());
            for _ in 0..3 {
                optimizers[0].step(&gradients([(&p, p.as_detached_tensor())])).unwrap();
                optimizers[1].step(&gradients([(&q, q.copy().unwrap())])).unwrap();
            }
            assert_eq!(bits(&p), bits(&q), "{spec} {dtype:?}");
        }
    }
}

#[test]
fn half_precision_is_stepped_in_f32_and_rounded_once() {
    for spec in our_specs() {
        for dtype in [DType::BF16, DType::F16] {
            let (p, steps) = stream(1100, dtype);
            let wide = Var::from_tensor(&p.to_dtype(DType::F32).unwrap()).unwrap();
            let mut half = spec.build(vec![p.clone()]).unwrap();
            let mut full = spec.build(vec![wide.clone()]).unwrap();
            for step in steps {
                full.step(&gradients([(&wide, step.to_dtype(DType::F32).unwrap())])).unwrap();
                half.step(&gradients([(&p, step)])).unwrap();
                let rounded = wide.to_dtype(dtype).unwrap();
                assert_eq!(bits(&p), bits(&rounded), "{spec} {dtype:?}");
                wide.set(&rounded.to_dtype(DType::F32).unwrap()).unwrap();
            }
        }
    }
}

#[test]
fn adamw_without_decay_is_adam() {
    for options in ["lr=0.1", "beta1=0.5,beta2=0.9", "amsgrad=true", "maximize=true", "amsgrad=true,maximize=true"] {
        for dtype in DTYPES {
            let ends = ["adam", "adamw"].map(|name| {
                let (p, steps) = stream(33, dtype);
                end(&spec(&format!("{name}:{options},weight_decay=0")), &p, &steps)
            });
            assert_eq!(ends[0], ends[1], "{options} {dtype:?}");
        }
    }
}

#[test]
fn maximizing_is_minimizing_along_the_negative_gradient() {
    let maximizing = our_specs().into_iter().filter(|spec| spec.to_string().contains("maximize=true"));
    for maximize in maximizing {
        let minimize = spec(&maximize.to_string().replace("maximize=true", "maximize=false"));
        let (p, steps) = stream(33, DType::F64);
        let expected = end(&minimize, &copy(&p), &map(&steps, Tensor::neg));
        assert_eq!(end(&maximize, &p, &steps), expected, "{maximize}");
    }
}

#[test]
fn a_missing_gradient_is_no_step() {
    for spec in all_specs() {
        let [(a, steps), (b, _)] = [stream(33, DType::F32), stream(33, DType::F32)];
        let mut optimizer = spec.build(vec![a.clone(), b.clone()]).unwrap();
        for step in &steps {
            let before = bits(&b);
            optimizer.step(&gradients([(&a, step.clone())])).unwrap();
            optimizer.step(&gradients([])).unwrap();
            assert_eq!(bits(&b), before, "{spec}");
            optimizer.step(&gradients([(&b, step.clone())])).unwrap();
        }
        // Candle's AdamW counts the steps of all parameters together.
        if !is_candles(&spec) {
            let alone = end(&spec, &stream(33, DType::F32).0, &steps);
            assert_eq!([bits(&a), bits(&b)], [alone.clone(), alone], "{spec}");
        }
    }
}

#[test]
fn a_zero_gradient_is_a_step() {
    // Whether anything changes: not where neither past gradients nor the parameter itself have a say.
    let cases = [
        ("sgd", false),
        ("sgd:weight_decay=0.1", true),
        ("sgd:momentum=0.9", true),
        ("momentum:beta=0", false),
        ("momentum", true),
        ("rmsprop", true),
        ("adam", true),
        ("adam:beta1=0", true),
        ("adamw", true),
        ("candle-sgd", false),
        ("candle-adamw", true),
    ];
    for entry in REGISTRY {
        assert!(cases.iter().any(|(text, _)| text.split(':').next() == Some(entry.name)), "{} is missing", entry.name);
    }
    for (text, counts) in cases {
        let (p, mut steps) = stream(33, DType::F64);
        let without = end(&spec(text), &copy(&p), &steps);
        steps.insert(1, steps[0].zeros_like().unwrap());
        let with = end(&spec(text), &p, &steps);
        assert_eq!(with != without, counts, "{text}");
    }
}

#[test]
fn nan_stays_in_its_element() {
    for spec in all_specs() {
        for dtype in DTYPES {
            let (p, mut steps) = stream(33, dtype);
            let clean = end(&spec, &copy(&p), &steps);
            let mut values = floats(&steps[1]);
            values[7] = f64::NAN;
            steps[1] = tensor(&values, dtype);
            for (i, (x, e)) in end(&spec, &p, &steps).into_iter().zip(clean).enumerate() {
                assert!(if i == 7 { f64::from_bits(x).is_nan() } else { x == e }, "{spec} {dtype:?}: element {i}");
            }
        }
    }
}

#[test]
fn a_gradient_that_does_not_fit_changes_nothing() {
    let misfits: [(&str, Tensor, &[&str]); 3] = [
        ("shape", tensor(&[1.; 4], DType::F32), &["parameter 1", "F32 [4]", "F32 [2, 2]"]),
        ("number of elements", tensor(&[1.; 3], DType::F32), &["parameter 1", "F32 [3]", "F32 [2, 2]"]),
        ("type", tensor(&[1.; 4], DType::F64).reshape((2, 2)).unwrap(), &["parameter 1", "F64", "F32"]),
    ];
    let fresh = || [var(&[1., 2.], DType::F32), Var::ones((2, 2), DType::F32, device()).unwrap()];
    let fitting = |vars: &[Var; 2]| {
        let [a, b] = vars.each_ref().map(|var| (var.ones_like().unwrap() * 0.3).unwrap());
        gradients([(&vars[0], a), (&vars[1], b)])
    };
    for spec in our_specs() {
        for (what, misfit, parts) in &misfits {
            let [untouched, stepped] = [fresh(), fresh()];
            let build = |vars: &[Var; 2]| spec.build(vars.to_vec()).unwrap();
            let (mut with, mut without) = (build(&stepped), build(&untouched));
            for _ in 0..3 {
                let before = stepped.each_ref().map(|var| bits(var));
                let mixed = gradients([(&stepped[0], tensor(&[1., 1.], DType::F32)), (&stepped[1], misfit.clone())]);
                let error = with.step(&mixed).unwrap_err().to_string();
                assert!(parts.iter().all(|part| error.contains(part)), "{spec}, {what}: {error}");
                assert_eq!(stepped.each_ref().map(|var| bits(var)), before, "{spec}, {what}");
                // State and step counts show in the steps that follow.
                with.step(&fitting(&stepped)).unwrap();
                without.step(&fitting(&untouched)).unwrap();
            }
            assert_eq!(stepped.each_ref().map(|var| bits(var)), untouched.map(|var| bits(&var)), "{spec}, {what}");
        }
    }
}

#[test]
fn a_variable_that_is_listed_twice_is_an_error() {
    for spec in our_specs() {
        let (a, b) = (var(&[1.], DType::F32), var(&[1.], DType::F32));
        let Err(error) = spec.build(vec![a.clone(), b, a]) else { panic!("{spec}") };
        assert_eq!(error.to_string(), "parameter 2 is listed twice", "{spec}");
    }
}

#[test]
fn the_learning_rate_counts_from_when_it_is_set() {
    for spec in all_specs() {
        let [(p, steps), (q, _)] = [stream(33, DType::F64), stream(33, DType::F64)];
        let mut changed = spec.build(vec![p.clone()]).unwrap();
        let mut usual = spec.build(vec![q.clone()]).unwrap();
        changed.set_learning_rate(2. * spec.params().lr());
        changed.set_learning_rate(spec.params().lr());
        for (i, step) in steps.iter().enumerate() {
            if i == 3 {
                changed.set_learning_rate(0.5);
                assert_eq!(changed.learning_rate(), 0.5);
            }
            changed.step(&gradients([(&p, step.clone())])).unwrap();
            usual.step(&gradients([(&q, step.clone())])).unwrap();
            assert_eq!(bits(&p) == bits(&q), i < 3, "{spec}");
        }
    }
}

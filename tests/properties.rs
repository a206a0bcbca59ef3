//! What holds for every optimizer, whatever its formula.

mod common;

use candle_core::{DType, Tensor, Var};
use candle_optim::rule::Span;
use candle_optim::{Group, NamedVars, Optim, Spec};
use common::{
    accepts, all_bits, all_specs, bits, chain, copy, device, elementwise, evaluates, floats, gradients, has_kernel,
    largest, named, normals, optim, optim_with, shape, spec, state, step, tensor, var,
};

const STEPS: u64 = 5;
const DTYPES: [DType; 4] = [DType::F64, DType::F32, DType::BF16, DType::F16];

/// A parameter of `n` elements and its gradients at each step. A shorter stream is the beginning of a longer one.
fn stream(n: usize, dtype: DType) -> (Var, Vec<Tensor>) {
    (var(&normals(0, n), dtype), (1..=STEPS).map(|step| tensor(&normals(step, n), dtype)).collect())
}

/// The same, in a shape that the optimizer steps.
fn stream_for(spec: &Spec, n: usize, dtype: DType) -> (Var, Vec<Tensor>) {
    shaped(stream(n, dtype), &shape(spec, n, 3))
}

/// The shapes of `n` elements that the optimizer may treat unlike each other: a vector, and a matrix of `rows` rows if it
/// works on whole tensors.
fn shapes(spec: &Spec, n: usize, rows: usize) -> impl Iterator<Item = Vec<usize>> + use<> {
    let matrix = vec![rows, n / rows];
    let first = shape(spec, n, rows);
    let second = (first != matrix && !has_kernel(spec)).then_some(matrix);
    [first].into_iter().chain(second)
}

fn shaped((p, steps): (Var, Vec<Tensor>), dims: &[usize]) -> (Var, Vec<Tensor>) {
    (copy(&p.reshape(dims).unwrap()), map(&steps, |step| step.reshape(dims)))
}

/// Steps `vars` along all `gradients`; each step has one for every variable.
fn run(spec: &Spec, vars: &[Var], steps: &[Vec<Tensor>]) {
    let mut optim = optim(spec, vars);
    for along in steps {
        step(&mut optim, vars.iter().zip(along.iter().cloned())).unwrap();
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

/// Whether every variable counts its own steps.
fn counts_alone(spec: &Spec) -> bool {
    chain(spec).iter().all(|algorithm| algorithm.clock() == Span::Tensor && !algorithm.steps_all())
}

/// Whether a step computes the loss again, so that it knows more than a gradient.
fn closes(spec: &Spec) -> bool {
    chain(spec).iter().any(|algorithm| algorithm.evaluates())
}

/// What does not hold of an optimizer, or of those of its specs that set a key, and why.
const EXCEPTIONS: [(&str, &str, &str); 9] = [
    ("lr is a factor", "rprop", "it is the first step size; later ones follow from signs, and never reach 0"),
    ("lr is a factor", "adabelief:fixed_decay", "weights decay by λ, whatever the learning rate"),
    ("lr acts at once", "asgd", "as in PyTorch, a new learning rate acts a step late"),
    ("lr acts at once", "adabelief:degenerated_to_sgd", "it does not move in the first steps"),
    ("shape does not matter", "mars", "a vector takes another step than a matrix"),
    ("shape does not matter", "adafactor", "a matrix keeps averages of its rows and columns"),
    ("shape does not matter", "came", "a matrix keeps averages of its rows and columns"),
    ("shape does not matter", "soap", "a matrix has a basis for its rows and one for its columns"),
    ("zero stays", "yogi", "its average starts above 0"),
];

fn holds(what: &str, spec: &Spec) -> bool {
    let is = |which: &str| {
        let (name, key) = which.split_once(':').unwrap_or((which, ""));
        chain(spec).iter().any(|algorithm| algorithm.name() == name) && spec.text().contains(key)
    };
    !EXCEPTIONS.iter().any(|(property, which, _)| *property == what && is(which))
}

#[test]
fn a_learning_rate_of_zero_leaves_parameters_alone() {
    for spec in all_specs() {
        // The average of equal weights may round.
        let averages = chain(&spec).iter().any(|algorithm| !algorithm.weight_copies().is_empty());
        for (dtype, epsilon) in DTYPES.into_iter().zip([2e-16, 1.2e-7, 8e-3, 1e-3]) {
            let (p, steps) = stream_for(&spec, 33, dtype);
            let mut optim = optim(&spec, [&p]);
            optim.set(0, "lr", 0.).unwrap();
            assert_eq!(optim.lr(0).unwrap(), 0.);
            let before = floats(&p);
            for along in steps {
                step(&mut optim, [(&p, along)]).unwrap();
            }
            let moved = largest(floats(&p).iter().zip(before).map(|(p, before)| (p - before) / before));
            let allowed = if averages { STEPS as f64 * epsilon } else { 0. };
            let factor = holds("lr is a factor", &spec);
            assert!(moved <= allowed || !factor, "{} {dtype:?}: {moved:e}", spec.text());
            assert!(moved > 0. || factor || dtype != DType::F64, "{} needs no exception", spec.text());
        }
    }
}

#[test]
fn elements_do_not_know_their_neighbors() {
    const N: usize = 1025; // past the end of a vector, and of a block of half-precision numbers
    for spec in all_specs().iter().filter(|spec| elementwise(spec)) {
        for dtype in DTYPES {
            let (p, steps) = stream(N, dtype);
            let whole = end(spec, &p, &steps);

            // An empty tensor has no place on a GPU.
            for n in [usize::from(!device().is_cpu()), 1, 31, 32, 33] {
                let (p, steps) = stream(n, dtype);
                assert_eq!(end(spec, &p, &steps), whole[..n], "{} {dtype:?}: the first {n}", spec.text());
            }

            let halves = |t: &Tensor| vec![t.narrow(0, 0, 400).unwrap(), t.narrow(0, 400, N - 400).unwrap()];
            let parts: Vec<Var> = halves(&stream(N, dtype).0).iter().map(copy).collect();
            run(spec, &parts, &steps.iter().map(halves).collect::<Vec<_>>());
            assert_eq!(all_bits(&parts).concat(), whole, "{} {dtype:?}: split in two", spec.text());

            let order: Vec<u32> = (0..N as u32).map(|i| (i * 7) % N as u32).collect();
            let order = Tensor::new(order, p.device()).unwrap();
            let permuted = |t: &Tensor| t.index_select(&order, 0);
            let p = Var::from_tensor(&permuted(&stream(N, dtype).0).unwrap()).unwrap();
            let ends: Vec<u64> = order.to_vec1::<u32>().unwrap().iter().map(|&i| whole[i as usize]).collect();
            assert_eq!(end(spec, &p, &map(&steps, permuted)), ends, "{} {dtype:?}: permuted", spec.text());
        }
    }
}

#[test]
fn many_elements_are_stepped_as_few() {
    const COPIES: usize = 150; // enough for several threads
    for spec in all_specs().iter().filter(|spec| elementwise(spec)) {
        for dtype in DTYPES {
            let (p, steps) = stream(1025, dtype);
            let one = end(spec, &copy(&p), &steps);

            let large = Var::from_tensor(&p.repeat(COPIES).unwrap()).unwrap();
            let whole = end(spec, &large, &map(&steps, |step| step.repeat(COPIES)));
            assert!(whole.chunks(1025).all(|part| part == one), "{} {dtype:?}: one large tensor", spec.text());

            let many: Vec<Var> = (0..COPIES).map(|_| copy(&p)).collect();
            run(spec, &many, &steps.iter().map(|step| vec![step.clone(); COPIES]).collect::<Vec<_>>());
            assert!(many.iter().all(|p| bits(p) == one), "{} {dtype:?}: many tensors", spec.text());
        }
    }
}

#[test]
fn threads_and_the_order_of_variables_change_no_bit() {
    // Up to several blocks of a sum, and more than one thread steps alone.
    const SIZES: [usize; 5] = [1, 4095, 4096, 4097, 300_000];
    let pools = [1, 2, 5].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap());
    // Neighbors have sums of different sizes, and each order puts others first.
    let orders = [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]];
    for spec in all_specs().iter().filter(|spec| has_kernel(spec)) {
        let tensors = |step: u64, dtype| SIZES.map(|n| tensor(&normals(step, n), dtype));
        for (dtype, state_dtype) in [(DType::F32, None), (DType::F32, Some(DType::BF16)), (DType::F64, None)] {
            if elementwise(spec) && dtype == DType::F64 {
                continue; // as F32
            }
            let steps: Vec<_> = (1..=3).map(|step| tensors(step, dtype)).collect();
            let run = |(pool, order): (&rayon::ThreadPool, [usize; 5])| {
                let vars: Vec<Var> = tensors(0, dtype).iter().map(copy).collect();
                let ordered: Vec<Var> = order.iter().map(|at| vars[*at].clone()).collect();
                let mut optim = optim_with(spec, &ordered, state_dtype);
                for along in &steps {
                    let given = gradients(vars.iter().zip(along.iter().cloned()));
                    // On a GPU each thread has a stream of its own, whose work another thread must wait for.
                    device().synchronize().unwrap();
                    pool.install(|| optim.step(&given).and_then(|_| Ok(device().synchronize()?))).unwrap();
                }
                all_bits(&vars)
            };
            let ends: Vec<_> = pools.iter().zip(orders).map(run).collect();
            assert!(ends.iter().all(|end| *end == ends[0]), "{} {dtype:?} {state_dtype:?}", spec.text());
        }
    }
}

/// A method of whole tensors computes on Candle's operations.
#[test]
fn threads_change_no_bit_of_whole_tensors() {
    for spec in all_specs().iter().filter(|spec| !has_kernel(spec)) {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let vars = [(0, 96 * 64), (1, 31 * 160)].map(|(seed, n)| (seed, tensor(&normals(seed, n), DType::F32)));
            let vars = vars.map(|(seed, start)| copy(&start.reshape(([96, 31][seed as usize], ())).unwrap()));
            let mut optim = optim(spec, &vars);
            for seed in 2..5 {
                let along = vars
                    .iter()
                    .map(|p| (p, tensor(&normals(seed, p.elem_count()), DType::F32).reshape(p.shape()).unwrap()));
                device().synchronize().unwrap();
                pool.install(|| step(&mut optim, along).and_then(|_| Ok(device().synchronize()?))).unwrap();
            }
            all_bits(&vars)
        };
        assert_eq!(run(1), run(4), "{}", spec.text());
    }
}

/// Names decide, not the order in which variables are listed.
#[test]
fn variables_are_known_by_name() {
    for spec in all_specs() {
        let run = |order: [usize; 3]| {
            let vars = [5, 3, 4].map(|n| stream_for(&spec, 3 * n, DType::F64));
            let listed = order.map(|at| (["a", "b", "c"][at].to_string(), vars[at].0.clone()));
            let mut optim = Optim::new(vec![Group::new(listed.to_vec(), spec.clone())]).unwrap();
            for at in 0..STEPS as usize {
                step(&mut optim, vars.iter().map(|(var, steps)| (var, steps[at].clone()))).unwrap();
            }
            (all_bits(&vars.map(|(var, _)| var)), state(&optim))
        };
        assert_eq!(run([0, 1, 2]), run([2, 0, 1]), "{}", spec.text());
    }
}

#[test]
fn shape_does_not_matter() {
    let shapes = [&[][..], &[1], &[4, 6], &[2, 1, 3, 4]];
    let takes_all =
        |spec: &&Spec| shapes.iter().all(|dims| accepts(spec, dims)) && holds("shape does not matter", spec);
    for spec in all_specs().iter().filter(takes_all) {
        for dims in shapes {
            let (p, steps) = stream(dims.iter().product(), DType::F32);
            let (dented, along) = shaped((p.clone(), steps.clone()), dims);
            assert_eq!(end(spec, &dented, &along), end(spec, &p, &steps), "{} {dims:?}", spec.text());
        }
    }
}

/// A dimension of one has no effect, and SOAP takes its dimensions in any order. Oracles have two dimensions at most.
#[test]
fn more_dimensions_are_as_two() {
    let ends = |spec: &Spec, given: &(Var, Vec<Tensor>), change: &dyn Fn(&Tensor) -> candle_core::Result<Tensor>| {
        let steps = map(&given.1, |step| change(step)?.contiguous());
        let p = copy(&change(&given.0).unwrap().contiguous().unwrap());
        end(spec, &p, &steps);
        p.as_detached_tensor()
    };
    let near = |a: &Tensor, b: &Tensor, text: &str| {
        let away = largest(floats(a).iter().zip(floats(b)).map(|(a, b)| a - b));
        assert!(away < 1e-12 && a.dims() == b.dims(), "{text}: {away:e}");
    };
    for spec in all_specs().iter().filter(|spec| !holds("shape does not matter", spec) && !has_kernel(spec)) {
        let given = shaped(stream(12, DType::F64), &[3, 4]);
        let expected = ends(spec, &given, &|x| Ok(x.clone()));
        near(&ends(spec, &given, &|x| x.unsqueeze(0)).squeeze(0).unwrap(), &expected, spec.text());
        if chain(spec)[0].name() == "soap" {
            near(&ends(spec, &given, &|x| x.unsqueeze(1)).squeeze(1).unwrap(), &expected, spec.text());
            let given = shaped(stream(24, DType::F64), &[2, 3, 4]);
            let expected = ends(spec, &given, &|x| Ok(x.clone())).permute((2, 0, 1)).unwrap();
            near(&ends(spec, &given, &|x| x.permute((2, 0, 1))), &expected, spec.text());
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
    for spec in all_specs().iter().filter(|spec| !closes(spec)) {
        for dtype in DTYPES {
            let (p, steps) = shaped(stream(35, dtype), &[5, 7]);
            let contiguous = end(spec, &copy(&p), &steps);
            for (name, layout) in layouts {
                assert_eq!(end(spec, &copy(&p), &map(&steps, layout)), contiguous, "{} {dtype:?}: {name}", spec.text());
            }
        }
        // As `backward` makes one: the gradient of a sum is a single number, broadcast.
        let dims = shape(spec, 3, 3);
        let p = copy(&tensor(&[1., 2., 3.], DType::F32).reshape(&dims[..]).unwrap());
        let expected = end(spec, &copy(&p), &[p.ones_like().unwrap()]);
        optim(spec, [&p]).step(&p.sum_all().unwrap().backward().unwrap()).unwrap();
        assert_eq!(bits(&p), expected, "{}", spec.text());
    }
}

#[test]
fn a_parameter_may_be_its_own_gradient() {
    for spec in all_specs().iter().filter(|spec| !closes(spec)) {
        for dtype in DTYPES {
            let start = tensor(&[1., -2., 3.], dtype).reshape(&shape(spec, 3, 3)[..]).unwrap();
            let (p, q) = (copy(&start), copy(&start));
            let mut optims = [&p, &q].map(|var| optim(spec, [var]));
            for _ in 0..3 {
                optims[0].step(&gradients([(&p, p.as_detached_tensor())])).unwrap();
                optims[1].step(&gradients([(&q, q.copy().unwrap())])).unwrap();
            }
            assert_eq!(bits(&p), bits(&q), "{} {dtype:?}", spec.text());
        }
    }
}

/// In the game Σ p·q each is the gradient of the other, as it was before the step.
#[test]
fn a_parameter_may_be_the_gradient_of_another() {
    // The last is stepped by several threads.
    for (n, dtype) in DTYPES.into_iter().map(|dtype| (6, dtype)).chain([(150_000, DType::F32)]) {
        let values = [0, 1, 2, 3].map(|seed| tensor(&normals(seed, n), dtype));
        for spec in all_specs().iter().filter(|spec| !closes(spec)) {
            let play = |gradient: fn(&Var) -> Tensor| {
                let vars = values.each_ref().map(|start| copy(&start.reshape(&shape(spec, n, 3)[..]).unwrap()));
                let groups = [0..2, 2..4].map(|of| {
                    let vars = of.map(|at: usize| (at.to_string(), vars[at].clone()));
                    Group::new(vars.collect::<Vec<_>>(), spec.clone())
                });
                let grads = [1, 2, 3, 0].map(|at: usize| gradient(&vars[at]));
                Optim::new(groups.into()).unwrap().step(&gradients(vars.iter().zip(grads))).unwrap();
                all_bits(&vars)
            };
            let expected = play(|other| other.copy().unwrap());
            assert_eq!(play(|other| other.as_detached_tensor()), expected, "{} {dtype:?}", spec.text());
        }
    }
}

#[test]
fn half_precision_is_stepped_in_f32_and_rounded_once() {
    // One that computes the loss again sees the rounded parameters in between, and so do the algorithms of a chain.
    for spec in all_specs().iter().filter(|spec| !closes(spec) && chain(spec).len() == 1) {
        for dtype in [DType::BF16, DType::F16] {
            let (p, steps) = stream_for(spec, 1101, dtype);
            let wide = Var::from_tensor(&p.to_dtype(DType::F32).unwrap()).unwrap();
            let (mut half, mut full) = (optim(spec, [&p]), optim(spec, [&wide]));
            for step in steps {
                full.step(&gradients([(&wide, step.to_dtype(DType::F32).unwrap())])).unwrap();
                half.step(&gradients([(&p, step)])).unwrap();
                let rounded = wide.to_dtype(dtype).unwrap();
                assert!(bits(&p) == bits(&rounded), "{} {dtype:?}", spec.text());
                wide.set(&rounded.to_dtype(DType::F32).unwrap()).unwrap();
            }
        }
    }
}

/// 0.25 decays by 0.01 % a step, which is a twentieth of the distance to the next bf16. 10,000 steps come to 0.25/e.
#[test]
fn small_steps_are_lost_unless_they_are_rounded_stochastically() {
    let adamw = spec("adamw:lr=0.001,weight_decay=0.1");
    // Of whole tensors, by `Slot::set`.
    let muon = spec("muon:lr=0.001,weight_decay=0.1");
    for (spec, dims) in [(adamw, [1, 2000]), (muon, [2, 2])] {
        for dtype in [DType::BF16, DType::F16] {
            let mean_after = |stochastic| {
                let p = Var::from_tensor(&Tensor::full(0.25, &dims[..], device()).unwrap().to_dtype(dtype).unwrap())
                    .unwrap();
                let group = Group::new(NamedVars::numbered([p.clone()]), spec.clone()).stochastic_rounding(stochastic);
                let mut optim = Optim::new(vec![group]).unwrap();
                for _ in 0..10_000 {
                    optim.step(&gradients([(&p, p.zeros_like().unwrap())])).unwrap();
                }
                floats(&p).iter().sum::<f64>() / p.elem_count() as f64
            };
            assert_eq!(mean_after(false), 0.25);
            let (expected, mean) = (0.25 * (1f64 - 1e-4).powi(10_000), mean_after(true));
            let allowed = if dims[1] > 2 { 2e-3 } else { 2e-2 };
            assert!((mean - expected).abs() < allowed, "{} {dtype:?}: {mean}", spec.text());
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
    for spec in all_specs() {
        let (p, steps) = stream_for(&spec, 33, DType::F64);
        let run = |p: &Var, maximize: bool, steps: &[Tensor]| {
            let group = Group::new(NamedVars::numbered([p.clone()]), spec.clone()).maximize(maximize);
            let mut optim = Optim::new(vec![group]).unwrap();
            for along in steps {
                step(&mut optim, [(p, along.clone())]).unwrap();
            }
            bits(p)
        };
        let expected = run(&copy(&p), false, &map(&steps, Tensor::neg));
        assert_eq!(run(&copy(&p), true, &steps), expected, "{}", spec.text());
        // Some wait for several gradients before they move.
        let same = spec.method().maximizes() || expected == bits(&p);
        assert_eq!(end(&spec, &copy(&p), &steps) == expected, same, "{}", spec.text());
    }
}

#[test]
fn a_missing_gradient_is_no_step() {
    for spec in all_specs().iter().filter(|spec| counts_alone(spec)) {
        let [(a, steps), (b, _)] = [(); 2].map(|()| stream_for(spec, 33, DType::F32));
        let mut optim = optim(spec, [&a, &b]);
        for along in &steps {
            let before = bits(&b);
            step(&mut optim, [(&a, along.clone())]).unwrap();
            step(&mut optim, []).unwrap();
            assert!(bits(&b) == before, "{}", spec.text());
            step(&mut optim, [(&b, along.clone())]).unwrap();
        }
        let alone = end(spec, &stream_for(spec, 33, DType::F32).0, &steps);
        assert!(bits(&a) == alone && bits(&b) == alone, "{}", spec.text());
    }
}

/// Whatever was skipped or refused in between, and whichever variables had a gradient in it.
#[test]
fn a_step_that_is_not_taken_does_not_count() {
    for spec in all_specs() {
        let run = |disturbed: bool| {
            let [(a, steps), (b, _)] = [(); 2].map(|()| stream_for(&spec, 9, DType::F64));
            let group = Group::new(named(&[("a", &a), ("b", &b)]), spec.clone());
            let mut optim = Optim::new(vec![group]).unwrap().skip_non_finite(true);
            let not_taken = |optim: &mut Optim| {
                if disturbed {
                    let (nan, wrong) = ((b.as_tensor() * f64::NAN).unwrap(), b.unsqueeze(0).unwrap());
                    assert!(step(optim, [(&b, nan)]).unwrap().skipped);
                    if !evaluates(optim) {
                        optim.step(&gradients([(&b, wrong)])).unwrap_err();
                    }
                }
            };
            for (at, along) in steps.iter().enumerate() {
                let of_b = (at % 3 > 0).then(|| (&b, along.clone()));
                not_taken(&mut optim);
                step(&mut optim, [(&a, along.clone())].into_iter().chain(of_b)).unwrap();
            }
            (all_bits(&[a, b]), state(&optim))
        };
        let (clean, disturbed) = (run(false), run(true));
        assert!(clean.0 == disturbed.0, "{}", spec.text());
        assert!(clean.1 == disturbed.1, "{}", spec.text());
    }
}

/// Variables that had counted the same steps go on from different ones.
#[test]
fn loading_into_a_running_optimizer_replaces_its_clocks() {
    for spec in all_specs() {
        let start = || [(); 2].map(|()| stream_for(&spec, 9, DType::F64));
        let new = |a: &Var, b: &Var| Optim::new(vec![Group::new(named(&[("a", a), ("b", b)]), spec.clone())]).unwrap();
        let [(a, steps), (b, _)] = start();
        let mut first = new(&a, &b);
        for (at, along) in steps[..3].iter().enumerate() {
            let of_b = (at % 2 > 0).then(|| (&b, along.clone()));
            step(&mut first, [(&a, along.clone())].into_iter().chain(of_b)).unwrap();
        }
        let [(c, _), (d, _)] = start();
        let mut second = new(&c, &d);
        for along in &steps[..2] {
            step(&mut second, [(&c, along.clone()), (&d, along.clone())]).unwrap();
        }
        second.load_state_dict(&first.state_dict().unwrap()).unwrap();
        c.set(&a).unwrap();
        d.set(&b).unwrap();
        for along in &steps[3..] {
            step(&mut first, [(&a, along.clone()), (&b, along.clone())]).unwrap();
            step(&mut second, [(&c, along.clone()), (&d, along.clone())]).unwrap();
        }
        assert!(all_bits(&[a, b]) == all_bits(&[c, d]), "{}", spec.text());
    }
}

/// State starts where the variable has its first gradient: copies of weights copy what they are then, and a clock of the
/// variable starts then, too. A clock of the group has counted.
#[test]
fn a_late_first_gradient_starts_the_state_then() {
    for spec in all_specs() {
        let [(a, steps), (b, _)] = [(); 2].map(|()| stream_for(&spec, 33, DType::F64));
        let mut optim = Optim::new(vec![Group::new(named(&[("a", &a), ("b", &b)]), spec.clone())]).unwrap();
        let steps_all = chain(&spec).iter().any(|algorithm| algorithm.steps_all());
        let group_clock = chain(&spec).iter().any(|algorithm| algorithm.clock() == Span::Group);
        for along in &steps[..3] {
            step(&mut optim, [(&a, along.clone())]).unwrap();
        }
        let kept = state(&optim);
        let names: Vec<&str> = chain(&spec).iter().flat_map(|algorithm| algorithm.state_names(b.dims())).collect();
        for name in &names {
            assert!(kept.contains_key(&format!("a.{name}")), "{} {name}", spec.text());
            assert_eq!(kept.contains_key(&format!("b.{name}")), steps_all, "{} {name}", spec.text());
        }
        let count = |key: &str| floats(&optim.state_dict().unwrap()[key])[0];
        let counted = if group_clock || steps_all { 3. } else { 0. };
        assert_eq!([count("step"), count("a.step"), count("b.step")], [3., 3., counted], "{}", spec.text());

        // Weights that are loaded late are those that are copied.
        b.set(&(b.as_tensor() * 2.).unwrap()).unwrap();
        let start = copy(&b);
        let alone = copy(&b);
        let mut fresh = Optim::new(vec![Group::new(named(&[("b", &alone)]), spec.clone())]).unwrap();
        step(&mut optim, [(&b, steps[3].clone())]).unwrap();
        step(&mut fresh, [(&alone, steps[3].clone())]).unwrap();
        let state = optim.state_dict().unwrap();
        for name in &names {
            assert!(state.contains_key(&format!("b.{name}")), "{} {name}", spec.text());
        }
        if counts_alone(&spec) {
            let of_b = |optim: &Optim| {
                let state = common::state(optim);
                state.into_iter().filter(|(key, _)| key.starts_with("b.")).collect::<Vec<_>>()
            };
            assert_eq!((bits(&b), of_b(&optim)), (bits(&alone), of_b(&fresh)), "{}", spec.text());
        }
        // An average that has taken one step from the copy is near it.
        let copies = chain(&spec).iter().flat_map(|algorithm| algorithm.weight_copies());
        for name in copies.filter(|copy| names.contains(copy)) {
            let sum = |values: &[f64]| values.iter().map(|x| x.abs()).sum::<f64>();
            let (copied, start) = (floats(&state[&format!("b.{name}")]), floats(&start));
            let away: Vec<f64> = copied.iter().zip(&start).map(|(copied, start)| copied - start).collect();
            assert!(sum(&away) < 0.2 * sum(&start), "{} {name}: {} of {}", spec.text(), sum(&away), sum(&start));
        }
    }
}

/// All variables count every step, also one in which no variable has a gradient; their own numbers are the group's.
#[test]
fn a_backward_step_is_backward_and_a_step() {
    for spec in all_specs() {
        let vars = [var(&[1., -2., 3., 0.5], DType::F64), var(&[1., -2., 3., 0.5], DType::F64)];
        let vars = vars.map(|var| Var::from_tensor(&var.reshape((2, 2)).unwrap()).unwrap());
        let loss = |var: &Var| var.sqr().unwrap().sum_all().unwrap();
        let mut optims = [0, 1].map(|i| optim(&spec, [&vars[i]]));
        for _ in 0..3 {
            let whole = optims[0].backward_step(&loss(&vars[0]));
            let parts = optims[1].step(&loss(&vars[1]).backward().unwrap());
            assert_eq!(whole.is_ok(), parts.is_ok(), "{}", spec.text());
        }
        assert_eq!(bits(&vars[0]), bits(&vars[1]), "{}", spec.text());
    }
}

#[test]
fn a_clock_of_the_group() {
    let of_group = |spec: &Spec| chain(spec).iter().any(|algorithm| algorithm.clock() == Span::Group);
    let specs: Vec<Spec> = all_specs().into_iter().filter(of_group).collect();
    assert!(!specs.is_empty());
    for spec in specs {
        let (a, steps) = stream_for(&spec, 33, DType::F64);
        let b = copy(&a);
        let mut optim = Optim::new(vec![Group::new(named(&[("a", &a), ("b", &b)]), spec.clone())]).unwrap();
        step(&mut optim, [(&a, steps[0].clone()), (&b, steps[0].clone())]).unwrap();
        for along in &steps[1..4] {
            step(&mut optim, [(&a, along.clone())]).unwrap();
        }
        let state = state(&optim);
        let memory = chain(&spec).iter().flat_map(|algorithm| algorithm.memory());
        for name in memory.map(|(name, _)| name).chain(["step"]) {
            assert_eq!(state[&format!("a.{name}")], state[&format!("b.{name}")], "{} {name}", spec.text());
        }
        assert_eq!(state["a.step"], state["step"], "{}", spec.text());
    }
}

#[test]
fn a_zero_gradient_is_a_step() {
    for spec in all_specs() {
        let (p, steps) = stream_for(&spec, 33, DType::F64);
        let mut optim = optim(&spec, [&p]);
        step(&mut optim, [(&p, steps[0].clone())]).unwrap();
        step(&mut optim, [(&p, steps[0].zeros_like().unwrap())]).unwrap();
        let state = state(&optim);
        assert_eq!((&state["step"], &state["0.step"].2), (&state["0.step"], &vec![2f64.to_bits()]), "{}", spec.text());
    }
}

#[test]
fn nan_stays_in_its_element() {
    for spec in all_specs().iter().filter(|spec| elementwise(spec)) {
        for dtype in DTYPES {
            let (p, mut steps) = stream(33, dtype);
            let clean = end(spec, &copy(&p), &steps);
            let mut values = floats(&steps[1]);
            values[7] = f64::NAN;
            steps[1] = tensor(&values, dtype);
            for (i, (x, e)) in end(spec, &p, &steps).into_iter().zip(clean).enumerate() {
                assert!(
                    if i == 7 { f64::from_bits(x).is_nan() } else { x == e },
                    "{} {dtype:?}: element {i}",
                    spec.text()
                );
            }
        }
    }
}

/// Sums spread it, but no element with a NaN gradient takes a finite step.
#[test]
fn nan_never_becomes_a_finite_step() {
    for spec in all_specs().iter().filter(|spec| has_kernel(spec)) {
        for (dtype, at) in DTYPES.into_iter().flat_map(|dtype| [0, 1, 4].map(|at| (dtype, at))) {
            let (p, mut steps) = stream_for(spec, 33, dtype);
            let mut values = floats(&steps[at]);
            values[7] = f64::NAN;
            steps[at] = tensor(&values, dtype).reshape(p.shape()).unwrap();
            let mut optim = optim(spec, [&p]);
            for (i, along) in steps.into_iter().enumerate() {
                step(&mut optim, [(&p, along)]).unwrap();
                assert!(i < at || floats(&p)[7].is_nan(), "{} {dtype:?}: step {i} after NaN at {at}", spec.text());
            }
        }
    }
}

/// Where all have the sign of zero, a rule of signs stands still.
/// A spec that has another value of a key, if its optimizer has the key.
fn with(spec: &Spec, key: &str, value: &str) -> Option<Spec> {
    let algorithm = chain(spec).first().filter(|algorithm| algorithm.field(key).is_some())?;
    let others: Vec<_> = spec.text().split([':', ',']).skip(1).filter(|pair| !pair.starts_with(key)).collect();
    let keys = [others, vec![&format!("{key}={value}")]].concat().join(",");
    Some(common::spec(&format!("{}:{keys}", algorithm.name())))
}

#[test]
fn gradients_of_every_magnitude_give_finite_weights() {
    // From the smallest number of the type to the largest whose square is finite.
    let range = |dtype| match dtype {
        DType::F64 => (5e-324, 1e150),
        DType::F16 => (6e-8, 6e4),
        _ => (1e-45, 1e18),
    };
    let specs: Vec<_> = all_specs().into_iter().filter(|spec| !closes(spec)).collect();
    let zeros = ["eps", "eps1", "eps2"].map(|key| specs.iter().filter_map(move |spec| with(spec, key, "0")));
    for spec in specs.iter().cloned().chain(zeros.into_iter().flatten()) {
        for (dtype, dims) in DTYPES.into_iter().flat_map(|dtype| shapes(&spec, 32, 4).map(move |dims| (dtype, dims))) {
            let (least, most): (f64, f64) = range(dtype);
            let ratio = (most.ln() - least.ln()) / 30.;
            // None for the first step, and none for the first element at all.
            let gradient = |step: u64| {
                let size =
                    |i: usize| if step == 0 || i == 0 { 0. } else { (least.ln() + ratio * (i - 1) as f64).exp() };
                let signs = normals(step, 32).into_iter().map(f64::signum).enumerate();
                tensor(&signs.map(|(i, sign)| sign * size(i).min(most)).collect::<Vec<_>>(), dtype)
            };
            let (p, steps) = shaped((var(&normals(9, 32), dtype), (0..8).map(gradient).collect()), &dims);
            let mut optim = optim(&spec, [&p]);
            for (i, along) in steps.into_iter().enumerate() {
                step(&mut optim, [(&p, along)]).unwrap();
                assert!(
                    floats(&p).iter().all(|x| x.is_finite()),
                    "{} {dtype:?} {dims:?}, step {i}: {:?}",
                    spec.text(),
                    floats(&p)
                );
            }
        }
    }
}

/// Of whole tensors: an element whose gradient was NaN is NaN, or did not move.
#[test]
fn a_nan_gradient_is_no_finite_step() {
    for spec in all_specs().iter().filter(|spec| !has_kernel(spec) && !closes(spec)) {
        for (nan_at, dims) in [0, 1].into_iter().flat_map(|at| shapes(spec, 12, 4).map(move |dims| (at, dims))) {
            let (p, mut steps) = shaped(stream(12, DType::F32), &dims);
            let mut values = floats(&steps[nan_at]);
            values[7] = f64::NAN;
            steps[nan_at] = tensor(&values, DType::F32).reshape(&dims[..]).unwrap();
            let mut optim = optim(spec, [&p]);
            for (at, along) in steps.into_iter().enumerate() {
                let before = floats(&p)[7];
                step(&mut optim, [(&p, along)]).unwrap();
                let after = floats(&p)[7];
                // The first step of SOAP reads no vector, and L-BFGS leaves out what is NaN.
                let later = dims.len() == 2 && chain(spec)[0].name() != "lbfgs";
                let spoiled = at == nan_at || (at > nan_at && later);
                assert!(!spoiled || after.is_nan() || after == before, "{} {dims:?}: {after}", spec.text());
            }
        }
    }
}

#[test]
fn a_constant_gradient_gives_finite_weights() {
    // Of a rule with sums, the steps of a function without a minimum may grow forever.
    let specs: Vec<_> = all_specs().into_iter().filter(elementwise).collect();
    let low = specs.iter().filter_map(|spec| with(spec, "alpha", "0.5"));
    for spec in specs.iter().cloned().chain(low) {
        for dtype in [DType::F32, DType::F64] {
            let dims = shape(&spec, 4, 2);
            let (p, g) =
                (copy(&var(&[0.; 4], dtype).reshape(&*dims).unwrap()), tensor(&[0.7, 1. / 3., 0.1, -1.4e-3], dtype));
            let g = g.reshape(&*dims).unwrap();
            let mut optim = optim(&spec, [&p]);
            for _ in 0..1500 {
                step(&mut optim, [(&p, g.clone())]).unwrap();
            }
            assert!(floats(&p).iter().all(|x| x.is_finite()), "{} {dtype:?}: {:?}", spec.text(), floats(&p));
        }
    }
}

/// A momentum that is not 0, over the root of an average that is.
#[test]
fn a_divisor_of_zero_is_no_step() {
    for (spec, last) in [("came:lr=0.1,beta1=0,eps2=0", 1.), ("soap:lr=0.1,beta2=0,eps=0,weight_decay=0", 0.)] {
        for dtype in [DType::F32, DType::F64] {
            let spec: Spec = spec.parse().unwrap();
            let p = copy(&var(&normals(1, 6), dtype).reshape((2, 3)).unwrap());
            let g = tensor(&normals(2, 6), dtype).reshape((2, 3)).unwrap();
            let mut optim = optim(&spec, [&p]);
            for _ in 0..3 {
                step(&mut optim, [(&p, g.clone())]).unwrap();
            }
            let before = floats(&p);
            step(&mut optim, [(&p, (&g * last).unwrap())]).unwrap();
            assert_eq!(floats(&p), before, "{} {dtype:?}", spec.text());
        }
    }
}

#[test]
fn the_sign_of_zero_is_zero() {
    for spec in all_specs().iter().filter(|spec| elementwise(spec) && counts_alone(spec) && holds("zero stays", spec)) {
        for dtype in DTYPES {
            let zeros = [0., -0.];
            let p = var(&zeros, dtype);
            end(spec, &p, &vec![tensor(&zeros, dtype); 3]);
            assert_eq!(floats(&p), zeros, "{} {dtype:?}", spec.text());
        }
    }
}

#[test]
fn the_learning_rate_counts_from_when_it_is_set() {
    let counts = |spec: &&Spec| holds("lr is a factor", spec) && holds("lr acts at once", spec);
    for spec in all_specs().iter().filter(counts) {
        let [(p, steps), (q, _)] = [(); 2].map(|()| stream_for(spec, 33, DType::F64));
        let (mut changed, mut usual) = (optim(spec, [&p]), optim(spec, [&q]));
        let lr = changed.lr(0).unwrap();
        changed.set(0, "lr", 2. * lr).unwrap();
        changed.set(0, "lr", lr).unwrap();
        for (i, along) in steps.iter().enumerate() {
            if i == 3 {
                changed.set(0, "lr", 0.25 * lr).unwrap();
                assert_eq!(changed.lr(0).unwrap(), 0.25 * lr);
            }
            step(&mut changed, [(&p, along.clone())]).unwrap();
            step(&mut usual, [(&q, along.clone())]).unwrap();
            assert_eq!(bits(&p) == bits(&q), i < 3, "{} {i}", spec.text());
        }
    }
}

/// The printed spec is the optimizer, also without the default learning rate.
#[test]
fn a_spec_prints_the_optimizer() {
    for given in all_specs() {
        let printed = spec(&given.to_string());
        assert_eq!(printed.to_string(), given.to_string());
        let (p, steps) = stream_for(&given, 33, DType::F64);
        let q = copy(&p);
        assert_eq!(end(&given, &p, &steps), end(&printed, &q, &steps), "{}", given.text());
        let filled = spec(&given.clone().or_lr(0.7).to_string());
        assert_eq!(filled.to_string(), given.clone().or_lr(0.7).to_string());
        assert!(evaluates(&optim(&given, &[p])) == closes(&given));
    }
}

/// torch's `adjust_lr_fn=None` is `original`, which is what is printed and listed.
#[test]
fn a_word_may_have_another_name() {
    let original = spec("muon:adjust_lr_fn=original");
    let none = spec("muon:adjust_lr_fn=none");
    assert_eq!(none.to_string(), original.to_string());
    let matrix = copy(&tensor(&normals(0, 4), DType::F64).reshape((2, 2)).unwrap());
    let mut optim = optim(&spec("muon:adjust_lr_fn=match_rms_adamw"), &[matrix]);
    optim.set(0, "adjust_lr_fn", "none").unwrap();
    assert_eq!(optim.get(0, "adjust_lr_fn").unwrap(), "original".into());
    let error = "muon:adjust_lr_fn=None".parse::<Spec>().unwrap_err().to_string();
    assert!(error.ends_with("it must be one of original match_rms_adamw spectral_unclamped"), "{error}");
    assert!("lamb:lr=none".parse::<Spec>().is_err());
}

mod asked {
    use candle_optim::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    pub static ASKED: AtomicUsize = AtomicUsize::new(0);

    hyper! { pub struct ParamsAsked for "asked" {
        lr: f64 = 0.1, "Learning rate.";
        flat: bool = false, "Keep a state of vectors.";
    } }

    impl Algorithm for ParamsAsked {
        fn state_names(&self, dims: &[usize]) -> Vec<&'static str> {
            ASKED.fetch_add(1, Ordering::Relaxed);
            if self.flat && dims.len() == 1 { vec!["flat"] } else { vec![] }
        }
        fn step(&self, vars: &mut Slots) -> Result<()> {
            vars.each(|_, p, g, _| p - (g * self.lr)?)
        }
    }
}

mod counting {
    use candle_optim::prelude::*;

    hyper! { pub struct ParamsCounting for "counting" {
        lr: f64 = 0.1, "Learning rate.";
    } }

    impl Algorithm for ParamsCounting {
        fn state_names(&self, _: &[usize]) -> Vec<&'static str> {
            vec![]
        }
        fn memory(&self) -> Vec<(&'static str, f64)> {
            vec![("seen", 0.)]
        }
        fn step(&self, vars: &mut Slots) -> Result<()> {
            for slot in vars.iter_mut() {
                *slot.clock.memory("seen", 0.) += slot.index as f64;
            }
            Ok(())
        }
    }
}

/// NAdam keeps a number on the clock that all variables share. Those of another algorithm, which differ, stay.
#[test]
fn algorithms_of_a_chain_keep_their_numbers() {
    let vars: Vec<Var> = (0..3).map(|_| Var::zeros(2, DType::F64, device()).unwrap()).collect();
    let nadam: Spec = "nadam".parse().unwrap();
    let group = Group::new(NamedVars::numbered(vars.clone()), counting::ParamsCounting::default()).then(nadam);
    let mut optim = Optim::new(vec![group]).unwrap();
    for _ in 0..3 {
        step(&mut optim, vars.iter().map(|p| (p, p.ones_like().unwrap()))).unwrap();
    }
    let dict = optim.state_dict().unwrap();
    let seen = |name: &str| dict[&format!("{name}.seen")].to_scalar::<f64>().unwrap();
    assert_eq!(["0", "1", "2"].map(seen), [0., 3., 6.]);
}

/// A learning rate set at every step must not cost more than the step does.
#[test]
fn a_set_value_asks_once_for_each_shape() {
    use std::sync::atomic::Ordering::Relaxed;
    let shapes: [&[usize]; 3] = [&[2, 3], &[2], &[]];
    let vars: Vec<Var> = (0..300).map(|i| Var::zeros(shapes[i % 3], DType::F32, device()).unwrap()).collect();
    let mut optim = Optim::new(vec![Group::new(NamedVars::numbered(vars), asked::ParamsAsked::default())]).unwrap();
    asked::ASKED.store(0, Relaxed);
    optim.set(0, "lr", 0.2).unwrap();
    assert_eq!(asked::ASKED.load(Relaxed), 2 * shapes.len(), "before and after");
    // The second shape alone differs.
    assert!(optim.set(0, "flat", true).is_err());
}

/// A matrix and a vector of zeros learn from their first gradient that is not zero, also where steps are relative to a norm.
#[test]
fn zeros_learn() {
    for spec in all_specs().iter().filter(|spec| !closes(spec)) {
        for dims in [&[2usize, 3] as &[_], &[6]].into_iter().filter(|dims| accepts(spec, dims)) {
            let zeros = Tensor::zeros(dims, DType::F64, device()).unwrap();
            let p = Var::from_tensor(&zeros).unwrap();
            let mut optim = optim(spec, [&p]);
            // Of one sign, since steps of equal size may return to zero.
            let ordinary = (1..9).map(|seed| tensor(&normals(seed, 6), DType::F64).abs().unwrap());
            for along in [tensor(&[0.; 6], DType::F64)].into_iter().chain(ordinary) {
                step(&mut optim, [(&p, along.reshape(dims).unwrap())]).unwrap();
                assert!(floats(&p).iter().all(|x| x.is_finite()), "{} {dims:?}", spec.text());
            }
            assert!(floats(&p).iter().all(|x| *x != 0.), "{} {dims:?} stands still", spec.text());
        }
    }
}

/// At a minimum, after convergence, at a kink, where the function is NaN, and where it is flat.
#[test]
fn l_bfgs_stays_finite() {
    type Function = fn(&Tensor) -> candle_core::Result<Tensor>;
    let functions: [(&str, f64, Function, f64); 5] = [
        ("x² from 0", 0., |x| x.sqr(), 0.),
        ("x² from 5", 5., |x| x.sqr(), 0.),
        ("|x|", 0.7, |x| x.abs(), f64::NAN),
        ("-x - ln(3 - x)/2", 0., |x| (x + (x.affine(-1., 3.)?.log()? * 0.5)?)?.neg(), 2.5),
        ("0·x", 1., |x| x * 0., 1.),
    ];
    for (name, start, function, end) in functions {
        for search in ["none", "strong_wolfe"] {
            let x = var(&[start], DType::F64);
            let mut optim = optim(&spec(&format!("lbfgs:line_search_fn={search}")), [&x]);
            for _ in 0..120 {
                optim.step_with(|| function(&x)?.sum_all()).unwrap();
                assert!(floats(&x)[0].is_finite(), "{name}, {search}");
            }
            let off = (floats(&x)[0] - end).abs();
            assert!(off.is_nan() || off < 1e-4 || search == "none", "{name}, {search}: {:?}", floats(&x));
        }
    }
}

//! Bad input is an error that names it and says what is allowed, and changes nothing.

mod common;

use std::cell::Cell;
use std::fmt::{Debug, Display};

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::Optimizer;
use candle_optim::hyper::{Runs, Value};
use candle_optim::{
    AdamW, Group, NamedVars, Optim, ParamsAdamW, ParamsEma, ParamsLbfgs, ParamsLion, ParamsLookahead, ParamsMuon,
    ParamsNAdam, ParamsSam, ParamsSgd, Registry, Sgd, Spec,
};
use common::{
    SumAll, accepts, all_bits, all_specs, bits, chain, copy, evaluates, gradients, named, normals, optim, shape, spec,
    state, step, tensor, var,
};

fn message<T: Debug>(result: Result<T, impl Display>) -> String {
    match result {
        Ok(value) => panic!("no error, but {value:?}"),
        Err(error) => error.to_string(),
    }
}

/// Everything that a step changes, and the hyperparameters.
fn all(optim: &Optim) -> impl PartialEq + use<> {
    let vars: Vec<Var> = optim.slots().map(|slot| slot.var.clone()).collect();
    let keys = optim.groups().iter().enumerate().flat_map(|(at, group)| {
        let chain = group.method().chain().iter();
        let keys = chain.flat_map(|algorithm| algorithm.keys().iter().map(|key| format!("{}.{key}", algorithm.name())));
        keys.map(|key| format!("{key}={:?}, {:?}", optim.get(at, &key), optim.base(at, &key))).collect::<Vec<_>>()
    });
    (all_bits(&vars), state(optim), optim.steps(), keys.collect::<Vec<_>>())
}

/// The message of an error that leaves the optimizer as it was.
fn refused<T: Debug, E: Display>(optim: &mut Optim, act: impl FnOnce(&mut Optim) -> Result<T, E>) -> String {
    let before = all(optim);
    let error = message(act(optim));
    assert!(all(optim) == before, "{error}: something has changed");
    error
}

/// An optimizer of two groups, of a matrix and of a vector, after two steps.
fn started() -> (Var, Var, Optim) {
    let m = copy(&tensor(&normals(0, 6), DType::F32).reshape((2, 3)).unwrap());
    let v = var(&normals(1, 4), DType::F32);
    let mut optim = Optim::new(vec![
        Group::new(named(&[("m", &m)]), ParamsMuon::default()),
        Group::new(named(&[("v", &v)]), ParamsSgd { momentum: 0.9, ..Default::default() }),
    ])
    .unwrap();
    for _ in 0..2 {
        optim.step(&ones(&[&m, &v])).unwrap();
    }
    (m, v, optim)
}

fn ones(vars: &[&Var]) -> candle_core::backprop::GradStore {
    gradients(vars.iter().map(|var| (*var, var.ones_like().unwrap())))
}

#[test]
fn a_variable_stands_in_one_group_once() {
    let (a, b) = (var(&[1.], DType::F32), var(&[1.], DType::F32));
    for spec in all_specs().iter().filter(|spec| accepts(spec, &[1])) {
        let group = |vars: &[(&str, &Var)]| Group::new(named(vars), spec.clone());
        let two = Optim::new(vec![group(&[("a", &a)]), group(&[("a", &a)])]);
        assert_eq!(message(two), "variable 'a' stands twice");
        let other_name = Optim::new(vec![group(&[("a", &a)]), group(&[("b", &b), ("c", &a)])]);
        assert_eq!(message(other_name), "variable 'c' is the same as 'a'");
        assert_eq!(message(Optim::new(vec![group(&[("a", &a), ("b", &a)])])), "variable 'b' is the same as 'a'");
        assert_eq!(message(Optim::new(vec![group(&[("a", &a), ("a", &b)])])), "variable 'a' stands twice");
    }
    let listed = message(Sgd::new(vec![a.clone(), b, a], 0.1.into()));
    assert_eq!(listed, "variable '2' is the same as '0'");
}

#[test]
fn a_pattern_that_matches_nothing_lists_near_names() {
    let vars: Vec<Var> = (0..30).map(|_| var(&[1.], DType::F32)).collect();
    let names: Vec<String> = (0..30).map(|i| format!("blocks.{i}.weight")).collect();
    let mut all: NamedVars = names.iter().cloned().zip(vars).collect::<Vec<_>>().into();
    let error = message(all.take("block.7.weight"));
    let start = "unknown variable 'block.7.weight' (did you mean 'blocks.7.weight'?); allowed: blocks.7.weight, ";
    assert!(error.starts_with(start) && error.ends_with(", .."), "{error}");
    assert_eq!(error.matches(", ").count(), 20);
    assert_eq!(message(all.take("blocks.[.weight")), "cannot read 'blocks.[.weight': invalid range pattern");
    assert_eq!(all.names().len(), 30);
    let error = message(NamedVars::default().take("*"));
    assert_eq!(error, "unknown variable '*'; allowed: ");
}

#[test]
fn a_matrix_method_refuses_a_vector() {
    for spec in all_specs().iter().filter(|spec| !accepts(spec, &[3])) {
        let name = spec.method().name();
        for (dims, expected) in [
            (&[3][..], "it has 1 dimensions, and a matrix has 2"),
            (&[], "it has 0 dimensions, and a matrix has 2"),
            (&[2, 2, 2], "it has 3 dimensions, and a matrix has 2"),
        ] {
            let v = Var::ones(dims, DType::F32, common::device()).unwrap();
            let made = Optim::new(vec![Group::new(named(&[("v", &v)]), spec.clone())]);
            assert_eq!(message(made), format!("variable 'v' is not for {name}: {expected}"));
            assert!(floats_are_one(&v));
        }
    }
    let v = Var::ones(&[1, 1, 1, 1, 1, 1, 2][..], DType::F32, common::device()).unwrap();
    let made = Optim::new(vec![Group::new(named(&[("v", &v)]), common::spec("soap"))]);
    assert_eq!(message(made), "variable 'v' is not for soap: it has 7 dimensions, and at most 6 are allowed");
    let v = Var::ones(3, DType::F32, common::device()).unwrap();
    assert_eq!(
        message(candle_optim::DropIn::<ParamsMuon>::new(vec![v], Default::default())),
        "variable '0' is not for muon: it has 1 dimensions, and a matrix has 2"
    );
}

fn floats_are_one(v: &Var) -> bool {
    common::floats(v).iter().all(|x| *x == 1.)
}

#[test]
fn a_closure_method_needs_a_closure() {
    let closes = |spec: &Spec| chain(spec).iter().any(|algorithm| algorithm.evaluates());
    for spec in all_specs().iter().filter(|spec| closes(spec)) {
        let p = copy(&tensor(&normals(0, 6), DType::F32).reshape(&shape(spec, 6, 2)[..]).unwrap());
        let mut optim = optim(spec, [&p]);
        for _ in 0..2 {
            let error = refused(&mut optim, |optim| optim.step(&ones(&[&p])));
            assert_eq!(error, "step: it computes the loss again: call step_with", "{}", spec.text());
            step(&mut optim, [(&p, p.ones_like().unwrap())]).unwrap();
        }
    }
}

/// Whatever a closure's call it fails at, also in the second of two groups, where the first has moved already.
#[test]
fn a_closure_that_fails_in_mid_step_changes_nothing() {
    let closes = |spec: &Spec| chain(spec).iter().any(|algorithm| algorithm.evaluates());
    let mut kinds = 0;
    for spec in all_specs().iter().filter(|spec| closes(spec)) {
        for first in [spec.clone(), common::spec("nadam"), common::spec("prodigy"), common::spec("ema:base=adamw")] {
            let make = || {
                let vars = [1, 2, 3].map(|seed| var(&normals(seed, 6), DType::F64));
                let groups = vec![
                    Group::new(named(&[("a", &vars[0])]), first.clone()),
                    Group::new(named(&[("b", &vars[1]), ("c", &vars[2])]), spec.clone()),
                ];
                let optim = Optim::new(groups).unwrap().schedule(|base: f64, step: u64| base / (1 + step) as f64);
                (vars, optim.clip_grad_norm(2.))
            };
            // Not linear, and not quadratic: every method evaluates several times.
            let loss = |vars: &[Var; 3]| vars.iter().map(|var| var.sqr()?.sqr()?.sum_all()? + var.sum_all()?).sum_all();
            let (vars, mut optim) = make();
            let (others, mut undisturbed) = make();
            for _ in 0..3 {
                let calls = Cell::new(0);
                undisturbed
                    .step_with(|| {
                        calls.set(calls.get() + 1);
                        loss(&others)
                    })
                    .unwrap();
                for fails_at in 1..=calls.get() {
                    let left = Cell::new(fails_at);
                    let error = refused(&mut optim, |optim| {
                        optim.step_with(|| {
                            left.set(left.get() - 1);
                            if left.get() == 0 { candle_core::bail!("out of data") } else { loss(&vars) }
                        })
                    });
                    assert_eq!(error.lines().next(), Some("out of data"), "{}", spec.text());
                    kinds += 1;
                }
                optim.step_with(|| loss(&vars)).unwrap();
                assert!(all(&optim) == all(&undisturbed), "{} {}", first.text(), spec.text());
            }
        }
    }
    assert!(kinds > 50);
}

/// A loss that is no single number, where the method reads it.
#[test]
fn a_loss_of_several_numbers_changes_nothing() {
    let a = var(&normals(1, 4), DType::F64);
    let b = var(&normals(2, 4), DType::F64);
    let groups = vec![
        Group::new(named(&[("a", &a)]), ParamsAdamW::default()),
        Group::new(named(&[("b", &b)]), ParamsLbfgs::default()),
    ];
    let mut optim = Optim::new(groups).unwrap();
    for _ in 0..2 {
        let calls = Cell::new(0);
        let error = refused(&mut optim, |optim| {
            optim.step_with(|| {
                calls.set(calls.get() + 1);
                let squares = (a.sqr()?.sqr()? + b.sqr()?.sqr()?)?;
                if calls.get() > 1 { Ok(squares) } else { squares.sum_all() }
            })
        });
        assert!(error.contains("unexpected rank, expected: 0"), "{error}");
        optim.step_with(|| (a.sqr()?.sqr()? + b.sqr()?.sqr()?)?.sum_all()).unwrap();
    }
}

#[test]
fn a_gradient_that_does_not_fit_changes_nothing() {
    for spec in all_specs() {
        let (a, b) = (copy(&start(&spec, 6)), copy(&start(&spec, 4)));
        let wrong = [
            ("shape", b.ones_like().unwrap().reshape((2, 1, 2)).unwrap(), "f32 [2, 1, 2] on Cpu"),
            ("type", b.ones_like().unwrap().to_dtype(DType::F64).unwrap(), &*format!("f64 {:?} on Cpu", b.dims())),
        ];
        if !common::device().is_cpu() {
            continue;
        }
        for (what, grad, described) in wrong {
            let [mut with, mut without] = [(); 2].map(|()| {
                let vars = [copy(&a), copy(&b)];
                let optim = Optim::new(vec![Group::new(named(&[("a", &vars[0]), ("b", &vars[1])]), spec.clone())]);
                (vars, optim.unwrap())
            });
            for _ in 0..3 {
                if !evaluates(&with.1) {
                    let given = gradients([(&with.0[0], with.0[0].ones_like().unwrap()), (&with.0[1], grad.clone())]);
                    let error = refused(&mut with.1, |optim| optim.step(&given));
                    let expected =
                        format!("variable 'b' is f32 {:?} on Cpu, but its gradient is {described}", b.dims());
                    assert_eq!(error, expected, "{}: {what}", spec.text());
                }
                for (vars, optim) in [&mut with, &mut without] {
                    let along = vars.iter().map(|var| (var, var.ones_like().unwrap()));
                    step(optim, along).unwrap();
                }
            }
            assert!(all(&with.1) == all(&without.1), "{}: {what}", spec.text());
        }
    }
}

fn start(spec: &Spec, n: usize) -> Tensor {
    tensor(&normals(n as u64, n), DType::F32).reshape(&shape(spec, n, 2)[..]).unwrap()
}

/// By `set`, by `set_params`, and by a schedule: a value that would change which tensors or numbers are kept.
#[test]
fn a_key_that_would_change_the_state_is_refused() {
    let mut count = 0;
    for given in all_specs() {
        let p = copy(&start(&given, 6));
        for (at, algorithm) in chain(&given).iter().enumerate() {
            for field in algorithm.fields() {
                let mut values = common::others(field.value, field.words);
                if field.value.number().is_some() {
                    values.extend([0., 0.5, 1., 3.].map(Value::Number));
                }
                for value in values {
                    let mut optim = optim(&given, [&p]);
                    let mut changed = algorithm.clone();
                    if changed.set(field.key, value).is_err() || changed.validate().is_err() {
                        continue;
                    }
                    let kept = |algorithm: &dyn candle_optim::Algorithm| {
                        let memory = algorithm.memory().into_iter().map(|(name, _)| name);
                        (algorithm.state_names(p.dims()), memory.collect::<Vec<_>>())
                    };
                    let same = kept(&**algorithm) == kept(&*changed);
                    let key = format!("{}.{}", algorithm.name(), field.key);
                    for _ in 0..2 {
                        if same {
                            optim.set(0, &key, value).unwrap();
                            optim.set(0, &key, field.value).unwrap();
                        } else {
                            let error = refused(&mut optim, |optim| optim.set(0, &key, value));
                            let expected = format!("{}: it would keep other state with ", algorithm.name());
                            assert!(error.starts_with(&expected), "{} {key}={value}: {error}", given.text());
                            count += 1;
                        }
                        step(&mut optim, [(&p, p.ones_like().unwrap())]).unwrap();
                        assert_eq!(optim.groups()[0].method().chain()[at].get(field.key).unwrap(), field.value);
                    }
                }
            }
        }
    }
    assert!(count > 20, "{count}");

    let (_, v, mut optim) = started();
    let error = refused(&mut optim, |optim| optim.set(1, "momentum", 0.));
    assert!(error.starts_with("sgd: it would keep other state with ParamsSgd"), "{error}");
    optim.step(&ones(&[&v])).unwrap();

    let group = Group::new(named(&[("v", &v)]), ParamsSgd { momentum: 0.9, ..Default::default() });
    let to_zero = |base: f64, step: u64| if step < 2 { base } else { 0. };
    let mut optim = Optim::new(vec![group.schedule("momentum", to_zero)]).unwrap();
    optim.step(&ones(&[&v])).unwrap();
    optim.step(&ones(&[&v])).unwrap();
    for _ in 0..2 {
        let error = refused(&mut optim, |optim| optim.step(&ones(&[&v])));
        assert!(error.starts_with("sgd: it would keep other state with ParamsSgd"), "{error}");
    }

    let mut adamw = AdamW::named(named(&[("v", &v)]), ParamsAdamW::default()).unwrap();
    for _ in 0..2 {
        let (params, before) = (adamw.params().clone(), all(adamw.as_ref()));
        let error = message(adamw.set_params(ParamsAdamW { amsgrad: true, ..params.clone() }));
        assert!(error.starts_with("adamw: it would keep other state with ParamsAdamW"), "{error}");
        let error = message(adamw.set_params(ParamsAdamW { beta1: 1., ..params.clone() }));
        assert_eq!(error, "adamw: beta1 = 1.0 is not allowed: it must be a number in 0.0..1.0");
        assert!(all(adamw.as_ref()) == before && *adamw.params() == params);
        adamw.step(&ones(&[&v])).unwrap();
    }
}

/// What cannot be said when it is set is said by the next step, and no step is lost.
#[test]
fn a_learning_rate_that_is_no_number_is_an_error_of_the_next_step() {
    fn check<O: Optimizer + AsRef<Optim>>(p: &Var, make: impl Fn() -> O) {
        let mut optimizer = make();
        let lr = optimizer.learning_rate();
        for started in [false, true] {
            for (bad, printed) in
                [(f64::NAN, "NaN"), (-1., "-1.0"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf")]
            {
                let before = (bits(p), optimizer.as_ref().steps(), optimizer.as_ref().state_bytes());
                optimizer.set_learning_rate(bad);
                assert_eq!(optimizer.learning_rate().to_bits(), bad.to_bits());
                for _ in 0..2 {
                    let error = message(optimizer.step(&ones(&[p])));
                    let part = format!("lr = {printed} is not allowed: it must be a number in 0.0..");
                    assert!(error.contains(&part), "{error}");
                }
                let after = (bits(p), optimizer.as_ref().steps(), optimizer.as_ref().state_bytes());
                assert_eq!(after, before, "{started}");
            }
            optimizer.set_learning_rate(lr);
            optimizer.step(&ones(&[p])).unwrap();
        }
        let (disturbed, start) = (bits(p), p.as_detached_tensor());
        p.set(&Tensor::ones(p.shape(), p.dtype(), p.device()).unwrap()).unwrap();
        let mut undisturbed = make();
        undisturbed.step(&ones(&[p])).unwrap();
        undisturbed.step(&ones(&[p])).unwrap();
        assert_eq!(bits(p), disturbed, "{start}");
    }
    let p = Var::ones(3, DType::F32, common::device()).unwrap();
    let reset = || p.set(&p.ones_like().unwrap()).unwrap();
    check(&p, || AdamW::new(vec![p.clone()], ParamsAdamW::default()).unwrap());
    reset();
    check(&p, || Sgd::new(vec![p.clone()], 0.1.into()).unwrap());
    reset();
    check(&p, || candle_optim::NAdam::new(vec![p.clone()], ParamsNAdam::default()).unwrap());
}

#[test]
fn integers_are_left_out_or_refused() {
    let (p, whole) = (var(&[1., 2.], DType::F32), Var::ones(2, DType::I64, common::device()).unwrap());
    let mut adamw = AdamW::new(vec![whole.clone(), p.clone()], ParamsAdamW::default()).unwrap();
    adamw.step(&gradients([(&p, p.ones_like().unwrap())])).unwrap();
    assert_eq!(whole.to_vec1::<i64>().unwrap(), [1, 1]);
    assert_eq!(adamw.into_inner().iter().map(|var| var.id()).collect::<Vec<_>>(), [p.id()]);
    for (dtype, name) in [(DType::I64, "i64"), (DType::U8, "u8"), (DType::U32, "u32")] {
        let whole = Var::ones(2, dtype, common::device()).unwrap();
        let made = Optim::new(vec![Group::new(named(&[("p", &p), ("positions", &whole)]), ParamsSgd::default())]);
        assert_eq!(message(made), format!("variable 'positions' is of type {name}; allowed: f32, f64, f16, bf16"));
    }
    for dtype in [DType::F16, DType::F64, DType::U8] {
        let made = Optim::new(vec![Group::new(named(&[("p", &p)]), ParamsSgd::default()).state_dtype(dtype)]);
        let error = message(made);
        assert!(error.starts_with(&format!("unknown state type '{}'", dtype.as_str())), "{error}");
        assert!(error.ends_with("; allowed: f32, bf16"), "{error}");
    }
}

#[test]
fn an_empty_optimizer_cannot_step() {
    let grads = ones(&[&var(&[1.], DType::F32)]);
    let none = "step: the optimizer has no variables";
    let mut empty = Sgd::empty(0.1.into()).unwrap();
    for _ in 0..2 {
        assert_eq!(message(empty.step(&grads)), none);
    }
    assert_eq!(message(AdamW::new(vec![], ParamsAdamW::default()).unwrap().step(&grads)), none);
    let whole = Var::ones(2, DType::I64, &Device::Cpu).unwrap();
    assert_eq!(message(AdamW::new(vec![whole], ParamsAdamW::default()).unwrap().step(&grads)), none);
    assert_eq!(message(Optim::new(vec![]).unwrap().step(&grads)), none);
    let made = Optim::new(vec![Group::new(NamedVars::default(), ParamsLion::default())]);
    assert_eq!(message(made), "group 0 (lion): it has no variables");
}

/// Every number of every optimizer: neither NaN nor infinite, and inside its range, by a spec, by `set` and by the struct.
#[test]
fn a_hyperparameter_outside_its_range_is_refused() {
    let mut ones = 0;
    for algorithm in Registry::default().all() {
        let name = algorithm.name();
        let spec = spec(name);
        let p = copy(&start(&spec, 6));
        let mut optim = optim(&spec, &[p]);
        for field in algorithm.fields().iter().filter(|field| field.value.number().is_some()) {
            let mut bad = vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
            if field.range.ends_with("..1.0") {
                bad.extend([1., 1.5, -0.1]);
                ones += 1;
            } else if field.range.contains("[0.0..") || field.range.contains(" 0.0..") {
                bad.push(-1e-300);
            }
            for value in bad {
                let printed = Value::Number(value);
                let mut alone = algorithm.clone();
                let error = message(alone.set(field.key, printed));
                let expected =
                    format!("{name}: {} = {printed} is not allowed: it must be {}", field.key, field.allowed());
                assert_eq!(error, expected);
                assert_eq!(alone.get(field.key).unwrap(), field.value);
                assert_eq!(message(format!("{name}:{}={printed}", field.key).parse::<Spec>()), expected);
                let key = format!("{name}.{}", field.key);
                assert_eq!(refused(&mut optim, |optim| optim.set(0, &key, value)), expected);
                // Past all checks, into a new optimizer.
                if alone.assign(field.key, printed) {
                    assert_eq!(message(alone.validate()), expected);
                }
            }
        }
        let wrong = format!("{name}:nothing=1");
        assert!(message(wrong.parse::<Spec>()).starts_with(&format!("unknown key of {name} 'nothing'")));
        assert!(refused(&mut optim, |optim| optim.set(0, "nothing", 1.)).contains("'nothing'"));
    }
    assert!(ones > 10, "{ones} keys are below 1");
}

#[test]
fn groups_and_keys_that_do_not_exist() {
    let (_, _, mut optim) = started();
    assert_eq!(refused(&mut optim, |optim| optim.set(2, "lr", 0.1)), "unknown group '2'; allowed: 0, 1");
    assert_eq!(message(optim.lr(2)), "unknown group '2'; allowed: 0, 1");
    let error = refused(&mut optim, |optim| optim.set(1, "momentun", 0.1));
    assert!(error.starts_with("unknown key of sgd 'momentun' (did you mean 'momentum'?); allowed: lr, "), "{error}");
    let error = refused(&mut optim, |optim| optim.set(1, "nesterov", 1.));
    assert_eq!(error, "sgd: nesterov = 1.0 is not allowed: it must be true or false");
    let error = refused(&mut optim, |optim| optim.set(1, "lr", true));
    assert_eq!(error, "sgd: lr = true is not allowed: it must be a number in 0.0..");
}

#[test]
fn chains_that_cannot_work() {
    let a = var(&[1.], DType::F32);
    let made = |group: Group| message(Optim::new(vec![group]));
    let group = |method: ParamsSgd| Group::new(named(&[("a", &a)]), method);
    for algorithm in Registry::default().all() {
        let why = match algorithm.runs() {
            Some(Runs::Before) => "it runs before another optimizer of the group",
            Some(Runs::After) => "it runs after another optimizer of the group",
            None => continue,
        };
        let alone = Group::new(named(&[("a", &a)]), algorithm.clone());
        assert_eq!(made(alone), format!("{}: {why}", algorithm.name()));
    }
    let heavy = || ParamsSgd { momentum: 0.9, ..Default::default() };
    assert_eq!(
        made(group(ParamsSgd::default()).then(ParamsSam::default())),
        "sam: it runs before another optimizer of the group"
    );
    let lookahead = Group::new(named(&[("a", &a)]), ParamsLookahead::default()).then(heavy());
    assert_eq!(made(lookahead), "lookahead: it runs after another optimizer of the group");
    let twice = "two algorithms of a group keep a state of this name";
    assert_eq!(made(group(heavy()).then(heavy())), format!("momentum_buffer: {twice}"));
    let average = ParamsEma { decay: 0.9 };
    assert_eq!(made(group(heavy()).then(average.clone()).then(average)), format!("ema: {twice}"));
    let nesterov = ParamsSgd { nesterov: true, ..Default::default() };
    assert_eq!(made(group(nesterov)), "sgd: nesterov needs momentum above 0 and dampening = 0");
}

/// A key with a qualifier is the same key: it sets the base of a schedule, and replaces one.
#[test]
fn a_qualified_key_is_the_scheduled_one() {
    let a = var(&[1.], DType::F32);
    let group = Group::new(named(&[("a", &a)]), ParamsSgd { lr: 0.5, ..Default::default() });
    let mut optim = Optim::new(vec![group]).unwrap().schedule(|base: f64, _: u64| base / 2.);
    optim.step(&ones(&[&a])).unwrap();
    assert_eq!((optim.get(0, "sgd.lr").unwrap(), optim.base(0, "sgd.lr").unwrap()), (0.25.into(), 0.5.into()));
    optim.set(0, "sgd.lr", 2.).unwrap();
    assert_eq!((optim.lr(0).unwrap(), optim.base(0, "lr").unwrap()), (1., 2.0.into()));
    optim.step(&ones(&[&a])).unwrap();
    assert_eq!(common::floats(&a), [1. - 0.25 - 1.]);
}

#[test]
fn a_norm_to_clip_to_must_be_a_number() {
    for max in [-1., f64::NAN] {
        let a = var(&[1., 2.], DType::F32);
        let group = Group::new(named(&[("a", &a)]), ParamsSgd::default());
        let mut optim = Optim::new(vec![group]).unwrap().clip_grad_norm(max);
        let error = refused(&mut optim, |optim| optim.step(&ones(&[&a])));
        assert_eq!(error, format!("clip_grad_norm: {max} is not allowed: it must be a number in 0.0.."));
    }
}

mod fails {
    use candle_core::Tensor;
    use candle_optim::prelude::*;

    hyper! { pub struct ParamsFails for "fails" {
        fails: bool = true, "Whether three elements cannot start.";
    } }

    impl Algorithm for ParamsFails {
        fn state_names(&self, _: &[usize]) -> Vec<&'static str> {
            vec!["seen"]
        }
        fn init(&self, p: &Tensor) -> Result<State> {
            if self.fails && p.elem_count() == 3 {
                Err(candle_core::Error::Msg("out of memory".into()))?;
            }
            Ok(State::from([("seen", p.ones_like()?)]))
        }
        fn step(&self, vars: &mut Slots) -> Result<()> {
            vars.each(|_, p, g, _| p - g)
        }
    }
}

/// As memory may run out, or a kernel may not compile: in the second of two groups, after a variable that has started.
#[test]
fn a_state_that_does_not_start_leaves_none() {
    let make = || {
        let vars = [(0, 2), (1, 2), (2, 3)].map(|(seed, n)| var(&normals(seed, n), DType::F32));
        let [a, b, c] = &vars;
        let fails = fails::ParamsFails::default();
        let groups = vec![
            Group::new(named(&[("a", a)]), candle_optim::ParamsRprop::default()),
            Group::new(named(&[("b", b), ("c", c)]), candle_optim::ParamsRprop::default()).then(fails),
        ];
        (Optim::new(groups).unwrap(), vars)
    };
    let (mut optim, [a, b, c]) = make();
    let error = refused(&mut optim, |optim| optim.step(&ones(&[&a, &b, &c])));
    assert_eq!(error, "out of memory");
    assert!(optim.slots().all(|slot| slot.state().unwrap().is_empty() && slot.state_bytes() == 0));
    make().0.load_state_dict(&optim.state_dict().unwrap()).unwrap();
    let (mut fresh, [d, e, f]) = make();
    for (optim, vars) in [(&mut optim, [&a, &b, &c]), (&mut fresh, [&d, &e, &f])] {
        optim.set(1, "fails", false).unwrap();
        optim.step(&ones(&vars)).unwrap();
    }
    assert!(all(&optim) == all(&fresh));
}

//! Every optimizer against PyTorch in float64, step by step: parameters and state, fed one hard stream of gradients.
//!
//! `tests/fixtures/make.py` makes the numbers; the stream has magnitudes from 1e-9 to 1e2, zeros, sign flips, missing
//! gradients and a learning rate that changes.

mod common;

use std::collections::BTreeMap;

use candle_core::{DType, Tensor, Var};
use candle_optim::optimizer::{Config, DynOptimizer, Optim};
use candle_optim::{ParamsAdam, ParamsAdamW, ParamsMomentum, ParamsRmsProp, ParamsSgd, Spec};
use common::{fixture, floats, gradients, indices, our_specs, ours, tensor, var};

/// Parameters and state by name, a row for each recorded step.
type History = BTreeMap<String, Vec<Vec<f64>>>;

#[test]
fn f64_follows_pytorch() {
    // Relative to each value, without an absolute part: PyTorch with and without fused multiply-add agrees with itself
    // to 3.8e-13, and the smallest state is far above the subnormal numbers. Measured: 5.3e-13.
    check(DType::F64, |value, _| value, |_| 1e-12);
}

#[test]
fn f32_follows_pytorch_in_f64() {
    // Relative to the element's largest value so far, since averages that cross zero keep the error they had there.
    // Measured: 4.0e-5 centered, where v - ḡ² is a difference of near equals, else 1.1e-5.
    check(DType::F32, |_, largest| largest, |spec| if is_set(spec, "centered") { 1.6e-4 } else { 4e-5 });
}

#[test]
fn every_hyperparameter_is_set_in_some_fixture() {
    let specs = our_specs();
    for entry in ours() {
        for field in (entry.defaults)().fields() {
            let sets = |spec: &Spec| spec.params().name() == entry.name && is_set(spec, field.key);
            let (name, key) = (entry.name, field.key);
            assert!(specs.iter().any(sets), "tests/fixtures/make.py has no spec of {name} that sets {key}");
        }
    }
}

/// Whether the spec gives a hyperparameter another value than its default.
fn is_set(spec: &Spec, key: &str) -> bool {
    let defaults = common::spec(spec.params().name());
    spec.params().get(key) != defaults.params().get(key)
}

/// Compares all optimizers, specs, tensors, recorded steps and elements. An error is divided by its `scale`, a function
/// of the expected magnitude and the element's largest so far, and must not be above the spec's `tolerance`.
fn check(dtype: DType, scale: fn(f64, f64) -> f64, tolerance: fn(&Spec) -> f64) {
    let stream = Stream::load();
    let mut failures = vec![];
    let mut worst = 0f64;
    for spec in our_specs() {
        let oracle = fixture(&format!("oracle_{}", spec.params().name()));
        let history = open_loop(&spec, &stream, dtype);
        let prefix = format!("{spec}|");
        let names = oracle.keys().filter_map(|key| key.strip_prefix(&prefix));
        assert!(history.keys().map(String::as_str).eq(names), "{spec}: state is {:?}", history.keys());
        for (name, rows) in &history {
            let expected = oracle[&format!("{prefix}{name}")].to_vec2::<f64>().unwrap();
            assert_eq!(rows.len(), expected.len(), "{prefix}{name}");
            let mut largest = vec![0.; stream.start.len()];
            for ((row, expected), step) in rows.iter().zip(&expected).zip(&stream.recorded) {
                for (i, (&x, &e)) in row.iter().zip(expected).enumerate() {
                    largest[i] = e.abs().max(largest[i]);
                    let error = if x == e { 0. } else { (x - e).abs() / scale(e.abs(), largest[i]) };
                    worst = worst.max(error);
                    if error.is_nan() || error > tolerance(&spec) {
                        failures.push(format!(
                            "{prefix}{name}[{i}], step {step}: {x:e}, PyTorch {e:e}, off by {error:.1e}"
                        ));
                    }
                }
            }
        }
    }
    println!("{dtype:?}: the largest error is {worst:.2e}");
    assert!(failures.is_empty(), "{} differences, the first:\n{}", failures.len(), failures[0]);
}

/// What every optimizer is fed.
struct Stream {
    start: Vec<f64>,
    gradients: Vec<Option<Tensor>>,
    lr_factor: Vec<f64>,
    recorded: Vec<usize>,
}

impl Stream {
    fn load() -> Self {
        let inputs = fixture("oracle_inputs");
        let gradients = indices(&inputs["has_gradient"])
            .into_iter()
            .enumerate()
            .map(|(step, has)| (has == 1).then(|| inputs["gradients"].get(step).unwrap()))
            .collect();
        Self {
            start: floats(&inputs["start"]),
            gradients,
            lr_factor: floats(&inputs["lr_factor"]),
            recorded: indices(&inputs["recorded"]),
        }
    }
}

fn open_loop(spec: &Spec, stream: &Stream, dtype: DType) -> History {
    let p = var(&stream.start, dtype);
    let mut optimizer = build(spec, &p);
    let mut history = History::new();
    for (i, gradient) in stream.gradients.iter().enumerate() {
        optimizer.set_learning_rate(spec.params().lr() * stream.lr_factor[i]);
        let gradient = gradient.iter().map(|g| (&p, tensor(&floats(g), dtype)));
        optimizer.step(&gradients(gradient)).unwrap();
        if stream.recorded.contains(&(i + 1)) {
            let tensors = [("p", p.as_tensor().clone())].into_iter().chain(optimizer.state());
            for (name, tensor) in tensors {
                history.entry(name.into()).or_default().push(floats(&tensor));
            }
        }
    }
    history
}

/// An optimizer of any type that shows its state.
trait Inspect: DynOptimizer {
    fn state(&self) -> Vec<(&'static str, Tensor)>;
}

impl<C: Config> Inspect for Optim<C> {
    fn state(&self) -> Vec<(&'static str, Tensor)> {
        self.state(0).unwrap().unwrap()
    }
}

fn build(spec: &Spec, p: &Var) -> Box<dyn Inspect> {
    fn typed<C: Config + Default>(spec: &Spec, p: &Var) -> Box<dyn Inspect> {
        let mut config = C::default();
        for (key, value) in spec.resolved() {
            assert!(config.set(key, value), "{spec}: {key}");
        }
        Box::new(Optim::try_new(vec![p.clone()], config).unwrap())
    }
    match spec.params().name() {
        "sgd" => typed::<ParamsSgd>(spec, p),
        "momentum" => typed::<ParamsMomentum>(spec, p),
        "rmsprop" => typed::<ParamsRmsProp>(spec, p),
        "adam" => typed::<ParamsAdam>(spec, p),
        "adamw" => typed::<ParamsAdamW>(spec, p),
        name => panic!("{name} is registered, but has no line in `build` of tests/oracle.rs"),
    }
}

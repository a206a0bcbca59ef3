//! Layers and losses compared with Candle's, and their gradients with finite differences.

#[path = "../../tests/common/mod.rs"]
mod common;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{Linear, Module, loss, seq};
use candle_optim::nn::{bce_with_logits, cross_entropy, mse};
use candle_optim_lab::nn::{Activation, Dense, Mlp};
use common::{fixture, floats, largest, normals, spec};

const ALL: [Activation; 5] =
    [Activation::Identity, Activation::Relu, Activation::Tanh, Activation::Gelu, Activation::Silu];

type Loss<'a> = &'a dyn Fn() -> Result<Tensor>;

fn var(seed: u64, shape: &[usize], dtype: DType) -> Var {
    let values = normals(seed, shape.iter().product());
    Var::from_tensor(&common::tensor(&values, dtype).reshape(shape).unwrap()).unwrap()
}

fn apart(a: &Tensor, b: &Tensor) -> f64 {
    largest(floats(a).into_iter().zip(floats(b)).map(|(a, b)| (a - b) / b.abs().max(1.)))
}

/// Two losses of the same variables and their gradients agree to `tolerance`.
fn agree(what: &str, vars: &[&Var], ours: Loss, composed: Loss, tolerance: f64) {
    let (ours, composed) = (ours().unwrap(), composed().unwrap());
    assert!(apart(&ours, &composed) <= tolerance, "{what}: {ours} instead of {composed}");
    // Scaled, so that the gradient handed to the backward pass is not one.
    let (ours, composed) = ((ours * 3.).unwrap().backward().unwrap(), (composed * 3.).unwrap().backward().unwrap());
    for (i, var) in vars.iter().enumerate() {
        let difference = apart(ours.get(var).unwrap(), composed.get(var).unwrap());
        assert!(difference <= tolerance, "{what}: gradient {i} is off by {difference:e}");
    }
}

/// The gradient of a loss in f64 is its slope, by central differences.
fn has_its_slope(what: &str, vars: &[&Var], loss: Loss) {
    const H: f64 = 1e-5;
    let grads = loss().unwrap().backward().unwrap();
    for var in vars {
        let (values, gradient) = (floats(var), floats(grads.get(var).unwrap()));
        for i in 0..values.len() {
            let at = |x: f64| {
                let mut moved = values.clone();
                moved[i] = x;
                var.set(&Tensor::from_vec(moved, var.shape(), &Device::Cpu).unwrap()).unwrap();
                floats(&loss().unwrap())[0]
            };
            let slope = (at(values[i] + H) - at(values[i] - H)) / (2. * H);
            at(values[i]);
            assert!((slope - gradient[i]).abs() < 1e-8, "{what}: {} where the slope is {slope}", gradient[i]);
        }
    }
}

#[test]
fn a_dense_layer_is_a_linear_one_and_its_activation() {
    for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 2e-5)] {
        // The last is large enough for Candle's product.
        for [rows, inputs, outputs] in [[1, 1, 1], [3, 2, 5], [9, 17, 16], [129, 16, 1], [700, 16, 33], [260, 130, 129]]
        {
            for activation in ALL {
                let (x, b) = (var(1, &[rows, inputs], dtype), var(3, &[outputs], dtype));
                let w = var(2, &[outputs, inputs], dtype);
                let dense = Dense::from_vars(&w, &b, activation).unwrap();
                let linear = Linear::new(w.as_tensor().clone(), Some(b.as_tensor().clone()));
                let act = |y: Tensor| match activation {
                    Activation::Identity => Ok(y),
                    Activation::Relu => y.relu(),
                    Activation::Tanh => y.tanh(),
                    Activation::Gelu => y.gelu_erf(),
                    Activation::Silu => y.silu(),
                };
                // Candle's gradient of GELU has a constant of six digits.
                let tolerance = if activation == Activation::Gelu { 1e-6f64.max(tolerance) } else { tolerance };
                let what = format!("{dtype:?} {rows}×{inputs} to {outputs}, {activation:?}");
                agree(
                    &what,
                    &[&x, &w, &b],
                    &|| dense.forward(&x)?.sqr()?.mean_all(),
                    &|| act(linear.forward(&x)?)?.sqr()?.mean_all(),
                    tolerance,
                );
            }
        }
    }
}

#[test]
fn activations_are_those_of_pytorch() {
    let expected = fixture("activations");
    for (dtype, ulp) in [(DType::F64, f64::EPSILON), (DType::F32, f32::EPSILON.into())] {
        // x·1 + 0
        let (weight, bias) = (common::tensor(&[1.], dtype).reshape((1, 1)).unwrap(), common::tensor(&[0.], dtype));
        let x = Var::from_tensor(&expected["x"].to_dtype(dtype).unwrap().unsqueeze(1).unwrap()).unwrap();
        for activation in Activation::BETWEEN_LAYERS {
            let layer = Dense::new(weight.clone(), bias.clone(), activation).unwrap();
            let network = Mlp::new(vec![layer.clone()]).unwrap();
            // Candle computes SiLU's gradient as σ·(1 - y) + y, which rounds numbers as large as y.
            let tolerance = ulp * if activation == Activation::Silu { 10. } else { 2. };
            for (what, y) in [("layer", layer.forward(&x)), ("network", network.forward(&x))] {
                let y = y.unwrap();
                let grads = y.backward().unwrap();
                for (part, found) in [("y", &y), ("grad", grads.get(&x).unwrap())] {
                    let of_pytorch = expected[&format!("{}|{part}", activation.name())].unsqueeze(1).unwrap();
                    let difference = apart(found, &of_pytorch);
                    let what = format!("{part} of a {what} in {dtype:?} with {activation:?}");
                    assert!(difference <= tolerance, "{what} is off by {difference:e}");
                }
            }
        }
    }
}

#[test]
fn activations_have_names() {
    for activation in Activation::BETWEEN_LAYERS {
        assert_eq!(activation.name().parse::<Activation>().unwrap(), activation);
    }
    let error = |name: &str| name.parse::<Activation>().unwrap_err().to_string();
    assert_eq!(error("gleu"), "unknown activation 'gleu' (did you mean 'gelu'?); allowed: relu, tanh, gelu, silu");
    assert!(error("identity").starts_with("unknown activation 'identity'"));
}

#[test]
fn dimensions_before_the_rows_are_rows() {
    let (layers, vars) = layers(&[3, 4, 2], DType::F64);
    let network = Mlp::new(layers.clone()).unwrap();
    for leading in [&[2usize, 5] as &[_], &[2, 1, 5], &[0, 5], &[1, 1, 1, 1]] {
        let x = var(7, &[leading, &[3]].concat(), DType::F64);
        let linear = Linear::new(vars[0].as_tensor().clone(), Some(vars[1].as_tensor().clone()));
        let flat = x.flatten(0, leading.len() - 1).unwrap();
        let expected = linear.forward(&flat).unwrap().relu().unwrap();
        let found = layers[0].forward(&x).unwrap();
        assert_eq!(found.dims(), [leading, &[4]].concat());
        assert!(apart(&found.reshape(expected.shape()).unwrap(), &expected) < 1e-14);
        for y in [network.forward(&x).unwrap(), network.evaluate(&x).unwrap()] {
            assert_eq!(y.dims(), [leading, &[2]].concat());
            assert_eq!(floats(&y), floats(&network.forward(&flat).unwrap()));
        }
    }
    let error = layers[0].forward(&var(1, &[3], DType::F64)).unwrap_err().to_string();
    assert!(error.starts_with("an input of shape [3]; allowed: [.., rows, features]"), "{error}");
}

#[test]
fn losses_are_candles_where_those_are_finite() {
    for (dtype, tolerance) in [(DType::F64, 1e-14), (DType::F32, 2e-6)] {
        for rows in [1, 15, 16, 33, 700] {
            let (x, y) = (var(1, &[rows, 3], dtype), var(2, &[rows, 3], dtype));
            let share = candle_nn::ops::sigmoid(&y).unwrap().detach();
            let classes = Tensor::from_iter((0..rows as u32).map(|row| row * 7 % 3), &Device::Cpu).unwrap();
            let what = |loss: &str| format!("{loss} {dtype:?} {rows}");
            let composed = || loss::binary_cross_entropy_with_logit(&x, &share);
            agree(&what("bce"), &[&x], &|| bce_with_logits(&x, &share), &composed, tolerance);
            agree(&what("mse"), &[&x, &y], &|| mse(&x, &y), &|| loss::mse(&x, &y), tolerance);
            let composed = || loss::cross_entropy(&x, &classes);
            agree(&what("cross entropy"), &[&x], &|| cross_entropy(&x, &classes), &composed, tolerance);
            // Strided: a transposed copy of the transpose.
            let strided = |t: &Tensor| t.t()?.contiguous()?.t();
            agree(&what("mse, strided"), &[&x, &y], &|| mse(&strided(&x)?, &strided(&y)?), &|| mse(&x, &y), tolerance);
        }
    }
}

/// Layers of these sizes with ReLU between them, and their variables.
fn layers(sizes: &[usize], dtype: DType) -> (Vec<Dense>, Vec<Var>) {
    layers_with(Activation::Relu, sizes, dtype)
}

fn layers_with(between: Activation, sizes: &[usize], dtype: DType) -> (Vec<Dense>, Vec<Var>) {
    let (mut layers, mut vars) = (vec![], vec![]);
    for (i, pair) in sizes.windows(2).enumerate() {
        let (w, b) = (var(i as u64, &[pair[1], pair[0]], dtype), var(9 + i as u64, &[pair[1]], dtype));
        let activation = if i + 2 == sizes.len() { Activation::Identity } else { between };
        layers.push(Dense::from_vars(&w, &b, activation).unwrap());
        vars.extend([w, b]);
    }
    (layers, vars)
}

#[test]
fn a_network_as_one_operation_is_its_layers() {
    // In half precision it goes layer by layer, and with GELU.
    let cases = || [1, 3, 60, 128, 300].into_iter().flat_map(|n| [(n, Activation::Relu), (n, Activation::Gelu)]);
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-4), (DType::BF16, 0.)] {
        // The last has a layer large enough for Candle's product.
        for sizes in [&[2usize, 16, 16, 1] as &[_], &[3, 7, 5], &[1, 1, 1, 1], &[5, 33, 2], &[9, 4], &[8, 300, 130, 3]]
        {
            for (rows, between) in cases() {
                let what = format!("{dtype:?} {rows} rows, {sizes:?} with {between:?}");
                let (layers, mut vars) = layers_with(between, sizes, dtype);
                let network = Mlp::new(layers.clone()).unwrap();
                let one_by_one = layers.into_iter().fold(seq(), |network, layer| network.add(layer));
                vars.push(var(20, &[rows, sizes[0]], dtype));
                let (x, vars) = (vars[vars.len() - 1].clone(), vars.iter().collect::<Vec<_>>());
                let loss = |y: Tensor| y.sqr()?.to_dtype(DType::F64)?.mean_all();
                agree(&what, &vars, &|| loss(network.forward(&x)?), &|| loss(one_by_one.forward(&x)?), tolerance);
                let (evaluated, results) = (network.evaluate(&x).unwrap(), network.forward(&x).unwrap());
                assert_eq!(floats(&evaluated), floats(&results), "{what}");
                assert!(!evaluated.track_op(), "{what}");
            }
        }
    }
}

#[test]
fn gradients_without_a_graph_are_those_with_one() {
    for dtype in [DType::F64, DType::F32] {
        for sizes in [&[2usize, 16, 16, 1] as &[_], &[3, 7, 5], &[1, 1, 1, 1], &[5, 33, 2], &[9, 4]] {
            for rows in [1, 3, 60, 128, 300] {
                let (layers, vars) = layers(sizes, dtype);
                let network = Mlp::new(layers).unwrap();
                let x = var(20, &[rows, sizes[0]], dtype).as_detached_tensor();
                assert!(network.is_one_pass(&x).unwrap());
                let y = network.forward(&x).unwrap();
                let upstream = var(21, y.dims(), dtype).as_detached_tensor();
                let grads = (y * &upstream).unwrap().sum_all().unwrap().backward().unwrap();
                let direct = network.gradients(&x, &upstream).unwrap();
                assert_eq!(direct.len(), vars.len());
                for (var, direct) in vars.iter().zip(&direct) {
                    // To the bit: training takes either way.
                    let bits = |grad: &Tensor| floats(grad).into_iter().map(f64::to_bits).collect::<Vec<_>>();
                    assert_eq!(bits(grads.get(var).unwrap()), bits(direct), "{dtype:?} {rows} rows, {sizes:?}");
                }
            }
        }
    }
}

#[test]
fn a_network_of_no_layers_or_of_unequal_widths_is_an_error() {
    let error = |layers| Mlp::new(layers).unwrap_err().to_string();
    assert_eq!(error(vec![]), "mlp: no layers; allowed: one or more");
    let unequal = [layers(&[2, 3], DType::F32).0, layers(&[4, 1], DType::F32).0].concat();
    assert_eq!(error(unequal), "mlp: layer 1 takes 4 inputs; allowed: 3");
    let network = Mlp::new(layers(&[2, 3, 1], DType::F32).0).unwrap();
    for x in [var(1, &[5, 3], DType::F32), var(1, &[5], DType::F32), var(1, &[5, 2], DType::F64)] {
        assert!(network.forward(&x).is_err() && network.evaluate(&x).is_err(), "{x}");
    }
    assert_eq!(network.forward(&var(1, &[0, 2], DType::F32)).unwrap().dims(), [0, 1]);
}

#[test]
fn gradients_are_slopes() {
    let (x, w, b) = (var(1, &[5, 3], DType::F64), var(2, &[4, 3], DType::F64), var(3, &[4], DType::F64));
    let dense = Dense::from_vars(&w, &b, Activation::Relu).unwrap();
    let y = var(4, &[5, 4], DType::F64);
    let classes = Tensor::new(&[0u32, 3, 1, 2, 3], &Device::Cpu).unwrap();
    let share = candle_nn::ops::sigmoid(&y).unwrap().detach();
    has_its_slope("mse", &[&x, &w, &b, &y], &|| mse(&dense.forward(&x)?, &y));
    has_its_slope("cross entropy", &[&x, &w, &b], &|| cross_entropy(&dense.forward(&x)?, &classes));
    for between in ALL {
        let (layers, vars) = layers_with(between, &[3, 6, 5, 4], DType::F64);
        let network = Mlp::new(layers).unwrap();
        let vars: Vec<_> = vars.iter().chain([&x]).collect();
        has_its_slope(&format!("network with {between:?}"), &vars, &|| mse(&network.forward(&x)?, &y));
    }
    has_its_slope("bce", &[&x, &w, &b], &|| bce_with_logits(&dense.forward(&x)?, &share));
}

#[test]
fn a_model_trains_in_half_precision_and_with_half_precision_state() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        for state in [DType::F32, DType::BF16] {
            let (w1, b1) = (var(1, &[16, 4], dtype), var(2, &[16], dtype));
            let (w2, b2) = (var(3, &[3, 16], dtype), var(4, &[3], dtype));
            let hidden = Dense::from_vars(&w1, &b1, Activation::Relu).unwrap();
            let last = Dense::from_vars(&w2, &b2, Activation::Identity).unwrap();
            let x = var(5, &[96, 4], dtype).as_detached_tensor();
            let classes = x.to_dtype(DType::F32).unwrap().narrow(1, 0, 3).unwrap().argmax(1).unwrap();
            let loss = || cross_entropy(&last.forward(&hidden.forward(&x)?)?, &classes);
            let mut optimizer = common::optim_with(&spec("adamw:lr=0.01"), &[w1, b1, w2, b2], Some(state));
            for _ in 0..200 {
                optimizer.step(&loss().unwrap().backward().unwrap()).unwrap();
            }
            let end = floats(&loss().unwrap())[0];
            assert!(end < 0.1, "{dtype:?} with state in {state:?} ends at {end}");
        }
    }
}

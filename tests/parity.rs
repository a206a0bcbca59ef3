//! Next to Candle's own optimizers, fed the same gradients.

mod common;

use candle_core::{DType, Tensor, Var};
use candle_optim::Spec;
use common::{bits, floats, gradients, largest, normals, spec, tensor};

/// The parameter after each step along gradients of this shape.
fn path(spec: &Spec, start: &Tensor, steps: &[Tensor]) -> Vec<Tensor> {
    let p = Var::from_tensor(start).unwrap();
    let mut optimizer = spec.build(vec![p.clone()]).unwrap();
    let step = |gradient: &Tensor| {
        optimizer.step(&gradients([(&p, gradient.clone())])).unwrap();
        p.as_detached_tensor().copy().unwrap()
    };
    steps.iter().map(step).collect()
}

/// A start and gradients of many magnitudes.
fn stream(shape: &[usize], steps: usize, dtype: DType) -> (Tensor, Vec<Tensor>) {
    let n = shape.iter().product();
    let magnitudes: Vec<f64> = normals(1, n).into_iter().map(|x| 10f64.powf(2. * x - 2.)).collect();
    let make = |values: &[f64]| tensor(values, dtype).reshape(shape).unwrap();
    let gradient = |step| {
        let values = normals(2 + step as u64, n);
        make(&values.iter().zip(&magnitudes).map(|(x, magnitude)| x * magnitude).collect::<Vec<_>>())
    };
    (make(&normals(0, n)), (0..steps).map(gradient).collect())
}

#[test]
fn sgd_is_candles_to_the_bit() {
    for dtype in [DType::F32, DType::F64] {
        for shape in [&[][..], &[1], &[7, 5], &[1025], &[3, 1, 2, 4]] {
            for lr in [1e-3, 0.1, 1. / 3.] {
                let (start, steps) = stream(shape, 50, dtype);
                let run = |name: &str| path(&spec(name).or_lr(lr), &start, &steps);
                for (ours, candles) in run("sgd").iter().zip(run("candle-sgd")) {
                    assert_eq!(bits(ours), bits(&candles), "{dtype:?} {shape:?} lr={lr}");
                }
            }
        }
    }
}

#[test]
fn sgd_differs_from_candles_in_the_sign_of_zero_alone() {
    // Candle adds 0 to the product lr·g, which makes -0 positive: p - lr·g is then -0 for it, and 0 for us and PyTorch.
    let (start, step) = (tensor(&[-0., -0., 0., 0.], DType::F32), tensor(&[-0., 0., -0., 0.], DType::F32));
    let run = |name: &str| path(&spec(name), &start, std::slice::from_ref(&step)).remove(0);
    let (ours, candles) = (run("sgd"), run("candle-sgd"));
    assert_eq!(floats(&ours), floats(&candles));
    let differ: Vec<bool> = bits(&ours).iter().zip(bits(&candles)).map(|(a, b)| *a != b).collect();
    assert_eq!(differ, [true, false, false, false]);
}

#[test]
fn adamw_is_candles_but_for_rounding() {
    // Candle scales the averages by the reciprocals of the bias corrections, where we correct the step size and the
    // root: a few roundings in another order. Bounds are four times what was measured.
    for (dtype, ulps, drift) in [(DType::F32, 8., 2.4e-6), (DType::F64, 16., 2e-14)] {
        let (start, steps) = stream(&[4001], 1000, dtype);
        let run = |name: &str| path(&spec(name).or_lr(0.01), &start, &steps);
        let (ours, candles) = (run("adamw"), run("candle-adamw"));
        // In units of the last place of the parameter before the step or after it, whichever is larger.
        let epsilon = if dtype == DType::F32 { f64::from(f32::EPSILON) } else { f64::EPSILON };
        let place = |x: f64| 2f64.powf(x.abs().log2().floor()) * epsilon;
        let first = floats(&ours[0]).into_iter().zip(floats(&candles[0])).zip(floats(&start));
        let first = largest(first.map(|((a, b), start)| (a - b) / place(a.abs().max(start.abs()))));
        let all = ours.iter().zip(&candles).flat_map(|(a, b)| floats(a).into_iter().zip(floats(b)));
        let all = largest(all.map(|(a, b)| (a - b) / b.abs().max(1.)));
        println!("{dtype:?}: {first} ulp after a step, {all:.1e} over {} steps", steps.len());
        assert!(first <= ulps, "{dtype:?}: {first} ulp after a step");
        assert!(all <= drift, "{dtype:?}: {all:e} over all steps");
    }
}

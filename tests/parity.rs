//! Next to Candle's own optimizers, fed the same gradients.

mod common;

use candle_core::{DType, Tensor, Var};
use candle_nn::Optimizer;
use candle_optim::{AdamW, Sgd};
use common::{bits, copy, floats, gradients, largest, normals, tensor};

/// The parameter after each step along gradients of this shape.
fn path<O: Optimizer>(config: O::Config, start: &Tensor, steps: &[Tensor]) -> Vec<Tensor> {
    let p = copy(start);
    let mut optimizer = O::new(vec![p.clone()], config).unwrap();
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
                let ours = path::<Sgd>(lr.into(), &start, &steps);
                let candles = path::<candle_nn::SGD>(lr, &start, &steps);
                for (ours, candles) in ours.iter().zip(candles) {
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
    let steps = std::slice::from_ref(&step);
    let ours = path::<Sgd>(1e-3.into(), &start, steps).remove(0);
    let candles = path::<candle_nn::SGD>(1e-3, &start, steps).remove(0);
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
        let params = candle_nn::ParamsAdamW { lr: 0.01, ..Default::default() };
        let ours = path::<AdamW>(params.clone().into(), &start, &steps);
        let candles = path::<candle_nn::AdamW>(params, &start, &steps);
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

/// One step at a time, from where Candle's has come, at any step: what the two formulas themselves round apart, in units of
/// the last place of the parameter or of the learning rate, whichever is larger. An average of gradients that cancel is
/// small, and its rounding is not. In f64 most of it is βᵗ, by repeated products for Candle: an ulp of 0.999ᵗ is many of
/// 1 - 0.999ᵗ. Bounds are four times what was measured.
#[test]
fn every_step_of_adamw_is_candles_but_for_rounding() {
    const LR: f64 = 0.01;
    for (dtype, ulps) in [(DType::F32, 12.), (DType::F64, 168.)] {
        let epsilon = if dtype == DType::F32 { f64::from(f32::EPSILON) } else { f64::EPSILON };
        let place = |x: f64| 2f64.powf(x.log2().floor()) * epsilon;
        let (start, steps) = stream(&[4001], 1000, dtype);
        let params = candle_nn::ParamsAdamW { lr: LR, ..Default::default() };
        let (p, q) = (copy(&start), copy(&start));
        let mut ours = AdamW::new(vec![p.clone()], params.clone().into()).unwrap();
        let mut candles = candle_nn::AdamW::new(vec![q.clone()], params).unwrap();
        let mut worst = 0f64;
        for step in &steps {
            let before = floats(&q);
            p.set(&q.as_detached_tensor().copy().unwrap()).unwrap();
            ours.step(&gradients([(&p, step.clone())])).unwrap();
            candles.step(&gradients([(&q, step.clone())])).unwrap();
            let ends = floats(&p).into_iter().zip(floats(&q)).zip(before);
            let away = ends.map(|((a, b), before)| (a - b) / place(a.abs().max(before.abs()).max(LR)));
            worst = worst.max(largest(away));
        }
        println!("{dtype:?}: {worst} ulp at any of {} steps", steps.len());
        assert!(worst <= ulps, "{dtype:?}: {worst} ulp");
    }
}

/// Candle's optimizers and ours do the same with a parameter without a gradient, and with an integer.
#[test]
fn a_drop_in_skips_what_candles_skips() {
    fn end<O: Optimizer>(config: O::Config) -> Vec<u64> {
        let (p, q) = (tensor(&[1., 2.], DType::F32), tensor(&[3., 4.], DType::F32));
        let (p, q) = (copy(&p), copy(&q));
        let whole = Var::ones(2, DType::U32, p.device()).unwrap();
        let mut optimizer = O::new(vec![p.clone(), whole, q.clone()], config).unwrap();
        optimizer.backward_step(&p.sum_all().unwrap()).unwrap();
        [bits(&p), bits(&q)].concat()
    }
    assert_eq!(end::<Sgd>(0.1.into()), end::<candle_nn::SGD>(0.1));
    let params = candle_nn::ParamsAdamW::default();
    assert_eq!(end::<AdamW>(params.clone().into())[2..], end::<candle_nn::AdamW>(params)[2..]);
}

//! An optimizer of one's own as one generic function: it gets a name in specs, and takes the steps of a plain loop. It is
//! AdaBelief without options.
//!
//! ```sh
//! cargo run --release --example own_rule
//! ```
use candle_core::{Device, Tensor, Var};
use candle_optim::{Error, Group, NamedVars, Optim, Registry};

/// ```text
/// m ← β₁·m + (1 - β₁)·g                     m̂ = m/(1 - β₁ᵗ)
/// s ← β₂·s + (1 - β₂)·(g - m)² + ε          ŝ = s/(1 - β₂ᵗ)
/// p ← p - lr·m̂/(√ŝ + ε)
/// ```
/// Zhuang et al., 2020, arXiv:2010.07468.
mod adabelief {
    use candle_optim::prelude::*;

    hyper! { pub struct ParamsAdaBelief for "mybelief" {
        lr: f64 [0.0..] = 1e-3, "Learning rate.";
        beta1: f64 [0.0..1.0] = 0.9, "Decay β₁ of the gradient's average.";
        beta2: f64 [0.0..1.0] = 0.999, "Decay β₂ of the average of squared deviations.";
        eps: f64 [0.0..] = 1e-8, "Added to average and root, against division by zero.";
    } }

    // The scalars of a step: the host computes them once, in f64. `from` implements `Elementwise` with these expressions.
    rule! {
        pub struct Step from (h: ParamsAdaBelief, t) {
            beta1, one_minus_beta1 = 1. - h.beta1,
            beta2, one_minus_beta2 = 1. - h.beta2,
            eps, root_correction = (1. - t.power(h.beta2)).sqrt(),
            step_size = h.lr / (1. - t.power(h.beta1)),
        }
        state Moments { exp_avg, exp_avg_var }
    }

    // What a step does to one element, whatever the type and the device.
    impl<R: Real> Rule<R> for Step<R> {
        #[inline(always)]
        fn update(&self, p: R, g: R, s: &mut Moments<R>) -> R {
            s.exp_avg = ema(s.exp_avg, g, self.beta1, self.one_minus_beta1);
            let deviation = g - s.exp_avg;
            s.exp_avg_var = ema(s.exp_avg_var, deviation * deviation, self.beta2, self.one_minus_beta2) + self.eps;
            p - self.step_size * s.exp_avg / (s.exp_avg_var.sqrt() / self.root_correction + self.eps)
        }
    }
}

const START: [f64; 3] = [1., -2., 0.5];
const CURVATURE: [f64; 3] = [1., 10., 0.1];
const STEPS: i32 = 30;

/// The equations above on the loss Σ c·p²/2, whose gradient is c·p.
fn plain_loop(lr: f64, beta1: f64, beta2: f64, eps: f64) -> [f64; 3] {
    let (mut p, mut m, mut s) = (START, [0.; 3], [0.; 3]);
    for t in 1..=STEPS {
        for i in 0..3 {
            let g = CURVATURE[i] * p[i];
            m[i] = beta1 * m[i] + (1. - beta1) * g;
            s[i] = beta2 * s[i] + (1. - beta2) * (g - m[i]).powi(2) + eps;
            let (m_hat, s_hat) = (m[i] / (1. - beta1.powi(t)), s[i] / (1. - beta2.powi(t)));
            p[i] -= lr * m_hat / (s_hat.sqrt() + eps);
        }
    }
    p
}

fn main() -> Result<(), Error> {
    let mut registry = Registry::default();
    registry.register::<adabelief::ParamsAdaBelief>()?;
    let spec = registry.parse("mybelief:lr=0.05,beta2=0.99")?;
    println!("{spec}");

    let p = Var::new(&START, &Device::Cpu)?;
    let curvature = Tensor::new(&CURVATURE, &Device::Cpu)?;
    let mut optim = Optim::new(vec![Group::new(NamedVars::numbered([p.clone()]), spec)])?;
    for _ in 0..STEPS {
        let loss = (p.sqr()? * &curvature)?.sum_all()?.affine(0.5, 0.)?;
        optim.backward_step(&loss)?;
    }

    let (found, expected) = (p.to_vec1::<f64>()?, plain_loop(0.05, 0.9, 0.99, 1e-8));
    let error = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0., f64::max);
    println!("after {STEPS} steps from {START:?}: {found:.6?}");
    println!("largest difference to the plain loop: {error:.1e}");
    assert!(error < 1e-12);
    Ok(())
}

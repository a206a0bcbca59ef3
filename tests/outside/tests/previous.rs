//! A method of another crate whose state is the weights before the step. They must not change with the variable.
use candle_core::{DType, Device, Tensor, Var};
use candle_optim::{Group, NamedVars, Optim};

type Fallible<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

mod heavy_ball {
    use candle_optim::prelude::*;

    hyper! { pub struct ParamsHeavyBall for "heavy-ball" {
        lr: f64 [0.0..] = 0.1, "Learning rate.";
        momentum: f64 [0.0..1.0] = 0.5, "Share of the last difference.";
    } }

    impl Algorithm for ParamsHeavyBall {
        fn state_names(&self, _: &[usize]) -> Vec<&'static str> {
            vec!["previous"]
        }

        fn step(&self, vars: &mut Slots) -> Result<()> {
            vars.each(|t, p, g, state| {
                let last = if t.step == 1 { p.clone() } else { state["previous"].clone() };
                let momentum = ((p - last)? * self.momentum)?;
                // The same memory in another tensor.
                state.insert("previous", p.reshape(p.dims())?.detach());
                (p - (g * self.lr)?)? + momentum
            })
        }
    }
}

#[test]
fn state_that_is_the_weights_does_not_change_with_them() -> Fallible {
    let w = Var::new(&[1f64, -2.], &Device::Cpu)?;
    let vars = NamedVars::from(vec![("w".to_owned(), w.clone())]);
    let mut optim = Optim::new(vec![Group::new(vars, heavy_ball::ParamsHeavyBall::default())])?;
    let (mut p, mut last) = ([1f64, -2.], [1f64, -2.]);
    for _ in 0..6 {
        let mut grads = Tensor::zeros((), DType::F64, &Device::Cpu)?.backward()?;
        grads.insert(&w, (w.as_detached_tensor() * 1.)?);
        optim.step(&grads)?;
        let next = [0, 1].map(|i| p[i] - p[i] * 0.1 + (p[i] - last[i]) * 0.5);
        (last, p) = (p, next);
        let close = |a: &[f64], b: &[f64; 2]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-14);
        assert!(close(&w.to_vec1()?, &p), "{w} instead of {p:?}");
        assert!(close(&optim.state_dict()?["w.previous"].to_vec1()?, &last));
    }
    Ok(())
}

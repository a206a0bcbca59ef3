//! NovoGrad: momentum of gradients, each divided by the norm of its tensor.
//!
//! ```text
//! v ← β₂·v + (1 - β₂)·‖g‖²        v ← ‖g‖² if v = 0; one number for each variable; AMSGrad: the largest so far
//! u = g/(√v + ε) + λ·p            averaging: (1 - β₁)·u
//! m ← β₁·m + u
//! p ← p - lr·m                    decoupled decay: p·(1 - lr·λ) first, and no λ·p in u
//! ```
//! Ginsburg et al., 2019, arXiv:1905.11286, algorithm 1; as `NvNovoGrad` of timm, where v starts again after gradients
//! of zero, and the first m is averaged like all others.
use super::tensors::{average, decayed, ratio};
use crate::prelude::*;

hyper! { pub struct ParamsNovoGrad for "novograd", "Momentum of gradients, each over its tensor's norm", "Ginsburg et al. 2019, arXiv:1905.11286", "timm" {
    lr: f64 [0.0..] = 1e-3, "Learning rate.";
    beta1: f64 [0.0..1.0] = 0.95, "Decay β₁ of the momentum.";
    beta2: f64 [0.0..1.0] = 0.98, "Decay β₂ of the squared norm's average.";
    eps: f64 [0.0..] = 1e-8, "Added to the root, against division by zero.";
    weight_decay: f64 [0.0..] = 0., "Weight decay λ.";
    grad_averaging: bool = false, "Average the gradients, in place of their sum.";
    amsgrad: bool = false, "Divide by the largest average so far (AMSGrad).";
    decoupled_decay: bool = false, "Decay the weights, not the gradient.";
} }

impl Algorithm for ParamsNovoGrad {
    fn state_names(&self, _: &[usize]) -> Vec<&'static str> {
        let names = ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];
        names[..if self.amsgrad { 3 } else { 2 }].into()
    }

    fn state_dims(&self, name: &str, dims: &[usize]) -> Vec<usize> {
        if name == "exp_avg" { dims.into() } else { vec![] }
    }

    fn step(&self, vars: &mut Slots) -> Result<()> {
        vars.each(|_, p, g, state| {
            let (square, last) = (g.sqr()?.sum_all()?, &state["exp_avg_sq"]);
            let mut v = last.eq(0.)?.where_cond(&square, &average(last, &square, 1. - self.beta2)?)?;
            state.insert("exp_avg_sq", v.clone());
            if self.amsgrad {
                v = v.maximum(&state["max_exp_avg_sq"])?;
                state.insert("max_exp_avg_sq", v.clone());
            }
            let mut u = ratio(g, &(v.sqrt()? + self.eps)?)?;
            if !self.decoupled_decay && self.weight_decay != 0. {
                u = (u + (p * self.weight_decay)?)?;
            }
            if self.grad_averaging {
                u = (u * (1. - self.beta1))?;
            }
            let m = ((&state["exp_avg"] * self.beta1)? + u)?;
            state.insert("exp_avg", m.clone());
            decayed(p, self.lr, if self.decoupled_decay { self.weight_decay } else { 0. })? - (m * self.lr)?
        })
    }
}

//! CAME: Adafactor that trusts a step less where it differs from its average.
//!
//! ```text
//! R, C ← averages by β₂ of the means of g² + ε₁ over rows and columns
//! u = g/√(R·C/mean R)                  a vector: g/√V, V the average of g² + ε₁
//! û = u/max(1, rms(u)/clip)            m ← β₁·m + (1 - β₁)·û
//! R', C' ← averages by β₃ of the means of (û - m)² + ε₂ over rows and columns
//! p ← p·(1 - lr·λ) - lr·m/√(R'·C'/mean R')      a vector: lr·m
//! ```
//! Luo et al., 2023, arXiv:2307.02047, algorithm 2; as came-pytorch, which has no default learning rate. The averages
//! have no bias correction. A tensor of more than two dimensions is a stack of matrices.
use super::tensors::{average, clipped, decayed, factored_root, is_factored, over_root};
use crate::prelude::*;

hyper! { pub struct ParamsCame for "came", "Adafactor that trusts steady directions", "Luo et al. 2023, arXiv:2307.02047", "came-pytorch" {
    lr: f64 [0.0..] = 1e-4, "Learning rate.";
    eps1: f64 [0.0..] = 1e-30, "Added to the squared gradient.";
    eps2: f64 [0.0..] = 1e-16, "Added to the squared distance from the average.";
    clip_threshold: f64 [1e-30..] = 1., "Largest root of the mean square of a direction.";
    beta1: f64 [0.0..1.0] = 0.9, "Decay β₁ of the direction's average.";
    beta2: f64 [0.0..1.0] = 0.999, "Decay β₂ of the squared gradient's average.";
    beta3: f64 [0.0..1.0] = 0.9999, "Decay β₃ of the squared distance's average.";
    weight_decay: f64 [0.0..] = 0., "Decoupled weight decay λ.";
} }

const SQUARES: [&str; 2] = ["exp_avg_sq_row", "exp_avg_sq_col"];
const DISTANCES: [&str; 2] = ["exp_avg_res_row", "exp_avg_res_col"];

impl Algorithm for ParamsCame {
    fn state_names(&self, dims: &[usize]) -> Vec<&'static str> {
        if is_factored(dims) { [&["exp_avg"], &SQUARES[..], &DISTANCES].concat() } else { vec!["exp_avg", "exp_avg_sq"] }
    }

    fn state_dims(&self, name: &str, dims: &[usize]) -> Vec<usize> {
        let mut dims = dims.to_vec();
        if [SQUARES[0], DISTANCES[0]].contains(&name) {
            dims.pop();
        } else if [SQUARES[1], DISTANCES[1]].contains(&name) {
            dims.remove(dims.len() - 2);
        }
        dims
    }

    fn step(&self, vars: &mut Slots) -> Result<()> {
        vars.each(|t, p, g, state| {
            let (matrix, squares) = (is_factored(&t.dims), (g.sqr()? + self.eps1)?);
            let root = if matrix {
                factored_root(state, SQUARES, &squares, 1. - self.beta2, 0.)?
            } else {
                let mean = average(&state["exp_avg_sq"], &squares, 1. - self.beta2)?;
                state.insert("exp_avg_sq", mean.clone());
                mean.sqrt()?
            };
            let u = clipped(&over_root(g, &root, 0.)?, self.clip_threshold)?;
            let mut m = average(&state["exp_avg"], &u, 1. - self.beta1)?;
            state.insert("exp_avg", m.clone());
            if matrix {
                let distance = ((u - &m)?.sqr()? + self.eps2)?;
                m = over_root(&m, &factored_root(state, DISTANCES, &distance, 1. - self.beta3, 0.)?, 0.)?;
            }
            decayed(p, self.lr, self.weight_decay)? - (m * self.lr)?
        })
    }
}

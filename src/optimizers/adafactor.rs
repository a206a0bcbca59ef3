//! Adafactor: the second moment of a matrix from its rows and columns, and steps relative to the weights.
//!
//! ```text
//! w = t^decay                         so that the first step forgets the start
//! R ← (1 - w)·R + w·mean g² of rows   C ← (1 - w)·C + w·mean g² of columns
//! V = R·C/max(mean R, ε₁)             a vector: V ← (1 - w)·V + w·g²
//! u = g/max(√V, ε₁)                   û = u/max(1, rms(u)/d)
//! p ← p·(1 - lr·λ) - max(ε₂, rms(p))·min(lr, 1/√t)·û
//! ```
//! Shazeer and Stern, 2018, arXiv:1804.04235, algorithms 4 and 5; as `torch.optim.Adafactor`. A tensor of more than two
//! dimensions is a stack of matrices. `eps1=none` is the epsilon of the type of the computation: 2.2e-16 for f64
//! variables, else 1.2e-7. torch uses the epsilon of the group's first variable, and computes bf16 and f16 variables in
//! their own type.
use candle_core::DType;

use super::tensors::{average, clipped, decayed, factored_root, is_factored, over_root, rms};
use crate::prelude::*;

hyper! { pub struct ParamsAdafactor for "adafactor", "Adam's memory for a matrix cut to rows and columns", "Shazeer and Stern 2018, arXiv:1804.04235", "torch" {
    lr: f64 [0.0..] = 0.01, "Largest step relative to the weights.";
    beta2_decay: f64 [..=0.0] = -0.8, "Power of t that is the newest gradient's weight.";
    eps1: Option<f64> [0.0..] = None, "Smallest root to divide by; `none` is the epsilon of f64, or else of f32.";
    eps2: f64 [0.0..] = 1e-3, "Smallest size of the weights that a step is relative to.";
    d: f64 [1.0..] = 1., "Largest root of the mean square of a step, before its scale.";
    weight_decay: f64 [0.0..] = 0., "Decoupled weight decay λ.";
} }

impl Algorithm for ParamsAdafactor {
    fn state_names(&self, dims: &[usize]) -> Vec<&'static str> {
        if is_factored(dims) { vec!["row_var", "col_var"] } else { vec!["variance"] }
    }

    fn state_dims(&self, name: &str, dims: &[usize]) -> Vec<usize> {
        let (mut dims, last) = (dims.to_vec(), dims.len().saturating_sub(1));
        match name {
            "row_var" => dims[last] = 1,
            "col_var" => dims[last - 1] = 1,
            _ => {}
        }
        dims
    }

    fn step(&self, vars: &mut Slots) -> Result<()> {
        vars.each(|t, p, g, state| {
            let steps = t.step as f64;
            let eps = if p.dtype() == DType::F64 { f64::EPSILON } else { f32::EPSILON.into() };
            let (weight, eps1) = (steps.powf(self.beta2_decay), self.eps1.unwrap_or(eps));
            let root = if is_factored(&t.dims) {
                factored_root(state, ["row_var", "col_var"], &g.sqr()?, weight, eps1)?
            } else {
                let variance = average(&state["variance"], &g.sqr()?, weight)?;
                state.insert("variance", variance.clone());
                variance.sqrt()?
            };
            let u = clipped(&over_root(g, &root, eps1)?, self.d)?;
            let size = (rms(p)?.maximum(self.eps2)? * self.lr.min(1. / steps.sqrt()))?;
            decayed(p, self.lr, self.weight_decay)? - u.broadcast_mul(&size)?
        })
    }
}

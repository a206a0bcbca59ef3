//! SOAP: Adam along the eigenvectors of the gradients' covariances.
//!
//! ```text
//! G₀ ← β·G₀ + (1 - β)·g·gᵀ      G₁ ← β·G₁ + (1 - β)·gᵀ·g      after the step
//! m ← β₁·m + (1 - β₁)·g         v ← β₂·v + (1 - β₂)·(Q₀ᵀ·g·Q₁)²
//! u = Q₀·[(Q₀ᵀ·m·Q₁)/(√v + ε)]·Q₁ᵀ
//! p ← (p - lr·√(1 - β₂ᵗ)/(1 - β₁ᵗ)·u)·(1 - lr·λ)
//! Q ← the Q of G·Q by QR, every f steps, columns and v by falling diagonal of Qᵀ·G·Q
//! ```
//! At the group's first step t is 0, and the step only sets Q to eigenvectors. A vector has no Q and takes Adam's step.
//! In other tensors each dimension of at most 10,000 has a G and a Q. Vyas et al., 2024, arXiv:2409.11321, algorithm 3;
//! as SOAP of pytorch_optimizer, but with QR in the type of the computation. The feature `linalg` adds faer, which
//! decomposes on the host. It uses one thread unless you enable faer's feature `rayon`.
mod bases;
mod decompose;

use candle_core::DType;

use bases::{BASES, COVARIANCES, has_bases, observe, rotate, sides, start, turn};

use super::tensors::{average, decayed, ratio, rms};
use crate::clock::Span;
use crate::prelude::*;

hyper! { pub struct ParamsSoap for "soap", "Adam along eigenvectors of the gradients' covariances", "Vyas et al. 2024, arXiv:2409.11321", "pytorch_optimizer" {
    lr: f64 [0.0..] = 3e-3, "Learning rate.";
    beta1: f64 [0.0..1.0] = 0.95, "Decay β₁ of the gradient's average.";
    beta2: f64 [0.0..1.0] = 0.95, "Decay β₂ of the squared gradient's average.";
    shampoo_beta: Option<f64> [0.0..1.0] = None, "Decay β of the covariances; `none` is β₂.";
    weight_decay: f64 [0.0..] = 0.01, "Decoupled weight decay λ.";
    precondition_frequency: u32 [1..] = 10, "Steps f between two bases.";
    correct_bias: bool = true, "Correct the averages for their start.";
    normalize_gradient: bool = false, "Scale a step to a root of the mean square of 1.";
    eps: f64 [0.0..] = 1e-8, "Added to the root, against division by zero.";
} }

impl Algorithm for ParamsSoap {
    fn state_names(&self, dims: &[usize]) -> Vec<&'static str> {
        let of_sides = sides(dims).flat_map(|side| [COVARIANCES[side], BASES[side]]);
        ["exp_avg", "exp_avg_sq"].into_iter().chain(of_sides).collect()
    }

    fn state_dims(&self, name: &str, dims: &[usize]) -> Vec<usize> {
        let side = sides(dims).find(|side| [COVARIANCES[*side], BASES[*side]].contains(&name));
        side.map_or(dims.into(), |side| vec![dims[side]; 2])
    }

    fn accepts(&self, p: &Tensor) -> Result<(), String> {
        let (rank, most) = (p.rank(), BASES.len());
        if rank <= most { Ok(()) } else { Err(format!("it has {rank} dimensions, and at most {most} are allowed")) }
    }

    fn clock(&self) -> Span {
        Span::Group
    }

    fn step(&self, vars: &mut Slots) -> Result<()> {
        let weight = 1. - self.shampoo_beta.unwrap_or(self.beta2);
        vars.each(|clock, p, g, state| {
            let g = g.contiguous()?;
            if !has_bases(state)? {
                observe(&g, state, weight)?;
                start(state)?;
            }
            if clock.step == 1 {
                return Ok(p.clone());
            }
            let t = (clock.step - 1) as f64;
            let m = average(&state["exp_avg"], &g, 1. - self.beta1)?;
            let v = average(&state["exp_avg_sq"], &rotate(&g, state, false)?.sqr()?, 1. - self.beta2)?;
            let along = over_root_plus(&rotate(&m, state, false)?, &v.sqrt()?, self.eps)?;
            let mut u = rotate(&along, state, true)?;
            state.insert("exp_avg", m);
            state.insert("exp_avg_sq", v);
            if self.normalize_gradient {
                u = ratio(&u, &(rms(&u)? + self.eps)?)?;
            }
            let correction = (1. - self.beta2.powf(t)).sqrt() / (1. - self.beta1.powf(t));
            let size = self.lr * if self.correct_bias { correction } else { 1. };
            let next = decayed(&(p - (u * size)?)?, self.lr, self.weight_decay)?;
            observe(&g, state, weight)?;
            if (clock.step - 1).is_multiple_of(self.precondition_frequency.into()) {
                turn(state)?;
            }
            Ok(next)
        })
    }
}

/// `x/(root + eps)`, but 0 where the divisor is 0.
fn over_root_plus(x: &Tensor, root: &Tensor, eps: f64) -> candle_core::Result<Tensor> {
    let rounded = if root.dtype() == DType::F64 { eps } else { f64::from(eps as f32) };
    let d = (root + eps)?;
    if rounded > 0. { x / d } else { ratio(x, &d) }
}

//! SAM: gives the next optimizer the gradient at the worst point nearby.
//!
//! ```text
//! e = ρ·g/(‖g‖ + 10⁻¹²)           adaptive: ρ·p²·g/(‖|p|·g‖ + 10⁻¹²)
//! g ← the gradient at p + e
//! ```
//! The norm is over the group. Foret et al., 2020, arXiv:2010.01412, algorithm 1; adaptive: Kwon et al., 2021,
//! arXiv:2102.11600. [`Group::then`](crate::Group::then) puts an optimizer after it. A step needs `step_with`.
use candle_core::DType;

use crate::algorithm::sum;
use crate::prelude::*;

hyper! { pub struct ParamsSam for "sam", "Gradient at the worst point nearby", "Foret et al. 2020, arXiv:2010.01412", "a plain loop" {
    rho: f64 [0.0..] = 0.05, "Radius ρ of the neighborhood.";
    adaptive: bool = false, "Measure distance relative to the weights.";
} runs Before base }

impl Algorithm for ParamsSam {
    fn state_names(&self, _: &[usize]) -> Vec<&'static str> {
        vec![]
    }

    fn evaluates(&self) -> bool {
        true
    }

    fn step(&self, vars: &mut Slots) -> Result<()> {
        let (mut values, mut directions, mut squares) = (vec![], vec![], vec![]);
        for slot in vars.iter_mut() {
            let (p, g) = (slot.value()?, slot.grad()?);
            let scaled = if self.adaptive { (p.abs()? * &g)? } else { g };
            squares.push(scaled.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar()?);
            directions.push(if self.adaptive { (p.abs()? * scaled)? } else { scaled });
            values.push(p);
        }
        let scale = self.rho / (sum(&mut squares).sqrt() + 1e-12);
        for (slot, (p, direction)) in vars.iter_mut().zip(values.iter().zip(directions)) {
            slot.set(&(p + (direction * scale)?)?)?;
        }
        let evaluated = vars.evaluate();
        vars.iter_mut().zip(&values).try_for_each(|(slot, p)| slot.set(p))?;
        evaluated.map(|_| ())
    }
}

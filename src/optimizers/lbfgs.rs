//! L-BFGS: Newton's direction, from the last steps and how the gradient changed along them.
//!
//! ```text
//! s = t·d, y = g - g'              the newest `history_size` pairs where ⟨s, y⟩ > 10⁻¹⁰
//! d = -H·g                         H from the pairs, by two loops
//! p ← p + t·d                      t = lr, at first min(1, 1/‖g‖₁)·lr, or by a strong Wolfe line search
//! ```
//! All variables of the group are one vector; a missing gradient is zero. Nocedal and Wright, 2006, Numerical
//! Optimization, algorithm 7.4; as `torch.optim.LBFGS`.
mod line_search;

use candle_core::DType;

use crate::prelude::*;
use line_search::{Point, strong_wolfe};

hyper! { pub struct ParamsLbfgs for "lbfgs", "Newton's direction from past gradients", "Nocedal and Wright 2006", "torch" {
    lr: f64 [0.0..] = 1., "Learning rate.";
    max_iter: u32 [1..] = 20, "Largest number of iterations a step. More than one needs `step_with`.";
    max_eval: Option<u32> [1..] = None, "Largest number of evaluations a step; `none` is max_iter·5/4.";
    tolerance_grad: f64 [0.0..] = 1e-7, "A step ends if no element of the gradient is larger.";
    tolerance_change: f64 [0.0..] = 1e-9, "A step ends if loss or variables change less.";
    history_size: u32 [1..] = 100, "Number of pairs in the history.";
    line_search_fn: LineSearch = LineSearch::None, "Line search. It needs `step_with`.";
} }

words! {
    /// The line searches of L-BFGS.
    pub enum LineSearch { None = "none", StrongWolfe = "strong_wolfe" }
}

const STATE: [&str; 4] = ["d", "prev_flat_grad", "old_stps", "old_dirs"];

impl Algorithm for ParamsLbfgs {
    fn state_names(&self, _: &[usize]) -> Vec<&'static str> {
        STATE.into()
    }

    fn state_dims(&self, name: &str, dims: &[usize]) -> Vec<usize> {
        let rows = if ["old_stps", "old_dirs"].contains(&name) { self.history_size as usize } else { 1 };
        vec![rows, dims.iter().product()]
    }

    fn evaluates(&self) -> bool {
        self.max_iter > 1 || self.line_search_fn != LineSearch::None
    }

    fn memory(&self) -> Vec<(&'static str, f64)> {
        vec![("n_iter", 0.), ("t", 0.)]
    }

    fn steps_all(&self) -> bool {
        true
    }

    fn step(&self, vars: &mut Slots) -> Result<()> {
        let searches = self.line_search_fn == LineSearch::StrongWolfe;
        let max_eval = self.max_eval.unwrap_or(self.max_iter * 5 / 4);
        if vars.iter_mut().next().is_none() {
            return Ok(());
        }
        let mut loss = if searches || self.max_iter > 1 { number(&vars.loss()?)? } else { 0. };
        let mut g = row(vars, |slot| slot.grad())?;
        if largest(&g)? <= self.tolerance_grad {
            return Ok(());
        }
        let [mut d, mut last_g, mut steps, mut changes] = load(vars)?;
        let clock = &mut vars.all[0].clock;
        let (mut n_iter, mut t) = (*clock.memory("n_iter", 0.), *clock.memory("t", 0.));
        let mut evals = 1;
        for iteration in 1..=self.max_iter {
            n_iter += 1.;
            if n_iter > 1. {
                let (step, change) = ((&d * t)?, (&g - &last_g)?);
                if dot(&step, &change)? > 1e-10 {
                    let push = |rows: &Tensor, newest| {
                        Tensor::cat(&[newest, &rows.narrow(0, 0, self.history_size as usize - 1)?], 0)
                    };
                    (steps, changes) = (push(&steps, &step)?, push(&changes, &change)?);
                }
            }
            d = direction(&g, &steps, &changes)?;
            last_g = g.clone();
            let before = loss;
            t = if n_iter == 1. { (1. / number(&g.abs()?.sum_all()?)?).min(1.) * self.lr } else { self.lr };
            let slope = dot(&g, &d)?;
            // A NaN slope also ends the loop, and the weights do not move.
            if slope.is_nan() || slope > -self.tolerance_change {
                break;
            }
            let x = row(vars, |slot| slot.value())?;
            if searches {
                let start = Point { t: 0., loss, slope, g: g.clone() };
                let mut at = |t: f64| {
                    set_all(vars, &(&x + (&d * t)?)?)?;
                    let loss = number(&vars.evaluate()?)?;
                    // The search turns back where the function is undefined. PyTorch's search goes on.
                    let loss = if loss.is_nan() { f64::INFINITY } else { loss };
                    let g = row(vars, |slot| slot.grad())?;
                    Ok(Point { t, loss, slope: dot(&g, &d)?, g })
                };
                let (end, used) = strong_wolfe(&mut at, start, t, largest(&d)?, max_eval.saturating_sub(evals))?;
                (t, loss, g) = (end.t, end.loss, end.g);
                evals += used;
            }
            set_all(vars, &(&x + (&d * t)?)?)?;
            if !searches && iteration < self.max_iter {
                loss = number(&vars.evaluate()?)?;
                g = row(vars, |slot| slot.grad())?;
                evals += 1;
            }
            let still = largest(&g)? <= self.tolerance_grad || largest(&d)? * t.abs() <= self.tolerance_change;
            if evals >= max_eval || still || (loss - before).abs() < self.tolerance_change {
                break;
            }
        }
        store(vars, [&d, &last_g, &steps, &changes])?;
        for slot in vars.all.iter_mut() {
            (*slot.clock.memory("n_iter", 0.), *slot.clock.memory("t", 0.)) = (n_iter, t);
        }
        Ok(())
    }
}

/// Computes -H·g. The newest pair comes first. A row of zeros is not a pair.
fn direction(g: &Tensor, steps: &Tensor, changes: &Tensor) -> candle_core::Result<Tensor> {
    let mut d = g.neg()?;
    let mut pairs = vec![];
    for row in 0..steps.dim(0)? {
        let (s, y) = (steps.narrow(0, row, 1)?, changes.narrow(0, row, 1)?);
        let curvature = dot(&s, &y)?;
        if curvature > 0. {
            let alpha = dot(&s, &d)? / curvature;
            d = (d - (&y * alpha)?)?;
            pairs.push((s, y, curvature, alpha));
        }
    }
    if let Some((_, y, curvature, _)) = pairs.first() {
        d = (d * (curvature / dot(y, y)?))?;
    }
    for (s, y, curvature, alpha) in pairs.iter().rev() {
        d = (&d + (s * (alpha - dot(y, &d)? / curvature))?)?;
    }
    Ok(d)
}

fn number(x: &Tensor) -> candle_core::Result<f64> {
    x.to_dtype(DType::F64)?.to_scalar()
}

fn dot(a: &Tensor, b: &Tensor) -> candle_core::Result<f64> {
    number(&(a * b)?.sum_all()?)
}

fn largest(x: &Tensor) -> candle_core::Result<f64> {
    number(&x.abs()?.max_all()?)
}

/// Joins a tensor of each variable into one row.
fn row(vars: &mut Slots, of: impl Fn(&Slot) -> candle_core::Result<Tensor>) -> candle_core::Result<Tensor> {
    let parts: Vec<_> = vars.iter_mut().map(|slot| of(slot)?.reshape((1, ()))).collect::<Result<_, _>>()?;
    Tensor::cat(&parts, 1)
}

fn set_all(vars: &mut Slots, row: &Tensor) -> candle_core::Result<()> {
    let mut from = 0;
    for slot in vars.iter_mut() {
        slot.set(&row.narrow(1, from, slot.var.elem_count())?.reshape(slot.var.shape())?)?;
        from += slot.var.elem_count();
    }
    Ok(())
}

fn load(vars: &mut Slots) -> candle_core::Result<[Tensor; 4]> {
    let states: Vec<_> = vars.iter_mut().map(|slot| slot.state()).collect::<Result<_, _>>()?;
    let all = |name| Tensor::cat(&states.iter().map(|state| &state[name]).collect::<Vec<_>>(), 1);
    Ok([all(STATE[0])?, all(STATE[1])?, all(STATE[2])?, all(STATE[3])?])
}

fn store(vars: &mut Slots, rows: [&Tensor; 4]) -> candle_core::Result<()> {
    let mut from = 0;
    for slot in vars.iter_mut() {
        let len = slot.var.elem_count();
        let own = STATE.into_iter().zip(rows).map(|(name, row)| Ok((name, row.narrow(1, from, len)?.contiguous()?)));
        slot.set_state(own.collect::<candle_core::Result<_>>()?)?;
        from += len;
    }
    Ok(())
}

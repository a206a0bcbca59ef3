//! The covariances and bases of a variable's dimensions, by their names in the state.
use candle_core::{Result, Tensor};

use super::average;
use super::decompose::{eigenvectors, numbers, orthonormal};
use crate::algorithm::State;

/// The largest dimension that has a basis, as in the reference.
const LARGEST: usize = 10_000;

pub(super) const COVARIANCES: [&str; 6] = ["GG_0", "GG_1", "GG_2", "GG_3", "GG_4", "GG_5"];
pub(super) const BASES: [&str; 6] = ["Q_0", "Q_1", "Q_2", "Q_3", "Q_4", "Q_5"];

/// The dimensions that have a basis.
pub(super) fn sides(dims: &[usize]) -> impl Iterator<Item = usize> {
    (0..dims.len()).filter(|side| dims.len() > 1 && dims[*side] <= LARGEST)
}

/// The dimensions that have a basis, for a variable with this state.
fn sides_of(state: &State) -> Vec<usize> {
    (0..BASES.len()).filter(|side| state.contains_key(BASES[*side])).collect()
}

/// Whether the bases are set, or no dimension has one.
pub(super) fn has_bases(state: &State) -> Result<bool> {
    let Some(basis) = BASES.iter().find_map(|name| state.get(name)) else { return Ok(true) };
    // A column has norm 1, or is zero before it is set. NaN is not zero.
    Ok(numbers(&basis.narrow(1, 0, 1)?)?.iter().any(|x| *x != 0.))
}

/// Sets the bases to the eigenvectors of the covariances.
pub(super) fn start(state: &mut State) -> Result<()> {
    for side in sides_of(state) {
        state.insert(BASES[side], eigenvectors(&state[COVARIANCES[side]])?);
    }
    Ok(())
}

/// Averages the covariances of `g`.
pub(super) fn observe(g: &Tensor, state: &mut State, weight: f64) -> Result<()> {
    cycle(g, |side, rows| {
        if let Some(covariance) = state.get_mut(COVARIANCES[side]) {
            *covariance = average(covariance, &rows.t()?.matmul(&rows)?, weight)?;
        }
        Ok(rows)
    })?;
    Ok(())
}

/// Multiplies each dimension by the transpose of its basis, or `back` by the basis.
pub(super) fn rotate(x: &Tensor, state: &State, back: bool) -> Result<Tensor> {
    cycle(x, |side, rows| match state.get(BASES[side]) {
        Some(basis) => rows.matmul(&if back { basis.t()? } else { basis.clone() }),
        None => Ok(rows),
    })
}

/// Maps each dimension in turn: `map` gets it as the columns of a matrix. A vector stays as it is.
fn cycle(x: &Tensor, mut map: impl FnMut(usize, Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let (mut x, sides) = (x.clone(), if x.rank() > 1 { x.rank() } else { 0 });
    for side in 0..sides {
        let mut dims = x.dims().to_vec();
        dims.rotate_left(1);
        let rows = x.reshape((x.dim(0)?, ()))?.t()?;
        x = map(side, rows)?.reshape(dims)?;
    }
    Ok(x)
}

/// Applies orthogonal iteration once to each basis, and puts `exp_avg_sq` in the new order.
pub(super) fn turn(state: &mut State) -> Result<()> {
    for side in sides_of(state) {
        let basis = &state[BASES[side]];
        let product = state[COVARIANCES[side]].matmul(basis)?;
        // Sorted on the host, where the decomposition runs.
        let sizes = numbers(&(basis * &product)?.sum(0)?)?;
        let mut order: Vec<u32> = (0..sizes.len() as u32).collect();
        order.sort_by(|a, b| sizes[*b as usize].total_cmp(&sizes[*a as usize]));
        let order = Tensor::new(order, product.device())?;
        let basis = orthonormal(&product.index_select(&order, 1)?)?;
        state.insert("exp_avg_sq", state["exp_avg_sq"].index_select(&order, side)?);
        state.insert(BASES[side], basis);
    }
    Ok(())
}

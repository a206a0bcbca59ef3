//! Code shared by the problems that draw points in the plane.

use crate::random::numpy::RandomState;

/// The points of two curves, shuffled by the seed, with Gaussian noise of this standard deviation on each coordinate:
/// class 0 for the first curve, class 1 for the second.
pub(super) fn two_classes(
    first: impl Iterator<Item = [f64; 2]>,
    second: impl Iterator<Item = [f64; 2]>,
    noise: f64,
    seed: u32,
) -> (Vec<[f64; 2]>, Vec<usize>) {
    let mut rows: Vec<([f64; 2], usize)> =
        first.map(|point| (point, 0)).chain(second.map(|point| (point, 1))).collect();
    let mut rng = RandomState::new(seed);
    rng.shuffle(&mut rows);
    for (point, _) in &mut rows {
        for coordinate in point {
            // NumPy's mean of 0 is added too: it turns -0 into 0.
            *coordinate += 0.0 + noise * rng.normal();
        }
    }
    rows.into_iter().unzip()
}

/// `numpy.linspace(0, stop, n)`, bit for bit (`numpy/_core/function_base.py`).
pub(super) fn linspace(stop: f64, n: usize) -> impl Iterator<Item = f64> {
    let last = n.saturating_sub(1);
    let step = stop / last as f64;
    // Rounding may make the product miss the end.
    (0..n).map(move |i| match i {
        0 => 0.,
        _ if i == last => stop,
        _ => i as f64 * step,
    })
}

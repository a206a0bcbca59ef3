//! scikit-learn's two circles.

use std::f64::consts::TAU;

use super::plane::two_classes;

/// `sklearn.datasets.make_circles(samples, noise=noise, factor=factor, random_state=seed)`, bit for
/// bit: `samples` points and their classes.
///
/// Class 0 lies on the unit circle and has half of the samples, rounded down; class 1 lies on the
/// circle of radius `factor`, meant to be in [0, 1). `noise` is the standard deviation of the
/// Gaussian noise on each coordinate.
pub fn make_circles(samples: usize, noise: f64, factor: f64, seed: u32) -> (Vec<[f64; 2]>, Vec<usize>) {
    let outer = samples / 2;
    let inner = circle(samples - outer).map(|[x, y]| [x * factor, y * factor]);
    two_classes(circle(outer), inner, noise, seed)
}

/// `n` evenly spaced points of the unit circle, from angle 0 on.
///
/// NumPy takes sine and cosine from the C library, so its last bit depends on the machine: glibc
/// alone has two variants, with and without FMA, that differ in 0.07 % of the values. std asks the
/// same library and therefore agrees with the NumPy beside it; no fixed implementation can (the
/// `libm` crate is one ulp off in 3 %, correct rounding in 0.13 %).
fn circle(n: usize) -> impl Iterator<Item = [f64; 2]> {
    let step = TAU / n as f64;
    (0..n).map(move |i| {
        let angle = i as f64 * step;
        [angle.cos(), angle.sin()]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_noise_every_point_lies_on_its_circle() {
        for samples in [0, 1, 2, 7, 100] {
            let (points, classes) = make_circles(samples, 0.0, 0.5, 3);
            assert_eq!(points.len(), samples);
            assert_eq!(classes.iter().sum::<usize>(), samples.div_ceil(2));
            for ([x, y], class) in points.into_iter().zip(classes) {
                let radius = [1.0, 0.5][class];
                assert!((x.hypot(y) - radius).abs() < 1e-15);
            }
        }
    }
}

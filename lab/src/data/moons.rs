//! scikit-learn's two moons.

use std::f64::consts::PI;

use super::plane::{linspace, two_classes};

/// `sklearn.datasets.make_moons(samples, noise=noise, random_state=seed)`, bit for bit: `samples` points and their
/// classes.
///
/// Class 0 lies on the upper half of the unit circle and has half of the samples, rounded down; class 1 lies on the
/// lower half of the unit circle around (1, 0.5). `noise` is the standard deviation of the Gaussian noise on each
/// coordinate. The last bits depend on the C library's sine and cosine, as in [`make_circles`](super::make_circles).
pub fn make_moons(samples: usize, noise: f64, seed: u32) -> (Vec<[f64; 2]>, Vec<usize>) {
    let outer = samples / 2;
    let upper = linspace(PI, outer).map(|angle| [angle.cos(), angle.sin()]);
    // Not 0.5 - sin: that rounds once less.
    let lower = linspace(PI, samples - outer).map(|angle| [1.0 - angle.cos(), 1.0 - angle.sin() - 0.5]);
    two_classes(upper, lower, noise, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_noise_every_point_lies_on_its_half_of_a_circle() {
        for samples in [0, 1, 2, 7, 100] {
            let (points, classes) = make_moons(samples, 0.0, 3);
            assert_eq!(points.len(), samples);
            assert_eq!(classes.iter().sum::<usize>(), samples.div_ceil(2));
            for ([x, y], class) in points.into_iter().zip(classes) {
                let ([x, y], side) = [([x, y], 1.0), ([x - 1.0, y - 0.5], -1.0)][class];
                assert!((x.hypot(y) - 1.0).abs() < 1e-15);
                assert!(y * side > -1e-15);
            }
        }
    }
}

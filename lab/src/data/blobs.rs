//! scikit-learn's blobs.

use crate::random::numpy::RandomState;

/// `sklearn.datasets.make_blobs(samples, n_features=2, centers=centers, cluster_std=noise, random_state=seed)`, bit for
/// bit: `samples` points and their classes, a class for each of the `centers`.
///
/// Each coordinate of a center is uniform on [-10, 10). Points around a center are Gaussian with standard deviation
/// `noise` on each coordinate. If the classes cannot have equal sizes, the first ones have one point more. Without
/// centers there are no points; scikit-learn reports an error. The last bit of a point follows the C library's `log`.
pub fn make_blobs(samples: usize, centers: usize, noise: f64, seed: u32) -> (Vec<[f64; 2]>, Vec<usize>) {
    let mut rng = RandomState::new(seed);
    // All centers are drawn before the first point.
    let centers: Vec<[f64; 2]> = (0..centers).map(|_| [rng.uniform(-10.0, 10.0), rng.uniform(-10.0, 10.0)]).collect();
    let mut rows = Vec::with_capacity(samples);
    for (class, center) in centers.iter().enumerate() {
        let size = samples / centers.len() + usize::from(class < samples % centers.len());
        rows.extend((0..size).map(|_| (center.map(|mean| mean + noise * rng.normal()), class)));
    }
    rng.shuffle(&mut rows);
    rows.into_iter().unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_noise_every_point_is_its_center() {
        for (samples, centers) in [(0, 3), (5, 0), (2, 4), (7, 2), (100, 3)] {
            let (points, classes) = make_blobs(samples, centers, 0.0, 3);
            assert_eq!(points.len(), if centers == 0 { 0 } else { samples });
            let of = |class| points.iter().zip(&classes).filter(move |(_, of)| **of == class).map(|(point, _)| point);
            for class in 0..centers {
                assert_eq!(of(class).count(), (samples + centers - 1 - class) / centers);
                assert!(of(class).all(|point| Some(point) == of(class).next()));
            }
        }
    }
}

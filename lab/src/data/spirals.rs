//! Two spirals, one in the other.

use std::f64::consts::PI;

use super::plane::{linspace, two_classes};

/// The two spirals of Lang and Witbrock, "Learning to tell two spirals apart" (1988): `samples` points and their
/// classes.
///
/// The radius of class 0 grows with the angle through three turns, from 1/13 to 1:
///
/// ```text
/// (x, y) = r·(cos 6πt, sin 6πt)      r = (1 + 12t)/13, for evenly spaced t from 0 to 1
/// ```
///
/// Class 1 is class 0 rotated by half a turn, (-x, -y). Class 0 has half of the samples, rounded down. With 97 points
/// per class, these are the points of the paper divided by 6.5 and rotated by a quarter turn. `noise` is the standard
/// deviation of the Gaussian noise on each coordinate. Order and noise are drawn as in
/// [`make_circles`](super::make_circles), and the last bits depend on the C library in the same way.
pub fn make_spirals(samples: usize, noise: f64, seed: u32) -> (Vec<[f64; 2]>, Vec<usize>) {
    let half = samples / 2;
    two_classes(spiral(half), spiral(samples - half).map(|[x, y]| [-x, -y]), noise, seed)
}

/// `n` points of class 0, from the inner end to the outer one.
fn spiral(n: usize) -> impl Iterator<Item = [f64; 2]> {
    linspace(1.0, n).map(|t| {
        let (angle, radius) = (6.0 * PI * t, (1.0 + 12.0 * t) / 13.0);
        [radius * angle.cos(), radius * angle.sin()]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ninety_seven_points_on_each_are_those_of_the_paper() {
        let (points, classes) = make_spirals(194, 0.0, 3);
        let paper = (0..97).map(|i| {
            let (angle, radius) = (f64::from(i) * PI / 16.0, 6.5 * f64::from(104 - i) / 104.0);
            [radius * angle.sin(), radius * angle.cos()]
        });
        for [x, y] in paper {
            for (class, sign) in [(0, 1.0), (1, -1.0)] {
                let [x, y] = [sign * y / 6.5, -sign * x / 6.5];
                let near =
                    |&(point, &of): &(&[f64; 2], &usize)| of == class && (point[0] - x).hypot(point[1] - y) < 1e-14;
                assert_eq!(points.iter().zip(&classes).filter(near).count(), 1, "class {class} at {x}, {y}");
            }
        }
    }

    #[test]
    fn any_number_of_points_is_in_the_unit_circle() {
        for samples in [0, 1, 2, 3, 101] {
            let (points, classes) = make_spirals(samples, 0.0, 3);
            assert_eq!(points.len(), samples);
            assert_eq!(classes.iter().sum::<usize>(), samples.div_ceil(2));
            assert!(points.iter().all(|[x, y]| (0.07..1.0 + 1e-15).contains(&x.hypot(*y))));
        }
    }
}

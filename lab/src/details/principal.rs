//! Principal directions of vectors.

use faer::{Mat, Side};

/// The two orthonormal directions that hold most of the squared lengths of `vectors`, which have equal dimensions; none
/// if the vectors lie in one direction or are not finite. The largest coordinate of each direction is positive.
pub fn principal(vectors: &[Vec<f64>]) -> Option<[Vec<f64>; 2]> {
    let (n, length) = (vectors.len(), vectors.first()?.len());
    // Scaled numbers have squares that a float can hold.
    let scale = vectors.iter().flatten().fold(0f64, |most, x| most.max(x.abs()));
    if !(scale > 0. && scale.is_finite()) || n.min(length) < 2 {
        return None;
    }
    let at = |vector: usize, i: usize| vectors[vector][i] / scale;
    // VVᵀ and VᵀV have the same nonzero eigenvalues: the smaller matrix is cheaper.
    let by_vectors = n <= length;
    let products = |i: usize, j: usize| -> f64 {
        if by_vectors {
            (0..length).map(|k| at(i, k) * at(j, k)).sum()
        } else {
            (0..n).map(|k| at(k, i) * at(k, j)).sum()
        }
    };
    let size = n.min(length);
    let mut matrix = Mat::<f64>::zeros(size, size);
    for i in 0..size {
        for j in 0..=i {
            matrix[(i, j)] = products(i, j);
            matrix[(j, i)] = matrix[(i, j)];
        }
    }
    let rising = matrix.self_adjoint_eigen(Side::Lower).ok()?;
    let (values, columns) = (rising.S().column_vector(), rising.U());
    let [first, second] = [size - 1, size - 2].map(|at| values[at]);
    // A second direction this short is a rounding error.
    if second.is_nan() || second <= 1e-12 * first {
        return None;
    }
    let direction = |column: usize| {
        let of = |i: usize| columns[(i, column)];
        let mut direction: Vec<f64> = match by_vectors {
            true => (0..length).map(|k| (0..n).map(|i| of(i) * at(i, k)).sum()).collect(),
            false => (0..length).map(of).collect(),
        };
        let norm = direction.iter().map(|x| x * x).sum::<f64>().sqrt();
        let greatest = direction.iter().copied().fold(0f64, |most, x| if x.abs() > most.abs() { x } else { most });
        direction.iter_mut().for_each(|x| *x /= norm * greatest.signum());
        direction
    };
    Some([direction(size - 1), direction(size - 2)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_are_those_of_most_of_the_length() {
        let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        // The vectors are twice as long along the first axis as along the third.
        let few = vec![vec![2., 0., 0., 0.], vec![0., 0., -1., 0.]];
        let [first, second] = principal(&few).unwrap();
        assert!(near(&first, &[1., 0., 0., 0.]) && near(&second, &[0., 0., 1., 0.]), "{first:?} {second:?}");
        // More vectors than dimensions: the other matrix.
        let many: Vec<Vec<f64>> = (0..9).map(|i| vec![3. * f64::from(i % 3 - 1), f64::from(i / 3 - 1)]).collect();
        let [first, second] = principal(&many).unwrap();
        assert!(near(&first, &[1., 0.]) && near(&second, &[0., 1.]), "{first:?} {second:?}");
    }

    #[test]
    fn one_direction_is_no_plane() {
        let none: [&[Vec<f64>]; 6] = [
            &[],
            &[vec![1., 2.]],
            &[vec![0., 0.], vec![0., 0.]],
            &[vec![1., 2.], vec![-2., -4.]],
            &[vec![f64::NAN, 1.], vec![1., 0.]],
            &[vec![1.], vec![2.]],
        ];
        assert!(none.iter().all(|vectors| principal(vectors).is_none()));
        assert!(principal(&[vec![1e300, 0.], vec![0., -1e299]]).is_some());
    }
}

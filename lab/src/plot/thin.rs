//! Fewer points of a long line.

/// At most `most` or so of the indices of `n` values: the first and the last, and of each part of the others those with the
/// least and the greatest value.
pub fn thinned(n: usize, most: usize, value: impl Fn(usize) -> f64) -> Vec<usize> {
    if n <= most {
        return (0..n).collect();
    }
    let size = n.div_ceil(most.div_ceil(2));
    let mut left = vec![0];
    for start in (0..n).step_by(size) {
        let by_value = |a: &usize, b: &usize| value(*a).total_cmp(&value(*b));
        let part = start..n.min(start + size);
        let (least, most) = (part.clone().min_by(by_value), part.max_by(by_value));
        left.extend(least.min(most));
        left.extend(least.max(most));
    }
    left.push(n - 1);
    left.dedup();
    left
}

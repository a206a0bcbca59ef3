//! Thins the points of a long line.

/// At most about `most` of the indices of `n` values: the first, the last, and the smallest and the largest value of
/// each part.
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

/// Takes items one after the other and retains some with their indices from 0: the first, the last, and from each part
/// of the others those with the smallest and the largest of two values.
pub struct Thinner<T> {
    values: fn(&T) -> [f64; 2],
    /// Items per part.
    size: usize,
    count: usize,
    part: Vec<T>,
    retained: Vec<(usize, T)>,
}

impl<T> Thinner<T> {
    /// Takes about `total` items, in `parts` parts.
    pub fn new(total: usize, parts: usize, values: fn(&T) -> [f64; 2]) -> Self {
        Self { values, size: total.div_ceil(parts.max(1)).max(1), count: 0, part: vec![], retained: vec![] }
    }

    /// Takes the next item.
    pub fn push(&mut self, item: T) {
        // A part ends only when another item follows: the last item is always retained.
        if self.part.len() == self.size {
            self.end_part();
        }
        self.part.push(item);
        self.count += 1;
    }

    /// The number of items taken.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The retained items.
    pub fn finish(mut self) -> Vec<(usize, T)> {
        if let Some(last) = self.part.pop() {
            self.count -= 1;
            self.end_part();
            self.retained.push((self.count, last));
        }
        self.retained
    }

    fn end_part(&mut self) {
        let first = self.count - self.part.len();
        let mut chosen = vec![false; self.part.len()];
        for column in 0..2 {
            let value = |at: usize| (self.values)(&self.part[at])[column];
            let by_value = |a: &usize, b: &usize| value(*a).total_cmp(&value(*b));
            let (least, most) = ((0..self.part.len()).min_by(by_value), (0..self.part.len()).max_by(by_value));
            least.into_iter().chain(most).for_each(|at| chosen[at] = true);
        }
        let items = self.part.drain(..).enumerate();
        let items = items.filter(|(at, _)| chosen[*at] || first + at == 0);
        self.retained.extend(items.map(|(at, item)| (first + at, item)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_and_the_extremes_are_retained() {
        for total in [0, 1, 2, 7, 100, 101, 12_345] {
            let mut thinner = Thinner::new(total, 50, |x: &[f64; 2]| *x);
            let values: Vec<[f64; 2]> = (0..total).map(|i| [(i as f64).sin(), ((i * i) % 1009) as f64]).collect();
            values.iter().for_each(|value| thinner.push(*value));
            assert_eq!(thinner.count(), total);
            let retained = thinner.finish();
            assert!(retained.len() <= 4 * 50 + 2 && retained.is_sorted_by(|a, b| a.0 < b.0), "{total}");
            assert!(retained.iter().all(|(at, value)| values[*at] == *value), "{total}");
            for column in 0..2 {
                for extreme in [f64::min, f64::max] {
                    let of = |values: &mut dyn Iterator<Item = [f64; 2]>| values.map(|x| x[column]).reduce(extreme);
                    assert_eq!(of(&mut retained.iter().map(|(_, x)| *x)), of(&mut values.iter().copied()), "{total}");
                }
            }
            if let Some(last) = total.checked_sub(1) {
                assert_eq!((retained[0].0, retained[retained.len() - 1].0), (0, last));
            }
            assert!(total > 50 || retained.len() == total);
        }
    }
}

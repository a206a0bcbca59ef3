//! scikit-learn's splits into training and test rows.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::random::numpy::RandomState;

/// Row indices for training and for testing, both shuffled, such that each class retains its share.
///
/// The same rows in the same order as `train_test_split(np.arange(n), stratify=classes,
/// test_size=test_size, random_state=seed)` (`sklearn/model_selection/_split.py`,
/// `StratifiedShuffleSplit`). The test set has ⌈`test_size` · n⌉ of the n rows.
///
/// # Errors
///
/// If `test_size` is not strictly between 0 and 1, if there are fewer than two classes, if a class
/// has a single member, or if a side would have fewer rows than there are classes.
pub fn stratified_split(classes: &[usize], test_size: f64, seed: u32) -> Result<(Vec<usize>, Vec<usize>)> {
    ensure!(test_size > 0.0 && test_size < 1.0, "test_size is {test_size}, but must lie strictly between 0 and 1");
    let mut members = BTreeMap::<usize, Vec<usize>>::new();
    for (row, &class) in classes.iter().enumerate() {
        members.entry(class).or_default().push(row);
    }
    ensure!(members.len() >= 2, "number of classes is {}, but a stratified split needs at least 2", members.len());
    for (class, rows) in &members {
        ensure!(
            rows.len() >= 2,
            "class {class} has {} member, but a stratified split needs at least 2 of each class",
            rows.len()
        );
    }
    let n_test = (test_size * classes.len() as f64).ceil() as usize;
    let n_train = classes.len() - n_test;
    ensure!(
        n_train.min(n_test) >= members.len(),
        "too few samples to stratify: test_size {test_size} splits {} rows into {n_train} for \
         training and {n_test} for testing, but each side needs at least one per class ({})",
        classes.len(),
        members.len()
    );

    let mut rng = RandomState::new(seed);
    let counts: Vec<usize> = members.values().map(Vec::len).collect();
    let train_counts = approximate_mode(&counts, n_train, &mut rng);
    let remaining: Vec<usize> = counts.iter().zip(&train_counts).map(|(all, train)| all - train).collect();
    let test_counts = approximate_mode(&remaining, n_test, &mut rng);

    let (mut train, mut test) = (Vec::new(), Vec::new());
    for ((rows, n_train), n_test) in members.values().zip(train_counts).zip(test_counts) {
        let order = rng.permutation(rows.len());
        let mut drawn = order.into_iter().map(|i| rows[i]);
        train.extend(drawn.by_ref().take(n_train));
        test.extend(drawn.take(n_test));
    }
    rng.shuffle(&mut train);
    rng.shuffle(&mut test);
    Ok((train, test))
}

/// Row indices for training and for testing, both shuffled.
///
/// The same rows in the same order as `train_test_split(np.arange(n), test_size=test_size, random_state=seed)`
/// (`sklearn/model_selection/_split.py`, `ShuffleSplit`). The test set has ⌈`test_size` · n⌉ of the n rows.
///
/// # Errors
///
/// If `test_size` is not strictly between 0 and 1, or if a side would have no row.
pub fn shuffled_split(n: usize, test_size: f64, seed: u32) -> Result<(Vec<usize>, Vec<usize>)> {
    ensure!(test_size > 0.0 && test_size < 1.0, "test_size is {test_size}, but must lie strictly between 0 and 1");
    let n_test = (test_size * n as f64).ceil() as usize;
    ensure!(
        0 < n_test && n_test < n,
        "too few samples: test_size {test_size} splits {n} rows into {} for training and {n_test} for testing, but each \
         side needs at least one",
        n - n_test.min(n)
    );
    let mut test = RandomState::new(seed).permutation(n);
    let train = test.split_off(n_test);
    Ok((train, test))
}

/// The number of `draws` of each class, in proportion to its count. Rounding down leaves a remainder, which goes to the
/// classes with the largest fractions; ties are drawn at random (`sklearn/utils/extmath.py`, `_approximate_mode`).
fn approximate_mode(counts: &[usize], draws: usize, rng: &mut RandomState) -> Vec<usize> {
    let total = counts.iter().sum::<usize>() as f64;
    let shares: Vec<f64> = counts.iter().map(|&count| count as f64 / total * draws as f64).collect();
    let mut sampled: Vec<usize> = shares.iter().map(|share| share.floor() as usize).collect();
    let mut left = draws.saturating_sub(sampled.iter().sum());

    let remainders: Vec<f64> = shares.iter().map(|share| share - share.floor()).collect();
    let mut levels = remainders.clone();
    levels.sort_by(|a, b| b.total_cmp(a));
    levels.dedup();
    for level in levels {
        if left == 0 {
            break;
        }
        let tied: Vec<usize> = (0..counts.len()).filter(|&class| remainders[class] == level).collect();
        // scikit-learn draws even if all tied classes are taken, so the stream must advance.
        for i in rng.choice(tied.len(), left) {
            sampled[tied[i]] += 1;
            left -= 1;
        }
    }
    sampled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_all_rows_in_proportion() {
        let classes: Vec<usize> = (0..200).map(|row| usize::from(row % 4 == 0)).collect();
        let (train, test) = stratified_split(&classes, 0.3, 5).unwrap();
        assert_eq!((train.len(), test.len()), (140, 60));
        assert_eq!(test.iter().filter(|&&row| classes[row] == 1).count(), 15);

        let mut rows = [train, test].concat();
        rows.sort_unstable();
        assert!(rows.into_iter().eq(0..200));
    }

    #[test]
    fn bad_arguments_are_named() {
        let error = |classes: &[usize], test_size| stratified_split(classes, test_size, 0).unwrap_err().to_string();
        for test_size in [0.0, 1.0, -0.5, f64::NAN, f64::INFINITY] {
            let message = error(&[0, 0, 1, 1], test_size);
            assert!(message.contains(&format!("test_size is {test_size}")));
        }
        assert!(error(&[], 0.5).contains("number of classes is 0"));
        assert!(error(&[0, 0, 0], 0.5).contains("number of classes is 1"));
        assert!(error(&[0, 0, 3], 0.5).contains("class 3 has 1 member"));
        assert!(error(&[0, 0, 1, 1], 0.1).contains("too few samples to stratify"));
        assert!(error(&[0, 0, 1, 1], 0.9).contains("too few samples to stratify"));
    }
}

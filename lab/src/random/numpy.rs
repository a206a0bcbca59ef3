//! `numpy.random.RandomState`, NumPy's legacy generator, on which scikit-learn's data sets and
//! splits are built.
//!
//! NumPy has frozen this stream (NEP 19), so it is the same in every release.

use rand_mt::Mt;

/// NumPy's legacy `RandomState`: equal seeds and calls give equal bits.
///
/// The one exception is [`normal`](Self::normal): its last bit depends on the system's `log`, as in NumPy.
#[derive(Clone, Debug)]
pub struct RandomState {
    bits: Mt,
    /// The second value of the last polar pair, not yet returned.
    gauss: Option<f64>,
}

impl RandomState {
    /// `RandomState(seed)` (`numpy/random/_mt19937.pyx`, `_legacy_seeding`).
    pub fn new(seed: u32) -> Self {
        Self { bits: Mt::new(seed), gauss: None }
    }

    /// Uniform on [0, 1) with 53 random bits (`numpy/random/src/mt19937/mt19937.h`,
    /// `mt19937_next_double`).
    pub fn random_sample(&mut self) -> f64 {
        let high = u64::from(self.bits.next_u32() >> 5);
        let low = u64::from(self.bits.next_u32() >> 6);
        (high << 26 | low) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform on [`low`, `high`) (`numpy/random/src/distributions/distributions.c`, `random_uniform`).
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.random_sample()
    }

    /// Standard normal by Marsaglia's polar method
    /// (`numpy/random/src/legacy/legacy-distributions.c`, `legacy_gauss`).
    pub fn normal(&mut self) -> f64 {
        if let Some(second) = self.gauss.take() {
            return second;
        }
        loop {
            let x1 = 2.0 * self.random_sample() - 1.0;
            let x2 = 2.0 * self.random_sample() - 1.0;
            let r2 = x1 * x1 + x2 * x2;
            if r2 < 1.0 && r2 != 0.0 {
                // std's `ln` is the C library's `log`, which is what NumPy calls.
                let f = (-2.0 * r2.ln() / r2).sqrt();
                self.gauss = Some(f * x1);
                return f * x2;
            }
        }
    }

    /// Uniform integer on [0, `max`], both ends included, by masked rejection
    /// (`numpy/random/src/distributions/distributions.c`, `random_interval`).
    pub fn random_interval(&mut self, max: usize) -> usize {
        if max == 0 {
            return 0;
        }
        let mask = usize::MAX >> max.leading_zeros();
        loop {
            let draw = match u32::try_from(max) {
                Ok(_) => self.bits.next_u32() as usize,
                Err(_) => self.bits.next_u64() as usize,
            };
            if draw & mask <= max {
                return draw & mask;
            }
        }
    }

    /// Shuffles in place, from the last element down (`numpy/random/mtrand.pyx`, `shuffle`).
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for i in (1..values.len()).rev() {
            values.swap(i, self.random_interval(i));
        }
    }

    /// A random order of 0, 1, ..., `n` - 1.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        self.shuffle(&mut order);
        order
    }

    /// `size` distinct numbers below `n`: `choice(n, size, replace=False)`.
    ///
    /// A `size` above `n`, an error in NumPy, gives all `n`.
    pub fn choice(&mut self, n: usize, size: usize) -> Vec<usize> {
        let mut chosen = self.permutation(n);
        chosen.truncate(size);
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutation_holds_every_index_once() {
        let mut rng = RandomState::new(1);
        for n in [0, 1, 2, 31, 1000] {
            let mut order = rng.permutation(n);
            order.sort_unstable();
            assert!(order.into_iter().eq(0..n));
        }
    }

    #[test]
    fn choice_is_the_head_of_the_permutation() {
        let order = RandomState::new(2).permutation(10);
        assert_eq!(RandomState::new(2).choice(10, 4), order[..4]);
        assert_eq!(RandomState::new(2).choice(10, 11), order);
    }

    #[test]
    fn interval_reaches_both_ends() {
        let mut rng = RandomState::new(3);
        let mut seen = [false; 6];
        for _ in 0..1000 {
            seen[rng.random_interval(5)] = true;
        }
        assert_eq!(seen, [true; 6]);
        assert_eq!(rng.random_interval(0), 0);
    }
}

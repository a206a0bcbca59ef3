//! Seeds of runs and streams, all from the experiment's seed.

use std::collections::HashSet;
use std::fmt::Display;

use sha2::{Digest, Sha256};

/// The seed of a stream or a run: the first 4 bytes, big-endian, of SHA-256 of the words joined by `/`.
pub fn derive(experiment_seed: u32, words: &[&dyn Display]) -> u32 {
    (bits(experiment_seed, words) >> 32) as u32
}

/// A number in [0, 1) from 53 bits of the same hash.
pub fn share(experiment_seed: u32, words: &[&dyn Display]) -> f64 {
    (bits(experiment_seed, words) >> 11) as f64 / (1u64 << 53) as f64
}

/// The first 8 bytes of the hash.
fn bits(experiment_seed: u32, words: &[&dyn Display]) -> u64 {
    let mut text = format!("candle-optim-lab-1/{experiment_seed}");
    for word in words {
        text += &format!("/{word}");
    }
    let hash = Sha256::digest(text);
    hash.iter().take(8).fold(0, |bits, &byte| bits << 8 | u64::from(byte))
}

/// The seeds of all runs, no two of them equal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seeds {
    /// For tuning.
    pub tune: Vec<u32>,
    /// For confirmation.
    pub confirm: Vec<u32>,
}

impl Seeds {
    /// This many seeds of each phase. More seeds begin with the same ones.
    pub fn new(experiment_seed: u32, tune: usize, confirm: usize) -> Self {
        let mut seen = HashSet::new();
        let mut first = |phase: &str, n| {
            let seeds = (0u64..).map(|j| derive(experiment_seed, &[&phase, &j]));
            seeds.filter(|&seed| seen.insert(seed)).take(n).collect()
        };
        Self { tune: first("tune", tune), confirm: first("confirm", confirm) }
    }
}

/// Subsets of `n` things, of ⌈n/2⌉ each, as ascending indices: all subsets for up to 12 things, otherwise 1000 drawn
/// ones.
pub fn halves(n: usize, experiment_seed: u32) -> Vec<Vec<usize>> {
    const ALL: usize = 12;
    const DRAWN: usize = 1000;
    let half = n.div_ceil(2);
    if n <= ALL {
        return combinations(n, half);
    }
    let mut random = SplitMix64(derive(experiment_seed, &[&"halves"]).into());
    let draw = |_| {
        let mut order: Vec<usize> = (0..n).collect();
        for i in 0..half {
            order.swap(i, i + random.below(n - i));
        }
        order.truncate(half);
        order.sort_unstable();
        order
    };
    (0..DRAWN).map(draw).collect()
}

/// All ways to take `size` of `n`, in lexicographic order.
fn combinations(n: usize, size: usize) -> Vec<Vec<usize>> {
    let mut taken: Vec<usize> = (0..size).collect();
    let mut all = vec![];
    loop {
        all.push(taken.clone());
        let Some(i) = (0..size).rfind(|&i| taken[i] < n - size + i) else { return all };
        let next = taken[i] + 1;
        for (taken, index) in taken[i..].iter_mut().zip(next..) {
            *taken = index;
        }
    }
}

/// Steele, Lea and Flood, 2014 (doi 10.1145/2660193.2660195), with the constants of Java's `SplittableRandom`.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of the reference's `derive` and `run_seeds`.
    #[test]
    fn seeds_are_those_of_the_reference() {
        assert_eq!(derive(42, &[&"tune", &0]), 1_597_096_957);
        assert_eq!(derive(0, &[&"halves"]), 3_924_013_125);
        assert_eq!(derive(u32::MAX, &[&"a", &"b", &7]), 1_433_997_693);
        assert_eq!(derive(42, &[]), 3_455_989_285);

        let seeds = Seeds::new(42, 3, 2);
        assert_eq!(seeds.tune, [1_597_096_957, 1_893_851_776, 1_218_539_079]);
        assert_eq!(seeds.confirm, [2_530_410_304, 216_267_768]);
        assert_eq!(Seeds::new(42, 5, 0).tune[..3], seeds.tune);
    }

    #[test]
    fn a_repeated_seed_is_skipped() {
        let of = |phase: &str, j: usize| derive(14464, &[&phase, &j]);
        assert_eq!(of("tune", 401), of("confirm", 344));
        let seeds = Seeds::new(14464, 700, 700);
        assert_eq!((seeds.tune[699], seeds.confirm[699]), (1_558_163_025, 1_877_781_017));
        assert_eq!(seeds.confirm[699], of("confirm", 700));
    }

    /// Numbers of the reference's `halves`.
    #[test]
    fn halves_are_those_of_the_reference() {
        assert_eq!(halves(4, 1), [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]);
        assert_eq!(halves(3, 1), [[0, 1], [0, 2], [1, 2]]);
        assert_eq!((halves(1, 1), halves(0, 1)), (vec![vec![0]], vec![vec![]]));
        let all = halves(12, 0);
        assert_eq!(
            (all.len(), &all[500][..], &all[923][..]),
            (924, &[1, 2, 3, 6, 7, 10][..], &[6, 7, 8, 9, 10, 11][..])
        );

        let drawn = halves(13, 42);
        assert_eq!(
            (drawn.len(), &drawn[0][..], &drawn[1][..]),
            (1000, &[0, 1, 4, 5, 6, 7, 12][..], &[1, 2, 3, 4, 7, 8, 12][..])
        );
        assert_eq!(drawn[999], [2, 3, 4, 5, 8, 11, 12]);
        assert_eq!(halves(20, 7)[999], [1, 5, 6, 7, 8, 10, 12, 13, 14, 18]);
    }
}

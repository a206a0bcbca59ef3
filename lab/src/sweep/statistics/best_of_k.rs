//! The best of k settings, drawn without replacement from those that were tried (Dodge et al., 2019, arXiv:1909.03004).
//!
//! Of n scores v₀ ≤ v₁ ≤ .., the lowest of k is vᵢ with probability C(n-i-1, k-1) / C(n, k).

use num_bigint::BigUint;

/// The mean score of the best of 1, 2, .. settings. Scores are finite.
pub fn expected_best(scores: &[f64]) -> Vec<f64> {
    let sorted = sorted(scores);
    let n = sorted.len();
    let most = sorted.iter().fold(0f64, |most, score| most.max(score.abs()));
    let mean = |(k, all): (usize, BigUint)| {
        let mut sum = 0.;
        let mut ways = &all * k / n;
        for (i, score) in sorted[..=n - k].iter().enumerate() {
            let chance = quotient(&ways, &all);
            sum += score * chance;
            // Chances decrease: no later term reaches half a unit in the last place of the sum.
            if most * chance < f64::abs(sum) * (f64::EPSILON / 8.) {
                break;
            }
            if i < n - k {
                ways = ways * (n - i - k) / (n - i - 1);
            }
        }
        sum
    };
    subsets(n).map(mean).collect()
}

/// The lower median score of the best of 1, 2, .. settings.
pub fn median_best(scores: &[f64]) -> Vec<f64> {
    let sorted = sorted(scores);
    let n = sorted.len();
    let median = |(k, all): (usize, BigUint)| {
        // Ways to take k of the scores after v_i, all of which are higher.
        let mut higher = &all * (n - k) / n;
        let mut i = 0;
        while &higher * 2u32 > all {
            i += 1;
            higher = higher * (n - i - k) / (n - i);
        }
        sorted[i]
    };
    subsets(n).map(median).collect()
}

fn sorted(scores: &[f64]) -> Vec<f64> {
    let mut sorted = scores.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// Each k from 1 to n, with C(n, k).
fn subsets(n: usize) -> impl Iterator<Item = (usize, BigUint)> {
    let next = move |(k, ways): &(usize, BigUint)| Some((k + 1, ways * (n - k) / (k + 1)));
    std::iter::successors(Some((0, BigUint::from(1u32))), next).skip(1).take(n)
}

/// `a / b` for 0 < a ≤ b, rounded once, to nearest and ties to even, as Python divides two integers.
fn quotient(a: &BigUint, b: &BigUint) -> f64 {
    // Bits of a quotient before rounding: those of an f64, and two or three more.
    const BITS: u64 = f64::MANTISSA_DIGITS as u64 + 2;
    /// The exponent of the last bit of the smallest f64, negated.
    const LAST: u64 = 1074;
    let shift = (BITS + b.bits().saturating_sub(a.bits())).min(LAST + 2);
    let shifted = a << shift;
    let floor = &shifted / b;
    let rest = u64::from(&floor * b != shifted);
    let bits = u64::try_from(&floor).unwrap_or(u64::MAX) | rest;
    let width = u64::from(u64::BITS - bits.leading_zeros());
    let dropped = width.saturating_sub(f64::MANTISSA_DIGITS.into()).max(shift.saturating_sub(LAST));
    let (kept, half) = (bits >> dropped, 1 << dropped >> 1);
    let up = match (bits & ((1 << dropped) - 1)).cmp(&half) {
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Equal => kept & 1,
        std::cmp::Ordering::Greater => 1,
    };
    // Two factors, because the exponent bits represent no power of 2 below 2^-1022.
    let exponent = shift - dropped;
    let power = |exponent: u64| f64::from_bits((1023 - exponent) << 52);
    (kept + up) as f64 * power(exponent / 2) * power(exponent - exponent / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_few_is_counted() {
        let scores = [3., 1., 4., 1.5];
        // Of the 6 pairs, 3 have the lowest score, 2 the next.
        assert_eq!(expected_best(&scores), [2.375, (3. * 1. + 2. * 1.5 + 3.) / 6., 1.125, 1.]);
        assert_eq!(median_best(&scores), [1.5, 1., 1., 1.]);
        assert_eq!((expected_best(&[]), median_best(&[])), (vec![], vec![]));
    }

    /// Numbers of the reference.
    #[test]
    fn the_best_of_thousands_is_that_of_the_reference() {
        let scores: Vec<f64> = (0..2000).map(|i| f64::from(i * i % 1009) / 1009.).collect();
        let (means, medians) = (expected_best(&scores), median_best(&scores));
        for (k, mean, median) in [
            (1, 0.5029549058473736, 0.5014866204162537),
            (2, 0.33192577160730996, 0.29137760158572845),
            (3, 0.24612992272571738, 0.20118929633300298),
            (10, 0.08223730811481415, 0.053518334985133795),
            (100, 0.005645705171079503, 0.003964321110009911),
            (1000, 0.00028049506432409744, 0.),
            (2000, 0., 0.),
        ] {
            assert_eq!((means[k - 1], medians[k - 1]), (mean, median), "{k}");
        }
        let zeros: Vec<f64> = (0..1200).map(|i| f64::from((i - 400).max(0)) / 7.).collect();
        let means = expected_best(&zeros);
        for (k, mean) in [
            (1, 38.047619047619065),
            (2, 16.881845982763394),
            (10, 0.17459291921907183),
            (100, 2.6521409349107157e-19),
            (720, 5.056081729554041e-240),
            (799, 0.),
        ] {
            assert_eq!(means[k - 1], mean, "{k}");
        }
        let negative: Vec<f64> = (1..=500).map(|i| -1. / f64::from(i)).collect();
        let means = expected_best(&negative);
        for (k, mean) in [(1, -0.013585646859981048), (10, -0.08073024798416015), (499, -0.999)] {
            assert_eq!(means[k - 1], mean, "{k}");
        }
    }

    /// Python's quotients.
    #[test]
    fn a_quotient_is_rounded_once() {
        let one = BigUint::from(1u32);
        let power = |exponent: u32| &one << exponent;
        let small = |n: u64| BigUint::from(n);
        for (a, b, quotient) in [
            (small(1), small(3), 1. / 3.),
            (small(2), small(3), 2. / 3.),
            (small(7), small(7), 1.),
            (power(54) + 1u32, power(55), 0.5),
            (power(54) + 3u32, power(55), 0.5000000000000001),
            (power(3000) - 1u32, power(3000), 1.),
            (small(1), power(1074), 5e-324),
            (small(1), power(1075), 0.),
            (small(3), power(1075), 1e-323),
            (small(3), power(1076), 5e-324),
            (small(3), power(1074) + 1u32, 1.5e-323),
            (small(5), power(1074) * 3u32, 1e-323),
            (small(10).pow(300), small(10).pow(600) * 3u32, 3.3333333333333334e-301),
            (small(1), power(5000), 0.),
        ] {
            assert_eq!(super::quotient(&a, &b), quotient, "{a} / {b}");
        }
    }
}

//! Whether one optimizer is worse than another on the same seeds (sign test).

use num_bigint::BigUint;
use serde::Serialize;

use super::ordered::{interval, number};
use super::quantiles::median;

/// The test loss of an optimizer minus that of the best one, seed by seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The median of the differences.
    #[serde(serialize_with = "number")]
    pub median: f64,
    /// The interval that contains the true median with probability `level` or more; none if there are too few seeds.
    #[serde(serialize_with = "interval")]
    pub interval: Option<[f64; 2]>,
    /// 0.95 for one comparison, more for each of several (Bonferroni).
    pub level: f64,
    /// Seeds on which the best one has the lower loss.
    pub best_wins: usize,
    /// Seeds on which both have the same loss.
    pub equal: usize,
    /// Seeds that both have runs for.
    pub seeds: usize,
    /// The conclusion.
    pub verdict: Verdict,
}

/// The conclusion about an optimizer, compared with the best one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All of the interval is above 0.
    Worse,
    /// All of the interval is below 0.
    Better,
    /// The interval contains 0.
    #[serde(rename = "not distinguished")]
    NotDistinguished,
    /// There is no interval.
    #[serde(rename = "too few seeds")]
    TooFewSeeds,
}

/// The difference of `pairs` of test losses, where the best optimizer is second. None without pairs.
pub(super) fn difference(pairs: &[(f64, f64)], alpha: f64) -> Option<Difference> {
    // Two infinite losses are equal.
    let difference = |&(a, b): &(f64, f64)| if a == b { 0. } else { a - b };
    let mut sorted: Vec<f64> = pairs.iter().map(difference).collect();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let interval = order(n, alpha).checked_sub(1).map(|below| [sorted[below], sorted[n - 1 - below]]);
    let verdict = match interval {
        Some([low, _]) if low > 0. => Verdict::Worse,
        Some([_, high]) if high < 0. => Verdict::Better,
        Some(_) => Verdict::NotDistinguished,
        None => Verdict::TooFewSeeds,
    };
    Some(Difference {
        median: median(&sorted)?,
        interval,
        level: 1. - alpha,
        best_wins: sorted.iter().filter(|&&x| x > 0.).count(),
        equal: sorted.iter().filter(|&&x| x == 0.).count(),
        seeds: n,
        verdict,
    })
}

/// The largest k with 2 P(Binomial(n, 1/2) < k) ≤ `alpha`: the k-th lowest and the k-th highest of n differences are
/// the ends of an interval that covers the median with probability 1 - `alpha` or more, whatever the distribution. 0: n
/// is too small.
///
/// Exact: `alpha`, from 2^-52 to 1, is a whole number times a power of 2.
fn order(n: usize, alpha: f64) -> usize {
    /// Any f64 from 2^-52 to 1, times 2 to the power of this, is a whole number.
    const SCALE: u32 = 2 * (f64::MANTISSA_DIGITS - 1);
    let scaled = (alpha * 2f64.powi(SCALE as i32)) as u128;
    let limit = BigUint::from(scaled) << n;
    let mut ways = BigUint::from(1u32);
    let mut below = ways.clone();
    let mut k = 0;
    while &below << (SCALE + 1) <= limit {
        ways = ways * (n - k) / (k + 1);
        below += &ways;
        k += 1;
    }
    k
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of the reference's `order_k`.
    #[test]
    fn the_order_is_that_of_the_sign_test() {
        let orders = |sizes: &[usize], alpha| sizes.iter().map(|&n| order(n, alpha)).collect::<Vec<_>>();
        let sizes = [0, 1, 5, 6, 7, 8, 9, 10, 20, 50, 100, 1000];
        assert_eq!(orders(&sizes, 0.05), [0, 0, 0, 1, 1, 1, 2, 2, 6, 18, 40, 469]);
        assert_eq!(orders(&[10, 11, 20, 100], 0.05 / 29.), [0, 1, 3, 34]);
        assert_eq!(orders(&[1023], 0.05 / 3.), [473]);
        // Here 2 P = alpha: 2 · 1 / 2^5.
        assert_eq!(orders(&[4, 5, 6, 9], 0.0625), [0, 1, 1, 2]);
    }

    #[test]
    fn infinite_losses_differ_by_nothing() {
        let inf = f64::INFINITY;
        let found = difference(&[(inf, inf), (inf, 1.), (2., 2.)], 0.05).unwrap();
        assert_eq!((found.median, found.best_wins, found.equal, found.seeds), (0., 1, 2, 3));
        assert_eq!((found.interval, found.verdict), (None, Verdict::TooFewSeeds));
        let found = difference(&[(1., inf); 6], 0.05).unwrap();
        assert_eq!((found.interval, found.verdict), (Some([-inf, -inf]), Verdict::Better));
    }
}

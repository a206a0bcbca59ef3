//! Quantiles of numbers that may be infinite.

/// The quantile at `p`, from 0 to 1: type 7 of Hyndman and Fan, 1996, which is NumPy's `linear`. It is never NaN: at an
/// exact index it is the value there, and next to an infinity it is infinite. None without values.
pub fn quantile(values: &[f64], p: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    of_sorted(&sorted, p)
}

/// The middle value, or the midpoint of the two middle values.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The quantiles at 1/4, 1/2 and 3/4.
pub fn quartiles(values: &[f64]) -> Option<[f64; 3]> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some([of_sorted(&sorted, 0.25)?, of_sorted(&sorted, 0.5)?, of_sorted(&sorted, 0.75)?])
}

fn of_sorted(sorted: &[f64], p: f64) -> Option<f64> {
    let h = sorted.len().checked_sub(1)? as f64 * p;
    let (below, t) = (h as usize, h.fract());
    let low = *sorted.get(below)?;
    let high = *sorted.get(below + 1).filter(|&&high| t != 0. && high != low).unwrap_or(&low);
    Some(match (low.is_finite(), high.is_finite()) {
        (_, false) => high,
        (false, true) => low,
        (true, true) => low + (high - low) * t,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_between_its_neighbours() {
        assert_eq!(quantile(&[4., 1., 3.], 0.25), Some(2.));
        assert_eq!(quantile(&[10., 0.], 0.75), Some(7.5));
        assert_eq!(quartiles(&[5., 1., 2., 4., 3.]), Some([2., 3., 4.]));
        assert_eq!((quantile(&[1., 2.], 0.), quantile(&[1., 2.], 1.)), (Some(1.), Some(2.)));
        assert_eq!((median(&[7.]), median(&[])), (Some(7.), None));
    }

    #[test]
    fn a_quantile_is_never_nan() {
        let inf = f64::INFINITY;
        assert_eq!(median(&[1., 2., inf]), Some(2.));
        assert_eq!(quantile(&[1., 2., inf], 0.75), Some(inf));
        assert_eq!(median(&[inf, inf]), Some(inf));
        assert_eq!(median(&[-inf, inf]), Some(inf));
        assert_eq!(median(&[-inf, 1.]), Some(-inf));
    }
}

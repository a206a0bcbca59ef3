//! Exponential and logarithm as the losses need them, in a form that vectorizes.

use candle_core::WithDType;

use crate::real::Real;

/// The elementary functions of the losses. NaN stays NaN.
pub(super) trait Elementary: Real + WithDType {
    /// `exp(x)` for x ≤ 0.
    fn exp_below_zero(x: Self) -> Self;
    /// `ln(1 + x)` for x in [0, 1].
    fn ln_1p_to_one(x: Self) -> Self;
}

impl Elementary for f32 {
    /// By x = k·ln 2 + r and the series of exp(r), |r| ≤ ½ ln 2, up to r⁷/7!: within 2 ulp. It is 0 below -87, where
    /// exp(x) nears the smallest normal number.
    #[inline(always)]
    fn exp_below_zero(x: f32) -> f32 {
        // The addition of this constant rounds a small number to an integer, which is then in the lowest bits.
        const ROUND: f32 = 12_582_912.;
        // ln 2 in two parts, the first short enough for its product with k to be exact.
        const LN_2_HIGH: f32 = 0.693_359_4;
        const LN_2_LOW: f32 = -2.121_944_4e-4;
        const SMALLEST: f32 = -87.;
        let vanishes = x < SMALLEST;
        let x = if vanishes { SMALLEST } else { x };
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let k = shifted - ROUND;
        let r = (x - k * LN_2_HIGH) - k * LN_2_LOW;
        let series = 1. / 720. + r * (1. / 5040.);
        let series = 1. / 24. + r * (1. / 120. + r * series);
        let series = 1. + r * (1. + r * (0.5 + r * (1. / 6. + r * series)));
        let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
        if vanishes { 0. } else { series * f32::from_bits(power) }
    }

    /// By ln(1 + x) = 2 artanh(s), s = x/(2 + x) ≤ ⅓, up to s¹³/13: within 3 ulp.
    #[inline(always)]
    fn ln_1p_to_one(x: f32) -> f32 {
        let s = x / (2. + x);
        let q = s * s;
        let series = 1. / 9. + q * (1. / 11. + q * (1. / 13.));
        let series = 1. + q * (1. / 3. + q * (1. / 5. + q * (1. / 7. + q * series)));
        2. * s * series
    }
}

/// From the C library, which is accurate to an ulp: double precision is for the oracle, not for speed.
impl Elementary for f64 {
    #[inline(always)]
    fn exp_below_zero(x: f64) -> f64 {
        x.exp()
    }

    #[inline(always)]
    fn ln_1p_to_one(x: f64) -> f64 {
        x.ln_1p()
    }
}

#[cfg(test)]
mod tests {
    use super::Elementary;

    /// Difference in units of the last place of the exact value.
    fn ulps(got: f32, exact: f64) -> f64 {
        let nearest = exact as f32;
        let ulp = f64::from(f32::from_bits(nearest.to_bits() + 1)) - f64::from(nearest);
        (f64::from(got) - exact).abs() / ulp
    }

    #[test]
    fn single_precision_is_within_a_few_ulp() {
        for i in 0..200_000 {
            let x = -86.5 * (i as f32 / 200_000.).powi(3);
            assert!(ulps(f32::exp_below_zero(x), f64::from(x).exp()) < 2., "exp({x})");
            let t = i as f32 / 199_999.;
            assert!(ulps(f32::ln_1p_to_one(t), f64::from(t).ln_1p()) < 3., "ln_1p({t})");
        }
        assert_eq!(f32::exp_below_zero(0.), 1.);
        assert_eq!([f32::NEG_INFINITY, -87.01].map(f32::exp_below_zero), [0., 0.]);
        assert!(f32::exp_below_zero(f32::NAN).is_nan() && f32::ln_1p_to_one(f32::NAN).is_nan());
    }
}

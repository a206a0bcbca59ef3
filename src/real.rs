//! The numbers that a rule computes with.
//!
//! A rule uses only [`Real`]. At `f32` it is the pass on the CPU, at `f64` it is what the oracle checks, and at the
//! recording type it prints its CUDA kernel. Every operation rounds once, in that type. Nothing is contracted into a
//! fused multiply-add, so a rule gives the same bits wherever it runs.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// A floating-point number, or the engine's type that records operations. There are no branches on its value.
pub trait Real:
    Copy
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// The number nearest to `x`. Scalars are computed on the host in f64 and rounded once, here.
    fn lit(x: f64) -> Self;
    /// The square root; NaN below zero.
    fn sqrt(self) -> Self;
    /// The cube root of a number of at least 0, within 2 ulp; NaN for infinity.
    fn cbrt(self) -> Self;
    /// The magnitude.
    fn abs(self) -> Self;
    /// -1 or 1. Zero and NaN are returned unchanged.
    fn sign(self) -> Self;
    /// The larger of two numbers, or NaN if either is NaN, as in `torch.maximum` and unlike [`f64::max`].
    fn max(self, other: Self) -> Self;
    /// The smaller of two numbers, or NaN if either is NaN.
    fn min(self, other: Self) -> Self;
    /// `yes` if this number is above zero, else `no`, also for NaN.
    fn if_positive(self, yes: Self, no: Self) -> Self;
    /// Names this number in printed kernels. It does nothing on the CPU.
    #[inline(always)]
    fn named(self, _name: &'static str) -> Self {
        self
    }
}

macro_rules! real {
    ($($float:ident $third:literal $iterations:literal),*) => {$(
        impl Real for $float {
            #[inline(always)]
            fn lit(x: f64) -> Self {
                x as $float
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                $float::sqrt(self)
            }
            /// Newton's method, with the same operations as on a GPU, whose library function rounds differently. A
            /// third of the bits divides the exponent by 3. This start value is off by at most 3.4 % (FreeBSD, msun,
            /// s_cbrt.c).
            #[inline(always)]
            fn cbrt(self) -> Self {
                let mut y = $float::from_bits(self.to_bits() / 3 + $third);
                for _ in 0..$iterations {
                    y = y + (self / (y * y) - y) * (1. / 3.);
                }
                if self > 0. { y } else { self }
            }
            #[inline(always)]
            fn abs(self) -> Self {
                $float::abs(self)
            }
            #[inline(always)]
            fn sign(self) -> Self {
                if self > 0. {
                    1.
                } else if self < 0. {
                    -1.
                } else {
                    self
                }
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                if self > other || self.is_nan() { self } else { other }
            }
            #[inline(always)]
            fn min(self, other: Self) -> Self {
                if self < other || self.is_nan() { self } else { other }
            }
            #[inline(always)]
            fn if_positive(self, yes: Self, no: Self) -> Self {
                if self > 0. { yes } else { no }
            }
        }
    )*};
}
real!(f32 0x2a51_19f2 3, f64 0x2a9f_7893_0000_0000 4);

#[cfg(test)]
mod tests {
    use super::Real;

    #[test]
    fn maximum_and_minimum_keep_nan_from_either_side() {
        assert_eq!((Real::max(1f64, 2.), Real::max(2f64, 1.)), (2., 2.));
        assert_eq!((Real::min(1f64, 2.), Real::min(2f64, 1.)), (1., 1.));
        for (x, y) in [(f64::NAN, 1.), (1., f64::NAN)] {
            assert!(Real::max(x, y).is_nan() && Real::min(x, y).is_nan());
        }
    }

    #[test]
    fn cube_roots() {
        for i in 0..200_000 {
            // Samples the normal numbers.
            let x = f32::from_bits(0x0080_0000 + i * ((0x7f80_0000 - 0x0080_0000) / 200_000));
            let (root, exact) = (Real::cbrt(x), f64::from(x).cbrt());
            assert!((f64::from(root) - exact).abs() < 2. * f64::from(f32::EPSILON) * exact, "{x:e}: {root:e}");
            let x = f64::from_bits(0x0010_0000_0000_0000 + u64::from(i) * (0x7fe0_0000_0000_0000 / 200_000));
            let (root, exact) = (Real::cbrt(x), x.cbrt());
            assert!((root - exact).abs() < 2. * f64::EPSILON * exact, "{x:e}: {root:e}");
        }
        assert_eq!((Real::cbrt(0f32), Real::cbrt(0f64), Real::cbrt(27f64)), (0., 0., 3.));
        assert!(Real::cbrt(f64::NAN).is_nan());
    }

    #[test]
    fn signs_of_zero_and_nan() {
        assert_eq!([-2f32, 0., 3.].map(Real::sign), [-1., 0., 1.]);
        assert!(Real::sign(f32::NAN).is_nan());
        assert_eq!(Real::if_positive(f32::NAN, 1., 2.), 2.);
        assert_eq!(Real::if_positive(0f32, 1., 2.), 2.);
    }
}

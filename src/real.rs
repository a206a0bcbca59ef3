//! The numbers that a rule computes with.
//!
//! A rule sees nothing but [`Real`]: at `f32` it is the pass on the CPU, at `f64` it is what the oracle checks, and at the
//! recording type it prints its CUDA kernel. Every operation rounds once, in that type. Nothing is contracted into a fused
//! multiply-add, so a rule gives the same bits wherever it runs.

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
    /// The magnitude.
    fn abs(self) -> Self;
    /// -1 or 1; a zero and NaN stay what they are.
    fn sign(self) -> Self;
    /// The larger of two numbers, NaN if either is: as `torch.maximum`, and unlike [`f64::max`].
    fn max(self, other: Self) -> Self;
    /// The smaller of two numbers, NaN if either is.
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
    ($($float:ident),*) => {$(
        impl Real for $float {
            #[inline(always)]
            fn lit(x: f64) -> Self {
                x as $float
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                $float::sqrt(self)
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
real!(f32, f64);

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
    fn signs_of_zero_and_nan() {
        assert_eq!([-2f32, 0., 3.].map(Real::sign), [-1., 0., 1.]);
        assert!(Real::sign(f32::NAN).is_nan());
        assert_eq!(Real::if_positive(f32::NAN, 1., 2.), 2.);
        assert_eq!(Real::if_positive(0f32, 1., 2.), 2.);
    }
}

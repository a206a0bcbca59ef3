//! The numbers a rule is written in.
//!
//! A rule sees nothing but [`Real`]: at `f32` it becomes the CPU pass, at `f64` it is what the PyTorch oracle
//! checks. Every operation rounds once, in that type; nothing is contracted into a fused multiply-add, so that a
//! rule gives the same bits wherever it runs.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// A floating-point number as an update rule uses it: arithmetic, and a few functions without branches.
pub trait Real:
    Copy
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// The nearest number to `x`. Scalars are computed on the host in f64 and rounded once, here.
    fn lit(x: f64) -> Self;
    /// Square root; NaN below zero.
    fn sqrt(self) -> Self;
    /// The larger of two numbers, NaN if either is: as `torch.maximum`, and unlike [`f64::max`].
    fn max(self, other: Self) -> Self;
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
            fn max(self, other: Self) -> Self {
                if self > other || self.is_nan() { self } else { other }
            }
        }
    )*};
}
real!(f32, f64);

#[cfg(test)]
mod tests {
    use super::Real;

    #[test]
    fn max_keeps_nan_from_either_side() {
        assert_eq!(Real::max(1f64, 2.), 2.);
        assert_eq!(Real::max(2f64, 1.), 2.);
        assert!(Real::max(f64::NAN, 1.).is_nan());
        assert!(Real::max(1., f64::NAN).is_nan());
    }
}

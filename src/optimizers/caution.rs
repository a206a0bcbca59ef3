//! Caution: a step leaves out the elements whose direction u and gradient g disagree.
//!
//! ```text
//! u ← k·u/max(mean k, 10⁻³)      k = 1 if u·g > 0, else 0; the mean is the tensor's
//! ```
//! Liang et al., 2024, arXiv:2411.16085; as in timm. The authors' first code and pytorch_optimizer divide by
//! (Σk + 1)/n instead.
use crate::real::Real;

/// k, the term of the sum `agreeing`.
#[inline(always)]
pub(super) fn agrees<R: Real>(u: R, g: R) -> R {
    (u * g).if_positive(R::lit(1.), R::lit(0.))
}

/// The cautious u. NaN stays NaN.
#[inline(always)]
pub(super) fn cautious<R: Real>(u: R, g: R, agreeing: R, count: R) -> R {
    let share = (agreeing / count).max(R::lit(1e-3));
    (u * g).if_positive(u / share, u * R::lit(0.))
}

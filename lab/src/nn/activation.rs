//! The activation of a layer.

use std::f64::consts::FRAC_1_SQRT_2;
use std::str::FromStr;

use candle_core::Tensor;
use candle_optim::Error;
use pulp::Simd;

use super::simd::{Lane, Scalar};
use crate::unknown;

/// The activation of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// The hyperbolic tangent.
    Tanh,
    /// `x·Φ(x)` for the normal distribution Φ (Hendrycks and Gimpel 2016), as `torch.nn.GELU()`.
    Gelu,
    /// `x·σ(x)` for the logistic function σ (Elfwing et al. 2017), as `torch.nn.SiLU()`.
    Silu,
}

impl Activation {
    /// The activations that a network may have between its layers.
    pub const BETWEEN_LAYERS: [Self; 4] = [Self::Relu, Self::Tanh, Self::Gelu, Self::Silu];

    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Relu => "relu",
            Self::Tanh => "tanh",
            Self::Gelu => "gelu",
            Self::Silu => "silu",
        }
    }

    /// Whether the whole activation is computed with the sums.
    pub(super) fn is_fused(self) -> bool {
        matches!(self, Self::Identity | Self::Relu)
    }

    /// The part that is computed with the sums.
    pub(super) fn fused(self) -> Fused {
        if self == Self::Relu { Fused::Relu } else { Fused::Identity }
    }

    /// Applies the rest by Candle's operations.
    pub(super) fn rest(self, x: Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Identity | Self::Relu => Ok(x),
            Self::Tanh => x.tanh(),
            // Candle's own gradient of GELU uses a constant of six digits.
            Self::Gelu => (&x * FRAC_1_SQRT_2)?.erf()?.affine(0.5, 0.5)? * x,
            Self::Silu => x.silu(),
        }
    }
}

impl FromStr for Activation {
    type Err = Error;

    /// One of [`BETWEEN_LAYERS`](Self::BETWEEN_LAYERS), by its name.
    fn from_str(text: &str) -> Result<Self, Error> {
        let named = Self::BETWEEN_LAYERS.into_iter().find(|activation| activation.name() == text);
        named.ok_or_else(|| unknown("activation", text, Self::BETWEEN_LAYERS.map(Self::name)))
    }
}

/// An activation that is computed with the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fused {
    /// Nothing.
    Identity,
    /// `max(x, 0)`.
    Relu,
}

impl Fused {
    #[inline(always)]
    pub(super) fn of<R: Scalar>(self, x: R) -> R {
        let zero = R::lit(0.);
        if self == Self::Relu && x < zero { zero } else { x }
    }

    /// The activation, lane by lane.
    #[inline(always)]
    pub(super) fn of_lanes<S: Simd, R: Lane<S>>(self, simd: S, x: R::Vector) -> R::Vector {
        match self {
            Self::Identity => x,
            Self::Relu => R::larger(simd, R::splat(simd, R::lit(0.)), x),
        }
    }

    /// The gradient of the argument, from the result y and the gradient of y, lane by lane.
    #[inline(always)]
    pub(super) fn grad_of_lanes<S: Simd, R: Lane<S>>(self, simd: S, y: R::Vector, grad: R::Vector) -> R::Vector {
        match self {
            Self::Identity => grad,
            Self::Relu => R::gated(simd, y, grad),
        }
    }
}

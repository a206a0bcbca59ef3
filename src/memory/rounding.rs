//! The rounding of f32 to bf16 and f16: to the nearest, or stochastically.
//!
//! Stochastic rounding goes up or down at random, with probabilities given by the distances to the two neighbors. An
//! average that moves by less than half a unit in the last place would never change if it were rounded to the nearest.
//! With β₂ = 0.999 this holds for any v. It also holds for a weight under a small learning rate.

use candle_core::{DType, Result, Tensor};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use pulp::{Arch, Simd, WithSimd};

/// How numbers are rounded to 16 bits.
#[derive(Clone, Copy)]
pub(crate) enum Rounding {
    /// To the nearest, ties to even.
    Nearest,
    Stochastic(Noise),
}

/// All that stochastic rounding depends on. The result is therefore the same for any number of threads.
#[derive(Clone, Copy)]
pub(crate) struct Noise {
    pub(crate) step: u64,
    /// The position of the state tensor, or [`VARIABLE`].
    pub(crate) name: u32,
    /// The position of the first element in the variable.
    pub(crate) from: usize,
}

/// The name in the noise of the variable itself. State tensors use their positions.
pub(crate) const VARIABLE: u32 = u32::MAX;

impl Noise {
    fn salt(self) -> u32 {
        let high = (self.from >> 32) as u32;
        mix(step_salt(self.step) ^ self.name.wrapping_mul(0x9e37_79b9) ^ high)
    }
}

/// A type of 16 bits.
pub(crate) trait Half: Copy + Sized {
    fn round(from: &[f32], to: &mut [Self], rounding: Rounding);
}

impl Half for bf16 {
    fn round(from: &[f32], to: &mut [bf16], rounding: Rounding) {
        let to = to.reinterpret_cast_mut();
        match rounding {
            Rounding::Nearest => map(from, to, |_, x| bf16_bits(x, 0x7fff + ((x.to_bits() >> 16) & 1))),
            Rounding::Stochastic(noise) => with_noise(from, to, noise, |x, noise| bf16_bits(x, noise & 0xffff)),
        }
    }
}

impl Half for f16 {
    fn round(from: &[f32], to: &mut [f16], rounding: Rounding) {
        match rounding {
            Rounding::Nearest => to.convert_from_f32_slice(from),
            Rounding::Stochastic(noise) => with_noise(from, to.reinterpret_cast_mut(), noise, f16_bits),
        }
    }
}

fn with_noise(from: &[f32], to: &mut [u16], noise: Noise, round: impl Fn(f32, u32) -> u16) {
    let (salt, first) = (noise.salt(), noise.from as u32);
    map(from, to, move |i, x| round(x, mix(first.wrapping_add(i) ^ salt)));
}

/// Converts a tensor to `dtype`. A conversion to a 16-bit type rounds stochastically.
pub(crate) fn round_tensor(tensor: &Tensor, dtype: DType, step: u64, name: u32) -> Result<Tensor> {
    fn typed<H: Half + candle_core::WithDType>(tensor: &Tensor, noise: Noise) -> Result<Tensor> {
        let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let mut rounded = vec![H::zero(); values.len()];
        H::round(&values, &mut rounded, Rounding::Stochastic(noise));
        Tensor::from_vec(rounded, tensor.shape(), tensor.device())
    }
    let noise = Noise { step, name, from: 0 };
    match dtype {
        _ if tensor.dtype() == dtype => Ok(tensor.clone()),
        DType::BF16 => typed::<bf16>(tensor, noise),
        DType::F16 => typed::<f16>(tensor, noise),
        _ => tensor.to_dtype(dtype),
    }
}

/// Sets each `to[i]` to `f(i, from[i])`.
pub(crate) fn map<A: Copy, B>(from: &[A], to: &mut [B], f: impl Fn(u32, A) -> B) {
    struct Map<'a, A, B, F>(&'a [A], &'a mut [B], F);
    impl<A: Copy, B, F: Fn(u32, A) -> B> WithSimd for Map<'_, A, B, F> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            let Self(from, to, f) = self;
            for (i, (from, to)) in from.iter().zip(to).enumerate() {
                *to = f(i as u32, *from);
            }
        }
    }
    Arch::new().dispatch(Map(from, to, f));
}

/// The bits of a bf16: the upper half of the bits of `x` after `add`, which may carry from the lower half. NaN stays
/// NaN.
#[inline(always)]
fn bf16_bits(x: f32, add: u32) -> u16 {
    let bits = x.to_bits().wrapping_add(add) >> 16;
    if x.is_nan() { 0x7fc0 } else { bits as u16 }
}

/// The bits of the f16 below or above a number. Above the largest finite f16 it rounds to the nearest, since the other
/// neighbor is infinite. NaN stays NaN.
#[inline(always)]
fn f16_bits(x: f32, noise: u32) -> u16 {
    let bits = x.to_bits();
    let (sign, size) = (bits >> 16 & 0x8000, bits & 0x7fff_ffff);
    let rounded = if size > 0x7f80_0000 {
        0x7e00
    } else if size >= 0x477f_f000 {
        0x7c00
    } else if size < 0x3880_0000 {
        // Below the smallest normal number the neighbors are multiples of 2⁻²⁴.
        (f32::from_bits(size) * 16_777_216. + (noise & 0xffff) as f32 / 65_536.) as u32
    } else {
        ((size + (noise & 0x1fff) - (112 << 23)) >> 13).min(0x7bff)
    };
    (sign | rounded) as u16
}

/// The contribution of a step to the noise.
pub(crate) fn step_salt(step: u64) -> u32 {
    mix(mix(step as u32) ^ (step >> 32) as u32)
}

/// A hash of 32 bits in which every bit depends on every other (Wellons, 2018, "Prospecting for hash functions").
#[inline(always)]
pub(crate) fn mix(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOISE: Noise = Noise { step: 3, name: 1, from: 7 };

    fn rounded<H: Half>(numbers: &[f32], zero: H, rounding: Rounding) -> Vec<H> {
        let mut rounded = vec![zero; numbers.len()];
        H::round(numbers, &mut rounded, rounding);
        rounded
    }

    #[test]
    fn bf16_is_rounded_as_the_half_crate_rounds_it() {
        let numbers: Vec<f32> = (0..100_000u32)
            .map(|i| f32::from_bits(mix(i)))
            .chain([0., -0., f32::INFINITY, f32::NAN, 1.0039063])
            .collect();
        for (&x, rounded) in numbers.iter().zip(rounded(&numbers, bf16::ZERO, Rounding::Nearest)) {
            if x.is_nan() {
                assert!(rounded.is_nan());
            } else {
                assert_eq!(rounded, bf16::from_f32(x));
            }
        }
    }

    #[test]
    fn stochastic_rounding_goes_to_a_neighbor_and_is_right_on_average() {
        fn check<H: Half + PartialEq + std::fmt::Debug>(zero: H, low: f32, high: f32, narrow: fn(f32) -> H) {
            for sign in [1., -1.] {
                let numbers = vec![sign * (low + 0.3 * (high - low)); 100_000];
                let rounded = rounded(&numbers, zero, Rounding::Stochastic(NOISE));
                let (low, high) = (narrow(sign * low), narrow(sign * high));
                assert!(rounded.iter().all(|x| [low, high].contains(x)), "{low:?} {high:?}");
                let up = rounded.iter().filter(|x| **x == high).count() as f64 / numbers.len() as f64;
                assert!((up - 0.3).abs() < 0.01, "{low:?} {high:?} {up}");
            }
        }
        for (low, high) in
            [(1., 1. + 1. / 128.), (0.25, 0.25 + 1. / 512.), (1e30, f32::from_bits(1e30f32.to_bits() + 0x1_0000))]
        {
            let low = bf16::from_f32(low).to_f32();
            let high = if high > 1e20 { f32::from_bits(low.to_bits() + 0x1_0000) } else { high };
            check(bf16::ZERO, low, high, bf16::from_f32);
        }
        let smallest = 2f32.powi(-24);
        for (low, high) in [
            (1., 1. + 1. / 1024.),
            (0., smallest),
            (5. * smallest, 6. * smallest),
            (1023. * smallest, 1024. * smallest),
            (65_472., 65_504.),
        ] {
            check(f16::ZERO, low, high, f16::from_f32);
        }
    }

    #[test]
    fn stochastic_rounding_leaves_exact_numbers_infinity_and_nan() {
        let exact = |x: f32| (f16::from_f32(x).to_f32(), bf16::from_f32(x).to_f32());
        let numbers: Vec<f32> = (0..100_000).map(|i| f32::from_bits(mix(i))).filter(|x| !x.is_nan()).collect();
        let (of_f16, of_bf16): (Vec<f32>, Vec<f32>) = numbers.iter().map(|&x| exact(x)).unzip();
        let stochastic = Rounding::Stochastic(NOISE);
        assert!(rounded(&of_f16, f16::ZERO, stochastic).iter().map(|x| x.to_f32()).eq(of_f16));
        assert!(rounded(&of_bf16, bf16::ZERO, stochastic).iter().map(|x| x.to_f32()).eq(of_bf16));
        assert!(rounded(&[f32::NAN], f16::ZERO, stochastic)[0].is_nan());
        assert!(rounded(&[f32::NAN], bf16::ZERO, stochastic)[0].is_nan());
        // The neighbor above is infinite.
        assert_eq!(rounded(&[65_519., 65_520.], f16::ZERO, stochastic), [f16::MAX, f16::INFINITY]);
    }
}

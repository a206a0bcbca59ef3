//! The rounding of f32 to bf16: one rounding function, and the noise by which 16-bit state is rounded at random.

use half::bf16;
use half::slice::HalfFloatSliceExt;
use pulp::{Arch, Simd, WithSimd};

/// Rounds up or down at random, by the distance to either. An average that moves by less than half a unit of the last place
/// would stand still forever if it were rounded to the nearest: with β₂ = 0.999, any v would.
pub(crate) fn narrow_at_random(from: &[f32], to: &mut [bf16], noise: Noise) {
    let (salt, first) = (noise.salt(), noise.from as u32);
    map(from, to.reinterpret_cast_mut(), move |i, x| round(x, mix(first.wrapping_add(i) ^ salt) & 0xffff));
}

/// A whole state tensor, rounded as a step rounds it.
pub(super) fn round_at_random(values: &[f32], step: u64, name: u32) -> Vec<bf16> {
    let mut rounded = vec![bf16::ZERO; values.len()];
    narrow_at_random(values, &mut rounded, Noise { step, name, from: 0 });
    rounded
}

/// Sets each number to a function of its index and of another number.
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

/// The upper half of a number's bits, which is a bf16's, after `add` to the lower half has carried or not. NaN stays NaN.
#[inline(always)]
pub(crate) fn round(x: f32, add: u32) -> u16 {
    let bits = x.to_bits().wrapping_add(add) >> 16;
    if x.is_nan() { 0x7fc0 } else { bits as u16 }
}

/// What the rounding of a state's elements depends on, and nothing else: the same at any number of threads.
#[derive(Clone, Copy)]
pub(crate) struct Noise {
    pub(crate) step: u64,
    pub(crate) name: u32,
    pub(crate) from: usize,
}

impl Noise {
    fn salt(self) -> u32 {
        let high = (self.from >> 32) as u32;
        mix(step_salt(self.step) ^ self.name.wrapping_mul(0x9e37_79b9) ^ high)
    }
}

/// What a step adds to the noise.
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

    #[test]
    fn state_is_rounded_to_a_neighbor_and_right_on_average() {
        let x = 1. + 0.3 / 128.;
        let numbers = vec![x; 100_000];
        let mut rounded = vec![bf16::ZERO; numbers.len()];
        narrow_at_random(&numbers, &mut rounded, Noise { step: 3, name: 1, from: 7 });
        let (low, high) = (bf16::from_f32(1.), bf16::from_f32(1. + 1. / 128.));
        assert!(rounded.iter().all(|x| [low, high].contains(x)));
        let up = rounded.iter().filter(|&&x| x == high).count() as f64 / numbers.len() as f64;
        assert!((up - 0.3).abs() < 0.01, "{up}");
        // Exact numbers, infinity and NaN stay.
        let numbers = [1.5, 0., f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        let mut rounded = [bf16::ZERO; 5];
        narrow_at_random(&numbers, &mut rounded, Noise { step: 1, name: 0, from: 0 });
        assert_eq!(rounded.map(bf16::to_f32)[..4], numbers[..4]);
        assert!(rounded[4].is_nan());
    }
}

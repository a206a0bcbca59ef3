//! Half precision, in parameters or in state: read, computed in f32, rounded once when written back.

use ::half::slice::HalfFloatSliceExt;
use ::half::{bf16, f16};
use pulp::{Arch, Simd, WithSimd};

use super::{Element, Now, Pass, State};
use crate::rule::MAX_STATE;

/// Elements converted at a time: their buffers stay in the first-level cache.
const BLOCK: usize = 512;

macro_rules! in_blocks {
    ($($p:ty, $s:ty;)*) => {$(
        impl Pass<$s> for $p {
            fn pass(p: &mut [$p], g: &[$p], state: State<$s>, now: Now) {
                in_blocks(p, g, state, now);
            }
        }
    )*};
}
in_blocks! { f32, bf16; f16, f32; f16, bf16; bf16, f32; bf16, bf16; }

fn in_blocks<E: Wide, Z: Wide>(p: &mut [E], g: &[E], mut state: State<Z>, now: Now) {
    let (mut wide_p, mut wide_g) = ([0.; BLOCK], [0.; BLOCK]);
    let mut wide_state = [[0.; BLOCK]; MAX_STATE];
    let names = now.plan.state().len();
    for (block, (p, g)) in p.chunks_mut(BLOCK).zip(g.chunks(BLOCK)).enumerate() {
        let (n, from) = (p.len(), block * BLOCK);
        for (kept, wide) in state[..names].iter().zip(&mut wide_state) {
            Z::widen(&kept[from..][..n], &mut wide[..n]);
        }
        let mut used = 0;
        let slices = wide_state.each_mut().map(|wide| {
            used += 1;
            if used <= names { &mut wide[..n] } else { [].as_mut_slice() }
        });
        E::with_wide(p, g, [&mut wide_p[..n], &mut wide_g[..n]], |p, g| {
            now.plan.kernel.run_f32(p, g, slices, now.plan);
        });
        for (i, (kept, wide)) in state[..names].iter_mut().zip(&wide_state).enumerate() {
            let noise = Noise { step: now.step, name: i as u32, from: now.from + from };
            Z::narrow_state(&wide[..n], &mut kept[from..][..n], noise);
        }
    }
}

/// A type that widens to f32.
trait Wide: Element {
    fn widen(from: &[Self], to: &mut [f32]);
    /// Rounded to the nearest, ties to even.
    fn narrow(from: &[f32], to: &mut [Self]);

    /// Rounded as state is.
    fn narrow_state(from: &[f32], to: &mut [Self], _: Noise) {
        Self::narrow(from, to);
    }

    /// Steps parameters by way of two buffers as long as they.
    fn with_wide(p: &mut [Self], g: &[Self], [wide_p, wide_g]: [&mut [f32]; 2], step: impl FnOnce(&mut [f32], &[f32])) {
        Self::widen(p, wide_p);
        Self::widen(g, wide_g);
        step(wide_p, wide_g);
        Self::narrow(wide_p, p);
    }
}

impl Wide for f32 {
    fn widen(from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }

    fn narrow(from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }

    fn with_wide(p: &mut [f32], g: &[f32], _: [&mut [f32]; 2], step: impl FnOnce(&mut [f32], &[f32])) {
        step(p, g);
    }
}

impl Wide for f16 {
    fn widen(from: &[f16], to: &mut [f32]) {
        from.convert_to_f32_slice(to);
    }

    fn narrow(from: &[f32], to: &mut [f16]) {
        to.convert_from_f32_slice(from);
    }
}

impl Wide for bf16 {
    fn widen(from: &[bf16], to: &mut [f32]) {
        map(from.reinterpret_cast(), to, |_, bits: u16| f32::from_bits(u32::from(bits) << 16));
    }

    fn narrow(from: &[f32], to: &mut [bf16]) {
        map(from, to.reinterpret_cast_mut(), |_, x| round(x, 0x7fff + ((x.to_bits() >> 16) & 1)));
    }

    /// Rounded up or down at random, by its distance to either. An average that moves by less than half a unit of the
    /// last place would stand still forever if it were rounded to the nearest: with β₂ = 0.999, any v would.
    fn narrow_state(from: &[f32], to: &mut [bf16], noise: Noise) {
        let (salt, first) = (noise.salt(), noise.from as u32);
        map(from, to.reinterpret_cast_mut(), move |i, x| round(x, mix(first.wrapping_add(i) ^ salt) & 0xffff));
    }
}

/// Sets each number to a function of its index and of another number.
fn map<A: Copy, B>(from: &[A], to: &mut [B], f: impl Fn(u32, A) -> B) {
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
fn round(x: f32, add: u32) -> u16 {
    let bits = x.to_bits().wrapping_add(add) >> 16;
    if x.is_nan() { 0x7fc0 } else { bits as u16 }
}

/// What the rounding of a state's elements depends on, and nothing else: the same at any number of threads.
#[derive(Clone, Copy)]
struct Noise {
    step: u64,
    name: u32,
    from: usize,
}

impl Noise {
    fn salt(self) -> u32 {
        let high = (self.from >> 32) as u32;
        mix(step_salt(self.step) ^ self.name.wrapping_mul(0x9e37_79b9) ^ high)
    }
}

/// What a step adds to the noise.
pub(super) fn step_salt(step: u64) -> u32 {
    mix(mix(step as u32) ^ (step >> 32) as u32)
}

/// A hash of 32 bits in which every bit depends on every other (Wellons, 2018, "Prospecting for hash functions").
#[inline(always)]
fn mix(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_rounded_as_the_half_crate_rounds_it() {
        let numbers: Vec<f32> = (0..100_000u32)
            .map(|i| f32::from_bits(mix(i)))
            .chain([0., -0., f32::INFINITY, f32::NAN, 1.0039063])
            .collect();
        let mut rounded = vec![bf16::ZERO; numbers.len()];
        bf16::narrow(&numbers, &mut rounded);
        let mut wide = vec![0.; numbers.len()];
        bf16::widen(&rounded, &mut wide);
        for ((&x, &rounded), &wide) in numbers.iter().zip(&rounded).zip(&wide) {
            if x.is_nan() {
                assert!(rounded.is_nan() && wide.is_nan());
            } else {
                assert_eq!((rounded, wide), (bf16::from_f32(x), rounded.to_f32()));
            }
        }
    }

    #[test]
    fn state_is_rounded_to_a_neighbor_and_right_on_average() {
        let x = 1. + 0.3 / 128.;
        let numbers = vec![x; 100_000];
        let mut kept = vec![bf16::ZERO; numbers.len()];
        bf16::narrow_state(&numbers, &mut kept, Noise { step: 3, name: 1, from: 7 });
        let (low, high) = (bf16::from_f32(1.), bf16::from_f32(1. + 1. / 128.));
        assert!(kept.iter().all(|kept| [low, high].contains(kept)));
        let up = kept.iter().filter(|&&kept| kept == high).count() as f64 / numbers.len() as f64;
        assert!((up - 0.3).abs() < 0.01, "{up}");
        // Exact numbers, infinity and NaN are kept.
        let numbers = [1.5, 0., f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        let mut kept = [bf16::ZERO; 5];
        bf16::narrow_state(&numbers, &mut kept, Noise { step: 1, name: 0, from: 0 });
        assert_eq!(kept.map(bf16::to_f32)[..4], numbers[..4]);
        assert!(kept[4].is_nan());
    }
}

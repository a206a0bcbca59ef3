//! Half precision, in variables or in state: read, computed in f32, rounded once when written back.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::pass::{self, Elements, Stepped, Sum, What};
use super::sums::Lanes;
use crate::memory::{Noise, Part, map, narrow_at_random, round};
use crate::rule::{MAX_STATE, MAX_SUMS, Rule};

/// Elements converted at a time, so that their copies stay in the first-level cache.
const CHUNK: usize = 512;

/// A pass over elements that are not all f32.
pub(super) fn pass<E: Wide, K: Rule<f32>>(k: K, what: What, elements: Elements<E>) {
    let stores = Stores { p: what == What::Update, state: true };
    in_chunks(elements, stores, |wide| pass::run(k, what, wide));
}

/// The sums of at most a block of elements that are not all f32.
pub(super) fn measure<E: Wide, K: Rule<f32>>(k: K, sum: Sum, elements: Elements<E>) -> [f64; MAX_SUMS] {
    let mut lanes = Lanes::new();
    let stores = Stores { p: false, state: false };
    in_chunks(elements, stores, |wide| pass::add(k, sum, wide, &mut lanes));
    lanes.fold()
}

/// What is written back.
#[derive(Clone, Copy)]
struct Stores {
    p: bool,
    state: bool,
}

/// Calls `f` with copies in f32, a chunk at a time, and writes them back.
fn in_chunks<E: Wide>(mut elements: Elements<E>, stores: Stores, mut f: impl FnMut(Elements<f32>)) {
    let (mut wide_p, mut wide_g) = ([0.; CHUNK], [0.; CHUNK]);
    let mut wide_state = [[0.; CHUNK]; MAX_STATE];
    for start in (0..elements.p.len()).step_by(CHUNK) {
        let n = CHUNK.min(elements.p.len() - start);
        let Elements { p, g, state, at, from, scale, step } = elements.range(start, n);
        for (part, wide) in state.iter_mut().zip(&mut wide_state) {
            match part.range(at, n) {
                Part::F32(part) => f32::widen(part, &mut wide[..n]),
                Part::BF16(part) => bf16::widen(part, &mut wide[..n]),
                Part::F64(_) | Part::None => {}
            }
        }
        let mut copies = wide_state.each_mut().map(|wide| Part::F32(&mut wide[..n]));
        let wide = [&mut wide_p[..n], &mut wide_g[..g.len()]];
        E::with_wide(p, g, wide, stores.p, |p, g| f(Elements { p, g, state: &mut copies, at: 0, from, scale, step }));
        for (name, (part, wide)) in (0..).zip(state.iter_mut().zip(&wide_state)).filter(|_| stores.state) {
            match part.range(at, n) {
                Part::F32(part) => f32::narrow(&wide[..n], part),
                Part::BF16(part) => narrow_at_random(&wide[..n], part, Noise { step, name, from }),
                Part::F64(_) | Part::None => {}
            }
        }
    }
}

/// A type that widens to f32.
pub(super) trait Wide: Stepped {
    fn widen(from: &[Self], to: &mut [f32]);
    /// Rounded to the nearest, ties to even.
    fn narrow(from: &[f32], to: &mut [Self]);

    /// Calls `f` with copies in f32, in two buffers of the same lengths, and writes the first back if `store`.
    fn with_wide(
        p: &mut [Self],
        g: &[Self],
        [wide_p, wide_g]: [&mut [f32]; 2],
        store: bool,
        f: impl FnOnce(&mut [f32], &[f32]),
    ) {
        Self::widen(p, wide_p);
        Self::widen(g, wide_g);
        f(wide_p, wide_g);
        if store {
            Self::narrow(wide_p, p);
        }
    }
}

impl Wide for f32 {
    fn widen(from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }

    fn narrow(from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }

    fn with_wide(p: &mut [f32], g: &[f32], _: [&mut [f32]; 2], _: bool, f: impl FnOnce(&mut [f32], &[f32])) {
        f(p, g);
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::mix;

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
}

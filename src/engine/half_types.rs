//! Half precision in variables or state: values are computed in f32 and rounded once when written back.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::pass::{self, Elements, Stepped, Sum, What};
use super::sums::Lanes;
use crate::memory::{Half, Noise, Part, Rounding, VARIABLE, map};
use crate::rule::{MAX_STATE, MAX_SUMS, Rule};

/// The number of elements converted at a time. Their copies stay in the first-level cache.
const CHUNK: usize = 512;

/// A pass over elements that are not all f32.
pub(super) fn pass<E: Wide, K: Rule<f32>>(k: K, what: What, elements: Elements<E>) {
    let stores = Stores { p: what == What::Update, state: true };
    in_chunks(elements, stores, &mut |wide| pass::run(k, what, wide));
}

/// The sums of at most a block of elements that are not all f32.
pub(super) fn measure<E: Wide, K: Rule<f32>>(k: K, sum: Sum, elements: Elements<E>) -> [f64; MAX_SUMS] {
    let mut lanes = Lanes::new();
    let stores = Stores { p: false, state: false };
    in_chunks(elements, stores, &mut |wide| pass::add(k, sum, wide, &mut lanes));
    lanes.fold()
}

/// What is written back.
#[derive(Clone, Copy)]
struct Stores {
    p: bool,
    state: bool,
}

/// Calls `f` with copies in f32, a chunk at a time, and writes them back.
fn in_chunks<E: Wide>(mut elements: Elements<E>, stores: Stores, f: &mut dyn FnMut(Elements<f32>)) {
    let (mut wide_p, mut wide_g) = ([0.; CHUNK], [0.; CHUNK]);
    let mut wide_state = [[0.; CHUNK]; MAX_STATE];
    for start in (0..elements.p.len()).step_by(CHUNK) {
        let n = CHUNK.min(elements.p.len() - start);
        let Elements { p, g, state, at, from, shared } = elements.range(start, n);
        for (part, wide) in state.iter_mut().zip(&mut wide_state) {
            match part.range(at, n) {
                Part::F32(part) => f32::widen(part, &mut wide[..n]),
                Part::BF16(part) => bf16::widen(part, &mut wide[..n]),
                Part::F64(_) | Part::None => {}
            }
        }
        let mut copies = wide_state.each_mut().map(|wide| Part::F32(&mut wide[..n]));
        let wide = [&mut wide_p[..n], &mut wide_g[..g.len()]];
        let noise = |name| Noise { step: shared.step, name, from };
        let store = match (stores.p, shared.stochastic) {
            (false, _) => None,
            (true, false) => Some(Rounding::Nearest),
            (true, true) => Some(Rounding::Stochastic(noise(VARIABLE))),
        };
        E::with_wide(p, g, wide, store, |p, g| f(Elements { p, g, state: &mut copies, at: 0, from, shared }));
        for (name, (part, wide)) in (0..).zip(state.iter_mut().zip(&wide_state)).filter(|_| stores.state) {
            match part.range(at, n) {
                Part::F32(part) => part.copy_from_slice(&wide[..n]),
                Part::BF16(part) => bf16::round(&wide[..n], part, Rounding::Stochastic(noise(name))),
                Part::F64(_) | Part::None => {}
            }
        }
    }
}

/// A type that widens to f32.
pub(super) trait Wide: Stepped {
    fn widen(from: &[Self], to: &mut [f32]);

    /// Calls `f` with f32 copies of `p` and `g`, held in `wide`. If `store` is given, rounds the first copy back to
    /// `p`.
    fn with_wide(
        p: &mut [Self],
        g: &[Self],
        wide: [&mut [f32]; 2],
        store: Option<Rounding>,
        f: impl FnOnce(&mut [f32], &[f32]),
    );
}

impl Wide for f32 {
    fn widen(from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }

    fn with_wide(
        p: &mut [f32],
        g: &[f32],
        _: [&mut [f32]; 2],
        _: Option<Rounding>,
        f: impl FnOnce(&mut [f32], &[f32]),
    ) {
        f(p, g);
    }
}

macro_rules! half_types {
    ($($half:ty, $widen:expr;)*) => {$(
        impl Wide for $half {
            fn widen(from: &[$half], to: &mut [f32]) {
                $widen(from, to);
            }

            fn with_wide(
                p: &mut [$half],
                g: &[$half],
                [wide_p, wide_g]: [&mut [f32]; 2],
                store: Option<Rounding>,
                f: impl FnOnce(&mut [f32], &[f32]),
            ) {
                Self::widen(p, wide_p);
                Self::widen(g, wide_g);
                f(wide_p, wide_g);
                if let Some(rounding) = store {
                    Self::round(wide_p, p, rounding);
                }
            }
        }
    )*};
}
half_types! {
    f16, |from: &[f16], to| from.convert_to_f32_slice(to);
    bf16, |from: &[bf16], to| map(from.reinterpret_cast(), to, |_, bits: u16| f32::from_bits(u32::from(bits) << 16));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_widened_as_the_half_crate_widens_it() {
        let all: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
        let mut wide = vec![0.; all.len()];
        bf16::widen(&all, &mut wide);
        assert!(all.iter().zip(wide).all(|(x, wide)| x.to_f32() == wide || x.is_nan() && wide.is_nan()));
    }
}

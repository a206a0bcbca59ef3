//! The pass on the CPU: one loop over the slices, no temporaries, compiled for each instruction set.

use std::marker::PhantomData;

use pulp::{Arch, Simd, WithSimd};

use super::State;
use crate::real::Real;
use crate::rule::{Decay, Plan, Rule};

/// One step of the rule `T` on every element.
pub(super) fn run<R: Real, T: Rule<S, K>, const S: usize, const K: usize>(
    p: &mut [R],
    g: &[R],
    state: State<R>,
    plan: &Plan,
) {
    Arch::new().dispatch(Step::<R, T, S, K> { p, g, state, plan, rule: PhantomData });
}

/// A step, compiled for each instruction set.
struct Step<'a, R, T, const S: usize, const K: usize> {
    p: &'a mut [R],
    g: &'a [R],
    state: State<'a, R>,
    plan: &'a Plan,
    rule: PhantomData<T>,
}

impl<R: Real, T: Rule<S, K>, const S: usize, const K: usize> WithSimd for Step<'_, R, T, S, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<I: Simd>(self, _: I) {
        let Self { p, g, state, plan, .. } = self;
        // A loop for each kind of decay, which it then does not ask for again at every element.
        match plan.decay.map(R::lit) {
            Decay::None => pass::<R, T, S, K>(p, g, state, plan, Decay::None),
            Decay::L2(decay) => pass::<R, T, S, K>(p, g, state, plan, Decay::L2(decay)),
            Decay::Decoupled(keep) => pass::<R, T, S, K>(p, g, state, plan, Decay::Decoupled(keep)),
        }
    }
}

#[inline(always)]
fn pass<R: Real, T: Rule<S, K>, const S: usize, const K: usize>(
    p: &mut [R],
    g: &[R],
    state: State<R>,
    plan: &Plan,
    decay: Decay<R>,
) {
    // Slices of one length, and that many of them: the compiler then drops every bounds check and vectorizes.
    let n = p.len();
    let g = &g[..n];
    let mut slices = state.into_iter();
    let state: [&mut [R]; S] = [(); S].map(|()| slices.next().map_or([].as_mut_slice(), |slice| &mut slice[..n]));
    let scale = R::lit(plan.grad_scale);
    let mut scalars = [R::lit(0.); K];
    for (scalar, value) in scalars.iter_mut().zip(plan.scalars) {
        *scalar = R::lit(value);
    }

    for i in 0..n {
        let (decayed_p, g) = decay.apply(p[i], g[i] * scale);
        let mut now = [R::lit(0.); S];
        for s in 0..S {
            now[s] = state[s][i];
        }
        let (next_p, next) = T::update(decayed_p, g, now, scalars);
        p[i] = next_p;
        for s in 0..S {
            state[s][i] = next[s];
        }
    }
}

//! The passes on the CPU: a loop over the elements of a variable, compiled for each type, instruction set and setting of
//! the flags. It has no branches and no temporaries.

use std::array;
use std::marker::PhantomData;

use candle_core::{DType, Error, Result, Tensor};
use half::{bf16, f16};
use pulp::{Arch, Simd, WithSimd};

use super::half_types;
use super::sums::{self, Lanes};
use crate::memory::{Element, Part, Parts, State, range, split_at};
use crate::real::Real;
use crate::rule::{Fields, MAX_STATE, MAX_SUMS, Pass, Rule};

/// What a pass does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum What {
    /// Sets the state before the first step.
    Init,
    /// Sets the variable and the state.
    Update,
}

/// Which terms a pass sums.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sum {
    Group,
    Tensor,
}

/// Some elements of a variable with their gradients and state, as many of each. A pass that reads no gradient has none.
pub(crate) struct Elements<'a, E> {
    pub(crate) p: &'a mut [E],
    pub(crate) g: &'a [E],
    pub(crate) state: Parts<'a>,
    /// The position of the first of them in the variable.
    pub(crate) from: usize,
    /// The factor of the gradient.
    pub(crate) scale: f64,
    /// The step of the variable, on which the rounding of 16-bit state depends.
    pub(crate) step: u64,
}

impl<'a, E> Elements<'a, E> {
    pub(crate) fn split_at(self, n: usize) -> (Self, Self) {
        let Self { p, g, state, from, scale, step } = self;
        let (p, p_rest) = p.split_at_mut(n);
        let (g, g_rest) = g.split_at(n.min(g.len()));
        let (state, rest) = split_at(state, n);
        (
            Self { p, g, state, from, scale, step },
            Self { p: p_rest, g: g_rest, state: rest, from: from + n, scale, step },
        )
    }

    pub(crate) fn reborrow(&mut self) -> Elements<'_, E> {
        let Self { p, g, state, from, scale, step } = self;
        let state = range(state, 0, p.len());
        Elements { p, g, state, from: *from, scale: *scale, step: *step }
    }
}

/// A number that a pass computes with.
pub(crate) trait Compute: Real {
    fn to_f64(self) -> f64;
}

impl Compute for f32 {
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self.into()
    }
}

impl Compute for f64 {
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
}

/// An element type of variables that passes step.
pub(crate) trait Stepped: Element {
    type Real: Compute;
    /// One pass on this thread.
    fn pass<K: Rule<Self::Real>>(k: K, what: What, elements: Elements<Self>);
    /// The sums of at most one block of elements.
    fn measure<K: Rule<Self::Real>>(k: K, sum: Sum, elements: Elements<Self>) -> [f64; MAX_SUMS];
}

impl Stepped for f64 {
    type Real = f64;

    fn pass<K: Rule<f64>>(k: K, what: What, elements: Elements<f64>) {
        let Elements { p, g, state, scale, .. } = elements;
        run(k, what, p, g, f64s(state), scale);
    }

    fn measure<K: Rule<f64>>(k: K, sum: Sum, elements: Elements<f64>) -> [f64; MAX_SUMS] {
        let Elements { p, g, state, scale, .. } = elements;
        let mut lanes = Lanes::new();
        add(k, sum, p, g, f64s(state), scale, &mut lanes);
        lanes.fold()
    }
}

fn f64s(state: Parts<'_>) -> [&mut [f64]; MAX_STATE] {
    state.map(|part| if let Part::F64(part) = part { part } else { [].as_mut_slice() })
}

impl Stepped for f32 {
    type Real = f32;

    fn pass<K: Rule<f32>>(k: K, what: What, elements: Elements<f32>) {
        if elements.state.iter().any(|part| matches!(part, Part::BF16(_))) {
            return half_types::pass(k, what, elements);
        }
        let Elements { p, g, state, scale, .. } = elements;
        run(k, what, p, g, f32s(state), scale);
    }

    fn measure<K: Rule<f32>>(k: K, sum: Sum, elements: Elements<f32>) -> [f64; MAX_SUMS] {
        if elements.state.iter().any(|part| matches!(part, Part::BF16(_))) {
            return half_types::measure(k, sum, elements);
        }
        let Elements { p, g, state, scale, .. } = elements;
        let mut lanes = Lanes::new();
        add(k, sum, p, g, f32s(state), scale, &mut lanes);
        lanes.fold()
    }
}

fn f32s(state: Parts<'_>) -> [&mut [f32]; MAX_STATE] {
    state.map(|part| if let Part::F32(part) = part { part } else { [].as_mut_slice() })
}

macro_rules! half_element {
    ($($float:ty, $Variant:ident;)*) => {$(
        impl Stepped for $float {
            type Real = f32;

            fn pass<K: Rule<f32>>(k: K, what: What, elements: Elements<$float>) {
                half_types::pass(k, what, elements);
            }

            fn measure<K: Rule<f32>>(k: K, sum: Sum, elements: Elements<$float>) -> [f64; MAX_SUMS] {
                half_types::measure(k, sum, elements)
            }
        }
    )*};
}
half_element! { f16, F16; bf16, BF16; }

/// A pass over slices of one type.
pub(super) fn run<R: Real, K: Rule<R>>(
    k: K,
    what: What,
    p: &mut [R],
    g: &[R],
    state: [&mut [R]; MAX_STATE],
    scale: f64,
) {
    let scale = R::lit(scale);
    match what {
        What::Init => dispatch(k, Init { p, state }),
        What::Update => dispatch(k, Update { p, g, state, scale }),
    }
}

/// Adds the terms of at most a block of elements to its lanes.
pub(super) fn add<R: Compute, K: Rule<R>>(
    k: K,
    sum: Sum,
    p: &[R],
    g: &[R],
    state: [&mut [R]; MAX_STATE],
    scale: f64,
    lanes: &mut Lanes<R>,
) {
    dispatch(k, Measure { sum, p, g, state, scale: R::lit(scale), lanes });
}

/// The weights to evaluate with, of a variable in the type of the computation.
pub(super) fn eval<K: Rule<f64>>(k: &K, p: &Tensor, state: &State) -> Result<Tensor> {
    fn typed<R: Compute + Stepped<Real = R>, K: Rule<f64>>(k: &K, p: &Tensor, state: &State) -> Result<Tensor> {
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<R>();
        let (mut x, names) = (values(p)?, k.state_names());
        let mut s: Vec<Vec<R>> = vec![];
        for name in names {
            s.push(values(state.get(name).ok_or_else(|| Error::Msg(format!("the state '{name}' is missing")))?)?);
        }
        let mut slices = s.iter_mut();
        let slices = array::from_fn(|_| slices.next().map_or([].as_mut_slice(), |slice| slice.as_mut_slice()));
        let k: K::At<R> = k.map(|_, x| R::lit(x));
        dispatch(k, Eval { p: &mut x, state: slices });
        Tensor::from_vec(x, p.shape(), p.device())
    }
    match p.dtype() {
        DType::F64 => typed::<f64, K>(k, p, state),
        _ => typed::<f32, K>(k, p, state),
    }
}

/// Runs a pass, compiled for each instruction set, with flags that are constants.
fn dispatch<R: Real, K: Rule<R>, P: Pass<K>>(k: K, pass: P) -> P::Output {
    struct Dispatch<R, K, P>(K, P, PhantomData<R>);
    impl<R: Real, K: Rule<R>, P: Pass<K>> WithSimd for Dispatch<R, K, P> {
        type Output = P::Output;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> P::Output {
            self.0.specialize(self.1)
        }
    }
    Arch::new().dispatch(Dispatch(k, pass, PhantomData))
}

/// Slices of length `n`, as many as the rule keeps. The compiler knows both, so it drops the bounds checks and vectorizes.
#[inline(always)]
fn kept<'a, R: Real, K: Rule<R>>(k: &K, state: [&'a mut [R]; MAX_STATE], n: usize) -> [&'a mut [R]; MAX_STATE] {
    let count = k.state_count();
    let mut slices = state.into_iter();
    array::from_fn(|i| match slices.next() {
        Some(slice) if i < count => &mut slice[..n],
        _ => [].as_mut_slice(),
    })
}

struct Init<'a, R> {
    p: &'a [R],
    state: [&'a mut [R]; MAX_STATE],
}

impl<R: Real, K: Rule<R>> Pass<K> for Init<'_, R> {
    type Output = ();
    #[inline(always)]
    fn run(self, k: K) {
        let Self { p, state } = self;
        let state = kept(&k, state, p.len());
        for i in 0..p.len() {
            let mut s = k.load(|name| state[name][i]);
            k.init(p[i], &mut s);
            k.store(s, |name, x| state[name][i] = x);
        }
    }
}

struct Update<'a, R> {
    p: &'a mut [R],
    g: &'a [R],
    state: [&'a mut [R]; MAX_STATE],
    scale: R,
}

impl<R: Real, K: Rule<R>> Pass<K> for Update<'_, R> {
    type Output = ();
    #[inline(always)]
    fn run(self, k: K) {
        let Self { p, g, state, scale } = self;
        let n = p.len();
        let (g, state) = (&g[..n], kept(&k, state, n));
        for i in 0..n {
            let mut s = k.load(|name| state[name][i]);
            p[i] = k.update(p[i], g[i] * scale, &mut s);
            k.store(s, |name, x| state[name][i] = x);
        }
    }
}

struct Eval<'a, R> {
    p: &'a mut [R],
    state: [&'a mut [R]; MAX_STATE],
}

impl<R: Real, K: Rule<R>> Pass<K> for Eval<'_, R> {
    type Output = ();
    #[inline(always)]
    fn run(self, k: K) {
        let Self { p, state } = self;
        let state = kept(&k, state, p.len());
        for i in 0..p.len() {
            p[i] = k.eval(p[i], k.load(|name| state[name][i]));
        }
    }
}

struct Measure<'a, R> {
    sum: Sum,
    p: &'a [R],
    g: &'a [R],
    state: [&'a mut [R]; MAX_STATE],
    scale: R,
    lanes: &'a mut Lanes<R>,
}

impl<R: Compute, K: Rule<R>> Pass<K> for Measure<'_, R> {
    type Output = ();
    #[inline(always)]
    fn run(self, k: K) {
        let Self { sum, p, g, state, scale, lanes } = self;
        let n = p.len();
        let (g, state) = (&g[..n], kept(&k, state, n));
        let mut from = 0;
        while from < n {
            let row = sums::LANES.min(n - from);
            let (p, g) = (&p[from..][..row], &g[from..][..row]);
            let count = k.state_count();
            let state: [&[R]; MAX_STATE] = array::from_fn(|name| match &state[name] {
                slice if name < count => &slice[from..][..row],
                _ => &[],
            });
            match sum {
                Sum::Group => {
                    for i in 0..row {
                        let s = k.load(|name| state[name][i]);
                        k.measure_group(p[i], g[i] * scale, s).each(|term, x| lanes.add(term, i, x));
                    }
                }
                Sum::Tensor => {
                    for i in 0..row {
                        let s = k.load(|name| state[name][i]);
                        k.measure(p[i], g[i] * scale, s).each(|term, x| lanes.add(term, i, x));
                    }
                }
            }
            from += row;
        }
    }
}

//! The passes on the CPU: a loop over the elements of a variable, compiled for each type, instruction set and setting
//! of the flags. It has no branches and no temporaries.

use std::marker::PhantomData;

use candle_core::{DType, Error, Result, Tensor};
use half::{bf16, f16};
use pulp::{Arch, Simd, WithSimd};

use super::half_types;
use super::sums::{self, Lanes};
use crate::memory::{Element, Part, Parts, State};
use crate::real::Real;
use crate::rule::{self, Fields, MAX_STATE, MAX_SUMS, Pass, Rule};

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

/// Some elements of a variable with their gradients and state, in equal numbers. The gradients are empty in a pass that
/// does not read them.
///
/// The state is passed by reference. For a small variable, copies between functions would cost as much as the update.
pub(crate) struct Elements<'a, 'b, E> {
    pub(crate) p: &'a mut [E],
    pub(crate) g: &'a [E],
    /// The state of these and other elements.
    pub(crate) state: &'a mut Parts<'b>,
    /// The position of the first element in `state`.
    pub(crate) at: usize,
    /// The position of the first element in the variable.
    pub(crate) from: usize,
    pub(crate) shared: Shared,
}

/// What the elements of a variable have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared {
    /// The factor of the gradient.
    pub(crate) scale: f64,
    /// The step of the variable, on which stochastic rounding depends.
    pub(crate) step: u64,
    /// Whether a 16-bit variable is rounded stochastically, as 16-bit state always is.
    pub(crate) stochastic: bool,
}

impl<'b, E> Elements<'_, 'b, E> {
    /// The `n` elements that begin at `start`.
    pub(crate) fn range(&mut self, start: usize, n: usize) -> Elements<'_, 'b, E> {
        let Self { p, g, state, at, from, shared } = self;
        let g = if g.is_empty() { g } else { &g[start..start + n] };
        let (p, at, from) = (&mut p[start..start + n], *at + start, *from + start);
        Elements { p, g, state, at, from, shared: *shared }
    }

    pub(crate) fn is_half(&self) -> bool {
        self.state.iter().any(|part| matches!(part, Part::BF16(_)))
    }
}

/// A number that a pass computes with.
pub(crate) trait Compute: Real {
    fn to_f64(self) -> f64;
    /// The elements of a state tensor of this type.
    fn values<'a>(part: &'a mut Part) -> &'a mut [Self];
}

macro_rules! compute {
    ($($float:ty, $Variant:ident;)*) => {$(
        impl Compute for $float {
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self.into()
            }
            #[inline(always)]
            fn values<'a>(part: &'a mut Part) -> &'a mut [$float] {
                if let Part::$Variant(values) = part { values } else { &mut [] }
            }
        }
    )*};
}
compute! { f32, F32; f64, F64; }

/// An element type of the variables that a pass can step.
pub(crate) trait Stepped: Element {
    type Real: Compute;
    /// One pass on this thread.
    fn pass<K: Rule<Self::Real>>(k: K, what: What, elements: Elements<Self>);
    /// The sums of at most one block of elements.
    fn measure<K: Rule<Self::Real>>(k: K, sum: Sum, elements: Elements<Self>) -> [f64; MAX_SUMS];
}

impl Stepped for f64 {
    type Real = f64;

    #[inline(always)]
    fn pass<K: Rule<f64>>(k: K, what: What, elements: Elements<f64>) {
        run(k, what, elements);
    }

    fn measure<K: Rule<f64>>(k: K, sum: Sum, elements: Elements<f64>) -> [f64; MAX_SUMS] {
        let mut lanes = Lanes::new();
        add(k, sum, elements, &mut lanes);
        lanes.fold()
    }
}

impl Stepped for f32 {
    type Real = f32;

    #[inline(always)]
    fn pass<K: Rule<f32>>(k: K, what: What, elements: Elements<f32>) {
        if elements.is_half() {
            return half_types::pass(k, what, elements);
        }
        run(k, what, elements);
    }

    fn measure<K: Rule<f32>>(k: K, sum: Sum, elements: Elements<f32>) -> [f64; MAX_SUMS] {
        if elements.is_half() {
            return half_types::measure(k, sum, elements);
        }
        let mut lanes = Lanes::new();
        add(k, sum, elements, &mut lanes);
        lanes.fold()
    }
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

/// A pass over elements of the type that it computes with.
#[inline(always)]
pub(super) fn run<R: Compute, K: Rule<R>>(k: K, what: What, elements: Elements<R>) {
    match what {
        What::Init => init(k, elements),
        What::Update => dispatch(k, Update(elements)),
    }
}

/// Adds the terms of at most a block of elements to its lanes.
pub(super) fn add<R: Compute, K: Rule<R>>(k: K, sum: Sum, elements: Elements<R>, lanes: &mut Lanes<R>) {
    if const { <K::Totals as Fields<R>>::NAMES.is_empty() && <K::Norms as Fields<R>>::NAMES.is_empty() } {
        return;
    }
    dispatch(k, Measure { sum, elements, lanes });
}

/// The weights to evaluate with, for a variable in the type of the computation.
pub(super) fn eval<K: Rule<f64>>(k: &K, p: &Tensor, state: &State) -> Result<Tensor> {
    use rule::Parts as _;
    fn typed<R: Compute + Stepped<Real = R>, K: Rule<f64>>(k: &K, p: &Tensor, state: &State) -> Result<Tensor> {
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<R>();
        let (mut x, names) = (values(p)?, k.state_names());
        let mut s: Vec<Vec<R>> = vec![];
        for name in names {
            s.push(values(state.get(name).ok_or_else(|| Error::Msg(format!("the state '{name}' is missing")))?)?);
        }
        let k: K::At<R> = k.map(|_, x| R::lit(x));
        for (i, p) in x.iter_mut().enumerate() {
            *p = k.eval(*p, k.load(|name| s[name][i]));
        }
        Tensor::from_vec(x, p.shape(), p.device())
    }
    match p.dtype() {
        DType::F64 => typed::<f64, K>(k, p, state),
        _ => typed::<f32, K>(k, p, state),
    }
}

/// Runs a pass, compiled for each instruction set, with flags that are constants.
#[inline(always)]
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

/// The state of `n` elements, in as many slices as the rule has. The compiler knows both numbers, so it drops the
/// bounds checks and vectorizes. A loop over the parts would hide them from it: the last elements would run one by one.
#[inline(always)]
fn slices<'a, R: Compute, K: Rule<R>>(k: &K, state: &'a mut Parts, at: usize, n: usize) -> [&'a mut [R]; MAX_STATE] {
    let slice = |i, part| if i < k.state_count() { &mut R::values(part)[at..][..n] } else { &mut [] };
    let [a, b, c, d] = state;
    [slice(0, a), slice(1, b), slice(2, c), slice(3, d)]
}

/// Initializes the state. This runs once per training, so a loop for each instruction set and flag setting is not
/// worthwhile.
fn init<R: Compute, K: Rule<R>>(k: K, elements: Elements<R>) {
    let Elements { p, state, at, .. } = elements;
    let state = slices(&k, state, at, p.len());
    for i in 0..p.len() {
        let mut s = k.load(|name| state[name][i]);
        k.init(p[i], &mut s);
        k.store(s, |name, x| state[name][i] = x);
    }
}

struct Update<'a, 'b, R>(Elements<'a, 'b, R>);

impl<R: Compute, K: Rule<R>> Pass<K> for Update<'_, '_, R> {
    type Output = ();
    #[inline(always)]
    fn run(self, k: K) {
        let Elements { p, g, state, at, shared, .. } = self.0;
        let (n, scale) = (p.len(), R::lit(shared.scale));
        let (g, state) = (&g[..n], slices(&k, state, at, n));
        for i in 0..n {
            let mut s = k.load(|name| state[name][i]);
            p[i] = k.update(p[i], g[i] * scale, &mut s);
            k.store(s, |name, x| state[name][i] = x);
        }
    }
}

struct Measure<'a, 'b, 'c, R> {
    sum: Sum,
    elements: Elements<'a, 'b, R>,
    lanes: &'c mut Lanes<R>,
}

impl<R: Compute, K: Rule<R>> Pass<K> for Measure<'_, '_, '_, R> {
    type Output = ();
    #[inline(always)]
    fn run(self, k: K) {
        let Self { sum, mut elements, lanes } = self;
        let (n, mut from) = (elements.p.len(), 0);
        while from + sums::LANES <= n {
            row(k, sum, &mut elements, from, sums::LANES, lanes);
            from += sums::LANES;
        }
        row(k, sum, &mut elements, from, n - from, lanes);
    }
}

/// Adds a row of elements, one to each lane. The compiler vectorizes all of it if it knows `n`.
#[inline(always)]
fn row<R: Compute, K: Rule<R>>(
    k: K,
    sum: Sum,
    elements: &mut Elements<R>,
    from: usize,
    n: usize,
    lanes: &mut Lanes<R>,
) {
    let scale = R::lit(elements.shared.scale);
    let (p, g) = (&elements.p[from..][..n], &elements.g[from..][..n]);
    let state = slices(&k, elements.state, elements.at + from, n);
    for i in 0..n {
        let s = k.load(|name| state[name][i]);
        match sum {
            Sum::Group => k.measure_group(p[i], g[i] * scale, s).each(|term, x| lanes.add(term, i, x)),
            Sum::Tensor => k.measure(p[i], g[i] * scale, s).each(|term, x| lanes.add(term, i, x)),
        }
    }
}

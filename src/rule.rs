//! What an elementwise optimizer is.
//!
//! [`rule!`](crate::rule!) declares the numbers of a step, [`Rule`] updates one element, and [`Elementwise`] computes
//! the numbers from hyperparameters and clock. The engine does the rest: it compiles the rule for each type and
//! instruction set, walks it over memory, prints it as a CUDA kernel, and stores the state.

use crate::clock::Clock;
pub use crate::clock::Span;
use crate::hyper::Hyper;
use crate::real::Real;

/// An elementwise update: `self` holds the scalars of one step and its flags, `State` the state of one element.
///
/// A rule may branch on flags, but not on data. Its literals must use [`Real::lit`]. A value that depends on the step
/// or on the learning rate must be a scalar.
pub trait Rule<R: Real>: Parts<R> {
    /// Sets the state before the first step. `s` is zero at first.
    #[inline(always)]
    fn init(&self, _p: R, _s: &mut Self::State) {}
    /// The terms of the sums over the group. `self` has these sums in `measure` and `update`.
    #[inline(always)]
    fn measure_group(&self, _p: R, _g: R, _s: Self::State) -> Self::Totals {
        Fields::from_fn(|_| R::lit(0.))
    }
    /// The terms of the sums over the tensor. `self` has these sums in `update`.
    #[inline(always)]
    fn measure(&self, _p: R, _g: R, _s: Self::State) -> Self::Norms {
        Fields::from_fn(|_| R::lit(0.))
    }
    /// Returns the next parameter, and updates the state in place.
    fn update(&self, p: R, g: R, s: &mut Self::State) -> R;
    /// The weight to evaluate the model with.
    #[inline(always)]
    fn eval(&self, p: R, _s: Self::State) -> R {
        p
    }
}

/// The hyperparameters of a rule. Every implementor is an [`Algorithm`](crate::Algorithm). `rule! { .. from .. }`
/// implements it; implement it by hand if a scalar needs more than an expression.
pub trait Elementwise: Hyper + Clone {
    /// The scalars and flags of a step.
    type Rule: Rule<f64> + PartialEq;
    /// Whether the rule overrides [`measured`](Self::measured). If not, it is never called, and on a GPU the host does
    /// not wait for the sums.
    const MEASURED: bool = false;
    /// The scalars and flags of the clock's step. Flags must not depend on the step.
    fn scalars(&self, t: &mut Clock) -> Self::Rule;
    /// Computes scalars from the sums of the group, which are in `k`. The host does not see the sums of a tensor. If
    /// you override it, set [`MEASURED`](Self::MEASURED) to true.
    fn measured(&self, _t: &mut Clock, k: Self::Rule) -> Self::Rule {
        k
    }
}

/// An exponential moving average: `avg·beta + x·complement`, where `complement` is 1 - beta.
///
/// The complement is a separate scalar, since 1 - 0.999 in f32 is off by 5e-5. torch writes some of its averages as
/// `lerp`, which differs only in rounding.
#[inline(always)]
pub fn ema<R: Real>(avg: R, x: R, beta: R, complement: R) -> R {
    avg * beta + x * complement
}

/// Weight decay λ, coupled or decoupled. Returns the factor of the weight that is added to the gradient, and the factor
/// of the weight itself. One of them has no effect.
pub fn decay(lr: f64, weight_decay: f64, decoupled: bool) -> (f64, f64) {
    if decoupled { (0., 1. - lr * weight_decay) } else { (weight_decay, 1.) }
}

/// `x/d` for `d` ≥ 0, but 0 where `d` is 0. An element that has never had a gradient then does not move, even if eps is
/// 0 or too small for the type. torch computes 0/0 in that case. NaN stays NaN.
#[inline(always)]
pub fn ratio<R: Real>(x: R, d: R) -> R {
    d.if_positive(x / d, x * d)
}

/// The largest number of state tensors of a rule.
pub const MAX_STATE: usize = 4;
/// The largest number of sums of one kind.
pub const MAX_SUMS: usize = 4;

/// The part of a rule that `rule!` implements.
pub trait Parts<R: Real>: Copy + Send + Sync + 'static {
    /// The rule with other numbers.
    type At<Q: Real>: Rule<Q>;
    /// The state of one element.
    type State: Copy;
    /// The sums over the group.
    type Totals: Fields<R>;
    /// The sums over the tensor.
    type Norms: Fields<R>;
    /// Whose steps the clock counts.
    const CLOCK: Span;
    /// The names of the state that copies weights.
    const WEIGHT_COPIES: &'static [&'static str];
    /// The names of the scalars.
    const SCALARS: &'static [&'static str];
    /// Converts scalars and sums with `f`, which also gets their names.
    fn map<Q: Real>(&self, f: impl FnMut(&'static str, R) -> Q) -> Self::At<Q>;
    /// The flags as bits.
    fn flags(&self) -> u32;
    /// Whether the flags need `measure_group`.
    fn has_totals(&self) -> bool;
    /// The rule with these sums over the group.
    fn with_totals(&self, sums: Self::Totals) -> Self;
    /// Whether the flags need `measure`.
    fn has_norms(&self) -> bool;
    /// The rule with these sums over the tensor.
    fn with_norms(&self, sums: Self::Norms) -> Self;
    /// The names of the state that exists under the flags.
    fn state_names(&self) -> Vec<&'static str>;
    /// This state as bits.
    fn state_mask(&self) -> u32;
    /// The number of state tensors that exist under the flags.
    fn state_count(&self) -> usize;
    /// The state of an element, from the tensors in the order of `state_names`.
    fn load(&self, tensor: impl FnMut(usize) -> R) -> Self::State;
    /// Stores the state of an element.
    fn store(&self, s: Self::State, tensor: impl FnMut(usize, R));
    /// Runs `pass` with flags that are constants, so that its loop has no branches on them.
    fn specialize<P: Pass<Self>>(self, pass: P) -> P::Output;
}

/// A loop over elements. It is compiled once for each setting of the flags.
pub trait Pass<K> {
    /// Its result.
    type Output;
    /// Runs the loop.
    fn run(self, k: K) -> Self::Output;
}

/// A step whose scalars are all zero, for `..Step::ZERO`.
pub trait Zero {
    /// All zero.
    const ZERO: Self;
}

/// A struct of numbers.
pub trait Fields<R>: Copy {
    /// Their names.
    const NAMES: &'static [&'static str];
    /// Makes each number from its position.
    fn from_fn(f: impl FnMut(usize) -> R) -> Self;
    /// Calls `f` with each number and its position.
    fn each(self, f: impl FnMut(usize, R));
}

/// No state, no sums.
#[derive(Clone, Copy, Debug)]
pub struct Nothing;

impl<R> Fields<R> for Nothing {
    const NAMES: &'static [&'static str] = &[];
    #[inline(always)]
    fn from_fn(_: impl FnMut(usize) -> R) -> Self {
        Nothing
    }
    #[inline(always)]
    fn each(self, _: impl FnMut(usize, R)) {}
}

/// Declares a rule: scalars, clock, flags, state and sums, in this order.
///
/// - Scalars: `name` is the hyperparameter of that name; the host computes `name = expr` in f64.
/// - `clock of Group`: all variables count every step of the group.
/// - `flags` are constants in the loop. Each flag doubles the number of compiled loops, so a switch that only changes
///   numbers should be a scalar.
/// - `state .. { name as weights if flag }`: the state exists if the flag is set; `as weights` marks a copy of weights,
///   which a 16-bit state type does not round.
/// - `sums .. of Group if flag { .. }`, then `sums .. of Tensor if flag { .. }`: each needs a pass before `update`.
///
/// A rule without `from` needs a hand-written implementation of [`Elementwise`](crate::rule::Elementwise).
#[macro_export]
macro_rules! rule {
    (
        $(#[$doc:meta])* $vis:vis struct $Name:ident from ($h:ident: $Hyper:ty, $t:ident) {
            $($num:ident $(= $value:expr)?),* $(,)?
        }
        $(clock of $Clock:ident)?
        $(flags { $($flag:ident $(= $on:expr)?),* $(,)? })?
        $(state $State:ident { $($s:ident $(as $copy:ident)? $(if $cond:ident)?),* $(,)? })?
        $(sums $Sums:ident of $Span:ident $(if $asked:ident)? { $($sum:ident),* $(,)? })*
    ) => {
        $crate::rule! {
            $(#[$doc])* $vis struct $Name { $($num),* }
            $(clock of $Clock)?
            $(flags { $($flag),* })?
            $(state $State { $($s $(as $copy)? $(if $cond)?),* })?
            $(sums $Sums of $Span $(if $asked)? { $($sum),* })*
        }
        impl $crate::rule::Elementwise for $Hyper {
            type Rule = $Name;
            #[allow(unused_variables)]
            fn scalars(&self, $t: &mut $crate::Clock) -> $Name {
                let $h = self;
                $Name {
                    $($num: $crate::__or!(@expr [$($value)?] $h.$num),)*
                    $($($flag: $crate::__or!(@expr [$($on)?] $h.$flag),)*)?
                    $($($sum: 0.,)*)*
                }
            }
        }
    };
    (
        $(#[$doc:meta])* $vis:vis struct $Name:ident { $($num:ident),* $(,)? }
        $(clock of $Clock:ident)?
        $(flags { $($flag:ident),* $(,)? })?
        $(state $State:ident { $($s:ident $(as $copy:ident)? $(if $cond:ident)?),* $(,)? })?
        $(sums $Sums:ident of $Span:ident $(if $asked:ident)? { $($sum:ident),* $(,)? })*
    ) => {
        $(#[$doc])* #[derive(Clone, Copy, Debug, PartialEq)]
        #[allow(missing_docs)]
        $vis struct $Name<R = f64> {
            $(pub $num: R,)* $($(pub $flag: bool,)*)? $($(pub $sum: R,)*)*
        }
        $(
            #[derive(Clone, Copy, Debug)]
            #[allow(missing_docs)]
            $vis struct $State<R = f64> { $(pub $s: R,)* }
        )?
        $(
            #[derive(Clone, Copy, Debug)] #[allow(missing_docs)]
            $vis struct $Sums<R = f64> { $(pub $sum: R,)* }
            impl<R: $crate::real::Real> $crate::rule::Fields<R> for $Sums<R> {
                const NAMES: &'static [&'static str] = &[$(stringify!($sum)),*];
                #[inline(always)]
                fn from_fn(mut f: impl FnMut(usize) -> R) -> Self {
                    let mut at = 0..;
                    Self { $($sum: f(at.next().unwrap_or_default())),* }
                }
                #[inline(always)]
                fn each(self, mut f: impl FnMut(usize, R)) {
                    let mut at = 0..;
                    $(f(at.next().unwrap_or_default(), self.$sum);)*
                }
            }
        )*
        impl $crate::rule::Zero for $Name {
            const ZERO: Self = Self { $($num: 0.,)* $($($flag: false,)*)? $($($sum: 0.,)*)* };
        }
        impl<R: $crate::real::Real> $crate::rule::Parts<R> for $Name<R> {
            type At<Q: $crate::real::Real> = $Name<Q>;
            type State = $crate::__or!([$($State<R>)?] $crate::rule::Nothing);
            const CLOCK: $crate::rule::Span =
                $crate::__or!(@expr [$($crate::rule::Span::$Clock)?] $crate::rule::Span::Tensor);
            const WEIGHT_COPIES: &'static [&'static str] = &[$($($($crate::__copy!($copy $s),)?)*)?];
            const SCALARS: &'static [&'static str] = &[$(stringify!($num)),*];
            $crate::__sums! { $($Span $Sums [$($asked)?] { $($sum)* })* }
            #[inline(always)]
            fn map<Q: $crate::real::Real>(&self, mut f: impl FnMut(&'static str, R) -> Q) -> $Name<Q> {
                $Name {
                    $($num: f(stringify!($num), self.$num),)*
                    $($($flag: self.$flag,)*)?
                    $($($sum: f(stringify!($sum), self.$sum),)*)*
                }
            }
            #[allow(unused_mut)]
            fn flags(&self) -> u32 {
                let mut bits = 0;
                $($(bits = bits << 1 | u32::from(self.$flag);)*)?
                bits
            }
            #[allow(unused_mut)]
            fn state_names(&self) -> Vec<&'static str> {
                const { assert!($crate::__count!($($($s)*)?) <= $crate::rule::MAX_STATE, "too many state tensors") };
                let mut names = vec![];
                $($(if true $(&& self.$cond)? { names.push(stringify!($s)) })*)?
                names
            }
            #[allow(unused_mut)]
            fn state_mask(&self) -> u32 {
                let mut bits = 0;
                $($(bits = bits << 1 | u32::from(true $(&& self.$cond)?);)*)?
                bits
            }
            #[inline(always)]
            fn state_count(&self) -> usize {
                0 $($(+ usize::from(true $(&& self.$cond)?))*)?
            }
            #[inline(always)]
            #[allow(unused_mut, unused_variables)]
            fn load(&self, mut tensor: impl FnMut(usize) -> R) -> Self::State {
                let mut at = 0;
                $crate::__or!(@expr [$($State {
                    $($s: if true $(&& self.$cond)? { at += 1; tensor(at - 1) } else { R::lit(0.) }),*
                })?] $crate::rule::Nothing)
            }
            #[inline(always)]
            #[allow(unused_mut, unused_variables, unused_assignments)]
            fn store(&self, s: Self::State, mut tensor: impl FnMut(usize, R)) {
                let mut at = 0;
                $($(if true $(&& self.$cond)? { tensor(at, s.$s); at += 1; })*)?
            }
            #[inline(always)]
            fn specialize<P: $crate::rule::Pass<Self>>(self, pass: P) -> P::Output {
                $crate::__specialize!(self, pass, [$($($flag)*)?])
            }
        }
    };
}

/// Implements the sums of `Parts`.
#[doc(hidden)]
#[macro_export]
macro_rules! __sums {
    (
        $(Group $Totals:ident [$($clips:ident)?] { $($total:ident)* })?
        $(Tensor $Norms:ident [$($adapts:ident)?] { $($norm:ident)* })?
    ) => {
        type Totals = $crate::__or!([$($Totals<R>)?] $crate::rule::Nothing);
        type Norms = $crate::__or!([$($Norms<R>)?] $crate::rule::Nothing);
        fn has_totals(&self) -> bool {
            !<Self::Totals as $crate::rule::Fields<R>>::NAMES.is_empty() $($(&& self.$clips)?)?
        }
        #[inline(always)]
        fn with_totals(&self, _sums: Self::Totals) -> Self {
            Self { $($($total: _sums.$total,)*)? ..*self }
        }
        fn has_norms(&self) -> bool {
            !<Self::Norms as $crate::rule::Fields<R>>::NAMES.is_empty() $($(&& self.$adapts)?)?
        }
        #[inline(always)]
        fn with_norms(&self, _sums: Self::Norms) -> Self {
            Self { $($($norm: _sums.$norm,)*)? ..*self }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __copy {
    (weights $state:ident) => {
        stringify!($state)
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __count {
    ($($name:ident)*) => { <[&str]>::len(&[$(stringify!($name)),*]) };
}

/// The first argument, or the second if the first is empty.
#[doc(hidden)]
#[macro_export]
macro_rules! __or {
    (@expr [] $b:expr) => {
        $b
    };
    (@expr [$a:expr] $b:expr) => {
        $a
    };
    ([] $b:ty) => {
        $b
    };
    ([$a:ty] $b:ty) => {
        $a
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __specialize {
    ($k:expr, $pass:ident, []) => { $pass.run($k) };
    ($k:expr, $pass:ident, [$flag:ident $($rest:ident)*]) => {{
        let k = $k;
        if k.$flag {
            let k = Self { $flag: true, ..k };
            $crate::__specialize!(k, $pass, [$($rest)*])
        } else {
            let k = Self { $flag: false, ..k };
            $crate::__specialize!(k, $pass, [$($rest)*])
        }
    }};
}

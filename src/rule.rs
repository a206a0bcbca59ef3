//! What an elementwise optimizer is: one function from a parameter, its gradient and its state to their next values.

use crate::fused::{Fused, Kernel};
use crate::real::Real;

/// The largest number of state tensors a rule may keep.
pub const MAX_STATE: usize = 4;
/// The largest number of scalars a rule may take.
pub const MAX_SCALARS: usize = 12;

/// An elementwise update with `S` state tensors and `K` scalars, written once and run on every type and device.
///
/// The contract: no branch on data, no step count, no literal but [`Real::lit`]. Whatever depends on the step or on
/// the hyperparameters is a scalar, computed on the host in f64 (by [`Config::plan`]). What all optimizers share
/// (maximize, weight decay) is done by the engine before `update` sees its arguments.
///
/// [`Config::plan`]: crate::optimizer::Config::plan
pub trait Rule<const S: usize, const K: usize>: 'static {
    /// State tensors, named as in torch's checkpoints; zero before the first step.
    const STATE: [&'static str; S];
    /// Scalars, in the order `update` takes them.
    const SCALARS: [&'static str; K];

    /// The next parameter and state of one element.
    fn update<R: Real>(p: R, g: R, state: [R; S], scalars: [R; K]) -> (R, [R; S]);
}

/// Exponential moving average: `avg·beta + x·complement`, where `complement` is 1 - beta.
///
/// The complement is a scalar of its own, since 1 - 0.999 taken in f32 is off by 5e-5. torch writes some of its
/// averages as `lerp`, which differs by rounding alone.
#[inline(always)]
pub fn ema<R: Real>(avg: R, x: R, beta: R, complement: R) -> R {
    avg * beta + x * complement
}

/// How the weights themselves enter a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decay<T = f64> {
    /// Not at all.
    None,
    /// `g += λ·p`: the gradient of an L2 penalty λ/2·‖p‖².
    L2(T),
    /// `p *= 1 - lr·λ` before the step (Loshchilov and Hutter, 2017, arXiv:1711.05101); holds that factor.
    Decoupled(T),
}

impl<T> Decay<T> {
    pub(crate) fn map<U>(self, f: impl FnOnce(T) -> U) -> Decay<U> {
        match self {
            Self::None => Decay::None,
            Self::L2(decay) => Decay::L2(f(decay)),
            Self::Decoupled(keep) => Decay::Decoupled(f(keep)),
        }
    }
}

impl<R: Real> Decay<R> {
    /// The parameter and the gradient that the rule sees.
    #[inline(always)]
    pub(crate) fn apply(self, p: R, g: R) -> (R, R) {
        match self {
            Self::None => (p, g),
            Self::L2(decay) => (p, g + decay * p),
            Self::Decoupled(keep) => (p * keep, g),
        }
    }
}

impl Decay {
    /// L2 decay of `weight_decay`; zero is none.
    pub fn l2(weight_decay: f64) -> Self {
        if weight_decay == 0. { Self::None } else { Self::L2(weight_decay) }
    }

    /// Decoupled decay of `lr · weight_decay`; zero is none.
    pub fn decoupled(lr: f64, weight_decay: f64) -> Self {
        if weight_decay == 0. { Self::None } else { Self::Decoupled(1. - lr * weight_decay) }
    }
}

/// All that one step of one parameter needs: the rule, its scalars, and what the engine does around it.
#[derive(Clone, Copy)]
pub struct Plan {
    pub(crate) kernel: &'static dyn Kernel,
    pub(crate) scalars: [f64; MAX_SCALARS],
    pub(crate) grad_scale: f64,
    pub(crate) decay: Decay,
}

impl Plan {
    /// A step of `rule` with its scalars, in the order of [`Rule::SCALARS`].
    pub fn new<T: Rule<S, K>, const S: usize, const K: usize>(_rule: T, scalars: [f64; K]) -> Self {
        const { assert!(S <= MAX_STATE && K <= MAX_SCALARS) };
        let mut all = [0.; MAX_SCALARS];
        all[..K].copy_from_slice(&scalars);
        Self { kernel: Fused::<T, S, K>::KERNEL, scalars: all, grad_scale: 1., decay: Decay::None }
    }

    /// Climb instead of descend: the gradient is negated before all else.
    pub fn maximize(mut self, maximize: bool) -> Self {
        self.grad_scale = if maximize { -1. } else { 1. };
        self
    }

    /// With this weight decay.
    pub fn decay(mut self, decay: Decay) -> Self {
        self.decay = decay;
        self
    }

    /// The scalars of a kernel's launch: what the engine adds, then the rule's.
    #[cfg(feature = "cuda")]
    pub(crate) fn launch_scalars(&self) -> impl Iterator<Item = f64> {
        let decay = match self.decay {
            Decay::None => None,
            Decay::L2(decay) | Decay::Decoupled(decay) => Some(decay),
        };
        [self.grad_scale].into_iter().chain(decay).chain(self.scalars)
    }

    /// Names of the state tensors the rule keeps.
    pub fn state(&self) -> &'static [&'static str] {
        self.kernel.state()
    }
}

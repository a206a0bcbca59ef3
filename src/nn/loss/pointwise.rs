//! The mean of a term for each element.

use std::marker::PhantomData;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Error, Layout, Result, Shape, Tensor, WithDType};

use super::not_empty;
use crate::nn::cpu::{Locked, Pass, contents, contiguous, dispatch, locked, shaped_as, widen_half};
use crate::nn::elementary::Elementary;
use crate::on_floats;

/// The term of a loss for one prediction x and its target y.
pub(super) trait Term: Copy + Send + Sync + 'static {
    /// The loss.
    const NAME: &'static str;
    /// The term.
    fn term<R: Elementary>(x: R, y: R) -> R;
    /// Its derivative by x.
    fn slope<R: Elementary>(x: R, y: R) -> R;
    /// The mean, composed of Candle's operations.
    fn composed(x: &Tensor, y: &Tensor) -> Result<Tensor>;
}

/// The mean of `T` over all elements; a scalar. If the targets need a gradient, it is the negated gradient of the
/// predictions. This is correct only for a term that depends on x - y alone.
pub(super) fn mean<T: Term>(x: &Tensor, y: &Tensor, term: T) -> Result<Tensor> {
    if x.shape() != y.shape() {
        return Err(Error::ShapeMismatchBinaryOp { lhs: x.shape().clone(), rhs: y.shape().clone(), op: T::NAME });
    }
    not_empty(T::NAME, x)?;
    if let Some([wide_x, wide_y]) = widen_half([x, y])? {
        return mean(&wide_x, &wide_y, term)?.to_dtype(x.dtype());
    }
    if !x.device().is_cpu() {
        return T::composed(x, y);
    }
    let (x, y) = (contiguous(x)?, contiguous(y)?);
    x.apply_op2(&y, Mean(term))
}

struct Mean<T>(T);

impl<T: Term> CustomOp2 for Mean<T> {
    fn name(&self) -> &'static str {
        T::NAME
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let mean = on_floats!(T::NAME, s1.dtype(), R => {
            let op = Terms::<R, T> { x: contents(s1, l1)?, y: contents(s2, l2)?, term: PhantomData };
            R::to_cpu_storage_owned(vec![dispatch(op)])
        });
        Ok((mean, Shape::from(())))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let all = [x, y, grad].map(locked);
        let slopes = on_floats!(T::NAME, x.dtype(), R => {
            let [x_values, y_values, grad] = all.each_ref().map(Locked::values);
            let op = Slopes::<R, T> { x: x_values?, y: y_values?, grad: grad?[0], term: PhantomData };
            shaped_as(x, dispatch(op))?
        });
        let of_targets = if y.track_op() { Some(slopes.neg()?) } else { None };
        Ok((Some(slopes), of_targets))
    }
}

struct Terms<'a, R, T> {
    x: &'a [R],
    y: &'a [R],
    term: PhantomData<T>,
}

impl<R: Elementary, T: Term> Pass for Terms<'_, R, T> {
    type Output = R;

    #[inline(always)]
    fn run(self) -> R {
        // Separate sums, which fit in vector registers. Their number is fixed, so that every processor adds in the same
        // order.
        const SUMS: usize = 16;
        let mut sums = [0.; SUMS];
        let (x, x_rest) = self.x.as_chunks::<SUMS>();
        let (y, y_rest) = self.y.as_chunks::<SUMS>();
        for (x, y) in x.iter().zip(y) {
            let mut terms = [R::lit(0.); SUMS];
            for i in 0..SUMS {
                terms[i] = T::term(x[i], y[i]);
            }
            for i in 0..SUMS {
                sums[i] += terms[i].to_f64();
            }
        }
        let rest: f64 = x_rest.iter().zip(y_rest).map(|(&x, &y)| T::term(x, y).to_f64()).sum();
        R::lit((sums.iter().sum::<f64>() + rest) / self.x.len() as f64)
    }
}

struct Slopes<'a, R, T> {
    x: &'a [R],
    y: &'a [R],
    grad: R,
    term: PhantomData<T>,
}

impl<R: Elementary, T: Term> Pass for Slopes<'_, R, T> {
    type Output = Vec<R>;

    #[inline(always)]
    fn run(self) -> Vec<R> {
        let scale = R::lit(self.grad.to_f64() / self.x.len() as f64);
        // `collect` would not be compiled for the instruction set of this processor.
        let mut slopes = vec![R::lit(0.); self.x.len()];
        for ((slope, &x), &y) in slopes.iter_mut().zip(self.x).zip(self.y) {
            *slope = T::slope(x, y) * scale;
        }
        slopes
    }
}

#[cfg(test)]
mod tests {
    use super::super::{bce, mse};
    use super::*;
    use crate::nn::tests::assert_same;
    use candle_core::{Device, Var};

    #[test]
    fn the_form_for_other_devices_is_the_same_loss() -> Result<()> {
        fn check<T: Term>(term: T) -> Result<()> {
            let x = Var::randn(0f64, 5., (7, 3), &Device::Cpu)?;
            let y = Tensor::rand(0f64, 1., (7, 3), &Device::Cpu)?;
            assert_same(&mean(&x, &y, term)?, &T::composed(&x, &y)?, &[&x])
        }
        check(bce::BinaryCrossEntropy)?;
        check(mse::SquaredError)
    }
}

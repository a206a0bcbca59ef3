//! A fully connected layer as one operation: product, bias and activation, with its own backward pass.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Error, Layout, Result, Shape, Tensor, Var};
use candle_nn::Module;
use pulp::Simd;
use rayon::prelude::*;

use super::mlp::in_one_pass;
use super::product::add_column_sums;
use super::simd::{Lane, Op, Scalar};
use super::{contents, locked, on_floats, shaped_as, widen_half};
use crate::fused::Element;

/// What a layer does to its sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    Identity,
    /// `max(x, 0)`.
    Relu,
}

impl Activation {
    #[inline(always)]
    pub(super) fn of<R: Scalar>(self, x: R) -> R {
        let zero = R::lit(0.);
        if self == Self::Relu && x < zero { zero } else { x }
    }

    /// The same, lane by lane.
    #[inline(always)]
    pub(super) fn of_lanes<S: Simd, R: Lane<S>>(self, simd: S, x: R::Vector) -> R::Vector {
        match self {
            Self::Identity => x,
            Self::Relu => R::larger(simd, R::splat(simd, R::lit(0.)), x),
        }
    }
}

/// A fully connected layer: `activation(x·wᵀ + b)`.
///
/// Takes inputs `[rows, inputs]` to `[rows, outputs]`. Used where [`candle_nn::Linear`] and an activation would be, of
/// which it is the fused form: on the CPU, a small layer is one pass forward and one backward, on one thread, and a large
/// one Candle's matrix product and a pass. Several small ones are faster as an [`Mlp`](super::Mlp). Other devices use
/// Candle's operations. In half precision on the CPU, where Candle has no product for bf16, sums are in f32.
#[derive(Clone, Debug)]
pub struct Dense {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
    pub(super) activation: Activation,
}

impl Dense {
    /// A layer of weight `[outputs, inputs]` and bias `[outputs]`, as in [`candle_nn::Linear`].
    ///
    /// # Errors
    /// Other shapes, or a weight without elements.
    pub fn new(weight: Tensor, bias: Tensor, activation: Activation) -> Result<Self> {
        let (outputs, _) = weight.dims2()?;
        if bias.dims() != [outputs] || weight.elem_count() == 0 {
            return Err(Error::ShapeMismatchBinaryOp {
                lhs: weight.shape().clone(),
                rhs: bias.shape().clone(),
                op: "dense",
            });
        }
        Ok(Self { weight, bias, activation })
    }

    /// A layer of two variables.
    pub fn from_vars(weight: &Var, bias: &Var, activation: Activation) -> Result<Self> {
        Self::new(weight.as_tensor().clone(), bias.as_tensor().clone(), activation)
    }

    /// Whether Candle's product, packed and on several threads, is faster than the one here: with a weight that the
    /// first-level cache does not hold, or a multitude of multiply-adds.
    pub(super) fn is_large(&self, rows: usize) -> bool {
        let weights = self.weight.elem_count();
        weights >= 1 << 14 || rows * weights >= 1 << 22
    }

    /// The layer of Candle's operations.
    fn composed(&self, x: &Tensor) -> Result<Tensor> {
        let sums = x.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)?;
        match self.activation {
            Activation::Identity => Ok(sums),
            Activation::Relu => sums.relu(),
        }
    }
}

impl Module for Dense {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Self { weight, bias, activation } = self;
        if let Some([x, weight, bias]) = widen_half([x, weight, bias])? {
            let layer = Self { weight, bias, activation: *activation };
            return layer.forward(&x)?.to_dtype(self.weight.dtype());
        }
        if x.device().is_cpu() {
            if !self.is_large(x.dim(0)?) {
                return in_one_pass(x, std::slice::from_ref(self));
            }
            return x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, Large(*activation));
        }
        self.composed(x)
    }
}

/// A layer by Candle's product.
struct Large(Activation);

impl CustomOp3 for Large {
    fn name(&self) -> &'static str {
        "dense"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ((rows, inputs), (outputs, weight_inputs)) = (l1.shape().dims2()?, l2.shape().dims2()?);
        if inputs != weight_inputs {
            return Err(Error::ShapeMismatchBinaryOp { lhs: l1.shape().clone(), rhs: l2.shape().clone(), op: "dense" });
        }
        let y = on_floats!(self.name(), s1.dtype(), R => {
            let mut y = s1.matmul(s2, (1, rows, outputs, inputs), l1, &l2.transpose(0, 1)?)?;
            finish::<R>(&mut y, contents(s3, l3)?, self.0);
            y
        });
        Ok((y, (rows, outputs).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let [y_values, grad_values] = [y, &grad].map(locked);
        on_floats!("dense", x.dtype(), R => {
            let grad = match self.0 {
                Activation::Identity => grad.clone(),
                Activation::Relu => {
                    let (y, grad_values) = (y_values.values::<R>()?, grad_values.values()?);
                    let passed = y.par_iter().zip(grad_values).with_min_len(GRAIN);
                    shaped_as(&grad, passed.map(|(&y, &grad)| relu_grad(y, grad)).collect())?
                }
            };
            let b_grad = {
                let grad = locked(&grad);
                R::dispatch(Columns::<R> { matrix: grad.values()?, columns: b.elem_count() })
            };
            let x_grad = if x.track_op() { Some(grad.matmul(w)?) } else { None };
            Ok((x_grad, Some(grad.t()?.matmul(x)?), Some(shaped_as(b, b_grad)?)))
        })
    }
}

/// Elements that one thread takes at a time where large layers are finished.
const GRAIN: usize = 1 << 15;

/// `y = activation(y + b)`, row by row.
fn finish<R: Scalar + Element>(y: &mut CpuStorage, b: &[R], activation: Activation) {
    let Some(y) = R::slice_mut(y) else { return };
    y.par_chunks_mut(GRAIN.next_multiple_of(b.len().max(1))).for_each(|rows| {
        for row in rows.chunks_exact_mut(b.len()) {
            for (y, &b) in row.iter_mut().zip(b) {
                *y = activation.of(*y + b);
            }
        }
    });
}

/// The gradient that ReLU lets through, from its result y and the gradient of that.
fn relu_grad<R: Scalar>(y: R, grad: R) -> R {
    let zero = R::lit(0.);
    if y <= zero { zero } else { grad }
}

/// The sums of the columns of a matrix.
struct Columns<'a, R> {
    matrix: &'a [R],
    columns: usize,
}

impl<R: Scalar> Op<R> for Columns<'_, R> {
    type Output = Vec<R>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<R>
    where
        R: Lane<S>,
    {
        let mut sums = vec![R::lit(0.); self.columns];
        add_column_sums(simd, self.matrix, &mut sums);
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::tests::assert_same;
    use candle_core::Device;

    #[test]
    fn the_form_for_other_devices_is_the_same_layer() -> Result<()> {
        let normal = |shape: &[usize]| Var::randn(0f64, 1., shape, &Device::Cpu);
        for activation in [Activation::Identity, Activation::Relu] {
            let (x, w, b) = (normal(&[9, 3])?, normal(&[5, 3])?, normal(&[5])?);
            let layer = Dense::from_vars(&w, &b, activation)?;
            assert_same(&layer.forward(&x)?.sqr()?, &layer.composed(&x)?.sqr()?, &[&x, &w, &b])?;
        }
        Ok(())
    }
}

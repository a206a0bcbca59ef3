//! A fully connected layer as one operation: product, bias and activation, with its own backward pass.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Error, Layout, Result, Shape, Tensor, Var, WithDType};
use candle_nn::Module;
use pulp::Simd;
use rayon::prelude::*;

use super::activation::{Activation, Fused};
use super::block::{ROWS, transpose};
use super::by_rows;
use super::product::{add_column_sums, add_transposed_product, narrow_product, product};
use super::simd::{Lane, Op, Scalar};
use candle_optim::nn::cpu::{contents, contiguous, locked, shaped_as, widen_half};
use candle_optim::on_floats;

/// A fully connected layer: `activation(x·wᵀ + b)`.
///
/// Takes inputs `[.., rows, inputs]` to `[.., rows, outputs]`. It is the fused form of [`candle_nn::Linear`] and an
/// activation. On the CPU, a small layer is one pass forward and one backward, on one thread; a large layer is Candle's
/// matrix product and one pass. Activations other than ReLU are separate operations on the sums. Several small layers
/// are faster as an [`Mlp`](super::Mlp). Other devices use Candle's operations. In half precision on the CPU, where
/// Candle has no product for bf16, sums are in f32.
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
    /// Mismatched shapes, or a weight without elements.
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

    /// The layer as Candle's operations.
    fn composed(&self, x: &Tensor) -> Result<Tensor> {
        let sums = x.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)?;
        match self.activation {
            Activation::Relu => sums.relu(),
            other => other.rest(sums),
        }
    }
}

/// Whether Candle's product, which packs and uses several threads, is faster than the products here; in multiply-adds.
pub(super) fn is_large(rows: usize, weights: usize) -> bool {
    rows * weights >= 1 << 22
}

impl Module for Dense {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Self { weight, bias, activation } = self;
        if let Some([x, weight, bias]) = widen_half([x, weight, bias])? {
            let layer = Self { weight, bias, activation: *activation };
            return layer.forward(&x)?.to_dtype(self.weight.dtype());
        }
        by_rows(x, |x| {
            if x.device().is_cpu() {
                let (x, weight, bias) = (contiguous(x)?, contiguous(weight)?, contiguous(bias)?);
                return activation.rest(x.apply_op3(&weight, &bias, Layer(activation.fused()))?);
            }
            self.composed(x)
        })
    }
}

struct Layer(Fused);

impl CustomOp3 for Layer {
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
            let b = contents::<R>(s3, l3)?;
            if is_large(rows, inputs * outputs) {
                let mut y = s1.matmul(s2, (1, rows, outputs, inputs), l1, &l2.transpose(0, 1)?)?;
                activate::<R>(&mut y, b, self.0);
                y
            } else {
                let (x, w) = (contents(s1, l1)?, contents(s2, l2)?);
                R::to_cpu_storage_owned(R::dispatch(Forward::<R> { x, w, b, activation: self.0 }))
            }
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
        let (rows, inputs) = x.dims2()?;
        let outputs = b.elem_count();
        let [x_values, w_values, y_values, grad_values] = [x, w, y, &grad].map(locked);
        on_floats!("dense", x.dtype(), R => {
            let (y_values, grad_values) = (y_values.values::<R>()?, grad_values.values()?);
            if is_large(rows, inputs * outputs) {
                let grad = match self.0 {
                    Fused::Identity => grad.clone(),
                    Fused::Relu => {
                        let masked = y_values.par_iter().zip(grad_values).with_min_len(GRAIN);
                        shaped_as(&grad, masked.map(|(&y, &grad)| relu_grad(y, grad)).collect())?
                    }
                };
                let b_grad = {
                    let grad = locked(&grad);
                    R::dispatch(Columns::<R> { matrix: grad.values()?, columns: outputs })
                };
                let x_grad = if x.track_op() { Some(grad.matmul(w)?) } else { None };
                return Ok((x_grad, Some(grad.t()?.matmul(x)?), Some(shaped_as(b, b_grad)?)));
            }
            let [x_grad, w_grad, b_grad] = R::dispatch(Backward::<R> {
                x: x_values.values()?,
                w: w_values.values()?,
                y: y_values,
                grad: grad_values,
                outputs,
                activation: self.0,
                needs_x: x.track_op(),
            });
            let x_grad = if x.track_op() { Some(shaped_as(x, x_grad)?) } else { None };
            Ok((x_grad, Some(shaped_as(w, w_grad)?), Some(shaped_as(b, b_grad)?)))
        })
    }
}

/// Elements of a large layer that one thread takes at a time.
const GRAIN: usize = 1 << 15;

/// `y = activation(y + b)`, row by row.
fn activate<R: Scalar>(y: &mut CpuStorage, b: &[R], activation: Fused) {
    let Some(y) = R::slice_mut(y) else { return };
    y.par_chunks_mut(GRAIN.next_multiple_of(b.len().max(1))).for_each(|rows| {
        for row in rows.chunks_exact_mut(b.len()) {
            for (y, &b) in row.iter_mut().zip(b) {
                *y = activation.of(*y + b);
            }
        }
    });
}

/// The gradient that ReLU lets through, from its result y and the gradient of y.
#[inline(always)]
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

/// `y = activation(x·wᵀ + b)`
struct Forward<'a, R> {
    x: &'a [R],
    w: &'a [R],
    b: &'a [R],
    activation: Fused,
}

impl<R: Scalar> Op<R> for Forward<'_, R> {
    type Output = Vec<R>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<R>
    where
        R: Lane<S>,
    {
        let Self { x, w, b, activation } = self;
        let (outputs, inputs) = (b.len(), w.len() / b.len().max(1));
        let mut y = vec![R::lit(0.); x.len() / inputs * outputs];
        if outputs * 4 <= R::LANES {
            narrow_product(simd, x, w, b, inputs, activation, &mut y);
        } else {
            product(simd, x, &transpose(w, inputs), Some(b), inputs, outputs, activation, &mut y);
        }
        y
    }
}

/// Gradients of x (empty unless needed), w and b from the gradient of y.
struct Backward<'a, R> {
    x: &'a [R],
    w: &'a [R],
    y: &'a [R],
    grad: &'a [R],
    outputs: usize,
    activation: Fused,
    needs_x: bool,
}

impl<'a, R: Scalar> Op<R> for Backward<'a, R> {
    type Output = [Vec<R>; 3];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [Vec<R>; 3]
    where
        R: Lane<S>,
    {
        let Self { x, w, y, grad, outputs, activation, needs_x } = self;
        let inputs = w.len() / outputs.max(1);
        let zeros = |n: usize| vec![R::lit(0.); n];
        let mut x_grad = zeros(if needs_x { x.len() } else { 0 });
        let (mut w_grad, mut b_grad) = (zeros(w.len()), zeros(outputs));
        let mut masked = zeros(if activation == Fused::Relu { ROWS * outputs } else { 0 });
        // Transposed if that fills lanes better.
        let across = outputs > inputs;

        for from in (0..grad.len() / outputs.max(1)).step_by(ROWS) {
            let of = |matrix: &'a [R], columns: usize| {
                let rows = &matrix[from * columns..];
                &rows[..rows.len().min(ROWS * columns)]
            };
            let (x, y, grad) = (of(x, inputs), of(y, outputs), of(grad, outputs));
            let grad = match activation {
                Fused::Identity => grad,
                Fused::Relu => {
                    for ((masked, &y), &grad) in masked.iter_mut().zip(y).zip(grad) {
                        *masked = relu_grad(y, grad);
                    }
                    &masked[..grad.len()]
                }
            };
            add_column_sums(simd, grad, &mut b_grad);
            if across {
                add_transposed_product(simd, x, grad, inputs, outputs, &mut w_grad);
            } else {
                add_transposed_product(simd, grad, x, outputs, inputs, &mut w_grad);
            }
            if needs_x {
                let x_grad = &mut x_grad[from * inputs..][..x.len()];
                product(simd, grad, w, None, outputs, inputs, Fused::Identity, x_grad);
            }
        }
        let w_grad = if across { transpose(&w_grad, outputs) } else { w_grad };
        [x_grad, w_grad, b_grad]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// Checks that two results are equal, and so are their gradients with respect to `vars`.
    fn assert_same(a: &Tensor, b: &Tensor, vars: &[&Var]) -> Result<()> {
        let close = |a: &Tensor, b: &Tensor| -> Result<bool> {
            Ok(a.shape() == b.shape() && (a - b)?.abs()?.max_all()?.to_scalar::<f64>()? < 1e-12)
        };
        assert!(close(a, b)?);
        let (of_a, of_b) = (a.backward()?, b.backward()?);
        for var in vars {
            assert!(close(of_a.get(var).unwrap(), of_b.get(var).unwrap())?);
        }
        Ok(())
    }

    #[test]
    fn the_form_for_other_devices_is_the_same_layer() -> Result<()> {
        let normal = |shape: &[usize]| Var::randn(0f64, 1., shape, &Device::Cpu);
        for activation in [&[Activation::Identity] as &[_], &Activation::BETWEEN_LAYERS].concat() {
            let (x, w, b) = (normal(&[9, 3])?, normal(&[5, 3])?, normal(&[5])?);
            let layer = Dense::from_vars(&w, &b, activation)?;
            assert_same(&layer.forward(&x)?.sqr()?, &layer.composed(&x)?.sqr()?, &[&x, &w, &b])?;
        }
        Ok(())
    }
}

//! A fully connected layer as one operation: product, bias and activation, with its own backward pass.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Error, Layout, Result, Shape, Tensor, Var, WithDType};
use candle_nn::Module;
use pulp::Simd;
use rayon::prelude::*;

use super::product::{column_sums, product, transpose, transposed_product};
use super::simd::{Lane, Op, Scalar};
use super::{contents, cpu, on_floats, widen_half};
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
    fn of<R: Scalar>(self, x: R) -> R {
        let zero = R::lit(0.);
        if self == Self::Relu && x < zero { zero } else { x }
    }
}

/// A fully connected layer: `activation(x·wᵀ + b)`.
///
/// Takes inputs `[rows, inputs]` to `[rows, outputs]`. Used where [`candle_nn::Linear`] and an activation would be, of
/// which it is the fused form: on the CPU, a small layer is one pass forward and one backward, on one thread, and a large
/// one Candle's matrix product and a pass. Other devices use Candle's operations. In half precision on the CPU, where Candle has no product for bf16,
/// sums are in f32.
#[derive(Clone, Debug)]
pub struct Dense {
    weight: Tensor,
    bias: Tensor,
    activation: Activation,
}

impl Dense {
    /// A layer of weight `[outputs, inputs]` and bias `[outputs]`, as in [`candle_nn::Linear`].
    ///
    /// # Errors
    /// Other shapes.
    pub fn new(weight: Tensor, bias: Tensor, activation: Activation) -> Result<Self> {
        let (outputs, _) = weight.dims2()?;
        if bias.dims() != [outputs] {
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
}

/// Whether Candle's product, packed and on several threads, is faster than the ones here; counted in multiply-adds.
fn is_large(rows: usize, inputs: usize, outputs: usize) -> bool {
    rows * inputs * outputs >= 1 << 22
}

impl Module for Dense {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Self { weight, bias, activation } = self;
        if let Some([x, weight, bias]) = widen_half([x, weight, bias])? {
            let layer = Self { weight, bias, activation: *activation };
            return layer.forward(&x)?.to_dtype(self.weight.dtype());
        }
        if x.device().is_cpu() {
            return x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, Layer(*activation));
        }
        let sums = x.matmul(&weight.t()?)?.broadcast_add(bias)?;
        match activation {
            Activation::Identity => Ok(sums),
            Activation::Relu => sums.relu(),
        }
    }
}

struct Layer(Activation);

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
            if is_large(rows, inputs, outputs) {
                let mut y = s1.matmul(s2, (1, rows, outputs, inputs), l1, &l2.transpose(0, 1)?)?;
                finish::<R>(&mut y, b, self.0);
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
        if is_large(rows, inputs, b.elem_count()) {
            let grad = if self.0 == Activation::Relu { y.apply_op2_no_bwd(&grad, &ReluGrad)? } else { grad };
            let x_grad = if x.track_op() { Some(grad.matmul(w)?) } else { None };
            return Ok((x_grad, Some(grad.t()?.matmul(x)?), Some(grad.apply_op1_no_bwd(&ColumnSums)?)));
        }
        let guards = [x, w, y, &grad].map(Tensor::storage_and_layout);
        let [sx, sw, sy, sg] = [0, 1, 2, 3].map(|i| (cpu(&guards[i].0), guards[i].1));
        on_floats!(self.name(), x.dtype(), R => {
            let gradients = R::dispatch(Backward::<R> {
                x: contents(sx.0?, sx.1)?,
                w: contents(sw.0?, sw.1)?,
                y: contents(sy.0?, sy.1)?,
                grad: contents(sg.0?, sg.1)?,
                outputs: b.elem_count(),
                activation: self.0,
                needs_x: x.track_op(),
            });
            let tensor = |values: Vec<R>, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device());
            let [x_grad, w_grad, b_grad] = gradients;
            let x_grad = if x.track_op() { Some(tensor(x_grad, x)?) } else { None };
            Ok((x_grad, Some(tensor(w_grad, w)?), Some(tensor(b_grad, b)?)))
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

/// The gradient that ReLU lets through, from its result and that of its result.
struct ReluGrad;

impl CustomOp2 for ReluGrad {
    fn name(&self) -> &'static str {
        "relu-grad"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let passed = on_floats!(self.name(), s1.dtype(), R => {
            let (y, grad) = (contents::<R>(s1, l1)?, contents::<R>(s2, l2)?);
            let passed = y.par_iter().zip(grad).with_min_len(GRAIN).map(|(&y, &grad)| relu_grad(y, grad));
            R::to_cpu_storage_owned(passed.collect())
        });
        Ok((passed, l1.shape().clone()))
    }
}

#[inline(always)]
fn relu_grad<R: Scalar>(y: R, grad: R) -> R {
    let zero = R::lit(0.);
    if y <= zero { zero } else { grad }
}

/// The sums of the columns of a matrix.
struct ColumnSums;

impl CustomOp1 for ColumnSums {
    fn name(&self) -> &'static str {
        "column-sums"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, columns) = l.shape().dims2()?;
        let sums = on_floats!(self.name(), s.dtype(), R => {
            R::to_cpu_storage_owned(R::dispatch(Columns::<R> { matrix: contents(s, l)?, columns }))
        });
        Ok((sums, columns.into()))
    }
}

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
        column_sums(simd, self.matrix, self.columns)
    }
}

/// `y = activation(x·wᵀ + b)`
struct Forward<'a, R> {
    x: &'a [R],
    w: &'a [R],
    b: &'a [R],
    activation: Activation,
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
        product(simd, x, &transpose(w, inputs), Some(b), inputs, outputs, activation)
    }
}

/// Gradients of x (empty unless needed), w and b from that of y.
struct Backward<'a, R> {
    x: &'a [R],
    w: &'a [R],
    y: &'a [R],
    grad: &'a [R],
    outputs: usize,
    activation: Activation,
    needs_x: bool,
}

impl<R: Scalar> Op<R> for Backward<'_, R> {
    type Output = [Vec<R>; 3];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [Vec<R>; 3]
    where
        R: Lane<S>,
    {
        let Self { x, w, y, grad, outputs, activation, needs_x } = self;
        let inputs = w.len() / outputs.max(1);
        let passed: Vec<R>;
        let grad = match activation {
            Activation::Identity => grad,
            Activation::Relu => {
                passed = y.iter().zip(grad).map(|(&y, &grad)| relu_grad(y, grad)).collect();
                &passed
            }
        };
        let x_grad = if needs_x { product(simd, grad, w, None, outputs, inputs, Activation::Identity) } else { vec![] };
        [x_grad, transposed_product(simd, grad, x, outputs, inputs), column_sums(simd, grad, outputs)]
    }
}

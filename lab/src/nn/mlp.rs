//! Fully connected layers, one after the other, as one operation.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, DType, Error, Layout, Result, Shape, Tensor, WithDType};
use candle_nn::Module;
use pulp::Simd;

use super::activation::Fused;
use super::block::{
    Activate, ActivationGrad, ROWS, add_activation_grad, add_inner_products, from_block, product, to_block,
    transpose_to,
};
use super::dense::is_large;
use super::scratch::{Pieces, Scratch};
use super::simd::{Lane, Op, Scalar};
use super::{Dense, by_rows};
use candle_optim::nn::cpu::{contents, contiguous, locked, shaped_as};
use candle_optim::on_floats;

/// A multi-layer perceptron: fully connected layers, each applied to the results of the previous one.
///
/// Takes inputs `[.., rows, inputs]` of the first layer to `[.., rows, outputs]` of the last, as a
/// [`candle_nn::Sequential`] of the layers does. On the CPU, with small layers and no activation but ReLU, it is one
/// operation: it takes some rows at a time through all layers while the rows stay in the first-level cache. The
/// backward pass recomputes the results between the layers, which costs about as much as writing and reading them. Each
/// thread retains at most 1 MiB of memory for these results, for each number type.
#[derive(Clone, Debug)]
pub struct Mlp {
    layers: Vec<Dense>,
    sizes: Layers,
}

impl Mlp {
    /// The network of these layers.
    ///
    /// # Errors
    /// No layer, or a layer whose number of inputs is not the number of outputs of the previous one.
    pub fn new(layers: Vec<Dense>) -> Result<Self> {
        if layers.is_empty() {
            return Err(Error::Msg("mlp: no layers; allowed: one or more".into()));
        }
        let sizes = Layers::of(&layers)?;
        for (i, pair) in sizes.0.windows(2).enumerate() {
            let (Size { outputs, .. }, Size { inputs, .. }) = (pair[0], pair[1]);
            if inputs != outputs {
                let after = i + 1;
                return Err(Error::Msg(format!("mlp: layer {after} takes {inputs} inputs; allowed: {outputs}")));
            }
        }
        Ok(Self { layers, sizes })
    }

    /// The results of [`forward`](Module::forward) without the data of a backward pass: for evaluation.
    pub fn evaluate(&self, x: &Tensor) -> Result<Tensor> {
        if x.rank() != 2 {
            return by_rows(x, |x| self.evaluate(x));
        }
        if !self.is_one_pass(x)? {
            return Ok(self.forward(x)?.detach());
        }
        let rows = self.sizes.rows(x.shape())?;
        let (x, parameters) = (contiguous(x)?, self.parameters()?);
        let (x_values, locks) = (locked(&x), parameters.iter().map(|tensor| locked(tensor)).collect::<Vec<_>>());
        on_floats!("mlp", x.dtype(), R => {
            let parameters = locks.iter().map(|lock| lock.values::<R>()).collect::<Result<Vec<_>>>()?;
            let network = Network { sizes: &self.sizes.0, x: x_values.values()?, parameters: &parameters, rows };
            Tensor::from_vec(R::dispatch(Forward(network)), (rows, self.sizes.outputs()), x.device())
        })
    }

    /// The gradient of the weight and the bias of each layer, from the gradient of the results for inputs
    /// `[rows, inputs]`, without Candle's graph, for a network that [is one pass](Self::is_one_pass).
    ///
    /// # Errors
    /// An error of Candle.
    pub fn gradients(&self, x: &Tensor, grad: &Tensor) -> Result<Vec<Tensor>> {
        let rows = self.sizes.rows(x.shape())?;
        let (x, grad, parameters) = (contiguous(x)?, contiguous(grad)?, self.parameters()?);
        let (x_values, grad, locks) = (locked(&x), locked(&grad), parameters.iter().map(|tensor| locked(tensor)));
        let locks: Vec<_> = locks.collect();
        on_floats!("mlp", x.dtype(), R => {
            let slices = locks.iter().map(|lock| lock.values::<R>()).collect::<Result<Vec<_>>>()?;
            let network = Network { sizes: &self.sizes.0, x: x_values.values()?, parameters: &slices, rows };
            let [_, grads] = R::dispatch(Backward { network, grad: grad.values()?, needs_x: false });
            let mut rest = grads.as_slice();
            let mut next = |of: &Cow<Tensor>| {
                let (own, after) = rest.split_at(of.elem_count());
                rest = after;
                shaped_as(of, own.to_vec())
            };
            parameters.iter().map(&mut next).collect()
        })
    }

    /// Weight and bias of each layer, contiguous.
    fn parameters(&self) -> Result<Vec<Cow<'_, Tensor>>> {
        let mut parameters = Vec::with_capacity(2 * self.layers.len());
        for Dense { weight, bias, .. } in &self.layers {
            parameters.extend([contiguous(weight)?, contiguous(bias)?]);
        }
        Ok(parameters)
    }

    /// Whether the layers are one pass over inputs `[rows, inputs]`: their activations are fused, the first-level cache
    /// holds their weights, and there are too few rows for several threads to be faster.
    ///
    /// # Errors
    /// Inputs without dimensions.
    pub fn is_one_pass(&self, x: &Tensor) -> Result<bool> {
        let (rows, floats) = (x.dim(0)?, matches!(x.dtype(), DType::F32 | DType::F64));
        let small = |layer: &Dense| {
            let weights = layer.weight.elem_count();
            weights < 1 << 14 && !is_large(rows, weights)
        };
        Ok(x.device().is_cpu() && floats && self.layers.iter().all(|layer| layer.activation.is_fused() && small(layer)))
    }
}

impl Module for Mlp {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if x.rank() != 2 {
            return by_rows(x, |x| self.forward(x));
        }
        if !self.is_one_pass(x)? {
            return self.layers.iter().try_fold(x.clone(), |x, layer| layer.forward(&x));
        }
        // Candle's operations take at most three tensors: all parameters but the last are passed as one.
        let mut parameters = contiguous(&self.layers[0].weight)?;
        for pair in self.layers.windows(2) {
            let (bias, weight) = (contiguous(&pair[0].bias)?, contiguous(&pair[1].weight)?);
            parameters = Cow::Owned(parameters.apply_op3(&bias, &weight, Append)?);
        }
        let last = contiguous(&self.layers[self.layers.len() - 1].bias)?;
        contiguous(x)?.apply_op3(&parameters, &last, self.sizes.clone())
    }
}

/// One vector with all elements of three tensors.
struct Append;

impl CustomOp3 for Append {
    fn name(&self) -> &'static str {
        "append"
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
        let all = on_floats!(self.name(), s1.dtype(), R => {
            R::to_cpu_storage_owned([contents::<R>(s1, l1)?, contents(s2, l2)?, contents(s3, l3)?].concat())
        });
        Ok((all, [l1, l2, l3].map(|layout| layout.shape().elem_count()).iter().sum::<usize>().into()))
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = locked(grad);
        on_floats!(self.name(), a.dtype(), R => {
            let mut rest = grad.values::<R>()?;
            let mut part = |of: &Tensor| {
                let (part, after) = rest.split_at(of.elem_count());
                rest = after;
                of.track_op().then(|| shaped_as(of, part.to_vec())).transpose()
            };
            Ok((part(a)?, part(b)?, part(c)?))
        })
    }
}

/// The sizes and the activation of a layer.
#[derive(Clone, Copy, Debug)]
struct Size {
    inputs: usize,
    outputs: usize,
    activation: Fused,
}

#[derive(Clone, Debug)]
struct Layers(Arc<[Size]>);

impl Layers {
    fn of(layers: &[Dense]) -> Result<Self> {
        let size = |layer: &Dense| {
            let (outputs, inputs) = layer.weight.dims2()?;
            Ok(Size { inputs, outputs, activation: layer.activation.fused() })
        };
        layers.iter().map(size).collect::<Result<_>>().map(Self)
    }
}

impl Layers {
    /// The number of rows of x.
    fn rows(&self, x: &Shape) -> Result<usize> {
        let Size { inputs, outputs, .. } = self.0[0];
        match x.dims2()? {
            (rows, columns) if columns == inputs => Ok(rows),
            _ => Err(Error::ShapeMismatchBinaryOp { lhs: x.clone(), rhs: (outputs, inputs).into(), op: "mlp" }),
        }
    }

    fn outputs(&self) -> usize {
        self.0[self.0.len() - 1].outputs
    }

    /// Weight and bias of each layer, from one vector; the last bias is separate.
    fn parameters<'a, R>(&self, mut all: &'a [R], last: &'a [R]) -> Vec<&'a [R]> {
        let mut parameters = Vec::with_capacity(2 * self.0.len());
        for (i, Size { inputs, outputs, .. }) in self.0.iter().enumerate() {
            let (weight, rest) = all.split_at(inputs * outputs);
            let (bias, rest) = if i + 1 < self.0.len() { rest.split_at(*outputs) } else { (last, rest) };
            parameters.extend([weight, bias]);
            all = rest;
        }
        parameters
    }
}

impl CustomOp3 for Layers {
    fn name(&self) -> &'static str {
        "layers"
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
        let rows = self.rows(l1.shape())?;
        let y = on_floats!(self.name(), s1.dtype(), R => {
            let parameters = self.parameters::<R>(contents(s2, l2)?, contents(s3, l3)?);
            let network = Network { sizes: &self.0, x: contents(s1, l1)?, parameters: &parameters, rows };
            R::to_cpu_storage_owned(R::dispatch(Forward(network)))
        });
        Ok((y, (rows, self.outputs()).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        parameters: &Tensor,
        last: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = contiguous(grad)?;
        let [x_values, all, last_values, grad] = [x, parameters, last, &*grad].map(locked);
        on_floats!(self.name(), x.dtype(), R => {
            let slices = self.parameters::<R>(all.values()?, last_values.values()?);
            let network = Network { sizes: &self.0, x: x_values.values()?, parameters: &slices, rows: x.dim(0)? };
            let backward = Backward { network, grad: grad.values()?, needs_x: x.track_op() };
            let [x_grad, mut grads] = R::dispatch(backward);
            let of_last = grads.split_off(parameters.elem_count());
            let tensor = |of: &Tensor, grad| of.track_op().then(|| shaped_as(of, grad)).transpose();
            Ok((tensor(x, x_grad)?, tensor(parameters, grads)?, tensor(last, of_last)?))
        })
    }
}

#[derive(Clone, Copy)]
struct Network<'a, R> {
    sizes: &'a [Size],
    x: &'a [R],
    /// Weight and bias of each layer in turn.
    parameters: &'a [&'a [R]],
    rows: usize,
}

/// `activation(x·wᵀ + b)`
struct Layer<'a, R> {
    weight: &'a [R],
    transposed: &'a [R],
    bias: &'a [R],
    activation: Fused,
}

impl<'a, R: Scalar> Network<'a, R> {
    /// Memory for [`layers`](Self::layers), for [`blocks`](Self::blocks), and for `more` pieces of `n` numbers in all.
    #[inline(always)]
    fn scratch(&self, n: usize, more: usize) -> Scratch<R> {
        let features = self.sizes.iter().fold(self.inputs(), |sum, size| sum + size.outputs);
        Scratch::new(self.elements() + features * ROWS + n, 2 * self.sizes.len() + 1 + more)
    }

    /// The layers, with their transposes.
    #[inline(always)]
    fn layers<'m: 'a>(&self, memory: &mut Pieces<'m, R>) -> Vec<Layer<'a, R>> {
        let mut layers = Vec::with_capacity(self.sizes.len());
        for (i, &Size { inputs, outputs, activation }) in self.sizes.iter().enumerate() {
            let (weight, bias) = (self.parameters[2 * i], self.parameters[2 * i + 1]);
            let transposed = memory.take(weight.len());
            transpose_to(weight, inputs, [outputs, inputs], transposed, outputs);
            layers.push(Layer { weight, transposed, bias, activation });
        }
        layers
    }

    /// Blocks for the input and each layer's results.
    #[inline(always)]
    fn blocks<'m>(&self, memory: &mut Pieces<'m, R>) -> Vec<&'m mut [R]> {
        let mut blocks = Vec::with_capacity(self.sizes.len() + 1);
        blocks.push(memory.take(self.inputs() * ROWS));
        for size in self.sizes {
            blocks.push(memory.take(size.outputs * ROWS));
        }
        blocks
    }

    /// The number of elements of all parameters.
    #[inline(always)]
    fn elements(&self) -> usize {
        self.parameters.iter().fold(0, |sum, parameter| sum + parameter.len())
    }

    #[inline(always)]
    fn inputs(&self) -> usize {
        self.sizes[0].inputs
    }

    #[inline(always)]
    fn outputs(&self) -> usize {
        self.sizes[self.sizes.len() - 1].outputs
    }
}

#[inline(always)]
fn zeros<R: Scalar>(n: usize) -> Vec<R> {
    vec![R::lit(0.); n]
}

/// Takes the rows of x through all layers.
#[inline(always)]
fn pass<S: Simd, R: Lane<S>>(simd: S, layers: &[Layer<R>], x: &[R], inputs: usize, blocks: &mut [&mut [R]]) {
    to_block(x, inputs, blocks[0]);
    for (i, layer) in layers.iter().enumerate() {
        let (before, after) = blocks.split_at_mut(i + 1);
        let &Layer { transposed, bias, activation, .. } = layer;
        product(simd, transposed, before[i], x.len() / inputs, after[0], Activate { bias, activation });
    }
}

struct Forward<'a, R>(Network<'a, R>);

impl<R: Scalar> Op<R> for Forward<'_, R> {
    type Output = Vec<R>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<R>
    where
        R: Lane<S>,
    {
        let network = self.0;
        let (inputs, outputs) = (network.inputs(), network.outputs());
        let mut memory = network.scratch(0, 0);
        let mut memory = memory.pieces();
        let (layers, mut blocks) = (network.layers(&mut memory), network.blocks(&mut memory));
        let mut y = zeros(network.rows * outputs);
        for from in (0..network.rows).step_by(ROWS) {
            let rows = ROWS.min(network.rows - from);
            pass(simd, &layers, &network.x[from * inputs..][..rows * inputs], inputs, &mut blocks);
            from_block(blocks[layers.len()], outputs, &mut y[from * outputs..][..rows * outputs]);
        }
        y
    }
}

/// Gradients of x (empty unless needed) and of the parameters from the gradient of the result.
struct Backward<'a, R> {
    network: Network<'a, R>,
    grad: &'a [R],
    needs_x: bool,
}

impl<R: Scalar> Op<R> for Backward<'_, R> {
    type Output = [Vec<R>; 2];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [Vec<R>; 2]
    where
        R: Lane<S>,
    {
        let Self { network, grad, needs_x } = self;
        let (inputs, outputs) = (network.inputs(), network.outputs());
        let lanes = network.elements() * R::LANES;
        let mut memory = network.scratch(outputs * ROWS + lanes, 2);
        let mut memory = memory.pieces();
        let (layers, mut blocks) = (network.layers(&mut memory), network.blocks(&mut memory));
        let gradient = memory.take(outputs * ROWS);
        let mut x_grad = zeros(if needs_x { network.x.len() } else { 0 });
        // The gradient of a last layer without activation does not depend on its results.
        let needed = match layers.split_last() {
            Some((last, before)) if last.activation == Fused::Identity => before,
            _ => &layers,
        };
        // Sums lane by lane.
        let sums = R::vectors_mut(memory.take(lanes));
        sums.fill(R::splat(simd, R::lit(0.)));

        for from in (0..network.rows).step_by(ROWS) {
            let rows = ROWS.min(network.rows - from);
            pass(simd, needed, &network.x[from * inputs..][..rows * inputs], inputs, &mut blocks);
            to_block(&grad[from * outputs..][..rows * outputs], outputs, gradient);

            let (mut rest, of_bias) = sums.split_at_mut(sums.len() - outputs);
            let activation = layers[layers.len() - 1].activation;
            add_activation_grad::<S, R>(simd, blocks[layers.len()], activation, gradient, of_bias);
            let mut of_y = &mut *gradient;
            for ((i, layer), x) in layers.iter().enumerate().zip(&mut blocks[..layers.len()]).rev() {
                let of_weight;
                (rest, of_weight) = rest.split_at_mut(rest.len() - layer.weight.len());
                add_inner_products::<S, R>(simd, of_y, x, rows, of_weight);
                if i > 0 {
                    let totals;
                    (rest, totals) = rest.split_at_mut(rest.len() - layers[i - 1].bias.len());
                    let activation = layers[i - 1].activation;
                    product(simd, layer.weight, of_y, rows, x, ActivationGrad { activation, totals });
                } else if needs_x {
                    let epilogue = ActivationGrad { activation: Fused::Identity, totals: &mut [] };
                    product(simd, layer.weight, of_y, rows, x, epilogue);
                }
                of_y = x;
            }
            if needs_x {
                from_block(blocks[0], inputs, &mut x_grad[from * inputs..][..rows * inputs]);
            }
        }

        let mut grads = zeros(sums.len());
        for (grad, &sum) in grads.iter_mut().zip(&*sums) {
            *grad = R::total(simd, sum);
        }
        [x_grad, grads]
    }
}

//! Losses with their own backward pass.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Error, Layout, Result, Shape, Tensor, WithDType};
use pulp::Simd;

use super::elementary::Elementary;
use super::simd::{Lane, Op, Scalar};
use super::{contents, on_floats, widen_half};

/// Mean binary cross entropy of logits x against targets y in [0, 1], of the same shape and type; a scalar.
///
/// ```text
/// loss = mean(max(x, 0) - x·y + ln(1 + exp(-|x|)))
/// ```
///
/// Finite for every finite x, where `candle_nn::loss::binary_cross_entropy_with_logit` takes ln(sigmoid(x)) and is
/// infinite from |x| of about 17 in f32. The gradient is that of the logits; the targets get none. On the CPU
/// each pass is one loop, in f32 for half precision, summed in f64; elsewhere the loss is composed of Candle's
/// operations.
///
/// # Errors
/// Shapes, types or devices that differ, an empty tensor, a type that is not floating point.
pub fn bce_with_logits(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    if logits.shape() != targets.shape() {
        return Err(Error::ShapeMismatchBinaryOp {
            lhs: logits.shape().clone(),
            rhs: targets.shape().clone(),
            op: "bce_with_logits",
        });
    }
    if logits.elem_count() == 0 {
        return Err(Error::Msg("bce_with_logits: the logits are empty".into()));
    }
    let dtype = logits.dtype();
    if let Some([logits, targets]) = widen_half([logits, targets])? {
        return bce_with_logits(&logits, &targets)?.to_dtype(dtype);
    }
    if logits.device().is_cpu() {
        return logits.contiguous()?.apply_op2(&targets.detach().contiguous()?, Bce);
    }
    let softplus = (logits.abs()?.neg()?.exp()? + 1.)?.log()?;
    ((logits.relu()? - (logits * targets.detach())?)? + softplus)?.mean_all()
}

struct Bce;

impl CustomOp2 for Bce {
    fn name(&self) -> &'static str {
        "bce-with-logits"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let mean = on_floats!(self.name(), s1.dtype(), R => {
            let op = BceMean::<R> { x: contents(s1, l1)?, y: contents(s2, l2)? };
            R::to_cpu_storage_owned(vec![R::dispatch(op)])
        });
        Ok((mean, Shape::from(())))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(x.apply_op3_no_bwd(y, grad, &BceGrad)?), None))
    }
}

/// The gradient of the logits from that of the mean.
struct BceGrad;

impl CustomOp3 for BceGrad {
    fn name(&self) -> &'static str {
        "bce-with-logits-grad"
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
        let gradient = on_floats!(self.name(), s1.dtype(), R => {
            let op = BceSlope::<R> { x: contents(s1, l1)?, y: contents(s2, l2)?, grad: contents::<R>(s3, l3)?[0] };
            R::to_cpu_storage_owned(R::dispatch(op))
        });
        Ok((gradient, l1.shape().clone()))
    }
}

/// `mean(max(x, 0) - x·y + ln(1 + exp(-|x|)))`, summed in f64.
struct BceMean<'a, R> {
    x: &'a [R],
    y: &'a [R],
}

impl<R: Elementary> Op<R> for BceMean<'_, R> {
    type Output = R;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> R
    where
        R: Lane<S>,
    {
        let term = |x: R, y: R| {
            let zero = R::lit(0.);
            let positive = if x > zero { x } else { zero };
            (positive - x * y + R::ln_1p_to_one(R::exp_below_zero(-x.abs()))).to_f64()
        };
        // Sums side by side, which a vector holds; of fixed number, so that every processor adds in one order.
        const SUMS: usize = 16;
        let mut sums = [0.; SUMS];
        let (x, x_rest) = self.x.as_chunks::<SUMS>();
        let (y, y_rest) = self.y.as_chunks::<SUMS>();
        for (x, y) in x.iter().zip(y) {
            for i in 0..SUMS {
                sums[i] += term(x[i], y[i]);
            }
        }
        let rest: f64 = x_rest.iter().zip(y_rest).map(|(&x, &y)| term(x, y)).sum();
        R::lit((sums.iter().sum::<f64>() + rest) / self.x.len() as f64)
    }
}

/// `(sigmoid(x) - y)·grad/n`
struct BceSlope<'a, R> {
    x: &'a [R],
    y: &'a [R],
    grad: R,
}

impl<R: Elementary> Op<R> for BceSlope<'_, R> {
    type Output = Vec<R>;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Vec<R>
    where
        R: Lane<S>,
    {
        let scale = R::lit(self.grad.to_f64() / self.x.len() as f64);
        let slope = |(&x, &y): (&R, &R)| {
            let (zero, one) = (R::lit(0.), R::lit(1.));
            let e = R::exp_below_zero(-x.abs());
            let sigmoid = (if x < zero { e } else { one }) / (one + e);
            (sigmoid - y) * scale
        };
        self.x.iter().zip(self.y).map(slope).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};

    #[test]
    fn agrees_with_the_composed_loss_and_its_gradient() -> Result<()> {
        let x = Var::new(&[[-3f64, -0.5, 0.], [0.25, 2., 7.]], &Device::Cpu)?;
        let y = Tensor::new(&[[0f64, 1., 0.3], [1., 0., 1.]], &Device::Cpu)?;
        let ours = bce_with_logits(&x, &y)?;
        let composed = candle_nn::loss::binary_cross_entropy_with_logit(&x, &y)?;
        assert!((ours.to_scalar::<f64>()? - composed.to_scalar::<f64>()?).abs() < 1e-15);
        // Scaled, so that the gradient handed to the backward pass is not one.
        let (ours, composed) = ((ours * 3.)?.backward()?, (composed * 3.)?.backward()?);
        let difference = (ours.get(&x).unwrap() - composed.get(&x).unwrap())?.abs()?.max_all()?;
        assert!(difference.to_scalar::<f64>()? < 1e-15);
        assert!(ours.get(&y).is_none());
        Ok(())
    }

    #[test]
    fn is_finite_where_the_composed_loss_overflows() -> Result<()> {
        let x = Var::new(&[-1e4f32, -30., 30., 1e4], &Device::Cpu)?;
        let y = Tensor::new(&[1f32, 1., 0., 0.], &Device::Cpu)?;
        let loss = bce_with_logits(&x, &y)?;
        assert_eq!(loss.to_scalar::<f32>()?, 5015.);
        let grads = loss.backward()?;
        assert_eq!(grads.get(&x).unwrap().to_vec1::<f32>()?, [-0.25, -0.25, 0.25, 0.25]);
        Ok(())
    }

    #[test]
    fn nan_stays_nan_and_misfits_are_errors() -> Result<()> {
        let (x, y) = (Tensor::new(&[f64::NAN, 1.], &Device::Cpu)?, Tensor::new(&[0., 1.], &Device::Cpu)?);
        assert!(bce_with_logits(&x, &y)?.to_scalar::<f64>()?.is_nan());
        assert!(bce_with_logits(&x, &y.reshape((1, 2))?).is_err());
        assert!(bce_with_logits(&x, &y.to_dtype(DType::F32)?).is_err());
        assert!(bce_with_logits(&x.to_dtype(DType::U8)?, &y.to_dtype(DType::U8)?).is_err());
        assert!(bce_with_logits(&x.narrow(0, 0, 0)?, &y.narrow(0, 0, 0)?).is_err());
        Ok(())
    }

    #[test]
    fn strided_and_half_precision_logits_are_read_right() -> Result<()> {
        let x = Tensor::new(&[[0f32, 1.], [2., 3.]], &Device::Cpu)?;
        let y = Tensor::new(&[[0f32, 1.], [1., 0.]], &Device::Cpu)?;
        let full = bce_with_logits(&x.t()?, &y.t()?)?.to_scalar::<f32>()?;
        assert_eq!(full, bce_with_logits(&x, &y)?.to_scalar::<f32>()?);
        for dtype in [DType::F16, DType::BF16] {
            let half = bce_with_logits(&x.to_dtype(dtype)?, &y.to_dtype(dtype)?)?;
            assert!((half.to_dtype(DType::F32)?.to_scalar::<f32>()? - full).abs() < 4e-3 * full);
        }
        Ok(())
    }
}

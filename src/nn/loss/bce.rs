//! Binary cross entropy.

use candle_core::{Result, Tensor};

use super::pointwise::{Term, mean};
use crate::nn::elementary::Elementary;

/// Mean binary cross entropy of logits x against targets y in [0, 1], of the same shape and type; a scalar.
///
/// ```text
/// loss = mean(|x|·w + ln(1 + exp(-|x|)))      w = 1 - y for x above 0, else y: the weight of the other class
/// ```
///
/// The loss is finite for every finite x. For an infinite x it is 0 if y is the class of x, else infinite.
/// `candle_nn::loss::binary_cross_entropy_with_logit` computes ln(1 - sigmoid(x)), which is infinite for x above about
/// 17 in f32. Only the logits get a gradient.
///
/// # Errors
/// Shapes, types or devices that differ, an empty tensor, a type that is not floating point.
pub fn bce_with_logits(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    mean(logits, &targets.detach(), BinaryCrossEntropy)
}

#[derive(Clone, Copy)]
pub(super) struct BinaryCrossEntropy;

impl Term for BinaryCrossEntropy {
    const NAME: &'static str = "bce_with_logits";

    #[inline(always)]
    fn term<R: Elementary>(x: R, y: R) -> R {
        let (zero, one) = (R::lit(0.), R::lit(1.));
        let wrong = if x > zero { one - y } else { y };
        // 0·∞ would be NaN.
        let linear = if wrong == zero { zero } else { x.abs() * wrong };
        linear + R::ln_1p_to_one(R::exp_below_zero(-x.abs()))
    }

    /// `sigmoid(x) - y`
    #[inline(always)]
    fn slope<R: Elementary>(x: R, y: R) -> R {
        let (zero, one) = (R::lit(0.), R::lit(1.));
        let e = R::exp_below_zero(-x.abs());
        let sigmoid = (if x < zero { e } else { one }) / (one + e);
        sigmoid - y
    }

    fn composed(x: &Tensor, y: &Tensor) -> Result<Tensor> {
        let wrong = x.gt(0.)?.where_cond(&y.affine(-1., 1.)?, y)?;
        let linear = wrong.eq(0.)?.where_cond(&x.zeros_like()?, &(x.abs()? * &wrong)?)?;
        (linear + (x.abs()?.neg()?.exp()? + 1.)?.log()?)?.mean_all()
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
        // Scaled, so that the backward pass gets a gradient other than 1.
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
    fn infinite_logits_cost_nothing_or_everything() -> Result<()> {
        const INF: f64 = f64::INFINITY;
        for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
            for (x, y, loss, slope) in [(-INF, 0., 0., 0.), (INF, 1., 0., 0.), (-INF, 1., INF, -1.), (INF, 0., INF, 1.)]
            {
                let number = |x: f64| Tensor::new(&[x], &Device::Cpu)?.to_dtype(dtype);
                let (x, y) = (Var::from_tensor(&number(x)?)?, number(y)?);
                let wide = |x: &Tensor| x.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
                let all = [bce_with_logits(&x, &y)?, BinaryCrossEntropy::composed(&x, &y)?];
                for found in all {
                    assert_eq!(wide(&found)?, [loss], "{x} {y}");
                    assert_eq!(wide(found.backward()?.get(&x).unwrap())?, [slope], "{x} {y}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn nan_stays_nan_and_other_shapes_are_errors() -> Result<()> {
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

//! Cross entropy of several classes.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, DType, Error, Layout, Result, Shape, Tensor, WithDType};

use super::not_empty;
use crate::nn::cpu::{Pass, contents, dispatch, locked, shaped_as, widen_half};
use crate::nn::elementary::Elementary;
use crate::on_floats;
use crate::real::Real;

/// Mean cross entropy of logits `[rows, classes]` against class numbers `[rows]`, integers from 0; a scalar.
///
/// ```text
/// loss = mean over rows of ln(Σ exp(x)) - x[target]
/// ```
///
/// The loss is finite for all finite x. An x of -∞ masks its class, and an x of +∞ makes it certain. The loss is that
/// of `candle_nn::loss::cross_entropy`, in one pass forward and one backward.
///
/// # Errors
/// Shapes other than these, targets that are not integers, a class number that is not below the number of classes, an
/// empty tensor.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let (rows, _) = logits.dims2()?;
    if targets.dims() != [rows] {
        let (lhs, rhs) = (logits.shape().clone(), targets.shape().clone());
        return Err(Error::ShapeMismatchBinaryOp { lhs, rhs, op: NAME });
    }
    if !targets.dtype().is_int() {
        return Err(Error::Msg(format!("{NAME}: targets of type {:?}; allowed: integers", targets.dtype())));
    }
    not_empty(NAME, logits)?;
    if let Some([wide]) = widen_half([logits])? {
        return cross_entropy(&wide, targets)?.to_dtype(logits.dtype());
    }
    if !logits.device().is_cpu() {
        return candle_nn::loss::cross_entropy(logits, targets);
    }
    logits.contiguous()?.apply_op2(&targets.to_dtype(DType::I64)?.contiguous()?, CrossEntropy)
}

const NAME: &str = "cross_entropy";

struct CrossEntropy;

impl CustomOp2 for CrossEntropy {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let classes = l1.dims()[1];
        let targets: &[i64] = contents(s2, l2)?;
        if let Some((row, target)) =
            targets.iter().enumerate().find(|(_, target)| !(0..classes as i64).contains(target))
        {
            return Err(Error::Msg(format!("{NAME}: target {target} of row {row}; allowed: 0 to {}", classes - 1)));
        }
        let mean = on_floats!(NAME, s1.dtype(), R => {
            R::to_cpu_storage_owned(vec![dispatch(Mean::<R> { x: contents(s1, l1)?, targets, classes })])
        });
        Ok((mean, Shape::from(())))
    }

    fn bwd(&self, x: &Tensor, targets: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [x_values, targets, grad] = [x, targets, grad].map(locked);
        let (classes, targets) = (x.dim(1)?, targets.values()?);
        let slopes = on_floats!(NAME, x.dtype(), R => {
            let op = Slopes::<R> { x: x_values.values()?, targets, classes, grad: grad.values::<R>()?[0] };
            shaped_as(x, dispatch(op))?
        });
        Ok((Some(slopes), None))
    }
}

/// `x - largest`, or 0 where both are +∞. A row of -∞ alone has no distribution: NaN.
#[inline(always)]
fn below<R: Elementary>(x: R, largest: R) -> R {
    if x == R::lit(f64::INFINITY) { R::lit(0.) } else { x - largest }
}

/// The largest number of a row, or NaN if one is NaN.
#[inline(always)]
fn largest<R: Elementary>(row: &[R]) -> R {
    row.iter().fold(row[0], |most, &x| Real::max(most, x))
}

struct Mean<'a, R> {
    x: &'a [R],
    targets: &'a [i64],
    classes: usize,
}

impl<R: Elementary> Pass for Mean<'_, R> {
    type Output = R;

    #[inline(always)]
    fn run(self) -> R {
        let mut sum = 0.;
        for (row, &target) in self.x.chunks_exact(self.classes).zip(self.targets) {
            let largest = largest(row);
            let all: f64 = row.iter().map(|&x| R::exp_below_zero(below(x, largest)).to_f64()).sum();
            sum += all.ln() - below(row[target as usize], largest).to_f64();
        }
        R::lit(sum / self.targets.len() as f64)
    }
}

/// `(softmax(x) - [target])·grad/rows`
struct Slopes<'a, R> {
    x: &'a [R],
    targets: &'a [i64],
    classes: usize,
    grad: R,
}

impl<R: Elementary> Pass for Slopes<'_, R> {
    type Output = Vec<R>;

    #[inline(always)]
    fn run(self) -> Vec<R> {
        let scale = self.grad.to_f64() / self.targets.len() as f64;
        let mut slopes = self.x.to_vec();
        for (row, &target) in slopes.chunks_exact_mut(self.classes).zip(self.targets) {
            let largest = largest(row);
            let mut all = 0.;
            for x in row.iter_mut() {
                *x = R::exp_below_zero(below(*x, largest));
                all += x.to_f64();
            }
            let scaled = R::lit(scale / all);
            for x in row.iter_mut() {
                *x *= scaled;
            }
            row[target as usize] -= R::lit(scale);
        }
        slopes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn other_shapes_and_unknown_classes_are_errors() -> Result<()> {
        let x = Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?;
        let error = |targets: Tensor| cross_entropy(&x, &targets).unwrap_err().to_string();
        assert!(error(Tensor::new(&[0u32, 3], &Device::Cpu)?).contains("target 3 of row 1; allowed: 0 to 2"));
        assert!(error(Tensor::new(&[0i64, -1], &Device::Cpu)?).contains("target -1 of row 1"));
        assert!(error(Tensor::new(&[0f32, 1.], &Device::Cpu)?).contains("allowed: integers"));
        assert!(error(Tensor::new(&[0u32], &Device::Cpu)?).contains("shape"));
        assert!(cross_entropy(&x.narrow(0, 0, 0)?, &Tensor::zeros(0, DType::U32, &Device::Cpu)?).is_err());
        Ok(())
    }

    #[test]
    fn is_finite_for_large_logits_and_nan_for_nan() -> Result<()> {
        let x = Var::new(&[[1e4f32, -1e4, 0.], [0., 1e4, 1e4]], &Device::Cpu)?;
        let targets = Tensor::new(&[1u8, 1], &Device::Cpu)?;
        let loss = cross_entropy(&x, &targets)?;
        assert_eq!(loss.to_scalar::<f32>()?, (2e4 + std::f32::consts::LN_2) / 2.);
        let grads = loss.backward()?;
        let expected = Tensor::new(&[[0.5f32, -0.5, 0.], [0., -0.25, 0.25]], &Device::Cpu)?;
        let off = (grads.get(&x).unwrap() - expected)?.abs()?.max_all()?;
        assert!(off.to_scalar::<f32>()? < 1e-37);
        let infinite = |row: [f32; 3], target: u8| -> Result<_> {
            let x = Var::new(&[row], &Device::Cpu)?;
            let loss = cross_entropy(&x, &Tensor::new(&[target], &Device::Cpu)?)?;
            Ok((loss.to_scalar::<f32>()?, loss.backward()?.get(&x).unwrap().flatten_all()?.to_vec1::<f32>()?))
        };
        const INF: f32 = f32::INFINITY;
        assert_eq!(infinite([0., INF, -INF], 1)?, (0., vec![0., 0., 0.]));
        assert_eq!(infinite([0., INF, -INF], 0)?, (INF, vec![-1., 1., 0.]));
        assert_eq!(infinite([0., -INF, 0.], 0)?, (std::f32::consts::LN_2, vec![-0.5, 0., 0.5]));
        assert!(infinite([-INF; 3], 0)?.0.is_nan());
        assert!(cross_entropy(&(x.as_tensor() * f64::NAN)?, &targets)?.to_scalar::<f32>()?.is_nan());
        Ok(())
    }
}

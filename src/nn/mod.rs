//! Losses for any model, and helpers for custom operations on the CPU.

pub mod cpu;
mod elementary;
mod loss;

pub use loss::{bce_with_logits, cross_entropy, mse};

#[cfg(test)]
mod tests {
    use candle_core::{Result, Tensor, Var};

    /// Asserts that two results are the same in f64, and so are their gradients with respect to `vars`.
    pub(super) fn assert_same(a: &Tensor, b: &Tensor, vars: &[&Var]) -> Result<()> {
        let close = |a: &Tensor, b: &Tensor| -> Result<bool> {
            Ok(a.shape() == b.shape() && (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()? < 1e-12)
        };
        assert!(close(a, b)?);
        let (of_a, of_b) = (a.backward()?, b.backward()?);
        for var in vars {
            assert!(close(of_a.get(var).unwrap(), of_b.get(var).unwrap())?);
        }
        Ok(())
    }
}

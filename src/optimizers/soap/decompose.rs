//! Eigenvectors and orthonormal bases of square matrices, computed by faer on the host. For a matrix that is not finite
//! the result is NaN.
use candle_core::{DType, Device, Result, Tensor, WithDType};
use faer::traits::RealField;
use faer::{Mat, MatRef, Side};

/// Returns the eigenvectors of a symmetric matrix as columns, by falling eigenvalue.
pub(super) fn eigenvectors(matrix: &Tensor) -> Result<Tensor> {
    on_host(matrix, eigenvectors_of::<f32>, eigenvectors_of::<f64>)
}

/// Returns the Q of the QR decomposition.
pub(super) fn orthonormal(matrix: &Tensor) -> Result<Tensor> {
    on_host(matrix, |x| Some(x.qr().compute_thin_Q()), |x| Some(x.qr().compute_thin_Q()))
}

/// The numbers of a tensor, in f64.
pub(super) fn numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

fn eigenvectors_of<T: RealField>(matrix: MatRef<T>) -> Option<Mat<T>> {
    let rising = matrix.self_adjoint_eigen(Side::Lower).ok()?;
    Some(rising.U().reverse_cols().to_owned())
}

/// Takes a function for each number type, since faer's matrices are generic and Candle's tensors are not.
fn on_host(
    matrix: &Tensor,
    f32: impl Fn(MatRef<f32>) -> Option<Mat<f32>>,
    f64: impl Fn(MatRef<f64>) -> Option<Mat<f64>>,
) -> Result<Tensor> {
    let largest = matrix.abs()?.max_all()?;
    // Scaling does not change eigenvectors. Without it, squares of large or small numbers overflow or underflow.
    let scaled = super::ratio(matrix, &largest)?.to_device(&Device::Cpu)?;
    let result = if matrix.dtype() == DType::F64 { run(&scaled, f64)? } else { run(&scaled, f32)? };
    result.to_device(matrix.device())
}

fn run<T: RealField + WithDType>(matrix: &Tensor, decompose: impl Fn(MatRef<T>) -> Option<Mat<T>>) -> Result<Tensor> {
    let (rows, columns) = matrix.dims2()?;
    let values: Vec<T> = matrix.flatten_all()?.to_vec1()?;
    let matrix = MatRef::from_row_major_slice(&values, rows, columns);
    // faer does not converge on NaN.
    let finite = values.iter().all(|x| x.to_f64().is_finite());
    let result = if finite { decompose(matrix) } else { None };
    let result = result.unwrap_or_else(|| Mat::full(rows, columns, T::from_f64(f64::NAN)));
    let by_rows: Vec<T> = result.row_iter().flat_map(|row| row.iter().copied()).collect();
    Tensor::from_vec(by_rows, (rows, columns), &Device::Cpu)
}

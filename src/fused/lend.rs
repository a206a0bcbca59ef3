//! Several tensors borrowed mutably at once, in safe code.
//!
//! Candle hands out one mutable storage per in-place operation. An operation that lends its storage to a closure can
//! be nested: inside the closure the next tensor is lent, and innermost all of them are at hand.

use std::cell::Cell;

use candle_core::{CpuStorage, Error, InplaceOp1, InplaceOp2, Layout, Result, Tensor};

use super::{Element, State};
use crate::rule::MAX_STATE;

/// A tensor's first element, by which all of its storage can be lent: Candle checks, before it lends a tensor, that no two
/// elements lie in one place, which takes memory where there are several.
pub(super) fn lendable(tensor: &Tensor) -> Result<Tensor> {
    if tensor.layout().contiguous_offsets() != Some((0, tensor.elem_count())) {
        return Err(Error::RequiresContiguous { op: "optimizer-step" });
    }
    match tensor.elem_count() {
        0 => Ok(tensor.detach()),
        _ => (0..tensor.rank()).try_fold(tensor.detach(), |part, _| part.get(0)),
    }
}

/// Calls `f` with the storage of [`lendable`] tensors, of type `R`, all mutable at once.
pub(super) fn slices<R: Element>(tensors: &[Tensor], f: impl FnOnce(State<R>) -> Result<()>) -> Result<()> {
    let mut f = Some(f);
    nest(tensors, 0, [(); MAX_STATE].map(|()| [].as_mut_slice()), &mut |state| match f.take() {
        Some(f) => f(state),
        None => Ok(()),
    })
}

fn nest<R: Element>(
    tensors: &[Tensor],
    depth: usize,
    lent: State<R>,
    f: &mut dyn FnMut(State<R>) -> Result<()>,
) -> Result<()> {
    let Some(tensor) = tensors.get(depth) else { return f(lent) };
    tensor.inplace_op1(&Lend::new(move |storage: &mut CpuStorage, _: &Layout| {
        // Moved here, the slices lent so far live no longer than this one.
        let mut lent: State<R> = lent;
        lent[depth] = values_mut(storage)?;
        nest(tensors, depth + 1, lent, f)
    }))
}

/// Calls `f` with the contents of a [`lendable`] parameter, mutable, and of its gradient, as many, both of type `E`.
pub(super) fn parameter<E: Element>(p: &Tensor, g: &Tensor, f: impl FnOnce(&mut [E], &[E])) -> Result<()> {
    if !g.is_contiguous() {
        return parameter(p, &g.contiguous()?, f);
    }
    let n = g.elem_count();
    let lend = Lend::new(|p: (&mut CpuStorage, &Layout), g: (&CpuStorage, &Layout)| {
        let from = g.1.start_offset();
        f(&mut values_mut(p.0)?[..n], &g.0.as_slice()?[from..from + n]);
        Ok(())
    });
    match p.inplace_op2(g, &lend) {
        // Candle lends nothing where the gradient lies in the memory of the parameter: that of θ²/2 may be θ itself.
        Err(_) if lend.is_unused() => p.inplace_op2(&g.copy()?, &lend),
        done => done,
    }
}

/// An operation that lends what it is given to a closure, once.
struct Lend<F>(Cell<Option<F>>);

impl<F> Lend<F> {
    fn new(f: F) -> Self {
        Self(Cell::new(Some(f)))
    }

    fn is_unused(&self) -> bool {
        let f = self.0.take();
        let unused = f.is_some();
        self.0.set(f);
        unused
    }
}

impl<F: FnOnce(&mut CpuStorage, &Layout) -> Result<()>> InplaceOp1 for Lend<F> {
    fn name(&self) -> &'static str {
        "lend"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        self.0.take().map_or(Ok(()), |f| f(storage, layout))
    }
}

impl<F: FnOnce((&mut CpuStorage, &Layout), (&CpuStorage, &Layout)) -> Result<()>> InplaceOp2 for Lend<F> {
    fn name(&self) -> &'static str {
        "optimizer-step"
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
        self.0.take().map_or(Ok(()), |f| f((s1, l1), (s2, l2)))
    }
}

fn values_mut<E: Element>(storage: &mut CpuStorage) -> Result<&mut [E]> {
    E::slice_mut(storage).ok_or_else(|| Error::Msg(format!("expected storage of type {:?}", E::DTYPE)))
}

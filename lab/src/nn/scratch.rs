//! Scratch memory of an operation, cut from one allocation.

use super::simd::Scalar;

/// Bytes of a cache line: a register that crosses two lines takes twice the time.
const LINE: usize = 64;

/// The most bytes that a thread retains from one operation to the next.
const RETAINED: usize = 1 << 20;

/// A thread's memory, not cleared: clearing takes as long as a layer of a small network.
pub(super) struct Scratch<R: Scalar>(Vec<R>);

impl<R: Scalar> Scratch<R> {
    /// Memory for `pieces` of `n` numbers in all.
    #[inline(always)]
    pub(super) fn new(n: usize, pieces: usize) -> Self {
        let mut memory = R::scratch().try_with(|scratch| scratch.take()).unwrap_or_default();
        let size = n + (pieces + 1) * LINE / size_of::<R>();
        if memory.len() < size {
            memory.resize(size, R::lit(0.));
        }
        Self(memory)
    }

    #[inline(always)]
    pub(super) fn pieces(&mut self) -> Pieces<'_, R> {
        let from = self.0.as_ptr().align_offset(LINE);
        Pieces(&mut self.0[from..])
    }
}

impl<R: Scalar> Drop for Scratch<R> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.0.len() * size_of::<R>() <= RETAINED {
            // Fails only when the thread ends, and its memory with it.
            let _ = R::scratch().try_with(|scratch| scratch.set(std::mem::take(&mut self.0)));
        }
    }
}

/// The memory that is still free.
pub(super) struct Pieces<'m, R>(&'m mut [R]);

impl<'m, R> Pieces<'m, R> {
    /// Memory for `n` numbers, aligned to a cache line.
    #[inline(always)]
    pub(super) fn take(&mut self, n: usize) -> &'m mut [R] {
        let (first, rest) = std::mem::take(&mut self.0).split_at_mut(n.next_multiple_of(LINE / size_of::<R>()));
        self.0 = rest;
        &mut first[..n]
    }
}

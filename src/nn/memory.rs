//! Memory for the numbers that an operation needs on its way, cut from one piece.

use super::simd::Scalar;

/// Bytes of a cache line: a register that lies across two takes twice the time.
const LINE: usize = 64;

/// Bytes that a thread keeps at most from one operation to the next.
const KEPT: usize = 1 << 20;

/// A thread's memory, with whatever numbers its last operation left in it: to clear it takes as long as a layer of a small
/// network.
pub(super) struct Memory<R: Scalar>(Vec<R>);

impl<R: Scalar> Memory<R> {
    /// Memory for `pieces` of `n` numbers in all.
    #[inline(always)]
    pub(super) fn new(n: usize, pieces: usize) -> Self {
        let mut memory = R::memory().try_with(|memory| memory.take()).unwrap_or_default();
        let room = n + (pieces + 1) * LINE / size_of::<R>();
        if memory.len() < room {
            memory.resize(room, R::lit(0.));
        }
        Self(memory)
    }

    #[inline(always)]
    pub(super) fn pieces(&mut self) -> Pieces<'_, R> {
        let from = self.0.as_ptr().align_offset(LINE);
        Pieces(&mut self.0[from..])
    }
}

impl<R: Scalar> Drop for Memory<R> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.0.len() * size_of::<R>() <= KEPT {
            // Fails only where the thread ends, and its memory with it.
            let _ = R::memory().try_with(|memory| memory.set(std::mem::take(&mut self.0)));
        }
    }
}

/// What of the memory has not been taken.
pub(super) struct Pieces<'m, R>(&'m mut [R]);

impl<'m, R> Pieces<'m, R> {
    /// Memory for `n` numbers, from the beginning of a cache line on.
    #[inline(always)]
    pub(super) fn take(&mut self, n: usize) -> &'m mut [R] {
        let (first, rest) = std::mem::take(&mut self.0).split_at_mut(n.next_multiple_of(LINE / size_of::<R>()));
        self.0 = rest;
        &mut first[..n]
    }
}

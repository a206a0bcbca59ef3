//! Sums whose bits depend neither on the number of threads nor on the order of the variables, on the CPU and on a GPU.
//!
//! A block of [`BLOCK`] elements is summed in [`LANES`] lanes, which a tree then folds. The blocks of a tensor are
//! summed in the same way, in f64. The sums of a group's tensors are sorted, then added.

use super::pass::Compute;
use crate::rule::MAX_SUMS;

/// The number of elements of a block. A CUDA block with one thread per lane sums it.
pub(crate) const BLOCK: usize = 4096;
/// The number of partial sums of a block: element `i` adds to lane `i % LANES`.
pub(crate) const LANES: usize = 256;

/// The partial sums of a block.
pub(super) struct Lanes<R>([[R; LANES]; MAX_SUMS]);

impl<R: Compute> Lanes<R> {
    pub(super) fn new() -> Self {
        Self([[R::lit(0.); LANES]; MAX_SUMS])
    }

    #[inline(always)]
    pub(super) fn add(&mut self, term: usize, lane: usize, x: R) {
        self.0[term][lane] = self.0[term][lane] + x;
    }

    /// The sums of all lanes.
    pub(super) fn fold(mut self) -> [f64; MAX_SUMS] {
        let mut half = LANES / 2;
        while half > 0 {
            for lanes in &mut self.0 {
                let (low, high) = lanes.split_at_mut(half);
                for (low, high) in low.iter_mut().zip(high) {
                    *low = *low + *high;
                }
            }
            half /= 2;
        }
        self.0.map(|lanes| lanes[0].to_f64())
    }
}

/// The sums of a tensor from those of its blocks.
pub(super) fn of_blocks(blocks: &[[f64; MAX_SUMS]]) -> [f64; MAX_SUMS] {
    if let [only] = blocks {
        return *only;
    }
    let mut lanes = Lanes::<f64>::new();
    for (block, sums) in blocks.iter().enumerate() {
        for (term, x) in sums.iter().enumerate() {
            lanes.add(term, block % LANES, *x);
        }
    }
    lanes.fold()
}

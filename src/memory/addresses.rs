//! Where variables lie in memory.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use candle_core::{Result, Tensor};

/// The storages of some variables, used to find the gradients that share one of them. A user can pass one variable as
/// the gradient of another, as in the game Σ p·q. A step of the first would then change the gradient of the second.
#[derive(Debug, Default)]
pub(crate) struct Addresses(HashSet<usize, BuildHasherDefault<AddressHasher>>);

impl Addresses {
    pub(crate) fn of<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Self {
        Self(tensors.map(address).collect())
    }

    /// Whether the tensor shares its storage with a variable. The storage of a variable never changes.
    #[inline]
    pub(crate) fn contains(&self, tensor: &Tensor) -> bool {
        self.0.contains(&address(tensor))
    }

    /// The tensor, or a copy of it if it shares its storage with a variable: a step writes there.
    pub(crate) fn own(&self, tensor: Tensor) -> Result<Tensor> {
        if self.contains(&tensor) { tensor.copy() } else { Ok(tensor) }
    }
}

/// Tensors that share a storage have the same address.
fn address(tensor: &Tensor) -> usize {
    std::ptr::from_ref(&*tensor.storage_and_layout().0).addr()
}

/// A fast hash. Every step looks up every gradient, and the standard hash would take a tenth of the time of a step of a
/// small variable.
#[derive(Debug, Default)]
pub(crate) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte)));
    }

    /// Multiplies by a number without a pattern (Knuth, "The Art of Computer Programming", section 6.4). The rotation
    /// moves the high bits, which are mixed best, to the low end, which the table uses.
    fn write_usize(&mut self, x: usize) {
        self.0 = (self.0 ^ x as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

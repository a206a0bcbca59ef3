//! The random streams of NumPy and PyTorch: the same data and the same weights from the seed alone.
//!
//! A comparison of losses with a Python program to the last digits needs its data set, its split and its initial
//! weights. Both libraries draw them from the Mersenne Twister MT19937 seeded by `init_genrand`; they differ in how
//! 32-bit draws become numbers and permutations. [`numpy`] and [`torch`] each follow one of the libraries, as far as
//! this crate needs it.

pub mod numpy;
pub mod torch;

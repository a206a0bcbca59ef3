//! Vectors as wide as the processor has them, for f32 and f64 alike.
//!
//! An [`Op`] is compiled once for each instruction set (AVX-512, AVX2, NEON, plain) and dispatched at run time.

use std::cell::Cell;
use std::thread::LocalKey;

use pulp::{Arch, Simd, WithSimd};

use candle_core::CpuStorage;
use candle_optim::prelude::Real;

/// A number type whose values fill a vector register of the instruction set `S`.
pub(super) trait Lane<S: Simd>: Scalar {
    /// The register.
    type Vector: Copy;
    /// The number of lanes.
    const LANES: usize;
    /// The same number in every lane.
    fn splat(simd: S, x: Self) -> Self::Vector;
    /// The first lanes from a slice; lanes beyond its end are zero.
    fn load(simd: S, from: &[Self]) -> Self::Vector;
    /// The whole registers of a slice.
    fn vectors(of: &[Self]) -> &[Self::Vector];
    /// The whole registers of a slice, mutable.
    fn vectors_mut(of: &mut [Self]) -> &mut [Self::Vector];
    /// Stores as many lanes as the slice is long.
    fn store(simd: S, to: &mut [Self], x: Self::Vector);
    /// The sum, lane by lane.
    fn sum(simd: S, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a·b + c`, rounded once where the processor can.
    fn mul_add(simd: S, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// The larger number, lane by lane; of NaN and a number, either.
    fn larger(simd: S, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a` in lanes where `gate` is above 0 or NaN, else 0.
    fn gated(simd: S, gate: Self::Vector, a: Self::Vector) -> Self::Vector;
    /// The sum of all lanes.
    fn total(simd: S, a: Self::Vector) -> Self;
}

/// A number type that operations are compiled for: f32 and f64.
pub(super) trait Scalar: Real + candle_core::WithDType {
    /// Runs `op` with the widest vectors the processor has.
    fn dispatch<O: Op<Self>>(op: O) -> O::Output;
    /// The storage as a mutable slice; none if it is of another type.
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
    /// The memory that [`Scratch`](super::scratch::Scratch) retains on each thread.
    fn scratch() -> &'static LocalKey<Cell<Vec<Self>>>;
}

/// An operation on slices of `R`. `run` and its callees must be `#[inline(always)]`: only then are they compiled for
/// `S`.
pub(super) trait Op<R: Scalar> {
    /// What it returns.
    type Output;
    /// Runs it.
    fn run<S: Simd>(self, simd: S) -> Self::Output
    where
        R: Lane<S>;
}

macro_rules! lane {
    ($float:ty, $Variant:ident, $vector:ident, $lanes:ident {
        splat: $splat:ident, load: $load:ident, store: $store:ident, vectors: $whole:ident, vectors_mut: $whole_mut:ident,
        add: $add:ident, mul_add: $mul_add:ident, max: $max:ident, at_most: $at_most:ident, select: $select:ident,
        total: $total:ident $(,)?
    }) => {
        impl<S: Simd> Lane<S> for $float {
            type Vector = S::$vector;
            const LANES: usize = S::$lanes;

            #[inline(always)]
            fn splat(simd: S, x: Self) -> Self::Vector {
                simd.$splat(x)
            }

            #[inline(always)]
            fn load(simd: S, from: &[Self]) -> Self::Vector {
                // A whole register is a plain load, without a mask.
                match <Self as Lane<S>>::vectors(from).first() {
                    Some(whole) => *whole,
                    None => simd.$load(from),
                }
            }

            #[inline(always)]
            fn vectors(of: &[Self]) -> &[Self::Vector] {
                S::$whole(of).0
            }

            #[inline(always)]
            fn vectors_mut(of: &mut [Self]) -> &mut [Self::Vector] {
                S::$whole_mut(of).0
            }

            #[inline(always)]
            fn store(simd: S, to: &mut [Self], x: Self::Vector) {
                match <Self as Lane<S>>::vectors_mut(to).first_mut() {
                    Some(whole) => *whole = x,
                    None => simd.$store(to, x),
                }
            }

            #[inline(always)]
            fn sum(simd: S, a: Self::Vector, b: Self::Vector) -> Self::Vector {
                simd.$add(a, b)
            }

            #[inline(always)]
            fn mul_add(simd: S, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
                simd.$mul_add(a, b, c)
            }

            #[inline(always)]
            fn larger(simd: S, a: Self::Vector, b: Self::Vector) -> Self::Vector {
                simd.$max(a, b)
            }

            #[inline(always)]
            fn gated(simd: S, gate: Self::Vector, a: Self::Vector) -> Self::Vector {
                let zero = simd.$splat(0.);
                simd.$select(simd.$at_most(gate, zero), zero, a)
            }

            #[inline(always)]
            fn total(simd: S, a: Self::Vector) -> Self {
                simd.$total(a)
            }
        }

        impl Scalar for $float {
            fn dispatch<O: Op<Self>>(op: O) -> O::Output {
                struct Dispatch<O>(O);
                impl<O: Op<$float>> WithSimd for Dispatch<O> {
                    type Output = O::Output;
                    #[inline(always)]
                    fn with_simd<S: Simd>(self, simd: S) -> O::Output {
                        self.0.run(simd)
                    }
                }
                Arch::new().dispatch(Dispatch(op))
            }

            fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
                if let CpuStorage::$Variant(values) = storage { Some(values) } else { None }
            }

            fn scratch() -> &'static LocalKey<Cell<Vec<Self>>> {
                thread_local! {
                    static SCRATCH: Cell<Vec<$float>> = const { Cell::new(vec![]) };
                }
                &SCRATCH
            }
        }
    };
}
lane!(
    f32,
    F32,
    f32s,
    F32_LANES {
        splat: splat_f32s,
        load: partial_load_f32s,
        store: partial_store_f32s,
        vectors: as_simd_f32s,
        vectors_mut: as_mut_simd_f32s,
        add: add_f32s,
        mul_add: mul_add_e_f32s,
        max: max_f32s,
        at_most: less_than_or_equal_f32s,
        select: select_f32s,
        total: reduce_sum_f32s,
    }
);
lane!(
    f64,
    F64,
    f64s,
    F64_LANES {
        splat: splat_f64s,
        load: partial_load_f64s,
        store: partial_store_f64s,
        vectors: as_simd_f64s,
        vectors_mut: as_mut_simd_f64s,
        add: add_f64s,
        mul_add: mul_add_e_f64s,
        max: max_f64s,
        at_most: less_than_or_equal_f64s,
        select: select_f64s,
        total: reduce_sum_f64s,
    }
);

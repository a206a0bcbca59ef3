//! A step allocates a few hundred bytes, whatever the number of parameters and of their elements.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use candle_core::DType;
use candle_optim::Spec;
use common::{all_specs, chain, elementwise, gradients, has_kernel, optim, tensor, var};

struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator, with a count.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        BYTES.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` is from `alloc`, and so from the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations and bytes of one step of `elements` in all, on several threads where that pays.
fn count(spec: &Spec, elements: usize, tensors: usize, dtype: DType) -> (usize, usize) {
    let values = vec![0.5; elements / tensors];
    let vars: Vec<_> = (0..tensors).map(|_| var(&values, dtype)).collect();
    let along = gradients(vars.iter().map(|p| (p, tensor(&values, dtype))));
    let mut optim = optim(spec, &vars);
    for _ in 0..2 {
        optim.step(&along).unwrap();
    }
    let before = (CALLS.load(Relaxed), BYTES.load(Relaxed));
    optim.step(&along).unwrap();
    (CALLS.load(Relaxed) - before.0, BYTES.load(Relaxed) - before.1)
}

// One test alone: another beside it would be counted too.
#[test]
fn a_step_allocates_nothing_for_an_element() {
    const SIZES: [(usize, usize); 7] =
        [(10, 1), (1000, 1), (300_000, 1), (100, 100), (100_000, 100), (700_000, 10), (4000, 400)];
    for spec in all_specs().iter().filter(|spec| has_kernel(spec)) {
        for dtype in [DType::F32, DType::F64, DType::BF16] {
            let counts = SIZES.map(|(elements, tensors)| count(spec, elements, tensors, dtype));
            for ((elements, tensors), (calls, bytes)) in SIZES.into_iter().zip(counts) {
                // Measured without sums: 4 to 7 allocations of up to 1008 bytes, whatever the sizes; 2 of the queue by which work comes
                // to other threads, and one for each tensor that is cut into pieces, which are at most 16 for each thread.
                let pieces = if elements / tensors > 65_536 { tensors } else { 0 };
                let (mut most_calls, mut most_bytes) = (10 + pieces, 4096 + 4096 * pieces);
                // With sums: 16 and 10.8 kB at most, of which a number for each tensor; and 1/64 byte for an element, the sum of
                // its block.
                if !elementwise(spec) {
                    (most_calls, most_bytes) = (20 + 6 * pieces, 6144 + 32 * tensors + 8192 * pieces + elements / 50);
                }
                // Each algorithm of a chain makes a pass.
                let (most_calls, most_bytes) = (most_calls * chain(spec).len(), most_bytes * chain(spec).len());
                let found = format!("{elements} elements in {tensors}: {calls} allocations, {bytes} bytes");
                assert!(calls <= most_calls && bytes <= most_bytes, "{} {dtype:?}, {found}", spec.text());
            }
            assert_eq!(counts[0], counts[1], "{} {dtype:?}: more for more elements", spec.text());
        }
    }
}

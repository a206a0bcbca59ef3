//! A step allocates nothing, whatever the number of parameters and of their elements.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use candle_core::DType;
use common::{gradients, our_specs, tensor, var};

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
fn step(elements: usize, tensors: usize, dtype: DType) -> Vec<(String, usize, usize)> {
    our_specs()
        .into_iter()
        .map(|spec| {
            let values = vec![0.5; elements / tensors];
            let vars: Vec<_> = (0..tensors).map(|_| var(&values, dtype)).collect();
            let along = gradients(vars.iter().map(|p| (p, tensor(&values, dtype))));
            let mut optimizer = spec.build(vars).unwrap();
            optimizer.step(&along).unwrap();
            let before = (CALLS.load(Relaxed), BYTES.load(Relaxed));
            optimizer.step(&along).unwrap();
            let (calls, bytes) = (CALLS.load(Relaxed) - before.0, BYTES.load(Relaxed) - before.1);
            (spec.to_string(), calls, bytes)
        })
        .collect()
}

// One test alone: another beside it would be counted too.
#[test]
fn a_step_allocates_nothing() {
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        for (elements, tensors, threads) in
            [(1000, 1, false), (1_000_000, 1, true), (100_000, 100, true), (400, 400, true)]
        {
            for (spec, calls, bytes) in step(elements, tensors, dtype) {
                // The queue by which work comes to other threads grows a block at a time.
                let (most_calls, most_bytes) = if threads { (2, 4096) } else { (0, 0) };
                let found = format!("{elements} elements in {tensors}: {calls} allocations, {bytes} bytes");
                assert!(calls <= most_calls && bytes <= most_bytes, "{spec} {dtype:?}, {found}");
            }
        }
    }
}

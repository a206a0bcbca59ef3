// The sum of a number of each thread, in the order of the CPU.
template <typename T> __device__ __forceinline__ T fold(T x, T* lanes) {
    lanes[threadIdx.x] = x;
    __syncthreads();
    for (u32 half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) lanes[threadIdx.x] = lanes[threadIdx.x] + lanes[threadIdx.x + half];
        __syncthreads();
    }
    const T sum = lanes[0];
    __syncthreads();
    return sum;
}

typedef void Measure(Real p, Real g, const Real (&state)[NAMES], const Real* scalars, const Real* sums, Real* terms);

// Sums the terms of `MEASURE` over the elements of this block.
template <Measure MEASURE, u32 TERMS>
__device__ __forceinline__ void measure_block(const Launch& launch, u32 mine, const Real* sums, Real* lanes) {
    const Tensor tensor = launch.tensor[mine];
    const Param* const p = (const Param*)tensor.p;
    const Param* const g = (const Param*)tensor.g;
    STATE(POINTER)
    const u64 from = (u64)(blockIdx.x - first_block(launch, mine)) * BLOCK;
    const u64 to = from + BLOCK < tensor.len ? from + BLOCK : tensor.len;
    Real all[TERMS];
    for (u32 term = 0; term < TERMS; ++term) all[term] = 0;
    for (u64 k = from + threadIdx.x; k < to; k += THREADS) {
        Real state[NAMES], terms[TERMS];
        STATE(WIDEN)
        MEASURE(widen(p[k]), widen(g[k]), state, launch.scalars, sums, terms);
        for (u32 term = 0; term < TERMS; ++term) all[term] = all[term] + terms[term];
    }
    double* const to_sums = (double*)launch.blocks_sums + (u64)blockIdx.x * TERMS;
    for (u32 term = 0; term < TERMS; ++term) {
        const Real sum = fold(all[term], lanes);
        if (threadIdx.x == 0) to_sums[term] = (double)sum;
    }
}

// A sum of a tensor, from those of its blocks.
__device__ __forceinline__ double sum_of_blocks(const Launch& launch, u32 mine, u32 terms, u32 term, double* lanes) {
    const double* const blocks = (const double*)launch.blocks_sums;
    double x = 0;
    for (u32 block = first_block(launch, mine) + threadIdx.x; block < launch.blocks[mine]; block += THREADS)
        x = x + blocks[(u64)block * terms + term];
    return fold(x, lanes);
}

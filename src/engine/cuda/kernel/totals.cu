// The sums of each tensor, a block a tensor.
extern "C" __global__ void __launch_bounds__(THREADS) optimizer_tensors(const __grid_constant__ Launch launch) {
    __shared__ double lanes[THREADS];
    for (u32 term = 0; term < TOTALS; ++term) {
        const double sum = sum_of_blocks(launch, blockIdx.x, TOTALS, term, lanes);
        if (threadIdx.x == 0) ((double*)launch.tensors_sums)[(u64)blockIdx.x * TOTALS + term] = sum;
    }
}

// Where a number stands among all, as Rust's `total_cmp` orders them.
__device__ __forceinline__ long long order(double x) {
    const long long bits = __double_as_longlong(x);
    return bits ^ (long long)((u64)(bits >> 63) >> 1);
}

// The sums of the group, in the order of the tensors' sums, which does not depend on the order of the tensors.
extern "C" __global__ void __launch_bounds__(THREADS) optimizer_totals(
    const double* tensors_sums, double* sorted, u32 tensors, double* totals
) {
    __shared__ double lanes[THREADS];
    for (u32 term = 0; term < TOTALS; ++term) {
        for (u32 i = threadIdx.x; i < tensors; i += THREADS) {
            const double x = tensors_sums[(u64)i * TOTALS + term];
            u32 rank = 0;
            for (u32 k = 0; k < tensors; ++k) {
                const double y = tensors_sums[(u64)k * TOTALS + term];
                rank += order(y) < order(x) || (order(y) == order(x) && k < i);
            }
            sorted[rank] = x;
        }
        __syncthreads();
        double sum = -0.0;
        for (u32 from = 0; from < tensors; from += THREADS) {
            if (from + threadIdx.x < tensors) lanes[threadIdx.x] = sorted[from + threadIdx.x];
            __syncthreads();
            for (u32 i = 0; i < THREADS && from + i < tensors; ++i) sum = sum + lanes[i];
            __syncthreads();
        }
        if (threadIdx.x == 0) totals[term] = sum;
    }
}

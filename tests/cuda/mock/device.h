// What a kernel of straight-line arithmetic needs of CUDA, on the host: included before it where the mock compiles it.
#include <cmath>
#include <cstddef>
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(n)

struct dim3 { unsigned x, y, z; };
static dim3 blockIdx, threadIdx, blockDim, gridDim;

static inline float __uint_as_float(unsigned bits) { float x; std::memcpy(&x, &bits, 4); return x; }
static inline unsigned __float_as_uint(float x) { unsigned bits; std::memcpy(&bits, &x, 4); return bits; }

// Runs a kernel thread by thread, its arguments by pointer as the driver takes them.
template <typename... Args, std::size_t... I>
void mock_run(void (*kernel)(Args...), void** args, dim3 grid, dim3 block, std::index_sequence<I...>) {
    gridDim = grid;
    blockDim = block;
    for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < block.x; ++threadIdx.x)
            kernel(*static_cast<std::remove_reference_t<Args>*>(args[I])...);
}
template <typename... Args> void mock_run(void (*kernel)(Args...), void** args, dim3 grid, dim3 block) {
    mock_run(kernel, args, grid, block, std::index_sequence_for<Args...>{});
}

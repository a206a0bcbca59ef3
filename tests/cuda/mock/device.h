// What our kernels need of CUDA, on the host: the mock puts it before what it compiles.
// No headers: NVRTC has none either, and they would take most of the time.

typedef __SIZE_TYPE__ size_t;

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
// One block runs at a time. A section of its own, to be unset before each; "used", for the compiler sees nobody write that.
#define __shared__ static __attribute__((section("mock_shared"), used))
// By a number for each place: all threads of a block must wait at the same one.
#define __syncthreads() mock_barrier(__COUNTER__)

struct dim3 { unsigned x, y, z; };
static dim3 blockIdx = {0, 0, 0}, threadIdx = {0, 0, 0}, blockDim = {1, 1, 1}, gridDim = {1, 1, 1};

// As CUDA aligns them: a kernel that loads one from elsewhere ends with an error, as on a GPU.
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline double2 make_double2(double x, double y) { return {x, y}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

static inline float __uint_as_float(unsigned bits) { float x; __builtin_memcpy(&x, &bits, 4); return x; }
static inline unsigned __float_as_uint(float x) { unsigned bits; __builtin_memcpy(&bits, &x, 4); return bits; }
static inline long long __double_as_longlong(double x) { long long bits; __builtin_memcpy(&bits, &x, 8); return bits; }
static inline double __longlong_as_double(long long bits) { double x; __builtin_memcpy(&x, &bits, 8); return x; }
extern "C" float sqrtf(float);
extern "C" double sqrt(double);
extern "C" float fabsf(float);
extern "C" double fabs(double);
static inline float sqrt(float x) { return sqrtf(x); }
static inline float fabs(float x) { return fabsf(x); }

// What the driver does for threads that share memory and wait for each other: cuda.cpp has the same.
struct mock_driver {
    void (*block)(void (*threads)(void*), void* of);
    unsigned (*next)();
    void (*barrier)(unsigned place);
};
static const mock_driver* mock_threads;
static inline void mock_barrier(unsigned place) {
    const unsigned thread = threadIdx.x;
    mock_threads->barrier(place);
    threadIdx.x = thread;
}

// Runs a kernel thread by thread, its arguments by pointer as the driver takes them.
template <size_t... I> struct mock_indices {};
template <typename... Args, size_t... I>
void mock_run(void (*kernel)(Args...), void** args, unsigned grid, unsigned block, mock_indices<I...>) {
    gridDim.x = grid;
    blockDim.x = block;
    for (blockIdx.x = 0; blockIdx.x < grid; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < block; ++threadIdx.x) kernel(*(Args*)args[I]...);
}
template <typename... Args> void mock_run(void (*kernel)(Args...), void** args, unsigned grid, unsigned block) {
    mock_run(kernel, args, grid, block, mock_indices<__integer_pack(sizeof...(Args))...>{});
}

// The same where threads share memory. The driver calls for threads on one stack after the other: whenever one waits at a
// barrier, those that have not begun go on upon the next.
extern "C" __attribute__((weak, visibility("hidden"))) unsigned char __start_mock_shared[], __stop_mock_shared[];
template <typename... Args, size_t... I>
void mock_run_blocks(
    void (*kernel)(Args...), void** args, unsigned grid, unsigned block, const mock_driver* driver, mock_indices<I...>
) {
    gridDim.x = grid;
    blockDim.x = block;
    mock_threads = driver;
    auto threads = [&] {
        while ((threadIdx.x = driver->next()) < block) kernel(*(Args*)args[I]...);
    };
    for (blockIdx.x = 0; blockIdx.x < grid; ++blockIdx.x) {
        __builtin_memset(__start_mock_shared, 0xff, __stop_mock_shared - __start_mock_shared);
        driver->block([](void* of) { (*(decltype(threads)*)of)(); }, &threads);
    }
}
template <typename... Args>
void mock_run_blocks(void (*kernel)(Args...), void** args, unsigned grid, unsigned block, const mock_driver* driver) {
    mock_run_blocks(kernel, args, grid, block, driver, mock_indices<__integer_pack(sizeof...(Args))...>{});
}

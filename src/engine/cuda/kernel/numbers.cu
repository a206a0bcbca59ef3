typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;
struct f16 { u16 bits; };
struct bf16 { u16 bits; };

__device__ __forceinline__ float root(float x) { return sqrtf(x); }
__device__ __forceinline__ double root(double x) { return sqrt(x); }

// Of a number of at least 0, by Newton's method, with the operations of the CPU.
__device__ __forceinline__ float cube_root(float x) {
    float y = __uint_as_float(__float_as_uint(x) / 3 + 0x2a5119f2u);
    for (int i = 0; i < 3; ++i) y = y + (x / (y * y) - y) * (1.0f / 3.0f);
    return x > 0 ? y : x;
}
__device__ __forceinline__ double cube_root(double x) {
    double y = __longlong_as_double((long long)((u64)__double_as_longlong(x) / 3 + 0x2a9f789300000000ull));
    for (int i = 0; i < 4; ++i) y = y + (x / (y * y) - y) * (1.0 / 3.0);
    return x > 0 ? y : x;
}

__device__ __forceinline__ float magnitude(float x) { return fabsf(x); }
__device__ __forceinline__ double magnitude(double x) { return fabs(x); }

// The larger and the smaller of two numbers, NaN if either is.
template <typename T> __device__ __forceinline__ T larger(T x, T y) { return x > y || x != x ? x : y; }
template <typename T> __device__ __forceinline__ T smaller(T x, T y) { return x < y || x != x ? x : y; }
// -1 or 1; a zero and NaN stay what they are.
template <typename T> __device__ __forceinline__ T sign(T x) { return x > 0 ? T(1) : x < 0 ? T(-1) : x; }
template <typename T> __device__ __forceinline__ T if_positive(T x, T yes, T no) { return x > 0 ? yes : no; }

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
__device__ __forceinline__ float widen(f16 x) {
    // The exponent's bias differs by 112; a product corrects it for subnormal numbers too.
    u32 bits = __float_as_uint(__uint_as_float((x.bits & 0x7fffu) << 13) * __uint_as_float((127u + 112u) << 23));
    if ((x.bits & 0x7c00u) == 0x7c00u) bits |= 0x7f800000u;
    return __uint_as_float(bits | (x.bits & 0x8000u) << 16);
}

// The upper half of a number's bits, after `add` to the lower half has carried or not. NaN stays NaN.
__device__ __forceinline__ bf16 upper_half(float x, u32 add) {
    return bf16{(u16)(x != x ? 0x7fc0u : (__float_as_uint(x) + add) >> 16)};
}

// Rounded to the nearest, ties to even.
__device__ __forceinline__ void narrow(float x, float& to) { to = x; }
__device__ __forceinline__ void narrow(double x, double& to) { to = x; }
__device__ __forceinline__ void narrow(float x, bf16& to) {
    to = upper_half(x, 0x7fffu + ((__float_as_uint(x) >> 16) & 1u));
}
__device__ __forceinline__ void narrow(float x, f16& to) {
    const u32 bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u;
    u32 size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) size = 0x7e00u | (size >> 13 & 0x3ffu);
    else if (size >= 0x477ff000u) size = 0x7c00u;
    // Below the smallest normal number, a sum whose last place is the smallest subnormal does the rounding.
    else if (size < 0x38800000u) size = __float_as_uint(__uint_as_float(size) + 0.5f) - __float_as_uint(0.5f);
    else size = (size + 0xfffu + (size >> 13 & 1u) - (112u << 23)) >> 13;
    to = f16{(u16)(sign | size)};
}

// A hash of 32 bits in which every bit depends on every other.
__device__ __forceinline__ u32 mix(u32 x) {
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

// Stochastic rounding, as on the CPU: up or down at random, by step, name and element alone.
__device__ __forceinline__ u32 noise(u32 step, u32 name, u64 element) {
    return mix((u32)element ^ mix(step ^ name * 0x9e3779b9u ^ (u32)(element >> 32)));
}
__device__ __forceinline__ void narrow_at_random(float x, float& to, u32, u32, u64) { to = x; }
__device__ __forceinline__ void narrow_at_random(double x, double& to, u32, u32, u64) { to = x; }
__device__ __forceinline__ void narrow_at_random(float x, bf16& to, u32 step, u32 name, u64 element) {
    to = upper_half(x, noise(step, name, element) & 0xffffu);
}
__device__ __forceinline__ void narrow_at_random(float x, f16& to, u32 step, u32 name, u64 element) {
    const u32 bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u, random = noise(step, name, element);
    u32 size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) size = 0x7e00u;
    else if (size >= 0x477ff000u) size = 0x7c00u;
    // Below the smallest normal number the neighbors are multiples of 2^-24.
    else if (size < 0x38800000u) size = (u32)(__uint_as_float(size) * 16777216.0f + (float)(random & 0xffffu) / 65536.0f);
    else {
        size = (size + (random & 0x1fffu) - (112u << 23)) >> 13;
        if (size > 0x7bffu) size = 0x7bffu;
    }
    to = f16{(u16)(sign | size)};
}

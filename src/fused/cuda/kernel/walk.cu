// Elements a thread takes at a time, in one load where they lie right for it.
constexpr u32 GROUP = 4;

template <typename T> struct alignas(GROUP * sizeof(T) < 16 ? GROUP * sizeof(T) : 16) Group { T of[GROUP]; };

// A parameter: where it and its gradient lie, where its state begins, how many elements it has.
struct Tensor { u64 p, g, first, len; };

struct Launch {
    Real scalars[MAX_SCALARS];
    u64 state[MAX_STATE];
    u32 step_salt;
    u32 tensors;
    Tensor tensor[TENSORS];
    // The number of blocks up to and with each tensor.
    u32 blocks[TENSORS];
};

__device__ __forceinline__ void element(
    Param& p, Param g, State (&kept)[NAMES], u64 at, const Launch& launch
) {
    Real wide_p = widen(p), state[NAMES];
    for (u32 s = 0; s < STATE; ++s) state[s] = widen(kept[s]);
    update(wide_p, widen(g), state, launch.scalars);
    narrow(wide_p, p);
    for (u32 s = 0; s < STATE; ++s) keep(state[s], kept[s], launch.step_salt, s, at);
}

extern "C" __global__ void __launch_bounds__(THREADS) optimizer_step(const __grid_constant__ Launch launch) {
    // The first tensor that ends after this block.
    u32 mine = 0, last = launch.tensors - 1;
    while (mine < last) {
        const u32 middle = (mine + last) / 2;
        if (blockIdx.x < launch.blocks[middle]) last = middle;
        else mine = middle + 1;
    }
    const Tensor tensor = launch.tensor[mine];
    Param* p = (Param*)tensor.p;
    const Param* g = (const Param*)tensor.g;
    State* kept[NAMES];
    for (u32 s = 0; s < STATE; ++s) kept[s] = (State*)launch.state[s] + tensor.first;
    const bool aligned = (tensor.p | tensor.g) % alignof(Group<Param>) == 0;

    const u64 from = (u64)(blockIdx.x - (mine ? launch.blocks[mine - 1] : 0)) * BLOCK;
    const u64 to = from + BLOCK < tensor.len ? from + BLOCK : tensor.len;
    for (u64 i = from + threadIdx.x * GROUP; i < to; i += THREADS * GROUP) {
        if (aligned && i + GROUP <= to) {
            Group<Param> ps = *(Group<Param>*)(p + i);
            const Group<Param> gs = *(const Group<Param>*)(g + i);
            Group<State> groups[NAMES];
            for (u32 s = 0; s < STATE; ++s) groups[s] = *(Group<State>*)(kept[s] + i);
            for (u32 k = 0; k < GROUP; ++k) {
                State one[NAMES];
                for (u32 s = 0; s < STATE; ++s) one[s] = groups[s].of[k];
                element(ps.of[k], gs.of[k], one, i + k, launch);
                for (u32 s = 0; s < STATE; ++s) groups[s].of[k] = one[s];
            }
            *(Group<Param>*)(p + i) = ps;
            for (u32 s = 0; s < STATE; ++s) *(Group<State>*)(kept[s] + i) = groups[s];
        } else {
            for (u64 k = i; k < to && k < i + GROUP; ++k) {
                State one[NAMES];
                for (u32 s = 0; s < STATE; ++s) one[s] = kept[s][k];
                element(p[k], g[k], one, k, launch);
                for (u32 s = 0; s < STATE; ++s) kept[s][k] = one[s];
            }
        }
    }
}

// Elements that a thread takes at a time, in one load where they lie right for it.
constexpr u32 GROUP = 4;
template <typename T> struct alignas(GROUP * sizeof(T) < 16 ? GROUP * sizeof(T) : 16) Group { T of[GROUP]; };

// A variable: where it and its gradient lie, where its state begins, and how many elements it has.
struct Tensor { u64 p, g, first, len; };

struct Launch {
    Real scalars[MAX_SCALARS];
    u64 state[MAX_STATE];
    // The sums of each block, of each tensor, and of the group.
    u64 blocks_sums, tensors_sums, totals;
    // Whether variables of 16 bits are rounded stochastically.
    u64 stochastic;
    u32 step_salt;
    u32 tensors;
    Tensor tensor[TENSORS];
    // The number of blocks up to and with each tensor.
    u32 blocks[TENSORS];
};

// The tensor of this block: the first that ends after it.
__device__ __forceinline__ u32 tensor_of_block(const Launch& launch) {
    u32 mine = 0, last = launch.tensors - 1;
    while (mine < last) {
        const u32 middle = (mine + last) / 2;
        if (blockIdx.x < launch.blocks[middle]) last = middle;
        else mine = middle + 1;
    }
    return mine;
}

__device__ __forceinline__ u32 first_block(const Launch& launch, u32 mine) { return mine ? launch.blocks[mine - 1] : 0; }

#define POINTER(s, T) T* const state##s = (T*)launch.state[s] + tensor.first;
#define LOAD_GROUP(s, T) Group<T> group##s = *(Group<T>*)(state##s + i);
#define STORE_GROUP(s, T) *(Group<T>*)(state##s + i) = group##s;
#define WIDEN_GROUP(s, T) state[s] = widen(group##s.of[k]);
#define NARROW_GROUP(s, T) narrow_at_random(state[s], group##s.of[k], launch.step_salt, s, i + k);
#define WIDEN(s, T) state[s] = widen(state##s[k]);
#define NARROW(s, T) narrow_at_random(state[s], state##s[k], launch.step_salt, s, k);

// The noise of the variable itself has this name. State tensors have their positions.
constexpr u32 VARIABLE = 0xffffffffu;

__device__ __forceinline__ void store(Real x, Param& to, const Launch& launch, u64 element) {
    if (launch.stochastic) narrow_at_random(x, to, launch.step_salt, VARIABLE, element);
    else narrow(x, to);
}

typedef void Update(Real& p, Real g, Real (&state)[NAMES], const Real* scalars, const Real* sums);

// Sets the elements of this block, and their state, with `UPDATE`.
template <Update UPDATE, bool SETS_P> __device__ __forceinline__ void walk(const Launch& launch, u32 mine, const Real* sums) {
    const Tensor tensor = launch.tensor[mine];
    Param* const p = (Param*)tensor.p;
    const Param* const g = (const Param*)tensor.g;
    STATE(POINTER)
    const bool aligned = (tensor.p | tensor.g) % alignof(Group<Param>) == 0;

    const u64 from = (u64)(blockIdx.x - first_block(launch, mine)) * BLOCK;
    const u64 to = from + BLOCK < tensor.len ? from + BLOCK : tensor.len;
    for (u64 i = from + threadIdx.x * GROUP; i < to; i += THREADS * GROUP) {
        if (aligned && i + GROUP <= to) {
            Group<Param> ps = *(Group<Param>*)(p + i);
            const Group<Param> gs = *(const Group<Param>*)(g + i);
            STATE(LOAD_GROUP)
            for (u32 k = 0; k < GROUP; ++k) {
                Real wide = widen(ps.of[k]), state[NAMES];
                STATE(WIDEN_GROUP)
                UPDATE(wide, widen(gs.of[k]), state, launch.scalars, sums);
                if (SETS_P) store(wide, ps.of[k], launch, i + k);
                STATE(NARROW_GROUP)
            }
            if (SETS_P) *(Group<Param>*)(p + i) = ps;
            STATE(STORE_GROUP)
        } else {
            for (u64 k = i; k < to && k < i + GROUP; ++k) {
                Real wide = widen(p[k]), state[NAMES];
                STATE(WIDEN)
                UPDATE(wide, widen(g[k]), state, launch.scalars, sums);
                if (SETS_P) store(wide, p[k], launch, k);
                STATE(NARROW)
            }
        }
    }
}

// The CUDA driver on a machine without one: device memory is memory of the host, a kernel runs there thread by thread, and
// every call is done when it returns.
//
//   MOCK_DEVICES  number of GPUs (1)
//   MOCK_MEMORY   bytes of memory (no limit)
//   MOCK_COUNTS   a file that gets, at exit, how many kernels were launched and how often the host waited or copied back
//
// An allocation ends at a page that cannot be touched, and what lies between its last byte and that page is checked after
// every launch. A kernel that leaves its memory fails as on a GPU, but that there a later call may be the one to tell.
// What a GPU would leave unset is NaN. Threads that share memory run in no order that one would expect, and all must come to
// a barrier, else the launch fails.

// Of longjmp it would forbid what we do with it: to go from stack to stack.
#undef _FORTIFY_SOURCE

#include <dlfcn.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

using Pointer = unsigned long long;
enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_DEVICE = 101,
    INVALID_PTX = 218,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    MISALIGNED_ADDRESS = 716,
    LAUNCH_FAILED = 719,
};

namespace {

unsigned long number(const char* name, unsigned long otherwise) {
    const char* text = std::getenv(name);
    return text ? std::strtoul(text, nullptr, 10) : otherwise;
}

void* handle() {
    static int any;
    return &any;
}

// Where CUDA's allocations begin: at a multiple of this.
constexpr size_t ALIGNMENT = 256, PAGE = 4096;
constexpr unsigned char UNSET = 0xff;

class Memory {
    struct Block {
        size_t size, padding;
        unsigned char* mapping;
        size_t pages;
    };
    std::mutex lock;
    std::map<Pointer, Block> blocks;
    size_t used = 0;

public:
    unsigned long launches = 0, synchronizations = 0;

    int allocate(Pointer* at, size_t size) {
        std::lock_guard guard(lock);
        if (size == 0) return INVALID_VALUE;
        const size_t limit = total();
        if (size > limit || used > limit - size) return OUT_OF_MEMORY;
        const size_t padding = -size % ALIGNMENT, pages = (size + padding + PAGE - 1) / PAGE * PAGE;
        void* mapping = mmap(nullptr, pages + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (mapping == MAP_FAILED) return OUT_OF_MEMORY;
        mprotect(mapping, pages, PROT_READ | PROT_WRITE);
        std::memset(mapping, UNSET, pages);
        auto* first = static_cast<unsigned char*>(mapping);
        *at = reinterpret_cast<Pointer>(first + pages - size - padding);
        blocks[*at] = {size, padding, first, pages};
        used += size;
        return SUCCESS;
    }

    int release(Pointer at) {
        std::lock_guard guard(lock);
        const auto block = blocks.find(at);
        if (block == blocks.end()) return INVALID_VALUE;
        munmap(block->second.mapping, block->second.pages + PAGE);
        used -= block->second.size;
        blocks.erase(block);
        return SUCCESS;
    }

    // Whether all of these bytes lie in one allocation.
    bool holds(Pointer at, size_t size) {
        std::lock_guard guard(lock);
        auto block = blocks.upper_bound(at);
        if (block == blocks.begin()) return false;
        --block;
        const size_t offset = at - block->first;
        return offset <= block->second.size && size <= block->second.size - offset;
    }

    // Whether nothing has been written beside an allocation, in the pages that it lies in.
    bool intact() {
        std::lock_guard guard(lock);
        const auto unset = [](const unsigned char* from, const unsigned char* to) {
            while (from < to && *from == UNSET) ++from;
            return from == to;
        };
        for (const auto& [at, block] : blocks) {
            const auto* begin = reinterpret_cast<unsigned char*>(at);
            const auto* end = begin + block.size;
            if (!unset(block.mapping, begin) || !unset(end, end + block.padding)) return false;
        }
        return true;
    }

    size_t total() { return number("MOCK_MEMORY", 1ul << 40); }
    size_t free() {
        std::lock_guard guard(lock);
        return total() - used;
    }

    ~Memory() {
        if (const char* file = std::getenv("MOCK_COUNTS")) std::ofstream(file) << launches << " " << synchronizations << "\n";
    }
} memory;

int copy(void* to, const void* from, size_t size) {
    std::memcpy(to, from, size);
    return SUCCESS;
}

// One kernel at a time; a signal while it runs is an error of its own.
std::mutex running;
thread_local sigjmp_buf* in_kernel = nullptr;

// The threads of blocks with barriers. A stack carries threads one after the other, until one waits: it keeps the stack, and
// the others go on upon the next one. So threads that never wait cost no more than a call each.
//
// Their order is shuffled, and turned around at each barrier and in each block: what relies on an order must come to grief.
class Threads {
    static constexpr size_t STACK = 64 * PAGE;
    struct Stack {
        unsigned char* memory = nullptr;
        bool begun = false, waits = false;
        jmp_buf at;
    };
    // They stay for the next launch.
    std::deque<Stack> stacks;
    Stack* current = nullptr;
    jmp_buf scheduler;
    std::vector<unsigned> order;
    size_t started = 0, waiting = 0;
    bool backwards = false;
    unsigned barrier = 0;
    void (*threads)(void*) = nullptr;
    void* of = nullptr;

    [[noreturn]] static void fail() { siglongjmp(*in_kernel, LAUNCH_FAILED); }

    // Back to the scheduler, until that comes back. ucontext only begins a stack: its switches are system calls.
    void leave(bool waits) {
        current->waits = waits;
        if (_setjmp(current->at) == 0) _longjmp(scheduler, 1);
    }

    static void begin();

    // Whether a thread on it waits; else there is none left to start.
    bool resume(size_t index) {
        if (index == stacks.size()) {
            void* memory = mmap(nullptr, PAGE + STACK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (memory == MAP_FAILED) fail();
            stacks.emplace_back().memory = static_cast<unsigned char*>(memory) + PAGE;
            mprotect(stacks.back().memory, STACK, PROT_READ | PROT_WRITE);
        }
        current = &stacks[index];
        if (_setjmp(scheduler) == 0) {
            if (current->begun) _longjmp(current->at, 1);
            current->begun = true;
            ucontext_t context;
            getcontext(&context);
            context.uc_stack.ss_sp = current->memory;
            context.uc_stack.ss_size = STACK;
            context.uc_link = nullptr;
            makecontext(&context, begin, 0);
            setcontext(&context);
        }
        return current->waits;
    }

public:
    // A launch that failed has left stacks in the middle of something.
    void launch(unsigned block) {
        for (Stack& stack : stacks) stack.begun = stack.begun && !stack.waits && &stack != current;
        current = nullptr;
        backwards = false;
        if (order.size() == block) return;
        order.resize(block);
        unsigned random = 1;
        for (unsigned i = 0; i < block; ++i) {
            random = random * 1664525 + 1013904223;
            order[i] = i;
            std::swap(order[i], order[(random >> 16) % (i + 1)]);
        }
    }

    void block(void (*run)(void*), void* argument) {
        threads = run;
        of = argument;
        started = waiting = 0;
        while (resume(waiting)) {}
        for (bool turned = true; waiting != 0; turned = !turned) {
            // Some wait for others that are gone.
            if (waiting != order.size()) fail();
            waiting = 0;
            for (size_t i = 0; i < order.size(); ++i) resume(turned ? order.size() - 1 - i : i);
        }
        current = nullptr;
        backwards = !backwards;
    }

    unsigned next() {
        if (started == order.size()) return order.size();
        const size_t i = started++;
        return order[backwards ? order.size() - 1 - i : i];
    }

    void wait(unsigned place) {
        if (waiting++ == 0) barrier = place;
        if (barrier != place) fail();
        leave(true);
    }
} block_threads;

void Threads::begin() {
    for (;;) {
        block_threads.threads(block_threads.of);
        block_threads.leave(false);
    }
}

// As device.h has it.
struct Driver {
    void (*block)(void (*threads)(void*), void* of);
    unsigned (*next)();
    void (*barrier)(unsigned place);
};
const Driver driver = {
    [](void (*threads)(void*), void* of) { block_threads.block(threads, of); },
    [] { return block_threads.next(); },
    [](unsigned place) { block_threads.wait(place); },
};
using Kernel = void (*)(void** args, unsigned grid, unsigned block, const Driver*);

struct sigaction previous[NSIG];

void fault(int signal, siginfo_t*, void*) {
    if (in_kernel) siglongjmp(*in_kernel, signal);
    // Not ours: what was there before gets it when the instruction is tried again.
    sigaction(signal, &previous[signal], nullptr);
}

int run(Kernel kernel, void** args, unsigned grid, unsigned block) {
    static const bool installed = [] {
        struct sigaction action = {};
        action.sa_sigaction = fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        for (int signal : {SIGSEGV, SIGBUS, SIGILL}) sigaction(signal, &action, &previous[signal]);
        return true;
    }();
    (void)installed;
    block_threads.launch(block);
    sigjmp_buf here;
    const int signal = sigsetjmp(here, 1);
    if (signal == 0) {
        in_kernel = &here;
        kernel(args, grid, block, &driver);
    }
    in_kernel = nullptr;
    if (signal == LAUNCH_FAILED) return LAUNCH_FAILED;
    // The trap of -fsanitize=alignment.
    if (signal == SIGILL) return MISALIGNED_ADDRESS;
    return signal == 0 && memory.intact() ? SUCCESS : ILLEGAL_ADDRESS;
}

const char* text_of(int error, bool name) {
    switch (error) {
        case SUCCESS: return name ? "CUDA_SUCCESS" : "no error";
        case INVALID_VALUE: return name ? "CUDA_ERROR_INVALID_VALUE" : "invalid argument";
        case OUT_OF_MEMORY: return name ? "CUDA_ERROR_OUT_OF_MEMORY" : "out of memory";
        case INVALID_DEVICE: return name ? "CUDA_ERROR_INVALID_DEVICE" : "invalid device ordinal";
        case INVALID_PTX: return name ? "CUDA_ERROR_INVALID_PTX" : "a PTX JIT compilation failed";
        case NOT_FOUND: return name ? "CUDA_ERROR_NOT_FOUND" : "named symbol not found";
        case ILLEGAL_ADDRESS: return name ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "an illegal memory access was encountered";
        case MISALIGNED_ADDRESS: return name ? "CUDA_ERROR_MISALIGNED_ADDRESS" : "misaligned address";
        case LAUNCH_FAILED: return name ? "CUDA_ERROR_LAUNCH_FAILED" : "unspecified launch failure";
        default: return name ? "CUDA_ERROR_NOT_SUPPORTED" : "the mock does not do this";
    }
}

}  // namespace

extern "C" {

unsigned long mock_launches() { return memory.launches; }
unsigned long mock_synchronizations() { return memory.synchronizations; }

int cuInit(unsigned) { return SUCCESS; }
int cuGetErrorName(int error, const char** name) { *name = text_of(error, true); return SUCCESS; }
int cuGetErrorString(int error, const char** text) { *text = text_of(error, false); return SUCCESS; }
int cuDriverGetVersion(int* version) { *version = 13000; return SUCCESS; }

int cuDeviceGetCount(int* count) { *count = number("MOCK_DEVICES", 1); return SUCCESS; }
int cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return ordinal >= 0 && unsigned(ordinal) < number("MOCK_DEVICES", 1) ? SUCCESS : INVALID_DEVICE;
}
int cuDeviceGetName(char* name, int size, int) { std::snprintf(name, size, "mock"); return SUCCESS; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = memory.total(); return SUCCESS; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
    // Compute capability 9.0; memory pools, so that allocations take the path that they take on GPUs.
    *value = attribute == 75 ? 9 : attribute == 115 ? 1 : 0;
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void** context, int) { *context = handle(); return SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
int cuCtxGetCurrent(void** context) { *context = handle(); return SUCCESS; }
int cuCtxSetCurrent(void*) { return SUCCESS; }
int cuCtxSynchronize() { ++memory.synchronizations; return SUCCESS; }

int cuStreamCreate(void** stream, unsigned) { *stream = handle(); return SUCCESS; }
int cuStreamDestroy_v2(void*) { return SUCCESS; }
int cuStreamSynchronize(void*) { ++memory.synchronizations; return SUCCESS; }
int cuStreamWaitEvent(void*, void*, unsigned) { return SUCCESS; }
int cuStreamIsCapturing(void*, int* status) { *status = 0; return SUCCESS; }
int cuEventCreate(void** event, unsigned) { *event = handle(); return SUCCESS; }
int cuEventDestroy_v2(void*) { return SUCCESS; }
int cuEventRecord(void*, void*) { return SUCCESS; }
int cuEventQuery(void*) { return SUCCESS; }
int cuEventSynchronize(void*) { ++memory.synchronizations; return SUCCESS; }
int cuEventElapsedTime(float* ms, void*, void*) { *ms = 0; return SUCCESS; }
int cuEventElapsedTime_v2(float* ms, void*, void*) { *ms = 0; return SUCCESS; }

int cuMemGetInfo_v2(size_t* free, size_t* total) {
    *free = memory.free();
    *total = memory.total();
    return SUCCESS;
}
int cuMemAlloc_v2(Pointer* at, size_t size) { return memory.allocate(at, size); }
int cuMemAllocAsync(Pointer* at, size_t size, void*) { return memory.allocate(at, size); }
int cuMemFree_v2(Pointer at) { return memory.release(at); }
int cuMemFreeAsync(Pointer at, void*) { return memory.release(at); }

int cuMemsetD8_v2(Pointer at, unsigned char value, size_t size) {
    if (!memory.holds(at, size)) return INVALID_VALUE;
    std::memset(reinterpret_cast<void*>(at), value, size);
    return SUCCESS;
}
int cuMemsetD8Async(Pointer at, unsigned char value, size_t size, void*) { return cuMemsetD8_v2(at, value, size); }
int cuMemcpyHtoD_v2(Pointer to, const void* from, size_t size) {
    return memory.holds(to, size) ? copy(reinterpret_cast<void*>(to), from, size) : INVALID_VALUE;
}
int cuMemcpyHtoDAsync_v2(Pointer to, const void* from, size_t size, void*) { return cuMemcpyHtoD_v2(to, from, size); }
int cuMemcpyDtoH_v2(void* to, Pointer from, size_t size) {
    ++memory.synchronizations;
    return memory.holds(from, size) ? copy(to, reinterpret_cast<void*>(from), size) : INVALID_VALUE;
}
int cuMemcpyDtoHAsync_v2(void* to, Pointer from, size_t size, void*) { return cuMemcpyDtoH_v2(to, from, size); }
int cuMemcpyDtoD_v2(Pointer to, Pointer from, size_t size) {
    return memory.holds(from, size) ? cuMemcpyHtoD_v2(to, reinterpret_cast<void*>(from), size) : INVALID_VALUE;
}
int cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t size, void*) { return cuMemcpyDtoD_v2(to, from, size); }

// The "PTX" is a library in hexadecimal digits: see nvrtc.cpp.
int cuModuleLoadData(void** module, const void* image) {
    std::istringstream text(static_cast<const char*>(image));
    std::string slashes, mock, digits;
    if (!(text >> slashes >> mock >> digits) || slashes != "//" || mock != "mock") return INVALID_PTX;
    if (digits.find_first_not_of("0123456789abcdef") != std::string::npos) return INVALID_PTX;
    std::string library;
    for (size_t i = 0; i + 1 < digits.size(); i += 2) library += char(std::stoi(digits.substr(i, 2), nullptr, 16));
    char path[] = "/tmp/mock-XXXXXX";
    const int file = mkstemp(path);
    if (file < 0) return INVALID_PTX;
    const bool written = write(file, library.data(), library.size()) == ssize_t(library.size());
    close(file);
    *module = written ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
    unlink(path);
    return *module ? SUCCESS : INVALID_PTX;
}
int cuModuleLoadDataEx(void** module, const void* image, unsigned, int*, void**) { return cuModuleLoadData(module, image); }
int cuModuleUnload(void* module) { return dlclose(module) ? INVALID_VALUE : SUCCESS; }
int cuModuleGetFunction(void** function, void* module, const char* name) {
    *function = dlsym(module, (std::string("mock_") + name).c_str());
    return *function ? SUCCESS : NOT_FOUND;
}
int cuLaunchKernel(
    void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned, void*, void** args, void**
) {
    // What the mock's kernels cannot see is not launched; a block has at most 1024 threads.
    if (gx == 0 || bx == 0 || bx > 1024 || gy != 1 || gz != 1 || by != 1 || bz != 1) return INVALID_VALUE;
    std::lock_guard guard(running);
    ++memory.launches;
    return run(reinterpret_cast<Kernel>(function), args, gx, bx);
}

}  // extern "C"

// The CUDA driver, NVRTC, and what cuBLAS and cuRAND need to open, on a machine without any of them: device memory is
// memory of the host, kernels are compiled by g++ and run thread by thread. What Candle's own kernels would do is missing.
//
//   MOCK_DEVICES  number of GPUs (1)
//   MOCK_MEMORY   bytes of each (no limit)
//   MOCK_COUNTS   a file that gets, at exit, how many kernels were launched and how often the host waited or copied back
//
// Every allocation has a margin on either side, which is checked when it is freed and at exit: a kernel that writes past
// its end ends the program.

#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <regex>
#include <sstream>
#include <string>

using Pointer = unsigned long long;
enum Result { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_IMAGE = 200, NOT_FOUND = 500 };
struct Grid { unsigned x, y, z; };
using Run = void (*)(void**, Grid, Grid);

namespace {

constexpr size_t MARGIN = 256;
constexpr unsigned char FILL = 0xa5;

long number(const char* name, long otherwise) {
    const char* text = std::getenv(name);
    return text ? std::atol(text) : otherwise;
}

struct Memory {
    std::mutex lock;
    std::map<Pointer, size_t> blocks;
    size_t used = 0;
    unsigned long launches = 0, waits = 0;

    static void check(Pointer at, size_t size) {
        auto* begin = reinterpret_cast<unsigned char*>(at);
        for (size_t i = 0; i < MARGIN; ++i)
            if (begin[-1 - long(i)] != FILL || begin[size + i] != FILL) {
                std::fprintf(stderr, "mock: written outside an allocation of %zu bytes\n", size);
                std::abort();
            }
    }

    int allocate(Pointer* at, size_t size) {
        std::lock_guard guard(lock);
        const long limit = number("MOCK_MEMORY", -1);
        if (size == 0) return INVALID_VALUE;
        if (limit >= 0 && used + size > size_t(limit)) return OUT_OF_MEMORY;
        auto* raw = static_cast<unsigned char*>(std::aligned_alloc(MARGIN, (size + 3 * MARGIN - 1) / MARGIN * MARGIN));
        std::memset(raw, FILL, size + 2 * MARGIN);
        *at = reinterpret_cast<Pointer>(raw + MARGIN);
        blocks[*at] = size;
        used += size;
        return SUCCESS;
    }

    int release(Pointer at) {
        std::lock_guard guard(lock);
        const auto block = blocks.find(at);
        if (block == blocks.end()) return INVALID_VALUE;
        check(block->first, block->second);
        used -= block->second;
        std::free(reinterpret_cast<unsigned char*>(at) - MARGIN);
        blocks.erase(block);
        return SUCCESS;
    }

    // Whether all of these bytes lie in one allocation.
    bool holds(Pointer at, size_t size) {
        std::lock_guard guard(lock);
        auto block = blocks.upper_bound(at);
        if (block == blocks.begin()) return false;
        --block;
        return at + size <= block->first + block->second;
    }

    ~Memory() {
        for (const auto& [at, size] : blocks) check(at, size);
        if (const char* file = std::getenv("MOCK_COUNTS")) std::ofstream(file) << launches << " " << waits << "\n";
    }
} memory;

int copy(void* to, const void* from, size_t size, Pointer device) {
    if (!memory.holds(device, size)) return INVALID_VALUE;
    std::memcpy(to, from, size);
    return SUCCESS;
}

struct Program { std::string source, ptx, log; };

// Compiles CUDA C for the host; the "PTX" is the name of the library.
int compile(Program& program) {
    Dl_info self;
    dladdr(reinterpret_cast<void*>(&number), &self);
    const std::string own = self.dli_fname, folder = own.substr(0, own.rfind('/'));
    char stem[] = "/tmp/mock-kernel-XXXXXX";
    const int file = mkstemp(stem);
    if (file < 0) return 1;
    close(file);
    std::ostringstream text;
    text << "#include \"" << folder << "/device.h\"\n" << program.source;
    const std::regex kernel("extern \"C\" __global__ void (?:__launch_bounds__\\(\\w+\\) )?(\\w+)\\(");
    for (std::sregex_iterator it(program.source.begin(), program.source.end(), kernel), end; it != end; ++it)
        text << "\nextern \"C\" void mock_" << (*it)[1] << "(void** a, dim3 g, dim3 b) { mock_run(" << (*it)[1] << ", a, g, b); }\n";
    const std::string base = stem;
    std::ofstream(base + ".cpp") << text.str();
    const std::string command = "g++ -std=c++17 -O1 -ffp-contract=off -w -shared -fPIC -Wl,-Bsymbolic -o " + base + ".so " + base + ".cpp 2> " + base + ".log";
    const int failed = std::system(command.c_str());
    std::ostringstream log;
    log << std::ifstream(base + ".log").rdbuf();
    program.log = log.str();
    program.ptx = "// mock " + base + ".so\n";
    for (const char* end : {"", ".cpp", ".log"}) std::remove((base + end).c_str());
    return failed ? 6 : 0;
}

}  // namespace

extern "C" {

int cuInit(unsigned) { return SUCCESS; }
int cuDeviceGetCount(int* count) { *count = number("MOCK_DEVICES", 1); return SUCCESS; }
int cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return ordinal < number("MOCK_DEVICES", 1) ? SUCCESS : INVALID_DEVICE;
}
int cuDeviceGetName(char* name, int size, int) { std::snprintf(name, size, "mock"); return SUCCESS; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
    // Compute capability 9.0; no memory pools.
    *value = attribute == 75 ? 9 : 0;
    return SUCCESS;
}
int cuDevicePrimaryCtxRetain(void** context, int) { static int one; *context = &one; return SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
int cuCtxGetCurrent(void** context) { return cuDevicePrimaryCtxRetain(context, 0); }
int cuCtxSetCurrent(void*) { return SUCCESS; }
int cuCtxSynchronize() { ++memory.waits; return SUCCESS; }
int cuGetErrorName(int error, const char** name) {
    *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : error == INVALID_DEVICE ? "CUDA_ERROR_INVALID_DEVICE" : "CUDA_ERROR";
    return SUCCESS;
}
int cuGetErrorString(int error, const char** text) {
    *text = error == OUT_OF_MEMORY ? "out of memory" : error == INVALID_DEVICE ? "invalid device ordinal" : "error of the mock";
    return SUCCESS;
}

int cuStreamCreate(void** stream, unsigned) { static int one; *stream = &one; return SUCCESS; }
int cuStreamDestroy_v2(void*) { return SUCCESS; }
int cuStreamSynchronize(void*) { ++memory.waits; return SUCCESS; }
int cuStreamWaitEvent(void*, void*, unsigned) { return SUCCESS; }
int cuStreamIsCapturing(void*, int* status) { *status = 0; return SUCCESS; }
int cuEventCreate(void** event, unsigned) { static int one; *event = &one; return SUCCESS; }
int cuEventDestroy_v2(void*) { return SUCCESS; }
int cuEventRecord(void*, void*) { return SUCCESS; }
int cuEventSynchronize(void*) { ++memory.waits; return SUCCESS; }

int cuMemGetInfo_v2(size_t* free, size_t* total) {
    *total = number("MOCK_MEMORY", 1l << 40);
    *free = *total - memory.used;
    return SUCCESS;
}
int cuMemAlloc_v2(Pointer* at, size_t size) { return memory.allocate(at, size); }
int cuMemAllocAsync(Pointer* at, size_t size, void*) { return memory.allocate(at, size); }
int cuMemFree_v2(Pointer at) { return memory.release(at); }
int cuMemFreeAsync(Pointer at, void*) { return memory.release(at); }
int cuMemsetD8Async(Pointer at, unsigned char value, size_t size, void*) {
    if (!memory.holds(at, size)) return INVALID_VALUE;
    std::memset(reinterpret_cast<void*>(at), value, size);
    return SUCCESS;
}
int cuMemsetD8_v2(Pointer at, unsigned char value, size_t size) { return cuMemsetD8Async(at, value, size, nullptr); }
int cuMemcpyHtoDAsync_v2(Pointer to, const void* from, size_t size, void*) {
    return copy(reinterpret_cast<void*>(to), from, size, to);
}
int cuMemcpyHtoD_v2(Pointer to, const void* from, size_t size) { return cuMemcpyHtoDAsync_v2(to, from, size, nullptr); }
int cuMemcpyDtoHAsync_v2(void* to, Pointer from, size_t size, void*) {
    ++memory.waits;
    return copy(to, reinterpret_cast<void*>(from), size, from);
}
int cuMemcpyDtoH_v2(void* to, Pointer from, size_t size) { return cuMemcpyDtoHAsync_v2(to, from, size, nullptr); }
int cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t size, void*) {
    if (!memory.holds(to, size)) return INVALID_VALUE;
    return copy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), size, from);
}
int cuMemcpyDtoD_v2(Pointer to, Pointer from, size_t size) { return cuMemcpyDtoDAsync_v2(to, from, size, nullptr); }

int cuModuleLoadData(void** module, const void* image) {
    std::istringstream text(static_cast<const char*>(image));
    std::string slashes, word, library;
    if (!(text >> slashes >> word >> library) || word != "mock") return INVALID_IMAGE;
    *module = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
    return *module ? SUCCESS : INVALID_IMAGE;
}
int cuModuleUnload(void*) { return SUCCESS; }
int cuModuleGetFunction(void** function, void* module, const char* name) {
    *function = dlsym(module, (std::string("mock_") + name).c_str());
    return *function ? SUCCESS : NOT_FOUND;
}
int cuLaunchKernel(
    void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned, void*, void** args, void**
) {
    if (gx == 0 || bx == 0 || gy * gz * by * bz != 1) return INVALID_VALUE;
    static std::mutex one_at_a_time;
    std::lock_guard guard(one_at_a_time);
    ++memory.launches;
    reinterpret_cast<Run>(function)(args, {gx, 1, 1}, {bx, 1, 1});
    return SUCCESS;
}

int nvrtcVersion(int* major, int* minor) { *major = 13; *minor = 0; return 0; }
int nvrtcCreateProgram(Program** program, const char* source, const char*, int, const char* const*, const char* const*) {
    *program = new Program{source, "", ""};
    return 0;
}
int nvrtcDestroyProgram(Program** program) { delete *program; *program = nullptr; return 0; }
int nvrtcCompileProgram(Program* program, int, const char* const*) { return compile(*program); }
int nvrtcGetPTXSize(Program* program, size_t* size) { *size = program->ptx.size() + 1; return 0; }
int nvrtcGetPTX(Program* program, char* ptx) { std::strcpy(ptx, program->ptx.c_str()); return 0; }
int nvrtcGetProgramLogSize(Program* program, size_t* size) { *size = program->log.size() + 1; return 0; }
int nvrtcGetProgramLog(Program* program, char* log) { std::strcpy(log, program->log.c_str()); return 0; }

int cublasCreate_v2(void** handle) { static int one; *handle = &one; return 0; }
int cublasDestroy_v2(void*) { return 0; }
int cublasSetStream_v2(void*, void*) { return 0; }
int curandCreateGenerator(void** generator, int) { static int one; *generator = &one; return 0; }
int curandDestroyGenerator(void*) { return 0; }
int curandSetStream(void*, void*) { return 0; }
int curandSetPseudoRandomGeneratorSeed(void*, unsigned long long) { return 0; }
int curandSetGeneratorOffset(void*, unsigned long long) { return 0; }

}  // extern "C"

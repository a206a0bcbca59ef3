// Whether the mock runs kernels whose threads share memory and wait for each other, and tells those that are wrong.

#include <dlfcn.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

int failures = 0;
void check(bool good, const std::string& what) {
    std::printf("%s  %s\n", good ? "ok    " : "FAILED", what.c_str());
    failures += !good;
}

void* driver;
void* compiler;
template <typename... Args> int call(void* library, const char* name, Args... args) {
    auto* function = reinterpret_cast<int (*)(Args...)>(dlsym(library, name));
    if (!function) std::exit((std::fprintf(stderr, "no %s\n", name), 2));
    return function(args...);
}

// Every kernel takes n numbers in and one or more for each block out.
constexpr unsigned BLOCK = 256, N = 40 * BLOCK + 77, GRID = (N + BLOCK - 1) / BLOCK;
constexpr char HEAD[] = "(const float* in, double* out, unsigned n) {\n"
                        "    const unsigned t = threadIdx.x, i = blockIdx.x * 256 + t;\n";
std::string kernel(const char* name, const std::string& body) {
    return std::string("extern \"C\" __global__ void __launch_bounds__(256) ") + name + HEAD + body + "}\n";
}

const std::string SYNC = "__syncthreads();\n";
std::string tree(const std::string& before, const std::string& between) {
    return "__shared__ double sums[256];\n sums[t] = i < n ? double(in[i]) : 0.0;\n" + before +
        "for (unsigned s = 128; s > 0; s /= 2) { if (t < s) sums[t] += sums[t + s];\n" + between +
        "}\n if (t == 0) out[blockIdx.x] = sums[0];\n";
}

// Every thread reads what one of them wrote, then the next one writes.
std::string passed(const std::string& after) {
    return "__shared__ double one;\n double sum = 0;\n for (unsigned k = 0; k < 256; ++k) { if (t == k) one = in[i];\n" + SYNC +
        "sum += one;\n" + after + "}\n if (t == 0) out[blockIdx.x] = sum;\n";
}

void* load(const std::string& source) {
    void *program, *module;
    const char* options[] = {"--fmad=false"};
    size_t size;
    call(compiler, "nvrtcCreateProgram", &program, source.c_str(), "kernel.cu", 0, (void*)nullptr, (void*)nullptr);
    const int error = call(compiler, "nvrtcCompileProgram", program, 1, options);
    call(compiler, "nvrtcGetProgramLogSize", program, &size);
    std::vector<char> text(size);
    call(compiler, "nvrtcGetProgramLog", program, text.data());
    if (error) std::exit((std::fprintf(stderr, "%s\n%s", source.c_str(), text.data()), 2));
    call(compiler, "nvrtcGetPTXSize", program, &size);
    text.resize(size);
    call(compiler, "nvrtcGetPTX", program, text.data());
    call(compiler, "nvrtcDestroyProgram", &program);
    if (call(driver, "cuModuleLoadData", &module, (const void*)text.data()) == 0) return module;
    std::exit((std::fprintf(stderr, "no module\n"), 2));
}

using Pointer = unsigned long long;
int launch(void* module, const char* name, Pointer in, Pointer out, unsigned n, unsigned grid, unsigned block) {
    void* function;
    if (call(driver, "cuModuleGetFunction", &function, module, name)) return -1;
    void* args[] = {&in, &out, &n};
    void* none = nullptr;
    return call(driver, "cuLaunchKernel", function, grid, 1u, 1u, block, 1u, 1u, 0u, none, static_cast<void**>(args), none);
}

// In the order of the tree.
double sum(const double* values) {
    std::vector<double> sums(values, values + BLOCK);
    for (unsigned s = BLOCK / 2; s > 0; s /= 2)
        for (unsigned t = 0; t < s; ++t) sums[t] += sums[t + s];
    return sums[0];
}

}  // namespace

int main(int count, char** args) {
    if (count != 2) return std::fprintf(stderr, "usage: %s DIR\n", args[0]), 2;
    driver = dlopen((args[1] + std::string("/libcuda.so.1")).c_str(), RTLD_NOW | RTLD_LOCAL);
    compiler = dlopen((args[1] + std::string("/libnvrtc.so.13")).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!driver || !compiler) return std::fprintf(stderr, "%s\n", dlerror()), 2;

    void* module = load(
        kernel("tree", tree(SYNC, SYNC)) +
        kernel("finish", "__shared__ double sums[256];\n sums[t] = t < n ? out[t] : 0.0;\n" + SYNC +
            "for (unsigned s = 128; s > 0; s /= 2) { if (t < s) sums[t] += sums[t + s];\n" + SYNC +
            "}\n if (t == 0) out[0] = sums[0];\n") +
        kernel("unfilled", tree("", SYNC)) + kernel("untied", tree(SYNC, "")) +
        kernel("read", passed(SYNC)) + kernel("unread", passed("")) +
        kernel("unset", "__shared__ double one[2];\n if (t == 0) out[blockIdx.x] = one[1];\n" + SYNC + "one[t % 2] = 1.0;\n") +
        kernel("returned", "if (t == n) return;\n" + SYNC + "out[blockIdx.x] = 1.0;\n") +
        kernel("apart", "if (t < n) { " + SYNC + "out[0] = 1.0; } else { " + SYNC + "out[1] = 1.0; }\n") +
        kernel("some", "if (blockIdx.x % 2 == 0) return;\n" + SYNC + "out[blockIdx.x] = t;\n" + SYNC +
            "if (t == n) out[blockIdx.x] = threadIdx.x + 4.0;\n") +
        kernel("outside", SYNC + "if (t == 200) out[blockIdx.x + n] = 1.0;\n" + SYNC + "out[blockIdx.x] = 1.0;\n") +
        kernel("odd", SYNC + "if (t == 200) *(double*)((char*)out + n) = 1.0;\n" + SYNC) +
        kernel("roots", "if (t == 0) out[blockIdx.x] = fabs(-sqrt(fabs(double(in[i])))) + fabsf(-sqrtf(fabsf(in[i])));\n")
    );
    void* plain = load(kernel("plain", "if (i < n) out[i] = in[i] * 2.0;\n"));

    std::vector<float> values(N);
    unsigned random = 1;
    for (float& value : values) value = float((random = random * 1664525 + 1013904223) >> 8) * 1e-7f - 0.5f;
    std::vector<double> padded(GRID * BLOCK), expected(GRID), found(N);
    for (unsigned i = 0; i < N; ++i) padded[i] = values[i];
    for (unsigned i = 0; i < GRID; ++i) expected[i] = sum(&padded[i * BLOCK]);

    Pointer in, out;
    call(driver, "cuMemAlloc_v2", &in, sizeof(float) * N);
    call(driver, "cuMemAlloc_v2", &out, sizeof(double) * N);
    call(driver, "cuMemcpyHtoD_v2", in, (const void*)values.data(), sizeof(float) * N);
    const auto run = [&](void* from, const char* name, unsigned n, unsigned grid = GRID, unsigned block = BLOCK) {
        const int error = launch(from, name, in, out, n, grid, block);
        call(driver, "cuMemcpyDtoH_v2", (void*)found.data(), out, sizeof(double) * N);
        return error;
    };
    const auto same = [&] { return std::memcmp(found.data(), expected.data(), sizeof(double) * GRID) == 0; };

    const auto sums = [&](const std::string& when) {
        check(run(module, "tree", N) == 0 && same(), "a tree sums to the bit" + when);
    };
    sums("");
    std::vector<double> all(expected);
    all.resize(BLOCK);
    const double total = sum(all.data());
    const int error = run(module, "finish", GRID, 1);
    check(error == 0 && std::memcmp(&found[0], &total, sizeof total) == 0, "another kernel sums those sums");

    const char* missing[] = {"unfilled", "untied"};
    for (const char* name : missing) {
        const std::string what = std::string("a tree without a barrier, ") + name;
        const int error = run(module, name, N, 1);
        check(error == 0 && std::memcmp(&found[0], &expected[0], sizeof total) != 0, what + ": one block is wrong");
        bool wrong = run(module, name, N) == 0;
        for (unsigned i = 0; i < GRID; ++i) wrong = wrong && std::memcmp(&found[i], &expected[i], sizeof total) != 0;
        check(wrong, what + ": every block is wrong");
    }
    double first = 0;
    for (unsigned i = 0; i < BLOCK; ++i) first += values[i];
    check(run(module, "read", N, 1) == 0 && found[0] == first, "all read what one wrote");
    check(run(module, "unread", N, 1) == 0 && found[0] != first, "what is written before all have read it is wrong");
    bool unset = run(module, "unset", N) == 0;
    for (unsigned i = 0; i < GRID; ++i) unset = unset && std::isnan(found[i]);
    check(unset, "shared memory is unset when a block begins");

    check(run(module, "returned", 100) == 719, "a thread that returns before a barrier");
    sums(" after that");
    check(run(module, "returned", BLOCK) == 0, "all come to the barrier");
    check(run(module, "apart", 100) == 719, "threads at two barriers");
    check(run(module, "apart", BLOCK) == 0, "all at the one");
    sums(" after that");
    check(run(module, "some", 3) == 0 && found[1] == 7 && found[3] == 7, "a block that returns as a whole");
    // Some way off, where no page can be touched.
    check(run(module, "outside", N + 100) == 700, "a write out of bounds between barriers");
    sums(" after that");
    check(run(module, "outside", 0) == 0, "the same in bounds");
    check(run(module, "odd", 4) == 716, "a misaligned write between barriers");
    sums(" after that");
    check(run(module, "returned", 1000, 3, 1024) == 719 && run(module, "returned", 1024, 3, 1024) == 0, "1024 threads");
    check(run(module, "returned", 1, 3, 1) == 0, "one thread");
    const double roots = std::sqrt(std::fabs(double(values[0]))) + std::sqrt(std::fabs(values[0]));
    check(run(module, "roots", N) == 0 && found[0] == roots, "roots and absolute values, of double too");

    bool doubled = run(plain, "plain", N) == 0;
    for (unsigned i = 0; i < N; ++i) doubled = doubled && found[i] == values[i] * 2.0;
    check(doubled, "a kernel without barriers");
    // The last, for the mock goes on to find it.
    check(run(module, "outside", N) == 700, "a write just out of bounds between barriers");
    return failures != 0;
}

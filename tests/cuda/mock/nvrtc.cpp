// NVRTC on a machine without it: g++ compiles CUDA C for the host. The "PTX" is a comment with the library in it.

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <regex>
#include <string>

// The text of device.h, which build.sh passes on.
extern const char device_h[];

namespace {

struct Program { std::string source, ptx, log; };
enum Result { SUCCESS = 0, COMPILATION = 6 };

std::string content(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

// No contraction, as by --fmad=false; a misaligned load traps, for the driver to tell.
constexpr char COMPILER[] =
    "g++ -std=c++17 -O1 -ffp-contract=off -fno-strict-aliasing -fsanitize=alignment -fsanitize-undefined-trap-on-error "
    "-w -shared -fPIC -Wl,-Bsymbolic ";

int compile(Program& program) {
    // Each kernel under a name and a type that the driver can call. Where no thread shares anything, they run in a plain loop.
    const auto has = [&](const char* word) { return program.source.find(word) != std::string::npos; };
    const bool blocks = has("__shared__") || has("__syncthreads");
    const std::string run = blocks ? "mock_run_blocks(" : "mock_run(", driver = blocks ? ", d" : "";
    std::string text = device_h + ("\n#line 1 \"kernel.cu\"\n" + program.source) + "\n";
    const std::regex kernel("extern\\s+\"C\"\\s+__global__\\s+void\\s+(?:__launch_bounds__\\s*\\([^)]*\\)\\s+)?(\\w+)\\s*\\(");
    for (std::sregex_iterator it(program.source.begin(), program.source.end(), kernel), end; it != end; ++it) {
        const std::string name = (*it)[1];
        text += "extern \"C\" void mock_" + name + "(void** a, unsigned g, unsigned b, const mock_driver* d) { ";
        text += run + name + ", a, g, b" + driver + "); }\n";
    }

    char folder[] = "/tmp/mock-XXXXXX";
    if (!mkdtemp(folder)) return COMPILATION;
    const std::string base = std::string(folder) + "/kernel";
    std::ofstream(base + ".cpp") << text;
    const std::string command = COMPILER + ("-o " + base + ".so " + base + ".cpp 2> " + base + ".log");
    const bool failed = std::system(command.c_str()) != 0;
    program.log = content(base + ".log");
    program.ptx = "// mock ";
    for (unsigned char byte : content(base + ".so")) {
        program.ptx += "0123456789abcdef"[byte >> 4];
        program.ptx += "0123456789abcdef"[byte & 15];
    }
    program.ptx += "\n";
    for (const char* end : {".cpp", ".log", ".so"}) std::remove((base + end).c_str());
    rmdir(folder);
    return failed ? COMPILATION : SUCCESS;
}

}  // namespace

extern "C" {

int nvrtcVersion(int* major, int* minor) { *major = 13; *minor = 0; return SUCCESS; }
const char* nvrtcGetErrorString(int error) { return error == SUCCESS ? "NVRTC_SUCCESS" : "NVRTC_ERROR_COMPILATION"; }
int nvrtcCreateProgram(Program** program, const char* source, const char*, int, const char* const*, const char* const*) {
    *program = new Program{source, "", ""};
    return SUCCESS;
}
int nvrtcDestroyProgram(Program** program) { delete *program; *program = nullptr; return SUCCESS; }
int nvrtcCompileProgram(Program* program, int count, const char* const* options) {
    for (int i = 0; i < count; ++i)
        if (std::strcmp(options[i], "--fmad=false") == 0) return compile(*program);
    program->log = "mock: without --fmad=false a GPU rounds otherwise than this\n";
    return COMPILATION;
}
int nvrtcGetPTXSize(Program* program, size_t* size) { *size = program->ptx.size() + 1; return SUCCESS; }
int nvrtcGetPTX(Program* program, char* ptx) { std::strcpy(ptx, program->ptx.c_str()); return SUCCESS; }
int nvrtcGetProgramLogSize(Program* program, size_t* size) { *size = program->log.size() + 1; return SUCCESS; }
int nvrtcGetProgramLog(Program* program, char* log) { std::strcpy(log, program->log.c_str()); return SUCCESS; }

}  // extern "C"

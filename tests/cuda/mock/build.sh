#!/usr/bin/env bash
# Builds the mock into a folder: the libraries that Candle's CUDA build links and loads, by the names that CUDA 13 gives
# them, so that what is linked with them also starts where there is a GPU.
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
mkdir -p "$1"
to=$(cd "$1" && pwd)
cd "$(dirname "$0")"
bindings=$(cargo metadata --manifest-path ../../../Cargo.toml --locked --features cuda --format-version 1 |
    grep -o '"manifest_path":"[^"]*/cudarc-[^"]*/Cargo.toml"' | cut -d'"' -f4)
bindings=${bindings%/Cargo.toml}/src

# build LIBRARY VERSION BINDINGS ERROR [SOURCE OPTIONS]: programs are linked so that every function the bindings declare must
# exist. Those that the source lacks return the error: one of the library's own, since Rust knows no other.
build() {
    local library=$1 version=$2 module=$3 error=$4
    shift 4
    if [ "$module" != none ]; then
        grep -ohE '\bfn (cu|nvrtc)[A-Za-z0-9_]+' "$bindings/$module/sys/mod.rs" | sort -u |
            sed -E "s/^fn (.*)/__attribute__((weak)) int \1(void) { return $error; }/"
    fi >"$to/$library.c"
    gcc -fPIC -c -o "$to/$library.o" "$to/$library.c"
    g++ -std=c++17 -O2 -Wall -Wextra -fPIC -shared -Wl,-soname,"lib$library.so.$version" \
        -o "$to/lib$library.so.$version" "$@" "$to/$library.o" -ldl
    ln -sf "lib$library.so.$version" "$to/lib$library.so"
    rm "$to/$library.c" "$to/$library.o"
}

# device.h as text, for the library that puts it before kernels.
{ echo 'extern const char device_h[] = R"device('; cat device.h; echo ')device";'; } >"$to/device.cpp"
build cuda 1 driver 801 cuda.cpp
build nvrtc 13 nvrtc 11 nvrtc.cpp "$to/device.cpp"
build cublas 13 cublas 15 -DMOCK_CUBLAS handles.cpp
build cublasLt 13 cublaslt 15
build curand 10 curand 999 handles.cpp
# Candle names it when it links, and calls nothing of it.
build cudart 13 none 0
rm "$to/device.cpp"

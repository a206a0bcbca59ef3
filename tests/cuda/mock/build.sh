#!/usr/bin/env bash
# Builds the mock into a folder: one library under the names that Candle's CUDA build links and loads. It has every
# function that the bindings declare; those it does not do return an error.
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
bindings=$(cargo metadata --manifest-path "$here/../../../Cargo.toml" --locked --features cuda --format-version 1 |
    grep -o '"manifest_path":"[^"]*cudarc-[^"]*Cargo.toml"' | cut -d'"' -f4)
names=$(grep -hoE 'fn (cu|nvrtc)[A-Za-z0-9_]+' "${bindings%/Cargo.toml}"/src/{driver,nvrtc,cublas,cublaslt,curand}/sys/mod.rs |
    cut -d' ' -f2 | sort -u)
printf '__attribute__((weak)) int %s(void) { return 801; }\n' $names > rest.c
gcc -c -fPIC rest.c
g++ -std=c++17 -O2 -Wall -fPIC -c "$here/mock.cpp"
g++ -shared -Wl,-soname,libcuda-mock.so -o libcuda-mock.so mock.o rest.o -ldl
for name in cuda cudart nvrtc cublas cublasLt curand; do ln -sf libcuda-mock.so "lib$name.so"; done
cp "$here/device.h" .

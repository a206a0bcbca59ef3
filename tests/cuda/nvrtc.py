"""Compiles CUDA sources as NVRTC does on a GPU's machine, without one: to PTX and to machine code.

    pip install nvidia-cuda-nvrtc==13.0.88
    python tests/cuda/nvrtc.py FOLDER        every .cu file in it

Fails if one does not compile for one of the architectures, or if its PTX has a fused multiply-add, which rounds
otherwise than the CPU.
"""

import ctypes
import importlib.util
import re
import sys
from pathlib import Path

ARCHITECTURES = [80, 90]


def library():
    package = importlib.util.find_spec("nvidia")
    folders = package.submodule_search_locations if package else []
    found = {file.name: file for folder in folders for file in Path(folder).glob("*/lib/libnvrtc*.so.*")}
    if not found:
        sys.exit("error: no NVRTC; pip install nvidia-cuda-nvrtc==13.0.88")
    # NVRTC asks for its other half by name, which the loader then knows.
    ctypes.CDLL(str(found["libnvrtc-builtins.so.13.0"]))
    return ctypes.CDLL(str(found["libnvrtc.so.13"]))


def output(nvrtc, program, what):
    """What NVRTC made of a program: its `PTX`, `CUBIN` or `ProgramLog`."""
    size = ctypes.c_size_t()
    if getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)):
        return b""
    text = ctypes.create_string_buffer(size.value)
    return text.raw.rstrip(b"\0") if getattr(nvrtc, f"nvrtcGet{what}")(program, text) == 0 else b""


def compile(nvrtc, file, architecture):
    """The PTX and the machine code of a file; ends the program if there is an error."""
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), file.read_bytes(), file.name.encode(), 0, None, None)
    options = [b"--fmad=false", b"--gpu-architecture=" + architecture.encode()]
    failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    if failed:
        sys.exit(f"error: {file}, {architecture}:\n{output(nvrtc, program, 'ProgramLog').decode()}")
    made = output(nvrtc, program, "PTX"), output(nvrtc, program, "CUBIN")
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return made


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: nvrtc.py FOLDER")
    files = sorted(Path(sys.argv[1]).glob("*.cu"))
    if not files:
        sys.exit(f"error: no .cu file in {sys.argv[1]}")
    nvrtc = library()
    for file in files:
        for architecture in ARCHITECTURES:
            ptx, _ = compile(nvrtc, file, f"compute_{architecture}")
            if b".entry optimizer_step" not in ptx:
                sys.exit(f"error: {file}: its PTX has no kernel")
            if re.search(rb"\bfma\.", ptx):
                sys.exit(f"error: {file}: its PTX has a fused multiply-add")
            _, machine_code = compile(nvrtc, file, f"sm_{architecture}")
            if not machine_code.startswith(b"\x7fELF"):
                sys.exit(f"error: {file}: no machine code for sm_{architecture}")
    major, minor = ctypes.c_int(), ctypes.c_int()
    nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    targets = " and ".join(f"sm_{architecture}" for architecture in ARCHITECTURES)
    print(f"{len(files)} kernels compile for {targets} (NVRTC {major.value}.{minor.value})")


if __name__ == "__main__":
    main()

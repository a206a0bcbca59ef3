#!/usr/bin/env bash
# All checks and benchmarks that need an NVIDIA GPU, in one call and under nine minutes.
#
#   benches/gpu.sh build [DIR]   where Rust and a CUDA 13.0 toolkit are (nvcc in PATH or NVCC): the programs, into DIR
#   benches/gpu.sh run [DIR]     where the GPU is: needs the repository, DIR, a driver, Python with torch, CUDA's libraries
#
# DIR is target/gpu unless given. `run` ends with status 1 if a check failed; the benchmarks run all the same.
set -euo pipefail
cd "$(dirname "$0")/.."
usage() { sed -n '4,7s/^# \{0,3\}//p' "$0" >&2; exit 2; }
dir=${2:-target/gpu}

build() {
    export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90}
    mkdir -p "$dir"
    {
        cargo test --locked --release --features cuda --no-run --test cuda --test oracle --test properties \
            --message-format json
        cargo build --locked --release --features cuda --message-format json
    } | python3 -c '
import json, shutil, sys
for line in sys.stdin:
    artifact = json.loads(line)
    name = artifact.get("target", {}).get("name")
    if artifact.get("executable"):
        shutil.copy(artifact["executable"], f"{sys.argv[1]}/{name}")
' "$dir"
    strip "$dir"/*
    ls -l "$dir"
}

failed=0
check() {
    printf '\n== %s\n' "$*"
    "$@" || { echo "FAILED: $*"; failed=1; }
}

# The losses of the chapter on both devices: how far apart, at most, in each column.
curves() {
    local out
    out=$(mktemp -d)
    for device in cpu cuda; do
        "$dir/candle-optim" train --device "$device" --dtype f64 --quiet --out "$out/$device"
    done
    python3 - "$out" <<'PY'
import csv, sys
rows = [list(csv.DictReader(open(f"{sys.argv[1]}/{device}/losses.csv"))) for device in ("cpu", "cuda")]
worst = max(abs(float(a[key]) - float(b[key])) for a, b in zip(*rows) for key in ("train_loss", "test_loss"))
print(f"{len(rows[0])} epochs in f64: the losses differ by at most {worst:.1e}")
sys.exit(len(rows[0]) != len(rows[1]) or not worst < 1e-10)
PY
}

# The table, also into benches/results/, with the driver it was measured with.
benchmarks() {
    local file
    file=benches/results/gpu-$(date +%F).md
    mkdir -p benches/results
    {
        nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
        timeout 240 python3 benches/gpu.py "$dir/candle-optim"
    } | tee "$file"
}

run() {
    # CUDA's libraries, where PyTorch's wheels have them.
    local wheels
    wheels=$(python3 -c 'import glob, os, torch
root = os.path.dirname(os.path.dirname(torch.__file__))
print(":".join(sorted({os.path.dirname(f) for f in glob.glob(root + "/nvidia/*/lib/lib*.so.*")})))')
    export LD_LIBRARY_PATH=$wheels:${CUDA_HOME:-/usr/local/cuda}/lib64:/usr/local/nvidia/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    # Tests find their fixtures here, wherever they were built.
    export CARGO_MANIFEST_DIR=$PWD
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
    # Tests write here.
    mkdir -p target/tmp
    check timeout 60 "$dir/cuda" --test-threads 1
    TEST_DEVICE=cuda check timeout 60 "$dir/oracle"
    TEST_DEVICE=cuda check timeout 120 "$dir/properties" --test-threads 1
    check curves
    if command -v compute-sanitizer >/dev/null; then
        for tool in memcheck racecheck; do
            check timeout 90 compute-sanitizer --tool "$tool" --error-exitcode 1 "$dir/cuda" a_gradient_may
        done
    else
        echo "no compute-sanitizer here: not run"
    fi
    check benchmarks
    return $failed
}

case ${1:-} in
    build) build ;;
    run) run ;;
    *) usage ;;
esac

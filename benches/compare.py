"""This crate next to PyTorch, JAX and stock Candle: times on this machine, as Markdown.

    pip install -r benches/requirements.txt
    python benches/compare.py [--rounds N] [--only epoch|wide|sweep|step|rules|program]

Contenders run in turn, N times around, so that a busy moment does not hit one alone; a
cell is the median over the rounds at the contender's best setting, with how many times
faster this crate is. Where this crate is slower, that factor is below 1, and bold.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import date
from pathlib import Path

from peers import SWEEP, SWEEP_SIZE

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CORES = os.cpu_count()
THREADS = sorted({1, CORES})

# Parameters, tensors and optimizers of the step alone.
STEP_SPECS = [
    "sgd",
    "sgd:momentum=0.9",
    "rmsprop",
    "rmsprop:centered=true",
    "rmsprop:momentum=0.9",
    "rmsprop:centered=true,momentum=0.9",
    "adam",
    "adamw",
]
STEPS = [
    (1_000_000, 1, STEP_SPECS),
    (10_000_000, 1, STEP_SPECS),
    (100_000_000, 1, ["sgd", "adam", "adamw"]),
    (1_000_000, 1000, STEP_SPECS),
]
# Parameters and tensors of every elementwise optimizer.
RULES = [(1_000_000, 1), (10_000_000, 1), (1_000_000, 1000)]
# Methods of whole tensors, on a matrix of 1024 x 1024. Between two new bases SOAP has a cheaper step.
MATRIX_SPECS = ["novograd", "adafactor", "came", "muon", "soap", "soap:precondition_frequency=1"]
MATRIX_SIZE = 1 << 20
# What stock Candle has.
CANDLE = {"sgd": "candle-sgd", "adamw": "candle-adamw"}


# --- running --------------------------------------------------------------------


def capture(command, **variables):
    """What a command prints; it must succeed."""
    environment = {**os.environ, **variables}
    done = subprocess.run(
        list(map(str, command)), stdout=subprocess.PIPE, env=environment, check=True
    )
    return done.stdout.decode()


def built(name, *command):
    """The executable of this name that cargo builds or finds built."""
    command = ["cargo", *command, "--message-format=json"]
    manifest = ["--manifest-path", ROOT / "Cargo.toml"]
    for line in map(json.loads, capture([*command, *manifest]).splitlines()):
        if line.get("executable") and line["target"]["name"] == name:
            return Path(line["executable"])
    raise SystemExit(f"error: cargo built no {name}")


def peers(*args):
    return json.loads(capture([sys.executable, HERE / "peers.py", *args]))


class Times:
    """Seconds or microseconds by row, contender and setting, one for each round."""

    def __init__(self):
        self.samples = defaultdict(lambda: defaultdict(list))

    def add(self, row, contender, setting, value):
        self.samples[row, contender][setting].append(value)

    def best(self, row, contender):
        """Median at the setting where it is lowest, and that setting; None without any."""
        settings = self.samples.get((row, contender), {})
        medians = [(statistics.median(v), name) for name, v in settings.items()]
        return min(medians, default=None)

    def cell(self, row, contender, digits=0, ours="candle-optim"):
        best = self.best(row, contender)
        if best is None:
            return "–"
        value, setting = best
        text = f"{value:,.{digits}f}"
        if contender == ours:
            return text
        note = f", {setting}" if setting else ""
        return f"{text} ({ratio(value / self.best(row, ours)[0])}{note})"


def ratio(value):
    text = f"{value:.2f}×" if value < 10 else f"{value:.0f}×"
    return f"**{text}**" if value < 1 else text


def threads_label(count):
    return "1 thread" if count == 1 else f"{count} threads"


def table(title, header, rows):
    print(f"\n{title}\n")
    print("| " + " | ".join(header) + " |")
    print("|---" + "|--:" * (len(header) - 1) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


# --- what is compared -----------------------------------------------------------


def add_torch(times, results, threads):
    for spec, ways in results.items():
        for way, value in ways.items():
            setting = f"{way}, {threads_label(threads)}"
            times.add(spec, "torch", setting, value)


def compare_epoch(args):
    times, specs, diverged = Times(), [], {}
    for _ in range(args.rounds):
        # This crate runs as a user gets it, with no thread setting.
        ours = json.loads(capture([args.bench, "--json", "ours"]))
        specs = list(ours["microseconds_per_epoch"]["ours"])
        for spec, value in ours["microseconds_per_epoch"]["ours"].items():
            times.add(spec, "candle-optim", "", value)
        for threads in ["", *THREADS]:
            variables = {"RAYON_NUM_THREADS": str(threads)} if threads else {}
            stock = json.loads(capture([args.bench, "--json", "stock"], **variables))
            diverged |= stock["stock_diverged_at_epoch"]
            setting = threads_label(threads) if threads else "no thread setting"
            for spec, value in stock["microseconds_per_epoch"]["stock"].items():
                times.add(spec, "stock Candle", setting, value)
        for threads in THREADS:
            add_torch(times, peers("torch", "--threads", threads), threads)
        for spec, ways in peers("jax").items():
            for way, value in ways.items():
                times.add(spec, f"JAX {way}", "", value)
    contenders = ["candle-optim", "torch", "stock Candle", "JAX jit", "JAX scan"]
    table(
        "**Epoch**, µs: circles 700 + 300 rows, 2-16-16-1, f32, full batch, test loss included"
        " (candle-optim also computes both accuracies)",
        ["optimizer", "candle-optim", "torch eager", *contenders[2:]],
        ([f"`{s}`", *(times.cell(s, who) for who in contenders)] for s in specs),
    )
    for spec, number in diverged.items():
        print(f"\nStock Candle's `{spec}` has no finite loss from epoch {number} on.")


def compare_wide(args):
    times = Times()
    for _ in range(args.rounds):
        ours = json.loads(capture([args.bench, "--json", "wide"]))
        for spec, value in ours["microseconds_per_epoch"]["wide"].items():
            times.add(spec, "candle-optim", "", value)
        for threads in THREADS:
            add_torch(times, peers("wide", "--threads", threads), threads)
    table(
        "**Wide network**, µs per epoch: circles 4096 + 4096 rows, 2-256-256-1, f32, full batch",
        ["optimizer", "candle-optim", "torch eager"],
        [["`adam`", times.cell("adam", "candle-optim"), times.cell("adam", "torch")]],
    )


def compare_sweep(args):
    """Microseconds per training and epoch on all cores; ours with start, journal and files."""
    times = Times()
    rates, seeds, epochs = SWEEP_SIZE
    # One seed more confirms the best.
    size = ["--trials", rates, "--seeds", seeds, "--confirm-seeds", 1, "--epochs", epochs]
    for _ in range(args.rounds):
        for spec in SWEEP:
            with tempfile.TemporaryDirectory() as folder:
                command = [args.binary, "sweep", "--optimizer", spec, *size, "--out", folder, "--quiet"]
                seconds, _ = spend(command, folder)
            times.add(spec, "candle-optim", "", seconds * 1e6 / (rates * seeds * epochs))
        for spec, value in peers("sweep").items():
            times.add(spec, "JAX vmap", "", value)
    table(
        f"**Comparison**, µs per training and epoch on all cores: circles 560 + 140 rows, 2-16-16-1, f32, full batch,"
        f" {rates} learning rates on {seeds} seeds",
        ["optimizer", "candle-optim sweep", "JAX vmap"],
        ([f"`{s}`", *(times.cell(s, who, 1) for who in ("candle-optim", "JAX vmap"))] for s in SWEEP),
    )


def compare_step(args):
    stock = {
        "stock Candle, mimalloc": [args.binary, "bench"],
        "stock Candle, the system's allocator": [args.step],
    }
    for parameters, tensors, specs in STEPS:
        times, shares = Times(), defaultdict(list)
        size = ["--parameters", parameters, "--tensors", tensors]
        candles = {CANDLE[spec]: spec for spec in specs if spec in CANDLE}
        for _ in range(args.rounds):
            for result in steps([args.binary, "bench"], specs, size):
                name = result["optimizer"]
                times.add(name, "candle-optim", "", result["microseconds"])
                shares[name].append(result["share_of_plain"])
            for contender, command in stock.items():
                for result in steps(command, candles, size):
                    spec = candles[result["optimizer"]]
                    times.add(spec, contender, "", result["microseconds"])
            for threads in THREADS:
                results = peers("step", "--threads", threads, *size, *specs)
                for spec, ways in results.items():
                    for way, value in ways.items():
                        setting = threads_label(threads)
                        times.add(spec, f"torch {way}", setting, value)
        contenders = ["torch fused", "torch foreach", "torch for-loop", *stock]
        spread = f"in {tensors:,} tensors" if tensors > 1 else "in one tensor"
        table(
            f"**Optimizer step**, µs: {parameters:,} f32 parameters {spread}",
            ["optimizer", "candle-optim", "of y += a·x", *contenders],
            (
                [
                    f"`{spec}`",
                    times.cell(spec, "candle-optim"),
                    f"{statistics.median(shares[spec]):.0%}",
                    *(times.cell(spec, who) for who in contenders),
                ]
                for spec in specs
            ),
        )


def compare_rules(args):
    """A step of every optimizer that needs no second gradient, next to its reference."""
    names = [spec for spec in peers("names") if spec not in MATRIX_SPECS]
    times, shares = Times(), defaultdict(list)
    sizes = [(*size, names, []) for size in RULES] + [(MATRIX_SIZE, 1, MATRIX_SPECS, ["--square"])]
    for _ in range(args.rounds):
        for parameters, tensors, specs, shape in sizes:
            size = ["--parameters", parameters, "--tensors", tensors]
            for result in steps([args.binary, "bench"], specs, size):
                row = result["optimizer"], parameters, tensors
                times.add(row, "candle-optim", "", result["microseconds"])
                shares[row].append(result["share_of_plain"])
            for threads in THREADS:
                results = peers("step", "--threads", threads, *size, *shape, *specs)
                for spec, ways in results.items():
                    for way, value in ways.items():
                        setting = f"{way}, {threads_label(threads)}"
                        times.add((spec, parameters, tensors), "reference", setting, value)
    columns = [f"{p:.0e} in {t}".replace("e+0", "e") for p, t in RULES]
    header = [part for column in columns for part in (column, "reference", "of y += a·x")]

    def cells(name):
        for size in RULES:
            row = (name, *size)
            yield times.cell(row, "candle-optim", 1)
            yield times.cell(row, "reference", 1)
            yield f"{statistics.median(shares[row]):.0%}"

    table(
        "**Every step**, µs, f32: parameters in so many tensors",
        ["optimizer", *header],
        ([f"`{name}`", *cells(name)] for name in names),
    )
    rows = [(spec, MATRIX_SIZE, 1) for spec in MATRIX_SPECS]
    table(
        "**Methods of whole tensors**, µs, f32: a matrix of 1024 x 1024",
        ["optimizer", "candle-optim", "reference"],
        ([f"`{row[0]}`", *(times.cell(row, who) for who in ("candle-optim", "reference"))] for row in rows),
    )


def steps(command, specs, size):
    """What the command says of these optimizers."""
    options = [word for spec in specs for word in ("--optimizer", spec)]
    return json.loads(capture([*command, "--json", *size, *options]))["optimizers"]


def compare_program(args):
    python, imports = (
        sys.executable,
        "import torch, sklearn.datasets, matplotlib.pyplot",
    )
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "candle-optim": [args.binary, "--out", folder, "--quiet"],
            "chapter.py": [python, HERE / "chapter.py"],
            "its imports alone": [python, "-c", imports],
        }
        times, memory = Times(), Times()
        # One round more than is counted brings the files into memory.
        for number in range(args.rounds + 1):
            for name, command in commands.items():
                seconds, mebibytes = spend(command, folder)
                if number > 0:
                    times.add("", name, "", seconds)
                    memory.add("", name, "", mebibytes)
    table(
        "**Program**, start to end. `candle-optim` trains three optimizers more"
        " and also writes the losses as CSV and an SVG",
        ["program", "seconds", "peak memory, MiB"],
        ([f"`{n}`", times.cell("", n, 2), memory.cell("", n)] for n in commands),
    )


def spend(command, folder):
    """Seconds from start to end, and the most MiB of memory it held."""
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    start = time.perf_counter()
    process = subprocess.Popen(
        list(map(str, command)), cwd=folder, env=environment, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    # Kibibytes, but bytes on macOS.
    return seconds, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


# --- where ----------------------------------------------------------------------


def machine(args):
    report = ["bench", "--json", "--parameters", 1, "--optimizer", "sgd"]
    versions = json.loads(capture([args.binary, *report]))["versions"]
    versions = {**versions, **peers("versions")}
    versions = ", ".join(f"{name} {version}" for name, version in versions.items())
    rust = capture(["rustc", "--version"]).strip().partition(" (")[0]
    git = ["git", "-C", ROOT]
    commit = capture([*git, "rev-parse", "--short", "HEAD"]).strip()
    if capture([*git, "status", "--porcelain", "src", "lab", "Cargo.toml", "Cargo.lock"]):
        commit += " with changes"
    return (
        f"{processor()}, {CORES} cores; {date.today()}, commit {commit};"
        f" median of {args.rounds} rounds; {versions}, {rust}"
    )


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":")[1].strip()
            for line in lines
            if line.startswith("model name")
        )
    except (OSError, StopIteration):
        import platform

        return platform.processor() or platform.machine()


WORK = {
    "epoch": compare_epoch,
    "wide": compare_wide,
    "sweep": compare_sweep,
    "step": compare_step,
    "rules": compare_rules,
    "program": compare_program,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=WORK)
    parser.add_argument(
        "--binary", type=Path, help="candle-optim, built in release mode"
    )
    parser.add_argument("--bench", type=Path, help="the executable of the bench epoch")
    parser.add_argument("--step", type=Path, help="the executable of the bench step")
    args = parser.parse_args()
    args.binary = args.binary or built("candle-optim", "build", "--release")
    args.bench = args.bench or built("epoch", "bench", "--bench", "epoch", "--no-run")
    args.step = args.step or built("step", "bench", "--bench", "step", "--no-run")
    for name in ("binary", "bench", "step"):
        setattr(args, name, getattr(args, name).resolve())
    for name, compare in WORK.items():
        if args.only in (None, name):
            compare(args)
    print(f"\n{machine(args)}")


if __name__ == "__main__":
    main()

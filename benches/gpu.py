"""Steps on a GPU: this crate's program and PyTorch in alternation, as one table in Markdown.

    python benches/gpu.py PROGRAM [--rounds N]

PROGRAM is `candle-optim`, built with the feature `cuda`. Needs torch and nothing else.
"""

import argparse
import json
import statistics
import subprocess
import time
from collections import defaultdict

import torch

LR = 0.01
SPECS = {
    "sgd:momentum=0.9": (torch.optim.SGD, {"momentum": 0.9}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {}),
}
# Candle's own stands beside the optimizer that it is one of.
CANDLE = {"candle-adamw": "adamw"}
# Parameters, and the tensors they are spread over.
SIZES = [(10**6, 1), (10**7, 1), (10**8, 1), (10**9, 1), (10**6, 1000)]
CONTENDERS = ["torch fused", "torch foreach", "stock Candle"]


def ours(program, parameters, tensors):
    command = [program, "bench", "--json", "--device", "cuda"]
    command += ["--parameters", str(parameters), "--tensors", str(tensors)]
    for spec in (*SPECS, *CANDLE):
        command += ["--optimizer", spec]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def torch_step(make, parameters, tensors):
    """Median microseconds, each step timed to its end, for half a second."""
    params = [torch.zeros(parameters // tensors, device="cuda", requires_grad=True) for _ in range(tensors)]
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer = make(params)
    optimizer.step()
    torch.cuda.synchronize()
    times, begin = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - begin < 0.5:
        start = time.perf_counter()
        optimizer.step()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def compare(program, parameters, tensors, rounds):
    times, shares = defaultdict(list), defaultdict(list)
    for _ in range(rounds):
        for result in ours(program, parameters, tensors)["optimizers"]:
            name = result["optimizer"]
            who = "stock Candle" if name in CANDLE else "candle-optim"
            times[CANDLE.get(name, name), who].append(result["microseconds"])
            if who == "candle-optim":
                shares[name].append(result["share_of_plain"])
        for spec, (optimizer, options) in SPECS.items():
            for way in ("fused", "foreach"):
                if way == "fused" and optimizer is torch.optim.RMSprop:
                    continue
                make = lambda params: optimizer(params, lr=LR, **options, **{way: True})
                times[spec, f"torch {way}"].append(torch_step(make, parameters, tensors))
                torch.cuda.empty_cache()

    spread = "one tensor" if tensors == 1 else f"{tensors:,} tensors"
    print(f"\n{parameters:,} f32 parameters in {spread}\n")
    print("| optimizer | candle-optim, µs | of a copy's bandwidth | " + " | ".join(CONTENDERS) + " |")
    print("|---|--:|--:" + "|--:" * len(CONTENDERS) + "|")
    for spec in SPECS:
        mine = statistics.median(times[spec, "candle-optim"])
        row = [f"`{spec}`", f"{mine:,.1f}", f"{statistics.median(shares[spec]):.0%}"]
        for who in CONTENDERS:
            theirs = times.get((spec, who))
            row.append(f"{statistics.median(theirs):,.1f} ({statistics.median(theirs) / mine:.2f}×)" if theirs else "–")
        print("| " + " | ".join(row) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    card = torch.cuda.get_device_properties(0)
    print(f"{card.name}, torch {torch.__version__}, CUDA {torch.version.cuda}; median of {args.rounds} rounds")
    for parameters, tensors in SIZES:
        compare(args.program, parameters, tensors, args.rounds)


if __name__ == "__main__":
    main()

"""The best test loss of every optimizer on the chapter's circles, each at the best of the same learning rates.

    python benches/rates.py target/release/candle-optim

prints a Markdown table. It shows that each optimizer learns, and where. It is no comparison: there is one seed, and the test set
chooses the learning rate.
"""

import csv
import subprocess
import sys
import tempfile
from pathlib import Path

RATES = [f"{mantissa}e{power}" for power in range(-5, 2) for mantissa in (1, 3)]
# An average over a thousand steps would not have left the start.
WRAPPERS = {"lookahead": "", "sam": "", "ema": "decay=0.9,"}


def names(program):
    table = subprocess.run([program, "list", "--markdown"], capture_output=True, text=True, check=True)
    rows = table.stdout.split("\n\n")[0].splitlines()[2:]
    return [row.split("`")[1] for row in rows]


def spec(name, rate):
    if name in WRAPPERS:
        return f"{name}:{WRAPPERS[name]}base=adam,base_lr={rate}"
    return f"{name}:lr={rate}"


def finals(program, specs):
    """By spec, the losses and the accuracy of the last epoch."""
    with tempfile.TemporaryDirectory() as folder:
        options = [option for spec in specs for option in ("--optimizer", spec)]
        subprocess.run([program, "train", *options, "--out", folder, "--quiet"], check=True)
        with open(Path(folder) / "losses.csv", newline="") as file:
            return {row["optimizer"]: row for row in csv.DictReader(file)}


def main():
    program = sys.argv[1]
    print("| optimizer | learning rate | train loss | test loss | test accuracy |")
    print("|---|--:|--:|--:|--:|")
    for name in names(program):
        rows = finals(program, [spec(name, rate) for rate in RATES])
        rates = {spec(name, rate): rate for rate in RATES}
        finite = {key: row for key, row in rows.items() if row["test_accuracy"]}
        best = min(finite, key=lambda key: float(finite[key]["test_loss"]))
        row = finite[best]
        losses = " | ".join(f"{float(row[key]):.2g}" for key in ("train_loss", "test_loss"))
        print(f"| `{name}` | {float(rates[best]):g} | {losses} | {100 * float(row['test_accuracy']):.1f} % |")


if __name__ == "__main__":
    main()

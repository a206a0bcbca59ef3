"""Checks that TensorBoard reads from event files what the program's own files say.

    python check.py TRAIN SWEEP

The arguments are the folders of a training and of a comparison.
"""

import csv
import json
import math
import pathlib
import struct
import sys

from read_events import read

TAGS = {"loss/train": "train_loss", "loss/test": "test_loss", "accuracy/train": "train_accuracy", "accuracy/test": "test_accuracy"}


def single(x):
    """A number as an f32 holds it; one beyond its range is infinite."""
    try:
        return struct.unpack("f", struct.pack("f", x))[0]
    except OverflowError:
        return math.copysign(math.inf, x)


def same(a, b):
    return a == b or math.isnan(a) and math.isnan(b)


def check_curves(run, rows):
    for tag, column in TAGS.items():
        expected = [(int(row["epoch"]), single(float(row[column]))) for row in rows if row[column]]
        found = [tuple(point) for point in run["scalars"].get(tag, [])]
        assert len(found) == len(expected), (tag, len(found), len(expected))
        assert all(a[0] == b[0] and same(a[1], b[1]) for a, b in zip(found, expected)), tag
    return sum(len(run["scalars"][tag]) for tag in run["scalars"])


def check_training(folder):
    runs = read(str(folder / "tensorboard"))
    rows = list(csv.DictReader((folder / "losses.csv").open()))
    summary = json.loads((folder / "summary.json").read_text())
    points = 0
    for optimizer, name in zip(summary["train"]["optimizers"], sorted(runs), strict=True):
        run, spec = runs[name], optimizer["optimizer"]
        points += check_curves(run, [row for row in rows if row["optimizer"] == spec])
        settings = {key: value for key, value in optimizer["settings"].items() if key != "maximize"}
        assert run["hyperparameters"] == {"optimizer": spec, "seed": "42", **settings}, (run["hyperparameters"], settings)
        assert run["status"] == "STATUS_SUCCESS"
    print(f"{folder.name}: {len(runs)} runs, {points} points and all hyperparameters are those of the program's files")


def check_comparison(folder):
    runs = read(str(folder / "tensorboard"))
    rows = {}
    for row in csv.DictReader((folder / "losses.csv").open()):
        rows.setdefault((row["optimizer"], row["seed"]), []).append(row)
    assert len(runs) == len(rows) == 12, (len(runs), len(rows))
    points = 0
    for key, name in zip(rows, sorted(runs), strict=True):
        points += check_curves(runs[name], rows[key])
        assert runs[name]["hyperparameters"]["seed"] == key[1]
    print(f"{folder.name}: {len(runs)} confirmations, {points} points")


if __name__ == "__main__":
    check_training(pathlib.Path(sys.argv[1]))
    check_comparison(pathlib.Path(sys.argv[2]))

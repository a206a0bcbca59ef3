"""The Python side of the comparison: scikit-learn's data and PyTorch's loss curves.

    python data/reference.py

writes circles.csv, reference.csv and breast_cancer.csv into data/. What the tests
read is made by tests/fixtures/make.py, which builds on the functions here.
"""

import csv
import platform
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors
import sklearn
import torch
from sklearn.datasets import load_breast_cancer, make_circles
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
DTYPES = {"f64": torch.float64, "f32": torch.float32}

CHAPTER_SEED = 42
CHAPTER_EPOCHS = 100
CHAPTER_LR = 0.01
CHAPTER_OPTIMIZERS = ["sgd", "sgd:momentum=0.9", "rmsprop", "adam", "adamw"]


def versions():
    """One line that names what computed the numbers (torch without its build tag)."""
    return (
        f"python {platform.python_version()}, torch {torch.__version__.split('+')[0]}, "
        f"scikit-learn {sklearn.__version__}, numpy {np.__version__}, "
        f"safetensors {safetensors.__version__}"
    )


# --- data ---------------------------------------------------------------------


def circles(seed, n=1000, noise=0.03, factor=0.8, test_size=0.3):
    """The two rings in the order they are generated, and the rows of either split."""
    X, y = make_circles(n, noise=noise, factor=factor, random_state=seed)
    train, test = stratified_split(y, test_size, seed)
    return X, y, train, test


def stratified_split(y, test_size, seed):
    """Row numbers instead of rows: train_test_split only ever indexes its arguments."""
    return train_test_split(
        np.arange(len(y)), stratify=y, test_size=test_size, random_state=seed
    )


@dataclass(frozen=True)
class Problem:
    """A split data set as float64 features and targets in the shape `loss` wants."""

    sizes: tuple  # of the layers, from inputs to outputs
    loss: callable
    x_train: torch.Tensor
    y_train: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor

    def to(self, dtype):
        """Features, and with them real-valued targets; class numbers stay integers."""

        def cast(tensor):
            return tensor.to(dtype) if tensor.is_floating_point() else tensor

        names = ("x_train", "y_train", "x_test", "y_test")
        return replace(self, **{name: cast(getattr(self, name)) for name in names})

    def reordered(self, order):
        return replace(self, x_train=self.x_train[order], y_train=self.y_train[order])


def binary_problem(X, y, train, test):
    X, y = torch.from_numpy(X), torch.from_numpy(y).double()[:, None]
    sizes = (X.shape[1], 16, 16, 1)
    loss = F.binary_cross_entropy_with_logits
    return Problem(sizes, loss, X[train], y[train], X[test], y[test])


# --- optimizers ---------------------------------------------------------------


class Momentum(torch.optim.Optimizer):
    """The chapter's own momentum: an average of gradients, so damped from the first step."""

    def __init__(self, params, lr, beta=0.9):
        super().__init__(params, {"lr": lr, "beta": beta})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                v = state.setdefault("momentum_buffer", torch.zeros_like(p))
                v.mul_(group["beta"]).add_(p.grad, alpha=1 - group["beta"])
                p.sub_(v, alpha=group["lr"])


OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "momentum": Momentum,
    "rmsprop": torch.optim.RMSprop,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def parse_spec(spec):
    """`adam:lr=0.01,amsgrad=true` -> ("adam", {"lr": 0.01, "amsgrad": True})."""
    name, _, options = spec.partition(":")
    pairs = (option.split("=") for option in options.split(",") if option)
    return name, {key: parse_value(text) for key, text in pairs}


def parse_value(text):
    """A truth value, nothing, a number, or else a word."""
    words = {"true": True, "false": False, "none": None}
    if text in words:
        return words[text]
    with suppress(ValueError):
        return float(text)
    return text


def build_optimizer(spec, params, lr=None):
    name, options = parse_spec(spec)
    options.setdefault("lr", lr)
    if name in ("adam", "adamw"):
        options["betas"] = (options.pop("beta1", 0.9), options.pop("beta2", 0.999))
    if name != "momentum":
        # The path written one tensor operation at a time: the order to follow.
        options["foreach"] = False
    if name in ("sgd", "adam", "adamw"):
        options["fused"] = False
    return OPTIMIZERS[name](params, **options)


# --- training -----------------------------------------------------------------


def build_network(seed, sizes):
    """Seeded right before the layers are drawn, so the weights depend on nothing else."""
    torch.manual_seed(seed)
    layers = []
    for inputs, outputs in zip(sizes, sizes[1:]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def train(problem, spec, seed, dtype, epochs, batch_size=0, lr=None):
    """Losses as [2, epochs]: train before each update, test after it.

    The weights are drawn in float32 and widened, so both dtypes start alike.
    A batch size of 0 is the full batch.
    """
    problem = problem.to(DTYPES[dtype])
    network = build_network(seed, problem.sizes).to(DTYPES[dtype])
    optimizer = build_optimizer(spec, network.parameters(), lr)
    shuffle = torch.Generator().manual_seed(seed)

    def update(x, y):
        optimizer.zero_grad()
        loss = problem.loss(network(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    def epoch():
        x, y = problem.x_train, problem.y_train
        if batch_size == 0:
            return update(x, y)
        total = 0.0  # by hand: Python's sum() rounds differently from 3.12 on
        for rows in torch.randperm(len(x), generator=shuffle).split(batch_size):
            total += update(x[rows], y[rows]) * len(rows)
        return total / len(x)

    @torch.no_grad()
    def test():
        return problem.loss(network(problem.x_test), problem.y_test).item()

    return np.array([(epoch(), test()) for _ in range(epochs)]).T


# --- files --------------------------------------------------------------------


def write_csv(path, header, rows):
    """Floats go through repr, the shortest text that reads back to the same bits."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    print(f"{path.name}: {path.stat().st_size} bytes")


def write_circles():
    X, y, _, test = circles(CHAPTER_SEED)
    test = set(test.tolist())
    rows = (
        (*x, label, "test" if row in test else "train")
        for row, (x, label) in enumerate(zip(X.tolist(), y.tolist()))
    )
    write_csv(HERE / "circles.csv", ["x0", "x1", "y", "split"], rows)


def write_reference():
    problem = binary_problem(*circles(CHAPTER_SEED))
    rows = []
    for spec in CHAPTER_OPTIMIZERS:
        for dtype in DTYPES:
            losses = train(
                problem, spec, CHAPTER_SEED, dtype, CHAPTER_EPOCHS, lr=CHAPTER_LR
            )
            for epoch, (train_loss, test_loss) in enumerate(losses.T.tolist(), 1):
                rows.append((spec, CHAPTER_SEED, dtype, epoch, train_loss, test_loss))
    header = ["optimizer", "seed", "dtype", "epoch", "train_loss", "test_loss"]
    write_csv(HERE / "reference.csv", header, rows)


def write_breast_cancer():
    table = load_breast_cancer()
    header = [name.replace(" ", "_") for name in table.feature_names]
    labels = table.target_names[table.target]
    rows = ((*x, label) for x, label in zip(table.data.tolist(), labels))
    write_csv(HERE / "breast_cancer.csv", [*header, "diagnosis"], rows)


def main():
    torch.set_num_threads(1)  # sums over threads round in another order
    print(versions())
    write_circles()
    write_reference()
    write_breast_cancer()


if __name__ == "__main__":
    main()

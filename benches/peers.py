"""PyTorch and JAX at the work of `cargo bench --bench epoch` and `candle-optim bench`.

    python benches/peers.py torch|wide [--threads N] [SPEC...]
    python benches/peers.py jax|sweep [SPEC...]
    python benches/peers.py step [--threads N] [--parameters N] [--tensors K] [--square] [SPEC...]
    python benches/peers.py names|versions

prints one JSON object; times are in microseconds. torch and jax train the chapter's
network, wide trains 2-256-256-1 on 4096 rows in torch, step is the optimizers alone: torch's,
and where torch has none the authors'.
sweep is the chapter's network at 25 learning rates on 20 seeds, all at once in JAX.
"""

import argparse
import contextlib
import inspect
import io
import json
import math
import os
import pkgutil
import statistics
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))

SPECS = ["sgd", "sgd:momentum=0.9", "rmsprop", "adam", "adamw"]
SEED, LR = 42, 0.01
SWEEP = ["sgd", "sgd:momentum=0.9", "rmsprop", "adam"]
# Learning rates, seeds and epochs.
SWEEP_SIZE = (25, 20, 100)
# As in epoch.rs for stock Candle: epochs before the clock starts, and on it.
CHAPTER, WIDE = (1000, 2000), (3, 30)
# The references of the optimizers beyond the chapter's.
REFERENCES = {
    "adabelief": "adabelief_pytorch:AdaBelief",
    "adadelta": "torch.optim:Adadelta",
    "adafactor": "torch.optim:Adafactor",
    "adagrad": "torch.optim:Adagrad",
    "adamax": "torch.optim:Adamax",
    "adan": "timm.optim:Adan",
    "ademamix": "pytorch_optimizer:AdEMAMix",
    "adopt": "timm.optim:Adopt",
    "asgd": "torch.optim:ASGD",
    "came": "came_pytorch:CAME",
    "lamb": "timm.optim:Lamb",
    "lars": "timm.optim:Lars",
    "lion": "lion_pytorch:Lion",
    "madgrad": "madgrad:MADGRAD",
    "mars": "timm.optim:Mars",
    "muon": "torch.optim:Muon",
    "nadam": "torch.optim:NAdam",
    "nadamw": "timm.optim:NAdamW",
    "novograd": "timm.optim:NvNovoGrad",
    "prodigy": "prodigyopt:Prodigy",
    "radam": "torch.optim:RAdam",
    "rprop": "torch.optim:Rprop",
    "schedulefreeadamw": "schedulefree:AdamWScheduleFree",
    "schedulefreesgd": "schedulefree:SGDScheduleFree",
    "signum": "pytorch_optimizer:SignSGD",
    "soap": "pytorch_optimizer:SOAP",
    "yogi": "torch_optimizer:Yogi",
}


def microseconds_per_epoch(epoch, warm_up, epochs):
    for _ in range(warm_up):
        epoch()
    start = time.perf_counter()
    losses = [epoch() for _ in range(epochs)]
    return (time.perf_counter() - start) * 1e6 / len(losses)


# --- torch ----------------------------------------------------------------------


def torch_optimizers(spec):
    """The ways to step of torch, or else of the authors; the first is their default on a CPU."""
    import reference as ref

    name, options = ref.parse_spec(spec)
    optimizer = ref.OPTIMIZERS.get(name) or pkgutil.resolve_name(REFERENCES[name])
    arguments = inspect.signature(optimizer).parameters
    ways = {"for-loop": {}}
    if "foreach" in arguments:
        ways = {"for-loop": {"foreach": False}, "foreach": {"foreach": True}}
    if "fused" in arguments:
        ways["fused"] = {"fused": True}
    for way, flags in ways.items():
        yield way, partial(optimizer, lr=LR, **options, **flags)


def torch_epochs(specs, n, test_size, hidden, warm_up, epochs):
    import reference as ref
    import torch

    problem = ref.binary_problem(*ref.circles(SEED, n=n, test_size=test_size))
    problem = problem.to(torch.float32)

    def measure(make_optimizer):
        network = ref.build_network(SEED, (2, *hidden, 1))
        optimizer = make_optimizer(network.parameters())

        def epoch():
            optimizer.zero_grad()
            loss = problem.loss(network(problem.x_train), problem.y_train)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                test_loss = problem.loss(network(problem.x_test), problem.y_test)
            return loss.item(), test_loss.item()

        return microseconds_per_epoch(epoch, warm_up, epochs)

    return {
        spec: {way: measure(make) for way, make in torch_optimizers(spec)}
        for spec in specs
    }


def torch_steps(specs, shape, tensors):
    """The median of at least five steps and of as many as fit into half a second."""
    import torch

    def measure(make_optimizer):
        params = [torch.zeros(shape) for _ in range(tensors)]
        for p in params:
            p.requires_grad_()
            p.grad = torch.ones_like(p)
        # Some authors' optimizers print their settings.
        with contextlib.redirect_stdout(io.StringIO()):
            optimizer = make_optimizer(params)
        # Schedule-Free's refuse to step before.
        getattr(optimizer, "train", lambda: None)()
        optimizer.step()
        times, begin = [], time.perf_counter()
        while len(times) < 5 or time.perf_counter() - begin < 0.5:
            start = time.perf_counter()
            optimizer.step()
            times.append(time.perf_counter() - start)
        return statistics.median(times) * 1e6

    return {
        spec: {way: measure(make) for way, make in torch_optimizers(spec)}
        for spec in specs
    }


# --- JAX ------------------------------------------------------------------------


def jax_epochs(specs, warm_up, epochs):
    """An epoch as one jitted call, and all of them as one jitted scan; compiled before."""
    import jax
    import jax.numpy as jnp
    import optax
    import reference as ref

    # Each loss is waited for anyway; handing the call to another thread costs 30 µs.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    # As in torch; optax has other defaults.
    rmsprop = optax.rmsprop(LR, decay=0.99, eps=1e-8, eps_in_sqrt=False)
    optimizers = {
        "sgd": optax.sgd(LR),
        "sgd:momentum=0.9": optax.sgd(LR, momentum=0.9),
        "rmsprop": rmsprop,
        "adam": optax.adam(LR),
        "adamw": optax.adamw(LR, weight_decay=1e-2),
    }
    problem = ref.binary_problem(*ref.circles(SEED))
    arrays = (problem.x_train, problem.y_train, problem.x_test, problem.y_test)
    x, y, x_test, y_test = (jnp.asarray(a.numpy(), jnp.float32) for a in arrays)
    weights = [
        jnp.asarray(p.detach().numpy())
        for p in ref.build_network(SEED, problem.sizes).parameters()
    ]

    def loss(params, x, y):
        for i in range(0, len(params), 2):
            x = (jax.nn.relu(x) if i else x) @ params[i].T + params[i + 1]
        return optax.sigmoid_binary_cross_entropy(x, y).mean()

    def measure(optimizer):
        def update(carry, _=None):
            params, state = carry
            train_loss, grads = jax.value_and_grad(loss)(params, x, y)
            updates, state = optimizer.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), (train_loss, loss(params, x_test, y_test))

        start = (weights, optimizer.init(weights))
        carry, step = start, jax.jit(update)

        def epoch():
            nonlocal carry
            carry, losses = step(carry)
            return [float(value) for value in losses]

        jit = microseconds_per_epoch(epoch, warm_up, epochs)
        scan = jax.jit(lambda carry: jax.lax.scan(update, carry, length=epochs))

        def run():
            return jax.block_until_ready(scan(start))

        return {"jit": jit, "scan": microseconds_per_epoch(run, 1, 1) / epochs}

    return {spec: measure(optimizers[spec]) for spec in specs}


def jax_sweep(specs, rates, seeds, epochs):
    """Microseconds per training and epoch: the whole loop, mapped over rates and seeds, compiled before."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from sklearn.datasets import make_circles

    optimizers = {
        "sgd": optax.sgd,
        "sgd:momentum=0.9": partial(optax.sgd, momentum=0.9),
        "rmsprop": partial(optax.rmsprop, decay=0.99, eps=1e-8, eps_in_sqrt=False),
        "adam": optax.adam,
    }
    # Of 1000 rows, 300 are for testing, which tuning does not see, and 140 for validation.
    data = [make_circles(1000, noise=0.03, factor=0.8, random_state=seed) for seed in range(seeds)]
    x, y = (jnp.asarray(np.stack(part), jnp.float32) for part in zip(*data))
    y = y[..., None]
    sizes = (2, 16, 16, 1)

    def weights(key):
        layers = []
        for inputs, outputs in zip(sizes, sizes[1:]):
            bound = inputs**-0.5
            for shape in ((outputs, inputs), (outputs,)):
                key, drawn = jax.random.split(key)
                layers.append(jax.random.uniform(drawn, shape, minval=-bound, maxval=bound))
        return layers

    def loss(params, x, y):
        for i in range(0, len(params), 2):
            x = (jax.nn.relu(x) if i else x) @ params[i].T + params[i + 1]
        return optax.sigmoid_binary_cross_entropy(x, y).mean()

    def measure(make):
        def train(lr, seed, x, y):
            optimizer = make(lr)
            params = weights(jax.random.key(seed))

            def update(carry, _):
                params, state = carry
                train_loss, grads = jax.value_and_grad(loss)(params, x[:560], y[:560])
                updates, state = optimizer.update(grads, state, params)
                params = optax.apply_updates(params, updates)
                return (params, state), (train_loss, loss(params, x[560:700], y[560:700]))

            return jax.lax.scan(update, (params, optimizer.init(params)), length=epochs)[1]

        of_seeds = jax.vmap(train, in_axes=(None, 0, 0, 0))
        every = jax.jit(jax.vmap(of_seeds, in_axes=(0, None, None, None)))
        lrs, numbers = jnp.logspace(-6, 0, rates), jnp.arange(seeds)

        def run():
            return jax.block_until_ready(every(lrs, numbers, x, y))

        return microseconds_per_epoch(run, 1, 1) / (rates * seeds * epochs)

    return {spec: measure(optimizers[spec]) for spec in specs}


# --- command line ---------------------------------------------------------------


def versions():
    from importlib.metadata import version

    packages = ("torch", "jax", "optax", "numpy", "scikit-learn", "matplotlib")
    python = ".".join(map(str, sys.version_info[:3]))
    return {"python": python, **{name: version(name) for name in packages}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    work = ("torch", "jax", "sweep", "wide", "step", "names", "versions")
    parser.add_argument("work", choices=work)
    parser.add_argument("specs", nargs="*", metavar="SPEC")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--parameters", type=int, default=10_000_000)
    parser.add_argument("--tensors", type=int, default=1)
    parser.add_argument("--square", action="store_true", help="tensors are square matrices")
    args = parser.parse_intermixed_args()
    if args.work == "versions":
        print(json.dumps(versions()))
        return
    if args.work == "names":
        import reference as ref

        print(json.dumps([*ref.OPTIMIZERS, *REFERENCES]))
        return
    if args.work == "sweep":
        print(json.dumps(jax_sweep(args.specs or SWEEP, *SWEEP_SIZE)))
        return

    import torch

    torch.set_num_threads(args.threads)
    specs = args.specs or SPECS
    if args.work == "torch":
        times = torch_epochs(specs, 1000, 0.3, (16, 16), *CHAPTER)
    elif args.work == "wide":
        times = torch_epochs(args.specs or ["adam"], 8192, 0.5, (256, 256), *WIDE)
    elif args.work == "step":
        size = args.parameters // args.tensors
        shape = (math.isqrt(size),) * 2 if args.square else (size,)
        times = torch_steps(specs, shape, args.tensors)
    else:
        times = jax_epochs(specs, *CHAPTER)
    print(json.dumps(times))


if __name__ == "__main__":
    main()

"""The chapter in Python: four optimizers on θ² and on two circles.

    python benches/chapter.py

prints where each one ends on θ² and draws the losses on the circles into comparison.png.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import make_circles
from sklearn.model_selection import train_test_split
from torch import nn, optim

# --- one dimension: f(θ) = θ² ---------------------------------------------------


def gradient(theta):
    return 2 * theta


def sgd(theta, lr=0.1, steps=20):
    path = [theta]
    for _ in range(steps):
        theta -= lr * gradient(theta)
        path.append(theta)
    return path


def momentum(theta, lr=0.1, beta=0.9, steps=20):
    path, v = [theta], 0.0
    for _ in range(steps):
        v = beta * v + (1 - beta) * gradient(theta)
        theta -= lr * v
        path.append(theta)
    return path


def rmsprop(theta, lr=0.1, beta=0.9, eps=1e-8, steps=20):
    path, s = [theta], 0.0
    for _ in range(steps):
        g = gradient(theta)
        s = beta * s + (1 - beta) * g**2
        theta -= lr / (s**0.5 + eps) * g
        path.append(theta)
    return path


def adam(theta, lr=0.1, beta1=0.9, beta2=0.999, eps=1e-8, steps=20):
    path, m, v = [theta], 0.0, 0.0
    for t in range(1, steps + 1):
        g = gradient(theta)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        theta -= lr * m_hat / (v_hat**0.5 + eps)
        path.append(theta)
    return path


for minimize in (sgd, momentum, rmsprop, adam):
    print(f"{minimize.__name__:10}θ = {minimize(5.0)[-1]:.4f}")

# --- two circles ----------------------------------------------------------------

X, y = make_circles(n_samples=1000, noise=0.03, random_state=42)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=0.3, stratify=y, random_state=42
)
X_train, X_test, y_train, y_test = (
    torch.tensor(values, dtype=torch.float32)
    for values in (X_train, X_test, y_train[:, None], y_test[:, None])
)


def train(make_optimizer, epochs=100):
    torch.manual_seed(42)
    model = nn.Sequential(
        nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1)
    )
    criterion = nn.BCEWithLogitsLoss()
    optimizer = make_optimizer(model.parameters())
    train_losses, test_losses = [], []
    for _ in range(epochs):
        model.train()
        optimizer.zero_grad()
        loss = criterion(model(X_train), y_train)
        loss.backward()
        optimizer.step()
        train_losses.append(loss.item())

        model.eval()
        with torch.no_grad():
            test_losses.append(criterion(model(X_test), y_test).item())
    return train_losses, test_losses


OPTIMIZERS = {
    "SGD": lambda params: optim.SGD(params, lr=0.01),
    "Momentum": lambda params: optim.SGD(params, lr=0.01, momentum=0.9),
    "RMSprop": lambda params: optim.RMSprop(params, lr=0.01),
    "Adam": lambda params: optim.Adam(params, lr=0.01),
}

fig, axes = plt.subplots(1, 2, figsize=(12, 5))
for name, make_optimizer in OPTIMIZERS.items():
    for axis, losses in zip(axes, train(make_optimizer)):
        axis.plot(losses, label=name)
for axis, title in zip(axes, ("Train loss", "Test loss")):
    axis.set(title=title, xlabel="Epoch", ylabel="Loss")
    axis.legend()
    axis.grid(True)
fig.tight_layout()
fig.savefig("comparison.png")

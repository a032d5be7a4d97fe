"""Measure gradient confusion in a plain PyTorch loop. Run it to see an example: python plain.py."""

import torch
from confusion import confusion_row
from torch import nn

import gradconf


def train(model, loss_fn, inputs, targets, *, probe, steps: int, every: int, log) -> None:
    """Train by SGD, measure the probe every few steps, and give `log` a dict."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(steps):
        rows = torch.randint(len(targets), (128,))
        loss = loss_fn(model(inputs[rows]), targets[rows]).mean()
        if step % every == 0:  # before the step, at the weights that the loss was computed with
            log({"step": step, "loss": loss.item(), **confusion_row(model, loss_fn, *probe)})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main(steps: int = 1000, every: int = 100) -> None:
    """Train on handwritten digits and print what was measured."""
    gradconf.setup(seed=0)
    data = gradconf.datasets.load("digits")
    model = nn.Sequential(nn.Flatten(), nn.Linear(data.features, 256), nn.ReLU(), nn.Linear(256, data.classes))
    loss_fn = nn.CrossEntropyLoss(reduction="none")  # one loss a sample; the loop takes the mean
    probe = data.train_inputs[:100], data.train_targets[:100]  # chosen once
    samples = data.train_inputs, data.train_targets
    train(model, loss_fn, *samples, probe=probe, steps=steps, every=every, log=show)


def show(row: dict[str, float]) -> None:
    """Print some of a row."""
    names = ["loss", *(f"confusion/{name}" for name in ("eta", "q01", "median", "std"))]
    print(f"step {row['step']:4}", *(f"{name} {row[name]:.3g}" for name in names), sep="  ")


if __name__ == "__main__":
    main()

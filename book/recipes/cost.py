"""Time a measurement beside one forward and backward pass of the same samples: python cost.py, a minute or two."""

import pandas as pd
import torch
from confusion import confusion_row
from torch import nn
from torch.utils.benchmark import Timer

import gradconf

SIZES = (50, 100, 200, 400)
loss_fn = nn.CrossEntropyLoss(reduction="none")


def networks() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Make networks, with the shape of one input each."""
    ends = {"in_features": 64, "out_features": 10}
    return {
        "MLP 64-256-10": (gradconf.models.mlp(1, 256, **ends), (64,)),
        "MLP 64-2048-2048-10": (gradconf.models.mlp(2, 2048, **ends), (64,)),
        "CNN-16-2, 32 x 32": (gradconf.models.cnn(16, 2), (3, 32, 32)),
    }


def milliseconds(code: str, **names) -> float:
    """Return the median time of a line of code, after a warm-up and with the GPU's work waited for."""
    timer = Timer(code, globals=names, num_threads=torch.get_num_threads())
    return 1e3 * timer.blocked_autorange(min_run_time=1).median


def compare(model: nn.Module, shape: tuple[int, ...], samples: int) -> dict[str, float]:
    """Time both on random samples."""
    x, y = torch.randn(samples, *shape), torch.randint(10, (samples,))
    names = {"model": model, "loss_fn": loss_fn, "x": x, "y": y}
    measurement = milliseconds("confusion_row(model, loss_fn, x, y)", confusion_row=confusion_row, **names)
    passes = milliseconds("loss_fn(model(x), y).mean().backward()", **names)
    return {"samples": samples, "measurement": measurement, "passes": passes, "ratio": measurement / passes}


def main(sizes: tuple[int, ...] = SIZES) -> pd.DataFrame:
    """Return times in milliseconds."""
    gradconf.setup(seed=0)
    made = networks().items()
    return pd.DataFrame({"network": name, **compare(*network, n)} for name, network in made for n in sizes)


if __name__ == "__main__":
    print(main().round(2).to_string(index=False))

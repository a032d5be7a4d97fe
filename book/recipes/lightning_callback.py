"""Measure gradient confusion with a Lightning callback. Run it to see an example: python lightning_callback.py."""

import tempfile

import lightning
import pandas as pd
import torch
from confusion import confusion_row
from torch import nn

import gradconf


class GradientConfusion(lightning.Callback):
    """Measure a probe every few optimizer steps and give the numbers to the trainer's loggers."""

    def __init__(self, loss_fn, inputs, targets, *, every: int = 100):
        """Keep the probe, and a loss function that returns one loss a sample."""
        self.loss_fn, self.probe, self.every, self.last = loss_fn, (inputs, targets), every, None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        """Measure before the step, on one rank; the others wait for it where they next exchange gradients."""
        step = trainer.global_step
        if not trainer.is_global_zero or step % self.every or step == self.last:
            return
        self.last = step  # while gradients are accumulated, several batches make one step
        row = confusion_row(pl_module, self.loss_fn, *self.probe)
        for logger in trainer.loggers:  # self.log would drop what falls between log_every_n_steps
            logger.log_metrics(row, step=step)


class Classifier(lightning.LightningModule):
    """Any module whose forward returns what the loss function takes."""

    def __init__(self, net: nn.Module):
        """Wrap a network."""
        super().__init__()
        self.net = net

    def forward(self, x):
        """Return class scores, shape `(N, C)`."""
        return self.net(x)

    def training_step(self, batch, batch_idx):
        """Return the mean loss of a batch."""
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        """Use plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


def main(steps: int = 300, every: int = 50) -> pd.DataFrame:
    """Train on handwritten digits with a logger that writes a table, and return the table."""
    gradconf.setup(seed=0)
    data = gradconf.datasets.load("digits")
    net = nn.Sequential(nn.Flatten(), nn.Linear(data.features, 256), nn.ReLU(), nn.Linear(256, data.classes))
    samples = torch.utils.data.TensorDataset(data.train_inputs, data.train_targets)
    loader = torch.utils.data.DataLoader(samples, batch_size=128, shuffle=True)

    loss_fn = nn.CrossEntropyLoss(reduction="none")  # one loss a sample
    callback = GradientConfusion(loss_fn, data.train_inputs[:100], data.train_targets[:100], every=every)
    logger = lightning.pytorch.loggers.CSVLogger(tempfile.mkdtemp())
    trainer = lightning.Trainer(max_steps=steps, logger=logger, callbacks=[callback], enable_checkpointing=False)
    trainer.fit(Classifier(net), loader)
    return pd.read_csv(f"{logger.log_dir}/metrics.csv")


if __name__ == "__main__":
    print(main()[["step", "confusion/eta", "confusion/q01", "confusion/median", "confusion/std"]])

"""Measure gradient confusion in Hugging Face's Trainer. Run it to see an example: python transformers_callback.py."""

import tempfile

import pandas as pd
import torch
import torch.nn.functional as F
from confusion import confusion_row
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

import gradconf


class GradientConfusion(TrainerCallback):
    """Measure a probe every few optimizer steps and give the numbers to the trainer's log."""

    def __init__(self, loss_fn, inputs, targets, *, log, every: int = 100):
        """Keep the probe, and a loss function that returns one loss a sample; `log` is `trainer.log`."""
        self.loss_fn, self.probe, self.log, self.every = loss_fn, (inputs, targets), log, every

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        """Measure before the step, on one rank; the others wait for it where they next exchange gradients."""
        if not state.is_world_process_zero or state.global_step % self.every:
            return
        forward = vars(model).pop("forward", None)  # with bf16=True or fp16=True, Accelerate's, which rounds
        try:
            row = confusion_row(model, self.loss_fn, *self.probe)
        finally:
            if forward is not None:
                model.forward = forward
        self.log(row)


def sequence_losses(outputs, labels):
    """Return each sequence's mean loss over its tokens, shape `(N,)`, leaving out labels of -100."""
    logits, labels = outputs.logits[:, :-1], labels[:, 1:]  # token t + 1 is predicted from the tokens up to t
    losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=-100)  # (N, T - 1)
    return losses.sum(1) / (labels != -100).sum(1).clamp(min=1)


def main(steps: int = 200, every: int = 50) -> list[dict[str, float]]:
    """Train a tiny GPT-2, made from its configuration, to count, and return the trainer's log."""
    gradconf.setup(seed=0)
    sizes = {"vocab_size": 32, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    counts = (torch.randint(32, (512, 1)) + torch.arange(16)) % 32
    samples = [{"input_ids": row, "labels": row} for row in counts]

    arguments = TrainingArguments(tempfile.mkdtemp(), max_steps=steps, save_strategy="no", report_to="none")
    trainer = Trainer(model, arguments, train_dataset=samples)
    inputs = dict(trainer.data_collator(samples[:32]))
    labels = inputs.pop("labels")  # with labels the model would compute a loss of its own, a mean
    trainer.add_callback(GradientConfusion(sequence_losses, inputs, labels, log=trainer.log, every=every))
    trainer.train()
    return trainer.state.log_history


if __name__ == "__main__":
    measured = pd.DataFrame(row for row in main() if "confusion/eta" in row)
    print(measured.filter(["step", "confusion/eta", "confusion/q01", "confusion/median", "confusion/std"]))

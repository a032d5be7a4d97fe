"""The paper's figures of trained convolutional networks as comparisons, whatever sizes were run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from gradconf.results.verdicts import Check

FIRST, LAST = 0, -1  # the smallest and the largest value of what is varied


@dataclass(frozen=True)
class Comparison:
    """Two settings of a sweep, and what the paper lets one expect between them.

    Attributes:
        what: is compared, in words, with `{axis}`, `{before}` and `{after}` to be filled in.
        metric: a column of the runs.
        before: variant of the network, and which end of the axis.
        after: as `before`.
        direction: see `gradconf.results.verdicts`.
        tolerance: the smallest effect that counts.
    """

    what: str
    metric: str
    before: tuple[str, int]
    after: tuple[str, int]
    direction: str
    tolerance: float

    def check(self, runs: pd.DataFrame, axis: str, values: Sequence[int]) -> Check | None:
        """Compare what was run.

        Args:
            runs: a row a run, with the columns `variant`, `axis`, `seed` and `metric`, nan where it diverged.
            axis: what is varied.
            values: that it was to take, from the smallest to the largest.

        Returns:
            The check over the seeds that both settings have; None if there are fewer than two.
        """
        ends = [values[end] for _, end in (self.before, self.after)]
        columns = [
            runs[(runs.variant == variant) & (runs[axis] == end)].set_index("seed")[self.metric]
            for (variant, _), end in zip((self.before, self.after), ends, strict=True)
        ]
        seeds = sorted(set(columns[0].index) & set(columns[1].index))
        if len(seeds) < 2:
            return None
        before, after = (tuple(float(value) for value in column[seeds]) for column in columns)
        told = self.what.format(axis=axis, before=ends[0], after=ends[1])
        return Check(told, self.direction, self.tolerance, before, after)


@dataclass(frozen=True)
class Figure:
    """A figure of the paper, or an experiment of our own.

    Attributes:
        paper: where it is; empty for our own.
        chapter: the notebook that treats it.
        axis: the column that is varied.
        title: for figures.
        claims: what the paper says, in our words, each with what is compared.
    """

    paper: str
    chapter: str
    axis: str
    title: str
    claims: Mapping[str, Sequence[Comparison]]


def _between_ends(loss: str, cosine: str, std: str) -> tuple[Comparison, ...]:
    ends = ("", FIRST), ("", LAST)
    return (
        Comparison("training loss, {axis} {before} to {after}", "train_loss", *ends, loss, 0.2),
        Comparison("smallest cosine", "min_cosine", *ends, cosine, 0.1),
        Comparison("standard deviation of the cosines", "std", *ends, std, 0.03),
    )


def _alone(variant: str) -> tuple[Comparison, ...]:
    at_end, along = (("plain", LAST), (variant, LAST)), ((variant, FIRST), (variant, LAST))
    loss, cosine = "train_loss", "min_cosine"
    return (
        Comparison(f"training loss at {{axis}} {{after}}, plain to {variant}", loss, *at_end, "falls", 0.2),
        Comparison("smallest cosine there", cosine, *at_end, "rises", 0.1),
        Comparison(f"training loss with {variant}, {{axis}} {{before}} to {{after}}", loss, *along, "rises", 0.2),
        Comparison(f"smallest cosine with {variant}", cosine, *along, "falls", 0.1),
    )


_TOGETHER = (
    Comparison(
        "training loss at {axis} {after}, plain to both", "train_loss", ("plain", LAST), ("both", LAST), "falls", 0.2
    ),
    Comparison("smallest cosine there", "min_cosine", ("plain", LAST), ("both", LAST), "rises", 0.1),
    Comparison("test accuracy there", "test_accuracy", ("plain", LAST), ("both", LAST), "rises", 0.05),
    Comparison(
        "training loss with both, {axis} {before} to {after}",
        *("train_loss", ("both", FIRST), ("both", LAST), "does not rise", 0.2),
    ),
    Comparison("smallest cosine with both", "min_cosine", ("both", FIRST), ("both", LAST), "does not fall", 0.1),
)
FIGURES = {
    "depth": Figure(
        "Section 7, Figure 2",
        "03_depth",
        "depth",
        "CNNs of several depths",
        {"Deeper networks train more slowly and end with more confusion": _between_ends("rises", "falls", "rises")},
    ),
    "width": Figure(
        "Section 7, Figure 3",
        "02_width",
        "width",
        "CNNs of several widths",
        {"Wider networks train faster and end with less confusion": _between_ends("falls", "rises", "falls")},
    ),
    "bn_skip": Figure(
        "Section 7, Figure 4",
        "04_batchnorm_skip",
        "depth",
        "CNNs with and without batch norm and skips",
        {
            "Batch norm alone helps, but less and less with depth": _alone("batch norm"),
            "Skip connections alone help, but less and less with depth": _alone("skip"),
            "Batch norm and skip connections together keep confusion low and let very deep networks train": _TOGETHER,
        },
    ),
    "mlp_depth": Figure("", "03_depth", "depth", "MLPs of several depths", {}),
    "mlp_width": Figure("", "02_width", "width", "MLPs of several widths", {}),
}

"""Gradient confusion: the exact Gram matrix of per-sample gradients, and the course that explains it.

Measure a model in two lines:

    K = gradconf.gram(model, loss_fn, inputs, targets)   # (N, N), <grad f_i, grad f_j>
    gradconf.confusion(K, labels=targets)

Source: Sankararaman, De, Xu, Huang & Goldstein, "The Impact of Neural Network Overparameterization on Gradient
Confusion and Stochastic Gradient Descent", ICML 2020, arXiv:1904.06963.
"""

from gradconf import datasets, models, plots, reference, results
from gradconf._version import __version__
from gradconf.batch_grams import minibatch_gram
from gradconf.batches import minibatch_pairs, minibatches
from gradconf.ensembles import train_many
from gradconf.grams import cross_gram, gram, layer_grams
from gradconf.measurement import explain, measure
from gradconf.statistics import Confusion, PairStatistics, confusion, cosine, paired_confusion
from gradconf.surroundings import setup, spent
from gradconf.training import Run, train

__all__ = [
    "Confusion",
    "PairStatistics",
    "Run",
    "__version__",
    "confusion",
    "cosine",
    "cross_gram",
    "datasets",
    "explain",
    "gram",
    "layer_grams",
    "measure",
    "minibatch_gram",
    "minibatch_pairs",
    "minibatches",
    "models",
    "paired_confusion",
    "plots",
    "reference",
    "results",
    "setup",
    "spent",
    "train",
    "train_many",
]

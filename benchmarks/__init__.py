"""Ways to compute the Gram matrix of per-sample gradients, timed side by side."""

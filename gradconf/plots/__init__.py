"""The figures of the course: each knows what it shows, and says it to those who cannot see it."""

from gradconf.plots.cosines import cosine_density, cosine_heatmap
from gradconf.plots.lines import curves
from gradconf.plots.picture import Picture, canvas, show
from gradconf.plots.plane import two_quadratics

__all__ = ["Picture", "canvas", "cosine_density", "cosine_heatmap", "curves", "show", "two_quadratics"]

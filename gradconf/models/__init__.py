"""The networks of the paper, with depth and width as it counts them."""

from gradconf.models.convolutional import cnn, wrn
from gradconf.models.dense import linear_net, mlp
from gradconf.models.residual import post_activation_mlp, residual_mlp
from gradconf.models.shapes import for_dataset

__all__ = ["cnn", "for_dataset", "linear_net", "mlp", "post_activation_mlp", "residual_mlp", "wrn"]

"""Networks that know nothing of tasks."""

from quickstudy.backbones.conv4 import Conv4
from quickstudy.backbones.mlp import MLP, WithLinear

BACKBONES = {"conv4": Conv4, "mlp": MLP}
"""The networks that the command line and saved files know by name."""

__all__ = ["BACKBONES", "MLP", "Conv4", "WithLinear"]

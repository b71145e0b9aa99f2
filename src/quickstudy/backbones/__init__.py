"""Networks that know nothing of tasks."""

from quickstudy.backbones.conv4 import Conv4
from quickstudy.backbones.mlp import MLP, WithLinear
from quickstudy.backbones.recurrent import LSTMEncoder
from quickstudy.backbones.transformer import Transformer

BACKBONES = {"conv4": Conv4, "mlp": MLP, "lstm": LSTMEncoder, "transformer": Transformer}
"""The networks that the command line and saved files know by name."""

__all__ = ["BACKBONES", "MLP", "Conv4", "LSTMEncoder", "Transformer", "WithLinear"]

"""Networks that know nothing of tasks."""

from quickstudy.backbones.conv4 import Conv4, ConvMaps
from quickstudy.backbones.language_model import RecurrentLM
from quickstudy.backbones.local_descriptors import LocalDescriptors
from quickstudy.backbones.mlp import MLP, WithLinear
from quickstudy.backbones.recurrent import LSTMEncoder
from quickstudy.backbones.resnet import ResNet12, ResNet18, SmallResNet
from quickstudy.backbones.transformer import Transformer
from quickstudy.backbones.unit_length import UnitLength

BACKBONES = {
    "conv4": Conv4,
    "conv_maps": ConvMaps,
    "local_descriptors": LocalDescriptors,
    "mlp": MLP,
    "lstm": LSTMEncoder,
    "language_model": RecurrentLM,
    "transformer": Transformer,
    "resnet12": ResNet12,
    "resnet18": ResNet18,
    "small_resnet": SmallResNet,
}
"""The networks that the command line and saved files know by name."""

__all__ = [
    "BACKBONES",
    "MLP",
    "Conv4",
    "ConvMaps",
    "LSTMEncoder",
    "LocalDescriptors",
    "RecurrentLM",
    "ResNet12",
    "ResNet18",
    "SmallResNet",
    "Transformer",
    "UnitLength",
    "WithLinear",
]

"""Learners: one paper, one file."""

from quickstudy.learner import Learner
from quickstudy.learners.bayesian_maml import BayesianMAML
from quickstudy.learners.cavia import CAVIA
from quickstudy.learners.classifier import Classifier
from quickstudy.learners.imaml import IMAML
from quickstudy.learners.leo import LEO
from quickstudy.learners.linear_probe import LinearProbe
from quickstudy.learners.maml import MAML
from quickstudy.learners.meta_curvature import MetaCurvature
from quickstudy.learners.meta_sgd import MetaSGD
from quickstudy.learners.nearest_neighbour import NearestNeighbour
from quickstudy.learners.proto_maml import ProtoMAML
from quickstudy.learners.protonet import ProtoNet
from quickstudy.learners.reptile import Reptile

LEARNERS: dict[str, type[Learner]] = {
    "protonet": ProtoNet,
    "maml": MAML,
    "proto_maml": ProtoMAML,
    "meta_sgd": MetaSGD,
    "meta_curvature": MetaCurvature,
    "reptile": Reptile,
    "imaml": IMAML,
    "cavia": CAVIA,
    "leo": LEO,
    "bayesian_maml": BayesianMAML,
    "linear_probe": LinearProbe,
    "nearest_neighbour": NearestNeighbour,
}
"""The learners that the command line knows by name."""

__all__ = [
    "CAVIA",
    "IMAML",
    "LEARNERS",
    "LEO",
    "MAML",
    "BayesianMAML",
    "Classifier",
    "LinearProbe",
    "MetaCurvature",
    "MetaSGD",
    "NearestNeighbour",
    "ProtoMAML",
    "ProtoNet",
    "Reptile",
]

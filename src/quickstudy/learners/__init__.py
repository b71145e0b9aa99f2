"""Learners: one paper, one file."""

from quickstudy.learner import Learner
from quickstudy.learners.classifier import Classifier
from quickstudy.learners.linear_probe import LinearProbe
from quickstudy.learners.maml import MAML
from quickstudy.learners.nearest_neighbour import NearestNeighbour
from quickstudy.learners.protonet import ProtoNet

LEARNERS: dict[str, type[Learner]] = {
    "protonet": ProtoNet,
    "maml": MAML,
    "linear_probe": LinearProbe,
    "nearest_neighbour": NearestNeighbour,
}
"""The learners that the command line knows by name."""

__all__ = ["LEARNERS", "MAML", "Classifier", "LinearProbe", "NearestNeighbour", "ProtoNet"]

"""Learners: one paper, one file."""

from quickstudy.learner import Learner
from quickstudy.learners.attentive_np import AttentiveNP
from quickstudy.learners.bayesian_maml import BayesianMAML
from quickstudy.learners.cavia import CAVIA
from quickstudy.learners.classifier import Classifier
from quickstudy.learners.cnp import CNP
from quickstudy.learners.feat import FEAT
from quickstudy.learners.imaml import IMAML
from quickstudy.learners.in_context import InContext
from quickstudy.learners.leo import LEO
from quickstudy.learners.linear_probe import LinearProbe
from quickstudy.learners.local_matching import LocalMatching
from quickstudy.learners.maml import MAML
from quickstudy.learners.mann import MANN
from quickstudy.learners.matching_net import MatchingNet
from quickstudy.learners.meta_curvature import MetaCurvature
from quickstudy.learners.meta_lstm import MetaLSTM
from quickstudy.learners.meta_opt_net import MetaOptNet
from quickstudy.learners.meta_sgd import MetaSGD
from quickstudy.learners.nearest_neighbour import NearestNeighbour
from quickstudy.learners.neural_cache import NeuralCache
from quickstudy.learners.proto_maml import ProtoMAML
from quickstudy.learners.protonet import ProtoNet
from quickstudy.learners.r2d2 import R2D2
from quickstudy.learners.rare_memory import RareMemory
from quickstudy.learners.relation_net import RelationNet
from quickstudy.learners.reptile import Reptile
from quickstudy.learners.ridge import Ridge
from quickstudy.learners.siamese import Siamese
from quickstudy.learners.simple_shot import SimpleShot
from quickstudy.learners.snail import SNAIL
from quickstudy.learners.supervised_contrastive import SupervisedContrastive
from quickstudy.learners.tim import TIM
from quickstudy.learners.triplet_embedding import TripletEmbedding

LEARNERS: dict[str, type[Learner]] = {
    "protonet": ProtoNet,
    "matching_net": MatchingNet,
    "siamese": Siamese,
    "relation_net": RelationNet,
    "supervised_contrastive": SupervisedContrastive,
    "local_matching": LocalMatching,
    "triplet_embedding": TripletEmbedding,
    "maml": MAML,
    "proto_maml": ProtoMAML,
    "meta_sgd": MetaSGD,
    "meta_curvature": MetaCurvature,
    "meta_lstm": MetaLSTM,
    "reptile": Reptile,
    "imaml": IMAML,
    "cavia": CAVIA,
    "leo": LEO,
    "bayesian_maml": BayesianMAML,
    "cnp": CNP,
    "attentive_np": AttentiveNP,
    "in_context": InContext,
    "r2d2": R2D2,
    "ridge": Ridge,
    "meta_opt_net": MetaOptNet,
    "feat": FEAT,
    "simple_shot": SimpleShot,
    "tim": TIM,
    "mann": MANN,
    "rare_memory": RareMemory,
    "snail": SNAIL,
    "linear_probe": LinearProbe,
    "nearest_neighbour": NearestNeighbour,
}
"""The learners that the command line knows by name."""

__all__ = [
    "CAVIA",
    "CNP",
    "FEAT",
    "IMAML",
    "LEARNERS",
    "LEO",
    "MAML",
    "MANN",
    "R2D2",
    "SNAIL",
    "TIM",
    "AttentiveNP",
    "BayesianMAML",
    "Classifier",
    "InContext",
    "LinearProbe",
    "LocalMatching",
    "MatchingNet",
    "MetaCurvature",
    "MetaLSTM",
    "MetaOptNet",
    "MetaSGD",
    "NearestNeighbour",
    "NeuralCache",
    "ProtoMAML",
    "ProtoNet",
    "RareMemory",
    "RelationNet",
    "Reptile",
    "Ridge",
    "Siamese",
    "SimpleShot",
    "SupervisedContrastive",
    "TripletEmbedding",
]

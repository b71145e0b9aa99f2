"""quickstudy: models that learn a new task from a handful of examples."""

from typing import TYPE_CHECKING, Any

from quickstudy.backbones import MLP, Conv4, LSTMEncoder, Transformer, WithLinear
from quickstudy.checkpoint import load_checkpoint, save_checkpoint
from quickstudy.episode import Episode, Labelled, TaskDistribution, one_hot, task
from quickstudy.evaluation import Comparison, Score, accuracy, compare, evaluate, mean_squared_error
from quickstudy.inner import unroll
from quickstudy.learner import Learner
from quickstudy.learners import (
    CAVIA,
    CNP,
    IMAML,
    LEARNERS,
    LEO,
    MAML,
    AttentiveNP,
    BayesianMAML,
    Classifier,
    InContext,
    LinearProbe,
    MetaCurvature,
    MetaLSTM,
    MetaSGD,
    NearestNeighbour,
    ProtoMAML,
    ProtoNet,
    Reptile,
)
from quickstudy.opening import open_learner
from quickstudy.outer import check_meta_gradient, map_tasks, unrolled
from quickstudy.saving import load, save
from quickstudy.tasks import AllClasses, ClassTasks, GaussianProcess, RandomAffine, Sinusoid, named_tasks
from quickstudy.training import meta_train, refresh_statistics, settle_statistics

if TYPE_CHECKING:
    from quickstudy.estimators import FewShotClassifier, FewShotRegressor, load_model
    from quickstudy.given import labelled
    from quickstudy.optimizers import LearnedOptimizer

__version__ = "0.1.0"

__all__ = [
    "CAVIA",
    "CNP",
    "IMAML",
    "LEARNERS",
    "LEO",
    "MAML",
    "MLP",
    "AllClasses",
    "AttentiveNP",
    "BayesianMAML",
    "ClassTasks",
    "Classifier",
    "Comparison",
    "Conv4",
    "Episode",
    "FewShotClassifier",
    "FewShotRegressor",
    "GaussianProcess",
    "InContext",
    "LSTMEncoder",
    "Labelled",
    "LearnedOptimizer",
    "Learner",
    "LinearProbe",
    "MetaCurvature",
    "MetaLSTM",
    "MetaSGD",
    "NearestNeighbour",
    "ProtoMAML",
    "ProtoNet",
    "RandomAffine",
    "Reptile",
    "Score",
    "Sinusoid",
    "TaskDistribution",
    "Transformer",
    "WithLinear",
    "accuracy",
    "check_meta_gradient",
    "compare",
    "evaluate",
    "labelled",
    "load",
    "load_checkpoint",
    "load_model",
    "map_tasks",
    "mean_squared_error",
    "meta_train",
    "named_tasks",
    "one_hot",
    "open_learner",
    "refresh_statistics",
    "save",
    "save_checkpoint",
    "settle_statistics",
    "task",
    "unroll",
    "unrolled",
]


def __getattr__(name: str) -> Any:
    """What not every program needs comes when it is asked for: scikit-learn takes long to import."""
    if name in ("FewShotClassifier", "FewShotRegressor", "load_model"):
        from quickstudy import estimators

        return getattr(estimators, name)
    if name == "labelled":
        from quickstudy.given import labelled

        return labelled
    if name == "LearnedOptimizer":
        from quickstudy.optimizers import LearnedOptimizer

        return LearnedOptimizer
    raise AttributeError(f"module 'quickstudy' has no attribute {name!r}")

"""The meta-loss of the field: the query loss after adaptation, differentiated through the adaptation."""

from torch import Tensor

from quickstudy.episode import Episode
from quickstudy.learner import Learner
from quickstudy.outer.map_tasks import Strategy, map_tasks


def unrolled(learner: Learner, episodes: Episode, *, strategy: Strategy = "auto") -> Tensor:
    """The mean task loss of a meta-batch; its gradient is the meta-gradient as exact as the learner makes it.

    Args:
        learner: any learner.
        episodes: a meta-batch.
        strategy: as for ``map_tasks``; "auto" takes the loop for layers that write running statistics as they run.
    """
    if strategy == "auto" and learner.training and _writes_statistics(learner):
        strategy = "loop"
    return map_tasks(lambda episode: learner.meta_loss(episode), episodes, strategy=strategy).mean()


def _writes_statistics(learner: Learner) -> bool:
    return any(getattr(module, "track_running_stats", False) for module in learner.modules())

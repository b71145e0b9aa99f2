"""The meta-loss of the field: the query loss after adaptation, differentiated through the adaptation."""

import torch
from torch import Tensor

from quickstudy.episode import Episode, task
from quickstudy.inner import finite_losses
from quickstudy.inner.capture import is_batched
from quickstudy.learner import Learner
from quickstudy.outer.choose import choose_strategy
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
    losses = map_tasks(learner.meta_loss, episodes, strategy=strategy)
    if not is_batched(losses) and not bool(torch.isfinite(losses.detach()).all()):
        _say_where(learner, episodes, losses.detach())
    return losses.mean()


def fastest_strategy(learner: Learner, episodes: Episode) -> Strategy:
    """What "auto" would take for many meta-batches like this one, to be asked for by name: a resumed training that
    measured anew could choose otherwise, and go on with other rounding."""
    if learner.training and _writes_statistics(learner):
        return "loop"
    choice = choose_strategy(learner.meta_loss, episodes)
    return "trace" if choice.may_record else choice.strategy  # pyright: ignore[reportReturnType]


def _say_where(learner: Learner, episodes: Episode, losses: Tensor) -> None:
    """Name the task and the inner step at which numbers stopped being finite, if it was in an inner loop."""
    t = int((~torch.isfinite(losses)).nonzero()[0])
    try:
        with torch.random.fork_rng(), finite_losses():
            learner.meta_loss(task(episodes, t))
    except FloatingPointError as error:
        raise FloatingPointError(f"task {t + 1} of the meta-batch: {error}") from error


def _writes_statistics(learner: Learner) -> bool:
    return any(getattr(module, "track_running_stats", False) for module in learner.modules())

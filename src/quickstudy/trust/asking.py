"""Queries that belong to a class of their task, and queries that do not: what trust is fitted and judged on."""

from typing import NamedTuple

import torch
from torch import Tensor

from quickstudy.episode import Labelled, task
from quickstudy.evaluation import evaluating
from quickstudy.learner import Learner, fit_to
from quickstudy.tasks import ClassTasks


class Asked(NamedTuple):
    """What a learner answered on many tasks of one way, task by task.

    Attributes:
        logits: (n, way) of queries of known classes.
        y: (n, way) their one-hot labels.
        others: (m, way) logits of queries of classes outside their task.
    """

    logits: Tensor
    y: Tensor
    others: Tensor


def ask(
    learner: Learner, tasks: ClassTasks, *, way: int, shot: int, episodes: int, generator: torch.Generator
) -> Asked:
    """Put known and unknown queries to a learner that adapted to the known classes.

    Args:
        learner: of classes; put into evaluation mode for the time of the call. One that looks at queries while it
            adapts is shown known and unknown ones apart.
        tasks: their queries per class and ``within_group`` count, their way and shot do not.
        way, shot: of the tasks.
        episodes: how many tasks, at least 1.
        generator: draws them.

    Raises:
        ValueError: a learner of numbers, no episode, too few classes or examples.
        FloatingPointError: a prediction that is NaN or infinite.
    """
    if learner.regression:
        raise ValueError(f"{type(learner).__name__} predicts numbers; required is a learner that tells classes apart")
    if episodes < 1:
        raise ValueError(f"episodes={episodes}; required is at least 1")
    drawn = tasks.replace(way=way + _others(tasks, way), shot=shot, balanced=True)
    logits, labels, others = [], [], []
    with evaluating(learner):
        for _ in range(episodes):
            support, query = fit_to(task(drawn.sample(1, generator=generator), 0), learner)
            shown, known = support.y[:, :way].sum(-1) > 0, query.y[:, :way].sum(-1) > 0
            support = Labelled(support.x[shown], support.y[shown, :way])
            of_known, of_others = _answers(learner, support, query.x[known], query.x[~known])
            logits.append(of_known.cpu())
            labels.append(query.y[known, :way].cpu())
            others.append(of_others.cpu())
    asked = Asked(torch.cat(logits), torch.cat(labels), torch.cat(others))
    if not bool(torch.isfinite(asked.logits).all() and torch.isfinite(asked.others).all()):
        raise FloatingPointError(
            f"{type(learner).__name__} predicts NaN or infinite values; required are finite numbers: its weights may "
            "have diverged in training"
        )
    return asked


def _answers(learner: Learner, support: Labelled, known: Tensor, unknown: Tensor) -> tuple[Tensor, Tensor]:
    if learner.transductive:
        return learner.answer(support, known), learner.answer(support, unknown)
    adapted = learner.adapt(support)
    return learner.predict(adapted, known), learner.predict(adapted, unknown)


def _others(tasks: ClassTasks, way: int) -> int:
    """How many classes beside its own a task of this way can have: at most as many again."""
    groups = tasks.class_groups if tasks.within_group and tasks.class_groups is not None else [0] * len(tasks)
    most = max(groups.count(group) for group in set(groups))
    if not 2 <= way < most:
        raise ValueError(
            f"way={way} of {most} classes{' in the largest group' if tasks.within_group else ''}; required are two "
            "classes at least, and one more that is of no class of the task: change the way, or bring more classes"
        )
    return min(way, most - way)

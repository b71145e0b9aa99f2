"""What a learner says of examples of a support set that it has not seen, and of those whose class it has not seen."""

import torch
from torch import Tensor

from quickstudy.episode import Labelled
from quickstudy.evaluation import evaluating
from quickstudy.learner import Learner
from quickstudy.trust.asking import Asked


def left_out(learner: Learner, support: Labelled, *, folds: int = 5) -> Asked:
    """Cross-validate on a support set: leave out a part of each class, then whole classes.

    Args:
        learner: put into evaluation mode for the time of the call; it adapts at most twice ``folds`` times.
        support: x (n, *input), y (n, way) one-hot, with at least two examples of each class.
        folds: how many parts, at least 2. A class with fewer examples leaves out one at a time, and so do classes.

    Returns:
        logits (n, way) and labels in the order of the support set. ``others`` (n, way) come from learners that knew
        only other classes, with the lowest number for the classes that were left out; with two classes there is nothing
        to tell apart without one of them, and ``others`` is (0, way).

    Raises:
        ValueError: a class with fewer than two examples, or fewer than two folds.
    """
    x, y = support
    counts = y.sum(0)  # (way,)
    if folds < 2 or len(counts) < 2 or int(counts.min()) < 2:
        raise ValueError(
            f"{len(counts)} classes of {[int(k) for k in counts]} examples and folds={folds}; required are two classes "
            "with two examples each, and two folds: give more labelled examples, or go without calibration"
        )
    label, way = y.argmax(1), len(counts)
    rank = ((y.cumsum(0) - 1) * y).sum(1).long()  # the how-manieth of its class each example is
    part = rank % counts[label].clamp(max=folds).long()  # (n,)
    logits, others = torch.zeros_like(y), y.new_full(y.shape, torch.finfo(y.dtype).min)
    with evaluating(learner):
        for left in (part == fold for fold in range(int(part.max()) + 1)):
            logits[left] = learner.answer(Labelled(x[~left], y[~left]), x[left]).to(logits)
        parts = min(folds, way) if way > 2 else 0
        for fold in range(parts):
            kept = torch.arange(way, device=y.device) % parts != fold  # (way,)
            shown = kept[label]
            answer = learner.answer(Labelled(x[shown], y[shown][:, kept]), x[~shown])
            others[~shown] = _widened(answer.to(others), kept)
    return Asked(logits.cpu(), y.cpu(), others.cpu() if parts else others[:0].cpu())


def _widened(answer: Tensor, kept: Tensor) -> Tensor:
    """Logits (m, kept classes) → (m, way), the lowest number in the other columns."""
    wide = answer.new_full((len(answer), len(kept)), torch.finfo(answer.dtype).min)
    wide[:, kept] = answer
    return wide

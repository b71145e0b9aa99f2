"""A learner with a fixed adapted state as one module without memory: what is traced into a graph."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from quickstudy.learner import Learner
from quickstudy.trust import Calibration, probabilities, unknown_scores
from quickstudy.trust.unknown import score_of


class Adapted(nn.Module):
    """x (n, *input) → what a learner with a fixed adapted state says of it.

    Args:
        learner: its ``predict`` is called.
        adapted: what its ``adapt`` returned; tensors in it become buffers.
        numbers: the learner predicts numbers and no classes.
        calibration: for probabilities and the unknown score; None for temperature 1.
        score: the name of the unknown score; None for none.
    """

    def __init__(
        self,
        learner: Learner,
        adapted: Any,
        *,
        numbers: bool = False,
        calibration: Calibration | None = None,
        score: str | None = None,
    ):
        super().__init__()
        self.learner, self.adapted = learner, adapted
        self.numbers, self.calibration, self.score = numbers, calibration, score
        self.leaves, self.spec = pytree.tree_flatten(adapted)
        for i, leaf in enumerate(self.leaves):
            if isinstance(leaf, Tensor):
                self.register_buffer(f"adapted_{i}", leaf.detach().clone())
                self.leaves[i] = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what ``forward`` returns."""
        if self.numbers:
            return ("prediction",)
        return ("probabilities", "logits", *(() if self.score is None else ("unknown_score",)))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Predictions (n, d); or probabilities and logits (n, way), and the unknown score (n,) if there is one."""
        buffers = dict(self.named_buffers(recurse=False))
        leaves = [buffers.get(f"adapted_{i}", leaf) for i, leaf in enumerate(self.leaves)]
        answer = self.learner.predict(pytree.tree_unflatten(leaves, self.spec), x)
        if self.numbers:
            return (answer,)
        temperature = 1.0 if self.calibration is None else self.calibration.temperature
        z = answer / temperature
        found = (torch.softmax(z, dim=-1), answer)
        return found if self.score is None else (*found, score_of(z, temperature, self.score))

    def expected(self, x: Tensor) -> tuple[Tensor, ...]:
        """The same by the functions that estimators use, which look into the numbers and so have no graph."""
        answer = self.learner.predict(self.adapted, x)
        if self.numbers:
            return (answer,)
        found = (probabilities(answer, self.calibration), answer)
        return found if self.score is None else (*found, unknown_scores(answer, self.calibration)[self.score])

    def precision(self, x: Tensor) -> torch.dtype:
        """What its graph reckons in: double where examples are in double precision and the learner has no weights.

        Such are tables, whose columns may be large numbers that differ little; a network's weights are in single
        precision as a rule, and its graph is.
        """
        weights = any(t.is_floating_point() for t in (*self.learner.parameters(), *self.learner.buffers()))
        return torch.float64 if x.dtype == torch.float64 and not weights else torch.float32

    def in_precision(self, kind: torch.dtype) -> "Adapted":
        """The same, or a copy whose floating point numbers are of this kind."""
        kinds = {t.dtype for t in (*self.parameters(), *self.buffers()) if t.is_floating_point()}
        if kinds <= {kind}:
            return self
        learner = copy.deepcopy(self.learner).to(kind)
        adapted = pytree.tree_map_only(Tensor, lambda x: as_precision(x, kind), self.adapted)
        other = Adapted(learner, adapted, numbers=self.numbers, calibration=self.calibration, score=self.score)
        return other.eval()


def as_precision(x: Tensor, kind: torch.dtype) -> Tensor:
    """Floating point numbers as of this kind; tokens stay as they are."""
    return x.to(kind) if x.is_floating_point() else x

"""What a learned optimizer is trained and judged on: optimisation problems, and distributions of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from quickstudy.inner import Params, UpdateRule
from quickstudy.optimizers.coordinatewise import CoordinatewiseRule

Batch = Any
"""What one step of a problem looks at: tensors in tuples, lists and dicts, or an empty tuple."""


@dataclass(frozen=True)
class Problems:
    """``n`` optimisation problems of one shape, each with its own start and its own stream of data.

    Args:
        params: where each starts, by name, (n, *shape).
        given: what each problem is made of (matrices, tables, ...): tensors (n, ...) in tuples, lists and dicts.
        loss: (params of one problem, given of one, batch of one) → scalar; a pure function that ``vmap`` can map.
        draw: (generator) → the next batch of each problem, tensors (n, ...).
        judged_on: the batch, tensors (n, ...), on which a final loss is measured: fixed, and larger than one of the
            stream where there is one.
        kind: what they are, in words, for reports.
    """

    params: Params
    given: Any
    loss: Callable[[Params, Any, Batch], Tensor]
    draw: Callable[[torch.Generator], Batch]
    judged_on: Batch = ()
    kind: str = ""

    def __len__(self) -> int:
        return len(next(iter(self.params.values())))

    def losses(self, params: Params, batch: Batch) -> Tensor:
        """The loss of each problem, (n,).

        Args:
            params: (n, *shape) by name.
            batch: tensors (n, ...).
        """
        return torch.func.vmap(self.loss)(params, self.given, batch)

    def judge(self, params: Params) -> Tensor:
        """The loss of each problem on what it is judged on, (n,), without a graph."""
        with torch.no_grad():
            return self.losses(params, self.judged_on)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Problems":
        """The same on another device, floating point numbers in another precision. Batches are drawn where they were.

        Args:
            device: where parameters, what is given and batches go.
            dtype: of floating point tensors; unchanged by default.
        """

        def move(tree: Any) -> Any:
            return pytree.tree_map_only(Tensor, lambda t: t.to(device, dtype if t.is_floating_point() else None), tree)

        return Problems(
            params=move(self.params),
            given=move(self.given),
            loss=self.loss,
            draw=lambda generator: move(self.draw(generator)),
            judged_on=move(self.judged_on),
            kind=self.kind,
        )


class ProblemDistribution(Protocol):
    """p(T) of optimisation problems: what ``TaskDistribution`` is for episodes."""

    def sample(self, n: int, *, generator: torch.Generator) -> Problems:
        """Draw ``n`` problems of one shape; widths, depths and batch sizes are drawn once for all of them."""
        ...


def step_many(rule: UpdateRule, params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
    """One step of a rule on the parameters of several problems, (n, *shape).

    Problems are one more axis to a rule that treats elements alike; what it takes from whole tensors it takes from
    those of each problem.
    """
    if isinstance(rule, CoordinatewiseRule):
        return rule.step(params, grads, state, problems=1)
    return rule.step(params, grads, state)


def between(bounds: tuple[float, float], generator: torch.Generator) -> float:
    """A number between two positive ones, its logarithm uniform."""
    low, high = torch.tensor(bounds, dtype=torch.float64).log().tolist()
    return float(torch.exp(low + (high - low) * torch.rand((), dtype=torch.float64, generator=generator)))


def choose(options: Any, generator: torch.Generator) -> Any:
    """One of several, each as likely."""
    return options[int(torch.randint(len(options), (), generator=generator))]


def require_range(name: str, bounds: tuple[float, float]) -> None:
    """Refuse a range that is not two numbers above 0 in order.

    Raises:
        ValueError: naming the argument.
    """
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] < float("inf"):
        raise ValueError(
            f"{name}={tuple(bounds)}; required are two finite numbers above 0, the lower one first: correct the range"
        )

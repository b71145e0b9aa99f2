"""Problem distributions by name: what the command line and the results speak of."""

from collections.abc import Callable
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from quickstudy.optimizers.mixture import Mixture
from quickstudy.optimizers.networks import NetworkProblems
from quickstudy.optimizers.problem import ProblemDistribution
from quickstudy.optimizers.quadratics import Quadratics

Part = Literal["train", "test"]
_TRAIN = 0.6  # of the examples of every data set; the others are for problems that no rule was trained on


def named_problems(name: str, part: Part = "train") -> ProblemDistribution:
    """A distribution by its name, or several with plus signs (or commas) between them: "quadratics+mlp".

    Args:
        name: one of ``PROBLEMS``, or several.
        part: "train" or "test"; networks of one part never see the images or rows of the other.

    Raises:
        ValueError: an unknown name or part.
    """
    if part not in ("train", "test"):
        raise ValueError(f"part={part!r}; choose 'train' or 'test'")
    names = [word.strip() for word in name.replace(",", "+").split("+")]
    unknown = [word for word in names if word not in PROBLEMS]
    if unknown:
        raise ValueError(f"there are no problems {unknown[0]!r}; choose among {', '.join(PROBLEMS)}, or some with +")
    parts = [PROBLEMS[word](part) for word in names]
    return parts[0] if len(parts) == 1 else Mixture(parts)


def _part_of(x: Tensor, y: Tensor, part: Part) -> tuple[Tensor, Tensor]:
    """One part of the rows, always the same ones."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    cut = int(_TRAIN * len(x))
    rows = order[:cut] if part == "train" else order[cut:]
    return x[rows], y[rows]


@cache
def _digits(part: Part) -> tuple[Tensor, Tensor]:
    """The 8×8 digits that come with scikit-learn, in [0, 1]: (n, 64)."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return _part_of(torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y), part)


@cache
def _table(name: str, part: Part) -> tuple[Tensor, Tensor]:
    """A table that comes with scikit-learn, columns standardised."""
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x = torch.tensor(x, dtype=torch.float64)
    x = ((x - x.mean(0)) / x.std(0).clamp(min=1e-6)).float()
    return _part_of(x, torch.tensor(y), part)


@cache
def _glyphs(part: Part) -> tuple[Tensor, Tensor]:
    """The characters drawn from fonts, twenty of them, as 14×14 pictures, flat."""
    from quickstudy.tasks.named import named_tasks

    tasks = named_tasks("glyphs", part, way=20, shot=1, queries=9)
    episode = tasks.sample(1, generator=torch.Generator().manual_seed(0))
    x = torch.cat([episode.support.x[0], episode.query.x[0]])
    y = torch.cat([episode.support.y[0], episode.query.y[0]]).argmax(-1)
    return torch.nn.functional.avg_pool2d(x, 2).flatten(1), y


def _tables(part: Part) -> ProblemDistribution:
    return Mixture(
        [
            NetworkProblems(*_table(name, part), depths=(0,), batches=(16, 64), penalty=0.01, name=name)
            for name in ("breast_cancer", "wine", "iris")
        ]
    )


def _on_digits(part: Part, **settings) -> ProblemDistribution:
    return NetworkProblems(*_digits(part), **{"name": "digits", **settings})


def _cnn(part: Part) -> ProblemDistribution:
    x, y = _digits(part)
    return NetworkProblems(
        x.view(-1, 1, 8, 8),
        y,
        depths=(1, 2),
        widths=(8, 16),
        activations=("relu",),
        batches=(32, 64),
        convolutional=True,
        name="digits",
    )


PROBLEMS: dict[str, Callable[[Part], ProblemDistribution]] = {
    "quadratics": lambda part: Quadratics(),
    "tables": _tables,
    "mlp": _on_digits,
    "relu": lambda part: _on_digits(part, activations=("relu",)),
    "wide": lambda part: _on_digits(part, widths=(64, 128)),
    "deep": lambda part: _on_digits(part, depths=(3,)),
    "glyphs": lambda part: NetworkProblems(*_glyphs(part), name="glyphs"),
    "cnn": _cnn,
}
"""name → (part) → distribution: quadratics of 10 dimensions; logistic regression on tables; sigmoid and tanh networks
of one or two layers of 16 to 32 units on digits ("mlp"), and others that differ from it in one thing each: ReLU units,
64 to 128 units, three layers, pictures of characters, convolutions."""

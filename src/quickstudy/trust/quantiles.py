"""Order statistics with a finite-sample guarantee, few enough to store.

Of n exchangeable numbers and one more, the new one is at most the k-th smallest of the n with probability at least
k/(n + 1). So the number with rank k = ⌈(n + 1)·level⌉ holds the new one with probability ``level`` or a little more,
and there is no such number when k > n.

V. Vovk, A. Gammerman, G. Shafer. Algorithmic Learning in a Random World. Springer, 2005.
"""

import math
from decimal import ROUND_CEILING, Context, Decimal

from torch import Tensor

STEPS = 200
"""Levels are stored in steps of 1/200: 0, 0.5 %, ..., 100 %."""

_UP = Context(prec=5, rounding=ROUND_CEILING)


def stored_quantiles(values: Tensor) -> tuple[float, ...]:
    """The number with rank ⌈(n + 1)·j/200⌉ among ``values`` (n,) for j = 0 ... 200, or the nearest that there is.

    Each is rounded up to 5 digits: a larger threshold keeps the guarantee, and a file stays short.
    """
    n, ordered = len(values), values.double().sort().values
    return tuple(_round_up(float(ordered[min(max(_rank(n, j), 1), n) - 1])) for j in range(STEPS + 1))


def threshold(quantiles: tuple[float, ...], level: float, examples: int, wanted: str) -> float:
    """What a new number exceeds with probability at most 1 − ``level``.

    Args:
        quantiles: of ``stored_quantiles``; between two stored levels the higher one is taken.
        level: in (0, 1).
        examples: how many numbers the quantiles rest on.
        wanted: what an error calls the level: "coverage=0.9".

    Raises:
        ValueError: a level outside (0, 1), or too few examples for it.
    """
    if not 0 < level < 1:
        raise ValueError(f"{wanted} was asked for; required is a number between 0 and 1, such as 0.9 or 0.05")
    j = _step(level)
    if j == STEPS:
        raise ValueError(
            f"{wanted} was asked for, and levels are stored in steps of 0.5 %: ask for no less than 0.005 "
            "of false alarms, and for no more than 0.995 of coverage"
        )
    if _rank(examples, j) > examples:
        most = examples * STEPS // (examples + 1) / STEPS
        possible = f"false_alarms={1 - most:g} or more" if wanted.startswith("false") else f"coverage={most:g} or less"
        raise ValueError(
            f"{wanted} was asked for, and the calibration rests on {examples} examples; required are "
            f"{examples_needed(level)}: give more labelled examples, or ask for {possible}"
        )
    return quantiles[j]


def examples_needed(level: float) -> int:
    """How many calibration examples a level in (0, 0.995] takes: 9 for 0.9, 19 for 0.95, 99 for 0.99.

    ``level`` is the coverage of prediction sets, or 1 − the rate of false alarms.
    """
    j = _step(level)
    if not 0 < j < STEPS:
        raise ValueError(f"level={level}; required is a number above 0 and at most 0.995")
    return math.ceil(j / (STEPS - j))


def _step(level: float) -> int:
    return math.ceil(level * STEPS - 1e-9)


def _rank(n: int, j: int) -> int:
    return -((n + 1) * j // -STEPS)  # ⌈(n + 1)·j/200⌉


def _round_up(value: float) -> float:
    return float(_UP.create_decimal(Decimal(value)))

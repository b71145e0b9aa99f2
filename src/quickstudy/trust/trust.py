"""What calibration found, as plain values that a file can hold."""

import dataclasses
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np

from quickstudy.trust.quantiles import STEPS

SCORES = ("maximum_logit", "energy", "maximum_probability", "entropy", "margin")
"""The scores for unknown classes; ``unknown_scores`` says what each is. Higher: less like any class of the task."""

CONFORMITIES = ("logit", "probability")
"""By what a class is in a set; ``prediction_sets`` says what each is."""


_LEAST = 1e-15  # of a number whose logarithm is taken


@dataclass(frozen=True)
class Calibration:
    """What holds for tasks of one way and shot.

    Attributes:
        way, shot: classes per task and support examples per class.
        temperature: logits are divided by it.
        ece_before, ece_after: expected calibration error without and with the temperature, in [0, 1].
        known: score name → 201 quantiles of the score of queries of known classes, in steps of 0.5 %.
        auroc: score name → how well it tells queries of known classes from others: 0.5 is chance, 1 perfect.
        conformity: "logit" → 201 quantiles of minus the logit of the true class, "probability" → those of 1 − its
            probability with the temperature.
        examples: how many queries of known classes all this rests on.

    Raises:
        ValueError: numbers that no calibration can have found.
    """

    way: int
    shot: int
    temperature: float
    ece_before: float
    ece_after: float
    known: dict[str, tuple[float, ...]]
    auroc: dict[str, float]
    conformity: dict[str, tuple[float, ...]]
    examples: int

    def __post_init__(self) -> None:
        whole = {name: getattr(self, name) for name in ("way", "shot", "examples")}
        if not all(isinstance(value, int) and value >= 1 for value in whole.values()):
            raise ValueError(f"a calibration for {whole}; required are whole numbers of at least 1")
        if not (_is_number(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature={self.temperature!r}; required is a finite number above 0")
        shares = {"ece_before": self.ece_before, "ece_after": self.ece_after, **dict(self.auroc)}
        wrong = {name: value for name, value in shares.items() if not (_is_number(value) and 0 <= value <= 1)}
        if wrong:
            raise ValueError(f"a calibration with {wrong}; required are numbers in [0, 1]")
        if set(self.known) != set(self.auroc) or not set(self.known) <= set(SCORES) or not self.known:
            raise ValueError(
                f"a calibration of the scores {sorted(self.known)} with the AUROC of {sorted(self.auroc)}; required "
                f"are the same, among {', '.join(SCORES)}"
            )
        if set(self.conformity) != set(CONFORMITIES):
            raise ValueError(f"a calibration of sets by {sorted(self.conformity)}; required is {CONFORMITIES}")
        for name, values in {**self.conformity, **self.known}.items():
            numbers = len(values) == STEPS + 1 and all(map(_is_number, values))
            if not numbers or any(a > b for a, b in pairwise(values)):
                raise ValueError(f"the quantiles of {name} are not {STEPS + 1} finite numbers in ascending order")


@dataclass(frozen=True)
class Trust:
    """Calibrations for several ways and shots.

    Attributes:
        calibrations: at least one.
        score: the score by which unknown classes are told, of ``SCORES``.
        conformity: what sets go by, of ``CONFORMITIES``.
        source: what it was fitted on, in words.
    """

    calibrations: tuple[Calibration, ...]
    score: str
    conformity: str
    source: str

    def __post_init__(self) -> None:
        if not self.calibrations or not all(self.score in c.known for c in self.calibrations):
            raise ValueError(
                f"{len(self.calibrations)} calibrations for the score {self.score!r}; required is one at least, and "
                "that each knows the score"
            )
        if self.conformity not in CONFORMITIES:
            raise ValueError(f"conformity={self.conformity!r}; required is one of {', '.join(CONFORMITIES)}")
        if any(set(c.known) != set(self.calibrations[0].known) for c in self.calibrations):
            raise ValueError("calibrations of different scores; required is that all know the same")
        pairs = sorted((c.way, c.shot) for c in self.calibrations)
        if pairs != list(product(*(sorted(set(values)) for values in zip(*pairs, strict=True)))):
            raise ValueError(f"calibrations for {pairs}; required is one for every pair of a way and a shot among them")

    def at(self, way: int, shot: float) -> Calibration:
        """The calibration for a way and shot: one that was fitted, or between the fitted ones around it.

        Between them it is interpolated along the logarithms of way and shot; beyond them the nearest holds.

        Args:
            way: the classes of the task, at least 1.
            shot: the support examples of a class; their mean where classes differ.

        Returns:
            a calibration with the way and shot it stands for: those asked for, or the nearest ones inside what was
            fitted, the shot as a whole number.

        Raises:
            ValueError: less than one of them.
        """
        if not (way >= 1 and shot >= 1):
            raise ValueError(f"way={way}, shot={shot}; required is at least 1 of each")
        fitted = {(c.way, c.shot): c for c in self.calibrations}
        ways, shots = (sorted(set(values)) for values in zip(*fitted, strict=True))
        corners = [(fitted[w, s], a * b) for w, a in _around(ways, way) for s, b in _around(shots, shot)]
        way, shot = min(max(way, min(ways)), max(ways)), min(max(shot, min(shots)), max(shots))
        return corners[0][0] if len(corners) == 1 else _between(corners, way=way, shot=round(shot))

    def as_dict(self) -> dict[str, Any]:
        """Values that JSON can hold; ``from_dict`` takes them back."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Trust":
        """Trust from what ``as_dict`` gave, also after it went through JSON.

        Raises:
            ValueError: values that are missing, of another kind, or impossible.
        """
        try:
            given = dict(values)
            calibrations = tuple(_calibration(dict(c)) for c in given.pop("calibrations"))
            words = {name: given.pop(name) for name in ("score", "conformity", "source")}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this is no stored trust ({error}): use a copy that was not edited") from error
        if given or not all(isinstance(word, str) for word in words.values()):
            raise ValueError("this is no stored trust (other fields than it has): use a copy that was not edited")
        return Trust(calibrations, **words)


def _calibration(values: dict[str, Any]) -> Calibration:
    known, conformity = (
        {name: tuple(quantiles) for name, quantiles in values.pop(field).items()} for field in ("known", "conformity")
    )
    return Calibration(known=known, conformity=conformity, **values)


def _around(fitted: list[int], wanted: float) -> list[tuple[int, float]]:
    """The fitted numbers next to ``wanted`` with their weights: one or two, that add up to 1."""
    i = bisect_right(fitted, wanted)
    if i == 0 or i == len(fitted) or fitted[i - 1] == wanted:
        return [(fitted[max(i - 1, 0)], 1.0)]
    low, high = fitted[i - 1], fitted[i]
    share = math.log(wanted / low) / math.log(high / low)
    return [(low, 1 - share), (high, share)]


def _between(corners: list[tuple[Calibration, float]], *, way: int, shot: int) -> Calibration:
    """The weighted mean of calibrations; a geometric one where numbers are positive factors."""

    def mean(values: Iterable[Any]) -> Any:
        return sum(weight * np.asarray(value) for value, (_, weight) in zip(values, corners, strict=True))

    def geometric(values: Iterable[Any]) -> Any:
        return np.exp(mean(np.log(np.maximum(value, _LEAST)) for value in values))

    found = [c for c, _ in corners]
    return Calibration(
        way=way,
        shot=shot,
        temperature=float(geometric(c.temperature for c in found)),
        ece_before=min(float(mean(c.ece_before for c in found)), 1.0),
        ece_after=min(float(mean(c.ece_after for c in found)), 1.0),
        known={name: tuple(mean(c.known[name] for c in found).tolist()) for name in found[0].known},
        auroc={name: min(float(mean(c.auroc[name] for c in found)), 1.0) for name in found[0].auroc},
        conformity={
            "logit": tuple(mean(c.conformity["logit"] for c in found).tolist()),
            "probability": tuple(geometric(c.conformity["probability"] for c in found).tolist()),
        },
        examples=min(c.examples for c in found),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

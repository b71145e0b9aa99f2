"""Rules and baselines on two distributions, as an evaluation leaves them, without running anything."""

import math

import torch

from quickstudy.optimizer_evaluation import Evaluated
from quickstudy.optimizer_judging import Judged, Tuned

STEPS = (10, 30)


def small_evaluation(problems: str = "quadratics", *, rule: str = "lstm", gain: float = 0.5) -> Evaluated:
    """A rule that beats Adam by e^gain and is beaten by it on other problems where gain is below 0."""
    generator = torch.Generator().manual_seed(0)
    start = 3 + torch.rand(8, generator=generator)
    judged, tuned = [], []
    for steps in STEPS:
        t = torch.arange(steps + 1)[:, None]
        for name, rate in {rule: 0.10 + gain / steps, "Adam": 0.10, "SGD": 0.05}.items():
            curve = torch.exp(start - rate * t * (1 + 0.01 * start))  # (steps + 1, problems)
            lr = None if name == rule else 0.1
            judged.append(Judged(name, steps, curve[-1].log(), lr, together=4, curve=curve))
            if lr is not None:
                tuned.append(Tuned(name, steps, lr, 1.0, at_edge=name == "SGD", by_rate={0.01: math.inf, 0.1: 1.0}))
    return Evaluated(problems, (rule,), STEPS, tuple(tuned), tuple(judged), seed=0)

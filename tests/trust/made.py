"""Made-up tasks and calibrations for the tests of trust."""

from typing import Any

import torch
from torch import Tensor, nn

import quickstudy as q
from quickstudy.trust import CONFORMITIES, SCORES, Calibration
from quickstudy.trust.quantiles import stored_quantiles


def gaussian_tasks(classes: int = 40, each: int = 16, *, seed: int = 0, spread: float = 0.5, **settings: Any):
    """Classes are clouds in 6 dimensions, in groups of 8."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, 1, 6, generator=generator)
    x = centres + spread * torch.randn(classes, each, 6, generator=generator)
    labels = [i for i in range(classes) for _ in range(each)]
    return q.ClassTasks(x.flatten(0, 1), labels, groups=[i // 8 for i in labels], **{"queries": 4, **settings})


def nearest() -> q.ProtoNet:
    return q.ProtoNet(nn.Identity())


def drawn_labels(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One-hot labels that follow softmax(logits)."""
    labels = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)
    return q.one_hot(labels, logits.shape[1])


def made(**changes: Any) -> Calibration:
    """A calibration that is what it should be, but for the changes."""
    quantiles = stored_quantiles(torch.linspace(0, 1, 1000))
    values: dict[str, Any] = {
        "way": 5,
        "shot": 2,
        "temperature": 0.5,
        "ece_before": 0.1,
        "ece_after": 0.02,
        "known": dict.fromkeys(SCORES, quantiles),
        "auroc": dict.fromkeys(SCORES, 0.9),
        "conformity": dict.fromkeys(CONFORMITIES, quantiles),
        "examples": 1000,
    }
    return Calibration(**{**values, **changes})

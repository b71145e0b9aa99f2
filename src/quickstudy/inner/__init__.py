"""The inner loop as pure functions on parameter dicts: update rules, and the ways to differentiate through them."""

from quickstudy.inner.call import call, with_tensors
from quickstudy.inner.implicit import DidNotConverge, Implicit
from quickstudy.inner.learned import Curvature, LearnedRates, StepRates
from quickstudy.inner.rules import SGD, ByName, Params, Proximal, Stationary, UpdateRule
from quickstudy.inner.steps import finite_losses
from quickstudy.inner.torch_optim import TorchOptim
from quickstudy.inner.unfused import Unfused
from quickstudy.inner.unroll import AnyMode, Mode, Truncated, as_mode, trajectory, unroll

RULES = (SGD, Proximal, ByName, LearnedRates, StepRates, Curvature, TorchOptim)
"""The update rules that saved files know by name."""

__all__ = [
    "RULES",
    "SGD",
    "AnyMode",
    "ByName",
    "Curvature",
    "DidNotConverge",
    "Implicit",
    "LearnedRates",
    "Mode",
    "Params",
    "Proximal",
    "Stationary",
    "StepRates",
    "TorchOptim",
    "Truncated",
    "Unfused",
    "UpdateRule",
    "as_mode",
    "call",
    "finite_losses",
    "trajectory",
    "unroll",
    "with_tensors",
]

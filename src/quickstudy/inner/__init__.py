"""The inner loop as pure functions on parameter dicts."""

from quickstudy.inner.rules import SGD, Params, UpdateRule
from quickstudy.inner.unroll import Mode, unroll

__all__ = ["SGD", "Mode", "Params", "UpdateRule", "unroll"]

"""From query losses to a meta-gradient; and from an optimizer's way through problems to that of its rule."""

from quickstudy.outer.backpropagated import Backpropagated
from quickstudy.outer.check import GradientCheck, check_meta_gradient
from quickstudy.outer.evolution import EvolutionStrategies
from quickstudy.outer.map_tasks import Strategy, map_tasks
from quickstudy.outer.strategies import Refused
from quickstudy.outer.unrolled import fastest_strategy, unrolled

__all__ = [
    "Backpropagated",
    "EvolutionStrategies",
    "GradientCheck",
    "Refused",
    "Strategy",
    "check_meta_gradient",
    "fastest_strategy",
    "map_tasks",
    "unrolled",
]

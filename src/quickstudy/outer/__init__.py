"""From query losses to a meta-gradient."""

from quickstudy.outer.check import GradientCheck, check_meta_gradient
from quickstudy.outer.map_tasks import Strategy, map_tasks
from quickstudy.outer.strategies import Refused
from quickstudy.outer.unrolled import fastest_strategy, unrolled

__all__ = ["GradientCheck", "Refused", "Strategy", "check_meta_gradient", "fastest_strategy", "map_tasks", "unrolled"]

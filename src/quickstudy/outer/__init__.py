"""From query losses to a meta-gradient."""

from quickstudy.outer.check import GradientCheck, check_meta_gradient
from quickstudy.outer.map_tasks import Strategy, map_tasks
from quickstudy.outer.unrolled import unrolled

__all__ = ["GradientCheck", "Strategy", "check_meta_gradient", "map_tasks", "unrolled"]

"""Task distributions p(T)."""

from quickstudy.tasks.across_groups import AcrossGroups
from quickstudy.tasks.all_classes import AllClasses
from quickstudy.tasks.augment import InTurn, RandomAffine, RandomElastic
from quickstudy.tasks.class_tasks import ClassTasks, examples_of
from quickstudy.tasks.gaussian_process import GaussianProcess
from quickstudy.tasks.named import TASKS, class_tasks, named_tasks
from quickstudy.tasks.sinusoid import Sinusoid
from quickstudy.tasks.two_drawers import TwoDrawers

__all__ = [
    "TASKS",
    "AcrossGroups",
    "AllClasses",
    "ClassTasks",
    "GaussianProcess",
    "InTurn",
    "RandomAffine",
    "RandomElastic",
    "Sinusoid",
    "TwoDrawers",
    "class_tasks",
    "examples_of",
    "named_tasks",
]

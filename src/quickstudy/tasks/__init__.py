"""Task distributions p(T)."""

from quickstudy.tasks.all_classes import AllClasses
from quickstudy.tasks.augment import RandomAffine
from quickstudy.tasks.class_tasks import ClassTasks
from quickstudy.tasks.named import TASKS, class_tasks, named_tasks
from quickstudy.tasks.sinusoid import Sinusoid

__all__ = ["TASKS", "AllClasses", "ClassTasks", "RandomAffine", "Sinusoid", "class_tasks", "named_tasks"]

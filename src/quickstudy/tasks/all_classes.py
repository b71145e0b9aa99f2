"""Plain classification as a task distribution: one task over all classes, for pretraining a backbone."""

from dataclasses import dataclass

import torch

from quickstudy.episode import Episode, Labelled, one_hot
from quickstudy.tasks.class_tasks import ClassTasks


@dataclass(frozen=True)
class AllClasses:
    """Every task is the same: tell all classes of ``tasks`` apart. Its support set is empty.

    Args:
        tasks: where the examples come from; its way, shot and queries play no part.
        batch: examples per draw.
    """

    tasks: ClassTasks
    batch: int = 128

    def sample(self, n: int, *, generator: torch.Generator) -> Episode:
        """Draw ``n`` mini-batches: query x (n, batch, *input), y (n, batch, classes); support with 0 examples."""
        tasks = self.tasks
        rows = torch.randint(len(tasks.x), (n * self.batch,), generator=generator)
        label = torch.searchsorted(tasks.offsets, rows, right=True) - 1
        x = tasks.examples(rows)
        if tasks.augment is not None:
            x = tasks.augment(x, generator)
        x, y = x.view(n, self.batch, *x.shape[1:]), one_hot(label, len(tasks)).view(n, self.batch, -1)
        return Episode(Labelled(x[:, :0], y[:, :0]), Labelled(x, y))

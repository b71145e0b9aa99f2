"""One-shot classification as people were asked it: one drawer shows every character, another one draws them again.

Lake, Salakhutdinov, Tenenbaum, "Human-level concept learning through probabilistic program induction", Science 2015: 20
runs, each of 20 characters of one alphabet, with two of its drawers.
"""

from dataclasses import dataclass

import torch

from quickstudy.episode import Episode, TaskDistribution
from quickstudy.tasks.class_tasks import ClassTasks


@dataclass(frozen=True)
class TwoDrawers(TaskDistribution):
    """Random trials drawn as the published ones: 1 support image of each class by one drawer, 1 query by another.

    Args:
        tasks: the characters; the i-th example of every class was drawn by the i-th drawer, as Omniglot has it. Its way
            counts, and ``within_group`` for characters of one alphabet; its shot and queries do not.

    Raises:
        ValueError: classes with unequal numbers of examples, or with fewer than two; a range for way.

    Differs from the paper: its runs are 20 fixed ones over ten alphabets; here alphabet, characters and drawers are
    drawn at random for each trial.
    """

    tasks: ClassTasks

    def __post_init__(self) -> None:
        counts, way = self.tasks.counts, self.tasks.way
        if int(counts.min()) != int(counts.max()) or int(counts.min()) < 2:
            raise ValueError(
                f"classes have {int(counts.min())} to {int(counts.max())} examples; required is one by each of the "
                "same two drawers or more"
            )
        if way[0] != way[1]:
            raise ValueError(f"way={way}; required is one number")

    def sample(self, n: int, *, generator: torch.Generator) -> Episode:
        """Draw ``n`` trials: support x (n, way, *input), y (n, way, way); queries alike, in the same order."""
        tasks, way = self.tasks, self.tasks.way[0]
        classes = tasks._draw_classes(n, way, generator)  # (n, way)
        drawers = torch.rand(n, int(tasks.counts[0]), generator=generator).argsort(1)[:, :2]  # (n, 2)
        rows = tasks.offsets[classes].unsqueeze(-1) + drawers.unsqueeze(1)  # (n, way, 2)
        label = torch.arange(way).view(1, way, 1).expand(n, way, 1)
        support, query = (tasks._labelled(rows[..., i : i + 1], label, way, generator) for i in (0, 1))
        return Episode(support, query)

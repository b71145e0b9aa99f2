"""Tasks whose support set comes from one group and whose queries come from another: one speaker, then another one."""

from dataclasses import dataclass

import torch

from quickstudy.episode import Episode, TaskDistribution
from quickstudy.tasks.class_tasks import ClassTasks


@dataclass(frozen=True)
class AcrossGroups(TaskDistribution):
    """Learn the labels from one group and tell them apart in another.

    A class of ``tasks`` is a label of a group, and its name ends in ``/LABEL``: "theo/7" is the seven of theo.
    A task draws two groups, a way of the labels that all groups share, support examples of these labels from the first
    group and queries from the second one.

    Args:
        tasks: where the examples come from, with its way, shot, queries and ``augment``; at least two groups.

    Raises:
        ValueError: classes without groups or of a single one, a label that a group has twice, fewer shared labels than
            ``way``, or a range for way or shot, which these tasks do not draw from.
    """

    tasks: ClassTasks

    def __post_init__(self) -> None:
        tasks, groups = self.tasks, list(dict.fromkeys(self.tasks.class_groups or ()))
        if len(groups) < 2:
            raise ValueError(f"{tasks} have {len(groups)} groups; required are two, for support and for queries")
        if tasks.way[0] != tasks.way[1] or tasks.shot[0] != tasks.shot[1]:
            raise ValueError(f"way={tasks.way}, shot={tasks.shot}; required is one number for each")
        if self.table().shape[1] < tasks.way[0]:
            raise ValueError(
                f"{len(groups)} groups share {self.table().shape[1]} labels, and way={tasks.way[0]}: lower the way"
            )

    def table(self) -> torch.Tensor:
        """The index of each shared label's class in each group: (groups, labels)."""
        names: dict[str, dict[str, int]] = {}
        for i, (name, group) in enumerate(zip(self.tasks.classes, self.tasks.class_groups or (), strict=True)):
            own, label = names.setdefault(str(group), {}), str(name).rpartition("/")[2]
            if label in own:
                raise ValueError(
                    f"group {group!r} has label {label!r} twice; required is one class GROUP/LABEL for each: rename "
                    "them"
                )
            own[label] = i
        shared = sorted(set.intersection(*(set(found) for found in names.values())))
        return torch.tensor([[found[label] for label in shared] for found in names.values()], dtype=torch.int64)

    def sample(self, n: int, *, generator: torch.Generator) -> Episode:
        """Draw ``n`` tasks; support x (n, way·shot, *input), y (n, way·shot, way), ordered by class; queries alike."""
        tasks, table = self.tasks, self.table()
        way, shot = tasks.way[0], tasks.shot[0]
        groups = torch.rand(n, len(table), generator=generator).argsort(1)[:, :2, None]  # (n, 2, 1): support, query
        labels = torch.rand(n, table.shape[1], generator=generator).argsort(1)[:, None, :way]  # (n, 1, way)
        classes = table[groups, labels]  # (n, 2, way)
        place = torch.arange(way).view(1, way, 1)
        parts = []
        for part, k in ((0, shot), (1, tasks.queries)):
            rows = tasks._draw_examples(classes[:, part], k, generator)  # (n, way, k)
            parts.append(tasks._labelled(rows, place.expand(rows.shape), way, generator))
        return Episode(*parts)

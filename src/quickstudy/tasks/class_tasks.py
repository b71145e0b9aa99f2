"""N-way K-shot tasks from anyone's labelled examples (Vinyals et al. 2016, arXiv:1606.04080)."""

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from quickstudy.episode import Episode, Labelled, TaskDistribution, one_hot
from quickstudy.tasks.inputs import as_examples, as_list, as_range, as_whole, encode, group_of_each, take
from quickstudy.tasks.parts import deal

Range = int | tuple[int, int]
Augment = Callable[[Tensor, torch.Generator], Tensor]
_SETTINGS = ("way", "shot", "queries", "balanced", "within_group", "augment", "drop_small")


class ClassTasks:
    """Episodes over the classes of a labelled data set.

    Args:
        x: examples (n, *input), a tensor or anything numpy takes. uint8 is taken as images and handed out as floats in
            [0, 1]. Floating point numbers, booleans and wider unsigned integers are features: handed out with the same
            values in torch's default dtype. Signed integers are taken as tokens and stay as they are.
        y: n labels of one kind that sorts: integers, strings, tuples; in a list, array, tensor or column of a table.
        groups: for each example the group of its class (alphabet, speaker, hospital), for splits by group.
        way: classes per task, or an inclusive range (lowest, highest) from which each call of ``sample`` draws once.
        shot: support examples per class, or such a range.
        queries: query examples per class.
        balanced: every class of a task has the same shot. Otherwise each class draws its own from the range, and
            shorter ones are filled up with padding: an all-zero row of y, and in x the first support example of the
            class again, so that batch statistics stay those of real examples.
        within_group: all classes of a task come from one group.
        augment: (examples (m, *input), generator) → changed examples, applied to everything that is handed out.
        drop_small: leave out the classes with fewer than shot + queries examples; a later ``replace`` does not bring
            them back.

    Attributes:
        classes: the distinct labels, sorted.
        class_groups: the group of each class, or None.
        dropped: the labels that ``drop_small`` left out.

    Raises:
        ValueError: lengths that differ, NaN or infinite examples, missing labels, a class in two groups, fewer classes
            than ``way``, a class with fewer than shot + queries examples (named).
    """

    def __init__(
        self,
        x: Tensor | np.ndarray | Sequence[Any],
        y: Sequence[Any] | np.ndarray | Tensor,
        *,
        groups: Sequence[Any] | np.ndarray | Tensor | None = None,
        way: Range = 5,
        shot: Range = 1,
        queries: int = 15,
        balanced: bool = True,
        within_group: bool = False,
        augment: Augment | None = None,
        drop_small: bool = False,
    ):
        values = as_examples(x)
        self.classes, label = encode(y, "labels")
        names, group = ([], label) if groups is None else encode(groups, "groups")
        if not len(values) == len(label) == len(group):
            more = "" if groups is None else f", {len(group)} groups"
            raise ValueError(
                f"{len(values)} examples, {len(label)} labels{more}; required is one label (and group) for each"
            )
        self.class_groups = None if groups is None else group_of_each(self.classes, label, names, group)
        self.x = take(values, np.argsort(label, kind="stable"))
        _refuse_nan(self.x)
        self.counts = torch.from_numpy(np.bincount(label, minlength=len(self.classes)))
        self.offsets = self.counts.cumsum(0) - self.counts
        self.dropped: list[Any] = []
        self.way, self.shot, self.queries = as_range("way", way), as_range("shot", shot), as_whole("queries", queries)
        self.balanced, self.within_group, self.augment, self.drop_small = balanced, within_group, augment, drop_small
        self._settle()

    def __repr__(self) -> str:
        groups = "" if self.class_groups is None else f", {len(set(self.class_groups))} groups"
        setting = f"way={self.way}, shot={self.shot}, queries={self.queries}"
        return f"ClassTasks({len(self.x)} examples of {len(self.classes)} classes{groups}; {setting})"

    def __len__(self) -> int:
        """The number of classes."""
        return len(self.classes)

    def replace(self, **settings: Any) -> "ClassTasks":
        """The same data under other settings (way, shot, queries, balanced, within_group, augment, drop_small)."""
        unknown = set(settings) - set(_SETTINGS)
        if unknown:
            raise ValueError(f"{sorted(unknown)} are no settings of class tasks: choose among {_SETTINGS}")
        other = copy.copy(self)
        taken = {"way": as_range, "shot": as_range, "queries": as_whole}
        for name, value in settings.items():
            setattr(other, name, taken[name](name, value) if name in taken else value)
        other._settle()
        return other

    def only(self, *, classes: Sequence[Any] | None = None, groups: Sequence[Any] | None = None) -> "ClassTasks":
        """The tasks over some of the classes, or over the classes of some groups."""
        if (classes is None) == (groups is None):
            raise ValueError("only() takes either classes or groups")
        chosen = dict.fromkeys(as_list(groups if classes is None else classes))
        keys = self._keys("class" if groups is None else "group")
        there = set(keys)
        missing = [name for name in chosen if name not in there]
        if missing:
            raise ValueError(
                f"{missing[:3]} are not in the data, which hold {sorted(there, key=str)[:5]}...: choose among these"
            )
        return self._subset([i for i, key in enumerate(keys) if key in chosen])

    def split(
        self,
        parts: Mapping[str, float | Sequence[Any]],
        *,
        by: Literal["class", "group"] = "class",
        generator: torch.Generator | None = None,
    ) -> dict[str, "ClassTasks"]:
        """Disjoint parts, no class or group in two of them.

        Args:
            parts: name → the classes or groups themselves, or name → a fraction: of all classes or groups, or, beside
                parts that list theirs, of those left over. They are drawn at random; fractions add up to at most 1.
            by: what is divided; by "group", classes of one group stay together.
            generator: draws the random parts; not needed where all are given by name.

        Raises:
            ValueError: a class or group in two parts, fractions over 1, or a part too small for ``way``.
        """
        keys = self._keys(by)
        owner = deal(list(dict.fromkeys(keys)), parts, by, generator)
        return {name: self._subset([i for i, key in enumerate(keys) if owner.get(key) == name], name) for name in parts}

    def sample(self, n: int, *, generator: torch.Generator) -> Episode:
        """Draw ``n`` tasks; support rows are ordered by class, and a meta-batch shares way and shape.

        Returns:
            an episode with a leading axis of n: support x (n, way·shot, *input), y (n, way·shot, way); queries alike.
        """
        way, shot = _draw(self.way, generator), _draw(self.shot, generator) if self.balanced else self.shot[1]
        classes = self._draw_classes(n, way, generator)  # (n, way)
        rows = self._draw_examples(classes, shot + self.queries, generator)  # (n, way, shot + queries)
        label = torch.arange(way).view(1, way, 1).expand(rows.shape)
        kept = label[..., :shot]
        if not self.balanced:
            shots = torch.randint(self.shot[0], self.shot[1] + 1, (n, way, 1), generator=generator)
            kept = torch.where(torch.arange(shot) < shots, kept, -1)
        return Episode(
            self._labelled(rows[..., :shot], kept, way, generator),
            self._labelled(rows[..., shot:], label[..., shot:], way, generator),
        )

    def _labelled(self, rows: Tensor, label: Tensor, way: int, generator: torch.Generator) -> Labelled:
        x = self.examples(rows.flatten())
        if self.augment is not None:
            x = self.augment(x, generator)
        y = one_hot(label.flatten(1), way)  # (n, way·k, way)
        x = x.view(*y.shape[:2], *x.shape[1:])  # (n, way·k, *input)
        if bool((label < 0).any()):  # padding: the first example of its class again
            place = torch.arange(y.shape[1]).view(1, way, -1)
            place = torch.where(label < 0, place[..., :1], place).flatten(1)  # (n, way·k)
            x = x[torch.arange(len(x)).unsqueeze(1), place]
        return Labelled(x, y)

    def examples(self, rows: Tensor) -> Tensor:
        """The stored examples at these rows (sorted by class), as they are handed out: (len(rows), *input)."""
        x = self.x[rows]
        if x.dtype == torch.uint8:
            return x.to(torch.get_default_dtype()).div_(255)
        return x.to(torch.get_default_dtype()) if x.is_floating_point() or x.dtype == torch.bool else x

    def checksum(self) -> str:
        """SHA-256 over examples and class names, in hexadecimal."""
        digest = hashlib.sha256(self.x.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        digest.update(repr((self.classes, self.counts.tolist())).encode())
        return digest.hexdigest()

    def rows_of(self, class_index: int) -> Tensor:
        """The rows that hold the examples of one class."""
        start = int(self.offsets[class_index])
        return torch.arange(start, start + int(self.counts[class_index]))

    def _draw_classes(self, n: int, way: int, generator: torch.Generator) -> Tensor:
        keys = torch.rand(n, len(self.classes), generator=generator)
        if self.within_group:
            group = self._group_index()
            large = (torch.bincount(group) >= way).nonzero().flatten()
            chosen = large[torch.randint(len(large), (n, 1), generator=generator)]  # (n, 1)
            keys = torch.where(group == chosen, keys, 2.0)
        return keys.topk(way, largest=False).indices

    def _draw_examples(self, classes: Tensor, k: int, generator: torch.Generator) -> Tensor:
        keys = torch.rand(*classes.shape, int(self.counts.max()), generator=generator)
        keys = torch.where(torch.arange(keys.shape[-1]) < self.counts[classes].unsqueeze(-1), keys, 2.0)
        return self.offsets[classes].unsqueeze(-1) + keys.topk(k, largest=False).indices

    def _group_index(self) -> Tensor:
        return torch.from_numpy(encode(self._keys("group"), "groups")[1])

    def _keys(self, by: str) -> list[Any]:
        if by == "class":
            return self.classes
        if by != "group":
            raise ValueError(f"by={by!r}; choose 'class' or 'group'")
        if self.class_groups is None:
            raise ValueError("these tasks have no groups: pass groups= (one for each example) to ClassTasks")
        return self.class_groups

    def _settle(self) -> None:
        """Leave out what the settings leave out, and check what remains."""
        small = self.counts < self.shot[1] + self.queries
        if self.drop_small and bool(small.any()):
            self.dropped = self.dropped + [self.classes[i] for i in small.nonzero().flatten()]
            self._keep((~small).nonzero().flatten().tolist())
        self._check()

    def _keep(self, chosen: list[int]) -> None:
        rows = torch.cat([self.rows_of(i) for i in chosen]) if chosen else torch.empty(0, dtype=torch.int64)
        self.x = self.x[rows]
        self.counts = self.counts[chosen]
        self.offsets = self.counts.cumsum(0) - self.counts
        self.classes = [self.classes[i] for i in chosen]
        self.class_groups = None if self.class_groups is None else [self.class_groups[i] for i in chosen]

    def _subset(self, chosen: list[int], part: str | None = None) -> "ClassTasks":
        other = copy.copy(self)
        other._keep(chosen)
        other._check(part)
        return other

    def _check(self, part: str | None = None) -> None:
        where = "" if part is None else f"part {part!r}: "
        if not 2 <= self.way[0] <= self.way[1]:
            raise ValueError(f"way={self.way}; required are at least 2 classes: fewer leave nothing to tell apart")
        if not 1 <= self.shot[0] <= self.shot[1] or self.queries < 1:
            raise ValueError(f"shot={self.shot}, queries={self.queries}; required is at least 1 of each")
        needed = self.shot[1] + self.queries
        if len(self.classes) < self.way[1]:
            left = ""
            if self.dropped and part is None:
                left = f" ({len(self.dropped)} with fewer than shot + queries = {needed} examples were left out)"
            raise ValueError(
                f"{where}{len(self.classes)} classes{left} for way={self.way[1]}: lower the way"
                f"{', the shot or the queries' if left else ''}, or bring more classes"
            )
        if int(self.counts.min()) < needed:
            worst = int(self.counts.argmin())
            raise ValueError(
                f"{where}class {self.classes[worst]!r} has {int(self.counts[worst])} examples; required are shot + "
                f"queries = {self.shot[1]} + {self.queries} = {needed}: lower one of them, leave the class out, or "
                "pass drop_small=True, which leaves out all classes that are too small"
            )
        if self.within_group and int(torch.bincount(self._group_index()).max()) < self.way[1]:
            raise ValueError(f"{where}no group has {self.way[1]} classes: lower the way, or set within_group=False")


def examples_of(tasks: TaskDistribution) -> ClassTasks | None:
    """The labelled examples behind class tasks, also behind those that draw from them in a way of their own."""
    inner = getattr(tasks, "tasks", tasks)
    return inner if isinstance(inner, ClassTasks) else None


def _draw(bounds: tuple[int, int], generator: torch.Generator) -> int:
    if bounds[0] == bounds[1]:
        return bounds[0]
    return int(torch.randint(bounds[0], bounds[1] + 1, (), generator=generator))


def _refuse_nan(x: Tensor) -> None:
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).reshape(len(x), -1).any(1).sum())
        raise ValueError(f"{bad} of {len(x)} examples hold NaN or infinite values: clean or impute them first")

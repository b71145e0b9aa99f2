"""N-way K-shot tasks from anyone's labelled examples (Vinyals et al. 2016, arXiv:1606.04080)."""

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from quickstudy.episode import Episode, Labelled, one_hot

Range = int | tuple[int, int]
Augment = Callable[[Tensor, torch.Generator], Tensor]
_SETTINGS = ("way", "shot", "queries", "balanced", "within_group", "augment")


class ClassTasks:
    """Episodes over the classes of a labelled data set.

    Args:
        x: examples (n, *input), tensor or array. uint8 is taken as images and handed out as floats in [0, 1]; floating
            point numbers are handed out in torch's default dtype, integers as they are.
        y: n labels of any kind that sorts: integers, strings.
        groups: for each example the group of its class (alphabet, speaker, hospital), for splits by group.
        way: classes per task, or an inclusive range (lowest, highest) from which each call of ``sample`` draws once.
        shot: support examples per class, or such a range.
        queries: query examples per class.
        balanced: every class of a task has the same shot. Otherwise each class draws its own from the range, and
            shorter ones are filled up with padding: an all-zero row of y.
        within_group: all classes of a task come from one group.
        augment: (examples (m, *input), generator) → changed examples, applied to everything that is handed out.

    Attributes:
        classes: the distinct labels, sorted.
        class_groups: the group of each class, or None.

    Raises:
        ValueError: lengths that differ, NaN or infinite examples, a class in two groups, fewer classes than ``way``, a
            class with fewer than shot + queries examples (named).
    """

    def __init__(
        self,
        x: Tensor | np.ndarray,
        y: Sequence[Any] | np.ndarray | Tensor,
        *,
        groups: Sequence[Any] | np.ndarray | None = None,
        way: Range = 5,
        shot: Range = 1,
        queries: int = 15,
        balanced: bool = True,
        within_group: bool = False,
        augment: Augment | None = None,
    ):
        values = torch.as_tensor(x)
        names, label = np.unique(np.asarray(y), return_inverse=True)
        if len(values) != len(label) or (groups is not None and len(groups) != len(label)):
            more = "" if groups is None else f", {len(groups)} groups"
            raise ValueError(
                f"{len(values)} examples, {len(label)} labels{more}; required is one label (and group) for each"
            )
        if values.is_floating_point() and not bool(torch.isfinite(values).all()):
            bad = int((~torch.isfinite(values)).reshape(len(values), -1).any(1).sum())
            raise ValueError(f"{bad} of {len(values)} examples hold NaN or infinite values: clean or impute them first")
        order = np.argsort(label, kind="stable")
        self.x = values[torch.from_numpy(order)]
        self.counts = torch.from_numpy(np.bincount(label, minlength=len(names)))
        self.offsets = self.counts.cumsum(0) - self.counts
        self.classes: list[Any] = names.tolist()
        self.class_groups = None if groups is None else _group_of_each(self.classes, label, groups)
        self.way, self.shot, self.queries = _range(way), _range(shot), queries
        self.balanced, self.within_group, self.augment = balanced, within_group, augment
        self._check()

    def __repr__(self) -> str:
        groups = "" if self.class_groups is None else f", {len(set(self.class_groups))} groups"
        setting = f"way={self.way}, shot={self.shot}, queries={self.queries}"
        return f"ClassTasks({len(self.x)} examples of {len(self.classes)} classes{groups}; {setting})"

    def __len__(self) -> int:
        """The number of classes."""
        return len(self.classes)

    def replace(self, **settings: Any) -> "ClassTasks":
        """The same data under other settings (way, shot, queries, balanced, within_group, augment)."""
        unknown = set(settings) - set(_SETTINGS)
        if unknown:
            raise ValueError(f"{sorted(unknown)} are no settings of class tasks: choose among {_SETTINGS}")
        other = copy.copy(self)
        for name, value in settings.items():
            setattr(other, name, _range(value) if name in ("way", "shot") else value)
        other._check()
        return other

    def only(self, *, classes: Sequence[Any] | None = None, groups: Sequence[Any] | None = None) -> "ClassTasks":
        """The tasks over some of the classes, or over the classes of some groups."""
        if (classes is None) == (groups is None):
            raise ValueError("only() takes either classes or groups")
        chosen = list(classes if classes is not None else groups or ())
        there = self._keys("class" if groups is None else "group")
        missing = [name for name in chosen if name not in set(there)]
        if missing:
            raise ValueError(f"{missing[:3]} are not in the data, which hold {sorted(set(there), key=str)[:5]}...")
        return self._subset([i for i, key in enumerate(there) if key in set(chosen)])

    def split(
        self,
        parts: Mapping[str, float | Sequence[Any]],
        *,
        by: Literal["class", "group"] = "class",
        generator: torch.Generator | None = None,
    ) -> dict[str, "ClassTasks"]:
        """Disjoint parts, no class or group in two of them.

        Args:
            parts: name → fraction of the classes or groups (drawn at random, fractions add up to at most 1), or
                name → the classes or groups themselves.
            by: what is divided; by "group", classes of one group stay together.
            generator: draws the random parts; not needed where all are given by name.

        Raises:
            ValueError: a class or group in two parts, fractions over 1, or a part too small for ``way``.
        """
        keys = self._keys(by)
        distinct = list(dict.fromkeys(keys))
        fractions = {name: p for name, p in parts.items() if isinstance(p, (int, float))}
        listed = {name: list(p) for name, p in parts.items() if not isinstance(p, (int, float))}
        owner: dict[Any, str] = {}
        for name, members in listed.items():
            for member in members:
                if member not in set(distinct):
                    raise ValueError(f"part {name!r} names the {by} {member!r}, which the data do not hold")
                if owner.setdefault(member, name) != name:
                    raise ValueError(
                        f"{by} {member!r} is in both {owner[member]!r} and {name!r}; parts must not overlap: "
                        "leave it in one of them"
                    )
        if sum(fractions.values()) > 1 + 1e-9 or any(fraction < 0 for fraction in fractions.values()):
            raise ValueError(
                f"the fractions {fractions} add up to {sum(fractions.values()):g}; required are fractions of at least "
                "0 that add up to at most 1"
            )
        if fractions and generator is None:
            raise ValueError("parts given as fractions are drawn at random: pass generator=torch.Generator()")
        free = [key for key in distinct if key not in owner]
        if fractions:
            free = [free[i] for i in torch.randperm(len(free), generator=generator).tolist()]
        start, total = 0.0, len(free)
        for name, fraction in fractions.items():
            for key in free[round(start * total) : round((start + fraction) * total)]:
                owner[key] = name
            start += fraction
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
        if not self.balanced:
            x = torch.where((label.flatten(1) >= 0).view(*y.shape[:2], *(1,) * (x.ndim - 2)), x, 0)
        return Labelled(x, y)

    def examples(self, rows: Tensor) -> Tensor:
        """The stored examples at these rows (sorted by class), as they are handed out: (len(rows), *input)."""
        x = self.x[rows]
        if x.dtype == torch.uint8:
            return x.to(torch.get_default_dtype()).div_(255)
        return x.to(torch.get_default_dtype()) if x.is_floating_point() else x

    def checksum(self) -> str:
        """SHA-256 over examples and class names, in hexadecimal."""
        digest = hashlib.sha256(np.ascontiguousarray(self.x.numpy()).data)
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
        return torch.from_numpy(np.unique(np.asarray(self._keys("group")), return_inverse=True)[1])

    def _keys(self, by: str) -> list[Any]:
        if by == "class":
            return self.classes
        if by != "group":
            raise ValueError(f"by={by!r}; choose 'class' or 'group'")
        if self.class_groups is None:
            raise ValueError("these tasks have no groups: pass groups= (one for each example) to ClassTasks")
        return self.class_groups

    def _subset(self, chosen: Sequence[int], part: str | None = None) -> "ClassTasks":
        other = copy.copy(self)
        rows = torch.cat([self.rows_of(i) for i in chosen]) if chosen else torch.empty(0, dtype=torch.int64)
        other.x = self.x[rows]
        other.counts = self.counts[list(chosen)]
        other.offsets = other.counts.cumsum(0) - other.counts
        other.classes = [self.classes[i] for i in chosen]
        other.class_groups = None if self.class_groups is None else [self.class_groups[i] for i in chosen]
        other._check(part)
        return other

    def _check(self, part: str | None = None) -> None:
        where = "" if part is None else f"part {part!r}: "
        if not 2 <= self.way[0] <= self.way[1]:
            raise ValueError(f"way={self.way}; required are at least 2 classes: fewer leave nothing to tell apart")
        if not 1 <= self.shot[0] <= self.shot[1] or self.queries < 1:
            raise ValueError(f"shot={self.shot}, queries={self.queries}; required is at least 1 of each")
        if len(self.classes) < self.way[1]:
            raise ValueError(
                f"{where}{len(self.classes)} classes for way={self.way[1]}: lower the way, or bring more classes"
            )
        needed = self.shot[1] + self.queries
        if int(self.counts.min()) < needed:
            worst = int(self.counts.argmin())
            raise ValueError(
                f"{where}class {self.classes[worst]!r} has {int(self.counts[worst])} examples; required are shot + "
                f"queries = {self.shot[1]} + {self.queries} = {needed}: lower one of them, or leave the class out"
            )
        if self.within_group and int(torch.bincount(self._group_index()).max()) < self.way[1]:
            raise ValueError(f"{where}no group has {self.way[1]} classes: lower the way, or set within_group=False")


def _range(value: Range) -> tuple[int, int]:
    lowest, highest = value if isinstance(value, (tuple, list)) else (value, value)
    return int(lowest), int(highest)


def _draw(bounds: tuple[int, int], generator: torch.Generator) -> int:
    if bounds[0] == bounds[1]:
        return bounds[0]
    return int(torch.randint(bounds[0], bounds[1] + 1, (), generator=generator))


def _group_of_each(classes: list[Any], label: np.ndarray, groups: Sequence[Any] | np.ndarray) -> list[Any]:
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    lowest = np.full(len(classes), len(names))
    highest = np.full(len(classes), -1)
    np.minimum.at(lowest, label, index)
    np.maximum.at(highest, label, index)
    torn = np.flatnonzero(lowest != highest)
    if len(torn):
        i = torn[0]
        raise ValueError(
            f"class {classes[i]!r} is in the groups {names[lowest[i]].item()!r} and {names[highest[i]].item()!r}; a "
            "class must lie in one group, or splits by group would share it: rename it for each group"
        )
    return names[lowest].tolist()

"""Dealing classes or groups to disjoint parts."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import torch

from quickstudy.tasks.inputs import as_list


def deal(
    keys: Sequence[Any], parts: Mapping[str, float | Sequence[Any]], noun: str, generator: torch.Generator | None
) -> dict[Any, str]:
    """Which part each key goes to; keys of no part are left out.

    Args:
        keys: distinct classes or groups.
        parts: name → members, or the fraction that is drawn of the keys that no part lists.
        noun: what an error calls a key: "class" or "group".
        generator: draws; needed for fractions.

    Raises:
        ValueError: a member that is not there or in two parts, fractions over 1 or below 0, no generator for fractions.
    """
    fractions = {name: float(part) for name, part in parts.items() if isinstance(part, Real)}
    listed = {name: as_list(part) for name, part in parts.items() if not isinstance(part, Real)}
    there, owner = set(keys), dict[Any, str]()
    for name, members in listed.items():
        for member in members:
            if member not in there:
                raise ValueError(
                    f"part {name!r} names the {noun} {member!r}, which the data do not hold; they hold "
                    f"{list(keys)[:5]}...: correct the name, or leave it out"
                )
            if owner.setdefault(member, name) != name:
                raise ValueError(
                    f"{noun} {member!r} is in both {owner[member]!r} and {name!r}; parts must not overlap: "
                    "leave it in one of them"
                )
    if not sum(fractions.values()) <= 1 + 1e-6 or any(fraction < 0 for fraction in fractions.values()):
        raise ValueError(
            f"the fractions {fractions} add up to {sum(fractions.values()):g}; required are fractions of at least "
            "0 that add up to at most 1"
        )
    if fractions and generator is None:
        raise ValueError("parts given as fractions are drawn at random: pass generator=torch.Generator()")
    free = [key for key in keys if key not in owner]
    if fractions:
        free = [free[i] for i in torch.randperm(len(free), generator=generator).tolist()]
    start = 0.0
    for name, fraction in fractions.items():
        for key in free[round(start * len(free)) : round((start + fraction) * len(free))]:
            owner[key] = name
        start += fraction
    return owner

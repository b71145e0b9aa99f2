"""How many points a regression task has: a number, or a range from which each meta-batch draws."""

import torch

from quickstudy.tasks.inputs import as_range, as_whole

Points = int | tuple[int, int]


def check_points(shot: Points, queries: int) -> None:
    """Refuse tasks without points.

    Raises:
        ValueError: anything but whole numbers from 1, or a range whose highest is below its lowest.
    """
    lowest, highest = as_range("shot", shot)
    if lowest < 1 or as_whole("queries", queries) < 1:
        raise ValueError(f"shot={shot}, queries={queries}; required is at least 1 of each")
    if highest < lowest:
        raise ValueError(f"shot={shot}; required is a range (lowest, highest): turn it round")


def draw_points(shot: Points, generator: torch.Generator) -> int:
    """One number of points from the inclusive range; nothing is drawn where there is no choice."""
    lowest, highest = as_range("shot", shot)
    return lowest if lowest == highest else int(torch.randint(lowest, highest + 1, (), generator=generator))

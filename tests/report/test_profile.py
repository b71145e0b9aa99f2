"""The plots of a profile."""

import re
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from quickstudy.profiling import Measured, Profile, Setup
from quickstudy.report import profile as plots


def of(*rows: Measured, **arguments) -> Profile:
    return Profile(Setup(threads=1, steps=(1, 50), **arguments), rows)


PROFILE = of(
    *(Measured("reverse", 1, 60_000_000, 9.0, 0.1), Measured("reverse", 50, 400_000_000, 9.0, 2.0)),
    *(Measured("recompute", 1, 60_000_000, 9.0, 0.1), Measured("recompute", 50, 61_000_000, 9.0, 2.01)),
    *(Measured("implicit", 1, 60_000_000, 9.0, 0.1), Measured("implicit", 50, failure="out of memory")),
)


def texts(figure: Figure) -> list[str]:
    (axes,) = figure.axes
    return [text.get_text() for text in axes.texts]


def memory(profile: Profile) -> Figure:
    return plots.draw(profile, "MB", lambda row: None if row.peak_bytes is None else row.peak_bytes / 1e6)


def test_each_mode_is_a_line_of_its_values_with_its_name():
    figure = memory(PROFILE)
    (axes,) = figure.axes
    drawn = {line.get_label(): np.asarray(line.get_data()).tolist() for line in axes.get_lines()}
    assert drawn["reverse"] == [[1, 50], [60, 400]]
    assert drawn["recompute"] == [[1, 50], [60, 61]]
    assert drawn["implicit"] == [[1], [60]]
    assert set(texts(figure)) == {"reverse", "recompute", "implicit"}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "50"]


def test_the_axis_ends_at_round_numbers():
    (axes,) = memory(PROFILE).axes
    assert axes.get_ylim() == (50, 500)


def test_names_of_lines_that_end_together_stand_apart():
    (axes,) = memory(PROFILE).axes
    heights = sorted(axes.transData.transform(text.xy)[1] for text in axes.texts)  # pyright: ignore
    assert min(b - a for a, b in pairwise(heights)) > 10


def test_a_mode_keeps_its_colour_whatever_stands_beside_it():
    def colour(profile):
        (axes,) = memory(profile).axes
        return {line.get_label(): line.get_color() for line in axes.get_lines()}["recompute"]

    assert colour(PROFILE) == colour(of(Measured("recompute", 1, 1_000_000, 1.0, 1.0)))


def test_two_small_pictures_are_written(tmp_path):
    paths = plots.write(PROFILE, tmp_path / "new")
    assert [path.name for path in paths] == ["memory.png", "time.png"]
    for path in paths:
        with Image.open(path) as image:
            assert image.width > 800
        assert path.stat().st_size < 100_000


def test_the_same_profile_gives_the_same_bytes(tmp_path):
    first, second = plots.write(PROFILE, tmp_path / "a")[0], plots.write(PROFILE, tmp_path / "b")[0]
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(("tasks", "words"), [(1, r"15 queries per class$"), (4, r"class, 4 tasks$")])
def test_the_title_says_what_was_measured(tasks, words):
    (axes,) = memory(of(*PROFILE.rows, tasks=tasks)).axes
    assert re.search(words, axes.get_title(loc="left"))
    assert axes.get_title(loc="left").startswith("maml on conv4: 5-way 1-shot")


def test_a_profile_in_which_all_failed_is_an_empty_plot(tmp_path):
    plots.write(of(Measured("reverse", 1, failure="out of memory")), tmp_path)

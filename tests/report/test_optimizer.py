"""The report of update rules: what it says and draws."""

import math
import re
from itertools import pairwise

import numpy as np
import pytest

from quickstudy.report import optimizer, optimizer_curves
from quickstudy.report.optimizer_curves import Curve, apart, draw, quartiles
from tests.small_evaluation import small_evaluation

VERSIONS = {"quickstudy": "0", "torch": "2"}


def text_of(path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    found = [small_evaluation("quadratics", gain=0.5), small_evaluation("mlp", gain=-0.5)]
    path = tmp_path_factory.mktemp("report") / "new" / "report.html"
    return text_of(optimizer.write(found, path, command=["quickstudy", "x y"], versions=VERSIONS))


def test_the_page_needs_no_other_file(page):
    assert not re.search(r'(src|href)="(?!#|data:)', page)
    assert "default-src 'none'" in page
    assert "http" not in page.replace("http-equiv", "")


def test_it_says_who_wins_also_where_a_baseline_does(page):
    lead = "In 4 comparisons with the best tuned baseline, lstm has the lower loss in 2 and the higher loss in 2."
    assert lead in page
    rows = re.findall(r'<th scope="row"><bdi>(quadratics|mlp)</bdi></th>(.*?)</tr>', page, re.DOTALL)
    winners = [re.findall(r"<td.*?>(.*?)</td>", rest)[2] for _, rest in rows]
    assert [name for name, _ in rows] == ["quadratics", "quadratics", "mlp", "mlp"]
    assert winners == ["lstm", "lstm", "Adam", "Adam"]


def test_every_distribution_has_a_panel_and_a_table_for_each_number_of_steps(page):
    assert page.count('<svg viewBox="0 0') - page.count('class="swatch"') == 4
    for caption in ("quadratics, 10 steps", "quadratics, 30 steps", "mlp, 10 steps", "mlp, 30 steps"):
        assert f"<caption>{caption}</caption>" in page
    assert "0.1 (edge)" in page
    assert "x y" in page
    assert 'aria-label="Losses on mlp over 10 steps. After 10 steps, Adam wins over lstm' in page


def test_a_name_is_escaped(tmp_path):
    found = small_evaluation(rule="<b>&")
    text = text_of(optimizer.write([found], tmp_path / "report.html", command=[], versions=VERSIONS))
    assert "<b>&" not in text
    assert "&lt;b&gt;&amp;" in text


def test_the_same_evaluation_gives_the_same_bytes(tmp_path):
    a, b = (optimizer.write([small_evaluation()], tmp_path / name, command=[], versions=VERSIONS) for name in "ab")
    assert a.read_bytes() == b.read_bytes()


def curve(name: str, end: float, *, place: int = 0, bold: bool = False) -> Curve:
    losses = np.geomspace(10, end, 21)[:, None] * np.array([0.5, 1.0, 2.0, 1.0])
    return Curve(name, losses, place, bold)


def test_lines_are_medians_with_their_names_at_the_ends_and_none_over_another():
    names = [f"n{i}" for i in range(8)]
    figure = draw([curve(name, 1.0 + 0.01 * i, place=i, bold=i == 0) for i, name in enumerate(names)], y_label="loss")
    (axes,) = figure.axes
    lines = [line for line in axes.get_lines() if len(np.asarray(line.get_xdata())) > 2]  # the others lead to names
    assert len(lines) == 8
    assert np.asarray(lines[-1].get_ydata())[[0, -1]] == pytest.approx([10, 1])  # the bold one, on top
    heights = sorted(text.get_position()[1] for text in axes.texts)
    assert min(b - a for a, b in pairwise(heights)) >= optimizer_curves._LINE - 1e-9
    assert {text.get_text() for text in axes.texts} == set(names)
    assert len(axes.collections) == 1
    assert axes.get_yscale() == "log"


def test_what_diverges_leaves_the_picture_and_takes_nothing_with_it():
    wild = Curve("wild", np.array([[1.0] * 4, [1e9] * 4, [np.inf] * 4]), 1, True)
    never = Curve("never", np.full((3, 4), np.nan), 2, False)
    calm = Curve("calm", np.array([[1.0] * 4, [0.5] * 4, [0.25] * 4]), 0, False)
    (axes,) = draw([wild, never, calm], y_label="loss").axes
    assert axes.get_ylim()[1] < 3
    assert "never" not in {text.get_text() for text in axes.texts}


def test_a_loss_of_exactly_0_has_no_place_on_the_axis():
    (axes,) = draw([curve("calm", 1.0), Curve("zero", np.zeros((21, 4)), 1, True)], y_label="loss").axes
    assert {text.get_text() for text in axes.texts} == {"calm"}
    optimizer_curves.curves([curve("calm", 1.0), Curve("zero", np.zeros((21, 4)), 1, True)], y_label="loss", label="")


def test_a_name_in_letters_without_a_shape_is_drawn_all_the_same():
    optimizer_curves.curves([curve("规则", 1.0)], y_label="loss", label="规则")


def test_quartiles_of_problems_some_of_which_diverged():
    losses = np.array([[1.0, 2.0, 3.0, math.nan, math.inf]])
    assert quartiles(losses).tolist() == [[2.0], [3.0], [math.inf]]


@pytest.mark.parametrize(
    ("places", "wanted"),
    [
        ([0.0, 0.5, 1.0], [0.0, 0.5, 1.0]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.1, 0.5, 0.5, 0.5], [0.1, 0.4, 0.5, 0.6]),
        ([0.5, 0.5, 0.56], [0.42, 0.52, 0.62]),
        ([], []),
    ],
)
def test_names_move_as_little_as_it_takes(places, wanted):
    assert apart(places, 0.1) == pytest.approx(wanted)

"""What is stored: through JSON and back, the calibration between those that were fitted, and edited values."""

import dataclasses
import json
import math

import pytest

from quickstudy.trust import CONFORMITIES, SCORES, Trust
from tests.trust.made import made


def sets(quantiles) -> dict[str, tuple[float, ...]]:
    """The same quantiles, or the same number, by logit and by probability."""
    return dict.fromkeys(CONFORMITIES, quantiles if isinstance(quantiles, tuple) else (quantiles,) * 201)


def grid() -> Trust:
    """Temperatures 1, 2 (shot 1, 4) for way 2, and 4, 8 for way 8."""
    shapes = ((2, 1), (2, 4), (8, 1), (8, 4))
    found = tuple(made(way=w, shot=s, temperature=2.0**i, examples=100 + i) for i, (w, s) in enumerate(shapes))
    return Trust(found, "energy", "logit", "made up")


def test_it_goes_through_json_and_back():
    trust = grid()
    assert Trust.from_dict(json.loads(json.dumps(trust.as_dict()))) == trust


def test_a_fitted_pair_is_given_as_it_is_and_beyond_them_the_nearest():
    trust = grid()
    for fitted in trust.calibrations:
        assert trust.at(fitted.way, fitted.shot) is fitted
    assert trust.at(100, 50) is trust.calibrations[3]
    assert trust.at(8, 4.0) is trust.calibrations[3]


def test_between_fitted_pairs_it_is_interpolated_along_logarithms():
    between = grid().at(4, 2)  # half of the way in both
    assert (between.way, between.shot, between.examples) == (4, 2, 100)
    assert between.temperature == pytest.approx((1 * 2 * 4 * 8) ** 0.25)
    one_side = grid().at(4, 1)
    assert one_side.temperature == pytest.approx((1 * 4) ** 0.5)
    assert grid().at(2, 3).temperature == pytest.approx(2 ** (math.log(3) / math.log(4)))
    assert grid().at(4, 40).shot == 4


def test_certainty_stays_certainty_between_fitted_pairs():
    ones = {"ece_before": 1.0, "auroc": dict.fromkeys(SCORES, 1.0), "conformity": sets(0.0)}
    trust = Trust(tuple(made(way=w, shot=s, **ones) for w in (2, 47) for s in (1, 13)), "energy", "logit", "made up")
    for way in range(2, 50):
        for shot in range(1, 15):
            assert trust.at(way, shot).auroc["energy"] == pytest.approx(1.0)


def test_quantiles_between_are_means_and_of_conformity_geometric_ones():
    low = made(way=2, known={"energy": (0.0,) * 201}, auroc={"energy": 0.6}, conformity=sets(0.0001))
    high = made(way=8, known={"energy": (1.0,) * 201}, auroc={"energy": 0.8}, conformity=sets(0.01))
    between = Trust((low, high), "energy", "logit", "made up").at(4, 2)
    assert between.known["energy"] == pytest.approx((0.5,) * 201)
    assert between.auroc["energy"] == pytest.approx(0.7)
    assert between.conformity["probability"] == pytest.approx((0.001,) * 201)
    assert between.conformity["logit"] == pytest.approx((0.00505,) * 201)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"way": 0}, "required are whole numbers of at least 1"),
        ({"shot": 1.5}, "required are whole numbers of at least 1"),
        ({"examples": "many"}, "required are whole numbers of at least 1"),
        ({"temperature": 0.0}, r"temperature=0.0; required is a finite number above 0"),
        ({"temperature": math.inf}, "required is a finite number above 0"),
        ({"temperature": None}, "required is a finite number above 0"),
        ({"ece_after": 1.5}, r"'ece_after': 1.5.*required are numbers in \[0, 1\]"),
        ({"auroc": dict.fromkeys(SCORES, math.nan)}, r"required are numbers in \[0, 1\]"),
        ({"auroc": {"energy": 0.5}}, "required are the same, among maximum_logit"),
        ({"known": {}, "auroc": {}}, "required are the same, among maximum_logit"),
        ({"known": {"size": (0.0,) * 201}, "auroc": {"size": 0.5}}, "required are the same, among maximum_logit"),
        ({"conformity": sets((0.0,) * 200)}, "quantiles of logit are not 201 finite numbers in ascending order"),
        ({"conformity": {"logit": (0.0,) * 201}}, "a calibration of sets by .*required is .'logit', 'probability'."),
        ({"conformity": sets((1.0,) + (0.0,) * 200)}, "not 201 finite numbers in ascending order"),
        ({"conformity": sets(("x",) * 201)}, "not 201 finite numbers in ascending order"),
        ({"conformity": sets((math.inf,) * 201)}, "not 201 finite numbers in ascending order"),
    ],
)
def test_impossible_calibrations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        made(**changes)


def test_trust_that_does_not_hang_together_is_refused():
    with pytest.raises(ValueError, match="0 calibrations for the score 'energy'; required is one at least"):
        Trust((), "energy", "logit", "")
    with pytest.raises(ValueError, match="1 calibrations for the score 'size'"):
        Trust((made(),), "size", "logit", "")
    with pytest.raises(ValueError, match="conformity='rank'; required is one of logit, probability"):
        Trust((made(),), "energy", "rank", "")
    with pytest.raises(ValueError, match="required is one for every pair of a way and a shot"):
        Trust((made(way=2, shot=1), made(way=5, shot=5)), "energy", "logit", "")
    with pytest.raises(ValueError, match="required is one for every pair of a way and a shot"):
        Trust((made(), made()), "energy", "logit", "")
    fewer = made(way=9, known={"energy": made().known["energy"]}, auroc={"energy": 0.5})
    with pytest.raises(ValueError, match="of different scores; required is that all know the same"):
        Trust((made(), fewer), "energy", "logit", "")
    with pytest.raises(ValueError, match=r"way=0, shot=1; required is at least 1 of each"):
        grid().at(0, 1)


def test_edited_values_are_refused():
    values = grid().as_dict()
    edits = [
        {},
        {**values, "score": 3},
        {**values, "conformity": None},
        {**values, "more": 1},
        {**values, "calibrations": 5},
        {**values, "calibrations": [7]},
        {**values, "calibrations": [{**values["calibrations"][0], "known": []}]},
        {**values, "calibrations": [{**values["calibrations"][0], "colour": 1}]},
        {**values, "calibrations": [{**values["calibrations"][0], "temperature": "hot"}]},
        [],
    ]
    for edited in edits:
        with pytest.raises(ValueError, match=r"this is no stored trust .*use a copy that was not edited"):
            Trust.from_dict(edited)  # pyright: ignore[reportArgumentType]


def test_it_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        grid().score = "margin"  # pyright: ignore[reportAttributeAccessIssue]

"""Nearest neighbour against a slow loop."""

import pytest

import quickstudy as q
from tests.contract import CASES, one


def test_the_closest_support_example_decides():
    episode = one(CASES["nearest_neighbour"])
    learner = q.NearestNeighbour()
    (sx, sy), (qx, _) = episode
    prediction = learner.predict(learner.adapt(episode.support), qx)
    for m, x in enumerate(qx):
        distances = [float(((x - s) ** 2).sum()) for s in sx]
        nearest = min(range(len(sx)), key=distances.__getitem__)
        assert int(prediction[m].argmax()) == int(sy[nearest].argmax())
        for k in range(sy.shape[1]):
            best = min(d for d, row in zip(distances, sy, strict=True) if row[k] == 1)
            assert float(prediction[m, k]) == pytest.approx(-best, rel=1e-5)

"""The linear probe against an independent solver of the same problem."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

import quickstudy as q
from tests.contract import CASES, one


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_many_steps_reach_the_regularised_logistic_regression():
    episode = one(CASES["protonet"], shot=4)
    l2 = 0.05
    learner = q.LinearProbe(torch.nn.Identity(), steps=1000, l2=l2)
    adapted = learner.adapt(episode.support)
    z = torch.nn.functional.normalize(episode.support.x)
    # scikit-learn minimises C·Σ cross-entropy + ½‖W‖²
    theirs = LogisticRegression(C=1 / (2 * l2 * len(z)), tol=1e-10, max_iter=10_000)
    theirs.fit(z.numpy(), episode.support.y.argmax(-1).numpy())
    torch.testing.assert_close(adapted["weight"], torch.from_numpy(theirs.coef_), rtol=1e-3, atol=1e-4)
    probability = learner.predict(adapted, episode.query.x).softmax(-1)
    expected = theirs.predict_proba(torch.nn.functional.normalize(episode.query.x).numpy())
    torch.testing.assert_close(probability, torch.from_numpy(expected), rtol=1e-3, atol=1e-4)

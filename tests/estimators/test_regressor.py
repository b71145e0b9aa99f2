"""FewShotRegressor: scikit-learn's own checks, and learners that predict numbers."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.utils.estimator_checks import parametrize_with_checks

import quickstudy as q
from quickstudy import FewShotClassifier, FewShotRegressor


@parametrize_with_checks([FewShotRegressor()])
def test_scikit_learns_own_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, about the checks themselves
        check(estimator)


def test_it_predicts_numbers_and_takes_more():
    x, y = load_diabetes(return_X_y=True)
    model = FewShotRegressor().fit(x[:50], y[:50])
    few = model.score(x[200:], y[200:])
    assert few > 0.2
    assert model.partial_fit(x[50:200], y[50:200]).score(x[200:], y[200:]) > few
    assert model.predict(x[:3]).shape == (3,)


def test_a_scale_of_targets_changes_nothing():
    x, y = load_diabetes(return_X_y=True)
    plain = FewShotRegressor().fit(x[:50], y[:50]).predict(x[50:60])
    scaled = FewShotRegressor().fit(x[:50], 1000 * y[:50] + 7).predict(x[50:60])
    np.testing.assert_allclose(scaled, 1000 * plain + 7, rtol=1e-6)


def test_a_meta_trained_learner_for_sinusoids(tmp_path):
    torch.manual_seed(0)
    learner = q.MAML(q.MLP(1, (8,), 1), head=None, inner_steps=2, inner_lr=0.05)
    x = np.linspace(-3, 3, 10)[:, None]
    model = FewShotRegressor(learner).fit(x, np.sin(x[:, 0]))
    assert model.predict([[0.5]]).shape == (1,)
    model.save(tmp_path / "model.safetensors")
    again = q.load_model(tmp_path / "model.safetensors")
    np.testing.assert_allclose(again.predict(x), model.predict(x), rtol=1e-6)
    with pytest.raises(ValueError, match="holds a FewShotRegressor; required is a FewShotClassifier"):
        FewShotClassifier.load(tmp_path / "model.safetensors")


def test_several_outputs():
    x = np.random.default_rng(0).normal(size=(20, 3))
    y = x @ np.array([[1.0, 0], [0, 1], [1, 1]])
    model = FewShotRegressor().fit(x, y)
    np.testing.assert_allclose(model.predict(x), y, atol=0.1)
    assert FewShotRegressor().fit(x, y[:, :1]).predict(x).shape == (20, 1)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([1.0, 2.0], "inconsistent|2 targets"),
        (None, "requires y to be passed"),
        ([1.0, float("nan"), 2.0], "NaN"),
        (["a", "b", "c"], "could not convert"),
    ],
)
def test_targets_that_cannot_be_learnt(targets, message):
    with pytest.raises(ValueError, match=message):
        FewShotRegressor().fit([[1.0], [2.0], [3.0]], targets)

"""FewShotClassifier: scikit-learn's own checks, and what a person does with a handful of examples."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris, make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import quickstudy as q
from quickstudy import FewShotClassifier
from quickstudy.learners import ProtoNet, SimpleShot
from quickstudy.readers import ArrayReader, ImageReader


@parametrize_with_checks([FewShotClassifier(), FewShotClassifier(false_alarms=0.2)])
def test_scikit_learns_own_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, about the checks themselves
        check(estimator)


@pytest.fixture
def blobs():
    """Three classes, five examples of each, and thirty more to judge on."""
    x, y = make_blobs(45, centers=[(0, 0), (6, 0), (0, 6)], n_features=2, random_state=0)
    return x[:15], np.array(["left", "right", "top"])[y[:15]], x[15:], np.array(["left", "right", "top"])[y[15:]]


@pytest.fixture
def drawings():
    """Four strokes as 28×28 images: (label, shift) → image."""

    def draw(kind: str, shift: int = 0) -> np.ndarray:
        image = np.zeros((28, 28), dtype=np.uint8)
        where = slice(6, 22)
        if kind == "bar":
            image[where, 12 + shift : 15 + shift] = 255
        if kind == "dash":
            image[12 + shift : 15 + shift, where] = 255
        if kind == "cross":
            image[where, 12 + shift : 15 + shift] = image[12:15, where] = 255
        if kind == "ring":
            rows, columns = np.ogrid[:28, :28]
            image[abs(np.hypot(rows - 14, columns - 14 - shift) - 8) < 1.5] = 255
        return image

    return draw


def test_it_learns_and_names(blobs):
    x, y, more, truth = blobs
    model = FewShotClassifier().fit(x, y)
    assert model.classes_.tolist() == ["left", "right", "top"]
    assert model.score(more, truth) > 0.95
    p = model.predict_proba(more)
    np.testing.assert_allclose(p.sum(1), 1)
    assert (model.classes_[p.argmax(1)] == model.predict(more)).all()
    assert model.support_.y.shape == (15, 3)


@pytest.mark.parametrize(
    "names",
    [
        [3, 1, 2],
        ["c", "a", "b"],
        [True, False, True],
        [(1, "x"), (0, "y"), (2, "z")],
        [1, "one", (1,)],
        [2.0, 1.0, 3.0],
    ],
)
def test_class_names_of_any_type(blobs, names, tmp_path):
    x, y, more, truth = blobs
    index = {"left": 0, "right": 1, "top": 2}
    labels = [names[index[label]] for label in y]
    model = FewShotClassifier().fit(x, labels)
    assert set(model.predict(more).tolist()) <= set(names)
    assert model.score(more, [names[index[label]] for label in truth]) > 0.6
    model.save(tmp_path / "model.safetensors")
    again = FewShotClassifier.load(tmp_path / "model.safetensors")
    assert again.predict(more).tolist() == model.predict(more).tolist()
    assert [type(label) for label in again.classes_.tolist()] == [type(label) for label in model.classes_.tolist()]


def test_further_examples_and_classes_leave_the_old_ones_as_they_were(blobs):
    x, y, more, _ = blobs
    model = FewShotClassifier().fit(x[:10], y[:10]).partial_fit(x[10:], y[10:])
    whole = FewShotClassifier().fit(x, y)
    np.testing.assert_allclose(model.predict_proba(more), whole.predict_proba(more), atol=1e-9)
    before = model.support_.x[:15].clone()
    model.partial_fit([[20.0, 20.0], [20.5, 20.0]], ["far", "far"])
    assert model.classes_.tolist() == ["far", "left", "right", "top"]
    assert torch.equal(model.support_.x[:15], before)
    assert model.predict([[20.0, 21.0]]).tolist() == ["far"]
    model.forget("far")
    np.testing.assert_allclose(model.predict_proba(more), whole.predict_proba(more), atol=1e-9)


def test_the_first_partial_fit_is_a_fit(blobs):
    x, y, more, _ = blobs
    first = FewShotClassifier().partial_fit(x, y, classes=["left", "right", "top"])
    assert (first.predict(more) == FewShotClassifier().fit(x, y).predict(more)).all()


def test_pipelines_clones_and_cross_validation():
    x, y = load_iris(return_X_y=True)
    model = make_pipeline(StandardScaler(), FewShotClassifier())
    assert cross_val_score(clone(model), x, y, cv=5).mean() > 0.9
    fitted = FewShotClassifier().fit(x[::10], y[::10])
    assert (pickle.loads(pickle.dumps(fitted)).predict(x) == fitted.predict(x)).all()
    assert clone(fitted).get_params() == fitted.get_params()


def test_a_learner_that_ships_reads_drawings(drawings):
    kinds = ["bar", "dash", "cross"]
    x = np.stack([drawings(kind, shift) for kind in kinds for shift in (-1, 1)])
    model = FewShotClassifier("characters").fit(x, [kind for kind in kinds for _ in range(2)])
    assert model.predict([drawings(kind, 2) for kind in kinds]).tolist() == kinds
    assert model.trust_ is not None
    assert model.predict([drawings("ring")], unknown="?").tolist() == ["?"]
    assert model.predict([drawings("bar")], unknown="?").tolist() == ["bar"]
    assert model.is_unknown([drawings("ring"), drawings("bar")]).tolist() == [True, False]
    assert model.unknown_score([drawings("ring")])[0] > model.unknown_score([drawings("bar")])[0]
    model.partial_fit([drawings("ring", 1)], ["ring"])
    assert model.predict([drawings("ring")], unknown="?").tolist() == ["ring"]
    assert model.embed([drawings("bar")]).shape == (1, 192)
    assert model.support_embedding().shape == (7, 192)


def test_a_learner_of_ones_own_is_taken_as_it_is(drawings):
    torch.manual_seed(0)
    learner = ProtoNet(q.Conv4(width=8))
    x = [drawings("bar", s) for s in (0, 1)] + [drawings("dash", s) for s in (0, 1)]
    model = FewShotClassifier(learner).fit(x, [1, 1, 2, 2])
    assert model.reader_ == ImageReader(size=28, channels=1)
    assert model.predict([drawings("dash", 2)]).tolist() == [2]
    model = FewShotClassifier(ProtoNet(q.MLP(2, (8,), 8))).fit([[0.0, 1], [1, 0]], ["a", "b"])
    assert isinstance(model.reader_, ArrayReader)


def test_without_a_calibration_nothing_is_called_unknown(blobs):
    x, y, *_ = blobs
    first = [int(np.flatnonzero(y == name)[0]) for name in ("left", "right", "top")]
    model = FewShotClassifier().fit(x[first], y[first])
    assert model.trust_ is None
    assert model.predict_proba(x).shape == (15, 3)
    for ask in (model.is_unknown, model.unknown_score, model.predict_set, lambda x: model.predict(x, unknown="?")):
        with pytest.raises(
            ValueError, match=r"nothing to calibrate on .* 9 examples with two of each of two classes: add examples"
        ):
            ask(x)


def test_sets_cover_and_a_coverage_beyond_the_examples_is_refused(blobs):
    x, y, more, truth = blobs
    model = FewShotClassifier().fit(more, truth)
    sets = model.predict_set(x, coverage=0.9)
    assert len(sets) == 15
    assert sum(label in found for label, found in zip(y, sets, strict=True)) >= 12
    with pytest.raises(ValueError, match=r"no more than 0\.995 of coverage"):
        model.predict_set(x, coverage=0.999)
    with pytest.raises(ValueError, match="rests on 30 examples; required are 99"):
        model.predict_set(x, coverage=0.99)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a"] * 15, "all of one class, 'a'; required are at least two classes"),
        (["a", "b"], "15 examples and 2 labels were given; required is one label for each"),
        ([None] + ["a", "b"] * 7, r"y\[0\] is None; required is a label for each example"),
        ([float("nan")] + [1.0, 2.0] * 7, r"y\[0\] is nan; required is a label"),
        (None, "requires y to be passed"),
        (np.linspace(0.1, 1.2, 15), "Unknown label type"),
    ],
)
def test_labels_that_cannot_be_learnt(blobs, labels, message):
    with pytest.raises((ValueError, TypeError), match=message):
        FewShotClassifier().fit(blobs[0], labels)


def test_what_is_refused_leaves_the_model_as_it_was(blobs):
    x, y, more, _ = blobs
    model = FewShotClassifier().fit(x, y)
    before = model.predict_proba(more)
    for call, message in [
        (lambda: model.partial_fit(x[:2], ["left"]), "2 examples and 1 labels"),
        (lambda: model.partial_fit(np.zeros((1, 3)), ["left"]), "3 features"),
        (lambda: model.forget("nowhere"), "'nowhere' is not known; required is one of 'left', 'right', 'top'"),
        (lambda: model.predict(np.zeros((1, 3))), "3 features"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    np.testing.assert_array_equal(model.predict_proba(more), before)
    model.forget("left")
    with pytest.raises(ValueError, match="without 'top' only 'right' would be left; required are two classes"):
        model.forget("top")


def test_before_fit_and_of_an_unknown_name():
    for call in (lambda m: m.predict([[1.0]]), lambda m: m.forget("a"), lambda m: m.embed([[1.0]])):
        with pytest.raises(NotFittedError):
            call(FewShotClassifier())
    with pytest.raises(
        ValueError, match="learner 'nothing'; required is a Learner, a run folder, a learner file, or one of"
    ):
        FewShotClassifier("nothing").fit([[1.0], [2.0]], [0, 1])


def test_a_transductive_learner_sees_the_queries():
    learner = q.LEARNERS["tim"](torch.nn.Identity())
    x, y = make_blobs(60, centers=[(-8, 0), (8, 0)], random_state=0)
    model = FewShotClassifier(learner, reader=ArrayReader()).fit(x[:6], y[:6])
    assert model.score(x[6:], y[6:]) > 0.9


def test_a_saved_model_goes_on_learning(drawings, tmp_path):
    path = tmp_path / "model.safetensors"
    x = [drawings(kind, shift) for kind in ("bar", "dash") for shift in (0, 1)]
    model = FewShotClassifier("characters", false_alarms=0.1).fit(x, ["bar", "bar", "dash", "dash"])
    model.save(path)
    again = q.load_model(path)
    assert isinstance(again, FewShotClassifier)
    assert again.false_alarms == 0.1
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))
    assert again.predict([drawings("ring")], unknown="?").tolist() == ["?"]
    again.partial_fit([drawings("ring")], ["ring"]).forget("bar")
    assert again.classes_.tolist() == ["dash", "ring"]
    assert path.stat().st_size < 2_500_000


def test_own_networks_come_along_by_name(tmp_path):
    path = tmp_path / "model.safetensors"
    network = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh())
    model = FewShotClassifier(SimpleShot(network)).fit([[0.0, 1.0], [1.0, 0.0]], ["a", "b"])
    model.save(path)
    other = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh())
    again = FewShotClassifier.load(path, backbone=other)
    np.testing.assert_allclose(again.predict_proba([[0.3, 0.2]]), model.predict_proba([[0.3, 0.2]]))
    with pytest.raises(ValueError, match=r"load\(path, backbone=...\)"):
        FewShotClassifier.load(path)


def test_a_refused_fit_leaves_what_was_learnt():
    rows = [{"c": "red"}] * 6 + [{"c": "blue"}] * 6
    model = FewShotClassifier().fit(rows, ["a"] * 6 + ["b"] * 6)
    with pytest.raises(ValueError, match="all of one class"):
        model.fit([{"c": "red"}] * 6 + [{"c": "yellow"}] * 6, ["a"] * 12)
    assert model.predict([{"c": "red"}, {"c": "blue"}]).tolist() == ["a", "b"]


def test_a_new_class_of_one_example_keeps_what_is_known_of_the_others():
    x, y = make_blobs(40, centers=[(0, 0), (6, 0), (0, 6), (6, 6)], random_state=0)
    model = FewShotClassifier().fit(x, y)
    assert model.trust_ is not None
    before = model.trust_.at(4, 10)
    model.partial_fit([[20.0, 20.0]], [9])
    assert model.trust_ is not None
    assert model.trust_.at(4, 10) == before
    assert model.unknown_score(x[:2]).shape == (2,)


def test_with_two_classes_of_ones_own_nobody_knows_how_an_unknown_one_looks():
    x, y = make_blobs(40, centers=[(0, 0), (6, 0)], random_state=0)
    model = FewShotClassifier().fit(x, y)
    assert len(model.predict_set(x[:2])) == 2
    with pytest.raises(ValueError, match="required is a third class with two examples"):
        model.is_unknown(x[:2])


def test_a_learner_of_ones_own_is_copied():
    torch.manual_seed(0)
    learner = ProtoNet(q.MLP(2, (8,), 8)).train()
    x = [[0.0, 1.0], [1.0, 0.0], [0.1, 1.0], [1.0, 0.1]]
    model = FewShotClassifier(learner).fit(x, [0, 1, 0, 1])
    before = model.predict_proba(x)
    assert learner.training
    with torch.no_grad():
        for p in learner.parameters():
            p.zero_()
    np.testing.assert_array_equal(model.predict_proba(x), before)


def test_a_loaded_model_is_fitted_again_with_its_calibration(drawings, tmp_path):
    x, y = [drawings("bar"), drawings("dash")], ["bar", "dash"]
    model = FewShotClassifier("characters").fit(x, y)
    model.save(tmp_path / "model.safetensors")
    again = FewShotClassifier.load(tmp_path / "model.safetensors")
    for other in (again.fit(x, y), clone(again).fit(x, y)):
        assert other.trust_ == model.trust_
        assert other.card_ == model.card_


def test_rows_with_gaps_need_no_text():
    model = FewShotClassifier().fit([[1, None], [2, 3.0], [14, 5.0], [15, 6.0]], ["a", "a", "b", "b"])
    assert model.predict([[1.5, None], [14.5, None]]).tolist() == ["a", "b"]
    assert model.n_features_in_ == 2
    with pytest.raises(ValueError, match=r"3 features|3 columns"):
        model.predict(np.zeros((1, 3)))


def test_another_form_of_table_forgets_the_old_columns():
    pandas = pytest.importorskip("pandas")
    model = FewShotClassifier().fit(pandas.DataFrame({"p": [1.0, 2, 8, 9], "q": [0.0, 1, 0, 1]}), [0, 0, 1, 1])
    assert model.feature_names_in_.tolist() == ["p", "q"]
    model.fit([{"u": 1.0}, {"u": 2.0}, {"u": 8.0}, {"u": 9.0}], [0, 0, 1, 1])
    assert "feature_names_in_" not in vars(model)
    assert model.predict([{"u": 8.5}]).tolist() == [1]


def test_labels_keep_their_types():
    x = [[0.0], [1.0], [8.0], [9.0]]
    model = FewShotClassifier().fit([*x, [20.0], [21.0]], [1, 1, "a", "a", "b", "b"])
    assert {type(label) for label in model.classes_.tolist()} == {int, str}
    model.forget(1)
    days = np.array(["2020-01-01", "2020-01-01", "2021-01-01", "2021-01-01"], dtype="datetime64[ns]")
    assert [d.year for d in FewShotClassifier().fit(x, days).classes_.tolist()] == [2020, 2021]
    big = FewShotClassifier().fit(x, [2**63 + 1, 2**63 + 1, -5, -5])
    assert big.predict([[0.0]]).tolist() == [2**63 + 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"false_alarms": "x"}, "false_alarms='x'; required is a number between 0 and 1"),
        ({"false_alarms": 0}, "false_alarms=0; required"),
        ({"reader": ImageReader}, "required is a reader, such as ImageReader"),
        ({"learner": ProtoNet}, "required is a Learner .an object, not its class., a path or a name"),
        ({"learner": None}, "learner=None; required is a Learner"),
    ],
)
def test_settings_that_are_none(settings, message):
    with pytest.raises(ValueError, match=message):
        FewShotClassifier(**settings).fit([[0.0], [1.0]], [0, 1])


def test_a_coverage_that_is_no_number(blobs):
    with pytest.raises(ValueError, match=r"coverage='0\.9'; required is a number"):
        FewShotClassifier().fit(*blobs[:2]).predict_set(blobs[2], coverage="0.9")


def test_pictures_for_a_network_that_no_reader_knows():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 8))
    with pytest.raises(ValueError, match=r"reader=ImageReader\(size=.*channels=.*\)"):
        FewShotClassifier(ProtoNet(network)).fit(["a.png", "b.png"], [0, 1])

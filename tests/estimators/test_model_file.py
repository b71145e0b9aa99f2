"""Model files: what comes back, and files that are cut, edited, foreign or from the future."""

import json
import struct

import numpy as np
import pytest

import quickstudy as q
from quickstudy import FewShotClassifier, load_model
from quickstudy.estimators.model_file import KEY
from quickstudy.saving import read_tensors, write_tensors


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.safetensors"
    x = np.random.default_rng(0).normal(size=(12, 3))
    x[::2, 0] += 5
    FewShotClassifier().fit(x, ["a", "b"] * 6).save(path)
    return path


def change(path, **changes):
    header, tensors = read_tensors(path, KEY)
    write_tensors(path, tensors, KEY, {**header, **changes})


def test_a_table_with_names_and_categories_comes_back(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"age": [30, 40, None, 60, 25, 70] * 2, "job": ["clerk", "nurse", "clerk", None, "nurse", "clerk"] * 2}
    )
    model = FewShotClassifier().fit(frame, [0, 1, 0, 1, 0, 1] * 2)
    model.save(tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    np.testing.assert_allclose(again.predict_proba(frame), model.predict_proba(frame))
    assert again.feature_names_in_.tolist() == ["age", "job"]
    with pytest.raises(ValueError, match="unseen at fit time"):
        again.predict(frame.rename(columns={"job": "work"}))
    assert again.partial_fit(frame, [0, 1, 0, 1, 0, 1] * 2).support_.x.shape[0] == 24


def test_trust_and_rate_come_back(path):
    model = load_model(path)
    assert model.trust_ is not None
    assert model.predict_set([[5.0, 0, 0]], coverage=0.9)
    assert model.false_alarms == 0.05
    model.partial_fit([[0.0, 0, 0]] * 2, ["c"] * 2)
    assert model.trust_.at(3, 5).way == 3  # measured again, with the new class


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[: len(b) // 2], "is cut or is no safetensors file: use a whole copy of it"),
        (lambda b: b[:-1] + bytes([b[-1] ^ 1]), r"was altered after it was written \(its SHA-256 differs\)"),
        (lambda b: b"", "is cut or is no safetensors file"),
        (lambda b: b"PK\x03\x04" + b[4:], "is cut or is no safetensors file"),
    ],
)
def test_damaged_files_are_refused(path, damage, message):
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        load_model(path)


def test_files_that_say_something_else_are_refused(path, tmp_path):
    original = path.read_bytes()
    for changes, message in [
        (
            {"format": 2},
            "has format 2, and this version of quickstudy reads format 1: install the version that wrote it",
        ),
        ({"model": "Other"}, r"does not describe a model \(KeyError\('Other'\)\): use a copy that was not edited"),
        ({"classes": ["a"]}, "does not describe a model|not enough values"),
        ({"learner": {"class": "Os"}}, "holds a 'Os', which this version of quickstudy lacks"),
        ({"reader": {"kind": "smells"}}, "'smells' is not known"),
    ]:
        path.write_bytes(original)
        change(path, **changes)
        with pytest.raises(ValueError, match=message):
            load_model(path)
    q.save(q.ProtoNet(q.MLP(2, (4,), 2)), tmp_path / "learner.safetensors")
    with pytest.raises(
        ValueError, match=r"is a learner: hand it to .* FewShotClassifier.*; required is a fitted model"
    ):
        load_model(tmp_path / "learner.safetensors")
    with pytest.raises(ValueError, match="cannot be read"):
        load_model(tmp_path / "nothing.safetensors")


def test_an_edited_header_is_noticed(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["support.y"]["shape"] = header["support.y"]["shape"][::-1]
    text = json.dumps(header).encode().ljust(length)
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    with pytest.raises(ValueError, match=r"SHA-256 differs|is cut"):
        load_model(path)


def test_names_that_no_file_holds_and_models_without_examples(tmp_path):
    with pytest.raises(
        ValueError, match=r"class name .* of type frozenset, which a file cannot hold; required are texts"
    ):
        FewShotClassifier().fit([[0.0], [1.0]], [frozenset("a"), frozenset("b")]).save(tmp_path / "x")
    with pytest.raises(ValueError, match="not fitted"):
        FewShotClassifier().save(tmp_path / "x")
    assert not (tmp_path / "x").exists()

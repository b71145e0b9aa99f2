"""A fitted model as an ONNX file: the same answers, for any number of examples, and a file that explains itself."""

import json
import logging
import sys
import warnings
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy import learners
from quickstudy.estimators import FewShotClassifier, FewShotRegressor
from quickstudy.estimators.exporting import export_onnx
from quickstudy.estimators.onnx_graph import NotExportable
from quickstudy.learners import Ridge
from quickstudy.readers import ArrayReader, ImageReader, TableReader
from quickstudy.trust import SCORES
from tests.contract import CASES


@pytest.fixture
def vectors():
    """24 examples of three classes, 6 numbers each."""
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b", "c"], 8)
    return rng.normal(size=(24, 6)) + 2 * np.eye(3, 6)[np.repeat(range(3), 8)], y


@pytest.fixture
def images():
    """Six images of two classes, 16×16."""
    return torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0)).numpy(), [0, 1, 0, 1, 0, 1]


def built(case: str) -> q.Learner:
    torch.manual_seed(0)
    return CASES[case].build()


def run(path, x, name: str):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    kind = np.float64 if session.get_inputs()[0].type == "tensor(double)" else np.float32
    return session.run(None, {"x": np.asarray(x, kind)})[names.index(name)]


def metadata(path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


@pytest.mark.parametrize(
    "case",
    ["protonet", "maml, shared", "maml, prototypes", "matching_net", "rare_memory", "in context", "relation_net"],
)
def test_the_graph_answers_as_the_model(case, vectors, tmp_path):
    x, y = vectors
    model = FewShotClassifier(built(case), reader=ArrayReader()).fit(x, y)
    done = export_onnx(model, tmp_path / "model.onnx")
    assert done.largest_difference <= 1e-4
    for n in (1, 2, 24):
        found = run(done.path, x[:n], "probabilities")
        assert np.abs(found - model.predict_proba(x[:n])).max() <= 1e-4


def test_images_through_population_statistics(images, tmp_path):
    x, y = images
    learner = built("protonet, conv4")
    with torch.no_grad():
        for module in learner.modules():
            if isinstance(module, q.backbones.norm.Standardize):
                module.observe(torch.randn(9, module.channels, 4, 4, generator=torch.Generator().manual_seed(1)))
    model = FewShotClassifier(learner, reader=ImageReader(size=16)).fit(x, y)
    done = export_onnx(model, tmp_path / "model.onnx")
    assert np.abs(run(done.path, x[:3], "probabilities") - model.predict_proba(x[:3])).max() <= 1e-4


def test_a_table_with_missing_values_and_categories(tmp_path):
    rows = [{"size": i if i % 3 else None, "colour": "red" if i % 2 else "blue"} for i in range(12)]
    model = FewShotClassifier().fit(rows, ["x" if i < 6 else "y" for i in range(12)])
    done = export_onnx(model, tmp_path / "model.onnx")
    found = run(done.path, model.reader_.read(rows), "probabilities")
    assert np.abs(found - model.predict_proba(rows)).max() <= 1e-4
    assert json.loads(metadata(done.path)["reader"])["kind"] == "tables"


@pytest.mark.parametrize("regression", [False, True])
def test_columns_of_large_numbers(regression, tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"seconds": 1.7e9 + 40 * rng.normal() + 60 * (i % 2), "size": 1e6 + rng.normal() + i % 2, "width": 1e-6 * i}
        for i in range(24)
    ]
    if regression:
        model = FewShotRegressor().fit(rows, [row["seconds"] - 1.7e9 for row in rows])
        name, answer = "prediction", lambda x: model.predict(x)[:, None]
    else:
        model = FewShotClassifier().fit(rows, ["ab"[i % 2] for i in range(24)])
        name, answer = "probabilities", model.predict_proba
    done = export_onnx(model, tmp_path / "model.onnx")
    assert done.largest_difference < 1e-6
    assert json.loads(metadata(done.path)["input"])["type"] == "float64"
    found = run(done.path, model.reader_.read(rows), name)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, answer(rows), atol=1e-6)
    assert "unknown_score" not in done.outputs  # nothing tells of a third class


def test_weights_keep_a_graph_of_tables_in_their_precision(vectors, tmp_path):
    x, y = vectors
    rows = [dict(zip("abcdef", row, strict=True)) for row in x.tolist()]
    model = FewShotClassifier(built("protonet"), reader=TableReader()).fit(rows, y)
    done = export_onnx(model, tmp_path / "model.onnx")
    assert json.loads(metadata(done.path)["input"])["type"] == "float32"
    assert np.abs(run(done.path, x[:3], "probabilities") - model.predict_proba(rows[:3])).max() <= 1e-4


def test_the_learner_that_ships(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (42, 28, 28), dtype=np.uint8)  # more than it compares at once
    model = FewShotClassifier("characters").fit(images, [1, 2, 3] * 14)
    done = export_onnx(model, tmp_path / "model.onnx")
    found = run(done.path, model.reader_.read(images), "probabilities")
    assert np.abs(found - model.predict_proba(images)).max() <= 1e-4


def test_numbers(tmp_path):
    x = np.random.default_rng(0).normal(size=(12, 3))
    model = FewShotRegressor(Ridge(), reader=ArrayReader()).fit(x, 100 * x[:, 0] + x[:, 1])
    done = export_onnx(model, tmp_path / "model.onnx")
    assert done.outputs == ("prediction",)
    np.testing.assert_allclose(run(done.path, x, "prediction")[:, 0], model.predict(x), rtol=1e-4, atol=1e-2)
    assert metadata(done.path)["model"] == "FewShotRegressor"
    assert "classes" not in metadata(done.path)


def test_double_precision_is_compared_with_the_model_itself(vectors, tmp_path):
    model = FewShotClassifier(built("protonet").double(), reader=ArrayReader()).fit(*vectors)
    done = export_onnx(model, tmp_path / "model.onnx")
    assert 0 < done.largest_difference <= 1e-5
    assert model.learner_.backbone[0].weight.dtype == torch.float64


@pytest.mark.parametrize("score", SCORES)
def test_every_unknown_score_has_operators(score, vectors, tmp_path):
    model = FewShotClassifier(built("protonet"), reader=ArrayReader()).fit(*vectors)
    assert model.trust_ is not None
    model._trusted._trust = replace(model.trust_, score=score)
    done = export_onnx(model, tmp_path / "model.onnx", tolerance=1e-5)
    rows = vectors[0] * 3
    scores = model.unknown_score(rows)
    assert run(done.path, rows, "unknown_score") == pytest.approx(scores, abs=1e-5 * max(1, np.abs(scores).max()))


def test_the_file_says_what_it_is(vectors, tmp_path):
    x, y = vectors
    model = FewShotClassifier(reader=None).fit(x, y)
    assert model.trust_ is not None
    done = export_onnx(model, tmp_path / "model.onnx")
    facts = metadata(done.path)
    assert json.loads(facts["classes"]) == ["a", "b", "c"]
    assert json.loads(facts["input"]) == {"name": "x", "shape": ["n", 6], "type": "float64"}
    assert facts["quickstudy"] == q.__version__
    assert json.loads(facts["temperature"]) == pytest.approx(model._trusted.calibrated("test")[1].temperature)
    unknown = json.loads(facts["unknown"])
    assert unknown["score"] == model.trust_.score
    far = np.concatenate([x, 50 * x])
    rejected = run(done.path, model.reader_.read(far), "unknown_score") > unknown["above"]
    assert rejected.tolist() == model.is_unknown(far).tolist()
    sets = json.loads(facts["sets"])
    scores = -run(done.path, x, "logits") if sets["by"] == "logit" else 1 - run(done.path, x, "probabilities")
    inside = scores <= sets["at_most"]["0.9"]
    assert [[k for k, there in zip("abc", row, strict=True) if there] for row in inside] == model.predict_set(x, 0.9)


def test_nothing_of_this_machine_is_in_the_file_and_nothing_is_said(vectors, tmp_path, capfd):
    model = FewShotClassifier(built("protonet"), reader=ArrayReader()).fit(*vectors)
    level = logging.getLogger("torch.onnx").level
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        done = export_onnx(model, tmp_path / "model.onnx")
    assert not caught
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("torch.onnx").level == level
    content = done.path.read_bytes()
    assert b".py" not in content
    assert b"quickstudy/" not in content
    onnx.checker.check_model(onnx.load(done.path))


class Branches(nn.Module):
    """Computes something else for some examples: no graph has that."""

    def forward(self, x):
        return x if float(x.sum()) > 0 else 2 * x


class PerBatch(nn.Module):
    """Takes ten examples at most, which shows with more than the graph is traced with."""

    def forward(self, x):
        if len(x) == 1:
            raise ValueError("a batch of one has no spread")
        return x


def test_what_cannot_be_written_is_refused(vectors, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"before")
    for learner, message in (
        (q.ProtoNet(Branches()), r"ProtoNet cannot be written as an ONNX graph: .*another learner"),
        (q.ProtoNet(PerBatch()), r"ProtoNet cannot answer 1 example at once \(a batch of one.*batch statistics"),
        (learners.TIM(nn.Identity(), iterations=2), r"TIM adapts anew to every set of queries.*quickstudy predict"),
    ):
        model = FewShotClassifier(learner, reader=ArrayReader())
        model.fit(*vectors)
        with pytest.raises(NotExportable, match=message):
            export_onnx(model, path)
    model = FewShotClassifier(built("protonet"), reader=ArrayReader()).fit(*vectors)
    with pytest.raises(NotExportable, match=r"differs by up to .*required is at most 0.*tolerance="):
        export_onnx(model, path, tolerance=0)
    for name in ("onnxruntime", "onnxscript", "onnx"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(NotExportable, match=rf"{name} is not installed.*quickstudy\[onnx\]"):
                export_onnx(model, path)
    with pytest.raises(ValueError, match="not fitted"):
        export_onnx(FewShotClassifier(), path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]

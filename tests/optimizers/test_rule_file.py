"""One file per rule: what goes in comes out, and nothing else is accepted."""

import json
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load as tensors_from_bytes
from torch import nn

import quickstudy as q
from quickstudy.optimizers import (
    RULES,
    LSTMRule,
    MLPRule,
    TunedAdam,
    TunedSGD,
    load_rule,
    load_rule_with_facts,
    open_rule,
    rule_file,
    save_rule,
)
from quickstudy.tensor_file import _checksum

BUILD = {
    "lstm": lambda: LSTMRule(3, p=7.0, lr=0.02, seed=5),
    "mlp": lambda: MLPRule(4, momenta=(0.5, 0.9), moments=(0.9, 0.99), lr=0.02, seed=5),
    "sgd": lambda: TunedSGD(["layers.0.weight", "bias"], lr=0.3, momentum=0.8),
    "adam": lambda: TunedAdam(["layers.0.weight", "bias"], lr=0.3, betas=(0.8, 0.9), eps=1e-6),
}


def changed(rule: nn.Module) -> nn.Module:
    with torch.no_grad():
        for p in rule.parameters():
            p.add_(0.01)
    return rule


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rule.safetensors"
    save_rule(BUILD["mlp"](), path)
    return path


def test_every_named_rule_is_covered():
    assert {name: type(build()) for name, build in BUILD.items()} == RULES


@pytest.mark.parametrize("name", BUILD)
def test_every_rule_comes_back_as_it_was(name, tmp_path):
    rule, path = changed(BUILD[name]()), tmp_path / "deep" / "rule.safetensors"
    save_rule(rule, str(path))
    twin = load_rule(str(path))
    assert type(twin) is type(rule)
    assert not twin.training
    assert all(p.requires_grad for p in twin.parameters())
    weights = rule.state_dict()
    assert twin.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in twin.state_dict().items())
    params = {"layers.0.weight": torch.ones(3, 2), "other": torch.ones(2)}
    grads = {key: p * 0.3 for key, p in params.items()}
    with torch.no_grad():
        one, two = (each.step(params, grads, each.init(params))[0] for each in (rule, twin))
    assert all(torch.equal(one[key], two[key]) for key in params)


def test_facts_and_the_precision_come_back_too(tmp_path):
    save_rule(BUILD["mlp"]().double(), tmp_path / "f", facts={"problems": "mlp", "seed": 3})
    rule, facts = load_rule_with_facts(tmp_path / "f")
    assert facts == {"problems": "mlp", "seed": 3}
    assert {p.dtype for p in rule.parameters()} == {torch.float64}
    save_rule(BUILD["mlp"](), tmp_path / "f")
    assert load_rule_with_facts(tmp_path / "f")[1] == {}


def test_a_file_holds_tensors_and_json_and_no_pickle(file):
    with safe_open(file, "pt") as opened:
        assert set(opened.keys()) == set(BUILD["mlp"]().state_dict())
        header = json.loads(opened.metadata()["quickstudy_rule"])
    assert header["format"] == 1
    assert header["rule"]["class"] == "MLPRule"
    assert header["rule"]["arguments"]["momenta"] == [0.5, 0.9]


def test_a_rule_of_ones_own_is_not_saved(tmp_path):
    class Own(TunedSGD):
        """Not the class of its name."""

    with pytest.raises(ValueError, match=r"Own was given; a rule file holds one of LSTMRule, .*TunedAdam: save"):
        save_rule(Own(), tmp_path / "f")
    assert not (tmp_path / "f").exists()


def edited(content: bytes, change) -> bytes:
    """The same file with another description, and the checksum that belongs to it."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    description = change(json.loads(header["__metadata__"]["quickstudy_rule"]))
    rest = {name: value for name, value in description.items() if name != "sha256"}
    description = {**rest, "sha256": _checksum(tensors_from_bytes(content), rest)}
    header["__metadata__"]["quickstudy_rule"] = json.dumps(description)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def rule_is(**change):
    return lambda d: {**d, "rule": {**d["rule"], **change}}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda b: b[:-1], " is cut or is no safetensors file: use a whole copy"),
        (lambda b: b"", " is cut"),
        (lambda b: b.replace(b'"quickstudy_rule"', b'"other_rule_file"'), " was not written .*is an update rule"),
        (lambda b: b.replace(b"MLPRule", b"MLPRole"), " was altered after it was written"),
        (lambda b: b[:-1] + bytes([b[-1] ^ 0x40]), " was altered after it was written"),
        (lambda b: edited(b, lambda d: {**d, "format": 2}), " has format 2, .* reads format 1: install"),
        (lambda b: edited(b, lambda d: {"format": 1}), " does not describe a rule"),
        (lambda b: edited(b, lambda d: {**d, "rule": "MLPRule"}), " does not describe a rule"),
        (lambda b: edited(b, rule_is(**{"class": "GRURule"})), " holds a 'GRURule', .*has LSTMRule, .*: install"),
        (lambda b: edited(b, rule_is(**{"class": ["MLPRule"]})), r" holds a \['MLPRule'\]"),
        (lambda b: edited(b, rule_is(arguments={"units": 1})), " does not describe a rule .*units.*: use a copy"),
        (lambda b: edited(b, rule_is(arguments={"hidden": 0})), " does not describe a rule .*hidden=0"),
        (lambda b: edited(b, rule_is(arguments=3)), " does not describe a rule"),
        (lambda b: edited(b, rule_is(arguments={"hidden": 5})), r": the weights do not fit[\s\S]*size mismatch"),
        (lambda b: edited(b, rule_is(**{"class": "LSTMRule", "arguments": {}})), r": the weights do not fit[\s\S]*"),
    ],
)  # fmt: skip
def test_a_spoilt_or_edited_file_is_refused_and_named(file, spoil, words):
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(ValueError, match=rf"rule\.safetensors{words}"):
        load_rule(file)


def test_files_of_other_kinds_are_told_apart(tmp_path, file):
    q.save(q.NearestNeighbour(), tmp_path / "learner")
    with pytest.raises(ValueError, match=r"learner is a learner: hand .*; required is an update rule"):
        load_rule(tmp_path / "learner")
    with pytest.raises(ValueError, match=r"is an update rule: hand it to quickstudy\.LearnedOptimizer.*is a learner"):
        q.load(file)
    with pytest.raises(ValueError, match=r"nothing cannot be read .*check the path"):
        load_rule(tmp_path / "nothing")


def test_a_rule_opens_by_file_run_folder_or_itself(tmp_path, file):
    rule = BUILD["adam"]()
    assert open_rule(rule) is rule
    for path in (file, str(file), tmp_path, str(tmp_path)):
        assert isinstance(open_rule(path), MLPRule)


def test_a_rule_that_ships_opens_by_its_name_in_single_precision(tmp_path, monkeypatch):
    monkeypatch.setattr(rule_file, "_FOLDER", tmp_path)
    monkeypatch.chdir(tmp_path)
    save_rule(BUILD["mlp"]().half(), tmp_path / "optimizer_mlp.safetensors")
    save_rule(BUILD["lstm"](), tmp_path / "mlp")
    rule = open_rule("mlp")
    assert isinstance(rule, MLPRule)
    assert {p.dtype for p in rule.parameters()} == {torch.float32}
    assert isinstance(open_rule("./mlp"), LSTMRule)


def test_a_shipped_file_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(rule_file, "_FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"'lstm' ships .*optimizer_lstm\.safetensors is missing .*--rule lstm"):
        open_rule("lstm")


@pytest.mark.parametrize("rule", ["sgd", "nothing.safetensors", "MLP"])
def test_an_unknown_name_lists_what_there_is(rule, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"rule='{rule}' is neither .* a name among lstm, mlp, a rule file, or a run"):
        open_rule(rule)


def test_what_is_no_rule_is_refused(tmp_path):
    with pytest.raises(ValueError, match=rf"the folder {tmp_path} holds no rule\.safetensors; .*: check the path"):
        open_rule(tmp_path)
    with pytest.raises(ValueError, match=r"Linear was given as the rule; required is a module with init\(params\)"):
        open_rule(nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r"rule=3 was given; required is a name among lstm, mlp"):
        open_rule(3)  # pyright: ignore[reportArgumentType]

"""One file per learner: what goes in comes out, and nothing else is accepted."""

import json
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load as tensors_from_bytes
from torch import nn

import quickstudy as q
from quickstudy import learners, saving
from quickstudy.backbones import ConvMaps, LocalDescriptors, ResNet12, ResNet18, SmallResNet
from quickstudy.episode import Labelled
from quickstudy.inner import SGD, ByName, Curvature, LearnedRates, Proximal, StepRates, TorchOptim, Truncated
from quickstudy.learners import LEARNERS
from quickstudy.tensor_file import _checksum

BUILD = {
    "nearest neighbour": lambda: q.NearestNeighbour(),
    "protonet, mlp": lambda: q.ProtoNet(q.MLP(4, (8, 6), 5)),
    "protonet, mlp without hidden layers": lambda: q.ProtoNet(q.MLP(4, (), 5)),
    "protonet, conv4": lambda: q.ProtoNet(q.Conv4(2, 8, image_size=16)),
    "protonet, conv4 batch": lambda: q.ProtoNet(q.Conv4(2, 8, norm="batch", image_size=16)),
    "protonet, conv4 group": lambda: q.ProtoNet(q.Conv4(2, 8, norm="group", pool="stride", image_size=16)),
    "maml": lambda: q.MAML(q.MLP(4, (8,), 5), inner_lr=0.3, inner_steps=2, first_order=True),
    "maml, prototypes": lambda: q.MAML(q.MLP(4, (8,), 5), head="prototypes"),
    "maml, own output": lambda: q.MAML(q.MLP(4, (8,), 3), head=None),
    "maml, regression": lambda: q.MAML(q.MLP(4, (8,), 3), head=None, regression=True),
    "ridge": lambda: learners.Ridge(q.MLP(4, (8,), 5), scale="together"),
    "linear probe": lambda: q.LinearProbe(q.MLP(4, (8,), 5), steps=7, lr=0.5, l2=0.01),
    "classifier": lambda: q.Classifier(q.MLP(4, (8,), 5), 3),
    "proto_maml": lambda: q.ProtoMAML(q.MLP(4, (8,), 5), inner_steps=2),
    "meta_sgd": lambda: q.MetaSGD(q.MLP(4, (8,), 5), inner_lr=0.3),
    "meta_curvature": lambda: q.MetaCurvature(q.MLP(4, (8,), 5), inner_lr=0.3, inner_steps=2),
    "meta_lstm": lambda: learners.MetaLSTM(q.MLP(4, (8,), 5), inner_lr=0.3, hidden=3, seed=2),
    "reptile": lambda: q.Reptile(q.MLP(4, (8,), 5), inner_lr=0.3, train_steps=3),
    "imaml": lambda: q.IMAML(q.MLP(4, (8,), 5), solver="neumann", iterations=7),
    "cavia": lambda: q.CAVIA(q.MLP(4 + 2, (8,), 3), context=2),
    "leo": lambda: q.LEO(q.MLP(4, (8,), 5), features=5, latent=3, dropout=0.0),
    "bayesian_maml": lambda: q.BayesianMAML(q.MLP(4, (8,), 3), particles=2, inner_lr=0.1),
    "matching_net": lambda: learners.MatchingNet(q.MLP(4, (8,), 5), scale=3.0, full_context=True, steps=2),
    "siamese": lambda: learners.Siamese(q.MLP(4, (8,), 5), units=6, match="mean"),
    "relation_net, maps, conv4": lambda: learners.RelationNet(ConvMaps(2, 8, image_size=16), hidden=3),
    "triplet_embedding": lambda: learners.TripletEmbedding(q.MLP(4, (8,), 5), margin=None, answer_by="nearest"),
    "local_matching, resnet, conv4": lambda: learners.LocalMatching(
        LocalDescriptors(SmallResNet(2, 4, (8, 8)), dim=3, image_size=16), window=3, rivals=4
    ),
    "supervised_contrastive": lambda: learners.SupervisedContrastive(q.MLP(4, (8,), 5), scale=7.0),
    "r2d2": lambda: learners.R2D2(q.MLP(4, (8,), 5), strength=2.0),
    "meta_opt_net": lambda: learners.MetaOptNet(q.MLP(4, (8,), 5), c=0.3),
    "simple_shot": lambda: learners.SimpleShot(q.MLP(4, (8,), 2), centre=[0.5, -0.25], scale=3.0),
    "simple_shot, resnet, conv4": lambda: learners.SimpleShot(
        SmallResNet(2, 4, (8,), precision="bfloat16"), views=((0, 1), (-1, 0))
    ),
    "feat": lambda: learners.FEAT(q.MLP(4, (8,), 5), norm="pre"),
    "tim": lambda: learners.TIM(q.MLP(4, (8,), 5), iterations=3),
    "mann": lambda: learners.MANN(q.MLP(4, (8,), 5), classes=4, width=6, slots=8, word=4, heads=2),
    "rare_memory": lambda: learners.RareMemory(q.MLP(4, (8,), 5), size=16, neighbours=8),
    "snail": lambda: learners.SNAIL(q.MLP(4, (8,), 5), classes=4, length=8, filters=4, attention=((4, 4),) * 3),
    "in_context": lambda: learners.InContext(q.MLP(4, (8,), 5), width=8, layers=1, heads=2),
    "cnp": lambda: q.CNP(4, 3, width=8),
    "attentive_np": lambda: q.AttentiveNP(4, 3, width=8, heads=2, latent=True),
    "resnet12, conv4": lambda: q.ProtoNet(ResNet12(2, (4, 8))),
    "resnet18, conv4": lambda: q.ProtoNet(ResNet18(2, (4, 8))),
}


class Own(nn.Module):
    """A network that no description can rebuild."""

    def __init__(self, width: int = 5):
        super().__init__()
        self.layer = nn.Linear(4, width)

    def forward(self, x):
        return self.layer(x.flatten(1)).tanh()


class OwnLearner(q.Learner[Labelled]):
    """A learner that the library does not know."""

    def __init__(self, scale: float):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def adapt(self, support, query_x=None):
        return support

    def predict(self, adapted, x):
        return -self.scale * torch.cdist(x, adapted.x) @ adapted.y


def answer(learner: q.Learner, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    dtype = next((p.dtype for p in learner.parameters()), torch.float32)
    x = torch.randn(9, *shape, generator=generator, dtype=dtype)
    support = q.Labelled(x[:6], q.one_hot(torch.arange(6) % 3, 3).to(dtype))
    return learner.eval().answer(support, x[6:])


@pytest.mark.parametrize("name", BUILD)
def test_every_learner_and_backbone_comes_back_as_it_was(name, tmp_path):
    learner, path = BUILD[name](), tmp_path / "deep" / "learner.safetensors"
    for buffer in learner.buffers():
        buffer.add_(1)
    q.save(learner, path)
    twin = q.load(path)
    assert type(twin) is type(learner)
    assert repr(twin) == repr(learner)
    assert not twin.training
    settings = {k: v for k, v in vars(learner).items() if not k.startswith("_") and k != "training"}
    assert {k: v for k, v in vars(twin).items() if k in settings} == settings
    shape = (2, 16, 16) if "conv4" in name else (4,)
    assert torch.equal(answer(learner, *shape), answer(twin, *shape))
    assert [path.name] == [p.name for p in path.parent.iterdir()]


def test_every_named_learner_is_covered():
    assert {type(build()) for build in BUILD.values()} >= set(LEARNERS.values())


def test_a_path_may_be_text(tmp_path):
    q.save(q.NearestNeighbour(), f"{tmp_path}/learner.safetensors")
    assert isinstance(q.load(f"{tmp_path}/learner.safetensors"), q.NearestNeighbour)


def test_the_precision_comes_back_too(tmp_path):
    learner = BUILD["maml"]().double()
    q.save(learner, tmp_path / "f")
    assert next(q.load(tmp_path / "f").parameters()).dtype == torch.float64
    assert torch.equal(answer(learner, 4), answer(q.load(tmp_path / "f"), 4))


def test_saving_does_not_change_the_learner(tmp_path):
    learner = BUILD["protonet, mlp"]().train()
    q.save(learner, tmp_path / "f")
    assert learner.training
    assert all(p.requires_grad for p in learner.parameters())


def test_a_file_holds_tensors_and_json_and_no_pickle(tmp_path):
    learner = BUILD["maml"]()
    q.save(learner, tmp_path / "f")
    with safe_open(tmp_path / "f", "pt") as file:
        assert set(file.keys()) == set(learner.state_dict())
        description = json.loads(file.metadata()["quickstudy"])
    assert description["learner"]["class"] == "MAML"
    assert description["learner"]["arguments"]["inner_steps"] == 2
    assert description["learner"]["arguments"]["network"] == {
        "class": "MLP",
        "arguments": {"in_features": 4, "hidden": [8], "out_features": 5},
    }


def test_a_network_of_ones_own_is_handed_over(tmp_path):
    learner = q.ProtoNet(Own())
    q.save(learner, tmp_path / "f")
    assert torch.equal(answer(q.load(tmp_path / "f", backbone=Own()), 4), answer(learner, 4))


def test_a_learner_of_ones_own_is_handed_over(tmp_path):
    q.save(OwnLearner(3.0), tmp_path / "f")
    assert torch.equal(answer(q.load(tmp_path / "f", learner=OwnLearner(0.0)), 4), answer(OwnLearner(3.0), 4))
    with pytest.raises(ValueError, match=r"OwnLearner.*load\(path, learner=\.\.\.\)"):
        q.load(tmp_path / "f")


def test_an_argument_that_is_a_dict_is_not_taken_for_a_network(tmp_path, monkeypatch):
    class Weighted(OwnLearner):
        def __init__(self, weights: dict):
            super().__init__(1.0)
            self.weights = weights

    monkeypatch.setitem(saving._KNOWN, "Weighted", Weighted)
    for weights in ({}, {"class": "MLP"}, {"own": 1}, {"value": {"a": [1]}}):
        q.save(Weighted(weights), tmp_path / "f")
        assert q.load(tmp_path / "f").weights == weights  # pyright: ignore


def test_tied_parameters_are_saved_and_stay_tied(tmp_path):
    def tied() -> nn.Module:
        first, second = nn.Linear(4, 4), nn.Linear(4, 4)
        second.weight = first.weight
        return nn.Sequential(first, nn.Tanh(), second)

    learner = q.ProtoNet(tied())
    q.save(learner, tmp_path / "f")
    twin = q.load(tmp_path / "f", backbone=tied())
    assert twin.backbone[0].weight is twin.backbone[2].weight  # pyright: ignore
    assert torch.equal(answer(learner, 4), answer(twin, 4))


def test_a_missing_network_is_asked_for_by_name(tmp_path):
    q.save(q.MAML(Own()), tmp_path / "f")
    with pytest.raises(ValueError, match=r"f was saved with Own.*as its network: .*load\(path, network=\.\.\.\)"):
        q.load(tmp_path / "f")
    with pytest.raises(ValueError, match=r"network=\.\.\."):
        q.load(tmp_path / "f", backbone=Own())


def test_a_network_that_does_not_fit_is_refused(tmp_path):
    q.save(q.ProtoNet(Own(5)), tmp_path / "f")
    with pytest.raises(ValueError, match=r"f: the weights do not fit[\s\S]*backbone\.layer\.weight"):
        q.load(tmp_path / "f", backbone=Own(6))
    with pytest.raises(ValueError, match=r"do not fit[\s\S]*backbone\.layer\.weight"):
        q.load(tmp_path / "f", backbone=nn.Linear(4, 5))


def test_a_network_that_has_no_place_is_refused(tmp_path):
    q.save(BUILD["protonet, mlp"](), tmp_path / "f")
    with pytest.raises(ValueError, match="no use for backbone"):
        q.load(tmp_path / "f", backbone=Own())


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "learner.safetensors"
    q.save(BUILD["maml"](), path)
    return path


def edited(content: bytes, change) -> bytes:
    """The same file with another description, and the checksum that belongs to it."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    description = change(json.loads(header["__metadata__"]["quickstudy"]))
    if isinstance(description, dict):
        rest = {name: value for name, value in description.items() if name != "sha256"}
        description = {**rest, "sha256": _checksum(tensors_from_bytes(content), rest)}
    header["__metadata__"]["quickstudy"] = json.dumps(description)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def learner_is(**change):
    return lambda d: {**d, "learner": {**d["learner"], **change}}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda b: b[:-1], "is cut or is no safetensors file: use a whole copy"),
        (lambda b: b[:100], "is cut"),
        (lambda b: b"", "is cut"),
        (lambda b: b"PK\x03\x04" + b, "is cut or is no safetensors file"),
        (lambda b: b.replace(b'"quickstudy"', b'"elsewhere1"'), "was not written by quickstudy"),
        (lambda b: edited(b, lambda d: {**d, "format": 2}), "has format 2, and this version .* reads format 1"),
        (lambda b: edited(b, lambda d: {"format": 1, "sha256": d["sha256"]}), "does not describe a learner"),
        (lambda b: edited(b, lambda d: ["MAML"]), "is cut or"),
        (lambda b: edited(b, lambda d: {**d, "learner": "MAML"}), "does not describe a learner"),
        (lambda b: edited(b, learner_is(**{"class": "TAML"})), "holds a 'TAML', which this version"),
        (lambda b: edited(b, lambda d: {**d, "learner": d["learner"]["arguments"]["network"]}), "holds a MLP"),
        (lambda b: edited(b, learner_is(arguments={})), "does not describe a learner"),
        (lambda b: edited(b, learner_is(arguments={"inner_leaps": 1})), "does not describe a learner"),
    ],
)  # fmt: skip
def test_a_spoilt_or_edited_file_is_refused_and_named(file, spoil, words):
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(ValueError, match=rf"learner\.safetensors {words}"):
        q.load(file)


def test_an_edited_description_is_noticed(file):
    content = file.read_bytes()
    file.write_bytes(content.replace(b"MAML", b"MEML"))
    assert file.read_bytes() != content
    with pytest.raises(ValueError, match=r"was altered after it was written \(its SHA-256 differs\)"):
        q.load(file)


def test_edited_weights_are_refused(file):
    file.write_bytes(edited(file.read_bytes(), lambda d: json.loads(json.dumps(d).replace("[8]", "[9]"))))
    with pytest.raises(ValueError, match=r"do not fit[\s\S]*size mismatch"):
        q.load(file)


def test_a_missing_file_a_folder_and_a_checkpoint_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nothing cannot be read .*check the path"):
        q.load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        q.load(tmp_path)
    learner = BUILD["protonet, mlp"]()
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
    q.save_checkpoint(tmp_path / "c", learner, optimizer, step=0, generator=torch.Generator())
    with pytest.raises(ValueError, match=r"is a checkpoint of training: .*; required is a learner"):
        q.load(tmp_path / "c")


def test_a_newer_file_replaces_the_older_one(file):
    q.save(q.NearestNeighbour(), file)
    assert isinstance(q.load(file), q.NearestNeighbour)


def test_flipped_bytes_are_noticed(file):
    content = bytearray(file.read_bytes())
    for i in range(10):
        content[-1 - 7 * i] ^= 0x40
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"learner\.safetensors was altered after it was written.*use a whole copy"):
        q.load(file)


RULES = {
    "proximal": lambda: Proximal(SGD(0.1, momentum=0.5), 0.3),
    "by name": lambda: ByName({"head.*": SGD(0.3), "*": TorchOptim("Adam", lr=0.01, learn=("lr",))}),
    "learned rates": lambda: LearnedRates({"network.layers.0.weight": (8, 4), "head.weight": (1, 8)}, 0.2),
    "rates of each step": lambda: StepRates(["head.weight", "head.bias"], 3, 0.2),
    "curvature": lambda: Curvature({"head.weight": (1, 8)}, 0.2),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("mode", ["recompute", Truncated(last=2)], ids=str)
def test_update_rules_and_modes_are_saved_with_their_learner(rule, mode, tmp_path):
    adapts = {"learned rates": "*weight", "rates of each step": "head.*", "curvature": "head.weight"}.get(rule, "*")
    if rule == "learned rates":
        adapts = ("network.layers.0.weight", "head.weight")
    learner = q.MAML(q.MLP(4, (8,), 8), rule=RULES[rule](), mode=mode, adapts=adapts)
    with torch.no_grad():
        for p in learner.update_rule.parameters():
            p.add_(0.01)
    q.save(learner, tmp_path / "l.safetensors")
    again = q.load(tmp_path / "l.safetensors")
    assert again.mode == mode
    x, y = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), q.one_hot(torch.arange(6) % 3, 3)
    one, two = (model.predict(model.adapt(q.Labelled(x, y)), x) for model in (learner.eval(), again))
    torch.testing.assert_close(one, two, rtol=0, atol=0)

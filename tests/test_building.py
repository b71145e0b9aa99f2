"""From the settings of a run to its learner."""

import dataclasses

import pytest
import torch

import quickstudy as q
from quickstudy import building
from quickstudy.backbones import ConvMaps, LocalDescriptors, WithLinear
from quickstudy.building import build
from quickstudy.episode import task
from quickstudy.learners import LEARNERS, LocalMatching, RelationNet
from tests.small_runs import PROTONET, SINUSOID

pytestmark = pytest.mark.usefixtures("made_glyphs")


@pytest.mark.parametrize(
    "name", [name for name, cls in LEARNERS.items() if building._arguments_of(cls)[:1] in (["backbone"], ["network"])]
)
def test_every_learner_that_stands_on_a_network_is_built_by_its_name(name):
    inner = {"inner_steps": 2} if issubclass(LEARNERS[name], building._WITH_INNER_LOOP) else {}
    backbone = "small_resnet" if name == "local_matching" else "conv4"
    settings = dataclasses.replace(PROTONET, learner=name, width=8, backbone=backbone, **inner)
    tasks = settings.part("train")
    trained, learner, distribution = build(settings, tasks)
    assert type(learner) is LEARNERS[name]
    generator = torch.Generator().manual_seed(0)
    q.unrolled(trained, distribution.sample(1, generator=generator), strategy="loop").backward()
    support, query = task(tasks.sample(1, generator=generator), 0)
    assert learner.eval().answer(support, query.x).shape == query.y.shape


def test_options_are_arguments_of_the_learner_and_shape_settings_reach_one_that_takes_them(monkeypatch):
    class Fixed(q.ProtoNet):
        def __init__(self, backbone: torch.nn.Module, way: int, *, scale: float = 1.0, inner_lr: float = 0.5):
            super().__init__(backbone)
            self.way, self.scale, self.inner_lr = way, scale, inner_lr

    monkeypatch.setitem(LEARNERS, "fixed", Fixed)
    settings = dataclasses.replace(PROTONET, learner="fixed", options={"scale": 2, "inner_lr": 0.25})
    learner = build(settings, settings.part("train"))[1]
    assert isinstance(learner, Fixed)
    assert (learner.way, learner.scale, learner.inner_lr) == (3, 2, 0.25)
    default = build(dataclasses.replace(settings, options={}), settings.part("train"))[1]
    assert default.inner_lr == 0.5  # pyright: ignore
    for change, words in (
        ({"options": {"size": 2}}, r"\['size'\] are no arguments of fixed; it takes way, scale, inner_lr"),
        ({"inner_lr": 0.3}, r"inner_lr=0\.3 was given, and fixed has no such setting: say --option inner_lr="),
        ({"inner_steps": 7}, "inner_steps=7 was given, and fixed has no such setting: leave it out"),
        ({"tasks": "sinusoid"}, "fixed classifies, and sinusoid has numbers to predict: use maml"),
    ):
        changed = dataclasses.replace(settings, **change)
        with pytest.raises(ValueError, match=words):
            build(changed, changed.part("train"))


def test_a_relation_net_reads_maps():
    settings = dataclasses.replace(PROTONET, learner="relation_net", width=8, options={"hidden": 3})
    learner = build(settings, settings.part("train"))[1]
    assert isinstance(learner, RelationNet)
    assert isinstance(learner.backbone, ConvMaps)
    assert learner.hidden == 3
    settings = dataclasses.replace(settings, backbone="mlp")
    assert isinstance(build(settings, settings.part("train"))[1].backbone, q.MLP)  # pyright: ignore
    settings = dataclasses.replace(settings, backbone="conv4", pool="stride")
    with pytest.raises(ValueError, match="pool='stride' was given, and relation_net reads maps"):
        build(settings, settings.part("train"))


def test_local_matching_describes_places_of_the_images():
    settings = dataclasses.replace(
        PROTONET, learner="local_matching", backbone="small_resnet", width=16, options={"dim": 5, "window": 3}
    )
    learner = build(settings, settings.part("train"))[1]
    assert isinstance(learner, LocalMatching)
    assert isinstance(learner.backbone, LocalDescriptors)
    assert (learner.dim, learner.window, learner.backbone.grid, learner.backbone.network.stem) == (5, 3, (7, 7), 16)
    with pytest.raises(ValueError, match="backbone='conv4'; local_matching compares places of images"):
        build(dataclasses.replace(settings, backbone="conv4"), settings.part("train"))


def test_a_linear_probe_takes_options():
    settings = dataclasses.replace(PROTONET, learner="linear_probe", options={"steps": 7})
    assert build(settings, settings.part("train"))[1].steps == 7  # pyright: ignore


def test_the_networks_of_an_inner_loop_are_those_of_the_settings():
    for learner, head, network, kept in (
        ("maml", "shared", q.Conv4, "shared"),
        ("maml", "none", WithLinear, None),
        ("bayesian_maml", "shared", WithLinear, None),
        ("cavia", "shared", WithLinear, None),
    ):
        settings = dataclasses.replace(PROTONET, learner=learner, head=head, width=8)
        built = build(settings, settings.part("train"))[1]
        assert type(built.network) is network  # pyright: ignore
        assert getattr(built, "head", None) == kept
    settings = dataclasses.replace(PROTONET, learner="imaml", mode="recompute")
    with pytest.raises(ValueError, match="mode='recompute' was given, and imaml has no such setting: leave it out"):
        build(settings, settings.part("train"))


def test_a_precision_that_an_inner_loop_does_not_survive_and_a_network_without_context_are_refused():
    settings = dataclasses.replace(PROTONET, learner="maml", backbone="resnet12", precision="bfloat16")
    with pytest.raises(ValueError, match="'bfloat16' does not survive an inner loop"):
        build(settings, settings.part("train"))
    settings = dataclasses.replace(PROTONET, backbone="mlp", precision="bfloat16")
    with pytest.raises(ValueError, match="'bfloat16' is for networks that read images: leave it out"):
        build(settings, settings.part("train"))
    settings = dataclasses.replace(PROTONET, learner="cavia", backbone="resnet12")
    with pytest.raises(ValueError, match="cavia's network reads its context: choose conv4 or mlp"):
        build(settings, settings.part("train"))


def test_a_neural_process_takes_no_backbone():
    settings = dataclasses.replace(SINUSOID, learner="cnp", head="shared", inner_lr=0.1)
    assert isinstance(build(settings, settings.part("train"))[1], q.CNP)
    for change in ({"backbone": "resnet12"}, {"norm": "batch"}, {"precision": "bfloat16"}):
        changed = dataclasses.replace(settings, **change)
        with pytest.raises(ValueError, match="cnp has no backbone: leave backbone, norm and precision out"):
            build(changed, changed.part("train"))

"""From the settings of a run to its learner: the network, and those arguments that the learner takes by name."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from quickstudy.backbones import MLP, Conv4, ConvMaps, LocalDescriptors, ResNet12, ResNet18, SmallResNet, WithLinear
from quickstudy.episode import TaskDistribution
from quickstudy.learner import Learner
from quickstudy.learners import (
    CAVIA,
    LEARNERS,
    LEO,
    BayesianMAML,
    Classifier,
    LinearProbe,
    LocalMatching,
    RelationNet,
)
from quickstudy.learners.gradient_based import GradientBased
from quickstudy.learners.neural_process import NeuralProcess
from quickstudy.runs import Settings
from quickstudy.tasks import AllClasses, examples_of
from quickstudy.tasks.named import REGRESSION

_RESNETS = {"resnet12": ResNet12, "resnet18": ResNet18, "small_resnet": SmallResNet}
_WITH_INNER_LOOP = (GradientBased, LEO, BayesianMAML)  # take head, inner_lr, ... of the settings; others: options alone
_PREDICTS_NUMBERS = (GradientBased, BayesianMAML, NeuralProcess)  # every other learner tells classes apart
_BY_CLASSIFICATION = (LinearProbe,)  # their backbone is trained by plain classification over all classes


def build(settings: Settings, tasks: TaskDistribution) -> tuple[Learner, Learner, TaskDistribution]:
    """The learner that is trained, the learner that is judged and saved, and what the first is trained on.

    They differ for the learners of ``_BY_CLASSIFICATION`` alone: their backbone is trained by plain classification.
    """
    cls = LEARNERS.get(settings.learner)
    if cls is None:
        raise ValueError(f"learner {settings.learner!r} is not known; choose among {', '.join(LEARNERS)}")
    if not _arguments_of(cls):
        raise ValueError(f"{settings.learner} has nothing to train: evaluate it by its name")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.seed)  # initial weights are drawn by torch's own layers
        if issubclass(cls, _BY_CLASSIFICATION):
            examples = examples_of(tasks)
            if examples is None:
                raise ValueError(f"{settings.learner} classifies, and {settings.tasks} are no classes: use maml")
            learner = _learner(cls, settings, tasks)
            classifier = Classifier(cast(Any, learner).backbone, len(examples))
            return classifier, learner, AllClasses(examples, batch=settings.way * settings.queries)
        learner = _learner(cls, settings, tasks)
        return learner, learner, tasks


def build_backbone(settings: Settings, tasks: TaskDistribution) -> nn.Module:
    """The network that ``settings`` describe, sized for the examples of ``tasks``."""
    if settings.precision != "float32" and settings.backbone == "mlp":
        raise ValueError(f"precision={settings.precision!r} is for networks that read images: leave it out")
    shape = tuple(tasks.sample(1, generator=torch.Generator().manual_seed(0)).support.x.shape[2:])
    if settings.backbone == "mlp":
        hidden = (settings.width, settings.width)
        return MLP(int(np.prod(shape)), hidden, 1 if settings.tasks in REGRESSION else settings.width)
    if settings.backbone not in ("conv4", *_RESNETS):
        raise ValueError(f"backbone={settings.backbone!r}; choose among conv4, mlp, {', '.join(_RESNETS)}")
    if len(shape) != 3:
        raise ValueError(
            f"{settings.backbone} reads images, and examples of {settings.tasks} have shape {shape}: use backbone 'mlp'"
        )
    if settings.backbone in _RESNETS:
        cls = _RESNETS[settings.backbone]
        widths = inspect.signature(cls).parameters["widths"].default  # of a network whose first width is 64
        sizes: dict[str, Any] = {"widths": tuple(max(1, width * settings.width // 64) for width in widths)}
        if cls is SmallResNet:
            sizes["stem"] = settings.width
        return cls(shape[0], norm=settings.norm, precision=settings.precision, **sizes)  # pyright: ignore
    return Conv4(
        shape[0],
        settings.width,
        norm=settings.norm,  # pyright: ignore[reportArgumentType]
        pool=settings.pool,  # pyright: ignore[reportArgumentType]
        image_size=shape[1],
        precision=settings.precision,  # pyright: ignore[reportArgumentType]
    )


def _learner(cls: type[Learner], settings: Settings, tasks: TaskDistribution) -> Learner:
    """The learner on its network, with those of the settings and options that its constructor takes by name."""
    if settings.tasks in REGRESSION and not issubclass(cls, _PREDICTS_NUMBERS):
        raise ValueError(f"{settings.learner} classifies, and {settings.tasks} has numbers to predict: use maml")
    taken = _arguments_of(cls)[1:]  # the first is the network
    unknown = set(settings.options) - set(taken)
    if unknown:
        names = ", ".join(taken) or "nothing but a network"
        raise ValueError(f"{sorted(unknown)} are no arguments of {settings.learner}; it takes {names}")
    arguments = {**_from_settings(cls, settings, taken), **settings.options}
    if issubclass(cls, NeuralProcess):
        return _neural_process(cls, settings, tasks, arguments)
    build_network = _NETWORKS.get(cls, build_backbone)
    if issubclass(cls, GradientBased) and cls not in _NETWORKS and settings.head == "none":
        build_network = _linear_network
    network = build_network(settings, tasks)
    try:
        return cls(network, **arguments)  # pyright: ignore[reportCallIssue]
    except TypeError as error:
        raise ValueError(f"{settings.learner} cannot take {settings.options} ({error}): mend the options") from error


def _neural_process(
    cls: type[Learner], settings: Settings, tasks: TaskDistribution, arguments: dict[str, Any]
) -> Learner:
    """A neural process, which has no backbone: sized for the inputs of ``tasks``, of the width of ``settings``."""
    if settings.tasks not in REGRESSION:
        raise ValueError(f"{settings.learner} predicts numbers, and {settings.tasks} has classes: use protonet")
    if settings.backbone not in ("conv4", "mlp") or (settings.norm, settings.precision) != ("population", "float32"):
        raise ValueError(f"{settings.learner} has no backbone: leave backbone, norm and precision out")
    shape = tuple(tasks.sample(1, generator=torch.Generator().manual_seed(0)).support.x.shape[2:])
    try:
        return cls(int(np.prod(shape)), **{"width": settings.width, **arguments})  # pyright: ignore[reportCallIssue]
    except TypeError as error:
        raise ValueError(f"{settings.learner} cannot take {settings.options} ({error}): mend the options") from error


def _arguments_of(cls: type[Learner]) -> list[str]:
    """The names of the constructor's arguments."""
    parameters = inspect.signature(cls).parameters.values()
    return [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _from_settings(cls: type[Learner], settings: Settings, taken: list[str]) -> dict[str, Any]:
    """Those of the settings that the learner takes; one that it cannot take and that was changed is refused."""
    adapts = tuple(settings.adapts.split(","))
    given = {
        "head": None if settings.head == "none" or settings.tasks in REGRESSION else settings.head,
        "inner_lr": settings.inner_lr,
        "inner_steps": settings.inner_steps,
        "first_order": settings.first_order,
        "adapts": adapts if len(adapts) > 1 else settings.adapts,
        "mode": settings.mode,
    }
    if issubclass(cls, _WITH_INNER_LOOP):
        refused = {"first_order", "adapts", "mode"} - set(taken)
        given["backbone_frozen"] = settings.init is not None  # of LEO, which expects features that were trained before
        if settings.precision != "float32":
            raise ValueError(f"precision={settings.precision!r} does not survive an inner loop: leave it out")
    else:
        refused, given = set(given), {"way": settings.way, "shot": settings.shot}
    for field in dataclasses.fields(Settings):
        if field.name in refused and getattr(settings, field.name) != field.default:
            hint = f"say --option {field.name}=..." if field.name in taken else "leave it out"
            raise ValueError(
                f"{field.name}={getattr(settings, field.name)!r} was given, and {settings.learner} has no such "
                f"setting: {hint}"
            )
    return {name: value for name, value in given.items() if name in taken}


def _cavia_network(settings: Settings, tasks: TaskDistribution) -> nn.Module:
    """CAVIA's network reads the context as well: further numbers of a vector, further channels of an image."""
    if settings.backbone not in ("conv4", "mlp"):
        raise ValueError(f"backbone={settings.backbone!r}; cavia's network reads its context: choose conv4 or mlp")
    shape = tuple(tasks.sample(1, generator=torch.Generator().manual_seed(0)).support.x.shape[2:])
    context = int(settings.options.get("context", 5))
    if settings.backbone == "mlp":
        out = 1 if settings.tasks in REGRESSION else settings.way
        return MLP(int(np.prod(shape)) + context, (settings.width, settings.width), out)
    conv = Conv4(shape[0] + context, settings.width, norm="group", pool=settings.pool, image_size=shape[1])  # pyright: ignore[reportArgumentType]
    return WithLinear(conv, settings.way)


def _linear_network(settings: Settings, tasks: TaskDistribution) -> nn.Module:
    """The paper's own network: a linear layer fixes the way; where numbers are predicted, the backbone itself."""
    backbone = build_backbone(settings, tasks)
    return backbone if settings.tasks in REGRESSION else WithLinear(backbone, settings.way)


def _maps_network(settings: Settings, tasks: TaskDistribution) -> nn.Module:
    """Conv4 with its feature maps in place of a vector; any other backbone as it is."""
    backbone = build_backbone(settings, tasks)
    if not isinstance(backbone, Conv4):
        return backbone
    if backbone.pool != "max":
        raise ValueError(
            f"pool={backbone.pool!r} was given, and {settings.learner} reads maps, which are pooled: use max"
        )
    return ConvMaps(
        backbone.in_channels,
        backbone.width,
        norm=backbone.norm,
        image_size=backbone.image_size,
        precision=backbone.precision,
    )


def _describing_network(settings: Settings, tasks: TaskDistribution) -> nn.Module:
    """A small residual network that describes the places of an image beside the whole."""
    if settings.backbone != "small_resnet":
        raise ValueError(
            f"backbone={settings.backbone!r}; {settings.learner} compares places of images, which small_resnet "
            "describes: give backbone small_resnet, or take protonet where examples are no images"
        )
    backbone = build_backbone(settings, tasks)
    assert isinstance(backbone, SmallResNet)
    side, other = tasks.sample(1, generator=torch.Generator().manual_seed(0)).support.x.shape[-2:]
    dim = settings.options.get("dim", 64)
    if side != other or not isinstance(dim, int):
        raise ValueError(
            f"images of {side}×{other} pixels and dim={dim} were given; {settings.learner} takes square images, and a "
            "whole number of numbers for each of their places"
        )
    return LocalDescriptors(backbone, dim=dim, image_size=side)


_NETWORKS: dict[type[Learner], Callable[[Settings, TaskDistribution], nn.Module]] = {
    CAVIA: _cavia_network,
    BayesianMAML: _linear_network,
    RelationNet: _maps_network,
    LocalMatching: _describing_network,
}
"""The network of each learner that takes another than ``build_backbone`` makes."""

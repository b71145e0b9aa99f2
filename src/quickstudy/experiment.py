"""One training run in one folder: what ``quickstudy train`` and ``quickstudy demo`` do.

A run leaves config.json, metrics.jsonl, checkpoint.safetensors and learner.safetensors (the best on meta-validation).
"""

import dataclasses
import inspect
import math
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

import quickstudy
from quickstudy.backbones import MLP, Conv4, ConvMaps, ResNet12, ResNet18, SmallResNet, WithLinear
from quickstudy.checkpoint import load_checkpoint, save_checkpoint
from quickstudy.episode import TaskDistribution
from quickstudy.evaluation import Score, evaluate, mean_squared_error
from quickstudy.learner import Learner, fit_to
from quickstudy.learners import CAVIA, LEARNERS, LEO, BayesianMAML, Classifier, LinearProbe, RelationNet
from quickstudy.learners.gradient_based import GradientBased
from quickstudy.learners.neural_process import NeuralProcess
from quickstudy.outer import Strategy, fastest_strategy, unrolled
from quickstudy.process import deferred_interrupts
from quickstudy.runs import RunFolder, Settings
from quickstudy.saving import load, save
from quickstudy.tasks import AllClasses, ClassTasks, InTurn, RandomAffine, RandomElastic, examples_of
from quickstudy.tasks.named import REGRESSION
from quickstudy.training import meta_train, settle_statistics

_CHECKPOINT_SECONDS = 30.0
_RESNETS = {"resnet12": ResNet12, "resnet18": ResNet18, "small_resnet": SmallResNet}
_WITH_INNER_LOOP = (GradientBased, LEO, BayesianMAML)  # take head, inner_lr, ... of the settings; others: options alone
_PREDICTS_NUMBERS = (GradientBased, BayesianMAML, NeuralProcess)  # every other learner tells classes apart
_BY_CLASSIFICATION = (LinearProbe,)  # their backbone is trained by plain classification over all classes


@dataclass(frozen=True)
class Progress:
    """Where a run stands: outer step of ``steps``, mean loss since the last record, best meta-validation so far."""

    step: int
    steps: int
    loss: float
    best: float | None


def train(
    settings: Settings,
    path: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_step: Callable[[Progress], None] | None = None,
    device: torch.device | None = None,
) -> RunFolder:
    """Meta-train one learner in one folder.

    Args:
        settings: all arguments; when resuming, those of the run must be handed in again.
        path: the run folder.
        resume: go on from the checkpoint in the folder, bit for bit.
        overwrite: replace a run that is there.
        on_step: called after each outer step.
        device: where to train, by default the CPU.

    Raises:
        ValueError: settings that do not go together, or a folder in the wrong state.
        KeyboardInterrupt: after Ctrl-C, once the checkpoint is written.
    """
    folder = RunFolder(path)
    for name in ("steps", "meta_batch", "validation_episodes"):
        if getattr(settings, name) < 1:
            raise ValueError(f"{name}={getattr(settings, name)}; required is at least 1")
    if resume and folder.settings() != settings:
        theirs, ours = dataclasses.asdict(folder.settings()), dataclasses.asdict(settings)
        changed = [f"{k}={theirs[k]!r} there, {ours[k]!r} now" for k in ours if theirs[k] != ours[k]]
        raise ValueError(f"{folder.path} was started with other settings ({'; '.join(changed)}): resume with the same")
    tasks = settings.part(settings.train_part)
    validation = _validation(settings)
    trained, judged, plain = build(settings, tasks)
    distribution = _augmented(plain, settings.elastic) if settings.augment or settings.elastic else plain
    if settings.init is not None:
        _start_from(judged, Path(settings.init))
    trained.to(device or "cpu")
    optimizer, scheduler = _outer(settings, trained)
    generator = torch.Generator().manual_seed(settings.seed)
    notes: dict[str, Any] = {"best": None, "best_step": None, "losses": [], "seconds": 0.0, "cpu_seconds": 0.0}
    step = 0
    if resume:
        _same_data(folder, tasks)
        if folder.checkpoint.exists():
            checkpoint = load_checkpoint(
                folder.checkpoint, trained, optimizer, generator=generator, scheduler=scheduler
            )
            step, notes = checkpoint.step, checkpoint.notes
        folder.forget_after(step)
    else:
        folder.start(settings, overwrite=overwrite, facts=_facts(settings, tasks))
    if "strategy" not in notes:
        notes["strategy"] = _strategy(settings, trained, distribution)
    log_every = max(1, settings.steps // 200)
    began, written = time.perf_counter() - notes["seconds"], -math.inf  # the first step leaves a checkpoint
    cpu_began = time.process_time() - notes.get("cpu_seconds", math.nan)

    def checkpoint_now(at: int) -> None:
        nonlocal notes
        notes |= {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu_began}
        save_checkpoint(
            folder.checkpoint, trained, optimizer, step=at, generator=generator, scheduler=scheduler, notes=notes
        )

    with deferred_interrupts() as interrupted:
        for done in meta_train(
            trained,
            distribution,
            optimizer,
            steps=settings.steps,
            meta_batch=settings.meta_batch,
            generator=generator,
            meta_loss=partial(unrolled, strategy=cast(Strategy, notes["strategy"])),
            start=step,
        ):
            scheduler.step()
            step = done.step
            notes["losses"].append(done.loss)
            mean_loss = sum(notes["losses"]) / len(notes["losses"])
            if step % log_every == 0 or step == settings.steps:
                folder.record(step=step, loss=mean_loss, lr=scheduler.get_last_lr()[0])
                notes["losses"] = []
            last = step == settings.steps
            if last or (validation is not None and step % settings.validate_every == 0):
                settle_statistics(trained, plain, generator=torch.Generator().manual_seed(step))
            if validation is not None and (step % settings.validate_every == 0 or last):
                score = _validate(judged, validation, settings, seed=settings.seed + 1)
                folder.record(step=step, validation=score.mean, ci95=score.ci95, metric=score.metric)
                sign = -1 if score.metric == mean_squared_error.__name__ else 1
                if math.isfinite(score.mean) and (notes["best"] is None or sign * score.mean > sign * notes["best"]):
                    notes["best"], notes["best_step"] = score.mean, step
                    save(judged, folder.learner)
            elif validation is None and last:
                save(judged, folder.learner)
            if on_step is not None:
                on_step(Progress(step, settings.steps, mean_loss, notes["best"]))
            stop = interrupted()
            if last or stop or time.perf_counter() - written > _CHECKPOINT_SECONDS:
                checkpoint_now(step)
                written = time.perf_counter()
            if stop and not last:
                raise KeyboardInterrupt
    return folder


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


def _augmented(tasks: TaskDistribution, elastic: bool) -> TaskDistribution:
    """The same tasks with random affine changes of their images, and bent ones if asked for."""
    examples = examples_of(tasks)
    if examples is None or examples.x.ndim != 4:
        raise ValueError("augment changes images, and these tasks have none: leave it out")
    examples = examples.replace(augment=InTurn((RandomAffine(), RandomElastic())) if elastic else RandomAffine())
    return examples if isinstance(tasks, ClassTasks) else dataclasses.replace(cast(Any, tasks), tasks=examples)


def build_backbone(settings: Settings, tasks: TaskDistribution) -> nn.Module:
    """The network that ``settings`` describe, sized for the examples of ``tasks``."""
    if settings.precision != "float32" and settings.backbone not in _RESNETS:
        raise ValueError(f"precision={settings.precision!r} is for {', '.join(_RESNETS)}: leave it out")
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
    return Conv4(shape[0], settings.width, norm=settings.norm, pool=settings.pool, image_size=shape[1])  # pyright: ignore[reportArgumentType]


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
    return ConvMaps(backbone.in_channels, backbone.width, norm=backbone.norm, image_size=backbone.image_size)


_NETWORKS: dict[type[Learner], Callable[[Settings, TaskDistribution], nn.Module]] = {
    CAVIA: _cavia_network,
    BayesianMAML: _linear_network,
    RelationNet: _maps_network,
}
"""The network of each learner that takes another than ``build_backbone`` makes."""


def _start_from(learner: Learner, path: Path) -> None:
    """Take over the parameters of a saved learner, or of its network alone where the learner is of another kind."""
    start = load(RunFolder(path).learner if path.is_dir() else path)
    ours, theirs = (learner, start) if type(learner) is type(start) else (_network_of(learner), _network_of(start))
    weights = dict(theirs.named_parameters())
    wanted = {name: p.shape for name, p in ours.named_parameters()}
    if wanted != {name: p.shape for name, p in weights.items()}:
        raise ValueError(f"{path} holds a learner of another shape: give the settings it was trained with")
    buffers = {name: b for name, b in theirs.named_buffers() if name in dict(ours.named_buffers())}
    ours.load_state_dict({**weights, **buffers}, strict=False)


def _network_of(learner: Learner) -> nn.Module:
    """The one network that a learner is built on."""
    parts = dict(learner.named_children())
    return parts.get("network", parts.get("backbone", learner))


def _outer(settings: Settings, learner: Learner) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": partial(torch.optim.SGD, momentum=0.9)}
    if settings.optimizer not in kinds or settings.schedule not in ("cosine", "constant"):
        raise ValueError(
            f"optimizer={settings.optimizer!r}, schedule={settings.schedule!r}; choose the optimizer among "
            f"{', '.join(kinds)} and the schedule among cosine, constant"
        )
    optimizer = kinds[settings.optimizer](learner.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    if settings.clip > 0:

        def clip(*_: Any) -> None:
            nn.utils.clip_grad_norm_(learner.parameters(), settings.clip)

        optimizer.register_step_pre_hook(clip)
    if settings.schedule == "cosine":
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(1, settings.steps))
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def _strategy(settings: Settings, learner: Learner, tasks: TaskDistribution) -> str:
    """The strategy of the whole run: measured once, as a resumed run that chose otherwise would round otherwise."""
    if settings.strategy != "auto":
        return settings.strategy
    episodes = tasks.sample(settings.meta_batch, generator=torch.Generator().manual_seed(settings.seed))
    return fastest_strategy(learner.train(), fit_to(episodes, learner))


def _validation(settings: Settings) -> TaskDistribution | None:
    if settings.validate_every <= 0 or settings.train_part != "train":
        return None
    way, shot = settings.validation_way or settings.way, settings.validation_shot or settings.shot
    return settings.part("validation", way=way, shot=shot)


def _validate(learner: Learner, tasks: TaskDistribution, settings: Settings, *, seed: int) -> Score:
    return evaluate(
        learner,
        tasks,
        episodes=settings.validation_episodes,
        generator=torch.Generator().manual_seed(seed),
    )


def _same_data(folder: RunFolder, tasks: TaskDistribution) -> None:
    """Refuse to go on with other examples than the run began with."""
    began = folder.read_config().get("data_sha256")
    examples = examples_of(tasks)
    if examples is not None and began not in (None, examples.checksum()):
        raise ValueError(
            f"{folder.path} was trained on other data than those found now (their SHA-256 differ): point --root or "
            "QUICKSTUDY_DATA to the same ones, or start a new run"
        )


def _facts(settings: Settings, tasks: TaskDistribution) -> dict[str, Any]:
    versions = {
        "quickstudy": quickstudy.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    examples = examples_of(tasks)
    return {
        "versions": versions,
        "data_sha256": None if examples is None else examples.checksum(),
        "machine": {"threads": torch.get_num_threads(), "processor": platform.machine()},
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
